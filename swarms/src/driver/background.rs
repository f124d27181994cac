//! Polls the work while no caller does.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::timeout;

use super::wait_list::Background;
use super::{Kind, POLLS, PollGuard, Shared};
use crate::waiters::wake_all;

/// How long the background task waits for a caller before it polls the work itself. A reader that receives in
/// a loop calls much sooner; the background task costs it at most a hundred wake-ups a second.
pub(crate) const GRACE: Duration = Duration::from_millis(10);

/// Polls the work while no caller does, until the driver is closed.
pub(super) async fn run<K: Kind>(shared: Arc<Shared<K>>) {
    while poll_fn(|cx| shared.poll_while_idle(cx)).await {
        loop {
            let before = shared.list().progress();
            // Until the next check is due, or the mode changes.
            let watched = timeout(GRACE, poll_fn(|cx| shared.watch(cx))).await;
            if watched.is_ok() || shared.list().reassess(before) != Background::Watching {
                break;
            }
        }
    }
}

impl<K: Kind> Shared<K> {
    /// Polls the work while active, and waits while idle, until it is to watch. Returns whether the driver is
    /// open.
    fn poll_while_idle(&self, cx: &mut Context<'_>) -> Poll<bool> {
        for polls in 0.. {
            let mut list = self.list();
            if list.closed || list.background == Background::Watching {
                return Poll::Ready(!list.closed);
            }
            let outdated = list.background_waker.replace(cx.waker().clone());
            let may_continue = polls < POLLS && has_budget_remaining();
            let steps = may_continue && list.background == Background::Active && list.is_runnable();
            if steps {
                list.begin(None, None);
                drop(list);
                let guard = PollGuard::new(self);
                self.poll_work();
                guard.end(self.list_after_poll(), false);
            } else if !may_continue && list.is_runnable() {
                drop(list);
                cx.waker().wake_by_ref();
            } else {
                // A caller may have registered during this poll, and the remaining work is for it. No other
                // code wakes it, because the polling side is responsible for remaining work.
                let wakers = list.choose_wakers();
                drop(list);
                wake_all(wakers.into_iter().flatten());
            }
            drop(outdated);
            if !steps {
                break;
            }
        }
        Poll::Pending
    }

    /// Waits while it is to watch.
    fn watch(&self, cx: &Context<'_>) -> Poll<()> {
        let mut list = self.list();
        if list.closed || list.background != Background::Watching {
            return Poll::Ready(());
        }
        let outdated = list.background_waker.replace(cx.waker().clone());
        drop(list);
        drop(outdated);
        Poll::Pending
    }
}

//! Polls the work while no caller does.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::timeout;

use super::line::Duty;
use super::{Desk, Kind, POLLS, Shift, make};

/// How long the background task waits for a caller before it polls the work itself. A reader that receives in
/// a loop calls much sooner; the background task costs it at most a hundred wake-ups a second.
pub(super) const GRACE: Duration = Duration::from_millis(10);

/// Polls the work while no caller does, until the driver is closed.
pub(super) async fn run<K: Kind>(desk: Arc<Desk<K>>) {
    while poll_fn(|cx| desk.stand_by(cx)).await {
        loop {
            let before = desk.line().sight();
            // Until the next check is due, or the duty changes.
            let watched = timeout(GRACE, poll_fn(|cx| desk.watch(cx))).await;
            if watched.is_ok() || desk.line().look(before) != Duty::Watch {
                break;
            }
        }
    }
}

impl<K: Kind> Desk<K> {
    /// Polls the work or rests, until the duty is to watch. Returns whether the driver is open.
    fn stand_by(&self, cx: &mut Context<'_>) -> Poll<bool> {
        for polls in 0.. {
            let mut line = self.line();
            if line.closed || line.duty == Duty::Watch {
                return Poll::Ready(!line.closed);
            }
            let outdated = line.background.replace(cx.waker().clone());
            let goes_on = polls < POLLS && has_budget_remaining();
            let steps = goes_on && line.duty == Duty::Work && line.is_free();
            if steps {
                line.begin(None, None);
                drop(line);
                let shift = Shift::new(self);
                self.poll_work();
                shift.end(self.line_after_poll(), false);
            } else if !goes_on && line.is_free() {
                drop(line);
                cx.waker().wake_by_ref();
            } else {
                // A caller may have registered during this poll, and the remaining work is for it. No other
                // code wakes it, because the polling side is responsible for remaining work.
                let calls = line.call();
                drop(line);
                make(calls);
            }
            drop(outdated);
            if !steps {
                break;
            }
        }
        Poll::Pending
    }

    /// Waits while the duty is to watch.
    fn watch(&self, cx: &Context<'_>) -> Poll<()> {
        let mut line = self.line();
        if line.closed || line.duty != Duty::Watch {
            return Poll::Ready(());
        }
        let outdated = line.background.replace(cx.waker().clone());
        drop(line);
        drop(outdated);
        Poll::Pending
    }
}

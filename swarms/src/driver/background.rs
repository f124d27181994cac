//! Polls the work while nobody else does.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::timeout;

use super::line::Duty;
use super::{Desk, Kind, POLLS, Shift, make};

/// How long the work waits for somebody to come before the background does. Who receives in a loop comes much sooner, and
/// pays for the background with a hundred wake-ups a second at most.
pub(super) const GRACE: Duration = Duration::from_millis(10);

/// Polls the work while nobody else does, until the driver is closed.
pub(super) async fn run<K: Kind>(desk: Arc<Desk<K>>) {
    while poll_fn(|cx| desk.stand_by(cx)).await {
        loop {
            let before = desk.line().sight();
            // Until it is time to look, or nobody is expected to come.
            let watched = timeout(GRACE, poll_fn(|cx| desk.watch(cx))).await;
            if watched.is_ok() || desk.line().look(before) != Duty::Watch {
                break;
            }
        }
    }
}

impl<K: Kind> Desk<K> {
    /// Does the background's duty until that is to watch. Says whether the driver is open.
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
                // Somebody may have come in the midst of it, and what is left is theirs. Nobody called them: whoever
                // polls the work sees to what is left.
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

    /// Waits for as long as the background's duty is to watch.
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

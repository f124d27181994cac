//! A running operation of an overlay's engine: its progress and its result.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;

use p2p::{Addr, AskSwarm, Error, Result};
use tokio::sync::{oneshot, watch};

use super::core::{Core, Waiter};
use super::router::Router;
use crate::driver::Interest;

/// A running operation of an overlay. Dropping it cancels it.
///
/// It makes progress without being polled.
pub struct Operation<A: Addr, S: AskSwarm<A>, R: Router<A>, T> {
    core: Arc<Core<A, S, R>>,
    op: R::OpId,
    done: oneshot::Receiver<R::Outcome>,
    progress: watch::Receiver<R::Progress>,
    take: fn(R::Outcome) -> Result<T>,
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>, T> Operation<A, S, R, T> {
    pub(super) fn begin(
        core: &Arc<Core<A, S, R>>,
        call: impl FnOnce(&mut R, std::time::Duration) -> Result<R::OpId>,
        take: fn(R::Outcome) -> Result<T>,
    ) -> Result<Self> {
        let (sender, progress) = watch::channel(R::Progress::default());
        let (done_sender, done) = oneshot::channel();
        let waiter = Waiter {
            progress: sender,
            done: done_sender,
        };
        let op = core.begin(call, waiter)?;
        Ok(Self {
            core: core.clone(),
            op,
            done,
            progress,
            take,
        })
    }

    /// Returns its current progress.
    pub fn progress(&self) -> R::Progress {
        *self.progress.borrow()
    }

    /// Waits for progress and returns it; returns `None` once the operation has ended.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn progressed(&mut self) -> Option<R::Progress> {
        let changed = {
            let mut changed = pin!(self.progress.changed());
            let driver = &self.core.driver;
            driver
                .wait(Interest::Own(()), |cx| changed.as_mut().poll(cx).map(Ok))
                .await
        };
        matches!(changed, Ok(Ok(()))).then(|| *self.progress.borrow())
    }

    /// Waits for the result, and calls `watch` with each progress.
    ///
    /// # Errors
    /// Returns the errors of [`finish`](Self::finish).
    ///
    /// # Cancel safety
    /// Cancelling cancels the operation.
    pub async fn watch(mut self, mut watch: impl FnMut(R::Progress)) -> Result<T> {
        while let Some(progress) = self.progressed().await {
            watch(progress);
        }
        self.finish().await
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] if the swarm is closed before the operation ends, and the errors of the
    /// operation.
    ///
    /// # Cancel safety
    /// Cancelling cancels the operation.
    pub async fn finish(mut self) -> Result<T> {
        let done = &mut self.done;
        let wait = |cx: &mut std::task::Context<'_>| {
            let done = Pin::new(&mut *done).poll(cx);
            done.map(|done| done.map_err(|_| Error::Closed))
        };
        let outcome = self.core.driver.wait(Interest::Own(()), wait).await?;
        (self.take)(outcome)
    }
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>, T> Drop for Operation<A, S, R, T> {
    fn drop(&mut self) {
        self.core.cancel(self.op);
    }
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>, T> fmt::Debug for Operation<A, S, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("op", &self.op)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

/// Returns the error for an outcome that belongs to another kind of operation.
pub(crate) fn unexpected(layer: &'static str, outcome: &impl fmt::Debug) -> Error {
    tracing::error!(
        layer,
        ?outcome,
        "the outcome belongs to another kind of operation"
    );
    Error::invalid(
        "outcome",
        "the outcome belongs to another kind of operation, which is a bug of this library",
    )
}

//! An operation of an overlay's engine, as its caller has it: how far it is, and what comes of it.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;

use p2p::{Addr, AskSwarm, Error, Result};
use tokio::sync::{oneshot, watch};

use super::core::{Core, Waiter};
use super::router::Router;
use crate::driver::Wants;

/// Something that an overlay does for its caller. Dropping it gives it up.
///
/// It goes on while nobody looks at it.
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

    /// How far it is.
    pub fn progress(&self) -> R::Progress {
        *self.progress.borrow()
    }

    /// Waits until it got on, and says how far it is; `None` once it is over.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn progressed(&mut self) -> Option<R::Progress> {
        let changed = {
            let mut changed = pin!(self.progress.changed());
            let driver = &self.core.driver;
            driver
                .wait(Wants::Own(()), |cx| changed.as_mut().poll(cx).map(Ok))
                .await
        };
        matches!(changed, Ok(Ok(()))).then(|| *self.progress.borrow())
    }

    /// Waits for what comes of it, and tells `watch` each time how far it is.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    ///
    /// # Cancel safety
    /// Cancelling gives the operation up.
    pub async fn watch(mut self, mut watch: impl FnMut(R::Progress)) -> Result<T> {
        while let Some(progress) = self.progressed().await {
            watch(progress);
        }
        self.finish().await
    }

    /// Waits for what comes of it.
    ///
    /// # Errors
    /// [`Error::Closed`] if the swarm is closed before it ends, and those of the operation.
    ///
    /// # Cancel safety
    /// Cancelling gives the operation up.
    pub async fn finish(mut self) -> Result<T> {
        let done = &mut self.done;
        let wait = |cx: &mut std::task::Context<'_>| {
            let done = Pin::new(&mut *done).poll(cx);
            done.map(|done| done.map_err(|_| Error::Closed))
        };
        let outcome = self.core.driver.wait(Wants::Own(()), wait).await?;
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

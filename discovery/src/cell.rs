//! A cell: one small value that is changed by compare-and-swap, so that concurrent writers lose no update.
//!
//! A cell that has not been written has the empty value. [`MemoryCell`] is for one process, [`FileCell`] for
//! processes that share a folder.

mod file;
mod memory;

use async_trait::async_trait;

use crate::{Error, Result};

pub use file::FileCell;
pub use memory::MemoryCell;

/// Default maximum length of a value: 64 KiB.
pub const DEFAULT_MAX: usize = 64 << 10;

/// The result of a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Swap {
    /// The cell has the new value.
    Done,
    /// The cell has this value instead of the expected one, and was not changed.
    Differs(Vec<u8>),
}

/// One value of at most [`max`](Self::max) bytes.
#[async_trait]
pub trait Cell: Send + Sync + 'static {
    /// Returns the maximum length of a value in bytes.
    fn max(&self) -> usize;

    /// Returns the value.
    ///
    /// # Errors
    /// Returns the error of the medium, and [`Error::Garbled`] if it holds more than a value may have.
    ///
    /// # Cancel safety
    /// Cancelling has no effect.
    async fn load(&self) -> Result<Vec<u8>>;

    /// Replaces `current` with `new`, if `current` is the value. Once it returns [`Swap::Done`], the value is
    /// as durable as the medium makes it.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] if `new` is too long, and the error of the medium. After [`Error::TimedOut`]
    /// and [`Error::Io`] it is unknown whether the swap was done; after any other error nothing changed.
    ///
    /// # Cancel safety
    /// After cancelling, the swap was either done or not.
    async fn compare_and_swap(&self, current: &[u8], new: &[u8]) -> Result<Swap>;
}

/// Implements [`Cell`] for a pointer to a cell.
macro_rules! cell_behind {
    ($($pointer:ty),*) => {$(
        #[async_trait]
        impl<C: Cell + ?Sized> Cell for $pointer {
            fn max(&self) -> usize {
                (**self).max()
            }

            async fn load(&self) -> Result<Vec<u8>> {
                (**self).load().await
            }

            async fn compare_and_swap(&self, current: &[u8], new: &[u8]) -> Result<Swap> {
                (**self).compare_and_swap(current, new).await
            }
        }
    )*};
}

cell_behind!(std::sync::Arc<C>, Box<C>);

pub(crate) fn check_len(new: &[u8], max: usize) -> Result<()> {
    if new.len() <= max {
        return Ok(());
    }
    Err(Error::Limit {
        what: "bytes of a cell's value",
        limit: max,
    })
}

//! A cell: one small value that is changed by compare-and-swap, so that writers who do not know each other lose nothing.
//!
//! The empty value is that of a cell which nobody has written. [`MemoryCell`] is for one process, [`FileCell`] for
//! processes that share a folder.

mod file;
mod memory;

use async_trait::async_trait;

use crate::{Error, Result};

pub use file::FileCell;
pub use memory::MemoryCell;

/// Bytes of a value at most, where nothing else is said: 64 KiB.
pub const DEFAULT_MAX: usize = 64 << 10;

/// What became of a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Swap {
    /// The cell has the new value.
    Done,
    /// The cell had this value instead of the one that was expected, and has it still.
    Differs(Vec<u8>),
}

/// One value of at most [`max`](Self::max) bytes.
#[async_trait]
pub trait Cell: Send + Sync + 'static {
    /// Bytes of a value at most.
    fn max(&self) -> usize;

    /// The value.
    ///
    /// # Errors
    /// What the medium says; [`Error::Garbled`] if it holds more than a value may have.
    ///
    /// # Cancel safety
    /// Cancelling does nothing else.
    async fn load(&self) -> Result<Vec<u8>>;

    /// Puts `new` in place of `current`, if that is the value. Once it says [`Swap::Done`], the value is as safe as the
    /// medium keeps it.
    ///
    /// # Errors
    /// [`Error::Limit`] if `new` has too many bytes, and what the medium says. With [`Error::TimedOut`] and
    /// [`Error::Io`] it is unknown whether it was done; with any other nothing changed.
    ///
    /// # Cancel safety
    /// Cancelled, it was done, or was not.
    async fn compare_and_swap(&self, current: &[u8], new: &[u8]) -> Result<Swap>;
}

#[async_trait]
impl<C: Cell + ?Sized> Cell for std::sync::Arc<C> {
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

#[async_trait]
impl<C: Cell + ?Sized> Cell for Box<C> {
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

pub(crate) fn check_len(new: &[u8], max: usize) -> Result<()> {
    if new.len() <= max {
        return Ok(());
    }
    Err(Error::Limit {
        what: "bytes of a cell's value",
        limit: max,
    })
}

//! A cell in the memory of this process. Clones refer to the same cell.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};

use super::{Cell, DEFAULT_MAX, Swap, check_len};
use crate::Result;

/// A cell in memory.
#[derive(Clone, Debug)]
pub struct MemoryCell {
    value: Arc<Mutex<Vec<u8>>>,
    max: usize,
}

impl MemoryCell {
    /// Creates a cell that has not been written, for at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            value: Arc::default(),
            max,
        }
    }

    fn value(&self) -> MutexGuard<'_, Vec<u8>> {
        // The value is replaced in one step, so it is valid even after a panic elsewhere.
        self.value.lock()
    }
}

impl Default for MemoryCell {
    fn default() -> Self {
        Self::new(DEFAULT_MAX)
    }
}

#[async_trait]
impl Cell for MemoryCell {
    fn max(&self) -> usize {
        self.max
    }

    async fn load(&self) -> Result<Vec<u8>> {
        Ok(self.value().clone())
    }

    async fn compare_and_swap(&self, current: &[u8], new: &[u8]) -> Result<Swap> {
        check_len(new, self.max)?;
        let mut value = self.value();
        if *value != current {
            return Ok(Swap::Differs(value.clone()));
        }
        *value = new.to_vec();
        Ok(Swap::Done)
    }
}

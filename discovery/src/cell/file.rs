//! A cell in a file, for processes that share a folder: written to a new file, synced, and renamed, under a
//! lock.
//!
//! The lock is an advisory one on a separate file, `NAME.lock`, which stays. Readers do not lock: a rename is
//! atomic. A process that dies holds no lock, and leaves either the old or the new value.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use p2p_swarms::whole_file;
use tokio::task::spawn_blocking;

use super::{Cell, DEFAULT_MAX, Swap, check_len};
use crate::{Error, Result};

/// Timeout for the lock. A holder keeps it for one write.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum time between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// A cell in a file. Clones refer to the same cell, as does any other of the same path.
#[derive(Clone, Debug)]
pub struct FileCell {
    path: PathBuf,
    max: usize,
}

impl FileCell {
    /// Creates a cell in this file for at most 64 KiB. The file is created with the first write.
    ///
    /// Not for network folders whose locks do not reach all machines.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max: DEFAULT_MAX,
        }
    }

    /// Sets the maximum length of a value to `max` bytes.
    #[must_use]
    pub fn max(mut self, max: usize) -> Self {
        self.max = max;
        self
    }
}

#[async_trait]
impl Cell for FileCell {
    fn max(&self) -> usize {
        self.max
    }

    async fn load(&self) -> Result<Vec<u8>> {
        let this = self.clone();
        blocking(move || read(&this.path, this.max)).await
    }

    async fn compare_and_swap(&self, current: &[u8], new: &[u8]) -> Result<Swap> {
        check_len(new, self.max)?;
        let (this, current, new) = (self.clone(), current.to_vec(), new.to_vec());
        blocking(move || swap(&this.path, this.max, &current, &new)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = spawn_blocking(work).await;
    // The closure does not panic, so the runtime has ended.
    done.unwrap_or_else(|error| Err(Error::io("work on a file")(io::Error::other(error))))
}

fn read(path: &Path, max: usize) -> Result<Vec<u8>> {
    match whole_file::read(path, max) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let reason = format!("a value has at most {max} bytes");
            Err(Error::garbled("a cell's file", max, reason))
        }
        read => read.map_err(Error::io("reading a cell's file")),
    }
}

fn swap(path: &Path, max: usize, current: &[u8], new: &[u8]) -> Result<Swap> {
    let lock = lock(&whole_file::beside(path, ".lock"))?;
    let value = read(path, max)?;
    if value != current {
        return Ok(Swap::Differs(value));
    }
    if new.is_empty() {
        whole_file::remove(path).map_err(Error::io("removing a cell's file"))?;
    } else {
        // The lock holder has exclusive access to the new file.
        whole_file::replace(path, new).map_err(Error::io("writing a cell's file"))?;
    }
    drop(lock);
    Ok(Swap::Done)
}

/// Acquires the lock, which is released when the file is dropped.
fn lock(path: &Path) -> Result<File> {
    let file = whole_file::private().truncate(false).open(path);
    let file = file.map_err(Error::io("opening a cell's lock"))?;
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(100);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(Error::io("locking a cell's file")(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(pause),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::TimedOut {
                    doing: "waiting for a cell's lock",
                    limit: PATIENCE,
                });
            }
        }
        pause = (pause * 2).min(PAUSE);
    }
}

//! Files that are read and replaced as a whole.
//!
//! A replacement is written to a new file beside the old one, synced, and renamed: a process that ends leaves the old or
//! the new content, never a part. Only the owner can read and write the files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// The error of the operating system, or [`io::ErrorKind::FileTooLarge`] for a longer file.
pub fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // One byte more than the maximum is enough to detect an oversize file.
    let mut file = File::open(path)?.take((max as u64).saturating_add(1));
    file.read_to_end(&mut content)?;
    if content.len() > max {
        let reason = format!("the file has more than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(content)
}

/// Replaces a file, or creates it. The caller lets no other process replace it at the same time, since the new file has
/// a fixed name: that of the file with `.new` behind it.
///
/// # Errors
/// The error of the operating system; the old content stays.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut file = private().truncate(true).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    sync_folder(path)
}

/// Removes a file. Does nothing if there is none.
///
/// # Errors
/// The error of the operating system.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path),
    }
}

/// Returns options to write a file that only its owner can read.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Returns the path of a file in the same folder, whose name has this ending in addition.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A rename survives a crash once the folder was synced.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// Folders cannot be opened on this system.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

//! Files that commands write in addition to their output: plots and reports.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::Failure;

/// Fails if a file cannot be written, before work that takes minutes. Changes nothing.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    let was_there = path.exists();
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| unwritten(path, &error))?;
    if !was_there {
        fs::remove_file(path).map_err(|error| unwritten(path, &error))?;
    }
    Ok(())
}

/// Writes a file. If that fails, no partial file is left.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        // A device or a pipe cannot be synchronized.
        if file.metadata()?.is_file() {
            file.sync_all()?;
        }
        Ok(())
    });
    written.map_err(|error| {
        if fs::metadata(path).is_ok_and(|file| file.is_file()) {
            // The first error is more informative than one from this call.
            drop(fs::remove_file(path));
        }
        unwritten(path, &error)
    })
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("{} cannot be written: {error}", path.display()))
}

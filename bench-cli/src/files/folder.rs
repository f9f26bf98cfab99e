//! A folder that one run fills at a time.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::{Error, Result};

/// The right to fill a folder, which ends with the process that has it, however it ends.
///
/// Where the file system has no locks, everybody has it.
#[derive(Debug)]
pub struct FolderLock {
    _folder: Option<File>,
}

impl FolderLock {
    /// Takes the right to fill a folder that is there.
    ///
    /// # Errors
    ///
    /// [`Error::FolderBusy`] while another run has it.
    pub fn take(path: &Path) -> Result<Self> {
        let folder = File::open(path).ok();
        let busy = |folder: &File| matches!(folder.try_lock(), Err(TryLockError::WouldBlock));
        if folder.as_ref().is_some_and(busy) {
            return Err(Error::FolderBusy { path: path.into() });
        }
        Ok(Self { _folder: folder })
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn one_run_fills_a_folder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let second = FolderLock::take(folder.path()).unwrap_err();
        assert!(matches!(second, Error::FolderBusy { .. }), "{second}");
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }
}

//! Files that were read: no output replaces one of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::place::place;

/// Where what this process has read is.
static READ: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Opens a file that a user names, to read it. From now on, no output of this process may replace
/// it.
///
/// # Errors
///
/// If the system refuses.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    READ.lock().insert(place(path));
    Ok(file)
}

/// Whether a file was read by this process.
pub(super) fn was_read(path: &Path) -> bool {
    READ.lock().contains(&place(path))
}

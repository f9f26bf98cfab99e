//! A file until it is whole.
//!
//! It is written beside its place, under a name that only this program gives
//! (`.ipu-bench-PROCESS-NUMBER.partial`), and takes its own when it is finished. Its writer holds a
//! lock on it, which ends with the process, however that ends: so whoever next writes to the folder
//! knows which of them a dead process has left, and removes those.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::cannot_write;
use super::place::{followed, is_special};
use super::read::was_read;
use crate::interrupt::UnfinishedFile;
use crate::{Error, Result};

const PREFIX: &str = ".ipu-bench-";
const SUFFIX: &str = ".partial";

/// A file that is written beside the place where it belongs and takes that name when it is
/// finished. Dropped before, or interrupted, it leaves nothing behind, and what was at its place
/// stays. What it replaces keeps its mode; a file that its owner may not write is not replaced.
/// Links are followed; a pipe or a device is written to directly.
#[derive(Debug)]
pub struct PartialFile {
    path: PathBuf,
    file: File,
    beside: Option<TemporaryFile>,
}

/// The file that a [`PartialFile`] is until it is finished.
#[derive(Debug)]
struct TemporaryFile {
    path: PathBuf,
    _noted: UnfinishedFile,
}

impl PartialFile {
    /// Starts the file that will be at `path`.
    ///
    /// # Errors
    ///
    /// If the folder can't be written to, if `path` is a folder or a file that may not be written,
    /// or if its name is too long; [`Error::OwnInput`] if this process has read it.
    pub fn create(path: &Path) -> Result<Self> {
        let place = followed(path);
        let folder = place.parent().unwrap_or(Path::new(""));
        Self::create_from(folder, path)
    }

    /// Starts the file that will be at `path` in a `folder` of the same file system, where later
    /// runs will find it if this one is killed.
    ///
    /// # Errors
    ///
    /// As [`PartialFile::create`].
    pub fn create_from(folder: &Path, path: &Path) -> Result<Self> {
        if was_read(path) {
            return Err(Error::OwnInput { path: path.into() });
        }
        let place = followed(path);
        let opened = open(folder, &place).map_err(|source| cannot_write(path, source))?;
        let (file, beside) = opened;
        Ok(Self {
            path: place,
            file,
            beside,
        })
    }

    /// Gives the file its name, once the system has all of it.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn finish(self) -> Result<()> {
        finish_all([self])
    }

    /// Makes the file what it will be, but for its name.
    fn settle(&self) -> io::Result<()> {
        if self.beside.is_none() {
            return Ok(());
        }
        if let Ok(replaced) = fs::metadata(&self.path) {
            self.file.set_permissions(replaced.permissions())?;
        }
        // A network's file system may say only now that there is no room.
        self.file.sync_data()
    }

    fn rename(&mut self) -> io::Result<()> {
        if let Some(beside) = &self.beside {
            fs::rename(&beside.path, &self.path)?;
        }
        self.beside = None;
        Ok(())
    }
}

/// Gives all files their names, once the system has all of each: before, none is replaced.
///
/// # Errors
///
/// If the system refuses.
pub fn finish_all(files: impl IntoIterator<Item = PartialFile>) -> Result<()> {
    let mut files: Vec<PartialFile> = files.into_iter().collect();
    for file in &files {
        let settled = file.settle();
        settled.map_err(|source| cannot_write(&file.path, source))?;
    }
    for file in &mut files {
        let renamed = file.rename();
        renamed.map_err(|source| cannot_write(&file.path, source))?;
    }
    Ok(())
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Nobody is left to hear of a failure.
            let _ = fs::remove_file(&beside.path);
        }
    }
}

fn open(folder: &Path, place: &Path) -> io::Result<(File, Option<TemporaryFile>)> {
    if place.as_os_str().is_empty() {
        return Err(ErrorKind::NotFound.into());
    }
    if is_special(place) {
        let file = File::options().write(true).open(place)?;
        return Ok((file, None));
    }
    match fs::metadata(place) {
        Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(found) if found.permissions().readonly() => {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (file, beside) = create_in(folder)?;
    Ok((file, Some(beside)))
}

/// A new, locked file of this process in a folder, from which those of dead ones are removed.
fn create_in(folder: &Path) -> io::Result<(File, TemporaryFile)> {
    /// Of the next file of this process.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    /// Names that are tried: more are no accident.
    const NAMES: u32 = 1000;
    remove_leftovers(folder);
    for _ in 0..NAMES {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let path = folder.join(format!("{PREFIX}{process}-{number}{SUFFIX}"));
        // Before it is noted, which would have it removed by Ctrl-C.
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        let noted = UnfinishedFile::new(&path);
        let file = match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            created => created?,
        };
        // Without locks, nobody takes it for that of a dead process, either.
        let is_taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        // Whoever looks for leftovers may have locked and removed it just before.
        if is_taken || fs::symlink_metadata(&path).is_err() {
            continue;
        }
        let beside = TemporaryFile {
            path,
            _noted: noted,
        };
        return Ok((file, beside));
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Removes unfinished files that nobody writes any more from a folder, the first time that this
/// process looks there. Best effort: they are in nobody's way.
fn remove_leftovers(folder: &Path) {
    static SEEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    if !SEEN.lock().insert(folder.to_owned()) {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|found| found.is_file());
        if is_file && entry.file_name().to_str().is_some_and(is_partial) {
            let path = entry.path();
            let opened = File::options().write(true).open(&path);
            if opened.is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// Whether that is a name as [`create_in`] gives it.
fn is_partial(name: &str) -> bool {
    let inner = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    let numbers = inner.and_then(|inner| inner.split_once('-'));
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    numbers.is_some_and(|(process, number)| is_number(process) && is_number(number))
}

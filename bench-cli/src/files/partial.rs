//! A file or a folder until it is whole.
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
    beside: Option<Temporary>,
}

/// A folder that is filled beside the place where it belongs, as a [`PartialFile`] is. Dropped before
/// it has its name, or interrupted, it leaves nothing behind.
#[derive(Debug)]
pub struct PartialFolder {
    path: PathBuf,
    /// Locked as long as it is not whole.
    _folder: Option<File>,
    _noted: UnfinishedFile,
}

impl PartialFolder {
    /// Starts a folder that will be in the folder `above`.
    ///
    /// # Errors
    ///
    /// If that one can't be written to.
    pub fn create(above: &Path) -> io::Result<Self> {
        // Where folders can't be opened, nobody takes one for that of a dead process, either.
        let (folder, made) = create_in(above, |path| {
            fs::create_dir(path)?;
            Ok(File::open(path).ok())
        })?;
        Ok(Self {
            path: made.path,
            _folder: folder,
            _noted: made.noted,
        })
    }

    /// The place of the folder until it has its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a folder that is not empty its name, unless something has that already: whether it has
    /// it now.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn rename(&self, path: &Path) -> io::Result<bool> {
        if fs::symlink_metadata(path).is_ok() {
            return Ok(false);
        }
        match fs::rename(&self.path, path) {
            // Another run was quicker: a folder that isn't empty is not replaced.
            Err(_) if fs::symlink_metadata(path).is_ok() => Ok(false),
            renamed => renamed.map(|()| true),
        }
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        // It has its name, or nobody is left to hear of a failure.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The file or folder that something is until it is finished.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    noted: UnfinishedFile,
}

impl PartialFile {
    /// Starts the file that will be at `path`.
    ///
    /// # Errors
    ///
    /// If the folder can't be written to, if `path` is a folder or a file that may not be written,
    /// or if its name is too long; [`Error::OwnInput`] if this process has read it.
    pub fn create(path: &Path) -> Result<Self> {
        if was_read(path) {
            return Err(Error::OwnInput { path: path.into() });
        }
        let place = followed(path);
        let (file, beside) = open(&place).map_err(|source| cannot_write(path, source))?;
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

fn open(place: &Path) -> io::Result<(File, Option<Temporary>)> {
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
    let folder = place.parent().unwrap_or(Path::new(""));
    let (file, beside) = create_in(folder, |path| File::create_new(path).map(Some))?;
    let file = file.expect("it was created and opened");
    Ok((file, Some(beside)))
}

/// A new, locked file or folder of this process in a folder, from which those of dead ones are
/// removed; `create` makes and opens it.
fn create_in(
    folder: &Path,
    create: impl Fn(&Path) -> io::Result<Option<File>>,
) -> io::Result<(Option<File>, Temporary)> {
    /// Of the next one of this process.
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
        let file = match create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            created => created?,
        };
        // Without locks, nobody takes it for that of a dead process, either.
        let locked = file.as_ref().map(File::try_lock);
        let is_taken = matches!(locked, Some(Err(TryLockError::WouldBlock)));
        // Whoever looks for leftovers may have locked and removed it just before.
        if is_taken || fs::symlink_metadata(&path).is_err() {
            continue;
        }
        return Ok((file, Temporary { path, noted }));
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Removes unfinished files and folders that nobody writes any more from a folder, the first time
/// that this process looks there. Best effort: they are in nobody's way.
fn remove_leftovers(folder: &Path) {
    static SEEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    if SEEN.lock().insert(folder.to_owned()) {
        sweep(folder);
    }
}

fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(found) = entry.file_type() else {
            continue;
        };
        let is_ours = entry.file_name().to_str().is_some_and(is_partial);
        if !is_ours || found.is_symlink() {
            continue;
        }
        let path = entry.path();
        let opened = match found.is_dir() {
            true => File::open(&path),
            false if found.is_file() => File::options().write(true).open(&path),
            false => continue,
        };
        let Ok(file) = opened else {
            continue;
        };
        // Locked until it is gone: its writer may be about to lock it, and must find that out.
        if file.try_lock().is_ok() {
            let _ = match found.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Another process may look for leftovers at any moment, as between making something and locking
    /// it: what is returned is never removed by it.
    #[test]
    fn nothing_new_is_taken_for_a_leftover() {
        let folder = tempfile::tempdir().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        sweep(folder.path());
                    }
                });
            }
            for number in 0..1000 {
                let made = PartialFolder::create(folder.path()).and_then(|partial| {
                    fs::write(partial.path().join("config.json"), "{}")?;
                    partial.rename(&folder.path().join(format!("folder-{number}")))
                });
                let place = folder.path().join(format!("file-{number}"));
                let written = PartialFile::create(&place).and_then(PartialFile::finish);
                if made.is_err() || written.is_err() {
                    done.store(true, Ordering::Relaxed);
                    panic!("{number}: {made:?} {written:?}");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

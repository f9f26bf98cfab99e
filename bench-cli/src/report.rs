//! Results as files and tables.

pub mod advice;
pub mod calibration;
pub mod csv;
pub mod explain;
pub mod json;
mod place;
pub mod plan;
pub mod sensitivity;
mod shares;
pub mod table;
pub mod validation;

use std::path::{Path, PathBuf};
use std::{
    fs,
    io::{self, Write},
};

pub use place::check_apart;

use crate::interrupt::UnfinishedFile;
use crate::{Error, Result};
use place::{followed, is_special};

/// Writes `text` to `path`, whole or not at all, as [`PartialFile`] does.
///
/// # Errors
///
/// If the folder can't be written to.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = PartialFile::create(path)?;
    let written = file.write_all(text.as_bytes());
    written.map_err(|source| cannot_write(path, source))?;
    file.finish()
}

/// A file that is written beside the place where it belongs and takes that name when it is
/// finished. Dropped before, or interrupted, it leaves nothing behind, and what was at its place
/// stays. Links are followed; a pipe or a device is written to directly.
#[derive(Debug)]
pub struct PartialFile {
    path: PathBuf,
    file: fs::File,
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
    /// If the folder can't be written to, or if `path` is a folder.
    pub fn create(path: &Path) -> Result<Self> {
        let place = followed(path);
        let created = if place.is_dir() {
            Err(io::ErrorKind::IsADirectory.into())
        } else if place.as_os_str().is_empty() {
            Err(io::ErrorKind::NotFound.into())
        } else if is_special(&place) {
            let file = fs::File::options().write(true).open(&place);
            file.map(|file| (file, None))
        } else {
            create_beside(&place).map(|(file, beside)| (file, Some(beside)))
        };
        let (file, beside) = created.map_err(|source| cannot_write(path, source))?;
        Ok(Self {
            path: place,
            file,
            beside,
        })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn finish(mut self) -> Result<()> {
        let Some(beside) = self.beside.take() else {
            return Ok(());
        };
        let renamed = fs::rename(&beside.path, &self.path);
        renamed.map_err(|source| cannot_write(&self.path, source))
    }
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

/// A new file whose name is that of `path` and `.partial`, with a number if there is one already:
/// it may be somebody's.
fn create_beside(path: &Path) -> io::Result<(fs::File, TemporaryFile)> {
    /// Names that are tried: more are no accident.
    const NAMES: u32 = 1000;
    for number in 0..NAMES {
        let mut beside = path.as_os_str().to_owned();
        match number {
            0 => beside.push(".partial"),
            _ => beside.push(format!(".{number}.partial")),
        }
        let beside = PathBuf::from(beside);
        // Before it is noted, which would have it removed by Ctrl-C.
        if fs::symlink_metadata(&beside).is_ok() {
            continue;
        }
        let noted = UnfinishedFile::new(&beside);
        match fs::File::create_new(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => {
                let beside = TemporaryFile {
                    path: beside,
                    _noted: noted,
                };
                return created.map(|file| (file, beside));
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Finds out whether [`write()`] will be able to write to `path`, so that a long run need not end
/// in vain. What is there stays as it is.
///
/// # Errors
///
/// If the folder is missing or can't be written to, or if `path` is a folder.
pub fn check_writable(path: &Path) -> Result<()> {
    let place = followed(path);
    if is_special(&place) {
        // Opening a pipe would wait for its reader; links that lead nowhere are found out.
        let found = fs::metadata(&place);
        return found
            .map(|_| ())
            .map_err(|source| cannot_write(path, source));
    }
    PartialFile::create(path).map(drop)
}

/// Checks that all `paths` can be written and are different files.
///
/// # Errors
///
/// As [`check_writable`] and [`check_apart`].
pub fn check_all_writable<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let paths: Vec<&Path> = paths.into_iter().collect();
    paths.iter().try_for_each(|path| check_writable(path))?;
    check_apart(paths, [])
}

fn cannot_write(path: &Path, source: io::Error) -> Error {
    Error::File {
        action: "write",
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_finds_what_writing_would() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (path, writable) in [
            (path("new.json"), true),
            (path("none/new.json"), false),
            (path("."), false),
            (PathBuf::new(), false),
        ] {
            assert_eq!(check_writable(&path).is_ok(), writable, "{path:?}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        write(&path("new.json"), "old").unwrap();
        check_writable(&path("new.json")).unwrap();
        assert_eq!(fs::read_to_string(path("new.json")).unwrap(), "old");
    }

    #[test]
    fn an_unfinished_file_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, "old").unwrap();
        let mut file = PartialFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn a_file_of_somebody_else_beside_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.json.partial"), "mine").unwrap();
        check_writable(&path("a.json")).unwrap();
        write(&path("a.json"), "new").unwrap();
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        assert_eq!(read("a.json.partial"), "mine");
        assert_eq!(read("a.json"), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_is_written_through_and_whole() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write(&path("a.json"), "a long old text").unwrap();
        for (link, target) in [("old", "a.json"), ("new", "b.json"), ("loop", "loop")] {
            symlink(target, path(link)).unwrap();
        }
        for (link, target) in [("old", "a.json"), ("new", "b.json")] {
            check_writable(&path(link)).unwrap();
            write(&path(link), "short").unwrap();
            assert_eq!(fs::read_to_string(path(target)).unwrap(), "short");
            assert!(path(link).is_symlink());
        }
        assert!(check_writable(&path("loop")).is_err());
    }
}

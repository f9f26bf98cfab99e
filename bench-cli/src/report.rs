//! Results as files and tables.

pub mod csv;
pub mod json;
pub mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{
    fs,
    io::{self, Write},
};

use crate::interrupt::Unfinished;
use crate::{Error, Result};

/// Writes `text` to `path`, whole or not at all, as [`Partial`] does.
///
/// # Errors
///
/// If the folder can't be written to.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = Partial::create(path)?;
    let written = file.write_all(text.as_bytes());
    written.map_err(|source| cannot_write(path, source))?;
    file.finish()
}

/// A file that is written beside the place where it belongs and takes that name when it is
/// finished. Dropped before, or interrupted, it leaves nothing behind, and what was at its place
/// stays. A link or a pipe is written to directly.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    file: fs::File,
    beside: Option<Beside>,
}

/// The file that a [`Partial`] is until it is finished.
#[derive(Debug)]
struct Beside {
    path: PathBuf,
    _noted: Unfinished,
}

impl Partial {
    /// Starts the file that will be at `path`.
    ///
    /// # Errors
    ///
    /// If the folder can't be written to.
    pub fn create(path: &Path) -> Result<Self> {
        let beside = (!is_special(path)).then(|| {
            let beside = partial(path);
            Beside {
                _noted: Unfinished::new(&beside),
                path: beside,
            }
        });
        let place = beside.as_ref().map_or(path, |beside| &beside.path);
        let file = match beside {
            Some(_) => fs::File::create(place),
            None => fs::File::options().write(true).open(place),
        };
        Ok(Self {
            path: path.into(),
            file: file.map_err(|source| cannot_write(path, source))?,
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

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Nobody is left to hear of a failure.
            let _ = fs::remove_file(&beside.path);
        }
    }
}

/// Finds out whether [`write()`] will be able to write to `path`, so that a long run need not end
/// in vain. What is there stays as it is.
///
/// # Errors
///
/// If the folder is missing or can't be written to, or if `path` is a folder.
pub fn check_writable(path: &Path) -> Result<()> {
    let checked = if path.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else if path.as_os_str().is_empty() {
        Err(io::ErrorKind::NotFound.into())
    } else if is_special(path) {
        Ok(())
    } else {
        let partial = partial(path);
        fs::write(&partial, "").and_then(|()| fs::remove_file(&partial))
    };
    checked.map_err(|source| cannot_write(path, source))
}

/// As [`check_writable`] for all `paths`, which must be different files.
///
/// # Errors
///
/// As [`check_writable`]; two paths of one file.
pub fn check_all_writable<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for path in paths {
        check_writable(path)?;
        if !is_special(path) && !seen.insert(place(path)) {
            return Err(Error::SameFile { path: path.into() });
        }
    }
    Ok(())
}

/// Where a file is, however its folder is named.
fn place(path: &Path) -> PathBuf {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
    match (folder, path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.into(),
    }
}

fn is_special(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn partial(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
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
        let mut file = Partial::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}

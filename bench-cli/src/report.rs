//! Results as files and tables.

pub mod csv;
pub mod json;
pub mod table;

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::{Error, Result};

/// Writes `text` to `path`, whole or not at all: to a file beside it first, which then takes its
/// name. A link or a pipe stays and is written to.
///
/// # Errors
///
/// If the folder can't be written to.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let written = if is_special(path) {
        fs::write(path, text)
    } else {
        let partial = partial(path);
        fs::write(&partial, text).and_then(|()| fs::rename(&partial, path))
    };
    written.map_err(|source| cannot_write(path, source))
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
}

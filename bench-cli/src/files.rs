//! Files that a command leaves: whole or not at all, each of its own, and none over what it is
//! made of.
//!
//! [`PartialFile`] is a file until it is whole, [`check_apart`] finds out which names are one file,
//! [`open`] notes what is read,
//! and [`FolderLock`] keeps two runs from filling one folder. What is promised, and what is trusted,
//! stands in `docs/reliability.md`.

mod folder;
mod partial;
mod place;
mod read;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

pub use folder::FolderLock;
pub use partial::{PartialFile, PartialFolder, finish_all};
pub use place::{check_apart, is_in};
pub use read::open;

use crate::{Error, Result};
use place::{followed, is_special};

/// Writes `text` to `path`, whole or not at all, as [`PartialFile`] does.
///
/// # Errors
///
/// If the folder can't be written to.
pub fn write(path: &Path, text: &str) -> Result<()> {
    unfinished(path, text)?.finish()
}

/// The file that will be at `path` with this `text`, once it is finished.
///
/// # Errors
///
/// If the folder can't be written to.
pub fn unfinished(path: &Path, text: &str) -> Result<PartialFile> {
    fill(PartialFile::create(path)?, path, text)
}

fn fill(mut file: PartialFile, path: &Path, text: &str) -> Result<PartialFile> {
    let written = file.write_all(text.as_bytes());
    written.map_err(|source| cannot_write(path, source))?;
    Ok(file)
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

pub(crate) fn cannot_write(path: &Path, source: io::Error) -> Error {
    Error::File {
        action: "write",
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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

    /// Also if it has a name that was ours once.
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

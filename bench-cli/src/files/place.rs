//! Where a path leads: what two names have in common, and what can't be replaced.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Links in a row that are followed; Linux gives up after as many.
const LINKS_MAX: usize = 40;

/// Makes sure that no two of `outputs` are one file, and that none of them is one of `inputs`,
/// which would be lost: however they are named, and whether they are there yet or not.
///
/// # Errors
///
/// [`Error::SameFile`], [`Error::OwnInput`].
pub fn check_apart<'a>(
    outputs: impl IntoIterator<Item = &'a Path>,
    inputs: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let inputs: BTreeSet<PathBuf> = inputs.into_iter().map(place).collect();
    let mut seen = BTreeSet::new();
    for path in outputs {
        let place = place(path);
        if is_special(&place) {
            continue;
        }
        if inputs.contains(&place) {
            return Err(Error::OwnInput { path: path.into() });
        }
        if !seen.insert(place) {
            return Err(Error::SameFile { path: path.into() });
        }
    }
    Ok(())
}

/// The name of the file that a path leads to, if that is in a folder.
#[must_use]
pub fn is_in(folder: &Path, path: &Path) -> Option<String> {
    let place = place(path);
    let folder = fs::canonicalize(folder).ok()?;
    let name = place.file_name()?.to_str()?;
    (place.parent() == Some(&*folder)).then(|| name.to_owned())
}

/// Where a file is or will be, however its folder is named and whatever links lead there.
pub(super) fn place(path: &Path) -> PathBuf {
    let path = followed(path);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
    match (folder, path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

/// The path that links at the end of `path` lead to, also if nothing is there. Links to what a
/// process has opened (`/dev/stdout`) stay: what they say is for people.
pub(super) fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if path.starts_with("/proc") {
            break;
        }
        let Ok(target) = fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// Whether something is at a [`followed`] path that is written to directly: a pipe, a device.
pub(super) fn is_special(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Files `a` and `b`, links `la` to `a`, `new` to `c`, which isn't there, and a folder link.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "").unwrap();
        fs::write(path("b"), "").unwrap();
        fs::create_dir(path("sub")).unwrap();
        symlink("a", path("la")).unwrap();
        symlink("la", path("lla")).unwrap();
        symlink("../c", path("sub/new")).unwrap();
        symlink("sub", path("lsub")).unwrap();
        folder
    }

    fn check(outputs: &[&str], inputs: &[&str], expected: &str) {
        let folder = folder();
        let paths = |names: &[&str]| -> Vec<PathBuf> {
            names.iter().map(|name| folder.path().join(name)).collect()
        };
        let (written, read) = (paths(outputs), paths(inputs));
        let written = written.iter().map(PathBuf::as_path);
        let checked = check_apart(written, read.iter().map(PathBuf::as_path));
        let found = match checked {
            Ok(()) => "apart",
            Err(Error::SameFile { .. }) => "same",
            Err(Error::OwnInput { .. }) => "input",
            Err(_) => "other",
        };
        assert_eq!(found, expected, "{outputs:?} {inputs:?}");
    }

    #[test]
    fn files_are_one_however_they_are_named() {
        check(&["a", "b", "c"], &["d"], "apart");
        check(&["a", "sub/../a"], &[], "same");
        check(&["a", "lla"], &[], "same");
        check(&["c", "sub/new"], &[], "same");
        check(&["c", "lsub/new"], &[], "same");
        check(&["b", "a"], &["a"], "input");
        check(&["la"], &["a"], "input");
        check(&["a"], &["lla"], "input");
        check(&["lsub/x"], &["sub/x"], "input");
        check(&["/dev/null", "/dev/null"], &["/dev/null"], "apart");
    }
}

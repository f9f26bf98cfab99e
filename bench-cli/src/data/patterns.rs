//! Names of input files as patterns of a shell, as `glob` of Python reads them.
//!
//! `*` is any text and `?` any character but a slash, `[ab]` one of some, `[!ab]` none of them; a
//! name that starts with a dot is only found by a pattern that does. A pattern that finds nothing is
//! a missing file, and so is a plain name of nothing. Files of one pattern come in order of their
//! names, where Python has that of the disk.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, glob_with};

use super::DataError;
use crate::Result;

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    // Seen to below: the library doesn't find what its pattern names.
    require_literal_leading_dot: false,
};

/// The files that `patterns` name, those of each pattern together.
///
/// # Errors
///
/// [`DataError::Missing`] of a pattern that names none.
pub fn files(patterns: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for pattern in patterns {
        let found = matches(pattern);
        if found.is_empty() {
            let path = pattern.clone();
            return Err(DataError::Missing { path }.into());
        }
        files.extend(found);
    }
    Ok(files)
}

fn matches(pattern: &Path) -> Vec<PathBuf> {
    let is_plain = |text: &str| !text.contains(['*', '?', '[']);
    let exists = || {
        let file = pattern.exists().then(|| pattern.to_path_buf());
        file.into_iter().collect()
    };
    let Some(text) = pattern.to_str().filter(|text| !is_plain(text)) else {
        return exists();
    };
    // Two stars go no deeper than one unless asked to; an open bracket is a bracket.
    let mut text = text.to_string();
    while text.contains("**") {
        text = text.replace("**", "*");
    }
    match glob_with(&text, OPTIONS) {
        Ok(paths) => {
            let paths = paths.filter_map(std::result::Result::ok);
            paths.filter(|path| shows(&text, path)).collect()
        }
        Err(_) => exists(),
    }
}

/// Whether no wildcard of a pattern stands for the dot that a name of `path` starts with.
fn shows(pattern: &str, path: &Path) -> bool {
    let starts_with_dot = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    let names = Path::new(pattern).components().zip(path.components());
    names
        .map(|(pattern, name)| (pattern.as_os_str(), name.as_os_str()))
        .all(|(pattern, name)| !starts_with_dot(name) || starts_with_dot(pattern))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn patterns_find_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        for name in ["a/x_0", "a/x_1", "a/y_0", "a/.x_2", "a/x[", "top"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let find = |patterns: &[&str]| {
            let patterns: Vec<_> = patterns
                .iter()
                .map(|name| folder.path().join(name))
                .collect();
            let found = files(&patterns).map_err(|error| error.to_string())?;
            let names = found
                .iter()
                .map(|path| path.strip_prefix(folder.path()).unwrap());
            Ok::<_, String>(
                names
                    .map(|name| name.display().to_string())
                    .collect::<Vec<_>>(),
            )
        };
        for (patterns, expected) in [
            (vec!["a/x_*"], vec!["a/x_0", "a/x_1"]),
            (vec!["a/?_0", "top"], vec!["a/x_0", "a/y_0", "top"]),
            (vec!["a/[!x]_*"], vec!["a/y_0"]),
            (vec!["**"], vec!["a", "top"]),
            (vec!["a/.x*"], vec!["a/.x_2"]),
            (vec!["a/x["], vec!["a/x["]),
            (vec!["*/x_1"], vec!["a/x_1"]),
        ] {
            let expected = expected.into_iter().map(String::from).collect();
            assert_eq!(find(&patterns), Ok(expected), "{patterns:?}");
        }
        for missing in ["b", "a/z*", "b/*"] {
            let error = find(&["a/x_0", missing]).unwrap_err();
            assert!(error.contains("No such file or directory"), "{error}");
            assert!(error.contains(missing), "{error}");
        }
    }
}

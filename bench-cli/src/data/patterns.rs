//! Names of input files as patterns of a shell, as `glob` of Python reads them.
//!
//! `*` is any text and `?` any character but a slash, `[ab]` one of some, `[!ab]` none of them; a
//! bracket that isn't closed before the next slash is a bracket. A name that starts with a dot is
//! only found by a pattern that does. A pattern that finds nothing is
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
    // Two stars go no deeper than one unless asked to.
    let mut text = text.to_string();
    while text.contains("**") {
        text = text.replace("**", "*");
    }
    let names: Vec<String> = text.split('/').map(with_literal_brackets).collect();
    let text = names.join("/");
    let paths = glob_with(&text, OPTIONS);
    let paths = paths.expect("single stars and closed brackets are a pattern");
    let paths = paths.filter_map(std::result::Result::ok);
    paths.filter(|path| shows(&text, path)).collect()
}

/// The pattern of one name in which every bracket is closed: one that opens nothing stands for
/// itself (`fnmatch.translate` of Python 3).
fn with_literal_brackets(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(start) = rest.find('[') {
        let (before, set) = rest.split_at(start);
        out += before;
        // A closing bracket in the first place is one of the set.
        let negation = usize::from(set[1..].starts_with('!'));
        let first = 1 + negation;
        let from = first + usize::from(set[first..].starts_with(']'));
        let Some(end) = set[from..].find(']') else {
            out += "[[]";
            rest = &set[1..];
            continue;
        };
        let (set, behind) = set.split_at(from + end + 1);
        out += set;
        rest = behind;
    }
    out + rest
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
        for name in ["a", "b[0"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in [
            "a/x_0", "a/x_1", "a/y_0", "a/.x_2", "a/x[", "a/x[!]_3", "a/x]_4", "b[0/x]", "top",
        ] {
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
            (vec!["**"], vec!["a", "b[0", "top"]),
            (vec!["a/.x*"], vec!["a/.x_2"]),
            (vec!["a/x["], vec!["a/x["]),
            (vec!["*/x_1"], vec!["a/x_1"]),
            // Brackets that are open, at the end, in the middle, and closed in the next name only.
            (vec!["a/*["], vec!["a/x["]),
            (vec!["a/x[*"], vec!["a/x[", "a/x[!]_3"]),
            (vec!["a/x[!]*"], vec!["a/x[!]_3"]),
            (vec!["b[0/*]"], vec!["b[0/x]"]),
            (vec!["*/x[]]*"], vec!["a/x]_4", "b[0/x]"]),
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

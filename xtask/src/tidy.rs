//! What neither the compiler nor clippy can check.
//!
//! Each check is a pure function from the text of all tracked files to complaints; each
//! complaint says where it stands and what to write instead. The rules themselves are
//! tables at the top of the files below.

mod configs;
mod links;
mod manifests;
mod map;
mod passes;
mod rust;
mod sentences;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Every check, in the order their complaints are printed.
const CHECKS: [fn(&Tree) -> Vec<Complaint>; 7] = [
    manifests::check,
    passes::check,
    configs::check,
    map::check,
    links::check,
    sentences::check,
    text::check,
];

/// The text of all files of the project, by path from its root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// The files that git tracks, or would track if they were added.
    fn read(root: &Path) -> anyhow::Result<Self> {
        let output = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root)
            .output()
            .context("cannot start git, which lists the files to check")?;
        if !output.status.success() {
            bail!(
                "git can't list the files to check: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let mut files = BTreeMap::new();
        for path in String::from_utf8_lossy(&output.stdout).split_terminator('\0') {
            let full = root.join(path);
            // Git still lists files that were deleted but not yet removed from its index.
            if full.is_file() {
                let bytes = std::fs::read(&full).with_context(|| format!("cannot read {path}"))?;
                files.insert(
                    path.to_owned(),
                    String::from_utf8_lossy(&bytes).into_owned(),
                );
            }
        }
        Ok(Self { files })
    }

    fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Files below `folder` (written with a slash at its end) and their texts, in order of path.
    fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.starts_with(folder))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// All files whose names end with `extension`, and their texts, in order of path.
    fn with_extension<'a>(
        &'a self,
        extension: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.below("").filter(move |(path, _)| {
            Path::new(path)
                .extension()
                .is_some_and(|found| found == extension)
        })
    }

    /// Whether there is a file or a folder at `path`; the root is "".
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        self.files.contains_key(path) || self.below(&folder).next().is_some()
    }
}

/// What is wrong, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    path: String,
    /// Counted from 1; none if it is about the whole file.
    line: Option<usize>,
    message: String,
}

impl Complaint {
    fn file(path: &str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: None,
            message: message.into(),
        }
    }

    /// About the line with this index, counted from 0.
    fn line(path: &str, line_idx: usize, message: impl Into<String>) -> Self {
        Self {
            line: Some(line_idx + 1),
            ..Self::file(path, message)
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Checks the project at `root`.
///
/// # Errors
///
/// There are complaints (printed to stderr, one a line), or its files can't be read.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let tree = Tree::read(root)?;
    let complaints: Vec<Complaint> = CHECKS.iter().flat_map(|check| check(&tree)).collect();
    let mut stderr = io::stderr().lock();
    for complaint in &complaints {
        writeln!(stderr, "{complaint}")?;
    }
    match complaints.len() {
        0 => Ok(()),
        1 => bail!("tidy has one complaint"),
        n => bail!("tidy has {n} complaints"),
    }
}

#[cfg(test)]
mod testing {
    //! Trees from literals.

    use expect_test::Expect;

    use super::{Complaint, Tree};

    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        Tree {
            files: files
                .iter()
                .map(|&(path, text)| (path.to_owned(), text.to_owned()))
                .collect(),
        }
    }

    /// Compares the complaints about `files`, one a line.
    pub(super) fn expect_complaints(
        check: fn(&Tree) -> Vec<Complaint>,
        files: &[(&str, &str)],
        expect: &Expect,
    ) {
        let lines: String = check(&tree(files))
            .iter()
            .map(|complaint| format!("{complaint}\n"))
            .collect();
        expect.assert_eq(&lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::tree;

    #[test]
    fn folders_exist_if_a_file_is_in_them() {
        let tree = tree(&[("docs/layouts.md", ""), ("docs2.md", "")]);
        let found =
            ["docs", "docs/", "docs/layouts.md", "", "doc", "docs2"].map(|path| tree.has(path));
        assert_eq!(found, [true, true, true, true, false, false]);
    }

    #[test]
    fn this_project_can_be_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let tree = Tree::read(&root).unwrap();
        assert!(tree.has("xtask/src/tidy.rs") && !tree.has("target"));
    }

    #[test]
    fn a_folder_without_git_is_an_error() {
        let error = Tree::read(Path::new("no such folder")).unwrap_err();
        assert!(error.to_string().starts_with("cannot start git"), "{error}");
    }
}

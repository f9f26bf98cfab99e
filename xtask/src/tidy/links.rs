//! Does every relative link of a Markdown file lead somewhere?
//!
//! Links to files, folders and headings of this project are followed; links to other
//! sites are not, because no check may need the network. Code blocks and code spans are
//! skipped.

use super::{Complaint, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (path, text) in tree.with_extension("md") {
        for (line_idx, line) in prose(text) {
            for target in targets(line) {
                if let Some(message) = broken(tree, path, target) {
                    complaints.push(Complaint::line(path, line_idx, message));
                }
            }
        }
    }
    complaints
}

/// Lines outside fenced code, with their index.
pub(super) fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The targets of the links `[text](target)` in a line, code spans left out.
fn targets(line: &str) -> Vec<&str> {
    let outside_code = line.split('`').step_by(2);
    // A link whose text is code begins in one piece and ends in another: `](` is enough.
    outside_code
        .flat_map(|piece| piece.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .collect()
}

/// What is wrong with a link from the file `path`, if anything.
fn broken(tree: &Tree, path: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if file.is_empty() {
        path.to_owned()
    } else {
        match resolve(path, file) {
            Some(file) if tree.has(&file) => file,
            _ => {
                return Some(format!(
                    "`{target}` leads nowhere: link to a file of the project"
                ));
            }
        }
    };
    let text = tree.get(&file)?;
    let found =
        anchor.is_empty() || prose(text).any(|(_, line)| slug(line).as_deref() == Some(anchor));
    (!found).then(|| format!("`{file}` has no heading for `#{anchor}`: link to one it has"))
}

/// The path of `target` from the root, as seen from the file `from`; none if it leaves the project.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut folders: Vec<&str> = from.split('/').collect();
    folders.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(folders.pop()?),
            name => folders.push(name),
        }
    }
    Some(folders.join("/"))
}

/// The anchor that a heading gets: lower case, spaces as hyphens, other marks dropped.
fn slug(line: &str) -> Option<String> {
    let heading = line.trim_start_matches('#');
    if heading.len() == line.len() {
        return None;
    }
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    Some(kept.collect())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::expect_complaints;
    use super::*;

    #[test]
    fn links_lead_to_files_folders_and_headings() {
        let readme = "\
# How to read `it`, now
[map](docs/ARCHITECTURE.md), [`configs`](configs/systems), [here](#how-to-read-it-now)
[gone](docs/GONE.md) and [outside](../elsewhere.md)
[site](https://example.org/gone.md), `[code](gone.md)`
```
[fenced](gone.md)
```
[heading](docs/ARCHITECTURE.md#glosary)
";
        expect_complaints(
            check,
            &[
                ("README.md", readme),
                ("configs/systems/pod.toml", ""),
                (
                    "docs/ARCHITECTURE.md",
                    "## Glossary\n[up](../README.md) [side](./ARCHITECTURE.md#glossary)\n",
                ),
            ],
            &expect![[r#"
                README.md:3: `docs/GONE.md` leads nowhere: link to a file of the project
                README.md:3: `../elsewhere.md` leads nowhere: link to a file of the project
                README.md:8: `docs/ARCHITECTURE.md` has no heading for `#glosary`: link to one it has
            "#]],
        );
    }
}

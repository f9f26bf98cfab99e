//! Does everything that the code map names still exist?
//!
//! The code map is the section of `docs/ARCHITECTURE.md` under that heading. There, words in
//! backticks are names: packages, files, folders, modules, types, functions. Under a heading
//! that names a crate (`### ipu-sim`, in backticks), names are looked up in that crate, or
//! in the one they begin with (`ipu_sim::Program`).
//! Words with spaces or leading hyphens are commands and options, not names.

use super::{Complaint, Tree, links, rust};

const MAP: &str = "docs/ARCHITECTURE.md";
const HEADING: &str = "## Code map";

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let Some(text) = tree.get(MAP) else {
        return vec![Complaint::file(
            MAP,
            "missing: the map of the code belongs here",
        )];
    };
    let mut complaints = Vec::new();
    let mut inside = false;
    let mut found = false;
    let mut package = "";
    for (line_idx, line) in links::prose(text) {
        if line.starts_with("## ") {
            inside = line == HEADING;
            found |= inside;
        }
        if !inside {
            continue;
        }
        if let Some(heading) = line.strip_prefix("### ") {
            package = heading.trim().trim_matches('`');
        }
        for name in names(line) {
            if !exists(tree, package, name) {
                let place = if package.is_empty() {
                    "the project"
                } else {
                    package
                };
                let message = format!(
                    "`{name}` isn't in {place} any more: name what has taken its place, or drop the sentence"
                );
                complaints.push(Complaint::line(MAP, line_idx, message));
            }
        }
    }
    if !found {
        complaints.push(Complaint::file(
            MAP,
            format!("no section `{HEADING}`: add it"),
        ));
    }
    complaints
}

/// What a line has in backticks, commands and options left out.
fn names(line: &str) -> impl Iterator<Item = &str> {
    let spans = line.split('`').skip(1).step_by(2);
    spans.filter(|span| !span.contains(' ') && !span.starts_with('-'))
}

/// Whether the name is a package, a path, or defined in the sources of `package` (or of any, if "").
fn exists(tree: &Tree, package: &str, name: &str) -> bool {
    if is_package(tree, name) || tree.has(name) {
        return true;
    }
    let first = name.split("::").next().unwrap_or(name).replace('_', "-");
    let package = if name.contains("::") && is_package(tree, &first) {
        &first
    } else {
        package
    };
    let source = if package.is_empty() {
        String::new()
    } else {
        format!("{package}/")
    };
    if name.contains('/') || name.contains('.') {
        return tree.has(&format!("{source}{name}")) || tree.has(&format!("{source}src/{name}"));
    }
    let item = name.rsplit("::").next().unwrap_or(name);
    let item = item.trim_end_matches("()").trim_end_matches('!');
    tree.below(&source)
        .filter(|(path, _)| path.ends_with(".rs"))
        .any(|(_, text)| rust::defines(text, item))
}

/// Whether the workspace lists a dependency called `name`.
fn is_package(tree: &Tree, name: &str) -> bool {
    let manifest = tree.get("Cargo.toml").unwrap_or_default();
    manifest.parse::<toml::Table>().is_ok_and(|manifest| {
        let dependencies = manifest
            .get("workspace")
            .and_then(|table| table.get("dependencies"));
        dependencies.is_some_and(|table| table.get(name).is_some())
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::expect_complaints;
    use super::*;

    #[test]
    fn names_of_the_map_exist_in_their_crate() {
        let map = "\
## Bird's-eye view
`Anything` goes here.
## Code map
All of `ipu-sim`, `rayon`, `configs/systems` and `nothing`; `cargo xtask ci` is a command.
### `ipu-sim`
`layout` has `Layout`, `Layout::cut()` and `layout.rs`, but not `Graph`.
### `popart-graph`
`Graph` and `ipu_sim::Layout` exist, `Layout` isn't here, nor are `plan/gone.rs` and `ipu_sim::Gone`.
## Glossary
`Gone` too.
";
        expect_complaints(
            check,
            &[
                (
                    "Cargo.toml",
                    "[workspace.dependencies]\nipu-sim = { path = \"ipu-sim\" }\nrayon = \"1\"\n",
                ),
                ("configs/systems/pod.toml", ""),
                (MAP, map),
                (
                    "ipu-sim/src/layout.rs",
                    "struct Layout; impl Layout { fn cut() {} }",
                ),
                ("ipu-sim/src/lib.rs", "pub mod layout;"),
                ("popart-graph/src/ir.rs", "// struct Layout;\nstruct Graph;"),
            ],
            &expect![[r#"
                docs/ARCHITECTURE.md:4: `nothing` isn't in the project any more: name what has taken its place, or drop the sentence
                docs/ARCHITECTURE.md:6: `Graph` isn't in ipu-sim any more: name what has taken its place, or drop the sentence
                docs/ARCHITECTURE.md:8: `Layout` isn't in popart-graph any more: name what has taken its place, or drop the sentence
                docs/ARCHITECTURE.md:8: `plan/gone.rs` isn't in popart-graph any more: name what has taken its place, or drop the sentence
                docs/ARCHITECTURE.md:8: `ipu_sim::Gone` isn't in popart-graph any more: name what has taken its place, or drop the sentence
            "#]],
        );
    }

    #[test]
    fn a_lost_map_is_noticed() {
        expect_complaints(
            check,
            &[],
            &expect![[r#"
            docs/ARCHITECTURE.md: missing: the map of the code belongs here
        "#]],
        );
        expect_complaints(
            check,
            &[(MAP, "# Architecture\n")],
            &expect![[r#"
            docs/ARCHITECTURE.md: no section `## Code map`: add it
        "#]],
        );
    }
}

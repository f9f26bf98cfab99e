//! Is every pass part of the pipeline, and does it show what it does?
//!
//! A pass is a file of `popart-graph/src/passes/`. It must be called in `passes.rs`, which
//! lists the pipeline in order; its header must say what it assumes, guarantees and leaves
//! alone, and show a graph before and after it, which is its first test; and snapshots must show
//! more.

use super::{Complaint, Tree, rust};

const PIPELINE: &str = "popart-graph/src/passes.rs";
const FOLDER: &str = "popart-graph/src/passes/";

/// What the header of a pass has.
const HEADER: [&str; 5] = [
    "**Assumes**",
    "**Guarantees**",
    "**Leaves alone**",
    "\n//! before\n",
    "\n//! after\n",
];

/// The test of the header.
const SHOWS_HEADER: &str = "fn the_header_shows_it";

/// Files of the folder that are no passes.
const NOT_PASSES: [&str; 2] = ["error", "tests"];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let pipeline = tree.get(PIPELINE).unwrap_or_default();
    let passes = tree.below(FOLDER).filter_map(|(path, text)| {
        let name = path.strip_prefix(FOLDER)?.strip_suffix(".rs")?;
        (!name.contains('/') && !NOT_PASSES.contains(&name)).then_some((path, name, text))
    });
    let mut complaints = Vec::new();
    for (path, name, text) in passes {
        // Once as a module, and at least once more where it is called.
        if rust::words(pipeline).filter(|&word| word == name).count() < 2 {
            let message = format!(
                "`{PIPELINE}` doesn't run this pass: call `{name}` where it belongs in the order, with a line on why there"
            );
            complaints.push(Complaint::file(path, message));
        }
        let inner = format!("{FOLDER}{name}/");
        let texts: Vec<&str> = tree
            .below(&inner)
            .map(|(_, text)| text)
            .chain([text])
            .collect();
        let lacking: Vec<&str> = HEADER
            .into_iter()
            .filter(|part| !text.contains(part))
            .map(str::trim)
            .collect();
        if !lacking.is_empty() {
            let message = format!(
                "the header lacks `{}`: say what the pass needs and gives, and show a graph before and after it",
                lacking.join("`, `")
            );
            complaints.push(Complaint::file(path, message));
        }
        let shows_header = |text: &&str| {
            let first_test = text.split_once("#[test]");
            first_test.is_some_and(|(_, test)| test.trim_start().starts_with(SHOWS_HEADER))
        };
        if !texts.iter().any(shows_header) {
            let message = format!(
                "the first test isn't the header: begin with `{SHOWS_HEADER}() {{ check_header(include_str!(..), ..) }}`"
            );
            complaints.push(Complaint::file(path, message));
        }
        if !texts
            .iter()
            .any(|text| rust::words(text).any(|word| word.starts_with("expect")))
        {
            let message =
                "no snapshot: add a test with the graph before and after the pass, by `expect!`";
            complaints.push(Complaint::file(path, message));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::expect_complaints;
    use super::*;

    #[test]
    fn a_pass_is_listed_and_snapshotted() {
        let pipeline = "mod forgotten;\nmod split;\nmod stash;\nfn training(graph: Graph) -> Graph { split::split(stash::stash(graph)) }\n";
        let header = "//! **Assumes** **Guarantees** **Leaves alone**\n//! before\n//! after\n";
        let test = "#[test]\nfn the_header_shows_it() {}\n";
        let snapshot = "check(graph, expect![[\"\"]]);\n";
        expect_complaints(
            check,
            &[
                (PIPELINE, pipeline),
                (
                    "popart-graph/src/passes/forgotten.rs",
                    &format!("{header}{test}{snapshot}"),
                ),
                (
                    "popart-graph/src/passes/split.rs",
                    &format!("{header}mod tests;\n"),
                ),
                (
                    "popart-graph/src/passes/split/tests.rs",
                    &format!("{test}{snapshot}"),
                ),
                (
                    "popart-graph/src/passes/stash.rs",
                    "//! **Assumes**\n// expect! nothing\n",
                ),
                ("popart-graph/src/passes/tests.rs", ""),
            ],
            &expect![[r#"
                popart-graph/src/passes/forgotten.rs: `popart-graph/src/passes.rs` doesn't run this pass: call `forgotten` where it belongs in the order, with a line on why there
                popart-graph/src/passes/stash.rs: the header lacks `**Guarantees**`, `**Leaves alone**`, `//! before`, `//! after`: say what the pass needs and gives, and show a graph before and after it
                popart-graph/src/passes/stash.rs: the first test isn't the header: begin with `fn the_header_shows_it() { check_header(include_str!(..), ..) }`
                popart-graph/src/passes/stash.rs: no snapshot: add a test with the graph before and after the pass, by `expect!`
            "#]],
        );
    }
}

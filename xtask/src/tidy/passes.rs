//! Is every pass part of the pipeline, and does it show what it does?
//!
//! A pass is a file of `popart-graph/src/passes/`. It must be called in `passes.rs`, which
//! lists the pipeline in order, and a snapshot must show a graph before and after it.

use super::{Complaint, Tree, rust};

const PIPELINE: &str = "popart-graph/src/passes.rs";
const FOLDER: &str = "popart-graph/src/passes/";

/// Files of the folder that are no passes.
const NOT_PASSES: [&str; 1] = ["tests"];

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
        let mut texts = tree.below(&inner).map(|(_, text)| text).chain([text]);
        if !texts.any(|text| rust::words(text).any(|word| word.starts_with("expect"))) {
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
        let snapshot = "check(graph, expect![[\"\"]]);\n";
        expect_complaints(
            check,
            &[
                (PIPELINE, pipeline),
                ("popart-graph/src/passes/forgotten.rs", snapshot),
                ("popart-graph/src/passes/split.rs", "mod tests;\n"),
                ("popart-graph/src/passes/split/tests.rs", snapshot),
                ("popart-graph/src/passes/stash.rs", "// expect! nothing\n"),
                ("popart-graph/src/passes/tests.rs", ""),
            ],
            &expect![[r#"
                popart-graph/src/passes/forgotten.rs: `popart-graph/src/passes.rs` doesn't run this pass: call `forgotten` where it belongs in the order, with a line on why there
                popart-graph/src/passes/stash.rs: no snapshot: add a test with the graph before and after the pass, by `expect!`
            "#]],
        );
    }
}

//! Do the packages depend on what they may, and use what they depend on?
//!
//! Crates stand in layers, and each may only name those below it. Packages that print or
//! read the command line stay in the top layer, so that the library below it is pure; what a
//! layer is built on is listed by it; nothing is listed without being used; versions stand in
//! the root manifest only.

use toml::{Table, Value};

use super::{Complaint, Tree, rust};

/// The crates, lowest first: each may depend on those before it.
const LAYERS: [&str; 5] = [
    "ipu-sim",
    "popart-graph",
    "bert-model",
    "bench-core",
    "bench-cli",
];

/// Members beside the layers, and whether they may depend on all of these.
const BESIDE: [(&str, bool); 2] = [("tests", true), ("xtask", false)];

/// What a crate must use: (package, its dependency, for what).
const REQUIRED: [(&str, &str, &str); 15] = [
    ("ipu-sim", "criterion", "benches of timing and weighing"),
    (
        "ipu-sim",
        "crossbeam",
        "channels between host and device thread",
    ),
    ("ipu-sim", "half", "16-bit floats"),
    ("ipu-sim", "parking_lot", "the driver's guarded state"),
    ("ipu-sim", "rayon", "the threads of `ipu_sim::threads`"),
    ("ipu-sim", "serde", "descriptions of machines"),
    ("ipu-sim", "thiserror", "the crate's `Error`"),
    ("popart-graph", "criterion", "benches of the planner"),
    ("popart-graph", "thiserror", "the crate's `Error`"),
    ("bert-model", "bytemuck", "records of training data"),
    ("bert-model", "rand_xoshiro", "seeded weights and batches"),
    ("bench-core", "criterion", "benches of whole runs"),
    ("bench-core", "thiserror", "the crate's `Error`"),
    ("bench-cli", "clap", "the command line"),
    ("bench-cli", "serde", "presets and reports"),
];

/// Packages that may be used nowhere else: (dependency, members, why).
const CONFINED: [(&str, &[&str], &str); 11] = [
    (
        "anyhow",
        &["bench-cli", "xtask"],
        "libraries return their own `Error`",
    ),
    ("clap", &["bench-cli"], "only bench-cli has a command line"),
    (
        "clap_complete",
        &["bench-cli"],
        "only bench-cli has a command line",
    ),
    ("comfy-table", &["bench-cli"], "only bench-cli prints"),
    ("csv", &["bench-cli"], "only bench-cli writes files"),
    ("ctrlc", &["bench-cli"], "only bench-cli can be interrupted"),
    ("indicatif", &["bench-cli"], "only bench-cli prints"),
    (
        "rayon",
        &["ipu-sim", "tests"],
        "`ipu_sim::threads` starts as many threads as there can be",
    ),
    (
        "signal-hook",
        &["bench-cli"],
        "only bench-cli can be interrupted",
    ),
    (
        "tempfile",
        &["bench-cli", "tests"],
        "only bench-cli touches files",
    ),
    (
        "trycmd",
        &["bench-cli", "tests"],
        "only bench-cli has a command line",
    ),
];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let Some(root) = parse(tree, "Cargo.toml", &mut complaints) else {
        return complaints;
    };
    let mut listed = Vec::new();
    for member in members(&root) {
        let path = format!("{member}/Cargo.toml");
        let Some(manifest) = parse(tree, &path, &mut complaints) else {
            continue;
        };
        let package = Package {
            tree,
            name: member,
            dependencies: dependencies(&manifest),
        };
        let mut messages = package.layering();
        messages.extend(package.use_of_packages());
        messages.extend(package.versions());
        if !inherits(manifest.get("lints")) {
            messages.push(
                "lints stand in the root manifest: write `[lints]`, `workspace = true`".into(),
            );
        }
        complaints.extend(
            messages
                .into_iter()
                .map(|message| Complaint::file(&path, message)),
        );
        let names = package.dependencies.iter();
        listed.extend(names.map(|&(name, _)| name.to_owned()));
    }
    for (name, _) in table(root.get("workspace"), "dependencies") {
        if !listed.iter().any(|listed| listed == name) {
            let message = format!("no member depends on `{name}`: remove it");
            complaints.push(Complaint::file("Cargo.toml", message));
        }
    }
    complaints
}

/// A member and what it depends on.
struct Package<'a> {
    tree: &'a Tree,
    name: &'a str,
    dependencies: Vec<(&'a str, &'a Value)>,
}

impl Package<'_> {
    fn lists(&self, dependency: &str) -> bool {
        self.dependencies
            .iter()
            .any(|&(name, _)| name == dependency)
    }

    fn layering(&self) -> Vec<String> {
        let name = self.name;
        let position = |name: &str| LAYERS.iter().position(|layer| *layer == name);
        let allowed: &[&str] = match (
            position(name),
            BESIDE.iter().find(|(beside, _)| *beside == name),
        ) {
            (Some(layer), _) => &LAYERS[..layer],
            (None, Some((_, true))) => &LAYERS,
            (None, Some((_, false))) => &[],
            (None, None) => {
                let place = "give it its place in LAYERS or BESIDE of xtask/src/tidy/manifests.rs";
                return vec![format!("`{name}` stands in no layer: {place}")];
            }
        };
        let is_ours = |other: &str| {
            position(other).is_some() || BESIDE.iter().any(|(beside, _)| *beside == other)
        };
        self.dependencies
            .iter()
            .filter(|(other, _)| is_ours(other) && !allowed.contains(other))
            .map(|(other, _)| {
                format!("`{name}` may not depend on `{other}`: move what it needs into a lower crate, or pass it as plain data")
            })
            .collect()
    }

    fn use_of_packages(&self) -> Vec<String> {
        let name = self.name;
        let folder = format!("{name}/");
        let sources = || {
            self.tree
                .below(&folder)
                .filter(|(path, _)| path.ends_with(".rs"))
        };
        let mut messages = Vec::new();
        for (dependency, _) in &self.dependencies {
            if !sources().any(|(_, text)| rust::uses_package(text, dependency)) {
                messages.push(format!(
                    "`{dependency}` is listed but not used: use it or remove it"
                ));
            }
        }
        for (_, required, what) in REQUIRED.iter().filter(|(package, ..)| *package == name) {
            if !self.lists(required) {
                messages.push(format!("`{required}` isn't listed: use it for {what}"));
            }
        }
        for (confined, homes, why) in CONFINED {
            if self.lists(confined) && !homes.contains(&name) {
                messages.push(format!("`{confined}` doesn't belong in {name}: {why}"));
            }
        }
        messages
    }

    fn versions(&self) -> Vec<String> {
        self.dependencies
            .iter()
            .filter(|(_, value)| !inherits(Some(value)))
            .map(|(name, _)| {
                format!("versions stand in the root manifest: write `{name}.workspace = true`")
            })
            .collect()
    }
}

fn parse(tree: &Tree, path: &str, complaints: &mut Vec<Complaint>) -> Option<Table> {
    let Some(text) = tree.get(path) else {
        complaints.push(Complaint::file(
            path,
            "missing: every member has a manifest",
        ));
        return None;
    };
    match text.parse() {
        Ok(table) => Some(table),
        Err(error) => {
            complaints.push(Complaint::file(
                path,
                format!("not TOML: {}", error.message()),
            ));
            None
        }
    }
}

fn members(root: &Table) -> Vec<&str> {
    let members = root
        .get("workspace")
        .and_then(|workspace| workspace.get("members"));
    let members = members.and_then(Value::as_array);
    members
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// All dependencies of a manifest: normal, for tests, for build scripts.
fn dependencies(manifest: &Table) -> Vec<(&str, &Value)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let of_targets = targets.into_iter().flatten().map(|(_, target)| target);
    let of_targets = of_targets.filter_map(Value::as_table);
    std::iter::once(manifest)
        .chain(of_targets)
        .flat_map(|part| {
            ["dependencies", "dev-dependencies", "build-dependencies"]
                .into_iter()
                .filter_map(|kind| part.get(kind)?.as_table())
        })
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
        .collect()
}

/// The entries of the table `key` in `value`, if it has one.
fn table<'a>(value: Option<&'a Value>, key: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let inner = value
        .and_then(|value| value.get(key))
        .and_then(Value::as_table);
    inner
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
}

/// Whether a value is taken from the root manifest: `{ workspace = true }`.
fn inherits(value: Option<&Value>) -> bool {
    let workspace = value.and_then(|value| value.get("workspace"));
    workspace.and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::testing::expect_complaints;
    use super::*;

    /// A workspace of one member with these lines of dependencies and this source.
    fn expect_of(member: &str, dependencies: &str, source: &str, expect: &Expect) {
        let root = format!("[workspace]\nmembers = [\"{member}\"]\n");
        let manifest = format!("[lints]\nworkspace = true\n[dependencies]\n{dependencies}");
        let files = [
            ("Cargo.toml", root.as_str()),
            (&format!("{member}/Cargo.toml"), &manifest),
            (&format!("{member}/src/lib.rs"), source),
        ];
        expect_complaints(check, &files, expect);
    }

    #[test]
    fn lower_crates_may_not_name_upper_ones() {
        expect_of(
            "bert-model",
            "bench-cli.workspace = true\nbytemuck.workspace = true\npopart-graph.workspace = true\nrand_xoshiro.workspace = true\n",
            "use bench_cli; use bytemuck; use popart_graph; use rand_xoshiro;",
            &expect![[r#"
                bert-model/Cargo.toml: `bert-model` may not depend on `bench-cli`: move what it needs into a lower crate, or pass it as plain data
            "#]],
        );
    }

    #[test]
    fn the_library_neither_prints_nor_reads_words() {
        let list = |names: &[&str]| -> String {
            let lines = names
                .iter()
                .map(|name| format!("{name}.workspace = true\n"));
            lines.collect()
        };
        let below = ["bert-model", "criterion", "thiserror"];
        let pure = "use {bert_model, criterion, thiserror};";
        expect_of("bench-core", &list(&below), pure, &expect![[r#""#]]);
        let above = [
            "anyhow",
            "bench-cli",
            "clap",
            "comfy-table",
            "ctrlc",
            "indicatif",
        ];
        expect_of(
            "bench-core",
            &list(&[&below[..], &above].concat()),
            &format!("{pure} use {{anyhow, bench_cli, clap, comfy_table, ctrlc, indicatif}};"),
            &expect![[r#"
                bench-core/Cargo.toml: `bench-core` may not depend on `bench-cli`: move what it needs into a lower crate, or pass it as plain data
                bench-core/Cargo.toml: `anyhow` doesn't belong in bench-core: libraries return their own `Error`
                bench-core/Cargo.toml: `clap` doesn't belong in bench-core: only bench-cli has a command line
                bench-core/Cargo.toml: `comfy-table` doesn't belong in bench-core: only bench-cli prints
                bench-core/Cargo.toml: `ctrlc` doesn't belong in bench-core: only bench-cli can be interrupted
                bench-core/Cargo.toml: `indicatif` doesn't belong in bench-core: only bench-cli prints
            "#]],
        );
    }

    #[test]
    fn xtask_names_no_crate_and_the_tests_all() {
        let dependencies = "ipu-sim.workspace = true\n";
        expect_of(
            "xtask",
            dependencies,
            "use ipu_sim;",
            &expect![[r#"
            xtask/Cargo.toml: `xtask` may not depend on `ipu-sim`: move what it needs into a lower crate, or pass it as plain data
        "#]],
        );
        expect_of("tests", dependencies, "use ipu_sim;", &expect![[r#""#]]);
        expect_of(
            "extra",
            dependencies,
            "use ipu_sim;",
            &expect![[r#"
            extra/Cargo.toml: `extra` stands in no layer: give it its place in LAYERS or BESIDE of xtask/src/tidy/manifests.rs
        "#]],
        );
    }

    #[test]
    fn packages_are_used_where_they_belong() {
        expect_of(
            "popart-graph",
            "clap.workspace = true\ncriterion.workspace = true\nthiserror.workspace = true\nhalf = \"2\"\n",
            "use clap; use half; use thiserror;",
            &expect![[r#"
                popart-graph/Cargo.toml: `criterion` is listed but not used: use it or remove it
                popart-graph/Cargo.toml: `clap` doesn't belong in popart-graph: only bench-cli has a command line
                popart-graph/Cargo.toml: versions stand in the root manifest: write `half.workspace = true`
            "#]],
        );
    }

    #[test]
    fn the_root_lists_nothing_in_vain_and_members_inherit_its_lints() {
        expect_complaints(
            check,
            &[
                (
                    "Cargo.toml",
                    "[workspace]\nmembers = [\"gone\", \"xtask\"]\n[workspace.dependencies]\ntoml = \"1\"\nglob = \"1\"\nrayon = \"1\"\n",
                ),
                (
                    "xtask/Cargo.toml",
                    "[dev-dependencies]\ntoml.workspace = true\n\
                     [target.'cfg(unix)'.dependencies]\nglob.workspace = true\n",
                ),
                ("xtask/src/main.rs", "use {glob, toml};"),
            ],
            &expect![[r#"
                gone/Cargo.toml: missing: every member has a manifest
                xtask/Cargo.toml: lints stand in the root manifest: write `[lints]`, `workspace = true`
                Cargo.toml: no member depends on `rayon`: remove it
            "#]],
        );
    }
}

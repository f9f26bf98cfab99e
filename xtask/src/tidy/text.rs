//! What must not stand in any file: paths of one machine, unfinished code, silent modules.
//!
//! Files of tests beside a module are described by that module.

use super::{Complaint, Tree};

/// The one file that may look outside the project, on one line: golden files that are not
/// part of it make the tests stricter where they exist.
const MAY_LOOK_OUTSIDE: &str = ".ci/run";

/// First folders of absolute paths that only exist on somebody's machine.
const FIRST_FOLDERS: [&str; 5] = ["home", "root", "tmp", "work", "Users"];

/// What unfinished code looks like, and what to say of it.
///
/// In two halves, so that this file doesn't complain about itself.
const UNFINISHED: [(&str, &str, &str); 3] = [
    (
        "todo",
        "!(",
        "unfinished code: finish it, or return an `Error` that says what isn't supported",
    ),
    (
        "unimplemented",
        "!(",
        "unfinished code: finish it, or return an `Error` that says what isn't supported",
    ),
    (
        "#[",
        "ignore",
        "a test that is skipped: make it fast and sure enough to run always, or delete it",
    ),
];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    // The lock file is written by cargo.
    for (path, text) in tree.below("").filter(|&(path, _)| path != "Cargo.lock") {
        machine_paths(path, text, &mut complaints);
    }
    for (path, text) in tree.with_extension("rs") {
        unfinished(path, text, &mut complaints);
        let is_tests = path.ends_with("/tests.rs");
        if !is_tests && !text.trim_start().starts_with("//!") {
            let message = "open the module with `//!`: which question it answers, from which source, what it leaves out";
            complaints.push(Complaint::file(path, message));
        }
    }
    complaints
}

fn machine_paths(path: &str, text: &str, complaints: &mut Vec<Complaint>) {
    let mut needles: Vec<String> = FIRST_FOLDERS.map(|name| format!("/{name}/")).into();
    needles.push(format!("..{}shared", '/'));
    let mut allowed = usize::from(path == MAY_LOOK_OUTSIDE);
    for (line_idx, line) in text.lines().enumerate() {
        if !needles.iter().any(|needle| line.contains(needle)) {
            continue;
        }
        if allowed > 0 {
            allowed -= 1;
            continue;
        }
        let message =
            "a path of one machine: write it relative to the project, or cite the public source";
        complaints.push(Complaint::line(path, line_idx, message));
    }
}

fn unfinished(path: &str, text: &str, complaints: &mut Vec<Complaint>) {
    for (first, second, message) in UNFINISHED {
        let needle = format!("{first}{second}");
        for (line_idx, line) in text.lines().enumerate() {
            if line.contains(&needle) {
                complaints.push(Complaint::line(path, line_idx, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::expect_complaints;
    use super::*;

    #[test]
    fn paths_of_one_machine_are_refused_but_for_one_line() {
        let path = ["", "home", "me", "data"].join("/");
        let outside = ["..", "shared", "data"].join("/");
        let script = format!("cd {outside}\ncd {outside}\n");
        expect_complaints(
            check,
            &[
                (".ci/run", &script),
                ("Cargo.lock", &path),
                (
                    "README.md",
                    &format!("Relative: a/b.\n\nAbsolute: {path}.\n"),
                ),
            ],
            &expect![[r#"
                .ci/run:2: a path of one machine: write it relative to the project, or cite the public source
                README.md:3: a path of one machine: write it relative to the project, or cite the public source
            "#]],
        );
    }

    #[test]
    fn unfinished_and_silent_modules_are_refused() {
        let unfinished: String = UNFINISHED
            .iter()
            .map(|(first, second, _)| format!("{first}{second}\n"))
            .collect();
        expect_complaints(
            check,
            &[
                ("a/src/lib.rs", &format!("//! Speaks.\n{unfinished}")),
                ("a/src/silent.rs", "/// A function.\npub fn f() {}\n"),
                ("a/src/silent/tests.rs", "use super::*;\n"),
            ],
            &expect![[r#"
                a/src/lib.rs:2: unfinished code: finish it, or return an `Error` that says what isn't supported
                a/src/lib.rs:3: unfinished code: finish it, or return an `Error` that says what isn't supported
                a/src/lib.rs:4: a test that is skipped: make it fast and sure enough to run always, or delete it
                a/src/silent.rs: open the module with `//!`: which question it answers, from which source, what it leaves out
            "#]],
        );
    }
}

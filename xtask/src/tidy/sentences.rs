//! Does the first sentence of a public doc comment stand alone?
//!
//! rustdoc shows it in lists, away from its neighbours: it needs a subject of its own, and where
//! that is a number, its quantity and unit. Nobody can check that without reading, but a sentence
//! that leans on its neighbour shows it by its first words.

use super::{Complaint, Tree};

/// Crates whose sentences stand alone; the others follow one by one.
const CRATES: [&str; 5] = [
    "ipu-sim",
    "popart-graph",
    "bert-model",
    "bench-core",
    "bench-cli",
];

/// First words of a sentence that leans on another one, and what to begin with instead.
///
/// A word counts as a whole: `It` isn't `Item`.
const OPENERS: [(&[&str], &str); 6] = [
    (
        &[
            "It", "Its", "They", "Their", "Them", "This", "That", "These", "Those", "Both",
        ],
        "name what is meant",
    ),
    (
        &[
            "Of",
            "All of it",
            "All of them",
            "None of them",
            "The others",
            "The rest",
            "The other",
        ],
        "name the whole and the part",
    ),
    (
        &["As", "The same", "Likewise", "Also", "Else", "Otherwise"],
        "say it again in a few words",
    ),
    (
        &["What", "Whose", "Who"],
        "begin with the noun: `Bytes that ..`, `Cycles of ..`, `Reason that ..`",
    ),
    (
        &[
            "Where it",
            "Where they",
            "When it",
            "When they",
            "How it",
            "How they",
            "Why it",
        ],
        "name what `it` is",
    ),
    (
        &[
            "By",
            "In which",
            "On which",
            "For what",
            "For whom",
            "From",
            "With",
            "Which one",
            "How many there are",
        ],
        "begin with what it is, of which this is a detail",
    ),
];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let folders = CRATES.map(|name| format!("{name}/src/"));
    let files = folders.iter().flat_map(|folder| tree.below(folder));
    files
        .filter(|(path, _)| path.ends_with(".rs"))
        .flat_map(|(path, text)| check_file(path, text))
        .collect()
}

fn check_file(path: &str, text: &str) -> Vec<Complaint> {
    let code = text.split("#[cfg(test)]\nmod tests {").next();
    let lines: Vec<&str> = code.unwrap_or_default().lines().map(str::trim).collect();
    let is_doc = |line_idx: usize| lines[line_idx].starts_with("///");
    let begins = |line_idx: &usize| is_doc(*line_idx) && (*line_idx == 0 || !is_doc(line_idx - 1));
    let public = (0..lines.len()).filter(begins).filter(|&line_idx| {
        let item = item(&lines[line_idx..]);
        item.is_some_and(|item| item.starts_with("pub "))
    });
    public
        .filter_map(|line_idx| {
            let sentence = lines[line_idx].trim_start_matches('/').trim_start();
            let (opener, instead) = leans(sentence)?;
            let message = format!("`{opener} ..` leans on its neighbour in a list: {instead}");
            Some(Complaint::line(path, line_idx, message))
        })
        .collect()
}

/// The line that a doc comment at the begin of `lines` belongs to, behind its attributes.
fn item<'t>(lines: &[&'t str]) -> Option<&'t str> {
    let mut open = 0_usize;
    lines.iter().copied().find(|line| {
        let is_attribute = open > 0 || line.starts_with("#[");
        if is_attribute {
            open += line.matches(['[', '(']).count();
            open = open.saturating_sub(line.matches([']', ')']).count());
        }
        !is_attribute && !line.starts_with("///")
    })
}

/// How a sentence leans on another one, and what to do about it.
fn leans(sentence: &str) -> Option<(&'static str, &'static str)> {
    let opens = |opener: &str| {
        let rest = sentence.strip_prefix(opener);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    OPENERS.iter().find_map(|(openers, instead)| {
        let opener = openers.iter().find(|opener| opens(opener))?;
        Some((*opener, *instead))
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::expect_complaints;
    use super::*;

    #[test]
    fn first_sentences_name_their_subject() {
        let text = "\
//! What this is.

/// Bytes of a tile.
pub struct Memory {
    /// What of that code can run from.
    #[serde(
        rename = \"code\"
    )]
    pub executable: Bytes,
    /// Items by number; those that are gone are none.
    pub items: Vec<Item>,
    /// Its size, which nobody else sees.
    size: Bytes,
}

/// As [`read`],
/// from a file.
///
/// It opens one.
#[must_use]
pub fn read_file() {}

/// It isn't public.
pub(crate) fn hidden() {}

#[cfg(test)]
mod tests {
    /// It is a test.
    pub fn helper() {}
}
";
        expect_complaints(
            check,
            &[
                ("ipu-sim/src/memory.rs", text),
                ("ipu-sim/tests/memory.rs", text),
                ("other/src/memory.rs", text),
            ],
            &expect![[r#"
                ipu-sim/src/memory.rs:5: `What ..` leans on its neighbour in a list: begin with the noun: `Bytes that ..`, `Cycles of ..`, `Reason that ..`
                ipu-sim/src/memory.rs:16: `As ..` leans on its neighbour in a list: say it again in a few words
            "#]],
        );
    }

    #[test]
    fn openers_are_whole_words() {
        for (sentence, expected) in [
            ("It grows.", Some("It")),
            ("Items of a list.", None),
            ("Of that, the first link.", Some("Of")),
            ("Office hours.", None),
            ("Assembly of what arrived.", None),
            ("By tile.", Some("By")),
            ("Bytes by tile.", None),
        ] {
            assert_eq!(
                leans(sentence).map(|(opener, _)| opener),
                expected,
                "{sentence}"
            );
        }
    }
}

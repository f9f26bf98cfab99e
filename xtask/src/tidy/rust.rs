//! Just enough reading of Rust for the checks: words, and what they define.
//!
//! Lines that are wholly comment are skipped. Strings are not told apart from code, which
//! is close enough to see whether a name is used or defined.

/// Keywords that give the word after them a meaning.
const DEFINING: [&str; 9] = [
    "struct", "enum", "union", "trait", "type", "fn", "mod", "const", "static",
];

/// The identifiers of a source text, in order, comment lines left out.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|word| !word.is_empty())
}

/// Whether a source text uses the package `name` (in code, with `_` for `-`).
pub(super) fn uses_package(text: &str, name: &str) -> bool {
    let ident = name.replace('-', "_");
    words(text).any(|word| word == ident)
}

/// Whether a source text defines `name`: a type, a trait, a function, a module, a constant or a macro.
pub(super) fn defines(text: &str, name: &str) -> bool {
    let keywords = words(text).zip(words(text).skip(1));
    let mut keywords = keywords.filter(|&(_, defined)| defined == name);
    keywords.any(|(keyword, _)| DEFINING.contains(&keyword) || keyword == "macro_rules")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_told_from_uses_and_comments() {
        let text = "\
//! struct Commented;
pub(crate) struct Layout { axes: Vec<AxisSplit> }
macro_rules! define_ids { () => {}; }
fn cut(extent: u32) -> AxisSplit { todo() }
";
        let found = [
            "Layout",
            "define_ids",
            "cut",
            "AxisSplit",
            "Commented",
            "axes",
        ]
        .map(|name| defines(text, name));
        assert_eq!(found, [true, true, true, false, false, false]);
    }

    #[test]
    fn packages_are_used_in_code_only() {
        let text = "// rayon would help here\nuse rand_xoshiro::SplitMix64;\n";
        assert!(uses_package(text, "rand-xoshiro"));
        assert!(!uses_package(text, "rayon"));
    }
}

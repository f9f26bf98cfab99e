//! Which of the known words was meant?

/// The known word that differs least from `found`, if it differs little.
pub(crate) fn closest<'a>(
    found: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let allowed = 1 + found.chars().count() / 4;
    let near = known.into_iter().map(|word| (distance(found, word), word));
    let near = near.filter(|(edits, _)| *edits <= allowed);
    near.min_by_key(|(edits, _)| *edits).map(|(_, word)| word)
}

/// For a message: nothing, or ` (did you mean ..?)`.
pub(crate) fn did_you_mean(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |word| format!(" (did you mean `{word}`?)"))
}

/// Letters to insert, delete or replace (Levenshtein), in one row of the table at a time.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (left, candidate) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *candidate);
            diagonal = row[left + 1];
            row[left + 1] = replaced.min(diagonal + 1).min(row[left] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("clok", "clock", 1),
            ("kitten", "sitting", 3),
            ("Zürich", "Zurich", 1),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        let known = ["chip.clock", "chip.tiles", "chip.memory"];
        for (found, meant) in [
            ("chip.clok", Some("chip.clock")),
            ("chip.tile", Some("chip.tiles")),
            ("chip.voltage", None),
            ("", None),
        ] {
            assert_eq!(closest(found, known), meant, "{found}");
        }
        assert_eq!(did_you_mean(None), "");
        assert_eq!(did_you_mean(Some("x")), " (did you mean `x`?)");
    }
}

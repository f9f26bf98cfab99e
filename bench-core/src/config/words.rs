//! Words that a switch may be given by.
//!
//! Source: `str_to_bool` of `utils/__init__.py` in graphcore/examples, `applications/popart/bert`.

/// The truth that a word says, in capitals or not; none of a word that says neither.
#[must_use]
pub fn truth(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "y" => Some(true),
        "false" | "f" | "0" | "no" | "n" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_true_false_or_nothing() {
        for (words, expected) in [
            ("true T 1 Yes y", Some(true)),
            ("FALSE f 0 no N", Some(false)),
            ("on off 2 yess \u{212a}", None),
        ] {
            for word in words.split(' ') {
                assert_eq!(truth(word), expected, "{word}");
            }
        }
        assert_eq!(truth(""), None);
    }
}

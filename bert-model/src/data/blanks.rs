//! Blanks and line ends of a text, as Python has them.
//!
//! The published application reads its files as Python does: a text file's lines end at a line
//! feed, a carriage return or both, and `str` strips and splits at more characters than
//! [`char::is_whitespace`] knows.

/// Whether Python's `str.isspace` holds: Unicode white space, and the four separators of ASCII.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1C}'..='\u{1F}')
}

/// A text without the blanks around it, as `str.strip`.
#[must_use]
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_blank)
}

/// Words between the blanks of a text, as `str.split`.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_blank).filter(|word| !word.is_empty())
}

/// The lines of a text file without their ends, as `for line in file`.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        let next = after.strip_prefix("\r\n");
        rest = next.unwrap_or_else(|| after.get(1..).unwrap_or_default());
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_those_of_python() {
        // Python 3: [chr(c) for c in range(0x110000) if chr(c).isspace()], 29 of them.
        let blank = (char::MIN..=char::MAX).filter(|&character| is_blank(character));
        assert_eq!(blank.count(), 29);
        assert_eq!(strip("\u{1F}\u{A0} a b\u{85}"), "a b");
        assert_eq!(strip("\u{200B}a\u{FEFF}"), "\u{200B}a\u{FEFF}");
        let words: Vec<&str> = split(" 9\u{A0}am\u{1C}or \u{3000}so").collect();
        assert_eq!(words, ["9", "am", "or", "so"]);
        assert_eq!(split("\u{2003}").count(), 0);
    }

    #[test]
    fn lines_end_in_three_ways() {
        let all = |text| lines(text).collect::<Vec<&str>>();
        assert_eq!(all("a\nb\r\nc\rd"), ["a", "b", "c", "d"]);
        assert_eq!(all("a\n\r\n\n"), ["a", "", ""]);
        assert_eq!(all("\r\r"), ["", ""]);
        // No line ends: a form feed, a line separator.
        assert_eq!(all("a\u{0C}b\u{2028}c"), ["a\u{0C}b\u{2028}c"]);
        assert_eq!(all("").len(), 0);
    }
}

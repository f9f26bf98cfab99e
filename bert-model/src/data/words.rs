//! What are the words of a text, as the published application has them?
//!
//! The work is that of the `tokenizers` crate: its BERT normaliser and its BERT pre-tokeniser.
//! The application's tokeniser (`bert_data/tokenization.py`, after Google's)
//! differs in a few characters, which [`clean`] settles in front of it:
//!
//! - only control and format characters (Unicode Cc and Cf) vanish; unassigned and private ones
//!   stay;
//! - one block of ideographs (U+2B820 to U+2B91F) is set apart like all others;
//! - lower case is that of whole words, so that a sigma at the end of one is a final sigma.
//!
//! Left out: the pieces that words are cut into ([`super::tokeniser`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};
use unicode_categories::UnicodeCategories;

/// Treatment of capital letters and accents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// They stay.
    Keep,
    /// Letters become small and lose their accents.
    Lower,
}

/// The words of a text, punctuation apart, before they are cut to pieces.
pub(super) fn words(text: &str, case: Case) -> Vec<String> {
    let lower = case == Case::Lower;
    let normaliser = BertNormalizer::new(false, true, Some(lower), lower);
    let mut normalised = NormalizedString::from(clean(text, case));
    let done = normaliser.normalize(&mut normalised);
    done.expect("the normaliser refuses no text");
    let mut pieces = PreTokenizedString::from(normalised);
    let done = BertPreTokenizer.pre_tokenize(&mut pieces);
    done.expect("the pre-tokeniser refuses no text");
    pieces
        .get_splits(OffsetReferential::Normalized, OffsetType::Byte)
        .into_iter()
        .map(|(word, _, _)| word.to_owned())
        .collect()
}

/// A text without what the `tokenizers` crate treats otherwise than the application.
fn clean(text: &str, case: Case) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' | '\n' | '\r' => cleaned.push(' '),
            // Set apart by the application, but not by the crate.
            '\u{2B820}'..='\u{2B91F}' => cleaned.extend([' ', character, ' ']),
            '\u{FFFD}' => {}
            _ if character.is_other_control() || character.is_other_format() => {}
            _ => cleaned.push(character),
        }
    }
    match case {
        Case::Keep => cleaned,
        Case::Lower => cleaned.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(case: Case, text: &str, expected: &[&str]) {
        assert_eq!(words(text, case), expected, "{text:?}");
    }

    #[test]
    fn words_and_punctuation_come_apart() {
        check(Case::Keep, "", &[]);
        check(Case::Keep, " \t\r\n ", &[]);
        check(
            Case::Keep,
            "Don't $3.50",
            &["Don", "'", "t", "$", "3", ".", "50"],
        );
        check(Case::Lower, "Déjà VU", &["deja", "vu"]);
        check(Case::Keep, "a力加b", &["a", "力", "加", "b"]);
        check(Case::Keep, "[SEP]", &["[", "SEP", "]"]);
    }

    #[test]
    fn what_the_crate_alone_would_do_otherwise() {
        // Private and unassigned characters stay; format characters go; separators part words.
        check(Case::Keep, "a\u{E000}b", &["a\u{E000}b"]);
        check(Case::Keep, "a\u{0378}b", &["a\u{0378}b"]);
        check(Case::Keep, "a\u{200B}b\u{0}c\u{FFFD}d\u{0B}e", &["abcde"]);
        check(
            Case::Keep,
            "a\u{A0}b\u{2028}c\u{3000}d",
            &["a", "b", "c", "d"],
        );
        // The ideographs that the crate's table leaves out.
        check(Case::Keep, "a\u{2B820}b", &["a", "\u{2B820}", "b"]);
        check(Case::Keep, "a\u{2B920}b", &["a", "\u{2B920}", "b"]);
        // A final sigma, and a dot that lower case sets and accents lose.
        check(Case::Lower, "ΟΔΟΣ ΣΑΣ", &["οδος", "σας"]);
        check(Case::Lower, "İstanbul", &["istanbul"]);
    }
}

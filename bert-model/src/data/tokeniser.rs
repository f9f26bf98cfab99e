//! From text to numbers of tokens, as the published application does it.
//!
//! The pieces of a word are those of the WordPiece model of the `tokenizers` crate; what a word
//! is stands in [`super::words`].
//!
//! Names in brackets have no meaning in a text: `[SEP]` is three words of punctuation and letters.

use tokenizers::Model;
use tokenizers::models::wordpiece::WordPiece;

use super::vocabulary::{CONTINUES, UNKNOWN, Vocabulary};
use super::words::{Case, words};

/// Longer words are not looked up.
pub(super) const WORD_CHARACTERS_MAX: usize = 200;

/// A WordPiece tokeniser.
#[derive(Clone, Debug)]
pub struct Tokeniser {
    model: WordPiece,
    case: Case,
}

impl Tokeniser {
    /// The tokeniser of a vocabulary.
    #[must_use]
    pub fn new(vocabulary: &Vocabulary, case: Case) -> Self {
        // Tokens are trimmed and hold no line feed, so that lines give them back.
        let lines = vocabulary.tokens().join("\n");
        let ids = WordPiece::read_bytes(lines.as_bytes()).expect("tokens are text");
        let builder = WordPiece::builder()
            .vocab(ids)
            .unk_token(UNKNOWN.into())
            .continuing_subword_prefix(CONTINUES.into())
            .max_input_chars_per_word(WORD_CHARACTERS_MAX);
        let model = builder.build().expect("only a file could be unreadable");
        Self { model, case }
    }

    /// The numbers of the tokens of a text.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for word in words(text, self.case) {
            let tokens = self.model.tokenize(&word);
            let tokens = tokens.expect("a vocabulary has a token for unknown words");
            ids.extend(tokens.iter().map(|token| token.id));
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_more_than_200_characters_are_unknown() {
        let vocabulary = Vocabulary::parse("[UNK]\n[CLS]\n[SEP]\n[MASK]\nx\n##x").unwrap();
        let tokeniser = Tokeniser::new(&vocabulary, Case::Keep);
        assert_eq!(tokeniser.encode(&"x".repeat(200)).len(), 200);
        assert_eq!(tokeniser.encode(&"x".repeat(201)), [vocabulary.unknown]);
        // No rest may be left over.
        assert_eq!(tokeniser.encode("xxy"), [vocabulary.unknown]);
    }
}

//! Which token has which number?
//!
//! A vocabulary is a text with a token on every line, numbered from 0, as Google published for
//! BERT: pieces that continue a word begin with `##`, names in brackets stand for no text.
//! [`Vocabulary::of_counts`] makes one of the words of any texts ([`WordCounts`]), for those who have
//! none.

use std::collections::{BTreeMap, BTreeSet};

use super::blanks::{lines, strip};
use super::error::DataError;
use super::tokeniser::WORD_CHARACTERS_MAX;
use super::words::{Case, words};

/// What stands in front of a piece that continues a word.
pub(super) const CONTINUES: &str = "##";

/// What stands for a word that no pieces make up.
pub(super) const UNKNOWN: &str = "[UNK]";
/// What a sequence begins with.
pub(super) const CLASSIFIER: &str = "[CLS]";
/// What ends either part of a sequence.
pub(super) const SEPARATOR: &str = "[SEP]";
/// What a word to be guessed is replaced by.
pub(super) const MASK: &str = "[MASK]";

/// Ordinary tokens of Google's vocabularies begin here, and so do those of ours: the loader of
/// the published application counts on `[UNK]` being 100.
const FIRST_ORDINARY: u32 = 999;
const FIRST_SPECIAL: u32 = 100;

/// Tokens of a vocabulary that is made: Google's multilingual one has 119,547.
const TOKENS_MAX: u32 = 1 << 18;
/// Memory of different words: several times that of all words of the English Wikipedia.
const WORDS_BYTES_MAX: usize = 1 << 30;
/// Memory that a word takes beside its letters.
const WORD_OVERHEAD_BYTES: usize = 64;

/// Tokens and their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    tokens: Vec<String>,
    ids: BTreeMap<String, u32>,
    /// Number of `[UNK]`.
    pub unknown: u32,
    /// Number of `[CLS]`.
    pub classifier: u32,
    /// Number of `[SEP]`.
    pub separator: u32,
    /// Number of `[MASK]`.
    pub mask: u32,
}

impl Vocabulary {
    /// The vocabulary in the text of a file. Blanks around a token don't count; of equal tokens
    /// the last has the say.
    ///
    /// # Errors
    ///
    /// [`DataError::MissingToken`] without the four special tokens.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        Self::from_tokens(lines(text).map(|line| strip(line).to_owned()).collect())
    }

    /// The vocabulary of the words of one text, as [`Vocabulary::of_counts`] makes it.
    ///
    /// # Errors
    ///
    /// As [`Vocabulary::of_counts`] and [`WordCounts::push`].
    pub fn of_words(text: &str, case: Case, size: u32) -> Result<Self, DataError> {
        let mut counts = WordCounts::new(case);
        counts.push(text)?;
        Self::of_counts(&counts, size)
    }

    /// A vocabulary of at most `size` tokens that can spell those words: numbers below
    /// 999 as in Google's vocabularies, then the characters and their continuing forms, then
    /// words, the most frequent first, then endings of words in the same order.
    ///
    /// # Errors
    ///
    /// [`DataError::VocabularySize`] if the characters alone are more than `size`;
    /// [`DataError::LargeVocabulary`] if it is larger than any vocabulary.
    pub fn of_counts(words: &WordCounts, size: u32) -> Result<Self, DataError> {
        let most = TOKENS_MAX;
        if size > most {
            return Err(DataError::LargeVocabulary { size, most });
        }
        let WordCounts { case, counts, .. } = words;
        let case = *case;
        let mut tokens = reserved();
        let mut characters: BTreeSet<char> = (' '..='~').filter(|c| is_token(*c, case)).collect();
        characters.extend(counts.keys().flat_map(|word| word.chars()));
        tokens.extend(characters.iter().map(char::to_string));
        let inside = characters.iter().filter(|c| c.is_alphanumeric());
        tokens.extend(inside.map(|c| format!("{CONTINUES}{c}")));
        if tokens.len() > size as usize {
            let least = tokens.len();
            return Err(DataError::VocabularySize { size, least });
        }
        let mut seen: BTreeSet<String> = tokens.iter().cloned().collect();
        let mut add = |candidates: &mut dyn Iterator<Item = String>| {
            let room = size as usize - tokens.len();
            let new = candidates.filter(|token| seen.insert(token.clone()));
            tokens.extend(new.take(room));
            tokens.len() < size as usize
        };
        let whole = counts.iter().map(|(word, count)| (word.as_str(), *count));
        let whole = by_frequency(whole.collect());
        // Endings are many: they are looked for only where they have room.
        if add(&mut whole.into_iter().map(str::to_owned)) {
            let endings = by_frequency(endings(counts).into_iter().collect());
            let mut endings = endings.into_iter();
            add(&mut endings
                .by_ref()
                .map(|ending| format!("{CONTINUES}{ending}")));
        }
        Self::from_tokens(tokens)
    }

    fn from_tokens(tokens: Vec<String>) -> Result<Self, DataError> {
        let ids: BTreeMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
        let special = |token: &'static str| {
            let id = ids.get(token).copied();
            id.ok_or(DataError::MissingToken { token })
        };
        Ok(Self {
            unknown: special(UNKNOWN)?,
            classifier: special(CLASSIFIER)?,
            separator: special(SEPARATOR)?,
            mask: special(MASK)?,
            tokens,
            ids,
        })
    }

    /// How many numbers there are.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.tokens.len()).expect("a vocabulary is shorter than 2^32")
    }

    /// The token of a number.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// The tokens in order of their numbers.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The number of a token.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }
}

/// Names of the numbers below [`FIRST_ORDINARY`].
fn reserved() -> Vec<String> {
    let special = [UNKNOWN, CLASSIFIER, SEPARATOR, MASK];
    let name = |id: u32| {
        let place = id.checked_sub(FIRST_SPECIAL).map(|place| place as usize);
        match place.and_then(|place| special.get(place)) {
            Some(token) => (*token).to_owned(),
            None if id == 0 => "[PAD]".to_owned(),
            None => format!("[unused{id}]"),
        }
    };
    (0..FIRST_ORDINARY).map(name).collect()
}

fn is_token(character: char, case: Case) -> bool {
    character != ' ' && (case == Case::Keep || !character.is_ascii_uppercase())
}

/// The words of texts, with how often each stands there. Words that are too long for any tokeniser
/// to look up are left out.
#[derive(Clone, Debug)]
pub struct WordCounts {
    case: Case,
    counts: BTreeMap<String, u64>,
    /// Memory of the words.
    bytes: usize,
}

impl WordCounts {
    /// No words yet.
    #[must_use]
    pub fn new(case: Case) -> Self {
        Self {
            case,
            counts: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Counts the words of a text; the words of a text in lines may be counted line by line.
    ///
    /// # Errors
    ///
    /// [`DataError::ManyWords`] if the different words take too much memory.
    pub fn push(&mut self, text: &str) -> Result<(), DataError> {
        for word in words(text, self.case) {
            if word.chars().nth(WORD_CHARACTERS_MAX).is_some() {
                continue;
            }
            let bytes = word.len() + WORD_OVERHEAD_BYTES;
            let count = self.counts.entry(word).or_insert(0);
            if *count == 0 {
                self.bytes += bytes;
            }
            *count += 1;
        }
        match self.bytes > WORDS_BYTES_MAX {
            true => Err(DataError::ManyWords {
                words: self.counts.len(),
            }),
            false => Ok(()),
        }
    }
}

/// Endings of words from their second character on, two characters or longer.
fn endings(words: &BTreeMap<String, u64>) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for (word, count) in words {
        let places = word.char_indices().skip(1).map(|(place, _)| place);
        for ending in places.map(|place| &word[place..]) {
            if ending.chars().nth(1).is_some() {
                *counts.entry(ending).or_insert(0) += count;
            }
        }
    }
    counts
}

/// Keys by falling count; equal counts in the order that they have.
fn by_frequency(mut counts: Vec<(&str, u64)>) -> Vec<&str> {
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Tokeniser;

    #[test]
    fn numbers_are_line_numbers() {
        let text = "[PAD]\n[UNK] \n[CLS]\n[SEP]\n[MASK]\n\ntwice\ntwice\n";
        let vocabulary = Vocabulary::parse(text).unwrap();
        let special = (
            vocabulary.unknown,
            vocabulary.classifier,
            vocabulary.separator,
            vocabulary.mask,
        );
        assert_eq!(special, (1, 2, 3, 4));
        assert_eq!(vocabulary.size(), 8);
        assert_eq!(vocabulary.id("twice"), Some(7));
        assert_eq!(vocabulary.token(6), Some("twice"));
        assert_eq!(vocabulary.token(8), None);
        let error = Vocabulary::parse("[UNK]\n[CLS]\n[MASK]").unwrap_err();
        assert_eq!(error, DataError::MissingToken { token: SEPARATOR });
    }

    /// A word of a million letters has as many endings.
    #[test]
    fn words_too_long_to_look_up_are_left_out() {
        let longest = "x".repeat(WORD_CHARACTERS_MAX);
        let text = format!("tide {longest} {}", "y".repeat(1_000_000));
        let mut counts = WordCounts::new(Case::Keep);
        counts.push(&text).unwrap();
        let words: Vec<&String> = counts.counts.keys().collect();
        assert_eq!(words, ["tide", &longest]);
        assert_eq!(endings(&counts.counts).len(), 2 + WORD_CHARACTERS_MAX - 2);
        let vocabulary = Vocabulary::of_counts(&counts, 30_400).unwrap();
        assert!(
            vocabulary
                .tokens()
                .iter()
                .all(|token| !token.contains("yy"))
        );
    }

    /// Endings stand in only where words leave room.
    #[test]
    fn words_come_before_endings() {
        let all = Vocabulary::of_words("ebb tide", Case::Lower, 30_400).unwrap();
        let whole = all.id("ebb").unwrap() as usize;
        let expected = ["ebb", "tide", "##bb", "##de", "##ide"];
        assert_eq!(all.tokens()[whole..], expected);
        let size = whole as u32 + 3;
        let some = Vocabulary::of_words("ebb tide", Case::Lower, size).unwrap();
        assert_eq!(some.tokens(), &all.tokens()[..whole + 3]);
    }

    #[test]
    fn vocabularies_have_a_largest_size() {
        let error = Vocabulary::of_words("a", Case::Keep, TOKENS_MAX + 1).unwrap_err();
        let expected = "the vocabulary must have at most 262144 tokens, got 262145";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_made_vocabulary_spells_every_word_of_its_text() {
        let text = "The tide rises; the tide falls. Ebb 12, flood 7: déjà vu!";
        for case in [Case::Lower, Case::Keep] {
            for size in [1200, 30_400] {
                let vocabulary = Vocabulary::of_words(text, case, size).unwrap();
                assert!(vocabulary.size() <= size);
                assert_eq!(vocabulary.unknown, 100);
                let tokeniser = Tokeniser::new(&vocabulary, case);
                let ids = tokeniser.encode(text);
                assert!(!ids.contains(&vocabulary.unknown), "{case:?} {size}");
            }
        }
        let vocabulary = Vocabulary::of_words(text, Case::Lower, 30_400).unwrap();
        // Longest match first: the whole word, not its letters.
        let tide = Tokeniser::new(&vocabulary, Case::Lower).encode("tide");
        assert_eq!(
            tide.iter()
                .map(|&id| vocabulary.token(id))
                .collect::<Vec<_>>(),
            [Some("tide")]
        );
        assert!(matches!(
            Vocabulary::of_words(text, Case::Lower, 1000),
            Err(DataError::VocabularySize { size: 1000, .. })
        ));
    }
}

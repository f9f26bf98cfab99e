//! What can be wrong with texts, questions, records and vocabularies?
//!
//! Every cause is a variant with its facts. Left out: files, which this crate doesn't open.

use std::fmt;

use super::layout::Fault;

/// Why data can't be read or made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DataError {
    /// Bytes that end within a record of training data.
    #[error(
        "expected a multiple of {record_bytes} bytes, the size of a record, got {got}: {} bytes are left over",
        got % record_bytes
    )]
    RecordLength {
        /// Bytes of one record.
        record_bytes: u64,
        /// Bytes of the file.
        got: u64,
    },
    /// A question to train on without an answer, or with several. The sentence is the
    /// application's.
    #[error("`{id}`: For training, each question should have exactly 1 answer. Got {count}")]
    Answers {
        /// The question.
        id: String,
        /// Its answers.
        count: usize,
    },
    /// An answer beyond its text.
    #[error(
        "`{id}`: the answer must end within the {characters} characters of its text, got {start} as its start"
    )]
    AnswerOutside {
        /// The question.
        id: String,
        /// Where the answer begins.
        start: usize,
        /// Characters of the text.
        characters: usize,
    },
    /// A text that no record can be made of.
    #[error("the text has no word that a record could be made of")]
    NoText,
    /// Nothing to pack.
    #[error("there is no record to pack")]
    NoRecords,
    /// A record that can't be packed because it isn't one of its form.
    #[error("record {place} is none of this form: {fault}")]
    Record {
        /// Its place, from 0.
        place: usize,
        /// The first rule that it breaks.
        fault: Fault,
    },
    /// A record that has more words than a pack.
    #[error("record {place} has {words} words, a pack has room for {most}")]
    LongRecord {
        /// Its place, from 0.
        place: usize,
        /// Words of the record.
        words: u32,
        /// Positions of a pack.
        most: u32,
    },
    /// A record without a first word that stays as it is, which packs have at a place of its own.
    #[error("record {place} doesn't start with a word that isn't masked")]
    RecordStart {
        /// Its place, from 0.
        place: usize,
    },
    /// A vocabulary without a token that records need.
    #[error("the vocabulary has no {token}")]
    MissingToken {
        /// The token.
        token: &'static str,
    },
    /// A vocabulary that its text doesn't fit into.
    #[error("the vocabulary must have room for {least} characters and reserved tokens, got {size}")]
    VocabularySize {
        /// Tokens asked for.
        size: u32,
        /// Tokens needed at the least.
        least: usize,
    },
    /// A vocabulary that is larger than any.
    #[error("the vocabulary must have at most {most} tokens, got {size}")]
    LargeVocabulary {
        /// Tokens asked for.
        size: u32,
        /// Tokens at the most.
        most: u32,
    },
    /// More different words than can be counted.
    #[error("expected words of a language, got {words} different ones: name fewer texts")]
    ManyWords {
        /// Different words up to then.
        words: usize,
    },
    /// Rows that sequences fill in too many ways.
    #[error(
        "sequences fill rows in more than {most} ways: expected shorter rows or fewer sequences of a pack"
    )]
    Strategies {
        /// Ways at the most.
        most: u64,
    },
    /// A number of a recipe, or of questions, that no record fits.
    #[error("`{field}` must be {limit}, got {value}")]
    OutOfRange {
        /// Which number.
        field: RecipeField,
        /// What it may be.
        limit: Limit,
        /// What it is.
        value: f64,
    },
}

/// A number that is asked for of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipeField {
    /// Positions of a sequence.
    SequenceLength,
    /// Positions reserved for masked words.
    MaskTokens,
    /// Sequences of a pack at the most.
    SequencesPerPack,
    /// Share of the words of a sequence that are masked.
    MaskProbability,
    /// Share of the pairs of a document that are short.
    ShortSequenceProbability,
}

/// The name of the field.
impl fmt::Display for RecipeField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecipeField::SequenceLength => "sequence_length",
            RecipeField::MaskTokens => "mask_tokens",
            RecipeField::SequencesPerPack => "sequences_per_pack",
            RecipeField::MaskProbability => "mask_probability",
            RecipeField::ShortSequenceProbability => "short_sequence_probability",
        })
    }
}

/// Limit of a number that is asked for of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// At least 1.
    One,
    /// So many tokens that a record has room for a pair of sentences.
    Pair {
        /// Tokens at the least.
        least: u32,
    },
    /// So many tokens that a window has room for a question and a word of its text.
    Question {
        /// Tokens at the least.
        least: usize,
    },
    /// So few that every masked word has a slot of its own.
    Slots {
        /// Tokens of a record that can't be masked.
        special: u32,
    },
    /// This or less.
    AtMost {
        /// The most.
        most: u32,
    },
    /// From 0 to 1.
    Share,
}

/// The limit, as it follows "must be".
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::One => write!(f, "at least 1"),
            Limit::Pair { least } => write!(f, "{least} or more"),
            Limit::Question { least } => write!(f, "{least} or more for questions"),
            Limit::Slots { special } => write!(f, "at most the sequence length less {special}"),
            Limit::AtMost { most } => write!(f, "at most {most}"),
            Limit::Share => write!(f, "in 0 to 1"),
        }
    }
}

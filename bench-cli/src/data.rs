//! Files of training data: making them, looking into them, and what they mean for a run.
//!
//! ```text
//! text, vocabulary ── pretraining ──▶ records ── inspect ──▶ text
//!                                        └── packs ──▶ packs ── inspect ──▶ text
//! our own sample  ── benchmark ────▶ the folder that the published lines read
//! ```
//!
//! Tokens, sentence pairs, masks and the layout of a record are `bert_model::data`; here are the
//! files around them. [`dataset`] is what a run makes of them.

pub mod benchmark;
pub mod dataset;
pub mod error;
pub mod inspect;
pub mod packs;
pub mod patterns;
pub mod pretraining;
pub mod questions;
pub mod vocabulary;

use std::path::{Path, PathBuf};

use bert_model::data::{RecipeField, Vocabulary};

pub use error::DataError;

pub(crate) use crate::files::cannot_write;
use crate::text::{self, FileKind, cannot_read};
use crate::{Error, Result, files};

/// Records that are held in memory at a time, to be mixed or packed: those of 2.6 million sequences
/// of 128.
pub(crate) const RECORDS_BYTES_MAX: u64 = 4 << 30;

/// The vocabulary in a file.
///
/// # Errors
///
/// As [`text::read`]; a vocabulary without the special tokens.
pub(crate) fn read_vocabulary(path: &Path) -> Result<Vocabulary> {
    Vocabulary::parse(&text::read(path, FileKind::Vocabulary)?)
        .map_err(|source| data_error(path, source))
}

/// The files that a list of patterns, separated by commas, stands for: those of the first pattern
/// in order of their names, then those of the next.
///
/// # Errors
///
/// A pattern that is none, or that no file matches.
pub(crate) fn matching(patterns: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for pattern in patterns.split(',').filter(|pattern| !pattern.is_empty()) {
        let paths = glob::glob(pattern).map_err(|source| DataError::Pattern {
            pattern: pattern.into(),
            source,
        })?;
        let before = files.len();
        for path in paths {
            let path = path.map_err(|error| {
                let path = error.path().to_owned();
                cannot_read(&path, error.into())
            })?;
            files.push(path);
        }
        if files.len() == before {
            let pattern = pattern.into();
            return Err(DataError::NoMatch { pattern }.into());
        }
    }
    Ok(files)
}

pub(crate) fn data_error(path: &Path, source: bert_model::data::DataError) -> Error {
    let path = path.into();
    DataError::Content { path, source }.into()
}

/// What is wrong with what was asked for, by the name of the option that asked for it.
pub(crate) fn recipe_error(source: bert_model::data::DataError) -> Error {
    let bert_model::data::DataError::OutOfRange {
        field,
        limit,
        value,
    } = source
    else {
        return DataError::Recipe(source).into();
    };
    DataError::Asked {
        option: match field {
            RecipeField::SequenceLength => "--sequence-length",
            RecipeField::MaskTokens => "--mask-tokens",
            RecipeField::SequencesPerPack => "--max-sequences-per-pack",
            RecipeField::MaskProbability => "--mlm-prob",
            RecipeField::ShortSequenceProbability => "--short-seq-prob",
        },
        limit,
        value,
    }
    .into()
}

/// Refuses to replace a file unless told to.
///
/// # Errors
///
/// [`DataError::Exists`].
pub(crate) fn check_free(path: &Path, replace: Replace) -> Result<()> {
    if replace == Replace::No && path.exists() {
        let path = path.into();
        return Err(DataError::Exists { path }.into());
    }
    Ok(())
}

/// Makes sure before the work that `outputs` can be written, and that none of them is another one
/// or one of `inputs`, whatever may be replaced.
///
/// # Errors
///
/// As [`files::check_apart`], [`check_free`] and [`files::check_writable`].
pub(crate) fn check_outputs<'a>(
    outputs: &'a [PathBuf],
    inputs: impl IntoIterator<Item = &'a PathBuf>,
    replace: Replace,
) -> Result<()> {
    let inputs = inputs.into_iter().map(PathBuf::as_path);
    files::check_apart(outputs.iter().map(PathBuf::as_path), inputs)?;
    for path in outputs {
        check_free(path, replace)?;
        files::check_writable(path)?;
    }
    Ok(())
}

/// Whether files that are there may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// They are kept, and nothing is written.
    No,
    /// They are replaced.
    Yes,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody who types a command knows the names of our fields.
    #[test]
    fn recipes_are_wrong_by_the_names_of_options() {
        use bert_model::data::{Corpus, Recipe, RecordLayout, RecordMaker};
        let vocabulary = Vocabulary::of_words("a b", bert_model::data::Case::Keep, 2000).unwrap();
        let sound = Recipe {
            layout: RecordLayout {
                sequence_length: 16,
                mask_tokens: 3,
            },
            mask_probability: 0.15,
            short_sequence_probability: 0.1,
            pad_position: 384,
            seed: 1,
        };
        let sized = |sequence_length, mask_tokens| Recipe {
            layout: RecordLayout {
                sequence_length,
                mask_tokens,
            },
            ..sound
        };
        let (mask, short) = (2.0, -1.0);
        for (recipe, expected) in [
            (
                Recipe {
                    mask_probability: mask,
                    ..sound
                },
                "argument --mlm-prob: must be in 0 to 1, got 2",
            ),
            (
                Recipe {
                    short_sequence_probability: short,
                    ..sound
                },
                "argument --short-seq-prob: must be in 0 to 1, got -1",
            ),
            (
                sized(4, 1),
                "argument --sequence-length: must be 5 or more, got 4",
            ),
            (
                sized(16, 0),
                "argument --mask-tokens: must be at least 1, got 0",
            ),
        ] {
            let made = RecordMaker::new(Corpus::default(), &vocabulary, recipe);
            let error = recipe_error(made.err().unwrap());
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn patterns_stand_for_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["wiki_01", "wiki_00", "book_00"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let place = |name: &str| folder.path().join(name).display().to_string();
        let names = |patterns: &str| -> Result<Vec<String>> {
            let files = matching(patterns)?;
            let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            Ok(files.iter().map(name).collect())
        };
        let both = format!("{},{}", place("wiki_*"), place("book_00"));
        assert_eq!(names(&both).unwrap(), ["wiki_00", "wiki_01", "book_00"]);
        let error = names(&place("news_*")).unwrap_err().to_string();
        assert!(error.starts_with("no file matches "), "{error}");
        assert!(names("wiki_[0").is_err());
    }
}

//! A vocabulary of the words of a text, for those who have none.

use std::path::Path;

use bert_model::data::{Case, Vocabulary, WordCounts};

use super::{Replace, check_outputs, data_error, matching, recipe_error};
use crate::{Result, files, text};

/// Writes a vocabulary of at most `size` tokens that can spell the texts in `input_files`, a
/// list of patterns. Returns how many tokens it has.
///
/// # Errors
///
/// Files that can't be read or written; a size that doesn't hold the characters.
pub fn write(
    input_files: &str,
    output: &Path,
    case: Case,
    size: u32,
    replace: Replace,
) -> Result<u32> {
    let texts = matching(input_files)?;
    check_outputs(&[output.into()], &texts, replace)?;
    let mut counts = WordCounts::new(case);
    for path in &texts {
        text::read_lines(path, |line| {
            counts.push(line).map_err(|error| data_error(path, error))
        })?;
    }
    let vocabulary = Vocabulary::of_counts(&counts, size).map_err(recipe_error)?;
    files::write(output, &file_text(&vocabulary))?;
    Ok(vocabulary.size())
}

/// A vocabulary as the text of a file.
fn file_text(vocabulary: &Vocabulary) -> String {
    vocabulary.tokens().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::benchmark;

    /// The shipped vocabulary is the one of the shipped text, made by this module:
    /// `UPDATE_EXPECT=1` makes it again.
    #[test]
    fn the_shipped_vocabulary_is_that_of_the_shipped_text() {
        let made = Vocabulary::of_words(benchmark::TEXT, Case::Lower, 30_400).unwrap();
        expect_test::expect_file!["../../sample/vocab.txt"].assert_eq(&file_text(&made));
    }
}

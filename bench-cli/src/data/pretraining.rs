//! Records from any text with any vocabulary.

use std::io::Write;
use std::path::PathBuf;

use bert_model::data::{Case, Corpus, Limit, Recipe, Record, RecordMaker, Tokeniser, blanks};
use indicatif::ProgressBar;

use super::{
    DataError, Replace, cannot_write, check_outputs, matching, read_vocabulary, recipe_error,
};
use crate::files::PartialFile;
use crate::{Error, Result, text};

/// Request to make records for pre-training from text.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Patterns of files with a sentence a line and a blank line between documents, separated by
    /// commas.
    pub input_files: String,
    /// Files to write, separated by commas; records go to each in turn.
    pub output_files: String,
    /// File of the vocabulary.
    pub vocabulary: PathBuf,
    /// Treatment of capital letters.
    pub case: Case,
    /// How records are made.
    pub recipe: Recipe,
    /// Copies of the text, each with masks of its own.
    pub copies: u64,
    /// Records at the most, if not all.
    pub samples_max: Option<u64>,
    /// Whether files may be replaced.
    pub replace: Replace,
}

/// Counts of a text and of the records that were made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordCounts {
    /// Documents of the text.
    pub documents: usize,
    /// Tokens of the text.
    pub tokens: usize,
    /// Files with the records in each.
    pub files: Vec<(PathBuf, u64)>,
}

/// Makes the records, a step of `bar` for each copy, all copies mixed at the end.
///
/// # Errors
///
/// Files that can't be read or written, a text or recipe that gives no records.
pub fn make(request: &Request, bar: &ProgressBar) -> Result<RecordCounts> {
    let outputs: Vec<PathBuf> = request.output_files.split(',').map(PathBuf::from).collect();
    if request.copies == 0 {
        return Err(DataError::Asked {
            option: "--duplication-factor",
            limit: Limit::One,
            value: 0.0,
        }
        .into());
    }
    let inputs = matching(&request.input_files)?;
    let read = inputs.iter().chain([&request.vocabulary]);
    check_outputs(&outputs, read, request.replace)?;
    let vocabulary = read_vocabulary(&request.vocabulary)?;
    let tokeniser = Tokeniser::new(&vocabulary, request.case);
    let mut corpus = Corpus::default();
    for path in &inputs {
        let text = text::read(path)?;
        blanks::lines(&text).for_each(|line| corpus.push_line(line, &tokeniser));
    }
    let (documents, tokens) = (corpus.documents(), corpus.tokens());
    let maker = RecordMaker::new(corpus, &vocabulary, request.recipe);
    let maker = maker.map_err(recipe_error)?;
    bar.set_length(request.copies);
    let mut records = Vec::new();
    for copy in 0..request.copies {
        records.extend(maker.copy(copy));
        bar.inc(1);
    }
    maker.shuffle(&mut records, 0);
    let kept = request.samples_max.map_or(records.len(), |most| {
        usize::try_from(most).map_or(records.len(), |most| most.min(records.len()))
    });
    let files = write_in_turn(&records[..kept], outputs)?;
    bar.finish_and_clear();
    Ok(RecordCounts {
        documents,
        tokens,
        files,
    })
}

/// Writes record 0 to the first file, 1 to the second, and so on, from the start again.
fn write_in_turn(records: &[Record], outputs: Vec<PathBuf>) -> Result<Vec<(PathBuf, u64)>> {
    let n_files = outputs.len();
    let mut files = outputs
        .iter()
        .map(|path| PartialFile::create(path))
        .collect::<Result<Vec<PartialFile>>>()?;
    let mut counts = vec![0; n_files];
    let mut bytes = Vec::new();
    for (number, record) in records.iter().enumerate() {
        let place = number % n_files;
        bytes.clear();
        record.write(&mut bytes);
        let written = files[place].write_all(&bytes);
        written.map_err(|source| -> Error { cannot_write(&outputs[place], source) })?;
        counts[place] += 1;
    }
    files.into_iter().try_for_each(PartialFile::finish)?;
    Ok(outputs.into_iter().zip(counts).collect())
}

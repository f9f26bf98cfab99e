//! Records from any text with any vocabulary.

use std::io::Write;
use std::path::{Path, PathBuf};

use bert_model::data::{Case, Corpus, Limit, Recipe, Record, RecordMaker, Tokeniser};
use indicatif::ProgressBar;

use super::{
    DataError, RECORDS_BYTES_MAX, Replace, cannot_write, check_outputs, matching, read_vocabulary,
    recipe_error,
};
use crate::files::PartialFile;
use crate::{Error, Result, text};

/// Memory of a text in tokens, all of which are drawn from: a third of the English Wikipedia.
const CORPUS_BYTES_MAX: u64 = 4 << 30;

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
        text::read_lines(path, |line| {
            corpus.push_line(line, &tokeniser);
            check_corpus(path, &corpus, CORPUS_BYTES_MAX)
        })?;
    }
    let (documents, tokens) = (corpus.documents(), corpus.tokens());
    let maker = RecordMaker::new(corpus, &vocabulary, request.recipe);
    let maker = maker.map_err(recipe_error)?;
    bar.set_length(request.copies);
    let room = RECORDS_BYTES_MAX / request.recipe.layout.bytes() as u64;
    let mut records = Vec::new();
    for copy in 0..request.copies {
        let left = copies_room(room, request.copies, copy, records.len());
        let made = maker.copy_up_to(copy, left);
        records.extend(made.ok_or(DataError::TooManyRecords {
            option: "--duplication-factor",
            copies: request.copies,
            most: RECORDS_BYTES_MAX,
        })?);
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

/// A text must not take more than `most` bytes of memory.
fn check_corpus(path: &Path, corpus: &Corpus, most: u64) -> Result<()> {
    match corpus.bytes() > most {
        true => Err(DataError::LongText {
            path: path.into(),
            most,
        }
        .into()),
        false => Ok(()),
    }
}

/// Records that the next copy may have, of `room` in all: so many that the first copy already tells
/// whether all find room, since each has about as many.
fn copies_room(room: u64, copies: u64, copy: u64, made: usize) -> usize {
    let left = match copy {
        0 => room / copies,
        _ => room.saturating_sub(made as u64),
    };
    usize::try_from(left).unwrap_or(usize::MAX)
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

#[cfg(test)]
mod tests {
    use bert_model::data::{RecordLayout, Vocabulary};

    use super::*;
    use crate::data::benchmark;

    /// A request to make so many copies of the shipped text in a folder.
    fn request(folder: &Path, copies: u64, sequence_length: u32) -> Request {
        let place = |name: &str| folder.join(name);
        std::fs::write(place("text.txt"), benchmark::TEXT).unwrap();
        std::fs::write(place("vocab.txt"), benchmark::VOCABULARY).unwrap();
        Request {
            input_files: place("text.txt").display().to_string(),
            output_files: place("records").display().to_string(),
            vocabulary: place("vocab.txt"),
            case: Case::Lower,
            recipe: Recipe {
                layout: RecordLayout {
                    sequence_length,
                    mask_tokens: 20,
                },
                mask_probability: 0.15,
                short_sequence_probability: 0.1,
                pad_position: 384,
                seed: 1,
            },
            copies,
            samples_max: None,
            replace: Replace::No,
        }
    }

    #[test]
    fn more_copies_than_memory_holds_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let bar = ProgressBar::hidden();
        for copies in [u64::from(u32::MAX), u64::MAX] {
            let error = make(&request(folder.path(), copies, 128), &bar).unwrap_err();
            let expected = format!(
                "--duplication-factor {copies}: the records take more than 4294967296 bytes of \
                 memory: expected fewer copies, less text or shorter sequences"
            );
            assert_eq!(error.to_string(), expected);
            assert_eq!(bar.position(), 0);
        }
        assert!(make(&request(folder.path(), 2, 128), &bar).is_ok());
    }

    #[test]
    fn sequences_have_a_largest_length() {
        let folder = tempfile::tempdir().unwrap();
        let request = request(folder.path(), 1, u32::MAX);
        let error = make(&request, &ProgressBar::hidden()).unwrap_err();
        let expected = "argument --sequence-length: must be at most 65536, got 4294967295";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_text_that_memory_does_not_hold_is_refused() {
        let vocabulary = Vocabulary::parse(benchmark::VOCABULARY).unwrap();
        let corpus = Corpus::of_text("a\nb b\n", &Tokeniser::new(&vocabulary, Case::Lower));
        let path = Path::new("a.txt");
        // Three tokens of 4 bytes, two sentences and a document of 24.
        assert!(check_corpus(path, &corpus, 84).is_ok());
        let error = check_corpus(path, &corpus, 83).unwrap_err().to_string();
        let expected = "a.txt: with it, the text takes more than 83 bytes of memory as tokens: name fewer files";
        assert_eq!(error, expected);
    }
}

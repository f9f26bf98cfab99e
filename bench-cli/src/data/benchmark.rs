//! The folder of data that the published command lines read.
//!
//! Names and forms are the original's (`$DATASETS_DIR`, see `applications/popart/bert` of
//! graphcore/examples); what stands in the files is ours: records of a short text and a
//! vocabulary that ship with this program, in as many copies as it takes. The contents don't
//! change simulated time, the counts decide whether a line runs:
//!
//! - Lines 1 to 8 want one global batch from a sixth of a file, which is 65,536 × 6 records of
//!   sequence length 128 and 16,384 × 6 of 384.
//! - Line 5 reads the file for 128 as if it were for 384, which works out only if its records
//!   of 1,628 bytes can be cut into records of 4,844 bytes: 393,575 is the next multiple of 1,211.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bert_model::data::{Case, Corpus, Recipe, RecordLayout, RecordMaker, Tokeniser, Vocabulary};
use indicatif::ProgressBar;
use ipu_sim::threads;

use super::{Replace, cannot_write, check_free, recipe_error};
use crate::files::{self, PartialFile};
use crate::{Error, Result};

/// Our own text: a sentence a line, a blank line between documents.
pub const TEXT: &str = include_str!("../../sample/text.txt");
/// The vocabulary of that text.
pub const VOCABULARY: &str = include_str!("../../sample/vocab.txt");
/// Questions on that text, in the form of SQuAD 1.1.
const QUESTIONS: &str = include_str!("../../sample/dev-v1.1.json");

/// The seed of the original's record maker.
const SEED: u64 = 1984;
/// Position of unused slots, whatever the sequence length.
const PAD_POSITION: u32 = 384;
/// Bytes that are handed to the system at a time.
const CHUNK: usize = 1 << 20;

/// A file of records to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFile {
    /// Name of the file in its folder.
    pub name: &'static str,
    /// Form of its records.
    pub layout: RecordLayout,
    /// How many.
    pub records: u64,
}

impl RecordFile {
    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.records * self.layout.bytes() as u64
    }
}

/// The record files of the published lines.
pub const RECORD_FILES: [RecordFile; 2] = [
    RecordFile {
        name: "wikipedia/AA/sequence_128/wiki_00_tokenised",
        layout: RecordLayout {
            sequence_length: 128,
            mask_tokens: 20,
        },
        records: 393_575,
    },
    RecordFile {
        name: "wikipedia/AA/sequence_384/wiki_00_tokenised",
        layout: RecordLayout {
            sequence_length: 384,
            mask_tokens: 56,
        },
        records: 98_304,
    },
];

/// What else is in the folder: questions that lines 9 and 10 name, and what all was made of.
const SMALL_FILES: [(&str, &str); 3] = [
    ("squad/dev-v1.1.json", QUESTIONS),
    ("vocab.txt", VOCABULARY),
    ("sample_text.txt", TEXT),
];

/// Fills `out` with those record files and the small ones; `bar` counts bytes. Returns the paths
/// written. Memory doesn't grow with the number of records.
///
/// # Errors
///
/// A folder or file that can't be written, or that is there and may not be replaced; both are
/// found out before the work starts.
pub fn write(
    out: &Path,
    files: &[RecordFile],
    replace: Replace,
    bar: &ProgressBar,
) -> Result<Vec<PathBuf>> {
    let small = SMALL_FILES.map(|(name, text)| (out.join(name), text));
    let large: Vec<PathBuf> = files.iter().map(|file| out.join(file.name)).collect();
    let paths: Vec<PathBuf> = large
        .iter()
        .chain(small.iter().map(|(path, _)| path))
        .cloned()
        .collect();
    for path in &paths {
        check_free(path, replace)?;
    }
    for path in &paths {
        let folder = path.parent().expect("it stands in a folder of `out`");
        fs::create_dir_all(folder).map_err(|source| Error::File {
            action: "create",
            path: folder.into(),
            source,
        })?;
        files::check_writable(path)?;
    }
    bar.set_length(files.iter().map(RecordFile::bytes).sum());
    let vocabulary = Vocabulary::parse(VOCABULARY).map_err(recipe_error)?;
    // Side by side: they share nothing but the bar.
    let work: Vec<_> = files.iter().zip(&large).collect();
    let written = threads::map(&work, |(file, path)| {
        write_records(path, file, &vocabulary, bar)
    });
    written.into_iter().collect::<Result<()>>()?;
    for (path, text) in &small {
        files::write(path, text)?;
    }
    bar.finish_and_clear();
    Ok(paths)
}

/// Writes copies of the text, each in an order of its own, until there are enough records.
fn write_records(
    path: &Path,
    file: &RecordFile,
    vocabulary: &Vocabulary,
    bar: &ProgressBar,
) -> Result<()> {
    let recipe = Recipe {
        layout: file.layout,
        mask_probability: 0.15,
        short_sequence_probability: 0.1,
        pad_position: PAD_POSITION,
        seed: SEED,
    };
    let corpus = Corpus::of_text(TEXT, &Tokeniser::new(vocabulary, Case::Lower));
    let maker = RecordMaker::new(corpus, vocabulary, recipe).map_err(recipe_error)?;
    let mut partial = PartialFile::create(path)?;
    let mut put = |bytes: &mut Vec<u8>| -> Result<()> {
        let written = partial.write_all(bytes);
        written.map_err(|source| cannot_write(path, source))?;
        bar.inc(bytes.len() as u64);
        bytes.clear();
        Ok(())
    };
    let mut bytes = Vec::with_capacity(CHUNK);
    let mut left = file.records;
    let mut copy = 0;
    while left > 0 {
        let mut records = maker.copy(copy);
        maker.shuffle(&mut records, copy);
        for record in records
            .iter()
            .take(usize::try_from(left).unwrap_or(usize::MAX))
        {
            record.write(&mut bytes);
            left -= 1;
            if bytes.len() >= CHUNK {
                put(&mut bytes)?;
            }
        }
        copy += 1;
    }
    put(&mut bytes)?;
    partial.finish()
}

#[cfg(test)]
mod tests {
    use bert_model::data::{Field, Record};

    use super::*;

    /// The published files with a share of their records.
    fn small(share: u64) -> [RecordFile; 2] {
        RECORD_FILES.map(|file| RecordFile {
            records: file.records / share,
            ..file
        })
    }

    #[test]
    fn counts_are_what_the_published_lines_need() {
        let [short, long] = RECORD_FILES;
        assert!(short.records / 6 >= 65_536 && long.records / 6 >= 16_384);
        assert!(long.layout.records_in(short.bytes()).is_ok());
        assert_eq!((short.bytes(), long.bytes()), (640_740_100, 476_184_576));
    }

    #[test]
    fn files_hold_sound_records_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/data");
        let files = small(1000);
        let bar = ProgressBar::hidden();
        let paths = write(&out, &files, Replace::No, &bar).unwrap();
        assert_eq!(paths.len(), 5);
        assert!(paths.iter().all(|path| path.is_file()));
        let vocabulary = Vocabulary::parse(VOCABULARY).unwrap();
        for (file, path) in files.iter().zip(&paths) {
            let bytes = fs::read(path).unwrap();
            assert_eq!(bytes.len() as u64, file.bytes());
            let records = bytes.chunks_exact(file.layout.bytes());
            let mut random = 0;
            for bytes in records {
                let record = Record::from_bytes(file.layout, bytes).unwrap();
                assert_eq!(record.fault(), None);
                let words = record.get(Field::Words);
                assert!(words.iter().all(|&word| word < vocabulary.size()));
                assert!(!record.get(Field::Labels).contains(&vocabulary.unknown));
                random += record.get(Field::RandomNext)[0];
            }
            let share = f64::from(random) / file.records as f64;
            assert!((0.4..0.8).contains(&share), "{share}");
        }
        // No file is left half-written, and none is replaced unasked.
        let again = write(&out, &files, Replace::No, &bar).unwrap_err();
        assert!(again.to_string().contains("--force"), "{again}");
        write(&out, &small(5000), Replace::Yes, &bar).unwrap();
        let shorter = fs::metadata(&paths[0]).unwrap().len();
        assert_eq!(shorter, small(5000)[0].bytes());
        let parent = paths[0].parent().unwrap();
        assert_eq!(fs::read_dir(parent).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_a_file_is_refused_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("taken");
        fs::write(&out, "mine").unwrap();
        let error = write(&out, &RECORD_FILES, Replace::Yes, &ProgressBar::hidden());
        assert!(matches!(
            error,
            Err(Error::File {
                action: "create",
                ..
            })
        ));
        assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
    }

    #[test]
    fn the_vocabulary_fits_the_models() {
        let vocabulary = Vocabulary::parse(VOCABULARY).unwrap();
        // The default of --vocab-length.
        assert!(vocabulary.size() <= 30_400, "{}", vocabulary.size());
        let corpus = Corpus::of_text(TEXT, &Tokeniser::new(&vocabulary, Case::Lower));
        assert!(
            corpus.documents() > 3,
            "so that random parts come from elsewhere"
        );
    }
}

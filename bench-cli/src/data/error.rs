//! What files of data can get wrong.

use std::path::PathBuf;

use bert_model::data::{Limit, PackFault, PackForm, PackLayout, RecordLayout};

use crate::python::repr;

/// Fault of a file of data, or of a request for data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A pattern that no file matches.
    #[error("no file matches {pattern}")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A pattern that is none.
    #[error("{pattern}: not a file name or pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        source: glob::PatternError,
    },
    /// A file that would be replaced.
    #[error("{} is there already: --force replaces it, and all else that the command writes", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file whose content makes no sense.
    #[error("{}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: bert_model::data::DataError,
    },
    /// A file of records that ends within one. The first sentences are the original's.
    #[error(
        "Input file: {} does not align to the size of a sample. Check the dataset was generated correctly: \
         expected a multiple of {} bytes (sequence length {}, mask tokens {}), got {bytes}, which leaves {} over",
        path.display(), layout.bytes(), layout.sequence_length, layout.mask_tokens,
        bytes % layout.bytes() as u64
    )]
    Misaligned {
        /// The file.
        path: PathBuf,
        /// The form expected.
        layout: RecordLayout,
        /// Bytes of the file.
        bytes: u64,
    },
    /// A file of packs that ends within one, in either form. The first sentences are the original's.
    #[error(
        "Input file: {} does not align to the size of a sample. Check the dataset was generated correctly: \
         expected a multiple of {} bytes, or of {} in the form of v2.1 (sequence length {}, mask tokens {}, \
         {} sequences per pack), got {bytes}",
        path.display(), layout.bytes(), old_form_bytes(*layout), layout.sequence_length,
        layout.mask_tokens, layout.sequences
    )]
    MisalignedPacks {
        /// The file.
        path: PathBuf,
        /// The form expected.
        layout: PackLayout,
        /// Bytes of the file.
        bytes: u64,
    },
    /// A file that ends within a pack of the form that was asked for.
    #[error(
        "{}: expected a multiple of {} bytes, the size of a pack, got {bytes}",
        path.display(), layout.bytes()
    )]
    PackLength {
        /// The file.
        path: PathBuf,
        /// The form asked for.
        layout: PackLayout,
        /// Bytes of the file.
        bytes: u64,
    },
    /// Packs in TensorFlow's form. The sentence is the original's.
    #[error("tfrecord dataset not supported for packed sequence data format")]
    PackedTfRecord,
    /// Copies of which each would be a file, in a form whose files are strategies.
    #[error(
        "--unpacked-dataset-duplication-factor: expected 1 for --form v2.1, whose files are \
         strategies and not copies, got {0}"
    )]
    CopiesOfStrategies(u32),
    /// A text that memory doesn't hold.
    #[error("{}: with it, the text takes more than {most} bytes of memory as tokens: name fewer files", path.display())]
    LongText {
        /// The file that is too much.
        path: PathBuf,
        /// Bytes at the most.
        most: u64,
    },
    /// More records than memory holds.
    #[error(
        "{option} {copies}: the records take more than {most} bytes of memory: expected fewer copies, \
         less text or shorter sequences"
    )]
    TooManyRecords {
        /// The option that asks for copies.
        option: &'static str,
        /// Copies asked for.
        copies: u64,
        /// Bytes at the most.
        most: u64,
    },
    /// Files of which one copy has more records than memory holds.
    #[error(
        "{option} {copies}: the records of a copy take {bytes} bytes of memory, expected at most {most}: \
         name fewer files"
    )]
    LargeCopy {
        /// The option that says how many copies there are.
        option: &'static str,
        /// Copies in the files.
        copies: u32,
        /// Bytes of a copy.
        bytes: u64,
        /// Bytes at the most.
        most: u64,
    },
    /// More text of questions than is read.
    #[error(
        "{}: the questions have {bytes} bytes of text, each with its own: expected at most {most}",
        path.display()
    )]
    ManyQuestions {
        /// The file.
        path: PathBuf,
        /// Bytes of the texts, as often as there are questions on each.
        bytes: u64,
        /// Bytes at the most.
        most: u64,
    },
    /// More records than are shown at once.
    #[error("--count: expected at most {most} records of this size, got {count}")]
    ManyShown {
        /// Records that would be shown.
        count: u64,
        /// Records at the most.
        most: u64,
    },
    /// A pack without a single sequence.
    #[error("{}: pack {pack} has no sequence: not a file of packs in this form", path.display())]
    EmptyPack {
        /// The file.
        path: PathBuf,
        /// Its place, from 0.
        pack: u64,
    },
    /// A pack that breaks a rule of its form.
    #[error(
        "{}: pack {pack}: {fault}: not a file of packs in this form, or of other \
         --max-sequences-per-pack, --sequence-length or --mask-tokens",
        path.display()
    )]
    PackForm {
        /// The file.
        path: PathBuf,
        /// Its place, from 0.
        pack: u64,
        /// The rule.
        fault: PackFault,
    },
    /// Fewer records than copies of them.
    #[error("--unpacked-dataset-duplication-factor {copies}: there are only {records} records")]
    FewRecords {
        /// Copies in the files.
        copies: u32,
        /// Records of all files.
        records: u64,
    },
    /// Records of which no pack can be made.
    #[error(
        "no pack was made of {records} records: too few for a mixture of their lengths. \
         --drop-unpacked-remainder false packs each of them with padding"
    )]
    NoPacks {
        /// How many.
        records: u64,
    },
    /// A run on real data without a file of it. The first sentence is the original's.
    #[error(
        "No input files were provided for the BERT dataset. Name them with --input-files, or run on --generated-data"
    )]
    NoInputFiles,
    /// An input file that isn't there. The first words are the original's.
    #[error(
        "No such file or directory: {}: `ipu-bench data` makes data, --generated-data does without",
        repr(&path.display().to_string())
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A folder, a pipe: something without a size that can be counted.
    #[error("{}: not a file", path.display())]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// Records in TensorFlow's form.
    #[error("{}: TFRecord files are not supported: `ipu-bench data pretraining` makes records of the text", path.display())]
    TfRecord {
        /// The file.
        path: PathBuf,
    },
    /// Questions without a vocabulary to read them with.
    #[error("--vocab-file is needed to read questions; --generated-data does without")]
    NoVocabulary,
    /// Too few samples for a step. The first sentence is the original's.
    #[error(
        "Insufficient data for training parameters. Expected at least {per_step} samples, \
         as many as a step takes, got {samples}{}",
        if *copies > 1 { format!(": an epoch reads one of --duplication-factor {copies} copies") } else { String::new() }
    )]
    Insufficient {
        /// Samples of a step.
        per_step: u64,
        /// Samples of an epoch.
        samples: u64,
        /// Copies in a file.
        copies: u64,
    },
    /// A sequence length that doesn't tell how many words are masked.
    #[error("--mask-tokens is needed: only sequence lengths 128, 384 and 512 have a usual number")]
    MaskTokens,
    /// A number of records that is none.
    #[error("--max-samples: expected -1 for all, or 1 or more, got {0}")]
    MaxSamples(i64),
    /// A record asked for behind the last one.
    #[error("--first {first}: {} has {records} records, numbered from 0", path.display())]
    BehindTheEnd {
        /// The file.
        path: PathBuf,
        /// The record asked for.
        first: u64,
        /// Records that there are.
        records: u64,
    },
    /// A number that was asked for and that can't be.
    #[error("argument {option}: must be {limit}, got {value}")]
    Asked {
        /// The option.
        option: &'static str,
        /// What it may be.
        limit: Limit,
        /// What it is.
        value: f64,
    },
    /// A text or recipe that nothing can be made of.
    #[error("{0}")]
    Recipe(bert_model::data::DataError),
}

fn old_form_bytes(layout: PackLayout) -> usize {
    PackLayout {
        form: PackForm::Slots,
        ..layout
    }
    .bytes()
}

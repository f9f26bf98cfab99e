//! What does a run read its samples from, and how many steps are in it?
//!
//! The rules are those of the original's loaders
//! (`pretraining_dataset.py` and `squad_dataset.py` in `applications/popart/bert/bert_data`): a step takes so many sequences,
//! an epoch reads one copy of every file, and what doesn't fill a step is dropped. Files are
//! opened, sized and checked before anything is compiled; questions are cut into features, which
//! are the samples.
//!
//! Left out: what stands in records. It doesn't change simulated time, so the values of a run are
//! not read from here, and neither is their order; of packs, their sequences are counted, of which
//! every step is said to have as many as the mean. Features are made anew each time: the
//! original's cache is a Python pickle.

use std::path::{Path, PathBuf};

use bench_core::release::Release;
use bert_model::config::{Mode, SequenceFormat};
use bert_model::data::squad::{self, AnswerNotFound, Example};
use bert_model::data::{PackForm, PackLayout, RecordLayout, Tokeniser};

use super::{
    DataError, data_error, inspect, packs, patterns, questions, read_vocabulary, recipe_error,
};
use crate::Result;
use crate::config::options::BertOptions;

/// The samples of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Steps of one pass over it, at least one.
    pub steps_per_epoch: u64,
    /// Origin of the samples.
    pub origin: SampleOrigin,
    /// Files that they are read from, in order.
    pub files: Vec<PathBuf>,
}

/// Where samples come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleOrigin {
    /// Nowhere: they are made on the host or on the device, one step an epoch.
    Made,
    /// Files of pre-training records.
    Records {
        /// Whether epochs are kept in memory.
        cached: bool,
    },
    /// Files of packs.
    Packs {
        /// Whether epochs are kept in memory.
        cached: bool,
        /// Sequences of a pack on average.
        sequences_per_pack: f64,
        /// A file in the form of releases v2.1 and v2.2, if there is one.
        old_form: Option<PathBuf>,
    },
    /// A file of questions.
    Questions {
        /// Answers that don't stand where they should; their questions are left out.
        not_found: Vec<AnswerNotFound>,
        /// Samples that are read twice to fill the last step.
        padding: u64,
    },
}

impl Dataset {
    /// Samples made on the host or on the device.
    #[must_use]
    pub fn made() -> Self {
        Self {
            steps_per_epoch: 1,
            origin: SampleOrigin::Made,
            files: Vec::new(),
        }
    }

    /// Sequences of a pack on average, if there are files of packs.
    #[must_use]
    pub fn sequences_per_pack(&self) -> Option<f64> {
        match self.origin {
            SampleOrigin::Packs {
                sequences_per_pack, ..
            } => Some(sequences_per_pack),
            SampleOrigin::Made | SampleOrigin::Records { .. } | SampleOrigin::Questions { .. } => {
                None
            }
        }
    }

    /// A file of packs in the form of releases v2.1 and v2.2, if there is one.
    #[must_use]
    pub fn old_form(&self) -> Option<&Path> {
        match &self.origin {
            SampleOrigin::Packs { old_form, .. } => old_form.as_deref(),
            SampleOrigin::Made | SampleOrigin::Records { .. } | SampleOrigin::Questions { .. } => {
                None
            }
        }
    }
}

/// The samples that a run asks for.
///
/// # Errors
///
/// No input file, or one that is missing or can't be read; a file that ends within a record; too
/// few samples for a step.
pub fn open(options: &BertOptions) -> Result<Dataset> {
    if options.makes_data() {
        return Ok(Dataset::made());
    }
    let files = &options.data.input_files;
    if files.is_empty() {
        return Err(DataError::NoInputFiles.into());
    }
    let files = patterns::files(files)?;
    match options.config.is_squad() {
        false => records(options, files),
        true => questions(options, files),
    }
}

/// Files of records: an epoch reads a copy of each.
fn records(options: &BertOptions, files: Vec<PathBuf>) -> Result<Dataset> {
    let data = &options.data;
    let is_tf_record = |path: &Path| {
        let name = path.as_os_str().to_string_lossy().to_lowercase();
        name.ends_with("tfrecord")
    };
    let model = &options.config.model;
    if let Some(path) = files.iter().find(|path| is_tf_record(path)) {
        return Err(match options.config.is_packed() {
            false => DataError::TfRecord { path: path.clone() },
            true => DataError::PackedTfRecord,
        }
        .into());
    }
    let (sequence_length, mask_tokens) = (model.sequence_length, model.mask_tokens);
    let cached = data.epochs_to_cache > 0;
    let (counts, origin) = match model.sequence_format {
        SequenceFormat::Single => {
            let layout = RecordLayout {
                sequence_length,
                mask_tokens,
            };
            let counts = files
                .iter()
                .map(|path| inspect::count(path, layout))
                .collect::<Result<Vec<u64>>>()?;
            (counts, SampleOrigin::Records { cached })
        }
        SequenceFormat::Packed { sequences } => packed_files(
            &files,
            PackLayout {
                sequence_length,
                mask_tokens,
                sequences,
                // Where the size of a file fits both.
                form: match options.config.release {
                    Release::V2_1 | Release::V2_2 => PackForm::Slots,
                    _ => PackForm::Slices,
                },
            },
            cached,
        )?,
    };
    let copies = data.duplication_factor;
    let of_a_copy: u64 = counts.iter().map(|count| count / copies).sum();
    // Cached epochs are joined: they are one long epoch.
    let samples = of_a_copy.saturating_mul(data.epochs_to_cache.max(1));
    let per_step = options.config.samples_per_step();
    let steps_per_epoch = samples / per_step;
    if steps_per_epoch == 0 {
        return Err(DataError::Insufficient {
            per_step,
            samples,
            copies,
        }
        .into());
    }
    Ok(Dataset {
        steps_per_epoch,
        origin,
        files,
    })
}

/// Packs of each file, and what they are; a file may have either form.
fn packed_files(
    files: &[PathBuf],
    layout: PackLayout,
    cached: bool,
) -> Result<(Vec<u64>, SampleOrigin)> {
    let mut counts = Vec::new();
    let mut old_form = None;
    let mut sequences = 0;
    for path in files {
        let found = packs::layout_of(path, layout)?;
        if found.form == PackForm::Slots {
            old_form.get_or_insert_with(|| path.clone());
        }
        let count = packs::count(path, found)?;
        counts.push(count.packs);
        sequences += count.sequences;
    }
    let packs: u64 = counts.iter().sum();
    let origin = SampleOrigin::Packs {
        cached,
        sequences_per_pack: sequences as f64 / packs.max(1) as f64,
        old_form,
    };
    Ok((counts, origin))
}

/// The first file, which is one of questions: its samples are windows of their texts.
fn questions(options: &BertOptions, files: Vec<PathBuf>) -> Result<Dataset> {
    let data = &options.data;
    let path = &files[0];
    let file = data.vocab_file.as_ref();
    let vocabulary = read_vocabulary(file.ok_or(DataError::NoVocabulary)?)?;
    let tokeniser = Tokeniser::new(&vocabulary, data.case);
    let mode = match options.config.is_inference() {
        true => Mode::Inference,
        false => Mode::Training,
    };
    let length = options.config.model.sequence_length;
    let (mut samples, mut not_found) = (0_u64, Vec::new());
    for question in questions::read(path)? {
        match Example::read(&question, mode).map_err(|error| data_error(path, error))? {
            Ok(example) => {
                let features = squad::count_features(&example, &tokeniser, length);
                samples += features.map_err(recipe_error)? as u64;
            }
            Err(missing) => not_found.push(missing),
        }
    }
    let per_step = options.config.samples_per_step();
    let (steps_per_epoch, padding) = match data.drop_remainder {
        true => (samples / per_step, 0),
        false => {
            let steps = samples.div_ceil(per_step);
            (steps, steps.saturating_mul(per_step) - samples)
        }
    };
    if steps_per_epoch == 0 {
        let copies = 1;
        return Err(DataError::Insufficient {
            per_step,
            samples,
            copies,
        }
        .into());
    }
    Ok(Dataset {
        steps_per_epoch,
        origin: SampleOrigin::Questions { not_found, padding },
        files,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use bert_model::data::{Pack, Sequence, Token};

    use super::*;
    use crate::args;
    use crate::clock::Date;
    use crate::request::prepare;

    /// Steps of an epoch of files with so many records each, or what is wrong with them. A step
    /// takes 2 x 4 x 2 sequences.
    fn check(counts: &[u64], more: &str, expected: std::result::Result<u64, &str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: usize| folder.path().join(format!("wiki_{number:02}_tokenised"));
        let mut line =
            "--micro-batch-size 2 --gradient-accumulation-factor 4 --replication-factor 2 \
            --batches-per-step 1 --num-layers 2 --epochs 1"
                .to_owned();
        for (number, count) in counts.iter().enumerate() {
            File::create(path(number))
                .unwrap()
                .set_len(count * 1628)
                .unwrap();
        }
        if !counts.is_empty() {
            line += " --input-files";
            for number in 0..counts.len() {
                line += &format!(" {}", path(number).display());
            }
        }
        line += " ";
        line += more;
        let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
        let request = prepare(&given, Date::from_unix(0)).unwrap().request;
        let found = open(&request.options);
        match expected {
            Ok(steps) => assert_eq!(found.unwrap().steps_per_epoch, steps, "{line}"),
            Err(text) => {
                let error = found.unwrap_err().to_string();
                assert!(error.contains(text), "{error}");
            }
        }
    }

    #[test]
    fn an_epoch_reads_a_copy_of_every_file() {
        check(&[16], "", Ok(1));
        check(&[47], "", Ok(2));
        check(&[96], "--duplication-factor 6", Ok(1));
        // 5 + 5 + 6 samples of a copy.
        check(&[35, 32, 36], "--duplication-factor 6", Ok(1));
        check(&[35, 32, 35], "--duplication-factor 6", Err("got 15"));
        check(&[96], "--duplication-factor 6 --epochs-to-cache 3", Ok(3));
        check(&[1000], "--generated-data", Ok(1));
        check(&[], "--generated-data", Ok(1));
        check(&[], "--synthetic-data", Ok(1));
    }

    #[test]
    fn files_that_no_run_can_read() {
        check(
            &[],
            "",
            Err("No input files were provided for the BERT dataset."),
        );
        check(&[15], "", Err("Insufficient data for training parameters."));
        check(&[0], "", Err("Insufficient data for training parameters."));
        check(
            &[16],
            "--sequence-length 384 --mask-tokens 56",
            Err("does not align"),
        );
        check(
            &[16],
            "--input-files none",
            Err("No such file or directory: 'none'"),
        );
        check(
            &[16],
            "--input-files src/none*",
            Err("No such file or directory: 'src/none*'"),
        );
        check(&[16], "--input-files src", Err("src"));
        check(&[16], "--input-files Cargo.TFRecord", Err("No such file"));
    }

    /// Packs of both forms are counted, and so are the sequences in them.
    #[test]
    fn sequences_of_packs_are_counted() {
        for form in [PackForm::Slices, PackForm::Slots] {
            let layout = PackLayout {
                sequence_length: 128,
                mask_tokens: 20,
                sequences: 3,
                form,
            };
            let sequence = |length: u32| Sequence {
                tokens: (0..length).map(token).collect(),
                random_next: 0,
            };
            let mut bytes = Vec::new();
            for lengths in [&[30, 98][..], &[20, 40, 60], &[128], &[64, 64]] {
                let sequences: Vec<Sequence> = lengths.iter().map(|&n| sequence(n)).collect();
                Pack::of(layout, &sequences).unwrap().write(&mut bytes);
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("packs");
            std::fs::write(&path, &bytes).unwrap();
            let line = format!(
                "--use-packed-sequence-format --max-sequences-per-pack 3 --epochs 1 \
                 --micro-batch-size 2 --batches-per-step 1 --no-validation --input-files {}",
                path.display()
            );
            let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
            let request = prepare(&given, Date::from_unix(0)).unwrap().request;
            let found = open(&request.options).unwrap();
            assert_eq!(found.steps_per_epoch, 2);
            assert_eq!(found.sequences_per_pack(), Some(2.0));
            let old = (form == PackForm::Slots).then_some(path.as_path());
            assert_eq!(found.old_form(), old);
        }
        let packed = "--use-packed-sequence-format --no-validation";
        check(&[16], packed, Err("or of 2312 in the form of v2.1"));
    }

    fn token(position: u32) -> Token {
        Token {
            position,
            word: 1,
            segment: 0,
            label: None,
        }
    }

    /// Steps of an epoch of the shipped questions, whose texts fit one window each.
    fn check_questions(more: &str, expected: std::result::Result<(u64, u64), &str>) {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/sample");
        let line = format!(
            "--task SQUAD --num-layers 2 --batches-per-step 1 --epochs 1 \
             --input-files {sample}/dev-v1.1.json --vocab-file {sample}/vocab.txt \
             --do-lower-case --sequence-length 128 {more}"
        );
        let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
        let request = prepare(&given, Date::from_unix(0)).unwrap().request;
        match (open(&request.options), expected) {
            (Ok(found), Ok((steps, expected))) => {
                assert_eq!(found.steps_per_epoch, steps, "{more}");
                let SampleOrigin::Questions { padding, .. } = found.origin else {
                    panic!("{found:?}");
                };
                assert_eq!(padding, expected, "{more}");
            }
            (Err(error), Err(text)) => {
                let chain = crate::error::chain(&error);
                assert!(chain.contains(text), "{chain}");
            }
            (found, _) => panic!("{more}: {found:?}"),
        }
    }

    #[test]
    fn questions_are_counted_by_windows() {
        check_questions("--inference", Ok((3, 0)));
        check_questions("--inference --micro-batch-size 2", Ok((1, 0)));
        check_questions(
            "--inference --micro-batch-size 2 --no-drop-remainder",
            Ok((2, 1)),
        );
        check_questions(
            "--inference --micro-batch-size 4 --no-drop-remainder",
            Ok((1, 1)),
        );
        check_questions("--inference --micro-batch-size 4", Err("Insufficient data"));
        // Of three texts of 73, 73 and 41 tokens, two don't fit beside their questions.
        check_questions("--inference --sequence-length 80", Ok((5, 0)));
        check_questions(
            "--inference --sequence-length 60",
            Err("argument --sequence-length: must be 68 or more for questions, got 60"),
        );
        check_questions("", Err("exactly 1 answer. Got 3"));
        check_questions("--inference --input-files Cargo.toml", Err("Cargo.toml:1:"));
        check_questions("--inference --vocab-file Cargo.toml", Err("Cargo.toml"));
    }
}

//! What does a run read its samples from, and how many steps are in it?
//!
//! The rules are those of the original's loaders
//! (`applications/popart/bert/bert_data/pretraining_dataset.py`): a step takes so many sequences,
//! an epoch reads one copy of every file, and what doesn't fill a step is dropped. Files are
//! opened, sized and checked before anything is compiled.
//!
//! Left out: the contents. They don't change simulated time, so the values of a run are not read
//! from here, and neither is their order.

use std::path::Path;

use bert_model::data::RecordLayout;

use super::{DataError, inspect};
use crate::Result;
use crate::config::options::{BertOptions, Task};

/// The samples of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Steps of one pass over it, at least one.
    pub steps_per_epoch: u64,
    /// Where they come from.
    pub source: Source,
}

/// Where samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: they are made on the host or on the device, one step an epoch.
    Made,
    /// Files of pre-training records.
    Records {
        /// Whether epochs are kept in memory.
        cached: bool,
    },
}

impl Dataset {
    /// Samples made on the host or on the device.
    #[must_use]
    pub fn made() -> Self {
        Self {
            steps_per_epoch: 1,
            source: Source::Made,
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
    if options.run.generated_data || options.run.synthetic_data {
        return Ok(Dataset::made());
    }
    let files = &options.data.input_files;
    if files.is_empty() {
        return Err(DataError::NoInputFiles.into());
    }
    for path in files {
        if !path.exists() {
            return Err(DataError::Missing { path: path.clone() }.into());
        }
    }
    match options.model.task {
        Task::Pretraining => records(options),
        Task::Squad => Err(DataError::Questions.into()),
    }
}

/// Files of records: an epoch reads a copy of each.
fn records(options: &BertOptions) -> Result<Dataset> {
    let data = &options.data;
    let is_tf_record = |path: &Path| {
        let name = path.as_os_str().to_string_lossy().to_lowercase();
        name.ends_with("tfrecord")
    };
    if let Some(path) = data.input_files.iter().find(|path| is_tf_record(path)) {
        return Err(DataError::TfRecord { path: path.clone() }.into());
    }
    let layout = RecordLayout {
        sequence_length: options.model.sequence_length,
        mask_tokens: options.model.mask_tokens,
    };
    let counts = data
        .input_files
        .iter()
        .map(|path| inspect::count(path, layout))
        .collect::<Result<Vec<u64>>>()?;
    let copies = data.duplication_factor;
    let of_a_copy: u64 = counts.iter().map(|count| count / copies).sum();
    // Cached epochs are joined: they are one long epoch.
    let samples = of_a_copy.saturating_mul(data.epochs_to_cache.max(1));
    let per_step = options.batching.sequences_per_step();
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
        source: Source::Records {
            cached: data.epochs_to_cache > 0,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
        check(&[16], "--input-files src", Err("src"));
        check(&[16], "--input-files Cargo.TFRecord", Err("No such file"));
    }
}

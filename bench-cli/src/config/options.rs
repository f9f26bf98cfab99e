//! The resolved configuration as types, and as the arguments that it stands for.
//!
//! [`BertOptions`] has the run itself ([`RunConfig`]) and what only a command has: a device, files,
//! a length, a log. [`BertOptions::arguments`] renders it, so that what is written of a run is what
//! was run.

pub mod own;

use std::path::PathBuf;
use std::time::Duration;

use bench_core::config::RunConfig;
use bert_model::data::Case;
use popart_graph::lower::HostStreams;
use serde_json::{Map, Value};

use crate::launch::Launch;

/// Everything that acts, in groups.
#[derive(Clone, Debug, PartialEq)]
pub struct BertOptions {
    /// Configuration of the run: all that decides its result.
    pub config: RunConfig,
    /// Which device runs it.
    pub device: Device,
    /// Files that the run reads.
    pub data: Data,
    /// How long the run is.
    pub run: Run,
    /// Options of the output: lines, files and folders.
    pub output: Output,
    /// All keys as they were given: how a value is spelled, and what those that change nothing were.
    written: Map<String, Value>,
    /// The keys of the groups above as they were when they were read.
    as_read: Map<String, Value>,
}

/// When to attach to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionType {
    /// Not at all: the program is compiled, not run.
    Offline,
    /// At once or not at all.
    Always,
    /// As soon as one is free.
    OnDemand,
}

/// A generation of IPUs, by Poplar's name of its architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// `ipu1`.
    Mk1,
    /// `ipu2`.
    Mk2,
}

/// Which device runs it; [`crate::locks`] says who else can have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The device asked for; `None` for any that is large enough.
    pub id: Option<u32>,
    /// The generation asked for; `None` for Mk2, unless a machine is named.
    pub version: Option<Generation>,
    /// Tiles of one IPU, where not those of the machine.
    pub tiles: Option<u32>,
    /// When to attach to it.
    pub connection: ConnectionType,
    /// Host time after which to give up waiting for it on demand.
    pub ondemand_timeout: Duration,
}

/// Files that the run reads, unless its samples are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Files of samples.
    pub input_files: Vec<PathBuf>,
    /// Copies of each sample in a file of records, of which an epoch reads one; at least one.
    pub duplication_factor: u64,
    /// Epochs of records that are kept in memory as one; 0 for none.
    pub epochs_to_cache: u64,
    /// Vocabulary of questions.
    pub vocab_file: Option<PathBuf>,
    /// Treatment of capital letters in the data.
    pub case: Case,
    /// Whether samples that fill no step are left out; SQuAD only, records always are.
    pub drop_remainder: bool,
}

/// How long the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Training: the epoch to start from.
    pub start_epoch: u64,
    /// Training: passes over the data, if given.
    pub epochs: Option<u64>,
    /// Training: steps, if given.
    pub training_steps: Option<u64>,
    /// Inference: passes over the data.
    pub epochs_inference: u64,
    /// Whether generated data was asked for.
    pub generated_data: bool,
    /// Values that synthetic data is said to have; none of them is computed with.
    pub synthetic_values: SyntheticValues,
    /// The processes that share the work, if a launcher started them.
    pub launch: Option<Launch>,
    /// Whether to train; inference takes no notice.
    pub training: bool,
    /// Whether to validate after training.
    pub validation: bool,
    /// Whether saved models were wanted; they are not written.
    pub model_save: bool,
    /// Bytes of the largest merged copy with the host, if limited; only the log says so.
    pub max_copy_merge_size: Option<u32>,
}

/// Kinds of synthetic data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntheticValues {
    /// Drawn from a normal distribution.
    RandomNormal,
    /// Zeros.
    Zeros,
}

/// The least severe lines of the log that are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All lines.
    NotSet,
    /// All lines.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warning,
    /// What went wrong.
    Error,
    /// What ended the run.
    Critical,
}

impl Level {
    /// Name of the level in options and in lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSet => "NOTSET",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}

/// Options of the output: lines, files and folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Steps between lines of the log, at least one.
    pub steps_per_log: u64,
    /// Whether lines carry the cycles of a step.
    pub report_hw_cycle_count: bool,
    /// Least severe lines printed.
    pub log_level: Level,
    /// Folder of this run, date included.
    pub checkpoint_dir: String,
    /// The model that the run starts from.
    pub initial: InitialModel,
}

/// The model that a run starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialModel {
    /// The one that was given, or one that is made.
    AsGiven,
    /// The one that the training before it leaves in the folder of the run.
    Trained,
}

impl BertOptions {
    /// Whether the device makes its data itself.
    #[must_use]
    pub fn is_synthetic(&self) -> bool {
        self.config.session.host_streams == HostStreams::Absent
    }

    /// Whether samples are made rather than read from files.
    #[must_use]
    pub fn makes_data(&self) -> bool {
        self.run.generated_data || self.is_synthetic()
    }

    /// The options as keys: all of the application's in its order, then the release and others of our
    /// own that are on.
    ///
    /// A key whose meaning didn't change since it was read is spelled as it was given.
    #[must_use]
    pub fn arguments(&self) -> Map<String, Value> {
        let mut now = self.rendered();
        let mut out = self.written.clone();
        for (key, value) in &mut out {
            if let Some(found) = now.remove(key)
                && self.as_read.get(key) != Some(&found)
            {
                *value = found;
            }
        }
        // What the application doesn't know is there only if it does something.
        now.retain(|key, value| {
            let is_ours = key == "release" || value.is_number() || *value == true;
            is_ours || self.as_read.get(key) != Some(value)
        });
        out.extend(now);
        out
    }
}

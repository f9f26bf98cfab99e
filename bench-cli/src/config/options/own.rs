//! What only a command has, from the resolved map to types and back.
//!
//! Values leave JSON here, once, and are checked for what no run can have; those of the run itself
//! [`bench_core::config::keys`] reads.

use std::path::PathBuf;
use std::time::Duration;

use bench_core::config::keys::{UnsupportedChoice, is_key};
use bench_core::config::{KeyError, RunConfig};
use bert_model::data::Case;
use serde_json::{Map, Value, json};

use super::*;
use crate::args::table;
use crate::args::values::show;
use crate::error::{AccumulationSource, Incompatible};
use crate::{Error, Result};

/// The run that the resolved `values` make.
///
/// # Errors
///
/// A value out of range; a choice that is not supported.
pub fn run_config(values: &Map<String, Value>) -> Result<RunConfig> {
    let of_run = values.iter().filter(|(key, _)| is_key(key));
    let keys = of_run.map(|(key, value)| (key.clone(), value.clone()));
    RunConfig::from_keys(&keys.collect()).map_err(Error::from)
}

impl From<KeyError> for Error {
    /// The error by the name of the option.
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::OutOfRange {
                key,
                expected,
                found,
            } => Self::OutOfRange {
                option: option_name(key),
                expected: expected.to_string(),
                found: show(&found),
            },
            KeyError::WrongType {
                key,
                expected,
                found,
            } => Self::OutOfRange {
                option: option_name(key),
                expected: expected.into(),
                found: show(&found),
            },
            KeyError::TwoValues { names, values } => Self::TwoValues {
                names: names.map(|name| format!("key '{name}'")),
                values: [show(&values[0]), show(&values[1])],
            },
            KeyError::NotSupported { choice, .. } => match choice {
                UnsupportedChoice::Mrpc => Self::NotSupported {
                    option: "--task MRPC",
                    reason: "the task has no model, here or in the original",
                },
                UnsupportedChoice::Phased => Self::NotSupported {
                    option: "--execution-mode PHASED",
                    reason: "phased execution is not supported",
                },
                UnsupportedChoice::RunningMean => Self::NotSupported {
                    option: "--gradient-reduction-type RunningMean",
                    reason: "gradients are accumulated as sums; Mean gives the same mean",
                },
            },
            KeyError::TooManyMicroBatches {
                accumulation,
                batches_per_step,
            } => Self::TooManyMicroBatches {
                accumulation,
                batches_per_step,
            },
            KeyError::BatchInconsistent {
                global,
                micro,
                accumulation,
                replicas,
            } => Self::BatchInconsistent {
                global,
                micro,
                accumulation,
                replicas,
            },
            KeyError::BatchIndivisible {
                global,
                micro,
                replicas,
            } => Self::BatchIndivisible {
                global,
                micro,
                replicas,
            },
            KeyError::AccumulationInInference { factor, batch } => Self::AccumulationInInference {
                factor,
                batch,
                given: AccumulationSource::Both,
            },
            error @ (KeyError::TwoPlacements { .. }
            | KeyError::NoChoice { .. }
            | KeyError::Unwritten { .. }
            | KeyError::TimingsOfReplicas
            | KeyError::TwoMomentTypes
            | KeyError::NoMomentsInHalf
            | KeyError::NoHalfLayers
            | KeyError::HalfLayers(_)
            | KeyError::Clipping(_)) => Self::Keys(error),
            KeyError::FixedByRelease {
                key,
                value,
                release,
            } => Self::Incompatible(Incompatible::FixedByRelease {
                option: option_name(key),
                value,
                release,
            }),
            KeyError::NoMoments => Self::Incompatible(Incompatible::NoMoments),
            KeyError::Perplexity => Self::Incompatible(Incompatible::Perplexity),
            KeyError::PackedTask => Self::Incompatible(Incompatible::PackedTask),
            KeyError::PackedInference => Self::Incompatible(Incompatible::PackedInference),
            KeyError::Unknown { key } => unreachable!("`{key}` was looked up before"),
        }
    }
}

fn option_name(key: &str) -> &'static str {
    let option = table::by_key(key).or_else(|| table::own_by_key(key));
    option.expect("the key is in the option table").name
}

/// The launch of a run of all its replicas.
fn launch(read: &Reader<'_>) -> Result<Option<Launch>> {
    let processes = read.number("popdist_size", 1)?;
    Ok(read.switch("use_popdist").then(|| Launch {
        processes,
        rank: read.values["popdist_rank"].as_u64().unwrap_or_default() as u32,
        local_replicas: read.values["replication_factor"].as_u64().unwrap_or(1) as u32 / processes,
    }))
}

impl BertOptions {
    /// Types the resolved `values` (all keys, batch factors derived).
    ///
    /// # Errors
    ///
    /// A value out of range; a choice that is not supported.
    ///
    /// # Panics
    ///
    /// If a key is missing or has another type than the option table gives it.
    pub fn from_values(values: &Map<String, Value>) -> Result<Self> {
        let read = Reader { values };
        let mut options = Self {
            config: run_config(values)?,
            device: device(&read)?,
            data: data(&read)?,
            run: Run {
                start_epoch: u64::from(read.number("continue_training_from_epoch", 0)?),
                epochs: read.maybe("epochs", |key| read.steps(key))?,
                training_steps: read.maybe("training_steps", |key| read.steps(key))?,
                epochs_inference: read.steps("epochs_inference")?,
                generated_data: read.switch("generated_data"),
                synthetic_values: match read.text("synthetic_data_initializer") {
                    "zeros" => SyntheticValues::Zeros,
                    _ => SyntheticValues::RandomNormal,
                },
                launch: launch(&read)?,
                training: !read.switch("no_training"),
                validation: !read.switch("no_validation"),
                model_save: !read.switch("no_model_save"),
                max_copy_merge_size: match read.value("max_copy_merge_size").as_i64() {
                    Some(-1) => None,
                    _ => Some(read.number("max_copy_merge_size", 0)?),
                },
            },
            output: Output {
                steps_per_log: read.steps("steps_per_log")?,
                report_hw_cycle_count: read.switch("report_hw_cycle_count"),
                log_level: match read.text("log_level") {
                    "NOTSET" => Level::NotSet,
                    "DEBUG" => Level::Debug,
                    "INFO" => Level::Info,
                    "WARNING" => Level::Warning,
                    "ERROR" => Level::Error,
                    "CRITICAL" => Level::Critical,
                    other => unreachable!("`{other}` is no choice of --log-level"),
                },
                checkpoint_dir: read.text("checkpoint_dir").to_string(),
                initial: InitialModel::AsGiven,
            },
            written: values.clone(),
            as_read: Map::new(),
        };
        options.as_read = options.rendered();
        Ok(options)
    }

    /// All groups as keys, those left out that beside the others change nothing.
    pub(super) fn rendered(&self) -> Map<String, Value> {
        let mut out = self.config.to_keys();
        let mut set = |key: &str, value: Value| {
            out.insert(key.into(), value);
        };
        let device = &self.device;
        set("device_id", json!(device.id));
        let version = device.version.map(|version| match version {
            Generation::Mk1 => "ipu1",
            Generation::Mk2 => "ipu2",
        });
        set("device_version", json!(version));
        set("device_tiles", json!(device.tiles));
        let connection = match device.connection {
            ConnectionType::Offline => "offline",
            ConnectionType::Always => "always",
            ConnectionType::OnDemand => "ondemand",
        };
        set("device_connection_type", json!(connection));
        let timeout = device.ondemand_timeout.as_secs();
        set("device_ondemand_timeout", json!(timeout));
        let data = &self.data;
        let files = data.input_files.iter().map(|file| file.to_string_lossy());
        let files: Vec<_> = files.collect();
        set("input_files", json!(files));
        set("duplication_factor", json!(data.duplication_factor));
        set("epochs_to_cache", json!(data.epochs_to_cache));
        let vocabulary = data.vocab_file.as_ref();
        set(
            "vocab_file",
            json!(vocabulary.map(|file| file.to_string_lossy())),
        );
        set("do_lower_case", json!(data.case == Case::Lower));
        set("no_drop_remainder", json!(!data.drop_remainder));
        let run = &self.run;
        set("continue_training_from_epoch", json!(run.start_epoch));
        set("epochs", json!(run.epochs));
        set("training_steps", json!(run.training_steps));
        set("epochs_inference", json!(run.epochs_inference));
        set("generated_data", json!(run.generated_data));
        let initializer = match run.synthetic_values {
            SyntheticValues::RandomNormal => "random_normal",
            SyntheticValues::Zeros => "zeros",
        };
        set("synthetic_data_initializer", json!(initializer));
        set("no_training", json!(!run.training));
        set("no_validation", json!(!run.validation));
        set("no_model_save", json!(!run.model_save));
        let merged = run.max_copy_merge_size.map_or(-1, i64::from);
        set("max_copy_merge_size", json!(merged));
        let output = &self.output;
        set("steps_per_log", json!(output.steps_per_log));
        set("report_hw_cycle_count", json!(output.report_hw_cycle_count));
        set("log_level", json!(output.log_level.name()));
        set("checkpoint_dir", json!(output.checkpoint_dir));
        if output.initial == InitialModel::Trained {
            let model = format!("{}/model.onnx", output.checkpoint_dir);
            set("onnx_checkpoint", json!(model));
        }
        out
    }
}

/// Graphcore documentation, "Device attributes": a Bow says `ipu2`, too.
const GENERATIONS: &str = "ipu1 (Mk1) or ipu2 (Mk2); a Bow is --system bow-pod16, \
     and the C600 card (ipu21) isn't described";

fn device(read: &Reader) -> Result<Device> {
    Ok(Device {
        id: read.maybe("device_id", |key| read.number(key, 0))?,
        version: read.maybe("device_version", |key| match read.text(key) {
            "ipu1" => Ok(Generation::Mk1),
            "ipu2" => Ok(Generation::Mk2),
            _ => Err(read.out_of_range(key, GENERATIONS.into())),
        })?,
        tiles: read.maybe("device_tiles", |key| read.count(key))?,
        connection: match read.text("device_connection_type") {
            "always" => ConnectionType::Always,
            "ondemand" => ConnectionType::OnDemand,
            _ => ConnectionType::Offline,
        },
        ondemand_timeout: Duration::from_secs(u64::from(
            read.number("device_ondemand_timeout", 0)?,
        )),
    })
}

fn data(read: &Reader) -> Result<Data> {
    let files = match read.value("input_files") {
        Value::Null => &[],
        files => files.as_array().expect("a list is an array").as_slice(),
    };
    let name = |file: &Value| PathBuf::from(file.as_str().expect("a text is a string"));
    Ok(Data {
        input_files: files.iter().map(name).collect(),
        duplication_factor: read.steps("duplication_factor")?,
        epochs_to_cache: u64::from(read.number("epochs_to_cache", 0)?),
        vocab_file: read.maybe("vocab_file", |key| Ok(PathBuf::from(read.text(key))))?,
        case: match read.switch("do_lower_case") {
            true => Case::Lower,
            false => Case::Keep,
        },
        drop_remainder: !read.switch("no_drop_remainder"),
    })
}

/// Reads typed values out of the resolved map. Types were checked when the map was filled, so that
/// a wrong one is a bug here; ranges are the user's.
struct Reader<'a> {
    values: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn value(&self, key: &str) -> &Value {
        self.values
            .get(key)
            .unwrap_or_else(|| panic!("`{key}` is in the option table"))
    }

    fn maybe<T>(&self, key: &str, read: impl Fn(&str) -> Result<T>) -> Result<Option<T>> {
        if self.value(key).is_null() {
            return Ok(None);
        }
        read(key).map(Some)
    }

    fn switch(&self, key: &str) -> bool {
        self.value(key).as_bool().expect("a switch is a boolean")
    }

    fn text(&self, key: &str) -> &str {
        self.value(key).as_str().expect("a text is a string")
    }

    fn number(&self, key: &str, least: u32) -> Result<u32> {
        self.whole(key, self.value(key), least)
    }

    fn whole(&self, key: &str, value: &Value, least: u32) -> Result<u32> {
        let number = value.as_i64().expect("a whole number is one");
        u32::try_from(number)
            .ok()
            .filter(|number| *number >= least)
            .ok_or_else(|| self.out_of_range(key, format!("at least {least} and less than 2^32")))
    }

    fn count(&self, key: &str) -> Result<u32> {
        self.number(key, 1)
    }

    fn steps(&self, key: &str) -> Result<u64> {
        self.count(key).map(u64::from)
    }

    fn out_of_range(&self, key: &str, expected: String) -> Error {
        Error::OutOfRange {
            option: table::by_key(key)
                .expect("the key is in the option table")
                .name,
            expected,
            found: crate::args::values::show(self.value(key)),
        }
    }
}

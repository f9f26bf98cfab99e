//! From the resolved map to the typed options.
//!
//! Values leave JSON here, once, and are checked for what no model or machine can have.

use bert_model::config::EXTENT_MAX;
use bert_model::placement;
use ipu_sim::numerics::DType;
use popart_graph::passes::optimizer::rules::Correction;
use serde_json::{Map, Value};

use super::*;
use crate::args::table;
use crate::{Error, Result};

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
        let model = model(&read)?;
        check_extents(&read)?;
        Ok(Self {
            placement: placement(&read, &model)?,
            model,
            batching: Batching {
                micro_batch_size: read.count("micro_batch_size")?,
                gradient_accumulation_factor: read.count("gradient_accumulation_factor")?,
                replication_factor: read.count("replication_factor")?,
                batches_per_step: read.count("batches_per_step")?,
            },
            optimizer: optimizer(&read)?,
            learning_rate: learning_rate(&read)?,
            session: session(&read),
            device: device(&read)?,
            data: data(&read)?,
            run: Run {
                start_epoch: u64::from(read.number("continue_training_from_epoch", 0)?),
                epochs: read.maybe("epochs", |key| read.steps(key))?,
                training_steps: read.maybe("training_steps", |key| read.steps(key))?,
                epochs_inference: read.steps("epochs_inference")?,
                generated_data: read.switch("generated_data"),
                synthetic_data: read.switch("synthetic_data"),
                synthetic_values: match read.text("synthetic_data_initializer") {
                    "zeros" => SyntheticValues::Zeros,
                    _ => SyntheticValues::RandomNormal,
                },
                training: !read.switch("no_training"),
                validation: !read.switch("no_validation"),
                model_save: !read.switch("no_model_save"),
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
            },
        })
    }
}

fn model(read: &Reader) -> Result<Model> {
    let task = match read.text("task") {
        "PRETRAINING" => Task::Pretraining,
        "SQUAD" => Task::Squad,
        _ => {
            return Err(Error::NotSupported {
                option: "--task MRPC",
                reason: "the task has no model, here or in the original",
            });
        }
    };
    let hidden_size = read.count("hidden_size")?;
    let attention_heads = read.count("attention_heads")?;
    if !hidden_size.is_multiple_of(attention_heads) {
        return Err(read.out_of_range(
            "hidden_size",
            format!("a multiple of {attention_heads} heads"),
        ));
    }
    let sequence_length = read.count("sequence_length")?;
    let max_positional_length = read.count("max_positional_length")?;
    if sequence_length > max_positional_length {
        let most = format!("at most the {max_positional_length} rows of the position embedding");
        return Err(read.out_of_range("sequence_length", most));
    }
    let mask_tokens = read.count("mask_tokens")?;
    if task == Task::Pretraining && mask_tokens >= sequence_length {
        let most = format!("below the sequence length of {sequence_length}");
        return Err(read.out_of_range("mask_tokens", most));
    }
    let vocab_length = read.count("vocab_length")?;
    let embedding_serialization_vocab_steps = read.count("embedding_serialization_vocab_steps")?;
    if !vocab_length.is_multiple_of(embedding_serialization_vocab_steps) {
        let divisor = format!("a divisor of the vocabulary length of {vocab_length}");
        return Err(read.out_of_range("embedding_serialization_vocab_steps", divisor));
    }
    Ok(Model {
        task,
        num_layers: read.count("num_layers")?,
        hidden_size,
        ff_size: match read.maybe("ff_size__", |key| read.count(key))? {
            Some(width) => width,
            None => hidden_size
                .checked_mul(4)
                .ok_or_else(|| read.out_of_range("hidden_size", "a smaller width".into()))?,
        },
        attention_heads,
        sequence_length,
        max_positional_length,
        mask_tokens,
        vocab_length,
        layer_norm_eps: read.positive("layer_norm_eps")?,
        dtype: match read.text("popart_dtype") {
            "FLOAT16" => DType::F16,
            _ => DType::F32,
        },
        split_qkv: read.switch("split_qkv"),
        attention_bias: read.switch("attention_bias"),
        activation: activation(read),
        cls_layer: !read.switch("no_cls_layer"),
        projection_bias: read.switch("projection_bias"),
        update_embedding_dict: read.switch("update_embedding_dict"),
        squad_single_output: read.switch("squad_single_output"),
        inference_lm_perplexity: read.switch("inference_lm_perplexity"),
        split_linear_layers: read.switch("split_linear_layers"),
        embedding_serialization_vocab_steps,
        dropout: !read.switch("no_dropout"),
        attention_dropout: !read.switch("no_attn_dropout"),
        dropout_prob: read.float_where("dropout_prob", "from 0 to below 1", |p| {
            (0.0..1.0).contains(&p)
        })?,
    })
}

/// What `bert_model` asks of sizes, by the names of their options.
fn check_extents(read: &Reader) -> Result<()> {
    for key in [
        "micro_batch_size",
        "sequence_length",
        "max_positional_length",
        "vocab_length",
        "hidden_size",
    ] {
        if read.count(key)? > EXTENT_MAX {
            return Err(read.out_of_range(key, format!("at most {EXTENT_MAX}")));
        }
    }
    let sequence_length = read.count("sequence_length")?;
    let rows = read.count("micro_batch_size")?.checked_mul(sequence_length);
    rows.map(|_| ()).ok_or_else(|| {
        let most = format!("less than 2^32 tokens in sequences of {sequence_length}");
        read.out_of_range("micro_batch_size", most)
    })
}

/// The original knows three words, and takes any other for Relu.
fn activation(read: &Reader) -> Activation {
    match read.text("activation_type") {
        "Gelu" => Activation::Gelu,
        "SGelu" => Activation::SigmoidGelu,
        "LRelu" => Activation::LeakyRelu {
            leak: read.float("relu_leak"),
        },
        _ => Activation::Relu,
    }
}

/// Layers and IPUs by the rules of [`bert_model::placement`].
fn placement(read: &Reader, model: &Model) -> Result<Placement> {
    let execution_mode = match read.text("execution_mode") {
        "DEFAULT" => ExecutionMode::Default,
        "PIPELINE" => ExecutionMode::Pipeline,
        _ => {
            return Err(Error::NotSupported {
                option: "--execution-mode PHASED",
                reason: "phased execution is not supported",
            });
        }
    };
    let layers_per_ipu = read.counts("layers_per_ipu")?;
    let uncovered = |_| {
        let all = format!("counts that cover all {} layers", model.num_layers);
        read.out_of_range("layers_per_ipu", all)
    };
    let encoder_ipus =
        placement::encoder_ipus(&layers_per_ipu, model.num_layers).map_err(uncovered)?;
    let encoder_start_ipu = read.number("encoder_start_ipu", 0)?;
    let replica_ipus =
        placement::replica_ipus(encoder_start_ipu, &layers_per_ipu, model.num_layers);
    let of_a_replica = replica_ipus.map_err(|_| {
        let most = "less than 2^32 IPUs of a replica";
        read.out_of_range("encoder_start_ipu", most.into())
    })?;
    let replicas = read.count("replication_factor")?;
    let too_many = |_| read.out_of_range("replication_factor", "less than 2^32 IPUs in all".into());
    Ok(Placement {
        execution_mode,
        encoder_start_ipu,
        layers_per_ipu,
        recompute_checkpoint_every_layer: read.switch("recompute_checkpoint_every_layer"),
        available_memory_proportion: if read.switch("use_default_available_memory_proportion") {
            None
        } else {
            Some(read.proportions("available_memory_proportion", encoder_ipus)?)
        },
        ipus_per_replica: of_a_replica,
        ipus_requested: placement::ipus_requested(of_a_replica, replicas).map_err(too_many)?,
    })
}

fn optimizer(read: &Reader) -> Result<Optimizer> {
    let momentum = read.float("momentum");
    let dampening = read.maybe("dampening", |key| Ok(read.float(key)))?;
    Ok(Optimizer {
        kind: match read.text("optimizer") {
            "ADAM" => OptimizerKind::Adam(Correction::Bias),
            "ADAM_NO_BIAS" => OptimizerKind::Adam(Correction::None),
            "LAMB" => OptimizerKind::Lamb(Correction::Bias),
            "LAMB_NO_BIAS" => OptimizerKind::Lamb(Correction::None),
            _ => OptimizerKind::Sgd,
        },
        loss_scaling: read.positive("loss_scaling")?,
        weight_decay: read.float("weight_decay"),
        momentum,
        // Zero means unset to the original, too.
        dampening: dampening.filter(|given| *given != 0.0).unwrap_or(momentum),
        velocity_scaling: read.positive("velocity_scaling")?,
        beta1: read.float("beta1"),
        beta2: read.float("beta2"),
        max_weight_norm: read.maybe("max_weight_norm", |key| read.positive(key))?,
        gradient_reduction: match read.text("gradient_reduction_type") {
            "Mean" => Reduction::Mean,
            _ => Reduction::Sum,
        },
        squad_lr_scale: read.float("squad_lr_scale"),
        stage_scaling: read.switch("continuous_pipeline_optimizer_scaling"),
        state_offchip: read.switch("optimizer_state_offchip"),
        replicated_tensor_sharding: read.switch("replicated_tensor_sharding"),
    })
}

fn learning_rate(read: &Reader) -> Result<LearningRate> {
    Ok(LearningRate {
        function: match read.text("learning_rate_function") {
            "Linear" => RateFunction::Linear,
            _ => RateFunction::Scheduled,
        },
        rate: read.float("learning_rate"),
        warmup_start: read.float("lr_warmup_start"),
        warmup_steps: u64::from(read.number("lr_warmup_steps", 0)?),
        steps_per_warmup_update: read.steps("lr_steps_per_warmup_update")?,
        steps_per_decay_update: read.steps("lr_steps_per_decay_update")?,
        by_epoch: read.schedule("lr_schedule_by_epoch"),
        by_step: read.schedule("lr_schedule_by_step"),
    })
}

fn session(read: &Reader) -> Session {
    Session {
        inference: read.switch("inference"),
        inference_io: if read.switch("minimum_latency_inference") {
            InferenceIo::MinimumLatency
        } else if read.switch("low_latency_inference") {
            InferenceIo::LowLatency
        } else {
            InferenceIo::Ordinary
        },
        fully_connected_pass: !read.switch("disable_fully_connected_pass"),
        half_partials: read.switch("enable_half_partials"),
        no_outlining: read.switch("no_outlining"),
        merge_collectives: false,
        host_streams: if read.switch("synthetic_data") {
            HostStreams::Absent
        } else if read.switch("group_host_syncs") {
            HostStreams::Grouped
        } else {
            HostStreams::WhereNeeded
        },
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

    fn float(&self, key: &str) -> f64 {
        self.value(key).as_f64().expect("a number is one")
    }

    fn float_where(&self, key: &str, range: &str, fits: impl Fn(f64) -> bool) -> Result<f64> {
        let number = self.float(key);
        if fits(number) {
            Ok(number)
        } else {
            Err(self.out_of_range(key, format!("a number {range}")))
        }
    }

    fn positive(&self, key: &str) -> Result<f64> {
        self.float_where(key, "above 0", |number| number > 0.0)
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

    fn list(&self, key: &str) -> &[Value] {
        self.value(key).as_array().expect("a list is an array")
    }

    fn counts(&self, key: &str) -> Result<Vec<u32>> {
        let items = self.list(key).iter();
        items.map(|item| self.whole(key, item, 1)).collect()
    }

    fn proportions(&self, key: &str, ipus: u32) -> Result<Vec<f64>> {
        let items = self.list(key).iter();
        let list: Vec<f64> = items.filter_map(Value::as_f64).collect();
        if !list.iter().all(|part| *part > 0.0 && *part <= 1.0) {
            return Err(self.out_of_range(key, "numbers above 0 and up to 1".into()));
        }
        if list.len() != 1 && list.len() < ipus as usize {
            let each = format!("one number, or one for each of {ipus} encoder IPUs");
            return Err(self.out_of_range(key, each));
        }
        Ok(list)
    }

    fn schedule(&self, key: &str) -> Vec<(u64, f64)> {
        let Some(pairs) = self.value(key).as_object() else {
            return Vec::new();
        };
        let mut pairs: Vec<(u64, f64)> = pairs
            .iter()
            .map(|(at, rate)| {
                let at = at.parse().expect("keys of schedules are whole numbers");
                (at, rate.as_f64().expect("rates are numbers"))
            })
            .collect();
        pairs.sort_by_key(|(at, _)| *at);
        pairs
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

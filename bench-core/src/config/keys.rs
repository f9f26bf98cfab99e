//! A run as keys and values, as the published configuration files have it.
//!
//! Names, choices and defaults are those of `bert.py` (graphcore/examples,
//! `applications/popart/bert`, `utils/arguments`); `merge_collectives`, `release` and
//! `sequences_per_pack` are our own.
//! Half layers, clipped gradients and a model without a next-sentence head are of Graphcore's
//! submissions to MLPerf Training (mlcommons/training_results_v1.1, `bert_model.py` and
//! `bert_optimizer.py`).
//! Values leave JSON here, once, and are checked for what no model or machine can have.
//!
//! A key that another one makes idle (the momentum beside LAMB) is read and kept where the types
//! have a place for it, and else forgotten: [`RunConfig::to_keys`] then leaves it out.

use std::fmt;

use bert_model::config::{
    Activation, BertConfig, Dropout, Field, Mode, Rule, SequenceFormat, Task,
};
use bert_model::optim::{OptimizerKind, OptimizerOptions, StageScaling};
use bert_model::placement::{
    EncoderMemory, EncoderPlacement, Execution, Halves, HalvesPerStage, LayersPerIpu,
    PlacementError, PlacementOptions, Recomputation, SquadHead, StageHalves, ipus_requested,
};
use ipu_sim::numerics::DType;
use popart_graph::ir::Reduction;
use popart_graph::lower::HostStreams;
use popart_graph::passes::optimizer::rules::{Correction, MomentTypes};
use popart_graph::passes::{
    CollectiveMerging, OptimizerState, Outlining, Sharding, SoftmaxDropoutGradient, StateMemory,
};
use serde_json::{Map, Value, json};

use super::{Batching, InferenceIo, LearningRate, RateFunction, RunConfig, Session, synonyms};
use crate::release::Release;

/// Every key of a run, in the order of the published application.
pub const KEYS: [&str; 80] = [
    "micro_batch_size",
    "sequence_length",
    "max_positional_length",
    "mask_tokens",
    "vocab_length",
    "hidden_size",
    "ff_size__",
    "attention_heads",
    "attention_bias",
    "inference",
    "num_layers",
    "encoder_start_ipu",
    "layers_per_ipu",
    "available_memory_proportion",
    "recompute_checkpoint_every_layer",
    "no_dropout",
    "no_attn_dropout",
    "disable_attention_dropout_bwd",
    "dropout_prob",
    "layer_norm_eps",
    "task",
    "split_linear_layers",
    "split_qkv",
    "activation_type",
    "relu_leak",
    "popart_dtype",
    "embedding_serialization_vocab_steps",
    "update_embedding_dict",
    "use_default_available_memory_proportion",
    "no_cls_layer",
    "projection_bias",
    "execution_mode",
    "squad_single_output",
    "squad_wrap_final_layer",
    "inference_lm_perplexity",
    "squad_lr_scale",
    "global_batch_size",
    "gradient_accumulation_factor",
    "replication_factor",
    "batches_per_step",
    "optimizer",
    "learning_rate",
    "loss_scaling",
    "weight_decay",
    "momentum",
    "dampening",
    "velocity_scaling",
    "beta1",
    "beta2",
    "max_weight_norm",
    "use_half_optimizer_state",
    "gradient_reduction_type",
    "learning_rate_function",
    "continuous_pipeline_optimizer_scaling",
    "lr_warmup_start",
    "lr_warmup_steps",
    "lr_steps_per_warmup_update",
    "lr_steps_per_decay_update",
    "lr_schedule_by_epoch",
    "lr_schedule_by_step",
    "optimizer_state_offchip",
    "replicated_tensor_sharding",
    "enable_half_partials",
    "disable_fully_connected_pass",
    "no_outlining",
    "group_host_syncs",
    "synthetic_data",
    "low_latency_inference",
    "minimum_latency_inference",
    "buffering_depth",
    "merge_collectives",
    "att_ffn_placement",
    "encoder_start_pipeline_stage",
    "gradient_clipping_norm",
    "reduce_nsp_overhead",
    "lamb_accl_dtype",
    "use_packed_sequence_format",
    "max_sequences_per_pack",
    "sequences_per_pack",
    "release",
];

/// Meaning of a word that the application knows.
type Supported<T> = std::result::Result<T, UnsupportedChoice>;

/// A task of every mode.
type TaskOf = fn(Mode) -> Task;

/// Words of `task`, the usual one first, as in all these tables.
const TASKS: [(&str, Supported<TaskOf>); 3] = [
    ("PRETRAINING", Ok(Task::Pretraining)),
    ("SQUAD", Ok(Task::Squad)),
    ("MRPC", Err(UnsupportedChoice::Mrpc)),
];

/// Words of `execution_mode`.
const EXECUTIONS: [(&str, Supported<Execution>); 3] = [
    ("DEFAULT", Ok(Execution::Sequential)),
    ("PIPELINE", Ok(Execution::Pipelined)),
    ("PHASED", Err(UnsupportedChoice::Phased)),
];

/// Words of `popart_dtype`.
const DTYPES: [(&str, DType); 2] = [("FLOAT16", DType::F16), ("FLOAT", DType::F32)];

/// Words of `lamb_accl_dtype`.
const MOMENT_DTYPES: [(&str, DType); 2] = [("FLOAT", DType::F32), ("FLOAT16", DType::F16)];

/// Words of `gradient_reduction_type`.
const REDUCTIONS: [(&str, Supported<Reduction>); 3] = [
    ("Sum", Ok(Reduction::Sum)),
    ("Mean", Ok(Reduction::Mean)),
    ("RunningMean", Err(UnsupportedChoice::RunningMean)),
];

/// Words of `optimizer`.
const OPTIMIZERS: [(&str, OptimizerKind); 5] = [
    ("SGD", OptimizerKind::Sgd),
    ("ADAM", OptimizerKind::Adam(Correction::Bias)),
    ("ADAM_NO_BIAS", OptimizerKind::Adam(Correction::None)),
    ("LAMB", OptimizerKind::Lamb(Correction::Bias)),
    ("LAMB_NO_BIAS", OptimizerKind::Lamb(Correction::None)),
];

/// Words of `learning_rate_function`.
const RATE_FUNCTIONS: [(&str, RateFunction); 2] = [
    ("Scheduled", RateFunction::Scheduled),
    ("Linear", RateFunction::Linear),
];

/// Keys that place whole encoder layers.
pub const LAYER_KEYS: [&str; 2] = ["encoder_start_ipu", "layers_per_ipu"];

/// Keys that place half encoder layers.
pub const HALF_LAYER_KEYS: [&str; 2] = ["att_ffn_placement", "encoder_start_pipeline_stage"];

/// Most micro-batches of a step: far above any use, and few enough for cycles to be counted in 64
/// bits.
pub const MICRO_BATCHES_MAX: u64 = 1_000_000_000;

/// Whether a key is one of [`KEYS`].
#[must_use]
pub fn is_key(key: &str) -> bool {
    KEYS.contains(&key)
}

/// Fault of a key or its value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// A key that no run has.
    #[error("unknown key `{key}`")]
    Unknown {
        /// The key.
        key: String,
    },
    /// A value that is no text, number, list or switch where one is expected.
    #[error("`{key}`: expected {expected}, got {found}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
        /// The value.
        found: Value,
    },
    /// A word that is none of those that a key takes.
    #[error("`{key}`: expected one of {}, got {found:?}", choices.join(", "))]
    NoChoice {
        /// The key.
        key: &'static str,
        /// The words.
        choices: Vec<&'static str>,
        /// The word that was given.
        found: String,
    },
    /// Fields of a run, set in code, that no keys say.
    #[error("the {part} of the run is one that no keys say, such as {}", part.example())]
    Unwritten {
        /// The part of the run.
        part: RunPart,
    },
    /// A value that no model or machine can have.
    #[error("`{key}`: expected {expected}, got {found}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What it takes.
        expected: ValueForm,
        /// The value.
        found: Value,
    },
    /// Two names of one setting with different values.
    #[error("`{}` and `{}` are one setting, got {} and {}", names[0], names[1], values[0], values[1])]
    TwoValues {
        /// Both names.
        names: [&'static str; 2],
        /// Their values.
        values: Box<[Value; 2]>,
    },
    /// A choice that the application has and nothing here computes.
    #[error("`{key}`: {choice} is not supported")]
    NotSupported {
        /// The key.
        key: &'static str,
        /// The value.
        choice: UnsupportedChoice,
    },
    /// Accumulation where no gradients are.
    #[error(
        "inference accumulates no gradients, expected an accumulation factor of 1, got {factor}"
    )]
    AccumulationInInference {
        /// The factor.
        factor: u64,
        /// Sequences of all replicas in one pass.
        batch: u64,
    },
    /// Latencies of several replicas in releases that don't match them with their inputs. The first
    /// sentence is the application's.
    #[error(
        "Number of timings doesn't match items in the batch. Something is wrong.\n  Every replica \
         has timings of its own: `replication_factor` 1 runs, or inference without low or minimum \
         latency"
    )]
    TimingsOfReplicas,
    /// A type for moments that the optimiser doesn't have.
    #[error(
        "`lamb_accl_dtype`: SGD has no moments, expected `optimizer` to be one of ADAM and LAMB"
    )]
    NoMomentsInHalf,
    /// Two types for the second moment.
    #[error(
        "`use_half_optimizer_state` keeps the second moment in FLOAT and `lamb_accl_dtype` in \
         FLOAT16: give one of them"
    )]
    TwoMomentTypes,
    /// Encoder layers placed in two forms at once.
    #[error(
        "`{whole}` places whole layers and `{half}` half layers: give one of them, and leave the \
         other out"
    )]
    TwoPlacements {
        /// A key of the one form.
        whole: &'static str,
        /// A key of the other.
        half: &'static str,
    },
    /// A start of half layers that nothing says where they are.
    #[error("`encoder_start_pipeline_stage` needs `att_ffn_placement`, which has the half layers")]
    NoHalfLayers,
    /// Half layers that can't be placed so.
    #[error(transparent)]
    HalfLayers(#[from] PlacementError),
    /// A norm of all gradients where they aren't all known before a weight changes.
    #[error(
        "`gradient_clipping_norm` {reason}: expected {expected}",
        reason = .0.reason(),
        expected = .0.expected(),
    )]
    Clipping(ClippingConflict),
    /// Perplexity of a model that predicts no masked tokens.
    #[error("perplexity is that of masked tokens, which only pre-training predicts")]
    Perplexity,
    /// Another choice than a release, which has no option for it, always takes.
    #[error("`{key}`: release {release} has no such option and works as with {value}")]
    FixedByRelease {
        /// The key.
        key: &'static str,
        /// What the release does.
        value: bool,
        /// The release.
        release: Release,
    },
    /// Types of moments that the optimiser doesn't have.
    #[error(
        "`use_half_optimizer_state`: SGD has no moments, expected `optimizer` to be one of ADAM and \
         LAMB"
    )]
    NoMoments,
    /// Packs of another task than pre-training. The sentence is the application's.
    #[error("Packed sequence format currently only supported for pretraining.")]
    PackedTask,
    /// Packs in inference, of which the application has no model either.
    #[error(
        "packs of sequences are only trained on: leave out `inference` or \
         `use_packed_sequence_format`"
    )]
    PackedInference,
    /// More micro-batches in a step than cycles are counted for.
    #[error(
        "an accumulation factor of {accumulation} times {batches_per_step} batches a step is more \
         than {MICRO_BATCHES_MAX} micro-batches a step"
    )]
    TooManyMicroBatches {
        /// Micro-batches of one weight update.
        accumulation: u32,
        /// Weight updates of one step.
        batches_per_step: u32,
    },
    /// A global batch that its factors do not give.
    #[error(
        "a global batch of {global} sequences is not {micro} (micro-batch) x {accumulation} \
         (accumulation factor) x {replicas} (replicas)"
    )]
    BatchInconsistent {
        /// Sequences of the global batch, as given.
        global: u64,
        /// Sequences of a micro-batch.
        micro: u64,
        /// Accumulation factor.
        accumulation: u64,
        /// Replicas.
        replicas: u64,
    },
    /// A global batch that the micro-batches of all replicas do not divide.
    #[error("a global batch of {global} sequences is no multiple of {micro} x {replicas}")]
    BatchIndivisible {
        /// Sequences of the global batch, as given.
        global: u64,
        /// Sequences of a micro-batch.
        micro: u64,
        /// Replicas.
        replicas: u64,
    },
}

/// A setting beside which gradients can't be clipped by their norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClippingConflict {
    /// SGD.
    Sgd,
    /// A pipeline that updates weights in its stages.
    UpdatesInStages,
}

impl ClippingConflict {
    fn reason(self) -> &'static str {
        match self {
            Self::Sgd => "limits the gradients of ADAM and LAMB",
            Self::UpdatesInStages => {
                "is over the gradients of all stages, of which each changes its weights at once \
                 without accumulation"
            }
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Sgd => "one of these as `optimizer`",
            Self::UpdatesInStages => "a `gradient_accumulation_factor` above 1",
        }
    }
}

/// A part of a run, as [`RunConfig`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPart {
    /// The model.
    Model,
    /// Placement and recomputation.
    Placement,
    /// Rule of weight updates, or its state.
    Optimizer,
    /// Schedule of the learning rate.
    LearningRate,
    /// Options of the session.
    Session,
    /// Mean number of a pack's sequences.
    Packs,
}

impl RunPart {
    /// An instance of what no keys say.
    fn example(self) -> &'static str {
        match self {
            Self::Model => "activation functions and types that the application doesn't have",
            Self::Placement => "recomputation without a pipeline",
            Self::Optimizer => "numbers that aren't finite, or types of moments that nobody pairs",
            Self::LearningRate => "rates that aren't finite, or steps out of order",
            Self::Session => "more than one way to feed the host's data",
            Self::Packs => "a mean number without packs",
        }
    }
}

impl fmt::Display for RunPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Placement => "placement",
            Self::Optimizer => "optimizer",
            Self::LearningRate => "learning rate",
            Self::Session => "session",
            Self::Packs => "number of sequences of a pack",
        })
    }
}

/// A choice of the application that has no model here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsupportedChoice {
    /// `task: MRPC`, which has no model in the application either.
    Mrpc,
    /// `execution_mode: PHASED`.
    Phased,
    /// `gradient_reduction_type: RunningMean`.
    RunningMean,
}

impl fmt::Display for UnsupportedChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mrpc => "MRPC",
            Self::Phased => "PHASED",
            Self::RunningMean => "RunningMean",
        })
    }
}

/// Form that a value must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueForm {
    /// A count that fits 32 bits.
    AtLeast(u32),
    /// A number above 0.
    Positive,
    /// What a rule of the model says.
    Rule(Rule),
    /// A hidden size of which four times fits 32 bits.
    SmallerWidth,
    /// Counts of layers that are all there are.
    AllLayers(u32),
    /// IPUs of a replica that fit 32 bits.
    FewerIpusOfAReplica,
    /// IPUs of all replicas that fit 32 bits.
    FewerIpus,
    /// Shares of a memory.
    Shares,
    /// A share for all encoder IPUs or for each.
    ShareForEach(u32),
    /// A share for all IPUs of a replica or for each.
    ShareForEachIpu(u32),
    /// Sequences of a global batch that fit 64 bits.
    SmallerGlobalBatch,
    /// A mean number of what is at most this.
    MeanUpTo(u32),
    /// Name of a [`Release`].
    Release,
}

impl fmt::Display for ValueForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least} and less than 2^32"),
            Self::Positive => write!(f, "a number above 0"),
            Self::Rule(rule) => write_rule(f, rule),
            Self::SmallerWidth => write!(f, "a smaller width"),
            Self::AllLayers(layers) => write!(f, "counts that cover all {layers} layers"),
            Self::FewerIpusOfAReplica => write!(f, "less than 2^32 IPUs of a replica"),
            Self::FewerIpus => write!(f, "less than 2^32 IPUs in all"),
            Self::Shares => write!(f, "numbers above 0 and up to 1"),
            Self::ShareForEach(ipus) => {
                write!(f, "one number, or one for each of {ipus} encoder IPUs")
            }
            Self::ShareForEachIpu(ipus) => {
                write!(f, "one number, or one for each of {ipus} IPUs")
            }
            Self::SmallerGlobalBatch => write!(f, "a global batch below 2^64"),
            Self::MeanUpTo(most) => write!(f, "a number above 0 and up to {most}"),
            Self::Release => write!(f, "one of {}", Release::ALL.map(Release::name).join(", ")),
        }
    }
}

/// A rule of the model in words that name no field.
fn write_rule(f: &mut fmt::Formatter<'_>, rule: &Rule) -> fmt::Result {
    match rule {
        Rule::AtLeast(least) => write!(f, "at least {least} and less than 2^32"),
        Rule::AtMost(most) => write!(f, "at most {most}"),
        Rule::NoMoreThan(rows) => {
            write!(
                f,
                "at most the {} rows of the position embedding",
                rows.value
            )
        }
        Rule::Below(length) => write!(f, "below the sequence length of {}", length.value),
        Rule::MultipleOf(size) if size.field == Field::AttentionHeads => {
            write!(f, "a multiple of {} heads", size.value)
        }
        Rule::MultipleOf(size) => write!(f, "a multiple of the hidden size of {}", size.value),
        Rule::DivisorOf(size) => write!(f, "a divisor of the vocabulary length of {}", size.value),
        Rule::ProductFits(length) => {
            write!(f, "less than 2^32 tokens in sequences of {}", length.value)
        }
        Rule::Probability => write!(f, "a number from 0 to below 1"),
        Rule::Positive => write!(f, "a number above 0"),
        Rule::Finite => write!(f, "a finite number"),
        Rule::Float => write!(f, "a type of floating-point numbers"),
        Rule::OnlyPretraining => write!(f, "no packs but in training on masked tokens"),
    }
}

/// The key of a field of the model.
fn key_of(field: Field) -> &'static str {
    match field {
        Field::MicroBatch => "micro_batch_size",
        Field::SequenceLength => "sequence_length",
        Field::MaxPositionalLength => "max_positional_length",
        Field::MaskTokens => "mask_tokens",
        Field::SequencesPerPack => "max_sequences_per_pack",
        Field::VocabLength => "vocab_length",
        Field::VocabSteps => "embedding_serialization_vocab_steps",
        Field::HiddenSize => "hidden_size",
        Field::FfSize => "ff_size__",
        Field::AttentionHeads => "attention_heads",
        Field::NumLayers => "num_layers",
        Field::Leak => "relu_leak",
        Field::DropoutProbability => "dropout_prob",
        Field::LayerNormEpsilon => "layer_norm_eps",
        Field::Dtype => "popart_dtype",
    }
}

/// The result of reading keys.
pub type Result<T> = std::result::Result<T, KeyError>;

impl TryFrom<Map<String, Value>> for RunConfig {
    type Error = KeyError;

    fn try_from(keys: Map<String, Value>) -> Result<Self> {
        Self::from_keys(&keys)
    }
}

impl From<RunConfig> for Map<String, Value> {
    fn from(config: RunConfig) -> Self {
        config.to_keys()
    }
}

impl RunConfig {
    /// Reads the keys of a run; what isn't given is as in the published application.
    ///
    /// # Errors
    ///
    /// A key that isn't one of [`KEYS`] and no later name of one; a value out of range; a choice that
    /// is not supported.
    pub fn from_keys(keys: &Map<String, Value>) -> Result<Self> {
        let mut unified = synonyms::unified(keys)?;
        synonyms::set_mode(&mut unified);
        let keys = &unified;
        if let Some(key) = keys.keys().find(|key| !is_key(key)) {
            return Err(KeyError::Unknown { key: key.clone() });
        }
        let read = Reader { keys };
        let batch = batch(keys)?;
        let task = task(&read)?;
        if task.mode() == Mode::Inference && batch.accumulation > 1 {
            return Err(KeyError::AccumulationInInference {
                factor: batch.accumulation,
                batch: batch.global / batch.accumulation,
            });
        }
        let model = model(&read, task)?;
        if model.inference_loss && task == Task::Squad(Mode::Inference) {
            return Err(KeyError::Perplexity);
        }
        let release = release(&read)?;
        let placement = placement(&read, &model, task, release)?;
        let optimizer = optimizer(&read)?;
        if task.trains()
            && optimizer.kind == OptimizerKind::Sgd
            && optimizer.moments != MomentTypes::FLOAT
        {
            return Err(match optimizer.moments == MomentTypes::HALF {
                true => KeyError::NoMomentsInHalf,
                false => KeyError::NoMoments,
            });
        }
        let sequences_per_pack = sequences_per_pack(&read, &model)?;
        let config = Self {
            release,
            task,
            model,
            placement,
            batching: Batching {
                accumulation: read.narrow("gradient_accumulation_factor", batch.accumulation)?,
                replicas: read.count("replication_factor", 1)?,
                batches_per_step: read.count("batches_per_step", 1)?,
            },
            optimizer,
            state: OptimizerState {
                sharding: match read.switch("replicated_tensor_sharding", false)? {
                    true => Sharding::On,
                    false => Sharding::Off,
                },
                memory: match read.switch("optimizer_state_offchip", false)? {
                    true => StateMemory::OffChip,
                    false => StateMemory::OnChip,
                },
            },
            learning_rate: learning_rate(&read)?,
            session: session(&read, task, release)?,
            sequences_per_pack,
        };
        let Batching {
            accumulation,
            replicas,
            batches_per_step,
        } = config.batching;
        if u64::from(accumulation) * u64::from(batches_per_step) > MICRO_BATCHES_MAX {
            return Err(KeyError::TooManyMicroBatches {
                accumulation,
                batches_per_step,
            });
        }
        let timed = config.is_inference() && config.session.inference_io != InferenceIo::Ordinary;
        if timed && replicas > 1 && release >= Release::V2_2 {
            return Err(KeyError::TimingsOfReplicas);
        }
        if let Some(conflict) = config.clipping_conflict() {
            return Err(KeyError::Clipping(conflict));
        }
        ipus_requested(config.ipus_per_replica(), replicas)
            .map_err(|_| read.out_of_range("replication_factor", ValueForm::FewerIpus))?;
        Ok(config)
    }

    /// What keeps the gradients from being clipped as asked.
    fn clipping_conflict(&self) -> Option<ClippingConflict> {
        if self.is_inference() || self.optimizer.clip_norm.is_none() {
            None
        } else if self.optimizer.kind == OptimizerKind::Sgd {
            Some(ClippingConflict::Sgd)
        } else if self.is_pipelined() && self.batching.accumulation == 1 {
            Some(ClippingConflict::UpdatesInStages)
        } else {
            None
        }
    }

    /// The run as keys, those left out that beside the others change nothing.
    #[must_use]
    pub fn to_keys(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let mut set = |key: &'static str, value: Value| {
            out.insert(key.into(), value);
        };
        set("release", json!(self.release.name()));
        let (model, placement) = (&self.model, &self.placement);
        set("micro_batch_size", json!(model.micro_batch));
        set("sequence_length", json!(model.sequence_length));
        set("max_positional_length", json!(model.max_positional_length));
        set("mask_tokens", json!(model.mask_tokens));
        set("use_packed_sequence_format", json!(self.is_packed()));
        if let SequenceFormat::Packed { sequences } = model.sequence_format {
            set("max_sequences_per_pack", json!(sequences));
            if let Some(mean) = self.sequences_per_pack {
                set("sequences_per_pack", json!(mean));
            }
        }
        set("vocab_length", json!(model.vocab_length));
        set("hidden_size", json!(model.hidden_size));
        let usual = model.hidden_size.checked_mul(4) == Some(model.ff_size);
        set(
            "ff_size__",
            if usual {
                Value::Null
            } else {
                json!(model.ff_size)
            },
        );
        set("attention_heads", json!(model.attention_heads));
        set("attention_bias", json!(model.attention_bias));
        set("inference", json!(self.is_inference()));
        set("num_layers", json!(model.num_layers));
        match &placement.encoder {
            EncoderPlacement::Layers(layers) => {
                set("encoder_start_ipu", json!(layers.encoder_start_ipu));
                set("layers_per_ipu", json!(layers.layers_per_ipu));
            }
            EncoderPlacement::Halves(halves) => {
                let group = |group: &StageHalves| {
                    json!([
                        group.ipu,
                        [group.halves.attention, group.halves.feed_forward]
                    ])
                };
                let groups: Vec<Value> = halves.groups.iter().map(group).collect();
                set("att_ffn_placement", Value::Array(groups));
                let start = halves.encoder_start_pipeline_stage;
                set("encoder_start_pipeline_stage", json!(start));
            }
        }
        let of_poplibs = match &placement.memory {
            EncoderMemory::PoplibsDefault => true,
            EncoderMemory::PerIpu(shares) => {
                set("available_memory_proportion", json!(shares));
                false
            }
        };
        set("use_default_available_memory_proportion", json!(of_poplibs));
        if self.is_pipelined() {
            let every_layer = match placement.recomputation {
                Recomputation::FromEveryLayer | Recomputation::FromEveryBlock => true,
                Recomputation::Off | Recomputation::FromStageInput => false,
            };
            set("recompute_checkpoint_every_layer", json!(every_layer));
        }
        set("no_dropout", json!(model.dropout == Dropout::Off));
        if model.dropout != Dropout::Off {
            let hidden_only = model.dropout == Dropout::Hidden;
            set("no_attn_dropout", json!(hidden_only));
        }
        let identity = self.session.softmax_dropout_gradient == SoftmaxDropoutGradient::Identity;
        set("disable_attention_dropout_bwd", json!(identity));
        set("dropout_prob", json!(model.dropout_probability));
        set("layer_norm_eps", json!(model.layer_norm_epsilon));
        set("task", json!(task_name(self.task)));
        set("split_linear_layers", json!(model.split_linear_layers));
        set("split_qkv", json!(model.split_qkv));
        set("activation_type", json!(activation_name(model.activation)));
        if let Activation::LeakyRelu { leak } = model.activation {
            set("relu_leak", json!(leak));
        }
        set("popart_dtype", word(&DTYPES, model.dtype));
        set(
            "embedding_serialization_vocab_steps",
            json!(model.vocab_steps),
        );
        set("update_embedding_dict", json!(model.update_embedding_dict));
        set("no_cls_layer", json!(!model.cls_layer));
        set("projection_bias", json!(model.projection_bias));
        set("reduce_nsp_overhead", json!(!model.next_sentence));
        set("execution_mode", word(&EXECUTIONS, Ok(placement.execution)));
        set("squad_single_output", json!(model.squad_single_output));
        let wraps = placement.squad_head == SquadHead::FirstIpu;
        set("squad_wrap_final_layer", json!(wraps));
        set("inference_lm_perplexity", json!(model.inference_loss));
        let batching = &self.batching;
        set("global_batch_size", json!(self.global_batch_size()));
        set("gradient_accumulation_factor", json!(batching.accumulation));
        set("replication_factor", json!(batching.replicas));
        set("batches_per_step", json!(batching.batches_per_step));
        set(
            "gradient_reduction_type",
            word(&REDUCTIONS, Ok(model.reduction)),
        );
        set("enable_half_partials", json!(model.half_partials));
        set(
            "disable_fully_connected_pass",
            json!(!model.fully_connected_pass),
        );
        self.add_update(&mut out);
        self.add_session(&mut out);
        out
    }

    fn add_update(&self, out: &mut Map<String, Value>) {
        let mut set = |key: &'static str, value: Value| {
            out.insert(key.into(), value);
        };
        let update = &self.optimizer;
        set("optimizer", word(&OPTIMIZERS, update.kind));
        set("learning_rate", json!(self.learning_rate.rate));
        set("loss_scaling", json!(update.loss_scaling));
        set("weight_decay", json!(update.weight_decay));
        set("momentum", json!(update.momentum));
        set("dampening", json!(update.dampening));
        set("velocity_scaling", json!(update.velocity_scaling));
        set("beta1", json!(update.beta1));
        set("beta2", json!(update.beta2));
        set("max_weight_norm", json!(update.max_weight_norm));
        set("gradient_clipping_norm", json!(update.clip_norm));
        let half = update.moments == MomentTypes::HALF_FIRST;
        set("use_half_optimizer_state", json!(half));
        let dtype = match update.moments == MomentTypes::HALF {
            true => DType::F16,
            false => DType::F32,
        };
        set("lamb_accl_dtype", word(&MOMENT_DTYPES, dtype));
        set("squad_lr_scale", json!(update.squad_lr_scale));
        let scaled = update.stage_scaling == StageScaling::On;
        set("continuous_pipeline_optimizer_scaling", json!(scaled));
        set(
            "optimizer_state_offchip",
            json!(self.state.memory == StateMemory::OffChip),
        );
        set(
            "replicated_tensor_sharding",
            json!(self.state.sharding == Sharding::On),
        );
        let schedule = &self.learning_rate;
        set(
            "learning_rate_function",
            word(&RATE_FUNCTIONS, schedule.function),
        );
        set("lr_warmup_start", json!(schedule.warmup_start));
        set("lr_warmup_steps", json!(schedule.warmup_steps));
        set(
            "lr_steps_per_warmup_update",
            json!(schedule.steps_per_warmup_update),
        );
        set(
            "lr_steps_per_decay_update",
            json!(schedule.steps_per_decay_update),
        );
        set("lr_schedule_by_epoch", pairs(&schedule.by_epoch));
        set("lr_schedule_by_step", pairs(&schedule.by_step));
    }

    fn add_session(&self, out: &mut Map<String, Value>) {
        let mut set = |key: &'static str, value: Value| {
            out.insert(key.into(), value);
        };
        let session = &self.session;
        let [low, minimum] = match session.inference_io {
            InferenceIo::Ordinary => [false, false],
            InferenceIo::LowLatency => [true, false],
            InferenceIo::MinimumLatency => [true, true],
        };
        set("low_latency_inference", json!(low));
        set("minimum_latency_inference", json!(minimum));
        set(
            "synthetic_data",
            json!(session.host_streams == HostStreams::Absent),
        );
        match session.host_streams {
            HostStreams::WhereNeeded => set("group_host_syncs", json!(false)),
            HostStreams::Grouped => set("group_host_syncs", json!(true)),
            // Nothing is streamed.
            HostStreams::Absent => {}
        }
        set("buffering_depth", json!(session.buffering_depth));
        set("no_outlining", json!(session.outlining == Outlining::Off));
        set(
            "merge_collectives",
            json!(session.collective_merging == CollectiveMerging::On),
        );
    }
}

fn task_name(task: Task) -> &'static str {
    match task {
        Task::Pretraining(_) => "PRETRAINING",
        Task::Squad(_) => "SQUAD",
    }
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "Gelu",
        Activation::GeluErf => "GeluErf",
        Activation::SigmoidGelu => "SGelu",
        Activation::LeakyRelu { .. } => "LRelu",
        Activation::Relu => "Relu",
    }
}

/// The word for a meaning; none for what no word says.
fn word<T: PartialEq>(choices: &[(&'static str, T)], meaning: T) -> Value {
    let found = choices.iter().find(|(_, known)| *known == meaning);
    found.map_or(Value::Null, |(word, _)| json!(word))
}

fn pairs(pairs: &[(u64, f64)]) -> Value {
    if pairs.is_empty() {
        return Value::Null;
    }
    let pairs = pairs.iter().map(|(at, rate)| (at.to_string(), json!(rate)));
    Value::Object(pairs.collect())
}

/// The counts of a global batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Micro-batches of one replica before a weight update.
    pub accumulation: u64,
    /// Sequences behind one weight update, of all replicas.
    pub global: u64,
}

/// The accumulation factor and the global batch size, the one derived from the other: the factor is
/// one if neither is given.
///
/// # Errors
///
/// Counts that aren't, or that contradict each other.
pub fn batch(keys: &Map<String, Value>) -> Result<Batch> {
    let count = |key: &'static str| -> Result<Option<u64>> {
        let Some(value) = keys.get(key).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let number = value.as_i64().and_then(|number| u32::try_from(number).ok());
        match number {
            Some(number) if number > 0 => Ok(Some(u64::from(number))),
            _ => Err(KeyError::OutOfRange {
                key,
                expected: ValueForm::AtLeast(1),
                found: value.clone(),
            }),
        }
    };
    let micro = count("micro_batch_size")?.unwrap_or(1);
    let replicas = count("replication_factor")?.unwrap_or(1);
    let factor = count("gradient_accumulation_factor")?;
    let (accumulation, global) = match (global_batch_size(keys)?, factor) {
        (None, factor) => {
            let accumulation = factor.unwrap_or(1);
            // 2^96 at most: counts are below 2^32. Refuse what u64 cannot hold.
            let global = micro
                .checked_mul(replicas)
                .and_then(|batch| batch.checked_mul(accumulation))
                .ok_or_else(|| KeyError::OutOfRange {
                    key: "replication_factor",
                    expected: ValueForm::SmallerGlobalBatch,
                    found: json!(replicas),
                })?;
            (accumulation, global)
        }
        (Some(global), None) => {
            if !global.is_multiple_of(micro * replicas) {
                return Err(KeyError::BatchIndivisible {
                    global,
                    micro,
                    replicas,
                });
            }
            (global / (micro * replicas), global)
        }
        (Some(global), Some(accumulation)) => {
            if u128::from(micro * replicas) * u128::from(accumulation) != u128::from(global) {
                return Err(KeyError::BatchInconsistent {
                    global,
                    micro,
                    accumulation,
                    replicas,
                });
            }
            (accumulation, global)
        }
    };
    Ok(Batch {
        accumulation,
        global,
    })
}

/// The global batch size as given: unlike other counts, one that was derived may be large.
fn global_batch_size(keys: &Map<String, Value>) -> Result<Option<u64>> {
    let key = "global_batch_size";
    let Some(value) = keys.get(key).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    match value.as_u64() {
        Some(number) if number > 0 => Ok(Some(number)),
        _ => Err(KeyError::OutOfRange {
            key,
            expected: ValueForm::AtLeast(1),
            found: value.clone(),
        }),
    }
}

fn release(read: &Reader<'_>) -> Result<Release> {
    let name = read.text("release", Release::default().name())?;
    let release = name.parse();
    release.map_err(|_| read.out_of_range("release", ValueForm::Release))
}

fn task(read: &Reader<'_>) -> Result<Task> {
    let mode = match read.switch("inference", false)? {
        true => Mode::Inference,
        false => Mode::Training,
    };
    let task: TaskOf = read.supported("task", &TASKS)?;
    Ok(task(mode))
}

/// How rows hold sequences. The number of a pack's sequences is idle without packs.
fn sequence_format(read: &Reader<'_>, task: Task) -> Result<SequenceFormat> {
    let sequences = read.count("max_sequences_per_pack", 1)?;
    if !read.switch("use_packed_sequence_format", false)? {
        return Ok(SequenceFormat::Single);
    }
    match task {
        Task::Squad(_) => Err(KeyError::PackedTask),
        Task::Pretraining(Mode::Inference) => Err(KeyError::PackedInference),
        Task::Pretraining(Mode::Training) => Ok(SequenceFormat::Packed { sequences }),
    }
}

/// Sequences of a pack on average, if they are given and there are packs.
fn sequences_per_pack(read: &Reader<'_>, model: &BertConfig) -> Result<Option<f64>> {
    let key = "sequences_per_pack";
    let Some(mean) = read.maybe_float(key)? else {
        return Ok(None);
    };
    let SequenceFormat::Packed { sequences } = model.sequence_format else {
        return Ok(None);
    };
    match mean > 0.0 && mean <= f64::from(sequences) {
        true => Ok(Some(mean)),
        false => Err(read.out_of_range(key, ValueForm::MeanUpTo(sequences))),
    }
}

fn model(read: &Reader<'_>, task: Task) -> Result<BertConfig> {
    let usual = RunConfig::default().model;
    let hidden_size = read.count("hidden_size", usual.hidden_size)?;
    let model = BertConfig {
        micro_batch: read.count("micro_batch_size", usual.micro_batch)?,
        num_layers: read.count("num_layers", usual.num_layers)?,
        hidden_size,
        ff_size: match read.given("ff_size__") {
            Some(_) => read.count("ff_size__", 1)?,
            None => hidden_size
                .checked_mul(4)
                .ok_or_else(|| read.out_of_range("hidden_size", ValueForm::SmallerWidth))?,
        },
        attention_heads: read.count("attention_heads", usual.attention_heads)?,
        sequence_length: read.count("sequence_length", usual.sequence_length)?,
        sequence_format: sequence_format(read, task)?,
        max_positional_length: read.count("max_positional_length", usual.max_positional_length)?,
        mask_tokens: read.count("mask_tokens", usual.mask_tokens)?,
        vocab_length: read.count("vocab_length", usual.vocab_length)?,
        vocab_steps: read.count("embedding_serialization_vocab_steps", usual.vocab_steps)?,
        layer_norm_epsilon: read.float("layer_norm_eps", usual.layer_norm_epsilon)?,
        dtype: read.choice("popart_dtype", &DTYPES)?,
        half_partials: read.switch("enable_half_partials", false)?,
        fully_connected_pass: !read.switch("disable_fully_connected_pass", false)?,
        reduction: read.supported("gradient_reduction_type", &REDUCTIONS)?,
        split_qkv: read.switch("split_qkv", false)?,
        attention_bias: read.switch("attention_bias", false)?,
        activation: activation(read)?,
        cls_layer: !read.switch("no_cls_layer", false)?,
        next_sentence: !read.switch("reduce_nsp_overhead", false)?,
        projection_bias: read.switch("projection_bias", false)?,
        update_embedding_dict: read.switch("update_embedding_dict", true)?,
        squad_single_output: read.switch("squad_single_output", true)?,
        inference_loss: read.switch("inference_lm_perplexity", false)?,
        split_linear_layers: read.switch("split_linear_layers", false)?,
        dropout: match (
            read.switch("no_dropout", false)?,
            read.switch("no_attn_dropout", false)?,
        ) {
            (true, _) => Dropout::Off,
            (false, true) => Dropout::Hidden,
            (false, false) => Dropout::HiddenAndAttention,
        },
        dropout_probability: read.float("dropout_prob", usual.dropout_probability)?,
    };
    model.validate(task).map_err(|error| {
        let key = key_of(error.field);
        read.out_of_range(key, ValueForm::Rule(error.rule))
    })?;
    Ok(model)
}

/// The application knows three words, and takes any other for Relu.
fn activation(read: &Reader<'_>) -> Result<Activation> {
    Ok(match read.text("activation_type", "Gelu")? {
        "Gelu" => Activation::Gelu,
        "SGelu" => Activation::SigmoidGelu,
        "LRelu" => Activation::LeakyRelu {
            leak: read.float("relu_leak", 0.1)?,
        },
        _ => Activation::Relu,
    })
}

fn placement(
    read: &Reader<'_>,
    model: &BertConfig,
    task: Task,
    release: Release,
) -> Result<PlacementOptions> {
    let execution = read.supported("execution_mode", &EXECUTIONS)?;
    let (encoder, ipus) = encoder(read, model.num_layers)?;
    Ok(PlacementOptions {
        memory: match read.switch("use_default_available_memory_proportion", false)? {
            true => EncoderMemory::PoplibsDefault,
            false => {
                EncoderMemory::PerIpu(read.shares("available_memory_proportion", ipus, &encoder)?)
            }
        },
        squad_head: squad_head(read, task, release)?,
        recomputation: match (
            execution,
            read.switch("recompute_checkpoint_every_layer", true)?,
        ) {
            (Execution::Sequential, _) => Recomputation::Off,
            (Execution::Pipelined, false) => Recomputation::FromStageInput,
            (Execution::Pipelined, true) => match encoder {
                EncoderPlacement::Layers(_) => Recomputation::FromEveryLayer,
                EncoderPlacement::Halves(_) => Recomputation::FromEveryBlock,
            },
        },
        execution,
        encoder,
    })
}

/// Where the encoder runs, and how many shares of memory a list of them has.
fn encoder(read: &Reader<'_>, num_layers: u32) -> Result<(EncoderPlacement, u32)> {
    let given = |keys: [&'static str; 2]| keys.into_iter().find(|key| read.given(key).is_some());
    if let (Some(whole), Some(half)) = (given(LAYER_KEYS), given(HALF_LAYER_KEYS)) {
        return Err(KeyError::TwoPlacements { whole, half });
    }
    if given(HALF_LAYER_KEYS).is_some() {
        let halves = HalvesPerStage {
            encoder_start_pipeline_stage: read.number("encoder_start_pipeline_stage", 1, 0)?,
            groups: read.halves("att_ffn_placement")?,
        };
        let ipus = halves.replica_ipus(num_layers)?;
        return Ok((EncoderPlacement::Halves(halves), ipus));
    }
    let layers = LayersPerIpu {
        encoder_start_ipu: read.number("encoder_start_ipu", 2, 0)?,
        layers_per_ipu: read.counts("layers_per_ipu", vec![2])?,
    };
    let ipus = layers
        .encoder_ipus(num_layers)
        .map_err(|_| read.out_of_range("layers_per_ipu", ValueForm::AllLayers(num_layers)))?;
    layers
        .replica_ipus(num_layers)
        .map_err(|_| read.out_of_range("encoder_start_ipu", ValueForm::FewerIpusOfAReplica))?;
    Ok((EncoderPlacement::Layers(layers), ipus))
}

/// Before v2.1 the mode alone decided where the head for answers is: on the first IPU to train, on the
/// last one to infer.
fn squad_head(read: &Reader<'_>, task: Task, release: Release) -> Result<SquadHead> {
    let wraps = match release {
        Release::Revision96fef3f if matches!(task, Task::Squad(_)) => {
            read.fixed("squad_wrap_final_layer", task.trains(), release)?
        }
        _ => read.switch("squad_wrap_final_layer", true)?,
    };
    Ok(match wraps {
        true => SquadHead::FirstIpu,
        false => SquadHead::LastEncoderIpu,
    })
}

/// Before v2.1 the gradient of attention dropout was an identity in every run on SQuAD.
fn softmax_dropout_gradient(
    read: &Reader<'_>,
    task: Task,
    release: Release,
) -> Result<SoftmaxDropoutGradient> {
    let key = "disable_attention_dropout_bwd";
    let is_identity = match release {
        Release::Revision96fef3f => read.fixed(key, matches!(task, Task::Squad(_)), release)?,
        _ => read.switch(key, false)?,
    };
    Ok(match is_identity {
        true => SoftmaxDropoutGradient::Identity,
        false => SoftmaxDropoutGradient::Exact,
    })
}

fn optimizer(read: &Reader<'_>) -> Result<OptimizerOptions> {
    let usual = RunConfig::default().optimizer;
    Ok(OptimizerOptions {
        kind: read.choice("optimizer", &OPTIMIZERS)?,
        loss_scaling: read.positive("loss_scaling", usual.loss_scaling)?,
        weight_decay: read.float("weight_decay", usual.weight_decay)?,
        momentum: read.float("momentum", usual.momentum)?,
        dampening: read.maybe_float("dampening")?,
        velocity_scaling: read.positive("velocity_scaling", usual.velocity_scaling)?,
        beta1: read.float("beta1", usual.beta1)?,
        beta2: read.float("beta2", usual.beta2)?,
        max_weight_norm: match read.given("max_weight_norm") {
            Some(_) => Some(read.positive("max_weight_norm", 0.0)?),
            None => None,
        },
        clip_norm: match read.given("gradient_clipping_norm") {
            Some(_) => Some(read.positive("gradient_clipping_norm", 0.0)?),
            None => None,
        },
        moments: match (
            read.switch("use_half_optimizer_state", false)?,
            read.choice("lamb_accl_dtype", &MOMENT_DTYPES)? == DType::F16,
        ) {
            (true, true) => return Err(KeyError::TwoMomentTypes),
            (true, false) => MomentTypes::HALF_FIRST,
            (false, true) => MomentTypes::HALF,
            (false, false) => MomentTypes::FLOAT,
        },
        squad_lr_scale: read.float("squad_lr_scale", usual.squad_lr_scale)?,
        stage_scaling: match read.switch("continuous_pipeline_optimizer_scaling", false)? {
            true => StageScaling::On,
            false => StageScaling::Off,
        },
    })
}

fn learning_rate(read: &Reader<'_>) -> Result<LearningRate> {
    let usual = RunConfig::default().learning_rate;
    Ok(LearningRate {
        rate: read.float("learning_rate", usual.rate)?,
        function: read.choice("learning_rate_function", &RATE_FUNCTIONS)?,
        warmup_start: read.float("lr_warmup_start", usual.warmup_start)?,
        warmup_steps: u64::from(read.number("lr_warmup_steps", 0, 0)?),
        steps_per_warmup_update: u64::from(read.count("lr_steps_per_warmup_update", 1)?),
        steps_per_decay_update: u64::from(read.count("lr_steps_per_decay_update", 1)?),
        by_epoch: read.pairs("lr_schedule_by_epoch")?,
        by_step: read.pairs("lr_schedule_by_step")?,
    })
}

fn session(read: &Reader<'_>, task: Task, release: Release) -> Result<Session> {
    let minimum = read.switch("minimum_latency_inference", false)?;
    let low = read.switch("low_latency_inference", false)?;
    let grouped = read.switch("group_host_syncs", false)?;
    Ok(Session {
        inference_io: match (minimum, low) {
            (true, _) => InferenceIo::MinimumLatency,
            (false, true) => InferenceIo::LowLatency,
            (false, false) => InferenceIo::Ordinary,
        },
        host_streams: match (read.switch("synthetic_data", false)?, grouped) {
            (true, _) => HostStreams::Absent,
            (false, true) => HostStreams::Grouped,
            (false, false) => HostStreams::WhereNeeded,
        },
        buffering_depth: read.count("buffering_depth", 3)?,
        outlining: match read.switch("no_outlining", false)? {
            true => Outlining::Off,
            false => Outlining::On,
        },
        softmax_dropout_gradient: softmax_dropout_gradient(read, task, release)?,
        collective_merging: match read.switch("merge_collectives", false)? {
            true => CollectiveMerging::On,
            false => CollectiveMerging::Off,
        },
    })
}

/// Reads typed values.
struct Reader<'a> {
    keys: &'a Map<String, Value>,
}

impl Reader<'_> {
    /// The value of a key, unless it is absent or null.
    fn given(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        key: &'static str,
        usual: T,
        expected: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T> {
        match self.given(key) {
            None => Ok(usual),
            Some(value) => read(value).ok_or_else(|| KeyError::WrongType {
                key,
                expected,
                found: value.clone(),
            }),
        }
    }

    fn switch(&self, key: &'static str, usual: bool) -> Result<bool> {
        self.typed(key, usual, "true or false", Value::as_bool)
    }

    /// A switch that a release has no option for: only what it does there may be said.
    fn fixed(&self, key: &'static str, value: bool, release: Release) -> Result<bool> {
        match self.switch(key, value)? == value {
            true => Ok(value),
            false => Err(KeyError::FixedByRelease {
                key,
                value,
                release,
            }),
        }
    }

    fn text<'b>(&'b self, key: &'static str, usual: &'b str) -> Result<&'b str> {
        match self.given(key) {
            None => Ok(usual),
            Some(value) => value.as_str().ok_or_else(|| KeyError::WrongType {
                key,
                expected: "a text",
                found: value.clone(),
            }),
        }
    }

    /// The meaning of a word; the first of the `choices` if none is given.
    fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Result<T> {
        let word = self.text(key, choices[0].0)?;
        let found = choices.iter().find(|(known, _)| *known == word);
        let found = found.map(|(_, meaning)| *meaning);
        found.ok_or_else(|| KeyError::NoChoice {
            key,
            choices: choices.iter().map(|(word, _)| *word).collect(),
            found: word.to_owned(),
        })
    }

    /// The meaning of a word, some of which nothing here computes.
    fn supported<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&'static str, Supported<T>)],
    ) -> Result<T> {
        self.choice(key, choices)?
            .map_err(|choice| KeyError::NotSupported { key, choice })
    }

    fn float(&self, key: &'static str, usual: f64) -> Result<f64> {
        self.typed(key, usual, "a number", Value::as_f64)
    }

    fn maybe_float(&self, key: &'static str) -> Result<Option<f64>> {
        self.given(key).map(|_| self.float(key, 0.0)).transpose()
    }

    fn positive(&self, key: &'static str, usual: f64) -> Result<f64> {
        let number = self.float(key, usual)?;
        match number > 0.0 {
            true => Ok(number),
            false => Err(self.out_of_range(key, ValueForm::Positive)),
        }
    }

    fn number(&self, key: &'static str, usual: u32, least: u32) -> Result<u32> {
        self.given(key)
            .map_or(Ok(usual), |value| self.whole(key, value, least))
    }

    fn whole(&self, key: &'static str, value: &Value, least: u32) -> Result<u32> {
        let number = value.as_i64().ok_or_else(|| KeyError::WrongType {
            key,
            expected: "a whole number",
            found: value.clone(),
        })?;
        u32::try_from(number)
            .ok()
            .filter(|number| *number >= least)
            .ok_or_else(|| self.out_of_range(key, ValueForm::AtLeast(least)))
    }

    fn count(&self, key: &'static str, usual: u32) -> Result<u32> {
        self.number(key, usual, 1)
    }

    /// A count that may have been derived from others.
    fn narrow(&self, key: &'static str, number: u64) -> Result<u32> {
        u32::try_from(number).map_err(|_| KeyError::OutOfRange {
            key,
            expected: ValueForm::AtLeast(1),
            found: json!(number),
        })
    }

    fn counts(&self, key: &'static str, usual: Vec<u32>) -> Result<Vec<u32>> {
        let Some(value) = self.given(key) else {
            return Ok(usual);
        };
        let wrong = || KeyError::WrongType {
            key,
            expected: "a list of whole numbers",
            found: value.clone(),
        };
        let items = value.as_array().filter(|items| !items.is_empty());
        let items = items.ok_or_else(wrong)?.iter();
        items.map(|item| self.whole(key, item, 1)).collect()
    }

    /// A list of `[ipu, [attention halves, feed-forward halves]]`.
    fn halves(&self, key: &'static str) -> Result<Vec<StageHalves>> {
        let Some(value) = self.given(key) else {
            return Err(KeyError::NoHalfLayers);
        };
        let group = |item: &Value| {
            let count = |item: &Value| u32::try_from(item.as_u64()?).ok();
            let [ipu, halves] = item.as_array()?.as_slice() else {
                return None;
            };
            let [attention, feed_forward] = halves.as_array()?.as_slice() else {
                return None;
            };
            Some(StageHalves {
                ipu: count(ipu)?,
                halves: Halves {
                    attention: count(attention)?,
                    feed_forward: count(feed_forward)?,
                },
            })
        };
        let groups = value.as_array().filter(|items| !items.is_empty());
        let groups: Option<Vec<StageHalves>> = groups.and_then(|g| g.iter().map(group).collect());
        groups.ok_or_else(|| KeyError::WrongType {
            key,
            expected: "a list of [IPU, [attention blocks, feed-forward blocks]]",
            found: value.clone(),
        })
    }

    fn shares(&self, key: &'static str, ipus: u32, encoder: &EncoderPlacement) -> Result<Vec<f64>> {
        let Some(value) = self.given(key) else {
            return Ok(vec![0.152_587_890_6]);
        };
        let wrong = || KeyError::WrongType {
            key,
            expected: "a list of numbers",
            found: value.clone(),
        };
        let items = value.as_array().filter(|items| !items.is_empty());
        let items = items.ok_or_else(wrong)?.iter();
        let list: Vec<f64> = items
            .map(|item| item.as_f64().ok_or_else(wrong))
            .collect::<Result<_>>()?;
        if !list.iter().all(|share| *share > 0.0 && *share <= 1.0) {
            return Err(self.out_of_range(key, ValueForm::Shares));
        }
        if list.len() != 1 && list.len() < ipus as usize {
            let expected = match encoder {
                EncoderPlacement::Layers(_) => ValueForm::ShareForEach(ipus),
                EncoderPlacement::Halves(_) => ValueForm::ShareForEachIpu(ipus),
            };
            return Err(self.out_of_range(key, expected));
        }
        Ok(list)
    }

    fn pairs(&self, key: &'static str) -> Result<Vec<(u64, f64)>> {
        let Some(value) = self.given(key) else {
            return Ok(Vec::new());
        };
        let wrong = || KeyError::WrongType {
            key,
            expected: "an object of whole numbers and rates",
            found: value.clone(),
        };
        let pairs = value.as_object().ok_or_else(wrong)?.iter();
        let mut pairs: Vec<(u64, f64)> = pairs
            .map(|(at, rate)| at.parse().ok().zip(rate.as_f64()).ok_or_else(wrong))
            .collect::<Result<_>>()?;
        pairs.sort_by_key(|(at, _)| *at);
        Ok(pairs)
    }

    fn out_of_range(&self, key: &'static str, expected: ValueForm) -> KeyError {
        KeyError::OutOfRange {
            key,
            expected,
            found: self.keys.get(key).cloned().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: Value) -> Result<RunConfig> {
        RunConfig::from_keys(keys.as_object().expect("an object"))
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(read(json!({})), Ok(RunConfig::default()));
    }

    #[test]
    fn later_names_are_read() {
        let later = json!({"device_iterations": 7, "pipeline": true});
        let first = json!({"batches_per_step": 7, "execution_mode": "PIPELINE"});
        assert_eq!(read(later), read(first));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for keys in [
            json!({}),
            json!({"task": "SQUAD", "inference": true, "encoder_start_ipu": 0,
                   "minimum_latency_inference": true, "activation_type": "LRelu",
                   "squad_wrap_final_layer": false,
                   "relu_leak": 0.3, "use_default_available_memory_proportion": true}),
            json!({"execution_mode": "PIPELINE", "recompute_checkpoint_every_layer": false,
                   "optimizer": "LAMB_NO_BIAS", "max_weight_norm": 3.0, "ff_size__": 640,
                   "use_half_optimizer_state": true, "disable_attention_dropout_bwd": true,
                   "global_batch_size": 48, "micro_batch_size": 4, "replication_factor": 2,
                   "learning_rate_function": "Linear", "lr_schedule_by_step": {"10": 0.5, "9": 1},
                   "no_dropout": true, "synthetic_data": true, "merge_collectives": true,
                   "replicated_tensor_sharding": true, "gradient_reduction_type": "Mean",
                   "release": "v3.0"}),
            json!({"execution_mode": "PIPELINE", "att_ffn_placement": [[1, [2, 1]], [0, [0, 1]]],
                   "gradient_accumulation_factor": 8, "optimizer": "LAMB_NO_BIAS",
                   "available_memory_proportion": [0.2, 0.25], "reduce_nsp_overhead": true,
                   "gradient_clipping_norm": 1.0, "lamb_accl_dtype": "FLOAT16"}),
            json!({"execution_mode": "PIPELINE", "att_ffn_placement": [[0, [2, 2]]],
                   "encoder_start_pipeline_stage": 0, "recompute_checkpoint_every_layer": false}),
            json!({"use_packed_sequence_format": true, "max_sequences_per_pack": 3,
                   "sequences_per_pack": 1.75}),
            json!({"max_sequences_per_pack": 3, "sequences_per_pack": 1.75}),
        ] {
            let config = read(keys).unwrap();
            let written = config.to_keys();
            assert!(written.keys().all(|key| is_key(key)), "{written:?}");
            assert_eq!(RunConfig::from_keys(&written), Ok(config.clone()));
            // Through serde, as in a file.
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<RunConfig>(&text).unwrap(), config);
        }
    }

    /// What was set in code and no keys say is refused: another run would be written than is meant.
    #[test]
    fn what_no_keys_say_is_refused() {
        let check = |change: &dyn Fn(&mut RunConfig), expected: Option<RunPart>| {
            let mut config = RunConfig::default();
            change(&mut config);
            let found = match config.check() {
                Ok(()) => None,
                Err(KeyError::Unwritten { part }) => Some(part),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, expected, "{config:?}");
        };
        check(&|_| (), None);
        check(&|run| run.model.activation = Activation::Relu, None);
        let model = Some(RunPart::Model);
        check(&|run| run.model.activation = Activation::GeluErf, model);
        let placement = Some(RunPart::Placement);
        let recompute = Recomputation::FromStageInput;
        check(&|run| run.placement.recomputation = recompute, placement);
        let optimizer = Some(RunPart::Optimizer);
        check(&|run| run.optimizer.beta1 = f64::NAN, optimizer);
        check(&|run| run.optimizer.momentum = f64::INFINITY, optimizer);
        let rate = Some(RunPart::LearningRate);
        check(&|run| run.learning_rate.rate = f64::NAN, rate);
        check(
            &|run| run.sequences_per_pack = Some(1.5),
            Some(RunPart::Packs),
        );
    }

    #[test]
    fn a_batch_that_no_number_holds_is_refused() {
        let mut config = RunConfig::default();
        config.model.micro_batch = u32::MAX;
        config.batching.accumulation = u32::MAX;
        config.batching.replicas = u32::MAX;
        assert_eq!(config.global_batch_size(), u64::MAX);
        assert!(config.check().is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (keys, expected) in [
            (
                json!({"optimizer": "LAMBB"}),
                "`optimizer`: expected one of SGD, ADAM, ADAM_NO_BIAS, LAMB, LAMB_NO_BIAS, got \
                 \"LAMBB\"",
            ),
            (
                json!({"popart_dtype": "F16"}),
                "`popart_dtype`: expected one of FLOAT16, FLOAT, got \"F16\"",
            ),
            (
                json!({"task": "GLUE"}),
                "`task`: expected one of PRETRAINING, SQUAD, MRPC, got \"GLUE\"",
            ),
            (json!({"task": "MRPC"}), "`task`: MRPC is not supported"),
            (
                json!({"task": "SQUAD", "inference": true, "low_latency_inference": true,
                       "replication_factor": 2}),
                "Number of timings doesn't match items in the batch. Something is wrong.\n  Every \
                 replica has timings of its own: `replication_factor` 1 runs, or inference without \
                 low or minimum latency",
            ),
            (
                json!({"gradient_reduction_type": "RunningMean"}),
                "`gradient_reduction_type`: RunningMean is not supported",
            ),
            (json!({"numlayers": 3}), "unknown key `numlayers`"),
            (
                json!({"num_layers": "3"}),
                "`num_layers`: expected a whole number, got \"3\"",
            ),
            (
                json!({"num_layers": 0}),
                "`num_layers`: expected at least 1 and less than 2^32, got 0",
            ),
            (
                json!({"hidden_size": 100}),
                "`hidden_size`: expected a multiple of 12 heads, got 100",
            ),
            (
                json!({"layers_per_ipu": [1, 0]}),
                "`layers_per_ipu`: expected at least 1 and less than 2^32, got [1,0]",
            ),
            (
                json!({"num_layers": 5, "layers_per_ipu": [2, 2]}),
                "`layers_per_ipu`: expected counts that cover all 5 layers, got [2,2]",
            ),
            (
                json!({"layers_per_ipu": [2], "att_ffn_placement": [[1, [2, 2]]]}),
                "`layers_per_ipu` places whole layers and `att_ffn_placement` half layers: give \
                 one of them, and leave the other out",
            ),
            (
                json!({"encoder_start_ipu": 1, "encoder_start_pipeline_stage": 1}),
                "`encoder_start_ipu` places whole layers and `encoder_start_pipeline_stage` half \
                 layers: give one of them, and leave the other out",
            ),
            (
                json!({"encoder_start_pipeline_stage": 1}),
                "`encoder_start_pipeline_stage` needs `att_ffn_placement`, which has the half \
                 layers",
            ),
            (
                json!({"att_ffn_placement": [[1, 2, 2]]}),
                "`att_ffn_placement`: expected a list of [IPU, [attention blocks, feed-forward \
                 blocks]], got [[1,2,2]]",
            ),
            (
                json!({"att_ffn_placement": [[1, [2, -2]]]}),
                "`att_ffn_placement`: expected a list of [IPU, [attention blocks, feed-forward \
                 blocks]], got [[1,[2,-2]]]",
            ),
            (
                json!({"att_ffn_placement": [[1, [2, 1]]]}),
                "`att_ffn_placement` must have 2 attention and 2 feed-forward blocks, got 2 and 1",
            ),
            (
                json!({"att_ffn_placement": [[1, [2, 1]], [3, [0, 1]]],
                       "available_memory_proportion": [0.2, 0.3, 0.4]}),
                "`available_memory_proportion`: expected one number, or one for each of 4 IPUs, \
                 got [0.2,0.3,0.4]",
            ),
            (
                json!({"lamb_accl_dtype": "FLOAT16"}),
                "`lamb_accl_dtype`: SGD has no moments, expected `optimizer` to be one of ADAM and \
                 LAMB",
            ),
            (
                json!({"lamb_accl_dtype": "FLOAT16", "use_half_optimizer_state": true}),
                "`use_half_optimizer_state` keeps the second moment in FLOAT and \
                 `lamb_accl_dtype` in FLOAT16: give one of them",
            ),
            (
                json!({"gradient_clipping_norm": 1.0}),
                "`gradient_clipping_norm` limits the gradients of ADAM and LAMB: expected one of \
                 these as `optimizer`",
            ),
            (
                json!({"gradient_clipping_norm": 1.0, "optimizer": "ADAM",
                       "execution_mode": "PIPELINE"}),
                "`gradient_clipping_norm` is over the gradients of all stages, of which each \
                 changes its weights at once without accumulation: expected a \
                 `gradient_accumulation_factor` above 1",
            ),
            (
                json!({"gradient_clipping_norm": 0}),
                "`gradient_clipping_norm`: expected a number above 0, got 0",
            ),
            (
                json!({"use_half_optimizer_state": true}),
                "`use_half_optimizer_state`: SGD has no moments, expected `optimizer` to be one of \
                 ADAM and LAMB",
            ),
            (
                json!({"use_packed_sequence_format": true, "task": "SQUAD"}),
                "Packed sequence format currently only supported for pretraining.",
            ),
            (
                json!({"use_packed_sequence_format": true, "inference": true}),
                "packs of sequences are only trained on: leave out `inference` or \
                 `use_packed_sequence_format`",
            ),
            (
                json!({"use_packed_sequence_format": true, "max_sequences_per_pack": 110}),
                "`max_sequences_per_pack`: expected at most 109, got 110",
            ),
            (
                json!({"use_packed_sequence_format": true, "max_sequences_per_pack": 3,
                       "sequences_per_pack": 3.5}),
                "`sequences_per_pack`: expected a number above 0 and up to 3, got 3.5",
            ),
            (json!({"task": "MRPC"}), "`task`: MRPC is not supported"),
            (
                json!({"gradient_reduction_type": "RunningMean"}),
                "`gradient_reduction_type`: RunningMean is not supported",
            ),
            (
                json!({"device_iterations": 2, "batches_per_step": 3}),
                "`batches_per_step` and `device_iterations` are one setting, got 3 and 2",
            ),
            (
                json!({"release": "v4.0"}),
                "`release`: expected one of 96fef3f, v2.1, v2.2, v2.3, v2.4, v2.5, v2.6, v3.0, \
                 v3.1, got \"v4.0\"",
            ),
            (
                json!({"gradient_accumulation_factor": 100_000, "batches_per_step": 100_000}),
                "an accumulation factor of 100000 times 100000 batches a step is more than \
                 1000000000 micro-batches a step",
            ),
            (
                json!({"global_batch_size": 10, "micro_batch_size": 4}),
                "a global batch of 10 sequences is no multiple of 4 x 1",
            ),
        ] {
            assert_eq!(read(keys).unwrap_err().to_string(), expected);
        }
    }

    /// The head wraps in inference, too, from v2.1 on, and gradients are exact there; before, neither
    /// was an option.
    #[test]
    fn the_release_decides_what_squad_does_unless_told() {
        let (first, last) = (SquadHead::FirstIpu, SquadHead::LastEncoderIpu);
        let (exact, identity) = (
            SoftmaxDropoutGradient::Exact,
            SoftmaxDropoutGradient::Identity,
        );
        for (release, inference, head, gradient) in [
            ("96fef3f", false, first, identity),
            ("96fef3f", true, last, identity),
            ("v2.1", false, first, exact),
            ("v2.1", true, first, exact),
            ("v3.1", true, first, exact),
        ] {
            let config = json!({"task": "SQUAD", "release": release, "inference": inference});
            let config = read(config).unwrap();
            assert_eq!(config.placement.squad_head, head, "{release}");
            let found = config.session.softmax_dropout_gradient;
            assert_eq!(found, gradient, "{release}");
        }
        let told = json!({"task": "SQUAD", "squad_wrap_final_layer": false,
            "disable_attention_dropout_bwd": true});
        let told = read(told).unwrap();
        assert_eq!(told.placement.squad_head, last);
        assert_eq!(told.session.softmax_dropout_gradient, identity);
        for (key, task, value, works_as) in [
            ("squad_wrap_final_layer", "SQUAD", false, true),
            ("disable_attention_dropout_bwd", "SQUAD", false, true),
            ("disable_attention_dropout_bwd", "PRETRAINING", true, false),
        ] {
            let mut keys = json!({"task": task, "release": "96fef3f"});
            keys[key] = json!(value);
            let expected =
                format!("`{key}`: release 96fef3f has no such option and works as with {works_as}");
            assert_eq!(read(keys).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn ipus_are_counted_as_the_application_counts_them() {
        for (layers, counts, start, replicas, expected) in [
            (24, json!([3, 7, 7, 7]), 0, 4, (4, 16)),
            (12, json!([6]), 0, 1, (2, 2)),
            (3, json!([3]), 0, 1, (1, 1)),
            (4, json!([1]), 1, 3, (5, 16)),
        ] {
            let config = read(json!({"num_layers": layers, "layers_per_ipu": counts,
                "encoder_start_ipu": start, "replication_factor": replicas}))
            .unwrap();
            let found = (config.ipus_per_replica(), config.ipus_requested());
            assert_eq!(found, expected);
        }
    }
}

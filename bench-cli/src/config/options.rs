//! The resolved configuration as types: what the simulator and the log read.
//!
//! [`BertOptions::from_values`] fills it. Keys that have no effect or are refused stay behind.

mod read;

use std::path::PathBuf;
use std::time::Duration;

use bert_model::config::Activation;
use bert_model::data::Case;
use bert_model::optim::OptimizerKind;
use ipu_sim::numerics::DType;

/// Everything that acts, in groups.
#[derive(Clone, Debug, PartialEq)]
pub struct BertOptions {
    /// The shape of the model.
    pub model: Model,
    /// Where its layers lie.
    pub placement: Placement,
    /// How sequences are grouped.
    pub batching: Batching,
    /// The weight update.
    pub optimizer: Optimizer,
    /// The learning rate over the steps.
    pub learning_rate: LearningRate,
    /// How the session is compiled and run.
    pub session: Session,
    /// Which device runs it.
    pub device: Device,
    /// What it reads.
    pub data: Data,
    /// How long the run is.
    pub run: Run,
    /// What is printed and written.
    pub output: Output,
}

/// What the model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Masked tokens and next-sentence prediction.
    Pretraining,
    /// Question answering.
    Squad,
}

/// The shape of the model. Counts are at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Which heads it has.
    pub task: Task,
    /// Encoder layers.
    pub num_layers: u32,
    /// Width of the encoder, a multiple of the heads.
    pub hidden_size: u32,
    /// Width inside the feed-forward block.
    pub ff_size: u32,
    /// Attention heads.
    pub attention_heads: u32,
    /// Tokens of a sequence.
    pub sequence_length: u32,
    /// Rows of the position table, at least the sequence length.
    pub max_positional_length: u32,
    /// Slots for masked-token targets, fewer than the sequence has tokens; pretraining only.
    pub mask_tokens: u32,
    /// Rows of the word table.
    pub vocab_length: u32,
    /// Epsilon of layer norms.
    pub layer_norm_eps: f64,
    /// Type of weights and activations.
    pub dtype: DType,
    /// Whether query, key and value weights are three tensors.
    pub split_qkv: bool,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Between the products of a feed-forward block.
    pub activation: Activation,
    /// Whether a dense layer stands before the masked-token projection.
    pub cls_layer: bool,
    /// Whether the masked-token projection has a bias.
    pub projection_bias: bool,
    /// Whether looking words up trains the word table.
    pub update_embedding_dict: bool,
    /// Whether SQuAD inference returns start and end as one tensor.
    pub squad_single_output: bool,
    /// Whether pretraining inference also computes the loss on masked tokens.
    pub inference_lm_perplexity: bool,
    /// Whether the wide products of a layer are done in square pieces.
    pub split_linear_layers: bool,
    /// Pieces of the word table along the vocabulary.
    pub embedding_serialization_vocab_steps: u32,
    /// Whether embedding, attention output and feed-forward have dropout (in training).
    pub dropout: bool,
    /// Whether attention probabilities have dropout (in training).
    pub attention_dropout: bool,
    /// Probability of dropping a value, in `[0, 1)`.
    pub dropout_prob: f64,
}

/// How the layers are spread over IPUs and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionMode {
    /// One micro batch at a time through all IPUs.
    Default,
    /// Micro batches in a pipeline.
    Pipeline,
}

/// Where the layers lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Whether IPUs work as a pipeline.
    pub execution_mode: ExecutionMode,
    /// IPU of the first encoder layer.
    pub encoder_start_ipu: u32,
    /// Encoder layers on an IPU, or on each in turn; covers all layers.
    pub layers_per_ipu: Vec<u32>,
    /// Whether recomputation keeps the output of each layer.
    pub recompute_checkpoint_every_layer: bool,
    /// Part of tile memory for encoder matmuls: one, or one for each encoder IPU.
    /// `None` means the library's own value.
    pub available_memory_proportion: Option<Vec<f64>>,
    /// IPUs of one replica.
    pub ipus_per_replica: u32,
    /// IPUs that the run asks the system for: those of all replicas, up to a power of two.
    pub ipus_requested: u32,
}

/// How sequences are grouped. Counts are at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Sequences in one pass of one replica.
    pub micro_batch_size: u32,
    /// Passes of one replica before a weight update.
    pub gradient_accumulation_factor: u32,
    /// Replicas.
    pub replication_factor: u32,
    /// Weight updates (in inference, passes) in one step of the host.
    pub batches_per_step: u32,
}

impl Batching {
    /// Sequences behind one weight update.
    #[must_use]
    pub fn global_batch_size(&self) -> u64 {
        u64::from(self.micro_batch_size)
            * u64::from(self.gradient_accumulation_factor)
            * u64::from(self.replication_factor)
    }

    /// Sequences in one step of the host.
    #[must_use]
    pub fn sequences_per_step(&self) -> u64 {
        self.global_batch_size() * u64::from(self.batches_per_step)
    }
}

/// Whether losses and gradients are summed or averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Summed.
    Sum,
    /// Averaged.
    Mean,
}

/// The weight update.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    /// Its family.
    pub kind: OptimizerKind,
    /// Factor on the loss gradient.
    pub loss_scaling: f64,
    /// Decay of weights that are no biases or norms.
    pub weight_decay: f64,
    /// SGD: momentum.
    pub momentum: f64,
    /// SGD: dampening; the momentum unless given.
    pub dampening: f64,
    /// SGD: factor on the velocity.
    pub velocity_scaling: f64,
    /// Adam, LAMB: decay of the first moment.
    pub beta1: f64,
    /// Adam, LAMB: decay of the second moment.
    pub beta2: f64,
    /// LAMB: limit of the weight norm; `None` for the largest f16.
    pub max_weight_norm: Option<f64>,
    /// How losses and accumulated gradients are reduced.
    pub gradient_reduction: Reduction,
    /// Factor on the learning rate of the SQuAD head.
    pub squad_lr_scale: f64,
    /// Whether rate and momentum depend on the pipeline stage.
    pub stage_scaling: bool,
    /// Whether its state lies in streaming memory.
    pub state_offchip: bool,
    /// Whether its state is sharded over the replicas.
    pub replicated_tensor_sharding: bool,
}

/// Which schedule gives the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateFunction {
    /// The rates of the given pairs.
    Scheduled,
    /// A straight rise and a straight fall.
    Linear,
}

/// The learning rate over the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRate {
    /// Which schedule.
    pub function: RateFunction,
    /// The constant rate, or the peak of a linear schedule.
    pub rate: f64,
    /// Linear: the first rate.
    pub warmup_start: f64,
    /// Linear: steps of the rise.
    pub warmup_steps: u64,
    /// Linear: steps between new rates in the rise, at least one.
    pub steps_per_warmup_update: u64,
    /// Linear: steps between new rates in the fall, at least one.
    pub steps_per_decay_update: u64,
    /// Scheduled: rates by epoch, in rising order.
    pub by_epoch: Vec<(u64, f64)>,
    /// Scheduled: rates by step, in rising order.
    pub by_step: Vec<(u64, f64)>,
}

impl LearningRate {
    /// Whether it may change between steps.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        match self.function {
            RateFunction::Linear => true,
            RateFunction::Scheduled => !self.by_epoch.is_empty() || !self.by_step.is_empty(),
        }
    }
}

/// How inference exchanges data with the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InferenceIo {
    /// Arrays for a whole step.
    Ordinary,
    /// A callback for each micro batch, with inputs fetched ahead.
    LowLatency,
    /// A callback for each micro batch, nothing fetched ahead.
    MinimumLatency,
}

/// When the device talks to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostStreams {
    /// Where its data is needed.
    WhereNeeded,
    /// For all of a micro batch together.
    Grouped,
    /// Never: data is made on the device.
    Absent,
}

/// How the session is compiled and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whether only the forward pass runs.
    pub inference: bool,
    /// How inference exchanges data with the host.
    pub inference_io: InferenceIo,
    /// Whether a product and its gradients are planned together.
    pub fully_connected_pass: bool,
    /// Whether matmuls keep f16 partial sums.
    pub half_partials: bool,
    /// When the device talks to the host.
    pub host_streams: HostStreams,
    /// Whether equal layers on an IPU keep code of their own.
    pub no_outlining: bool,
    /// Whether collectives that are alike are merged: `--merge-collectives`, which no
    /// configuration of the original has.
    pub merge_collectives: bool,
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

/// What the run reads, unless its samples are made.
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
    /// What becomes of their capital letters.
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
    /// Whether synthetic data was asked for.
    pub synthetic_data: bool,
    /// What synthetic data is said to be; no value of it is computed with.
    pub synthetic_values: SyntheticValues,
    /// Whether to train; inference takes no notice.
    pub training: bool,
    /// Whether to validate after training.
    pub validation: bool,
    /// Whether saved models were wanted; they are not written.
    pub model_save: bool,
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

/// What is printed and written.
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
}

//! One run: everything that shapes its program, its time and its memory.
//!
//! [`RunConfig`] is plain data of types; nothing else in this crate says what a run is. Its written
//! form is that of the published configuration files: an object of keys ([`keys`]), of which those
//! that change nothing here (folders, seeds, files) are left out.

pub mod keys;
pub mod synonyms;
pub mod words;

use bert_model::config::{BertConfig, Dropout, Mode, SequenceFormat, Task};
use bert_model::optim::{OptimizerKind, OptimizerOptions, StageScaling};
use bert_model::placement::{
    EncoderMemory, EncoderPlacement, Execution, LayersPerIpu, PlacementOptions, Recomputation,
    SquadHead, ipus_requested,
};
use popart_graph::lower::HostStreams;
use popart_graph::passes::optimizer::rules::MomentTypes;
use popart_graph::passes::{
    CollectiveMerging, OptimizerState, Outlining, Sharding, SoftmaxDropoutGradient, StateMemory,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use keys::{KeyError, RunPart};

use crate::release::Release;

/// A run of BERT. [`Default`] is what the published application runs if nothing is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct RunConfig {
    /// Release of the published application that it follows.
    pub release: Release,
    /// Task of the model, and whether the model learns it or only runs it.
    pub task: Task,
    /// Which BERT, and the samples of a micro-batch.
    pub model: BertConfig,
    /// Where its layers lie.
    pub placement: PlacementOptions,
    /// How micro-batches are grouped.
    pub batching: Batching,
    /// The weight update.
    pub optimizer: OptimizerOptions,
    /// Where the state of the optimiser lives.
    pub state: OptimizerState,
    /// The learning rate over the steps.
    pub learning_rate: LearningRate,
    /// How the program is compiled, and talks to its host.
    pub session: Session,
    /// Sequences of a pack of the data on average, if rows are packs and their data says so; else
    /// packs count as generated ones do ([`RunConfig::sequences_per_sample`]).
    pub sequences_per_pack: Option<f64>,
}

/// How micro-batches are grouped. Counts are at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Micro-batches of one replica before a weight update; one in inference.
    pub accumulation: u32,
    /// Copies of the model that work on data of their own.
    pub replicas: u32,
    /// Weight updates (in inference, micro-batches) in one step of the host.
    pub batches_per_step: u32,
}

/// Which schedule gives the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateFunction {
    /// The rates of the given pairs.
    Scheduled,
    /// A straight rise and a straight fall.
    Linear,
}

/// Learning rate over the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRate {
    /// The constant rate, or the peak of a linear schedule.
    pub rate: f64,
    /// Which schedule.
    pub function: RateFunction,
    /// First rate of a linear schedule.
    pub warmup_start: f64,
    /// Steps of the rise of a linear schedule.
    pub warmup_steps: u64,
    /// Steps between new rates in the rise, at least one.
    pub steps_per_warmup_update: u64,
    /// Steps between new rates in the fall, at least one.
    pub steps_per_decay_update: u64,
    /// Rates by epoch, in rising order.
    pub by_epoch: Vec<(u64, f64)>,
    /// Rates by step, in rising order.
    pub by_step: Vec<(u64, f64)>,
}

impl LearningRate {
    /// Whether the rate may change between steps.
    #[must_use]
    pub fn changes(&self) -> bool {
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
    /// A callback for each micro-batch, with inputs fetched ahead.
    LowLatency,
    /// A callback for each micro-batch, nothing fetched ahead.
    MinimumLatency,
}

/// How the program is compiled, and talks to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// How inference exchanges data with the host.
    pub inference_io: InferenceIo,
    /// When the device talks to the host.
    pub host_streams: HostStreams,
    /// Batches that the host has ready before the device asks, at least one; read from v2.5 on.
    pub buffering_depth: u32,
    /// Whether equal layers on an IPU share their code.
    pub outlining: Outlining,
    /// Gradient of attention dropout, in training.
    pub softmax_dropout_gradient: SoftmaxDropoutGradient,
    /// Whether collectives that are alike are one; the application asks PopART for none.
    pub collective_merging: CollectiveMerging,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            release: Release::default(),
            task: Task::Pretraining(Mode::Training),
            model: BertConfig {
                num_layers: 2,
                ..BertConfig::base()
            },
            placement: PlacementOptions {
                encoder: EncoderPlacement::Layers(LayersPerIpu {
                    encoder_start_ipu: 2,
                    layers_per_ipu: vec![2],
                }),
                memory: EncoderMemory::PerIpu(vec![0.152_587_890_6]),
                squad_head: SquadHead::FirstIpu,
                recomputation: Recomputation::Off,
                execution: Execution::Sequential,
            },
            batching: Batching {
                accumulation: 1,
                replicas: 1,
                batches_per_step: 1,
            },
            optimizer: OptimizerOptions {
                kind: OptimizerKind::Sgd,
                loss_scaling: 4.0,
                weight_decay: 0.0,
                momentum: 0.984_375,
                dampening: None,
                velocity_scaling: 1.0,
                beta1: 0.9,
                beta2: 0.999,
                moments: MomentTypes::FLOAT,
                max_weight_norm: None,
                clip_norm: None,
                squad_lr_scale: 1.0,
                stage_scaling: StageScaling::Off,
            },
            state: OptimizerState {
                sharding: Sharding::Off,
                memory: StateMemory::OnChip,
            },
            learning_rate: LearningRate {
                rate: 8e-4,
                function: RateFunction::Scheduled,
                warmup_start: 1e-7,
                warmup_steps: 0,
                steps_per_warmup_update: 1,
                steps_per_decay_update: 1,
                by_epoch: Vec::new(),
                by_step: Vec::new(),
            },
            session: Session {
                inference_io: InferenceIo::Ordinary,
                host_streams: HostStreams::WhereNeeded,
                buffering_depth: 3,
                outlining: Outlining::On,
                softmax_dropout_gradient: SoftmaxDropoutGradient::Exact,
                collective_merging: CollectiveMerging::Off,
            },
            sequences_per_pack: None,
        }
    }
}

impl RunConfig {
    /// Checks what [`RunConfig::from_keys`] checks, of a run whose fields were set in code.
    ///
    /// # Errors
    ///
    /// The first rule that is broken; [`KeyError::Unwritten`] for what no keys say.
    pub fn check(&self) -> Result<(), KeyError> {
        let read = Self::from_keys(&self.to_keys())?;
        let parts = [
            (RunPart::Model, read.model == self.model),
            (RunPart::Placement, read.placement == self.placement),
            (
                RunPart::Optimizer,
                read.optimizer == self.optimizer && read.state == self.state,
            ),
            (
                RunPart::LearningRate,
                read.learning_rate == self.learning_rate,
            ),
            (RunPart::Session, read.session == self.session),
            (
                RunPart::Packs,
                read.sequences_per_pack == self.sequences_per_pack,
            ),
        ];
        match parts.into_iter().find(|(_, is_same)| !is_same) {
            Some((part, _)) => Err(KeyError::Unwritten { part }),
            None => Ok(()),
        }
    }

    /// Whether only the forward pass runs.
    #[must_use]
    pub fn is_inference(&self) -> bool {
        self.task.mode() == Mode::Inference
    }

    /// Whether stages of the model work as a pipeline.
    #[must_use]
    pub fn is_pipelined(&self) -> bool {
        self.placement.execution == Execution::Pipelined
    }

    /// Whether the model answers questions.
    #[must_use]
    pub fn is_squad(&self) -> bool {
        matches!(self.task, Task::Squad(_))
    }

    /// Whether hidden states have dropout in training.
    #[must_use]
    pub fn has_dropout(&self) -> bool {
        self.model.dropout != Dropout::Off
    }

    /// Samples (sequences, or packs of them) behind one weight update, of all replicas. More than 64
    /// bits hold count as the most that they hold: [`RunConfig::check`] refuses them.
    #[must_use]
    pub fn global_batch_size(&self) -> u64 {
        u64::from(self.model.micro_batch)
            .saturating_mul(self.batching.accumulation.into())
            .saturating_mul(self.batching.replicas.into())
    }

    /// Samples (sequences, or packs of them) in one step of the host, of all replicas.
    #[must_use]
    pub fn samples_per_step(&self) -> u64 {
        self.global_batch_size()
            .saturating_mul(self.batching.batches_per_step.into())
    }

    /// Whether samples are packs of sequences.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.model.sequence_format != SequenceFormat::Single
    }

    /// Sequences of a sample on average: 1, or of a pack what the data says. Generated packs count
    /// as `K - 1`, the largest number that the published application draws for a position, but as
    /// one sequence at the least: a pack of at most one holds one, and the application's count of
    /// none would be no throughput.
    #[must_use]
    pub fn sequences_per_sample(&self) -> f64 {
        match self.model.sequence_format {
            SequenceFormat::Single => 1.0,
            SequenceFormat::Packed { sequences } => {
                let generated = f64::from((sequences - 1).max(1));
                self.sequences_per_pack.unwrap_or(generated)
            }
        }
    }

    /// IPUs of one replica: up to the last with a part of the encoder.
    ///
    /// # Panics
    ///
    /// If [`RunConfig::check`] refuses the placement.
    #[must_use]
    pub fn ipus_per_replica(&self) -> u32 {
        let ipus = self.placement.encoder.replica_ipus(self.model.num_layers);
        ipus.expect("a configuration that was checked places all layers")
    }

    /// IPUs that the run asks a system for: those of all replicas, up to a power of two.
    ///
    /// # Panics
    ///
    /// If [`RunConfig::check`] refuses the replicas.
    #[must_use]
    pub fn ipus_requested(&self) -> u32 {
        let ipus = ipus_requested(self.ipus_per_replica(), self.batching.replicas);
        ipus.expect("a configuration that was checked asks for less than 2^32 IPUs")
    }
}

//! What a case is: its model, its placement, its optimiser, its replicas.

use bert_model::config::{BertConfig, Dropout, SequenceFormat, Task};
use bert_model::optim::{LambNorms, OptimizerKind, OptimizerOptions, StageScaling};
use bert_model::placement::{
    EncoderMemory, EncoderPlacement, Execution, Halves, HalvesPerStage, LayersPerIpu, Placement,
    PlacementOptions, Recomputation, SquadHead, StageHalves,
};
use ipu_sim::numerics::DType;
use ipu_sim::spec::MachineSpec;
use popart_graph::ir::{Reduction, StageId};
use popart_graph::passes::optimizer::rules::{Correction, MomentTypes};
use popart_graph::passes::{
    CollectiveMerging, OptimizerState, Outlining, Pipelining, Sharding, SoftmaxDropoutGradient,
    StateMemory,
};

use crate::Result;

/// Learning rates of the weight updates of a case, as `f32` holds them: large, so that a step
/// shows in the weights, and each another, as a schedule has it.
pub const LEARNING_RATES: [f64; 2] = [0.007_812_5, 0.003_906_25];

/// The learning rate of a pipeline that updates weights in its stages, which stays the same for all
/// updates of a run: small, for there are many, and what one rounds the next ones magnify.
pub const LEARNING_RATE_IN_STAGES: f64 = 0.000_976_562_5;

/// The loss scale of all cases with moments in `f32`; a power of two, as users take it.
const LOSS_SCALE: f64 = 8.0;

/// Published decay of weights (`applications/popart/bert`, pre-training presets).
const WEIGHT_DECAY: f64 = 0.01;

/// How a case runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// What the model is for.
    pub task: Task,
    /// Whether stages overlap, recomputing what they can.
    pub pipelining: Pipelining,
    /// Micro-batches of one weight update, or of a run of inference.
    pub micro_batches: u32,
    /// Weight updates, at most [`LEARNING_RATES`]; in a pipeline with one micro-batch an update,
    /// as many as it has stages or more.
    pub updates: u32,
    /// What is done to the weights; without effect in inference.
    pub optimizer: OptimizerOptions,
    /// Which weights LAMB scales by their norms.
    pub norms: LambNorms,
    /// What a pipeline computes again.
    pub recomputation: Recomputation,
    /// Forward stages that compute nothing again, whatever the others do.
    pub whole_stages: &'static [u32],
    /// Where the encoder starts; the model has two layers and four IPUs at most.
    pub encoder_start_ipu: u32,
    /// Encoder layers of each IPU from there on; one number stands for all.
    pub layers_per_ipu: &'static [u32],
    /// Halves of the two layers by stage, in place of the last two: IPU, attention halves,
    /// feed-forward halves.
    pub half_layers: &'static [(u32, u32, u32)],
    /// Whether the model predicts next sentences.
    pub next_sentence: bool,
    /// Where SQuAD's head is.
    pub squad_head: SquadHead,
    /// Whether queries, keys and values have weights of their own.
    pub split_qkv: bool,
    /// Slices of the word table.
    pub vocab_steps: u32,
    /// Data-parallel copies, each with data of its own.
    pub replicas: u32,
    /// Where moments live.
    pub state: OptimizerState,
    /// How losses, micro-batches and replicas are combined.
    pub reduction: Reduction,
    /// Which dropouts there are.
    pub dropout: Dropout,
    /// Gradient of attention dropout.
    pub softmax_dropout_gradient: SoftmaxDropoutGradient,
    /// How rows hold sequences.
    pub sequence_format: SequenceFormat,
    /// Width of the model.
    pub hidden_size: u32,
    /// IPUs of the machine.
    pub n_ipus: u32,
    /// Tiles of an IPU.
    pub n_tiles: u32,
    /// Whether layers that are alike share code.
    pub outlining: Outlining,
    /// Whether collectives that are alike are one.
    pub collective_merging: CollectiveMerging,
}

impl Plan {
    /// A plan whose encoder has an IPU a layer, with what the published presets choose: a
    /// pipeline recomputes from the inputs of its stages. One replica of one update.
    #[must_use]
    pub fn new(
        task: Task,
        pipelining: Pipelining,
        micro_batches: u32,
        optimizer: OptimizerOptions,
    ) -> Self {
        let pipelined = pipelining == Pipelining::On;
        Self {
            task,
            pipelining,
            micro_batches,
            updates: 1,
            optimizer,
            norms: LambNorms::OfAll,
            recomputation: match pipelined {
                true => Recomputation::FromStageInput,
                false => Recomputation::Off,
            },
            whole_stages: &[],
            // A pipeline with one more IPU would take eleven micro-batches to fill.
            encoder_start_ipu: if pipelined { 1 } else { 2 },
            layers_per_ipu: &[1],
            half_layers: &[],
            next_sentence: true,
            squad_head: SquadHead::FirstIpu,
            split_qkv: BertConfig::base().split_qkv,
            vocab_steps: 2,
            replicas: 1,
            state: OptimizerState {
                sharding: Sharding::Off,
                memory: StateMemory::OnChip,
            },
            reduction: Reduction::Sum,
            dropout: Dropout::HiddenAndAttention,
            softmax_dropout_gradient: SoftmaxDropoutGradient::Exact,
            sequence_format: SequenceFormat::Single,
            hidden_size: 32,
            n_ipus: 8,
            n_tiles: 32,
            outlining: Outlining::On,
            collective_merging: CollectiveMerging::Off,
        }
    }

    /// The model.
    #[must_use]
    pub fn config(&self) -> BertConfig {
        BertConfig {
            split_qkv: self.split_qkv,
            vocab_steps: self.vocab_steps,
            reduction: self.reduction,
            dropout: self.dropout,
            sequence_format: self.sequence_format,
            hidden_size: self.hidden_size,
            next_sentence: self.next_sentence,
            ..small_bert()
        }
    }

    /// Where its parts are.
    ///
    /// # Errors
    /// The layers aren't covered.
    pub fn placement(&self) -> Result<Placement> {
        let group = |&(ipu, attention, feed_forward): &(u32, u32, u32)| StageHalves {
            ipu,
            halves: Halves {
                attention,
                feed_forward,
            },
        };
        let layers = PlacementOptions {
            encoder: match self.half_layers {
                [] => EncoderPlacement::Layers(LayersPerIpu {
                    encoder_start_ipu: self.encoder_start_ipu,
                    layers_per_ipu: self.layers_per_ipu.to_vec(),
                }),
                groups => EncoderPlacement::Halves(HalvesPerStage {
                    encoder_start_pipeline_stage: 1,
                    groups: groups.iter().map(group).collect(),
                }),
            },
            memory: EncoderMemory::PoplibsDefault,
            squad_head: self.squad_head,
            recomputation: self.recomputation,
            execution: match self.pipelining {
                Pipelining::On => Execution::Pipelined,
                Pipelining::Off => Execution::Sequential,
            },
        };
        let n_layers = self.config().num_layers;
        let mut placement = Placement::from_options(&layers, n_layers, self.task)?;
        for &stage in self.whole_stages {
            placement.stages[StageId(stage)].recomputation = Recomputation::Off;
        }
        Ok(placement)
    }
}

/// LAMB without bias correction.
#[must_use]
pub fn lamb() -> OptimizerOptions {
    with_kind(OptimizerKind::Lamb(Correction::None))
}

/// Adam with bias correction.
#[must_use]
pub fn adam() -> OptimizerOptions {
    with_kind(OptimizerKind::Adam(Correction::Bias))
}

/// The same with or without bias correction, whichever it hasn't.
#[must_use]
pub fn other_correction(options: OptimizerOptions) -> OptimizerOptions {
    let other = |correction| match correction {
        Correction::Bias => Correction::None,
        Correction::None => Correction::Bias,
    };
    OptimizerOptions {
        kind: match options.kind {
            OptimizerKind::Sgd => OptimizerKind::Sgd,
            OptimizerKind::Adam(correction) => OptimizerKind::Adam(other(correction)),
            OptimizerKind::Lamb(correction) => OptimizerKind::Lamb(other(correction)),
        },
        ..options
    }
}

/// The same with the first moment in `f16`, and both moments scaled as the loss is: by so much that
/// those of queries and keys, whose gradients are small at first, are no subnormal numbers, and by
/// so little that no sum over replicas in eight updates in a row leaves the range of `f16`.
#[must_use]
pub fn half_first_moment(options: OptimizerOptions) -> OptimizerOptions {
    OptimizerOptions {
        moments: MomentTypes::HALF_FIRST,
        loss_scaling: 16_384.0,
        ..options
    }
}

/// Gradient descent without momentum.
#[must_use]
pub fn plain_sgd() -> OptimizerOptions {
    OptimizerOptions {
        momentum: 0.0,
        dampening: None,
        ..sgd()
    }
}

/// Gradient descent with momentum.
#[must_use]
pub fn sgd() -> OptimizerOptions {
    with_kind(OptimizerKind::Sgd)
}

fn with_kind(kind: OptimizerKind) -> OptimizerOptions {
    OptimizerOptions {
        kind,
        loss_scaling: LOSS_SCALE,
        weight_decay: WEIGHT_DECAY,
        momentum: 0.9,
        dampening: Some(0.5),
        velocity_scaling: 1.0,
        beta1: 0.9,
        beta2: 0.999,
        moments: MomentTypes::FLOAT,
        max_weight_norm: Some(65504.0),
        clip_norm: None,
        squad_lr_scale: 1.0,
        stage_scaling: StageScaling::Off,
    }
}

/// Two layers of width 32 in `f32`, with dropout.
///
/// The weights of the feed-forward blocks and the word table, also in two slices, are just large
/// enough to be sharded, all others too small.
#[must_use]
pub fn small_bert() -> BertConfig {
    BertConfig {
        micro_batch: 2,
        sequence_length: 8,
        max_positional_length: 10,
        mask_tokens: 3,
        vocab_length: 512,
        hidden_size: 32,
        ff_size: 256,
        attention_heads: 2,
        num_layers: 2,
        vocab_steps: 2,
        dtype: DType::F32,
        half_partials: false,
        ..BertConfig::base()
    }
}

/// `n_ipus` IPUs of `n_tiles` tiles.
///
/// # Errors
/// The description doesn't ship.
pub fn small_machine(n_ipus: u32, n_tiles: u32) -> Result<MachineSpec> {
    Ok(MachineSpec::shipped("mk2-pod16")?.scaled_down(n_ipus, n_tiles)?)
}

//! A built model: its graph, and what the tensors of the graph mean.

use std::collections::BTreeMap;

use popart_graph::ir::{Graph, PartId, StageId, TensorId};

use crate::builder::Builder;
use crate::config::{BertConfig, Task};
use crate::error::Result;
use crate::parts::Unit;
use crate::placement::{Block, Placement};
use crate::{embedding, encoder, heads};

/// What the host sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// Word ids `[B S]`.
    Indices,
    /// Position ids `[B S]`.
    Positions,
    /// Segment ids `[B S]`, 0 or 1.
    Segments,
    /// First unused one of the leading positions for masked words, `[B, 1]`.
    MaskTokensIndex,
    /// First unused position of the rest of the sequence, `[B, 1]`.
    SequenceIndex,
    /// Ids of the masked words `[B, M]`; 0 where there is none.
    MaskLabels,
    /// Next-sentence labels `[B]`, 0 or 1.
    NspLabels,
    /// First unused position of a SQuAD sequence, `[B, 1]`.
    SequencePadIndex,
    /// Position of the answer's first word, `[B]`.
    StartLabels,
    /// Position of the answer's last word, `[B]`.
    EndLabels,
    /// Seed of the dropout masks, `[2]`.
    Seed,
}

impl Input {
    /// Its name on the device, as in the published application.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Input::Indices => "indices",
            Input::Positions => "positions",
            Input::Segments => "segments",
            Input::MaskTokensIndex => "mask_tokens_mask_idx",
            Input::SequenceIndex => "sequence_mask_idx",
            Input::MaskLabels => "mask_labels",
            Input::NspLabels => "nsp_labels",
            Input::SequencePadIndex => "seq_pad_idx",
            Input::StartLabels => "start_labels",
            Input::EndLabels => "end_labels",
            Input::Seed => "seed",
        }
    }
}

/// What the host reads: losses are `[] f32`, accuracies `[2] f32` (correct, counted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Output {
    /// Loss on masked words.
    MlmLoss,
    /// Masked words that were right.
    MlmAccuracy,
    /// Next-sentence loss.
    NspLoss,
    /// Next-sentence answers that were right.
    NspAccuracy,
    /// Loss on where answers start.
    StartLoss,
    /// Starts that were right.
    StartAccuracy,
    /// Loss on where answers end.
    EndLoss,
    /// Ends that were right.
    EndAccuracy,
    /// Logits of start and end, `[B S, 2]`.
    SquadLogits,
    /// Logits of the start, `[B, S]`.
    StartLogits,
    /// Logits of the end, `[B, S]`.
    EndLogits,
}

/// A stream and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputInfo {
    /// The stream.
    pub tensor: TensorId,
    /// What it carries.
    pub input: Input,
}

/// A result and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputInfo {
    /// The result.
    pub tensor: TensorId,
    /// What it is.
    pub output: Output,
}

/// A weight, as an optimiser sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightInfo {
    /// The variable.
    pub tensor: TensorId,
    /// Whether weight decay applies to it.
    pub decays: bool,
    /// The last forward stage that reads it.
    pub stage: StageId,
}

/// A weight that is stored as several variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialisedWeight {
    /// Its name as a whole.
    pub name: String,
    /// Its slices, in order.
    pub slices: Vec<TensorId>,
    /// The axis along which they are put together.
    pub axis: u32,
    /// Whether LAMB takes one norm over all slices: they are pieces of one product
    /// (PopART, `LambSerialisedWeight`), not tables of their own.
    pub joint_norm: bool,
}

/// A BERT as a forward graph, placed but without copies between IPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct BertModel {
    /// The operations.
    pub graph: Graph,
    /// The sum to train on; `None` for inference.
    pub loss: Option<TensorId>,
    /// Outputs of encoder layers to keep for the backward pass, beside what
    /// arrives on an IPU.
    pub checkpoints: Vec<TensorId>,
    /// All weights, in the order in which they are first read.
    pub weights: Vec<WeightInfo>,
    /// Those of them that are slices.
    pub serialised_weights: Vec<SerialisedWeight>,
    /// All streams, in the order of a record of the data set, then the seed.
    pub inputs: Vec<InputInfo>,
    /// All results.
    pub outputs: Vec<OutputInfo>,
    /// Where it runs.
    pub placement: Placement,
    /// The part of the graph that each block is.
    pub parts: BTreeMap<Block, PartId>,
}

impl BertModel {
    /// The stream of that meaning, if the model has it.
    #[must_use]
    pub fn input(&self, input: Input) -> Option<TensorId> {
        let found = self.inputs.iter().find(|info| info.input == input);
        found.map(|info| info.tensor)
    }

    /// The result of that meaning, if the model has it.
    #[must_use]
    pub fn output(&self, output: Output) -> Option<TensorId> {
        let found = self.outputs.iter().find(|info| info.output == output);
        found.map(|info| info.tensor)
    }
}

/// Builds a model.
///
/// # Errors
/// The configuration or the placement breaks one of its rules.
pub fn build(config: &BertConfig, placement: &Placement, task: Task) -> Result<BertModel> {
    config.validate(task)?;
    placement.validate(config.num_layers, task)?;
    let mut builder = Builder::new(config, placement, task);
    streams(&mut builder);
    let mut x = embedding::words(&mut builder)?;
    x = embedding::positions_and_segments(&mut builder, x)?;
    embedding::mask_indices(&mut builder)?;
    for layer in 0..config.num_layers {
        x = encoder::layer(&mut builder, layer, x)?;
    }
    let loss = match task {
        Task::Pretraining(_) => heads::pretraining(&mut builder, x)?,
        Task::Squad(_) => heads::squad(&mut builder, x)?,
    };
    let blocks = placement.blocks.keys();
    let parts = blocks
        .map(|&block| (block, Unit::Block(block).part(&mut builder.graph.parts)))
        .collect();
    Ok(BertModel {
        parts,
        graph: builder.graph,
        loss,
        checkpoints: builder.checkpoints,
        weights: builder.weights,
        serialised_weights: builder.serialised,
        inputs: builder.inputs,
        outputs: builder.outputs,
        placement: placement.clone(),
    })
}

/// Makes all streams, in the order of the published data set's records.
fn streams(builder: &mut Builder) {
    let config = builder.config;
    let rows = config.rows();
    let micro_batch = config.micro_batch;
    builder.input(Input::Indices, [rows]);
    builder.input(Input::Positions, [rows]);
    builder.input(Input::Segments, [rows]);
    match builder.task {
        Task::Pretraining(_) => {
            builder.input(Input::MaskTokensIndex, [micro_batch, 1]);
            builder.input(Input::SequenceIndex, [micro_batch, 1]);
            builder.input(Input::MaskLabels, [micro_batch, config.mask_tokens]);
            builder.input(Input::NspLabels, [micro_batch]);
        }
        Task::Squad(_) => {
            builder.input(Input::SequencePadIndex, [micro_batch, 1]);
            if builder.task.trains() {
                builder.input(Input::StartLabels, [micro_batch]);
                builder.input(Input::EndLabels, [micro_batch]);
            }
        }
    }
    if builder.has_dropout() {
        builder.input(Input::Seed, [2]);
    }
}

#[cfg(test)]
mod tests;

//! A built model: its graph, and the interface of the graph to host and optimiser.

use std::collections::BTreeMap;

use popart_graph::ir::{Graph, PartId, StageId, TensorId};
use popart_graph::passes::RecomputeMode;

use crate::builder::Builder;
use crate::config::{BertConfig, SequenceFormat, Task};
use crate::error::Result;
use crate::interface::{Input, InputInfo, Output, OutputInfo, SerialisedWeight, WeightInfo};
use crate::parts::Unit;
use crate::placement::{Block, Placement, Recomputation};
use crate::{embedding, encoder, heads};

/// A BERT as a forward graph, placed but without copies between IPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct BertModel {
    /// The operations.
    pub graph: Graph,
    /// The sum to train on; `None` for inference.
    pub loss: Option<TensorId>,
    /// Results to keep for the backward pass beside what arrives on an IPU, such as outputs of
    /// encoder layers.
    pub checkpoints: Vec<TensorId>,
    /// All weights, in the order in which they are first read.
    pub weights: Vec<WeightInfo>,
    /// Weights that are slices of a larger one.
    pub serialised_weights: Vec<SerialisedWeight>,
    /// All streams, in the order of a record of the data set, then the seed.
    pub inputs: Vec<InputInfo>,
    /// All results.
    pub outputs: Vec<OutputInfo>,
    /// Placement of the model on the IPUs of a replica.
    pub placement: Placement,
    /// The part of the graph that each block is.
    pub parts: BTreeMap<Block, PartId>,
}

impl BertModel {
    /// Tensors that stages compute again for the backward pass: each stage as its placement says.
    #[must_use]
    pub fn recompute_mode(&self) -> RecomputeMode {
        let stages = &self.placement.stages;
        let is_whole = |&stage: &StageId| stages[stage].recomputation == Recomputation::Off;
        let whole_stages: Vec<StageId> = stages.ids().filter(is_whole).collect();
        match whole_stages.len() == stages.len() {
            true => RecomputeMode::None,
            false => RecomputeMode::Pipeline {
                checkpoints: self.checkpoints.clone(),
                whole_stages,
            },
        }
    }

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
    let has_next_sentence = config.next_sentence;
    let blocks = placement.blocks.keys();
    let parts = blocks
        .filter(|&&block| block != Block::NextSentence || has_next_sentence)
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
    if let SequenceFormat::Packed { sequences } = config.sequence_format {
        let labels = [micro_batch, config.label_slots()];
        builder.input(Input::Indices, [rows]);
        builder.input(
            Input::SequenceNumbers,
            [micro_batch, config.sequence_length],
        );
        builder.input(Input::Segments, [rows]);
        builder.input(Input::Positions, [rows]);
        builder.input(Input::MaskLabels, labels);
        builder.input(Input::MaskWeights, labels);
        if config.next_sentence {
            builder.input(Input::NspLabels, [micro_batch, sequences]);
            builder.input(Input::NspWeights, [micro_batch, sequences]);
        }
        return seed(builder);
    }
    builder.input(Input::Indices, [rows]);
    builder.input(Input::Positions, [rows]);
    builder.input(Input::Segments, [rows]);
    match builder.task {
        Task::Pretraining(_) => {
            builder.input(Input::MaskTokensIndex, [micro_batch, 1]);
            builder.input(Input::SequenceIndex, [micro_batch, 1]);
            builder.input(Input::MaskLabels, [micro_batch, config.mask_tokens]);
            if config.next_sentence {
                builder.input(Input::NspLabels, [micro_batch]);
            }
        }
        Task::Squad(_) => {
            builder.input(Input::SequencePadIndex, [micro_batch, 1]);
            if builder.task.trains() {
                builder.input(Input::StartLabels, [micro_batch]);
                builder.input(Input::EndLabels, [micro_batch]);
            }
        }
    }
    seed(builder);
}

/// Makes the stream that dropout draws from, if there is any.
fn seed(builder: &mut Builder) {
    if builder.has_dropout() {
        builder.input(Input::Seed, [2]);
    }
}

#[cfg(test)]
mod tests;

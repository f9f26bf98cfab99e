//! Where the parts of a model run.
//!
//! A [`Placement`] is plain data: every [`Block`] has a pipeline stage, and every
//! stage an IPU and its options. [`Placement::from_options`] writes the
//! ones that the published applications make, of whole layers or of half layers
//! (`applications/popart/bert/bert_model.py`, `init_device_placement`); any other is written
//! by hand or by a search, and [`Placement::validate`] says whether it can be built.
//! Stages are the forward ones; the backward pass mirrors them around the loss
//! (PopART, `willow/src/transforms/autodiff`). Left out: copies between IPUs,
//! which a pass inserts.

use std::collections::BTreeMap;

use ipu_sim::ids::{Id, IdVec, IpuId};
use popart_graph::ir::{MemoryProportion, StageId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Task;

mod block;
mod error;
mod halves;
mod layers;
mod options;

pub use block::{Block, UnknownBlock};
pub use error::PlacementError;
pub use halves::{Halves, HalvesPerStage, StageHalves};
pub use layers::LayersPerIpu;
pub use options::{EncoderMemory, EncoderPlacement, PlacementOptions, SquadHead, ipus_requested};

type Result<T> = std::result::Result<T, PlacementError>;

/// Tensors of its forward pass that a stage keeps for its backward pass.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Recomputation {
    /// Everything: nothing is computed again.
    Off,
    /// What arrives on its IPU.
    FromStageInput,
    /// What arrives, and the output of every encoder layer that stays
    /// (`recompute_checkpoint_every_layer`).
    FromEveryLayer,
    /// What arrives, and outputs of half layers as the submissions to MLPerf keep them: of every
    /// feed-forward half that more of the encoder follows on the same IPU, and of the last; and in
    /// the stage of the loss of every attention half, the rows that are projected on the
    /// vocabulary, and their logits before and after the bias.
    FromEveryBlock,
}

/// How stages follow each other.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    /// One micro-batch at a time; operations carry no stage.
    Sequential,
    /// As a pipeline, each stage on another micro-batch.
    Pipelined,
}

/// A forward stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// IPU within a replica that the stage runs on.
    pub ipu: IpuId,
    /// For temporaries of the matrix products of its encoder layers.
    pub memory_proportion: MemoryProportion,
    /// Tensors that the stage keeps for its backward pass.
    pub recomputation: Recomputation,
}

/// A stage for every block, and an IPU for every stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The forward stages, in order.
    #[schemars(with = "Vec<Stage>")]
    pub stages: IdVec<StageId, Stage>,
    /// The stage of each block.
    pub blocks: BTreeMap<Block, StageId>,
    /// How the stages follow each other.
    pub execution: Execution,
}

impl Placement {
    /// Checks that a model can be placed so: all of its blocks have a stage and
    /// nothing else has, no stage is idle, no block is before one that it reads
    /// from, and the tied word table of pre-training is used on one IPU.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self, num_layers: u32, task: Task) -> Result<()> {
        let blocks = Block::of_model(num_layers, task);
        if let Some(&block) = self.blocks.keys().find(|block| !blocks.contains(block)) {
            return Err(PlacementError::NotInModel { block });
        }
        for &block in &blocks {
            let stage = self.checked_stage(block)?;
            for producer in block.producers(num_layers, task) {
                let earliest = self.checked_stage(producer)?;
                if stage < earliest {
                    return Err(PlacementError::StageOrder {
                        block,
                        stage,
                        producer,
                        earliest,
                    });
                }
            }
        }
        let is_idle = |id: &StageId| self.blocks.values().all(|stage| stage != id);
        if let Some(stage) = self.stages.ids().find(is_idle) {
            let ipu = self.stages[stage].ipu;
            return Err(PlacementError::EmptyStage { stage, ipu });
        }
        self.validate_tied_table(task)
    }

    fn checked_stage(&self, block: Block) -> Result<StageId> {
        let &stage = self
            .blocks
            .get(&block)
            .ok_or(PlacementError::NotPlaced { block })?;
        let n_stages = self.stages.len();
        match stage.index() < n_stages {
            true => Ok(stage),
            false => Err(PlacementError::UnknownStage {
                block,
                stage,
                n_stages,
            }),
        }
    }

    fn validate_tied_table(&self, task: Task) -> Result<()> {
        if matches!(task, Task::Squad(_)) {
            return Ok(());
        }
        let (word, projection) = (Block::WordEmbedding, Block::Mlm);
        let (word_ipu, projection_ipu) = (self.ipu(word), self.ipu(projection));
        match word_ipu == projection_ipu {
            true => Ok(()),
            false => Err(PlacementError::TiedTable {
                word,
                word_ipu,
                projection,
                projection_ipu,
            }),
        }
    }

    /// The stage of a block.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn stage(&self, block: Block) -> StageId {
        match self.blocks.get(&block) {
            Some(&stage) => stage,
            None => panic!("{block} has no stage"),
        }
    }

    /// The IPU of a block.
    ///
    /// # Panics
    /// If it has no stage.
    #[must_use]
    pub fn ipu(&self, block: Block) -> IpuId {
        self.stages[self.stage(block)].ipu
    }

    /// IPUs of one replica: one more than the highest in use.
    #[must_use]
    pub fn n_ipus(&self) -> u32 {
        let used = self.stages.values().map(|stage| stage.ipu.0 + 1);
        used.max().unwrap_or(0)
    }

    /// The IPU of every stage of a run: the forward ones and, when training, their
    /// mirror images after the loss.
    #[must_use]
    pub fn stage_ipus(&self, task: Task) -> Vec<IpuId> {
        let forward = self.stages.values().map(|stage| stage.ipu);
        let backward = forward.clone().rev().skip(1);
        match task.trains() {
            true => forward.chain(backward).collect(),
            false => forward.collect(),
        }
    }

    /// Whether the output of an encoder layer is a checkpoint. Of whole layers it is if its stage
    /// keeps every layer and the next layer starts on the same stage; of half layers also if it is
    /// the last, or if the next layer has a half on the same IPU.
    #[must_use]
    pub fn keeps_output(&self, layer: u32) -> bool {
        let stage = self.stage(Block::FeedForward(layer));
        let next = self.blocks.get(&Block::Attention(layer + 1));
        match self.stages[stage].recomputation {
            Recomputation::Off | Recomputation::FromStageInput => false,
            Recomputation::FromEveryLayer => next == Some(&stage),
            Recomputation::FromEveryBlock => {
                let halves = [Block::Attention(layer + 1), Block::FeedForward(layer + 1)];
                let here = self.stages[stage].ipu;
                next.is_none() || halves.into_iter().any(|half| self.ipu(half) == here)
            }
        }
    }

    /// Whether the output of a layer's attention half is a checkpoint: its stage keeps every block
    /// and has the loss.
    #[must_use]
    pub fn keeps_attention(&self, layer: u32) -> bool {
        self.keeps_blocks_of_loss(Block::Attention(layer))
    }

    /// Whether the logits of masked words, and what they are made of, are checkpoints.
    #[must_use]
    pub fn keeps_logits(&self) -> bool {
        self.keeps_blocks_of_loss(Block::Mlm)
    }

    fn keeps_blocks_of_loss(&self, block: Block) -> bool {
        let stage = self.stage(block);
        self.stages[stage].recomputation == Recomputation::FromEveryBlock
            && self.blocks.get(&Block::Loss) == Some(&stage)
    }
}

#[cfg(test)]
pub(crate) mod tests;

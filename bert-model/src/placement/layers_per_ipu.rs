//! Placements as the published application writes them.
//!
//! Encoder layers are dealt out to consecutive IPUs; embeddings and heads sit on
//! the first ones, the heads one stage after the encoder
//! (`applications/popart/bert/bert_model.py`, `init_device_placement`). The host takes answers of
//! inference where their head is: the application declares one more stage for them on the first
//! IPU, which gets no operation.

use ipu_sim::ids::{Id, IdVec, IpuId};
use popart_graph::ir::{MemoryProportion, StageId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Block, Execution, Placement, PlacementError, Recomputation, Result, Stage};
use crate::config::Task;

/// Where the head for answers runs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SquadHead {
    /// On the first IPU, one stage after the encoder (`squad_wrap_final_layer`).
    FirstIpu,
    /// On the IPU and stage of the last encoder layer.
    LastEncoderIpu,
}

/// Memory for temporaries of the matrix products of encoder layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncoderMemory {
    /// What PopLibs takes when nothing is said.
    PoplibsDefault,
    /// One share for all IPUs, or one for each from the first with encoder layers
    /// on (`available_memory_proportion`).
    PerIpu(Vec<f64>),
}

/// The options that make a placement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayersPerIpu {
    /// First IPU with encoder layers, `E`. From 2 on, embeddings have two IPUs.
    pub encoder_start_ipu: u32,
    /// Layers on each IPU from `E` on; a single number is for every IPU.
    pub layers_per_ipu: Vec<u32>,
    /// Memory for temporaries.
    pub memory: EncoderMemory,
    /// Where the head for answers runs.
    pub squad_head: SquadHead,
    /// Tensors that stages keep for their backward passes.
    pub recomputation: Recomputation,
    /// How stages follow each other.
    pub execution: Execution,
}

/// How many IPUs have encoder layers when `num_layers` are dealt out.
///
/// The list has the layers of each IPU in turn, a list of one those of every IPU.
///
/// # Errors
/// There are no layers, or the list doesn't cover them.
pub fn encoder_ipus(layers_per_ipu: &[u32], num_layers: u32) -> Result<u32> {
    match layers_per_ipu {
        _ if num_layers == 0 => Err(PlacementError::NoLayers),
        [0] => Err(PlacementError::NoneOnAnIpu),
        [each] => Ok(num_layers.div_ceil(*each)),
        list => {
            let mut covered = 0;
            for (n_ipus, &layers) in (1..).zip(list) {
                covered += u64::from(layers);
                if covered >= u64::from(num_layers) {
                    return Ok(n_ipus);
                }
            }
            Err(PlacementError::LayersPerIpu {
                num_layers,
                covered,
            })
        }
    }
}

/// Encoder layers on the IPU that has most of them, of those that the list covers.
#[must_use]
pub fn layers_on_fullest_ipu(layers_per_ipu: &[u32], num_layers: u32) -> u32 {
    let mut left = num_layers;
    let placed = |count: &u32| {
        let here = left.min(*count);
        left -= here;
        here
    };
    match layers_per_ipu {
        [each] => num_layers.min(*each),
        list => list.iter().map(placed).max().unwrap_or_default(),
    }
}

/// IPUs of one replica: those before the encoder, and those with encoder layers.
///
/// Embeddings and heads have none of their own from there on.
///
/// # Errors
/// As [`encoder_ipus`], or the IPUs are more than can be counted.
pub fn replica_ipus(
    encoder_start_ipu: u32,
    layers_per_ipu: &[u32],
    num_layers: u32,
) -> Result<u32> {
    let of_encoder = encoder_ipus(layers_per_ipu, num_layers)?;
    let n_ipus = encoder_start_ipu.checked_add(of_encoder);
    n_ipus.ok_or(PlacementError::ReplicaTooLarge {
        encoder_start_ipu,
        encoder_ipus: of_encoder,
    })
}

/// IPUs to ask of a machine for `replicas` copies of `replica_ipus` each: a power of two.
///
/// # Errors
/// They are more than can be counted.
pub fn ipus_requested(replica_ipus: u32, replicas: u32) -> Result<u32> {
    let all = u64::from(replica_ipus) * u64::from(replicas);
    let requested = all.checked_next_power_of_two();
    let requested = requested.and_then(|ipus| u32::try_from(ipus).ok());
    requested.ok_or(PlacementError::TooManyReplicas {
        replica_ipus,
        replicas,
    })
}

impl LayersPerIpu {
    /// The place on the list of each layer's IPU.
    fn slots(&self, num_layers: u32) -> Vec<u32> {
        match self.layers_per_ipu.as_slice() {
            &[each] => (0..num_layers).map(|layer| layer / each).collect(),
            list => (0..)
                .zip(list)
                .flat_map(|(slot, &layers)| std::iter::repeat_n(slot, layers as usize))
                .take(num_layers as usize)
                .collect(),
        }
    }

    fn memory_proportion(&self, ipu: u32, n_slots: usize) -> Result<MemoryProportion> {
        let EncoderMemory::PerIpu(values) = &self.memory else {
            return Ok(MemoryProportion::POPLIBS_DEFAULT);
        };
        let Some(slot) = ipu.checked_sub(self.encoder_start_ipu) else {
            return Ok(MemoryProportion::POPLIBS_DEFAULT);
        };
        let value = match values.as_slice() {
            &[value] => value,
            list => *list
                .get(slot as usize)
                .ok_or(PlacementError::MemoryProportions {
                    expected: n_slots,
                    got: list.len(),
                })?,
        };
        MemoryProportion::new(value).ok_or(PlacementError::MemoryProportion { value })
    }

    /// A placement from blocks with their stage and IPU, in order of stage.
    fn stages(&self, placed: &[(Block, u32, u32)], n_slots: usize) -> Result<Placement> {
        let mut placement = Placement {
            stages: IdVec::new(),
            blocks: [].into(),
            execution: self.execution,
        };
        let mut last: Option<(u32, u32)> = None;
        for &(block, stage, ipu) in placed {
            let expected = last.map_or(0, |(stage, _)| stage + 1);
            if stage > expected {
                return Err(idle(expected));
            }
            if last.is_none_or(|(_, last_ipu)| last_ipu != ipu) {
                placement.stages.push(Stage {
                    ipu: IpuId(ipu),
                    memory_proportion: self.memory_proportion(ipu, n_slots)?,
                    recomputation: self.recomputation,
                });
            }
            last = Some((stage, ipu));
            let current = StageId::from_index(placement.stages.len() - 1);
            placement.blocks.insert(block, current);
        }
        Ok(placement)
    }
}

/// The error for an IPU between others that has nothing to do; such stages come
/// before the heads and have the number of their IPU.
fn idle(ipu: u32) -> PlacementError {
    PlacementError::EmptyStage {
        stage: StageId(ipu),
        ipu: IpuId(ipu),
    }
}

impl Placement {
    /// The application's placement of a model. Neighbouring stages on one IPU become
    /// one, as PopART merges them; a model on one IPU has one stage.
    ///
    /// # Errors
    /// The list doesn't cover the layers or leaves an IPU idle, or a memory
    /// proportion is missing or out of range.
    pub fn from_layers_per_ipu(
        options: &LayersPerIpu,
        num_layers: u32,
        task: Task,
    ) -> Result<Placement> {
        let n_slots = encoder_ipus(&options.layers_per_ipu, num_layers)?;
        let start = options.encoder_start_ipu;
        if start > 2 {
            // Embeddings use the first IPU and the one before the encoder.
            return Err(idle(1));
        }
        let slots = options.slots(num_layers);
        let rest_of_embedding = start.saturating_sub(1);
        let head_stage = start + n_slots;
        let mlm_stage = match rest_of_embedding {
            0 => head_stage,
            _ => head_stage + 1,
        };
        let squad = match options.squad_head {
            SquadHead::FirstIpu => (head_stage, 0),
            SquadHead::LastEncoderIpu => (head_stage - 1, head_stage - 1),
        };
        // Where each block runs: stage, then IPU.
        let place = |block| match (block, task) {
            (Block::WordEmbedding, _) => (0, 0),
            (Block::PositionSegment, _) => (rest_of_embedding, rest_of_embedding),
            (Block::Attention(layer) | Block::FeedForward(layer), _) => {
                let ipu = start + slots[layer as usize];
                (ipu, ipu)
            }
            (Block::NextSentence | Block::Cls, _) => (head_stage, rest_of_embedding),
            (Block::Mlm, _) | (Block::Loss, Task::Pretraining(_)) => (mlm_stage, 0),
            (Block::Squad, _) | (Block::Loss | Block::Outputs, Task::Squad(_)) => squad,
            (Block::Outputs, Task::Pretraining(_)) => (mlm_stage + 1, 0),
        };
        let mut placed: Vec<(Block, u32, u32)> = Block::of_model(num_layers, task)
            .into_iter()
            .map(|block| {
                let (stage, ipu) = place(block);
                (block, stage, ipu)
            })
            .collect();
        placed.sort_by_key(|&(_, stage, _)| stage);
        options.stages(&placed, n_slots as usize)
    }
}

//! Placements as the published applications write them.
//!
//! The encoder is dealt out to IPUs in whole layers ([`LayersPerIpu`]) or to stages in halves
//! ([`HalvesPerStage`]); embeddings and heads sit on the first IPUs, the heads after the encoder
//! (`applications/popart/bert/bert_model.py`, `init_device_placement`, and its namesake in the
//! submissions to MLPerf). The host takes answers of inference where their head is: the application
//! declares one more stage for them on the first IPU, which gets no operation.

use ipu_sim::ids::{Id, IdVec, IpuId};
use popart_graph::ir::{MemoryProportion, StageId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::halves::HalvesPerStage;
use super::layers::LayersPerIpu;
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
    /// One share for all IPUs, or one for each (`available_memory_proportion`): from the first
    /// with encoder layers on, or of halves from IPU 0 on.
    PerIpu(Vec<f64>),
}

/// The options that make a placement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacementOptions {
    /// Where the encoder runs.
    pub encoder: EncoderPlacement,
    /// Memory for temporaries.
    pub memory: EncoderMemory,
    /// Where the head for answers runs.
    pub squad_head: SquadHead,
    /// Tensors that stages keep for their backward passes.
    pub recomputation: Recomputation,
    /// How stages follow each other.
    pub execution: Execution,
}

/// Where the encoder runs, in one of two written forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncoderPlacement {
    /// Whole layers, IPU by IPU.
    Layers(LayersPerIpu),
    /// Halves of layers, stage by stage.
    Halves(HalvesPerStage),
}

impl EncoderPlacement {
    /// IPUs of one replica.
    ///
    /// # Errors
    /// The layers aren't all placed, or on more IPUs than can be counted.
    pub fn replica_ipus(&self, num_layers: u32) -> Result<u32> {
        match self {
            Self::Layers(layers) => layers.replica_ipus(num_layers),
            Self::Halves(halves) => halves.replica_ipus(num_layers),
        }
    }

    /// How many shares of memory a list has that has one for each IPU: those of the encoder for
    /// whole layers, those of a replica for halves.
    ///
    /// # Errors
    /// As [`EncoderPlacement::replica_ipus`].
    pub fn memory_shares(&self, num_layers: u32) -> Result<u32> {
        match self {
            Self::Layers(layers) => layers.encoder_ipus(num_layers),
            Self::Halves(halves) => halves.replica_ipus(num_layers),
        }
    }

    /// Whether the encoder ends on the first IPU, where heads are put.
    #[must_use]
    pub fn ends_on_first_ipu(&self, num_layers: u32) -> bool {
        match self {
            Self::Layers(layers) => layers.replica_ipus(num_layers) == Ok(1),
            Self::Halves(halves) => halves.groups.last().is_some_and(|group| group.ipu == 0),
        }
    }

    /// The IPU of the first share of a list of them.
    fn first_with_share(&self) -> u32 {
        match self {
            Self::Layers(layers) => layers.encoder_start_ipu,
            Self::Halves(_) => 0,
        }
    }
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

impl PlacementOptions {
    fn memory_proportion(&self, ipu: u32, n_slots: usize) -> Result<MemoryProportion> {
        let EncoderMemory::PerIpu(values) = &self.memory else {
            return Ok(MemoryProportion::POPLIBS_DEFAULT);
        };
        let Some(slot) = ipu.checked_sub(self.encoder.first_with_share()) else {
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

/// Stage and IPU of a block.
type Place = (u32, u32);

/// The places that depend on how the encoder is written.
struct Places {
    /// Word embedding.
    words: Place,
    /// Positions, segments and what follows.
    positions: Place,
    attention: Vec<Place>,
    feed_forward: Vec<Place>,
    /// Next-sentence head and transform.
    heads: Place,
    /// Projection on the vocabulary.
    projection: Place,
    squad: Place,
}

impl Places {
    /// Where `bert.py` puts them.
    fn of_layers(layers: &LayersPerIpu, squad_head: SquadHead, num_layers: u32) -> Result<Self> {
        let n_slots = layers.encoder_ipus(num_layers)?;
        let start = layers.encoder_start_ipu;
        if start > 2 {
            // Embeddings use the first IPU and the one before the encoder.
            return Err(idle(1));
        }
        let rest_of_embedding = start.saturating_sub(1);
        let head_stage = start + n_slots;
        let slots = layers.slots(num_layers).into_iter();
        let halves: Vec<Place> = slots.map(|slot| (start + slot, start + slot)).collect();
        Ok(Self {
            words: (0, 0),
            positions: (rest_of_embedding, rest_of_embedding),
            attention: halves.clone(),
            feed_forward: halves,
            heads: (head_stage, rest_of_embedding),
            projection: match rest_of_embedding {
                0 => (head_stage, 0),
                _ => (head_stage + 1, 0),
            },
            squad: match squad_head {
                SquadHead::FirstIpu => (head_stage, 0),
                SquadHead::LastEncoderIpu => (head_stage - 1, head_stage - 1),
            },
        })
    }

    /// Where the submissions to MLPerf put them: the embedding on IPU 0 in stage 0, the heads on
    /// IPU 0 in the last group's stage if that group is there, else one stage later.
    fn of_halves(halves: &HalvesPerStage, squad_head: SquadHead, num_layers: u32) -> Result<Self> {
        halves.check(num_layers)?;
        let (last_stage, last_ipu) = halves.last();
        let heads = match last_ipu {
            0 => (last_stage, 0),
            _ => (last_stage + 1, 0),
        };
        Ok(Self {
            words: (0, 0),
            positions: (0, 0),
            attention: halves.dealt(|halves| halves.attention),
            feed_forward: halves.dealt(|halves| halves.feed_forward),
            heads,
            projection: heads,
            squad: match squad_head {
                SquadHead::FirstIpu => heads,
                SquadHead::LastEncoderIpu => (last_stage, last_ipu),
            },
        })
    }

    fn of(&self, block: Block, task: Task) -> Place {
        let head = match task {
            Task::Pretraining(_) => self.projection,
            Task::Squad(_) => self.squad,
        };
        let outputs = match task {
            Task::Pretraining(_) => (head.0 + 1, 0),
            Task::Squad(_) => head,
        };
        match block {
            Block::WordEmbedding => self.words,
            Block::PositionSegment => self.positions,
            Block::Attention(layer) => self.attention[layer as usize],
            Block::FeedForward(layer) => self.feed_forward[layer as usize],
            Block::NextSentence | Block::Cls => self.heads,
            Block::Mlm | Block::Squad | Block::Loss => head,
            Block::Outputs => outputs,
        }
    }
}

impl Placement {
    /// A placement of a model as its options say. Neighbouring stages on one IPU become
    /// one, as PopART merges them; a model on one IPU has one stage.
    ///
    /// # Errors
    /// The encoder isn't all placed or leaves a stage idle, or a memory proportion is missing or
    /// out of range.
    pub fn from_options(
        options: &PlacementOptions,
        num_layers: u32,
        task: Task,
    ) -> Result<Placement> {
        let places = match &options.encoder {
            EncoderPlacement::Layers(layers) => {
                Places::of_layers(layers, options.squad_head, num_layers)?
            }
            EncoderPlacement::Halves(halves) => {
                Places::of_halves(halves, options.squad_head, num_layers)?
            }
        };
        let mut placed: Vec<(Block, u32, u32)> = Block::of_model(num_layers, task)
            .into_iter()
            .map(|block| {
                let (stage, ipu) = places.of(block, task);
                (block, stage, ipu)
            })
            .collect();
        placed.sort_by_key(|&(_, stage, _)| stage);
        let n_shares = options.encoder.memory_shares(num_layers)?;
        options.stages(&placed, n_shares as usize)
    }
}

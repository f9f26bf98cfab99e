//! Activations that a training pipeline keeps for its backward stages.
//!
//! A stage keeps an activation for as many micro-batches as are on their way
//! between it and its mirror image, in a ring (PopART,
//! `willow/src/transforms/pipeline.cpp`): `2 (L - s) + 1` for stage `s` with the
//! loss on stage `L`. Counted are whole hidden states `[B S, H]` of stages that
//! recompute; left out are the small tensors (ids, masks, seeds), and stages that
//! recompute nothing, whose stash only the graph knows.

use ipu_sim::ids::{Id, IpuId};
use ipu_sim::units::Bytes;
use popart_graph::ir::StageId;

use crate::config::BertConfig;
use crate::placement::{Block, Placement, Recomputation};

/// Tensors that one pipeline stage keeps for its backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageStash {
    /// The stage.
    pub stage: StageId,
    /// IPU that the stage runs on.
    pub ipu: IpuId,
    /// Micro-batches that the ring holds.
    pub slots: u64,
    /// Hidden states of each micro-batch.
    pub activations: u64,
    /// Memory for all of them.
    pub bytes: Bytes,
}

/// The stash of every forward stage before the loss that recomputes, in order.
#[must_use]
pub fn stashes(config: &BertConfig, placement: &Placement) -> Vec<StageStash> {
    let elements = u64::from(config.rows()) * u64::from(config.hidden_size);
    let activation = config.dtype.size() * elements;
    let loss = placement.stage(Block::Loss);
    let recomputing = placement
        .stages
        .iter()
        .filter(|(id, stage)| *id < loss && stage.recomputation != Recomputation::Off);
    recomputing
        .map(|(id, stage)| {
            let slots = 2 * (loss.index() - id.index()) as u64 + 1;
            let activations = hidden_states(config, placement, id);
            StageStash {
                stage: id,
                ipu: stage.ipu,
                slots,
                activations,
                bytes: activation * (slots * activations),
            }
        })
        .collect()
}

/// Hidden states that a stage keeps: what arrives, unless only ids do, and its
/// checkpoints.
fn hidden_states(config: &BertConfig, placement: &Placement, stage: StageId) -> u64 {
    let makes_words = placement.stage(Block::WordEmbedding) == stage;
    // What no later layer of the stage reads is kept for nobody.
    let is_read = |layer| placement.blocks.get(&Block::Attention(layer + 1)) == Some(&stage);
    let checkpoints = (0..config.num_layers).filter(|&layer| {
        placement.stage(Block::FeedForward(layer)) == stage
            && placement.keeps_output(layer)
            && is_read(layer)
    });
    u64::from(!makes_words) + checkpoints.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, Task};
    use crate::model::build;
    use crate::placement::tests::halves::placed;
    use crate::placement::tests::{on_one_ipu, published};

    const PRETRAINING: Task = Task::Pretraining(Mode::Training);

    /// The stash of each stage: slots, activations and MiB.
    #[track_caller]
    fn check(config: &BertConfig, placement: &Placement, expected: &[(u64, u64, f64)]) {
        let got: Vec<_> = stashes(config, placement)
            .iter()
            .map(|stash| {
                let mebibytes = stash.bytes.0 as f64 / f64::from(1 << 20);
                (stash.slots, stash.activations, mebibytes)
            })
            .collect();
        assert_eq!(got, expected);
        let model = build(config, placement, PRETRAINING).unwrap();
        let arriving = got.len() as u64 - 1;
        let kept: u64 = got.iter().map(|(_, activations, _)| activations).sum();
        assert_eq!(model.checkpoints.len() as u64 + arriving, kept);
    }

    fn sized(config: BertConfig, micro_batch: u32, sequence_length: u32) -> BertConfig {
        BertConfig {
            micro_batch,
            sequence_length,
            ..config
        }
    }

    #[test]
    fn published_stashes() {
        let placement = published(0, &[3, 7, 7, 7], 24, PRETRAINING);
        check(
            &sized(BertConfig::large(), 8, 128),
            &placement,
            &[(9, 2, 36.0), (7, 7, 98.0), (5, 7, 70.0), (3, 7, 42.0)],
        );
        check(
            &sized(BertConfig::large(), 2, 384),
            &placement,
            &[(9, 2, 27.0), (7, 7, 73.5), (5, 7, 52.5), (3, 7, 31.5)],
        );
        let placement = published(1, &[4, 4, 4], 12, PRETRAINING);
        check(
            &sized(BertConfig::base(), 32, 128),
            &placement,
            &[(9, 0, 0.0), (7, 4, 168.0), (5, 4, 120.0), (3, 4, 72.0)],
        );
        check(
            &sized(BertConfig::base(), 8, 384),
            &placement,
            &[(9, 0, 0.0), (7, 4, 126.0), (5, 4, 90.0), (3, 4, 54.0)],
        );
    }

    #[test]
    fn embedding_and_head_stages_keep_what_arrives() {
        let config = BertConfig::tiny();
        let mebibyte = f64::from(1 << 20);
        let bytes = f64::from(config.rows() * config.hidden_size * 4) / mebibyte;
        check(
            &config,
            &published(2, &[1], 2, PRETRAINING),
            &[
                (11, 0, 0.0),
                (9, 1, 9.0 * bytes),
                (7, 1, 7.0 * bytes),
                (5, 1, 5.0 * bytes),
                (3, 1, 3.0 * bytes),
            ],
        );
    }

    /// A stage that starts or ends in the middle of a layer keeps one hidden state for the half
    /// layer that arrives; what the loss stage keeps is in no ring.
    #[test]
    fn half_layers_keep_what_arrives_and_what_layers_give() {
        let groups = [(1, 7, 6), (2, 6, 7), (3, 7, 6), (0, 4, 5)];
        let placement = placed(&groups, 24, PRETRAINING);
        let config = sized(BertConfig::large(), 2, 512);
        let got = stashes(&config, &placement);
        let got: Vec<_> = got
            .iter()
            .map(|stash| (stash.slots, stash.activations))
            .collect();
        assert_eq!(got, [(9, 0), (7, 7), (5, 7), (3, 7)]);
    }

    #[test]
    fn one_stage_stashes_nothing() {
        let config = BertConfig::tiny();
        let placement = on_one_ipu(config.num_layers, PRETRAINING);
        assert_eq!(stashes(&config, &placement), []);
    }
}

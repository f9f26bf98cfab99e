//! Half encoder layers, dealt out to pipeline stages.
//!
//! This is the form of Graphcore's submissions to MLPerf Training v1.1 and v2.0
//! (`att_ffn_placement`; mlcommons/training_results_v1.1, `bert_model.py`,
//! `init_device_placement`): a layer may be cut between its attention and its feed-forward half,
//! and one IPU may have several stages, as the first has, where the embedding and the heads are.
//! Left out: embeddings and heads, which [`Placement`](super::Placement) puts around them.

use std::collections::BTreeMap;

use ipu_sim::ids::IpuId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PlacementError, Result};

/// Numbers of attention and feed-forward halves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Halves {
    /// Attention halves.
    pub attention: u32,
    /// Feed-forward halves.
    pub feed_forward: u32,
}

/// The encoder's part of one pipeline stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageHalves {
    /// IPU of the stage, within a replica.
    pub ipu: u32,
    /// Halves that it takes, each the next in order.
    pub halves: Halves,
}

/// Encoder halves by pipeline stage (`att_ffn_placement`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HalvesPerStage {
    /// Stage of the first group; the embedding has stage 0, on IPU 0.
    pub encoder_start_pipeline_stage: u32,
    /// A group for each stage from there on.
    pub groups: Vec<StageHalves>,
}

impl HalvesPerStage {
    /// Checks that the groups deal out `num_layers` layers in an order in which they can run, with
    /// no stage left out.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, num_layers: u32) -> Result<()> {
        if num_layers == 0 {
            return Err(PlacementError::NoLayers);
        }
        let [mut attention, mut feed_forward] = [0_u64; 2];
        let mut order = Ok(());
        for (number, group) in (1..).zip(&self.groups) {
            if group.ipu == u32::MAX {
                return Err(PlacementError::IpuRange { group: number });
            }
            if group.halves == Halves::default() {
                return Err(PlacementError::EmptyGroup { group: number });
            }
            attention += u64::from(group.halves.attention);
            feed_forward += u64::from(group.halves.feed_forward);
            // Each half reads the one before it, which is of the other kind.
            if order.is_ok() && !(feed_forward..=feed_forward + 1).contains(&attention) {
                order = Err(PlacementError::HalvesOrder {
                    group: number,
                    attention,
                    feed_forward,
                });
            }
        }
        let all = u64::from(num_layers);
        if (attention, feed_forward) != (all, all) {
            return Err(PlacementError::HalvesCovered {
                num_layers,
                attention,
                feed_forward,
            });
        }
        order?;
        match (self.encoder_start_pipeline_stage, &self.groups[0]) {
            (1, _) | (0, StageHalves { ipu: 0, .. }) => Ok(()),
            (0, &StageHalves { ipu, .. }) => {
                let ipu = IpuId(ipu);
                Err(PlacementError::SharedStage { ipu })
            }
            (start, _) => Err(PlacementError::EncoderStartStage { start }),
        }
    }

    /// IPUs of one replica: one more than the highest of a group.
    ///
    /// # Errors
    /// As [`HalvesPerStage::check`].
    pub fn replica_ipus(&self, num_layers: u32) -> Result<u32> {
        self.check(num_layers)?;
        let highest = self.groups.iter().map(|group| group.ipu).max();
        Ok(highest.expect("layers are in groups") + 1)
    }

    /// The halves of each IPU that has any.
    #[must_use]
    pub fn by_ipu(&self) -> BTreeMap<u32, Halves> {
        let mut by_ipu: BTreeMap<u32, Halves> = BTreeMap::new();
        for group in &self.groups {
            let of_ipu = by_ipu.entry(group.ipu).or_default();
            of_ipu.attention = of_ipu.attention.saturating_add(group.halves.attention);
            of_ipu.feed_forward = of_ipu
                .feed_forward
                .saturating_add(group.halves.feed_forward);
        }
        by_ipu
    }

    /// The halves of `num_layers` layers in order, `each` to an IPU from IPU 1 on; the last may
    /// have fewer.
    ///
    /// # Panics
    /// If `each` is 0.
    #[must_use]
    pub fn evenly(num_layers: u32, each: u32) -> Self {
        let all = 2 * u64::from(num_layers);
        let firsts = (0..all).step_by(each as usize);
        let groups = (1..).zip(firsts).map(|(ipu, first)| {
            let end = all.min(first + u64::from(each));
            // Attention halves are the even ones.
            let attention = |end: u64| end.div_ceil(2);
            let n_attention = attention(end) - attention(first);
            StageHalves {
                ipu,
                halves: Halves {
                    attention: n_attention as u32,
                    feed_forward: (end - first - n_attention) as u32,
                },
            }
        });
        Self {
            encoder_start_pipeline_stage: 1,
            groups: groups.collect(),
        }
    }

    /// Stage and IPU of every half of one kind, in order.
    pub(super) fn dealt(&self, of: fn(Halves) -> u32) -> Vec<(u32, u32)> {
        let stages = (self.encoder_start_pipeline_stage..).zip(&self.groups);
        let dealt = stages.flat_map(|(stage, group)| {
            std::iter::repeat_n((stage, group.ipu), of(group.halves) as usize)
        });
        dealt.collect()
    }

    /// Stage and IPU of the last group.
    pub(super) fn last(&self) -> (u32, u32) {
        let last = self.groups.last().expect("layers are in groups");
        let stage = self.encoder_start_pipeline_stage + self.groups.len() as u32 - 1;
        (stage, last.ipu)
    }
}

//! Whole encoder layers, dealt out to consecutive IPUs.
//!
//! This is how `bert.py` places them (`applications/popart/bert/bert_model.py`,
//! `init_device_placement`). Left out: embeddings and heads, which [`Placement`](super::Placement)
//! puts around them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PlacementError, Result};

/// Encoder layers by IPU, each layer a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayersPerIpu {
    /// First IPU with encoder layers, `E`. From 2 on, embeddings have two IPUs.
    pub encoder_start_ipu: u32,
    /// Layers on each IPU from `E` on; a single number is for every IPU.
    pub layers_per_ipu: Vec<u32>,
}

impl LayersPerIpu {
    /// How many IPUs have encoder layers when `num_layers` are dealt out.
    ///
    /// The list has the layers of each IPU in turn, a list of one those of every IPU.
    ///
    /// # Errors
    /// There are no layers, or the list doesn't cover them.
    pub fn encoder_ipus(&self, num_layers: u32) -> Result<u32> {
        match self.layers_per_ipu.as_slice() {
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

    /// IPUs of one replica: those before the encoder, and those with encoder layers.
    ///
    /// Embeddings and heads have none of their own from there on.
    ///
    /// # Errors
    /// As [`LayersPerIpu::encoder_ipus`], or the IPUs are more than can be counted.
    pub fn replica_ipus(&self, num_layers: u32) -> Result<u32> {
        let encoder_ipus = self.encoder_ipus(num_layers)?;
        let encoder_start_ipu = self.encoder_start_ipu;
        let n_ipus = encoder_start_ipu.checked_add(encoder_ipus);
        n_ipus.ok_or(PlacementError::ReplicaTooLarge {
            encoder_start_ipu,
            encoder_ipus,
        })
    }

    /// The place on the list of each layer's IPU.
    pub(super) fn slots(&self, num_layers: u32) -> Vec<u32> {
        match self.layers_per_ipu.as_slice() {
            &[each] => (0..num_layers).map(|layer| layer / each).collect(),
            list => (0..)
                .zip(list)
                .flat_map(|(slot, &layers)| std::iter::repeat_n(slot, layers as usize))
                .take(num_layers as usize)
                .collect(),
        }
    }
}

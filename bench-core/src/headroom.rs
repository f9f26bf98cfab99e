//! Room that a program leaves on the fullest tile, and how much of it a real compilation may take.

use ipu_sim::units::Bytes;
use ipu_sim::weigh::{MemoryUsage, Region};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;

/// Bytes by which the fullest tile of a real compilation of training held more than is simulated.
///
/// Of the one that was published, a tiny BERT on SQuAD (`configs/measurements.toml`, a test
/// compares them). Its categories agree in the sum over all tiles better than on that tile, so
/// something lies on one tile there that is spread here; that is taken to be as many bytes in a
/// larger model.
pub const TRAINING_MARGIN: Bytes = Bytes(38_896);

/// Bytes of that kind for inference: the peaks of real compilations that are known were below simulated ones.
pub const INFERENCE_MARGIN: Bytes = Bytes(0);

/// Answer to whether a run fits on a real machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With more room than real compilations were found to take beyond simulated ones.
    Fits,
    /// As simulated, but with less room than that.
    Close,
    /// Not as simulated.
    TooLarge,
}

/// Room on the fullest tile of a run that fits as simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Headroom {
    /// Bytes of the fullest tile that nothing lies in.
    pub spare_bytes: Bytes,
    /// Bytes by which measured peaks of such runs were above simulated ones.
    pub margin_bytes: Bytes,
    /// Bytes of a tile.
    pub tile_bytes: Bytes,
}

impl Headroom {
    /// Room that a run leaves; none if it doesn't fit.
    #[must_use]
    pub fn of(config: &RunConfig, weight: &MemoryUsage) -> Option<Self> {
        let fullest = weight.ipus.values().map(|ipu| ipu.fullest(Region::Tile).1);
        let tile = weight.size(Region::Tile);
        let spare = tile.0.checked_sub(fullest.max()?.0)?;
        Some(Self {
            spare_bytes: Bytes(spare),
            margin_bytes: match config.is_inference() {
                true => INFERENCE_MARGIN,
                false => TRAINING_MARGIN,
            },
            tile_bytes: tile,
        })
    }

    /// Whether the room is as much as real compilations may need.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        if self.spare_bytes >= self.margin_bytes {
            Verdict::Fits
        } else {
            Verdict::Close
        }
    }

    /// Part of a tile that these bytes are, in per cent.
    #[must_use]
    pub fn percent(self, bytes: Bytes) -> f64 {
        100.0 * bytes.0 as f64 / self.tile_bytes.0 as f64
    }
}

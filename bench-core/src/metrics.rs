//! What came out of a run, as data.

use std::collections::BTreeMap;

use ipu_sim::units::{Bytes, Cycles, SimSeconds};
use ipu_sim::weigh::{Category, DoesNotFit, MemoryUsage, Region, TileVariable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::accuracy::Accuracy;
use crate::explain::Explanation;
use crate::headroom::{Headroom, Verdict};
use crate::measure::{Latency, Samples};
use crate::utilisation::Utilisation;

/// Throughput, latency, memory and time of a simulated run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    /// Sequences per simulated second: see [`crate::measure::sequences_per_second`].
    pub throughput_sequences_per_second: f64,
    /// Packs of sequences per simulated second; none where samples are single sequences: see
    /// [`crate::measure::packs_per_second`].
    #[serde(default)]
    pub throughput_packs_per_second: Option<f64>,
    /// How far the throughput is to be trusted.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Simulated time of one step of the host.
    pub step_seconds: SimSeconds,
    /// Cycles of the tile clock in one step of the host.
    pub step_cycles: Cycles,
    /// Cycles that a counter of the device would say: those of a step without the host's start of
    /// the run.
    #[serde(default)]
    pub device_cycles: Cycles,
    /// Spread of the latency of micro-batches; inference only.
    pub latency_seconds: Option<Latency>,
    /// Latencies of the micro-batches of one step, equal ones counted together; not part of reports.
    #[serde(skip)]
    pub latencies: Vec<Samples>,
    /// Whether every tile holds what is placed on it.
    pub fits: bool,
    /// Room on the fullest tile, where it holds what is placed on it.
    #[serde(default)]
    pub headroom: Option<Headroom>,
    /// Why a device refuses the program: the fullest tile, by how much it is too full, and its
    /// largest tensors; not part of the written form, in which it is told in words.
    #[serde(skip)]
    pub refusal: Option<DoesNotFit>,
    /// The region of tile memory that is too small, if one is; not part of the written form.
    #[serde(skip)]
    pub overflow: Option<RegionUse>,
    /// Memory of each IPU of one replica, by its place in the replica.
    pub ipus: Vec<IpuMemory>,
    /// Where the cycles of a step went, on each IPU of one replica.
    pub time: Explanation,
    /// Achieved operations a second against the peak.
    pub utilisation: Utilisation,
}

/// Memory in use on one IPU at its fullest moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpuMemory {
    /// Bytes on the fullest tile.
    pub max_tile_bytes: Bytes,
    /// Bytes on all tiles.
    pub total_bytes: Bytes,
    /// Bytes on all tiles, by category of contents.
    pub bytes_by_category: BTreeMap<String, Bytes>,
    /// Contents of the fullest tile at that moment.
    pub fullest_tile: FullestTile,
}

/// The fullest tile of an IPU at its fullest moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FullestTile {
    /// Number of the tile.
    pub tile: u32,
    /// The step of the program, then the steps of the functions called there.
    pub fullest_at: Vec<String>,
    /// Bytes by category of contents.
    pub bytes_by_category: BTreeMap<String, Bytes>,
    /// The largest variables, largest first.
    pub largest: Vec<TileVariable>,
}

/// Use of a region of tile memory, on the tile where that is most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionUse {
    /// All of a tile, or a part that something must fit.
    pub region: Region,
    /// Bytes in use.
    pub bytes: Bytes,
    /// Bytes that a tile has.
    pub available: Bytes,
}

impl RegionUse {
    /// Use of `region` by a program that was weighed.
    #[must_use]
    pub fn of(weight: &MemoryUsage, region: Region) -> Self {
        let on_ipus = weight.ipus.values().map(|ipu| ipu.fullest(region).1);
        Self {
            region,
            bytes: on_ipus.max().unwrap_or_default(),
            available: weight.size(region),
        }
    }

    /// Use of the region that is too small, if one is.
    #[must_use]
    pub fn too_much(weight: &MemoryUsage) -> Option<Self> {
        let refused = weight.verdict().err()?;
        Some(Self::of(weight, refused.region))
    }
}

impl Metrics {
    /// Bytes on the fullest tile of all IPUs.
    #[must_use]
    pub fn fullest_tile(&self) -> Option<Bytes> {
        self.ipus.iter().map(|ipu| ipu.max_tile_bytes).max()
    }

    /// Answer to whether the run fits on a real machine.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.fits {
            self.headroom.map_or(Verdict::Fits, Headroom::verdict)
        } else {
            Verdict::TooLarge
        }
    }
}

/// Memory of every IPU of a replica.
pub(crate) fn memory(weight: &MemoryUsage) -> Vec<IpuMemory> {
    weight
        .ipus
        .values()
        .map(|ipu| IpuMemory {
            max_tile_bytes: ipu.max(),
            total_bytes: ipu.total,
            bytes_by_category: Category::all()
                .map(|category| (category.name(), ipu.sum(category)))
                .collect(),
            fullest_tile: FullestTile {
                tile: ipu.max_tile.0,
                fullest_at: ipu.fullest_at.iter().map(ToString::to_string).collect(),
                bytes_by_category: Category::all()
                    .map(|category| (category.name(), ipu.on(category, ipu.max_tile)))
                    .collect(),
                largest: ipu.largest.clone(),
            },
        })
        .collect()
}

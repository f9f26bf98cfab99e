//! What came out of a run, as data: the content of `--metrics-json` and of the suite's files.

use std::collections::BTreeMap;
use std::fmt;

use ipu_sim::units::{Bytes, Cycles, HostSeconds, SimSeconds};
use ipu_sim::weigh::{MemoryUsage, Region, TileVariable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::accuracy::Accuracy;
use crate::explain::Explanation;
use crate::measure::{Latency, Samples};
use crate::request::RunRequest;
use crate::utilisation::Utilisation;

/// Version of the form of [`Report`]. It goes up when a field changes its name or meaning.
pub const SCHEMA_VERSION: u32 = 3;

/// What a simulated run measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    /// Sequences per simulated second: see [`crate::measure::sequences_per_second`].
    pub throughput_sequences_per_second: f64,
    /// How far that is to be trusted.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Simulated time of one step of the host.
    pub step_seconds: SimSeconds,
    /// The same in cycles of the tile clock.
    pub step_cycles: Cycles,
    /// What a counter of the device would say: those without the host's start of the run.
    #[serde(default)]
    pub device_cycles: Cycles,
    /// Latency of micro batches; inference only.
    pub latency_seconds: Option<Latency>,
    /// The same, micro batch by micro batch of one step; not part of reports.
    #[serde(skip)]
    pub latencies: Vec<Samples>,
    /// What the simulation cost the host.
    pub host_seconds: HostTimes,
    /// Whether every tile holds what is placed on it.
    pub fits: bool,
    /// Where they don't: the tile, by how much, and its largest tensors.
    pub out_of_memory: Option<String>,
    /// The region of tile memory that is too small, if it is that; not part of reports, which say
    /// it in words.
    #[serde(skip)]
    pub overflow: Option<Taken>,
    /// Memory of each IPU of one replica, by its place in the replica.
    pub ipus: Vec<IpuMemory>,
    /// Where the cycles of a step went, by IPU as above.
    pub time: Explanation,
    /// Achieved operations a second against the peak.
    pub utilisation: Utilisation,
}

/// Host time of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostTimes {
    /// Building the graph and compiling it.
    pub compile: HostSeconds,
    /// Running the program.
    pub simulate: HostSeconds,
}

/// Memory in use on one IPU at its fullest moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpuMemory {
    /// On the fullest tile.
    pub max_tile_bytes: Bytes,
    /// On all tiles.
    pub total_bytes: Bytes,
    /// On all tiles, by what it holds.
    pub bytes_by_category: BTreeMap<String, Bytes>,
    /// What is on the fullest tile then.
    pub fullest_tile: FullestTile,
}

/// The fullest tile of an IPU at its fullest moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FullestTile {
    /// Its number.
    pub tile: u32,
    /// The step of the program, then the steps of the functions called there.
    pub fullest_at: Vec<String>,
    /// By what it holds.
    pub bytes_by_category: BTreeMap<String, Bytes>,
    /// The largest variables, largest first.
    pub largest: Vec<TileVariable>,
}

/// What is taken of a region of tile memory, on the tile where that is most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// All of a tile, or a part that something must fit.
    pub region: Region,
    /// What is there.
    pub bytes: Bytes,
    /// What a tile has of it.
    pub available: Bytes,
}

impl Taken {
    /// Of that region, by a program that was weighed.
    #[must_use]
    pub fn of(weight: &MemoryUsage, region: Region) -> Self {
        let on_ipus = weight.ipus.values().map(|ipu| ipu.fullest(region).1);
        Self {
            region,
            bytes: on_ipus.max().unwrap_or_default(),
            available: weight.size(region),
        }
    }

    /// Of the region that is too small, if one is.
    #[must_use]
    pub fn too_much(weight: &MemoryUsage) -> Option<Self> {
        let refused = weight.verdict().err()?;
        Some(Self::of(weight, refused.region))
    }
}

/// `fullest tile 400000 B`, or of a part of it `executable memory 270000 B of 262144 B`.
impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (region, bytes) = (self.region, self.bytes);
        match region {
            Region::Tile => write!(f, "fullest tile {bytes}"),
            Region::Executable | Region::Interleaved => {
                write!(f, "{region} {bytes} of {}", self.available)
            }
        }
    }
}

impl Metrics {
    /// Bytes on the fullest tile of all IPUs.
    #[must_use]
    pub fn fullest_tile(&self) -> Option<Bytes> {
        self.ipus.iter().map(|ipu| ipu.max_tile_bytes).max()
    }

    /// What fits or doesn't, in words.
    #[must_use]
    pub fn memory_text(&self) -> Option<String> {
        let fullest = self.fullest_tile()?;
        Some(match self.overflow {
            Some(taken) if taken.region == Region::Tile => format!("{taken}: does not fit"),
            Some(taken) => format!("fullest tile {fullest}, {taken}: does not fit"),
            None if self.fits => format!("fullest tile {fullest}: fits"),
            // The tiles aren't what is too small.
            None => format!("fullest tile {fullest}: fits, but streaming memory is too small"),
        })
    }
}

/// Metrics with all that is needed to reproduce them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// Version of the program.
    pub version: String,
    /// The simulated system.
    pub system: String,
    /// Its whole description, every constant with its source, as a machine file.
    pub machine: String,
    /// Whether collectives that are alike were merged: what alone of the program's own options
    /// changes what is compiled.
    #[serde(default)]
    pub merge_collectives: bool,
    /// What was measured.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// The whole resolved configuration.
    pub options: Map<String, Value>,
}

impl Report {
    /// The report of a run.
    #[must_use]
    pub fn new(request: &RunRequest, metrics: Metrics) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            system: request.machine.name.clone(),
            machine: request.machine.spec.to_toml(),
            merge_collectives: request.options.session.merge_collectives,
            metrics,
            options: request.resolved.clone(),
        }
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Metrics of an imagined run.

    use super::*;
    use crate::accuracy::Interval;

    pub(crate) fn metrics() -> Metrics {
        Metrics {
            throughput_sequences_per_second: 4096.0,
            accuracy: Accuracy {
                interval: Interval {
                    low: 4000.0,
                    high: 4194.304,
                },
                in_domain: true,
                ..Accuracy::default()
            },
            step_seconds: SimSeconds(16.0),
            step_cycles: Cycles(21_200_000_000),
            device_cycles: Cycles(21_193_375_000),
            latency_seconds: None,
            latencies: Vec::new(),
            host_seconds: HostTimes {
                compile: HostSeconds(1.5),
                simulate: HostSeconds(0.25),
            },
            fits: true,
            out_of_memory: None,
            overflow: None,
            ipus: vec![
                IpuMemory {
                    max_tile_bytes: Bytes(400_000),
                    total_bytes: Bytes(500_000_000),
                    bytes_by_category: BTreeMap::from([("weights".into(), Bytes(500_000_000))]),
                    ..IpuMemory::default()
                },
                IpuMemory {
                    max_tile_bytes: Bytes(600_000),
                    ..IpuMemory::default()
                },
            ],
            time: Explanation::default(),
            utilisation: Utilisation::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_that_is_too_small_is_named() {
        let text = |fits, overflow: Option<(Region, u64, u64)>| {
            let overflow = overflow.map(|(region, bytes, available)| Taken {
                region,
                bytes: Bytes(bytes),
                available: Bytes(available),
            });
            let metrics = Metrics {
                fits,
                overflow,
                ..fixtures::metrics()
            };
            metrics.memory_text().unwrap()
        };
        assert_eq!(text(true, None), "fullest tile 600000 B: fits");
        assert_eq!(
            text(false, Some((Region::Tile, 600_000, 500_000))),
            "fullest tile 600000 B: does not fit"
        );
        assert_eq!(
            text(false, Some((Region::Executable, 270_000, 262_144))),
            "fullest tile 600000 B, executable memory 270000 B of 262144 B: does not fit"
        );
        assert_eq!(
            text(false, None),
            "fullest tile 600000 B: fits, but streaming memory is too small"
        );
    }
}

//! The report of a run: its metrics with all that is needed to reproduce them.

use std::fmt;

use bench_core::headroom::Verdict;
use bench_core::metrics::{Metrics, RegionUse};
use ipu_sim::units::HostSeconds;
use ipu_sim::weigh::Region;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::request::RunRequest;

/// Version of the form of [`Report`]. It goes up when a field changes its name or meaning.
pub const SCHEMA_VERSION: u32 = 4;

/// Host time of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostTimes {
    /// Building the graph and compiling it.
    pub compile: HostSeconds,
    /// Running the program.
    pub simulate: HostSeconds,
}

/// Metrics with all that is needed to reproduce them: what `--metrics-json` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// Version of the program.
    pub version: String,
    /// The simulated system.
    pub system: String,
    /// Description of the machine, every constant with its source, as a machine file.
    pub machine: String,
    /// Metrics that the simulated machine measured.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Why the run doesn't fit, if it doesn't: the tile, by how much, and its largest tensors.
    pub out_of_memory: Option<String>,
    /// Host time that the simulation took.
    pub host_seconds: HostTimes,
    /// The whole resolved configuration, own options that are on included; `--config` reads it.
    pub options: Map<String, Value>,
}

impl Report {
    /// The report of a run.
    #[must_use]
    pub fn new(request: &RunRequest, measured: TimedMetrics) -> Self {
        let TimedMetrics {
            metrics,
            host_seconds,
        } = measured;
        Self {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            system: request.machine.name.clone(),
            machine: request.machine.spec.to_toml(),
            out_of_memory: metrics.refusal.as_ref().map(ToString::to_string),
            metrics,
            host_seconds,
            options: request.options.arguments(),
        }
    }
}

/// Metrics of a run, and the host time that its simulation took.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedMetrics {
    /// Metrics that the simulated machine measured.
    pub metrics: Metrics,
    /// Host time that the simulation took.
    pub host_seconds: HostTimes,
}

/// `fullest tile 400000 B`, or of a part of it `executable memory 270000 B of 262144 B`.
pub(crate) struct RegionUseText(pub(crate) RegionUse);

impl fmt::Display for RegionUseText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RegionUse {
            region,
            bytes,
            available,
        } = self.0;
        match region {
            Region::Tile => write!(f, "fullest tile {bytes}"),
            Region::Executable | Region::Interleaved => {
                write!(f, "{region} {bytes} of {available}")
            }
        }
    }
}

/// Message on memory, of what fits or doesn't; nothing of a run without IPUs.
#[must_use]
pub fn memory_text(metrics: &Metrics) -> Option<String> {
    let fullest = metrics.fullest_tile()?;
    Some(match metrics.overflow {
        Some(used) if used.region == Region::Tile => {
            format!("{}: does not fit", RegionUseText(used))
        }
        Some(used) => format!(
            "fullest tile {fullest}, {}: does not fit",
            RegionUseText(used)
        ),
        None if metrics.fits => match metrics.headroom {
            None => format!("fullest tile {fullest}: fits"),
            Some(room) => {
                let [spare, margin] =
                    [room.spare_bytes, room.margin_bytes].map(|bytes| room.percent(bytes));
                let room_text = format!("fullest tile {fullest}: fits with {spare:.1} % to spare");
                match room.verdict() {
                    Verdict::Close => format!(
                        "{room_text}, but a measured peak of training was {margin:.1} % of a tile \
                         above the simulated one, so that a real one may not fit"
                    ),
                    Verdict::Fits | Verdict::TooLarge => room_text,
                }
            }
        },
        // The tiles aren't what is too small.
        None => format!("fullest tile {fullest}: fits, but streaming memory is too small"),
    })
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Metrics of an imagined run.

    use bench_core::accuracy::{Accuracy, Interval};
    use bench_core::explain::Explanation;
    use bench_core::metrics::IpuMemory;
    use bench_core::utilisation::Utilisation;
    use ipu_sim::units::{Bytes, Cycles, SimSeconds};

    use super::*;

    /// The metrics, with host times.
    pub(crate) fn measured() -> TimedMetrics {
        TimedMetrics {
            metrics: metrics(),
            host_seconds: HostTimes {
                compile: HostSeconds(1.5),
                simulate: HostSeconds(0.25),
            },
        }
    }

    pub(crate) fn metrics() -> Metrics {
        Metrics {
            throughput_sequences_per_second: 4096.0,
            throughput_packs_per_second: None,
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
            fits: true,
            headroom: None,
            refusal: None,
            overflow: None,
            ipus: vec![
                IpuMemory {
                    max_tile_bytes: Bytes(400_000),
                    total_bytes: Bytes(500_000_000),
                    bytes_by_category: std::collections::BTreeMap::from([(
                        "weights".into(),
                        Bytes(500_000_000),
                    )]),
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
    use bench_core::headroom::Headroom;
    use ipu_sim::units::Bytes;

    use super::*;

    #[test]
    fn the_region_that_is_too_small_is_named() {
        let text = |fits, overflow: Option<(Region, u64, u64)>| {
            let overflow = overflow.map(|(region, bytes, available)| RegionUse {
                region,
                bytes: Bytes(bytes),
                available: Bytes(available),
            });
            let metrics = Metrics {
                fits,
                overflow,
                ..fixtures::metrics()
            };
            memory_text(&metrics).unwrap()
        };
        assert_eq!(text(true, None), "fullest tile 600000 B: fits");
        let with_room = |spare| {
            let metrics = Metrics {
                headroom: Some(Headroom {
                    spare_bytes: Bytes(spare),
                    margin_bytes: Bytes(20_000),
                    tile_bytes: Bytes(500_000),
                }),
                ..fixtures::metrics()
            };
            (metrics.verdict(), memory_text(&metrics).unwrap())
        };
        let (verdict, words) = with_room(20_000);
        assert_eq!(verdict, Verdict::Fits);
        assert_eq!(words, "fullest tile 600000 B: fits with 4.0 % to spare");
        let (verdict, words) = with_room(19_999);
        assert_eq!(verdict, Verdict::Close);
        assert!(
            words.ends_with(
                "4.0 % of a tile above the simulated one, so that a real one may not fit"
            )
        );
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

//! The form of [`configs/measurements.toml`](../../../configs/measurements.toml).

use anyhow::Context;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Row;

const MEASUREMENTS: &str = include_str!("../../../configs/measurements.toml");

/// What a row of the validation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Measured, and constants of the simulator were fitted to it.
    Calibration,
    /// Measured, and used for nothing else.
    Validation,
    /// What the estimators of the real compiler say.
    Law,
    /// Must hold between runs of the simulator, whatever its constants.
    Scaling,
}

/// All that was measured.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measurements {
    pub(super) throughput: Vec<Throughput>,
    pub(super) profile: Vec<Profile>,
    pub(super) link: Rate,
    pub(super) host: Range,
    pub(super) peak: Vec<Rate>,
    pub(super) gemm: Gemm,
}

/// Throughput of a command line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Throughput {
    pub(super) name: String,
    pub(super) system: String,
    pub(super) arguments: String,
    pub(super) sequences_per_second: f64,
    pub(super) role: Role,
    pub(super) source: String,
}

/// Memory of one IPU in a profile of the real compiler, in bytes over all its tiles.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) system: String,
    pub(super) arguments: String,
    /// Whether sizes of code were fitted to it.
    pub(super) role: Role,
    /// Encoder layers on the IPU.
    pub(super) layers: u32,
    /// Which IPU of the replica.
    pub(super) ipu: u32,
    pub(super) variables: f64,
    pub(super) vertex_state: f64,
    pub(super) vertex_code: Option<f64>,
    pub(super) exchange_code: Option<f64>,
    /// What another layer adds to it, where an equal one is there already.
    pub(super) exchange_code_of_a_layer: Option<f64>,
    pub(super) control_code: f64,
    /// Of the fullest tile, stacks and loader left out.
    pub(super) fullest_tile: Option<f64>,
    pub(super) fullest_over_mean: Option<f64>,
    pub(super) source: String,
}

/// A rate in the unit that its table says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    pub(super) name: String,
    pub(super) system: String,
    pub(super) unit: String,
    pub(super) value: f64,
    pub(super) tolerance: f64,
    pub(super) source: String,
}

impl Rate {
    /// The rate against what the simulator says.
    pub(super) fn row(self, found: f64) -> Row {
        Row {
            name: self.name,
            unit: self.unit,
            expected: self.value,
            found,
            tolerance: self.tolerance,
            is_range: false,
            role: Role::Validation,
            source: self.source,
        }
    }
}

/// A rate that is only known to lie between two values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    pub(super) name: String,
    pub(super) system: String,
    pub(super) unit: String,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) source: String,
}

impl Range {
    /// The range against what the simulator says.
    pub(super) fn row(self, found: f64) -> Row {
        Row {
            unit: self.unit,
            role: Role::Validation,
            source: self.source,
            ..Row::between([self.low, self.high], &self.name, found)
        }
    }
}

/// Cycles of a product on every tile, by rows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gemm {
    pub(super) name: String,
    pub(super) system: String,
    pub(super) source: String,
    pub(super) rows: Vec<(u32, f64)>,
}

/// Reads the measurements, which are compiled in.
///
/// # Errors
///
/// A malformed file, which would be a mistake of this program.
pub(super) fn measurements() -> anyhow::Result<Measurements> {
    toml::from_str(MEASUREMENTS).context("configs/measurements.toml")
}

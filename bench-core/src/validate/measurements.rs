//! The form of [`configs/measurements.toml`](../../../configs/measurements.toml).

use std::collections::BTreeMap;

use ipu_sim::spec::MachineSpec;
use ipu_sim::units::SimSeconds;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Row;
use crate::config::RunConfig;
use crate::measure::sequences_per_second;
use crate::presets;

const MEASUREMENTS: &str = include_str!("../../../configs/measurements.toml");

/// Origin and use of a row of the validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Measured, and constants of the simulator were fitted to it.
    Calibration,
    /// Measured, and a constant of the machine was read from it.
    Constant,
    /// Measured, and used for nothing else.
    Validation,
    /// What a data sheet or the code of the real system says; nobody printed a measurement.
    Documented,
    /// What the estimators of the real compiler say.
    Law,
    /// Must hold between runs of the simulator, whatever its constants.
    Scaling,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Calibration,
        Self::Constant,
        Self::Validation,
        Self::Documented,
        Self::Law,
        Self::Scaling,
    ];

    /// Name of the role in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calibration => "calibration",
            Self::Constant => "constant",
            Self::Validation => "validation",
            Self::Documented => "documented",
            Self::Law => "law",
            Self::Scaling => "scaling",
        }
    }
}

/// All that was measured.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measurements {
    pub(super) host_time: BTreeMap<Timed, HostTime>,
    pub(super) throughput: Vec<Throughput>,
    pub(super) profile: Vec<Profile>,
    pub(super) link: Rate,
    pub(super) host: Vec<HostRange>,
    pub(super) peak: Vec<Peak>,
    pub(super) gemm: Gemm,
    pub(super) exchange: Vec<Rate>,
    pub(super) paired: Rate,
    pub(super) local_copy: Rate,
    pub(super) outside: Vec<ExpectedDeviation>,
}

/// A measured run: a preset, what is said over its keys, and where it ran.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Run {
    /// The shipped machine.
    pub(super) system: String,
    /// The shipped configuration.
    preset: String,
    /// Other values for its keys.
    #[serde(default)]
    keys: Map<String, Value>,
    /// Keys of it that the run went without.
    #[serde(default)]
    without: Vec<String>,
}

impl Run {
    /// The run and its machine.
    ///
    /// # Panics
    ///
    /// Never: a test reads what ships.
    pub(super) fn resolve(&self) -> (RunConfig, MachineSpec) {
        let mut keys = presets::keys(&self.preset).expect("rows name presets that ship");
        keys.retain(|key, _| !self.without.contains(key));
        keys.extend(self.keys.clone());
        let config = RunConfig::from_keys(&keys);
        let machine = MachineSpec::shipped(&self.system).expect("rows name systems that ship");
        (config.expect("keys of rows are those of runs"), machine)
    }
}

/// What was in the clock of a measured rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Timed {
    /// The calls that run the device alone.
    #[serde(rename = "session.run")]
    SessionRun,
    /// Many steps, with what the host does between them.
    #[serde(rename = "block")]
    Block,
    /// Reading the data, and whatever a front end adds to a step.
    #[serde(rename = "end to end")]
    EndToEnd,
}

/// Time of the host that a clock held beside that of the device.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostTime {
    /// Of each step.
    pub(super) seconds: f64,
    /// The least and the most that sources leave possible.
    pub(super) range: [f64; 2],
    #[expect(dead_code, reason = "for who reads the file")]
    source: String,
}

/// What a measured rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Counted {
    /// Sequences; of packs, those in them.
    #[serde(rename = "sequences/s")]
    Sequences,
    /// Rows of the data, whatever each holds.
    #[serde(rename = "rows/s")]
    Rows,
}

impl Counted {
    pub(super) const ALL: [Self; 2] = [Self::Sequences, Self::Rows];

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Sequences => "sequences/s",
            Self::Rows => "rows/s",
        }
    }
}

/// Throughput of a run.
#[derive(Deserialize)]
pub(super) struct Throughput {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) run: Run,
    pub(super) rate: f64,
    pub(super) unit: Counted,
    pub(super) timed: Timed,
    /// The software that ran it, where that isn't PopART's application.
    pub(super) front_end: Option<String>,
    pub(super) role: Role,
    pub(super) source: String,
}

impl Throughput {
    /// How far off a simulated rate may be: less where the clock held the device alone.
    pub(super) fn tolerance(&self) -> f64 {
        match self.timed {
            Timed::SessionRun => 0.03,
            Timed::Block | Timed::EndToEnd => 0.05,
        }
    }

    /// The rate that this clock would show if a step of the device takes so long.
    pub(super) fn predicted(
        &self,
        config: &RunConfig,
        step: SimSeconds,
        host: &BTreeMap<Timed, HostTime>,
    ) -> f64 {
        self.rate_of(config, SimSeconds(step.0 + self.host_seconds(host)))
    }

    /// Time of the host that the clock held in each step, in seconds.
    pub(super) fn host_seconds(&self, host: &BTreeMap<Timed, HostTime>) -> f64 {
        host[&self.timed].seconds
    }

    /// The step that the clock showed, in seconds.
    pub(super) fn step(&self, config: &RunConfig) -> f64 {
        self.rate_of(config, SimSeconds(1.0)) / self.rate
    }

    fn rate_of(&self, config: &RunConfig, step: SimSeconds) -> f64 {
        match self.unit {
            Counted::Sequences => sequences_per_second(config, step),
            Counted::Rows => config.samples_per_step() as f64 / step.0,
        }
    }

    /// Changes of the logarithm of that rate if the host took the least and the most.
    pub(super) fn left_open(
        &self,
        config: &RunConfig,
        step: SimSeconds,
        host: &BTreeMap<Timed, HostTime>,
    ) -> [f64; 2] {
        let predicted = self.predicted(config, step, host);
        let ends = host[&self.timed].range.map(|end| SimSeconds(step.0 + end));
        ends.map(|step| libm::log(self.rate_of(config, step) / predicted))
    }
}

/// Memory of one IPU in a profile of the real compiler, in bytes over all its tiles.
#[derive(Deserialize)]
pub(super) struct Profile {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) run: Run,
    /// Which of its sizes of code constants were fitted to.
    #[serde(default)]
    pub(super) fitted_code: Vec<Code>,
    /// Which IPU of the replica.
    pub(super) ipu: u32,
    pub(super) variables: f64,
    pub(super) vertex_state: f64,
    pub(super) vertex_code: Option<f64>,
    pub(super) exchange_code: Option<f64>,
    pub(super) control_code: f64,
    /// Of the fullest tile, stacks and loader left out.
    pub(super) fullest_tile: Option<f64>,
    pub(super) fullest_over_mean: Option<f64>,
    /// Layers, each weighed alone.
    #[serde(default)]
    pub(super) layer: Vec<ProfileEntry>,
    /// Layers that are alike but for exchange code.
    pub(super) alike: Option<SimilarLayers>,
    /// Operations, each weighed alone.
    #[serde(default)]
    pub(super) operation: Vec<ProfileEntry>,
    pub(super) source: String,
}

/// A size of code that constants of a machine determine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Code {
    Vertex,
    Exchange,
    Control,
}

impl Code {
    pub(super) const ALL: [Self; 3] = [Self::Vertex, Self::Exchange, Self::Control];

    /// What rows call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vertex => "vertex code",
            Self::Exchange => "exchange code",
            Self::Control => "control code",
        }
    }

    /// The role of a row, if constants were fitted to `fitted`.
    pub(super) fn role(self, fitted: &[Self]) -> Role {
        if fitted.contains(&self) {
            Role::Calibration
        } else {
            Role::Validation
        }
    }
}

/// Layers of a profile, from the first to the last.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SimilarLayers {
    pub(super) name: String,
    pub(super) layers: [u32; 2],
    /// The least and the most that one of them has, weighed alone.
    pub(super) exchange_code: [f64; 2],
}

/// A part of a profile, in bytes over all tiles.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileEntry {
    pub(super) name: String,
    /// Names of the profile's lines, or beginnings of them that end in `/`.
    pub(super) lines: Vec<String>,
    /// Which of its sizes of code constants were fitted to.
    #[serde(default)]
    pub(super) fitted_code: Vec<Code>,
    pub(super) vertex_state: f64,
    pub(super) vertex_code: f64,
    pub(super) exchange_code: f64,
    pub(super) control_code: f64,
    pub(super) variables: Option<f64>,
}

impl ProfileEntry {
    /// What was measured.
    pub(super) fn code(&self, of: Code) -> f64 {
        match of {
            Code::Vertex => self.vertex_code,
            Code::Exchange => self.exchange_code,
            Code::Control => self.control_code,
        }
    }

    /// Whether a line of the profile belongs to the part.
    pub(super) fn has(&self, line: &str) -> bool {
        let mut lines = self.lines.iter();
        lines.any(|name| line == name || name.ends_with('/') && line.starts_with(name.as_str()))
    }
}

/// A figure in the unit that its table says.
#[derive(Deserialize)]
pub(super) struct Rate {
    pub(super) name: String,
    pub(super) system: String,
    pub(super) unit: String,
    pub(super) value: f64,
    pub(super) tolerance: f64,
    pub(super) role: Role,
    pub(super) source: String,
}

impl Rate {
    /// The figure against what the simulator says.
    pub(super) fn row(&self, found: f64) -> Row {
        Row {
            name: self.name.clone(),
            unit: self.unit.clone(),
            expected: self.value,
            found,
            tolerance: self.tolerance,
            is_range: false,
            role: self.role,
            source: self.source.clone(),
            known: None,
        }
    }
}

/// Types of the operands and of the result of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Product {
    F32,
    F16,
    /// Half operands, single results.
    Mixed,
}

/// Peak rate of a chip or a machine.
#[derive(Deserialize)]
pub(super) struct Peak {
    pub(super) ipus: u32,
    pub(super) product: Product,
    #[serde(flatten)]
    pub(super) rate: Rate,
}

/// Seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HostDirection {
    In,
    Out,
}

/// A rate between host and device that is only known to lie between two values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostRange {
    pub(super) name: String,
    pub(super) system: String,
    pub(super) way: HostDirection,
    pub(super) unit: String,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) source: String,
}

impl HostRange {
    /// The range against what the simulator says.
    pub(super) fn row(&self, found: f64) -> Row {
        Row {
            unit: self.unit.clone(),
            role: Role::Validation,
            source: self.source.clone(),
            ..Row::between([self.low, self.high], &self.name, found)
        }
    }
}

/// Products on every tile.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gemm {
    pub(super) name: String,
    pub(super) system: String,
    pub(super) role: Role,
    pub(super) source: String,
    /// Rows, TFLOP/s.
    pub(super) rows: Vec<(u32, f64)>,
}

/// Rows that are known to be outside their tolerance, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedDeviation {
    pub(super) rows: Vec<String>,
    pub(super) reason: String,
    /// The largest relative error that this explains.
    pub(super) at_most: f64,
}

/// Reads the measurements, which are compiled in.
///
/// # Panics
///
/// Never: a test reads what ships.
pub(super) fn measurements() -> Measurements {
    toml::from_str(MEASUREMENTS).expect("configs/measurements.toml is well-formed, as a test shows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ships_can_be_read() {
        let measured = measurements();
        let runs = measured.throughput.iter().map(|row| &row.run);
        for run in runs.chain(measured.profile.iter().map(|row| &row.run)) {
            let (config, machine) = run.resolve();
            assert!(config.ipus_requested() <= machine.n_ipus, "{run:?}");
        }
    }
}

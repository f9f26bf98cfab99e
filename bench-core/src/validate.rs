//! The simulator against what was measured on real machines.
//!
//! Every row goes through a real program: a compiled run of BERT, or a hand-written program of
//! a few steps that the engine times. The measurements are data
//! ([`configs/measurements.toml`](../../configs/measurements.toml)) with their sources.
//! Rows of *scaling* compare runs with each other and hold whatever the constants are.
//!
//! Rows of *law* hold vertices and plans against totals of PopLibs' own estimators.

pub mod calibrate;
mod hardware;
mod laws;
mod measurements;
mod memory;
mod plans;
mod scaling;

use ipu_sim::engine;
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::SimSeconds;
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;
use schemars::JsonSchema;
use serde::Serialize;

pub use self::measurements::Role;
use self::measurements::{Counted, measurements};
use crate::compile::{Compiled, compile};
use crate::config::RunConfig;
use crate::error::Result;
use crate::evaluate::TIMING;
use crate::measure::sequences_per_second;

/// Version of the written form of [`Validation`]; it rises with every change that breaks a reader.
const SCHEMA: u32 = 1;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Row {
    /// Name of the compared value.
    pub name: String,
    /// Unit of both values.
    pub unit: String,
    /// Measured, or what a law says.
    pub expected: f64,
    /// Simulated.
    pub found: f64,
    /// Largest relative error that passes.
    pub tolerance: f64,
    /// Whether `expected` and `tolerance` only say between what the value must lie.
    pub is_range: bool,
    /// Use of the row: calibration, constant, validation.
    pub role: Role,
    /// Where `expected` comes from.
    pub source: String,
    /// Why the row is known to be outside its tolerance, if it is.
    #[serde(flatten)]
    pub known: Option<KnownDeviation>,
}

/// Why a row is outside its tolerance.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct KnownDeviation {
    /// The reason.
    #[serde(rename = "known")]
    pub reason: String,
    /// The largest relative error that it explains.
    #[serde(rename = "known_at_most")]
    pub at_most: f64,
}

impl Row {
    /// A ratio of the simulator's that must lie between two values, whatever its constants.
    fn between([low, high]: [f64; 2], name: &str, found: f64) -> Self {
        let middle = (low + high) / 2.0;
        Self {
            name: name.into(),
            unit: "ratio".into(),
            expected: middle,
            found,
            // A hair more, for what rounds.
            tolerance: (high / middle - 1.0) * (1.0 + 1e-9),
            is_range: true,
            role: Role::Scaling,
            source: String::new(),
            known: None,
        }
    }

    /// Relative error of the simulated value.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.found / self.expected - 1.0
    }

    /// Whether the row is as it is known to be: within its tolerance, or outside for a known reason
    /// and no farther than that explains.
    #[must_use]
    pub fn is_as_known(&self) -> bool {
        match &self.known {
            Some(known) => !self.passes() && self.error().abs() <= known.at_most,
            None => self.passes(),
        }
    }

    /// Whether the error is within the tolerance.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.error().abs() <= self.tolerance
    }
}

/// All comparisons.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Validation {
    schema_version: u32,
    /// In the order of the table.
    pub rows: Vec<Row>,
}

/// Runs every comparison; `done` hears of each.
///
/// # Errors
///
/// Measurements or runs that are malformed, which would be a mistake of this program.
///
/// # Panics
///
/// If a reason in the measurements is for a row that doesn't exist.
pub fn validate(mut done: impl FnMut(&Row)) -> Result<Validation> {
    let measured = measurements();
    let mut rows = Vec::new();
    let mut add = |mut more: Vec<Row>| {
        for row in &mut more {
            let mut outside = measured.outside.iter();
            let found = outside.find(|outside| outside.rows.contains(&row.name));
            row.known = found.map(|outside| KnownDeviation {
                reason: outside.reason.clone(),
                at_most: outside.at_most,
            });
        }
        more.iter().for_each(&mut done);
        rows.extend(more);
    };
    for row in &measured.throughput {
        let (config, machine) = row.run.resolve();
        add(vec![Row {
            found: row.predicted(&config, step(&config, &machine)?, &measured.host_time),
            name: row.name.clone(),
            unit: row.unit.unit().into(),
            expected: row.rate,
            tolerance: row.tolerance(),
            is_range: false,
            role: row.role,
            source: row.source.clone(),
            known: None,
        }]);
    }
    for profiles in measured.profile.chunk_by(|a, b| a.run == b.run) {
        add(memory::rows(profiles)?);
    }
    add(hardware::rows(&measured)?);
    add(laws::rows(&machine("mk2-pod16"))?);
    add(plans::rows(&machine("mk2-m2000"))?);
    add(scaling::rows()?);
    let reasons = measured.outside.iter().flat_map(|outside| &outside.rows);
    let known = rows.iter().filter(|row| row.known.is_some());
    assert_eq!(
        known.count(),
        reasons.count(),
        "a reason is for a row that exists"
    );
    Ok(Validation {
        schema_version: SCHEMA,
        rows,
    })
}

fn machine(name: &str) -> MachineSpec {
    MachineSpec::shipped(name).expect("the machine ships")
}

/// The program of a run, compiled alone.
fn compiled(config: &RunConfig, machine: &MachineSpec) -> Result<Compiled> {
    let plans = PlanCache::new(machine.tile.clone());
    compile(config, machine, &plans, Watch::nobody())
}

fn throughput(config: &RunConfig, machine: &MachineSpec) -> Result<f64> {
    Ok(sequences_per_second(config, step(config, machine)?))
}

/// The time of a step.
fn step(config: &RunConfig, machine: &MachineSpec) -> Result<SimSeconds> {
    let program = compiled(config, machine)?.program;
    let timeline = engine::time(&program, machine, TIMING)?;
    Ok(machine.tile.clock.seconds(timeline.total))
}

impl Validation {
    /// Largest absolute error of the throughput of runs.
    #[must_use]
    pub fn largest_throughput_error(&self) -> f64 {
        let units = Counted::ALL.map(Counted::unit);
        let is_rate = |row: &&Row| units.contains(&row.unit.as_str());
        let rows = self.rows.iter().filter(is_rate);
        rows.map(|row| row.error().abs()).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_explains_so_much_of_an_error() {
        let row = |found: f64, at_most: Option<f64>| Row {
            tolerance: 0.1,
            is_range: false,
            expected: 1.0,
            known: at_most.map(|at_most| KnownDeviation {
                reason: "it is so".into(),
                at_most,
            }),
            ..Row::between([0.9, 1.1], "row", found)
        };
        assert!(row(1.05, None).is_as_known());
        assert!(!row(1.2, None).is_as_known());
        assert!(row(0.8, Some(0.25)).is_as_known());
        assert!(!row(0.7, Some(0.25)).is_as_known(), "farther off than that");
        assert!(!row(1.0, Some(0.25)).is_as_known(), "a reason for nothing");
    }
}

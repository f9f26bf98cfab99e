//! `ipu-bench validate`: the simulator against what was measured on real machines.
//!
//! Every row goes through a real program: a compiled run of BERT, or a hand-written program of
//! a few steps that the engine times. The measurements are data
//! ([`configs/measurements.toml`](../../../configs/measurements.toml)) with their sources.
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

use comfy_table::{CellAlignment, Table, presets};
use ipu_sim::engine;
use ipu_sim::spec::MachineSpec;
use schemars::JsonSchema;
use serde::Serialize;

pub use self::measurements::Role;
use self::measurements::measurements;
use crate::args;
use crate::clock::Date;
use crate::compile;
use crate::measure::sequences_per_second;
use crate::request::{RunRequest, prepare};
use crate::run::TIMING;

/// Version of the form of `--json`; it rises with every change that breaks a reader.
const SCHEMA: u32 = 1;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Row {
    /// What is compared.
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
    /// What the row was used for.
    pub role: Role,
    /// Where `expected` comes from.
    pub source: String,
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
        }
    }

    /// Relative error of the simulated value.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.found / self.expected - 1.0
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
pub fn validate(mut done: impl FnMut(&Row)) -> anyhow::Result<Validation> {
    let measured = measurements()?;
    let mut rows = Vec::new();
    let mut add = |more: Vec<Row>| {
        more.iter().for_each(&mut done);
        rows.extend(more);
    };
    for row in measured.throughput {
        let request = request(&row.system, &row.arguments)?;
        add(vec![Row {
            found: throughput(&request, &request.machine.spec)?,
            name: row.name,
            unit: "sequences/s".into(),
            expected: row.sequences_per_second,
            tolerance: 0.03,
            is_range: false,
            role: row.role,
            source: row.source,
        }]);
    }
    for profile in &measured.profile {
        add(memory::rows(profile)?);
    }
    let gemm = measured.gemm;
    let bow = machine(&gemm.system)?;
    for (n, cycles) in gemm.rows {
        add(vec![Row {
            name: format!("{}, N = {n}", gemm.name),
            unit: "cycles".into(),
            expected: cycles,
            found: hardware::gemm_cycles(&bow, n)?,
            tolerance: 0.02,
            is_range: false,
            role: Role::Validation,
            source: gemm.source.clone(),
        }]);
    }
    for rate in measured.peak {
        let machine = machine(&rate.system)?;
        let found = hardware::single_precision_rate(&machine)? / 1e12;
        add(vec![rate.row(found)]);
    }
    let link = measured.link;
    let found = hardware::link_rate(&machine(&link.system)?)? / 1e9;
    add(vec![link.row(found)]);
    let host = measured.host;
    let found = hardware::host_rate(&machine(&host.system)?)? / 1e9;
    add(vec![host.row(found)]);
    add(laws::rows(&machine("mk2-pod16")?)?);
    add(plans::rows(&machine("mk2-m2000")?)?);
    add(scaling::rows()?);
    Ok(Validation {
        schema_version: SCHEMA,
        rows,
    })
}

fn machine(name: &str) -> anyhow::Result<MachineSpec> {
    Ok(MachineSpec::shipped(name)?)
}

fn request(system: &str, arguments: &str) -> anyhow::Result<RunRequest> {
    let words = arguments.split_whitespace().map(String::from);
    let words = words.chain(["--system".into(), system.to_string()]);
    let given = args::parse(words)?;
    Ok(prepare(&given, Date::now())?.request)
}

fn throughput(request: &RunRequest, machine: &MachineSpec) -> anyhow::Result<f64> {
    let program = compile::compile(&request.options, machine)?.lowered.program;
    let timeline = engine::time(&program, machine, TIMING)?;
    let step = machine.tile.clock.seconds(timeline.total);
    Ok(sequences_per_second(&request.options.batching, step))
}

impl Validation {
    /// Largest absolute error of the throughput of runs.
    #[must_use]
    pub fn largest_throughput_error(&self) -> f64 {
        let rows = self.rows.iter().filter(|row| row.unit == "sequences/s");
        rows.map(|row| row.error().abs()).fold(0.0, f64::max)
    }

    /// The rows as a table, with a summary.
    #[must_use]
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header([
            "row",
            "unit",
            "expected",
            "simulated",
            "error",
            "passes",
            "role",
        ]);
        for column in 2..5 {
            let column = table
                .column_mut(column)
                .expect("the header has seven columns");
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &self.rows {
            let decimals = match row.expected {
                x if x < 10.0 => 3,
                x if x < 100_000.0 => 1,
                _ => 0,
            };
            let role = match row.role {
                Role::Calibration => "calibration",
                Role::Validation => "validation",
                Role::Law => "law",
                Role::Scaling => "scaling",
            };
            let (expected, error) = if row.is_range {
                let [low, high] =
                    [-1.0, 1.0].map(|side| row.expected * (1.0 + side * row.tolerance));
                (format!("{low:.decimals$} to {high:.decimals$}"), "-".into())
            } else {
                let error = format!("{:+.1} %", 100.0 * row.error());
                (format!("{:.decimals$}", row.expected), error)
            };
            table.add_row([
                row.name.clone(),
                row.unit.clone(),
                expected,
                format!("{:.decimals$}", row.found),
                error,
                if row.passes() { "yes" } else { "NO" }.into(),
                role.into(),
            ]);
        }
        let passed = self.rows.iter().filter(|row| row.passes()).count();
        format!(
            "{table}\n{passed} of {} rows within their tolerance; largest error of a throughput \
             {:.1} %\n",
            self.rows.len(),
            100.0 * self.largest_throughput_error()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_within_its_tolerance() {
        let mut heard = 0;
        let found = validate(|_| heard += 1).unwrap();
        assert_eq!(heard, found.rows.len());
        assert!(found.rows.iter().all(Row::passes), "{}", found.text());
        assert!(found.largest_throughput_error() < 0.03);
    }
}

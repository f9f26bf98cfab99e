//! `ipu-bench validate`: the simulator against what was measured on real machines.
//!
//! Every row goes through a real program: a compiled run of BERT, or a hand-written program of
//! a few steps that the engine times. The measurements are data
//! ([`configs/measurements.toml`](../../../configs/measurements.toml)) with their sources.
//! Rows of *scaling* compare runs with each other and hold whatever the constants are.
//!
//! Left out: laws of single vertices and plans against PopLibs' figures, which are tests of
//! the crates that hold them.

pub mod calibrate;
mod hardware;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use ipu_sim::engine;
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::Hertz;
use ipu_sim::weigh::{self, Category};
use serde::{Deserialize, Serialize};

use crate::args;
use crate::clock::Date;
use crate::compile;
use crate::measure::sequences_per_second;
use crate::request::{RunRequest, prepare};
use crate::run::TIMING;

const MEASUREMENTS: &str = include_str!("../../configs/measurements.toml");

/// Version of the form of `--json`; it rises with every change that breaks a reader.
const SCHEMA: u32 = 1;

/// Whether constants of the simulator were fitted to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Fitted to it.
    Calibration,
    /// Measured, and used for nothing else.
    Validation,
    /// Must hold between runs of the simulator.
    Scaling,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What is compared.
    pub name: String,
    /// Unit of both values.
    pub unit: &'static str,
    /// Measured, or what a law says.
    pub expected: f64,
    /// Simulated.
    pub found: f64,
    /// Largest relative error that passes.
    pub tolerance: f64,
    /// What the row was used for.
    pub role: Role,
    /// Where `expected` comes from.
    pub source: String,
}

impl Row {
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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Validation {
    schema_version: u32,
    /// In the order of the table.
    pub rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Measurements {
    throughput: Vec<Throughput>,
    profile: Profile,
    link: Link,
    gemm: Gemm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Throughput {
    name: String,
    system: String,
    arguments: String,
    sequences_per_second: f64,
    role: Role,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    name: String,
    system: String,
    arguments: String,
    variables: f64,
    vertex_state: f64,
    vertex_code: f64,
    exchange_code: f64,
    control_code: f64,
    fullest_over_mean: f64,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    name: String,
    system: String,
    gigabytes_per_second: f64,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gemm {
    name: String,
    system: String,
    source: String,
    rows: Vec<(u32, f64)>,
}

/// Runs every comparison; `done` hears of each.
///
/// # Errors
///
/// Measurements or runs that are malformed, which would be a mistake of this program.
pub fn validate(mut done: impl FnMut(&Row)) -> anyhow::Result<Validation> {
    let measured: Measurements =
        toml::from_str(MEASUREMENTS).context("configs/measurements.toml")?;
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
            unit: "sequences/s",
            expected: row.sequences_per_second,
            tolerance: 0.03,
            role: row.role,
            source: row.source,
        }]);
    }
    add(memory(measured.profile)?);
    let gemm = measured.gemm;
    let bow = machine(&gemm.system)?;
    for (n, cycles) in gemm.rows {
        add(vec![Row {
            name: format!("{}, N = {n}", gemm.name),
            unit: "cycles",
            expected: cycles,
            found: hardware::gemm_cycles(&bow, n)?,
            tolerance: 0.02,
            role: Role::Validation,
            source: gemm.source.clone(),
        }]);
    }
    let link = measured.link;
    add(vec![Row {
        name: link.name,
        unit: "GB/s",
        expected: link.gigabytes_per_second,
        found: hardware::link_rate(&machine(&link.system)?)? / 1e9,
        tolerance: 0.02,
        role: Role::Validation,
        source: link.source,
    }]);
    add(scaling()?);
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

/// Bytes of the profile's program by category, against those of the real compiler.
fn memory(profile: Profile) -> anyhow::Result<Vec<Row>> {
    let request = request(&profile.system, &profile.arguments)?;
    let machine = &request.machine.spec;
    let program = compile::compile(&request.options, machine)?.lowered.program;
    let weight = weigh::weigh(&program, machine)?;
    let ipu = weight.ipus.values().next().context("a program has IPUs")?;
    let sum = |wanted: &dyn Fn(Category) -> bool| -> f64 {
        let found = Category::all().filter(|&category| wanted(category));
        found.map(|category| ipu.sum(category).0 as f64).sum()
    };
    let is_variable =
        |category| matches!(category, Category::AlwaysLive(_) | Category::NotAlwaysLive);
    let mean = ipu.total.0 as f64 / ipu.tiles.len() as f64;
    let rows = [
        ("variables", profile.variables, sum(&is_variable), 0.15),
        (
            "vertex state",
            profile.vertex_state,
            sum(&|category| category == Category::VertexState),
            0.15,
        ),
        (
            "vertex code",
            profile.vertex_code,
            sum(&|category| category == Category::VertexCode),
            0.15,
        ),
        (
            "exchange code",
            profile.exchange_code,
            sum(&|category| category == Category::ExchangeCode),
            0.15,
        ),
        (
            "control code",
            profile.control_code,
            sum(&|category| category == Category::ControlCode),
            0.15,
        ),
        (
            "fullest tile over mean",
            profile.fullest_over_mean,
            ipu.max().0 as f64 / mean,
            0.05,
        ),
    ];
    let row = |(what, expected, found, tolerance): (&str, f64, f64, f64)| Row {
        name: format!("{}: {what}", profile.name),
        unit: if what.contains("over") { "ratio" } else { "B" },
        expected,
        found,
        tolerance,
        // Code sizes were fitted to it; variables and evenness weren't.
        role: match what {
            "vertex code" | "exchange code" | "control code" => Role::Calibration,
            _ => Role::Validation,
        },
        source: profile.source.clone(),
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Comparisons between runs of the simulator.
fn scaling() -> anyhow::Result<Vec<Row>> {
    let large = "--config configs/mk2/pretrain_large_128.json --generated-data true --epochs 1";
    let run = |system: &str, more: &str| -> anyhow::Result<(f64, f64)> {
        let request = request(system, &format!("{large} {more}"))?;
        let per_second = throughput(&request, &request.machine.spec)?;
        let sequences = request.options.batching.sequences_per_step() as f64;
        Ok((per_second, sequences / per_second))
    };
    // Micro-batches of 8 on 4 replicas. Beyond filling and draining, every micro-batch costs the same.
    let step = |accumulation: u32| {
        let global = accumulation * 8 * 4;
        let more = format!("--global-batch-size {global}");
        run("mk2-pod16", &more).map(|(_, seconds)| seconds)
    };
    let steps = [step(64)?, step(128)?, step(192)?];
    let law = "closed form: time of a step is linear in the accumulation factor";
    let linear = Row {
        name: "64 more micro-batches, twice".into(),
        unit: "ratio",
        expected: 1.0,
        found: (steps[2] - steps[1]) / (steps[1] - steps[0]),
        tolerance: 1e-6,
        role: Role::Scaling,
        source: law.into(),
    };
    // The same work on tiles that are twice as fast, with links as they are.
    let request = request("mk2-pod16", large)?;
    let spec = &request.machine.spec;
    let mut fast = spec.clone();
    fast.tile.clock = Hertz(2.0 * spec.tile.clock.0);
    let speed_up = throughput(&request, &fast)? / throughput(&request, spec)?;
    let clock = Row {
        name: "twice the clock, links unchanged".into(),
        unit: "ratio",
        expected: 1.95,
        found: speed_up,
        // Between 1.9 and 2: tiles take most of the time, not all.
        tolerance: 0.05 / 1.95,
        role: Role::Scaling,
        source: "between 1.9 and 2: link, host and memory times don't shrink".into(),
    };
    Ok(vec![linear, clock])
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
                Role::Scaling => "scaling",
            };
            table.add_row([
                row.name.clone(),
                row.unit.into(),
                format!("{:.decimals$}", row.expected),
                format!("{:.decimals$}", row.found),
                format!("{:+.1} %", 100.0 * row.error()),
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

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
use indexmap::IndexMap;
use ipu_sim::engine;
use ipu_sim::spec::MachineSpec;
use popart_graph::passes::Watch;
use schemars::JsonSchema;
use serde::Serialize;

pub use self::measurements::Role;
use self::measurements::{Profile, measurements};
use crate::accuracy::Record;
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
    /// Why the row is known to be outside its tolerance, if it is.
    #[serde(flatten)]
    pub known: Option<Known>,
}

/// Why a row is outside its tolerance.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Known {
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

    /// The row as a line of the table.
    fn cells(&self) -> [String; 7] {
        let decimals = match self.expected {
            x if x < 10.0 => 3,
            x if x < 100_000.0 => 1,
            _ => 0,
        };
        let (expected, error) = if self.is_range {
            let [low, high] = [-1.0, 1.0].map(|side| self.expected * (1.0 + side * self.tolerance));
            (format!("{low:.decimals$} to {high:.decimals$}"), "-".into())
        } else {
            let error = format!("{:+.1} %", 100.0 * self.error());
            (format!("{:.decimals$}", self.expected), error)
        };
        [
            self.name.clone(),
            self.unit.clone(),
            expected,
            format!("{:.decimals$}", self.found),
            error,
            if self.passes() { "yes" } else { "NO" }.into(),
            self.role.name().into(),
        ]
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
pub fn validate(mut done: impl FnMut(&Row)) -> anyhow::Result<Validation> {
    let measured = measurements()?;
    let mut rows = Vec::new();
    let mut add = |mut more: Vec<Row>| {
        for row in &mut more {
            let mut outside = measured.outside.iter();
            let found = outside.find(|outside| outside.rows.contains(&row.name));
            row.known = found.map(|outside| Known {
                reason: outside.reason.clone(),
                at_most: outside.at_most,
            });
        }
        more.iter().for_each(&mut done);
        rows.extend(more);
    };
    for row in &measured.throughput {
        let request = request(&row.system, &row.arguments)?;
        add(vec![Row {
            found: throughput(&request, &request.machine.spec)?,
            name: row.name.clone(),
            unit: "sequences/s".into(),
            expected: row.sequences_per_second,
            tolerance: 0.03,
            is_range: false,
            role: row.role,
            source: row.source.clone(),
            known: None,
        }]);
    }
    let run = |profile: &Profile| (profile.system.clone(), profile.arguments.clone());
    for profiles in measured.profile.chunk_by(|a, b| run(a) == run(b)) {
        add(memory::rows(profiles)?);
    }
    add(hardware::rows(&measured)?);
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
    let program = compile::compile(
        &request.options,
        machine,
        &compile::plans_for(machine),
        Watch::nobody(),
    )?
    .lowered
    .program;
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

    /// How many rows of each role are within their tolerance.
    fn by_role(&self) -> String {
        let counts = Role::ALL.map(|role| {
            let rows = self.rows.iter().filter(|row| row.role == role);
            let (count, passed) = rows.fold((0, 0), |(count, passed), row| {
                (count + 1, passed + usize::from(row.passes()))
            });
            format!("{} {passed} of {count}", role.name())
        });
        counts.join(", ")
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
            table.add_row(row.cells());
        }
        let (passed, outside): (Vec<&Row>, Vec<&Row>) =
            self.rows.iter().partition(|row| row.passes());
        let mut text = format!(
            "{table}\n{} of {} rows within their tolerance ({}); largest error of a throughput \
             {:.1} %, or {:.1} % where its row is left out of the fit\n",
            passed.len(),
            self.rows.len(),
            self.by_role(),
            100.0 * self.largest_throughput_error(),
            100.0 * Record::shipped().largest_error()
        );
        for (reason, names) in by_reason(&outside) {
            text += &format!("outside, {reason}: {}\n", names.join("; "));
        }
        text
    }
}

/// Names of rows by what is known of them, in the order of the first of each.
fn by_reason<'a>(outside: &[&'a Row]) -> IndexMap<&'a str, Vec<&'a str>> {
    let mut reasons: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for row in outside {
        let known = row.known.as_ref();
        let reason = known.map_or("for an unknown reason", |known| &known.reason);
        reasons.entry(reason).or_default().push(&row.name);
    }
    reasons
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    #[test]
    fn every_row_is_within_its_tolerance_or_known_not_to_be() {
        let mut heard = 0;
        let found = validate(|_| heard += 1).unwrap();
        assert_eq!(heard, found.rows.len());
        assert!(found.rows.iter().all(Row::is_as_known), "{}", found.text());
        assert!(found.largest_throughput_error() < 0.03);
        let listed = measurements().unwrap().outside;
        let listed: usize = listed.iter().map(|outside| outside.rows.len()).sum();
        let known = found.rows.iter().filter(|row| row.known.is_some());
        assert_eq!(known.count(), listed, "a reason is for a row that exists");
        expect_file!["../../docs/validation-rows.md"].assert_eq(&page(&found));
    }

    #[test]
    fn a_reason_explains_so_much_of_an_error() {
        let row = |found: f64, at_most: Option<f64>| Row {
            tolerance: 0.1,
            is_range: false,
            expected: 1.0,
            known: at_most.map(|at_most| Known {
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

    /// `docs/validation-rows.md`.
    fn page(found: &Validation) -> String {
        let (plans, rows): (Vec<&Row>, Vec<&Row>) = found
            .rows
            .iter()
            .partition(|row| row.name.starts_with("plan "));
        let passed = found.rows.iter().filter(|row| row.passes()).count();
        let mut page = format!(
            "{INTRODUCTION}\n{} rows, {passed} of them within their tolerance; the {} of plans are \
             in [plan tables](plan-tables.md).\n\n\
             | row | unit | expected | simulated | error | tolerance | passes |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
            found.rows.len(),
            plans.len(),
        );
        for row in rows {
            let [name, unit, expected, found, error, passes, _] = row.cells();
            let tolerance = match row.is_range {
                true => "-".into(),
                false => format!("{:.1} %", 100.0 * row.tolerance),
            };
            page += &format!(
                "| {name} | {unit} | {expected} | {found} | {error} | {tolerance} | {passes} |\n"
            );
        }
        page
    }

    const INTRODUCTION: &str = "\
# Rows of the validation

What `ipu-bench validate` compares, and how far off it is; [validation](validation.md) says what the rows are.
The test `validate::tests` of `bench-cli` writes this page and fails when it is out of date:

```sh
UPDATE_EXPECT=1 cargo test -p bench-cli --lib validate::tests
```
";
}

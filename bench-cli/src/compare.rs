//! Two reports side by side: what was measured, and which options differ.
//!
//! Reports of suites are compared run by run, by name. Host times are left out: they differ
//! between any two runs.

use std::collections::BTreeMap;
use std::path::Path;

use bench_core::accuracy::Record;
use bench_core::accuracy::ratio::Known;
use bench_core::measure::Latency;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value};

use crate::args::values;
use crate::metrics::{Report, SCHEMA_VERSION};
use crate::text::FileKind;
use crate::{Error, Result, text};

/// Reports that one file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Reports {
    /// Name of the file as given.
    pub file: String,
    /// The reports by run; a single one has no name.
    pub runs: BTreeMap<String, Report>,
    /// Runs that failed, which have no report.
    pub failed: Vec<String>,
}

/// Reads the metrics of a run or of a suite.
///
/// # Errors
///
/// A file that can't be read, isn't JSON, or isn't a report of this version.
pub fn read(path: &Path) -> Result<Reports> {
    let text = text::read(path, FileKind::Report)?;
    parse(path.display().to_string(), &text)
}

fn parse(file: String, text: &str) -> Result<Reports> {
    let value: Value = serde_json::from_str(text).map_err(|json| Error::Json {
        path: file.clone(),
        json,
    })?;
    let mut found = Reports {
        file,
        runs: BTreeMap::new(),
        failed: Vec::new(),
    };
    match value {
        Value::Array(entries) => {
            if entries.is_empty() {
                return Err(not_one(&found.file, "it has no runs".into()));
            }
            for (place, entry) in entries.iter().enumerate() {
                let name = entry.get("run").and_then(Value::as_str).map(String::from);
                let (report_of, error) = (entry.get("report"), entry.get("error"));
                match (name, report_of, error) {
                    (Some(name), Some(value), _) => {
                        let report = report(&found.file, value)?;
                        found.runs.insert(name, report);
                    }
                    (Some(name), None, Some(_)) => found.failed.push(name),
                    _ => {
                        let reason = format!(
                            "entry {place} has no `run` with a `report` or an `error`, as a suite has"
                        );
                        return Err(not_one(&found.file, reason));
                    }
                }
            }
        }
        value => {
            let report = report(&found.file, &value)?;
            found.runs.insert(String::new(), report);
        }
    }
    Ok(found)
}

fn not_one(file: &str, reason: String) -> Error {
    Error::NotAReport {
        path: file.to_string(),
        reason,
    }
}

fn report(file: &str, value: &Value) -> Result<Report> {
    let not_one = |reason| not_one(file, reason);
    match value["schema_version"].as_u64() {
        Some(version) if version == u64::from(SCHEMA_VERSION) => {}
        Some(version) => {
            return Err(not_one(format!(
                "expected schema version {SCHEMA_VERSION}, got {version}"
            )));
        }
        None => return Err(not_one("it has no schema version".into())),
    }
    serde_json::from_value(value.clone()).map_err(|error| not_one(error.to_string()))
}

/// The two as text: a table for each run that both have, then what differs in its options.
#[must_use]
pub fn text(a: &Reports, b: &Reports) -> String {
    let mut out = format!("A: {}\nB: {}\n", a.file, b.file);
    for (name, first) in &a.runs {
        let Some(second) = b.runs.get(name) else {
            continue;
        };
        if !name.is_empty() {
            out += &format!("\n{name}\n");
        }
        out += &format!("{}\n{}\n", table(first, second), ratio(first, second));
        for difference in differences(first, second) {
            out += &format!("{difference}\n");
        }
    }
    for (only, other, place) in [(a, b, "A"), (b, a, "B")] {
        for name in only
            .runs
            .keys()
            .filter(|name| !other.runs.contains_key(*name))
        {
            let name = if name.is_empty() {
                "a single run"
            } else {
                name
            };
            out += &format!("only in {place}: {name}\n");
        }
        for name in &only.failed {
            out += &format!("failed in {place}: {name}\n");
        }
    }
    out
}

fn table(a: &Report, b: &Report) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(["metric", "A", "B", "B - A", "change"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for ((name, a), (_, b)) in rows(a).into_iter().zip(rows(b)) {
        let cell = |value: Option<f64>| value.map_or_else(|| "-".into(), number);
        let (difference, change) = match a.zip(b) {
            Some((a, b)) if a != 0.0 => (number(b - a), format!("{:+.2} %", (b / a - 1.0) * 100.0)),
            Some((a, b)) => (number(b - a), "-".into()),
            None => ("-".into(), "-".into()),
        };
        table.add_row([name, cell(a), cell(b), difference, change]);
    }
    table
}

/// How far the second throughput over the first is to be trusted.
fn ratio(a: &Report, b: &Report) -> String {
    fn known(report: &Report) -> Known<'_> {
        Known {
            throughput: report.metrics.throughput_sequences_per_second,
            accuracy: &report.metrics.accuracy,
        }
    }
    let ratio = Record::shipped().ratio(known(b), known(a));
    ratio.text("B", "A")
}

/// Numbers of a report, in one order for all reports.
fn rows(report: &Report) -> Vec<(String, Option<f64>)> {
    let metrics = &report.metrics;
    let latency = |pick: fn(&Latency) -> f64| metrics.latency_seconds.as_ref().map(pick);
    let sum = |category: &str| {
        let ipus = metrics.ipus.iter();
        let bytes = ipus.filter_map(|ipu| ipu.bytes_by_category.get(category));
        Some(bytes.map(|bytes| bytes.0 as f64).sum())
    };
    let mut rows = vec![
        (
            "sequences/s".into(),
            Some(metrics.throughput_sequences_per_second),
        ),
        ("packs/s".into(), metrics.throughput_packs_per_second),
        ("step s".into(), Some(metrics.step_seconds.0)),
        ("step cycles".into(), Some(metrics.step_cycles.0 as f64)),
        ("latency mean s".into(), latency(|latency| latency.mean.0)),
        ("latency p99 s".into(), latency(|latency| latency.p99.0)),
        (
            "fullest tile B".into(),
            metrics.fullest_tile().map(|bytes| bytes.0 as f64),
        ),
    ];
    for category in ipu_sim::weigh::Category::all() {
        let name = category.name();
        rows.push((format!("all tiles: {name} B"), sum(&name)));
    }
    rows
}

/// Whole numbers whole, others with six digits.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value}");
    }
    let digits = 6 - 1 - value.abs().log10().floor() as i32;
    format!("{value:.*}", digits.clamp(0, 12) as usize)
}

/// A line for each thing but numbers that differs.
fn differences(a: &Report, b: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differ = |name: &str, a: &str, b: &str| {
        if a != b {
            lines.push(format!("{name}: {a} | {b}"));
        }
    };
    differ("version", &a.version, &b.version);
    differ("system", &a.system, &b.system);
    if a.machine != b.machine && a.system == b.system {
        differ("machine", "one description", "another description");
    }
    let word = |fits: bool| if fits { "yes" } else { "no" };
    differ("fits", word(a.metrics.fits), word(b.metrics.fits));
    let show = |options: &Map<String, Value>, key: &str| {
        options.get(key).map_or_else(|| "-".into(), values::show)
    };
    let keys = a
        .options
        .keys()
        .chain(b.options.keys().filter(|key| !a.options.contains_key(*key)));
    // The date in it differs between any two runs.
    for key in keys.filter(|key| *key != "checkpoint_dir") {
        differ(key, &show(&a.options, key), &show(&b.options, key));
    }
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use ipu_sim::units::SimSeconds;

    use super::*;
    use crate::metrics::fixtures::measured;

    fn reports(line: &str, throughput: f64, packs: Option<f64>) -> Reports {
        let given = crate::args::parse(line.split_whitespace().map(String::from)).unwrap();
        let prepared = crate::request::prepare(&given, crate::clock::Date::now()).unwrap();
        let mut measured = measured();
        measured.metrics.throughput_sequences_per_second = throughput;
        measured.metrics.throughput_packs_per_second = packs;
        measured.metrics.step_seconds = SimSeconds(65536.0 / throughput);
        let report = Report::new(&prepared.request, measured);
        // Through text, as from a file.
        let value: Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        Reports {
            file: "x.json".into(),
            runs: BTreeMap::from([(String::new(), super::report("x.json", &value).unwrap())]),
            failed: vec![],
        }
    }

    #[test]
    fn numbers_and_options_stand_side_by_side() {
        let a = reports("--epochs 1", 4096.0, None);
        let b = reports("--epochs 2 --system mk2-pod16", 5000.0, Some(2048.0));
        let text = text(&a, &b);
        let lines = text.lines().filter(|line| !line.contains("all tiles"));
        let lines: Vec<&str> = lines.collect();
        expect![[r#"
            A: x.json
            B: x.json
            | metric                                         |           A |           B |    B - A |   change |
            |------------------------------------------------|-------------|-------------|----------|----------|
            | sequences/s                                    |        4096 |        5000 |      904 | +22.07 % |
            | packs/s                                        |           - |        2048 |        - |        - |
            | step s                                         |          16 |     13.1072 | -2.89280 | -18.08 % |
            | step cycles                                    | 21200000000 | 21200000000 |        0 |  +0.00 % |
            | latency mean s                                 |           - |           - |        - |        - |
            | latency p99 s                                  |           - |           - |        - |        - |
            | fullest tile B                                 |      600000 |      600000 |        0 |  +0.00 % |
            B over A: 1.221, 90 % interval 1.155 to 1.290; B is faster, with a probability above 99 %
            system: mk2-m2000 | mk2-pod16
            epochs: 1 | 2"#]].assert_eq(&lines.join("\n"));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let check = |text: &str, expected: &str| {
            let error = parse("x.json".into(), text).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check("[]", "x.json: not a report: it has no runs");
        for text in ["[{}]", "[3]", r#"[{"run": "a"}]"#, r#"[{"error": "b"}]"#] {
            check(
                text,
                "x.json: not a report: entry 0 has no `run` with a `report` or an `error`, as a suite has",
            );
        }
        check("3", "x.json: not a report: it has no schema version");
        check("{}", "x.json: not a report: it has no schema version");
        check(
            r#"{"schema_version": 99}"#,
            &format!("x.json: not a report: expected schema version {SCHEMA_VERSION}, got 99"),
        );
    }
}

//! Suite results as a table to read.

use bench_core::accuracy::ratio::{Known, Ratio};
use bench_core::accuracy::{Interval, Record, significant};
use bench_core::headroom::Verdict;
use comfy_table::{CellAlignment, Table, presets};

use crate::metrics::Report;
use crate::suite::{Entry, Outcome};

/// Places of the columns that only some tables have: of packs, if a run has them, and of ratios.
const PACKS: usize = 3;
const RATIO: usize = 5;

/// The table of `entries`: times are simulated, and numbers have the digits that intervals leave.
///
/// With a run to relate to, each has its throughput over that of it, with the interval of the
/// ratio, and how much of it the IPUs are that it has more.
#[must_use]
pub fn text(entries: &[Entry], relative_to: Option<&str>) -> String {
    let over = format!("over {}", relative_to.unwrap_or_default());
    let header = [
        "run",
        "system",
        "sequences/s",
        "packs/s",
        "90 % interval",
        &over,
        "domain",
        "latency ms",
        "step s",
        "fullest tile B",
        "fits",
    ];
    let packs = entries.iter().any(has_packs);
    let is_shown = |place| match place {
        PACKS => packs,
        RATIO => relative_to.is_some(),
        _ => true,
    };
    let shown = |cells: [String; 11]| {
        let cells = cells.into_iter().enumerate();
        cells.filter_map(move |(place, cell)| is_shown(place).then_some(cell))
    };
    let base = entries
        .iter()
        .find(|entry| Some(entry.run.as_str()) == relative_to);
    let base = base.and_then(report);
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(shown(header.map(String::from)));
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for entry in entries {
        table.add_row(shown(row(entry, base)));
    }
    table.to_string()
}

fn report(entry: &Entry) -> Option<&Report> {
    match &entry.outcome {
        Outcome::Report { report } => Some(report),
        Outcome::Failed { .. } => None,
    }
}

fn has_packs(entry: &Entry) -> bool {
    report(entry).is_some_and(|report| report.metrics.throughput_packs_per_second.is_some())
}

/// The throughput of `report` over that of `base`, and the share of it that each IPU keeps.
fn relative(report: &Report, base: &Report) -> String {
    let [a, b] = [report, base].map(|report| Known {
        throughput: report.metrics.throughput_sequences_per_second,
        accuracy: &report.metrics.accuracy,
    });
    let Ratio {
        value,
        interval: Interval { low, high },
        ..
    } = Record::shipped().ratio(a, b);
    let [ipus, ipus_of_base] = [report, base].map(n_ipus);
    let share = match ipus == ipus_of_base {
        true => String::new(),
        false => format!(", {:.0} % an IPU", 100.0 * value * ipus_of_base / ipus),
    };
    format!("{value:.2} ({low:.2} - {high:.2}){share}")
}

/// IPUs of all replicas.
fn n_ipus(report: &Report) -> f64 {
    let replicas = report.options.get("replication_factor");
    let replicas = replicas.and_then(serde_json::Value::as_f64).unwrap_or(1.0);
    replicas * report.metrics.ipus.len() as f64
}

fn row(entry: &Entry, base: Option<&Report>) -> [String; 11] {
    let (run, system) = (entry.run.clone(), entry.system.clone());
    let none = || String::from("-");
    let Some(report) = report(entry) else {
        let mut row = std::array::from_fn(|_| none());
        [row[0], row[1], row[2]] = [run, system, "failed".into()];
        return row;
    };
    let metrics = &report.metrics;
    let (throughput, interval) = (
        metrics.throughput_sequences_per_second,
        metrics.accuracy.interval,
    );
    // What follows from the throughput is as uncertain as that.
    let as_certain = |value: f64| {
        let Interval { low, high } = interval;
        let [low, high] = [low, high].map(|end| end * value / throughput);
        significant(value, Interval { low, high })
    };
    [
        run,
        system,
        as_certain(throughput),
        metrics
            .throughput_packs_per_second
            .map_or_else(none, as_certain),
        format!(
            "{} - {}",
            significant(interval.low, interval),
            significant(interval.high, interval)
        ),
        base.map_or_else(none, |base| relative(report, base)),
        if metrics.accuracy.in_domain {
            "in"
        } else {
            "out"
        }
        .into(),
        metrics
            .latency_seconds
            .map_or_else(none, |latency| as_certain(latency.mean.0 * 1e3)),
        as_certain(metrics.step_seconds.0),
        metrics
            .fullest_tile()
            .map_or_else(none, |bytes| bytes.0.to_string()),
        match metrics.verdict() {
            Verdict::Fits => "yes",
            Verdict::Close => "close",
            Verdict::TooLarge => "no",
        }
        .into(),
    ]
}

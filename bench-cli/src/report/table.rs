//! Suite results as a table to read.

use comfy_table::{CellAlignment, Table, presets};

use crate::suite::{Entry, Outcome};

/// Place of the column of packs, which only a table with a run on packs has.
const PACKS: usize = 3;

/// The table of `entries`: times are simulated.
#[must_use]
pub fn text(entries: &[Entry]) -> String {
    let header = [
        "run",
        "system",
        "sequences/s",
        "packs/s",
        "90 % interval",
        "domain",
        "latency ms",
        "step s",
        "fullest tile B",
        "fits",
    ];
    let packs = entries.iter().any(has_packs);
    let shown = |cells: [String; 10]| {
        let cells = cells.into_iter().enumerate();
        cells.filter_map(move |(place, cell)| (packs || place != PACKS).then_some(cell))
    };
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(shown(header.map(String::from)));
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for entry in entries {
        table.add_row(shown(row(entry)));
    }
    table.to_string()
}

fn has_packs(entry: &Entry) -> bool {
    match &entry.outcome {
        Outcome::Report { report } => report.metrics.throughput_packs_per_second.is_some(),
        Outcome::Failed { .. } => false,
    }
}

fn row(entry: &Entry) -> [String; 10] {
    let (run, system) = (entry.run.clone(), entry.system.clone());
    let none = || String::from("-");
    let Outcome::Report { report } = &entry.outcome else {
        let mut row = std::array::from_fn(|_| none());
        [row[0], row[1], row[2]] = [run, system, "failed".into()];
        return row;
    };
    let metrics = &report.metrics;
    let interval = metrics.accuracy.interval;
    [
        run,
        system,
        format!("{:.1}", metrics.throughput_sequences_per_second),
        metrics
            .throughput_packs_per_second
            .map_or_else(none, |packs| format!("{packs:.1}")),
        format!("{:.0} - {:.0}", interval.low, interval.high),
        if metrics.accuracy.in_domain {
            "in"
        } else {
            "out"
        }
        .into(),
        metrics
            .latency_seconds
            .map_or_else(none, |latency| format!("{:.4}", latency.mean.0 * 1e3)),
        format!("{:.4}", metrics.step_seconds.0),
        metrics
            .fullest_tile()
            .map_or_else(none, |bytes| bytes.0.to_string()),
        if metrics.fits { "yes" } else { "no" }.into(),
    ]
}

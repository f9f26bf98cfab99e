//! Suite results as a table to read.

use comfy_table::{CellAlignment, Table, presets};

use crate::suite::{Entry, Outcome};

/// The table of `entries`: times are simulated.
#[must_use]
pub fn text(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "run",
        "system",
        "sequences/s",
        "latency ms",
        "step s",
        "fullest tile B",
        "fits",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for entry in entries {
        table.add_row(row(entry));
    }
    table.to_string()
}

fn row(entry: &Entry) -> [String; 7] {
    let (run, system) = (entry.run.clone(), entry.system.clone());
    let none = || String::from("-");
    let Outcome::Report { report } = &entry.outcome else {
        return [run, system, "failed".into(), none(), none(), none(), none()];
    };
    let metrics = &report.metrics;
    [
        run,
        system,
        format!("{:.1}", metrics.throughput_sequences_per_second),
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

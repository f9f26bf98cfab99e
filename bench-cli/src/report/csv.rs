//! Suite results as CSV: one row a run, empty cells for what a run doesn't have.

use crate::suite::{Entry, Outcome};

/// Names of the columns; units are in the names.
const HEADER: [&str; 16] = [
    "run",
    "system",
    "throughput_sequences_per_second",
    "throughput_packs_per_second",
    "throughput_low",
    "throughput_high",
    "in_domain",
    "latency_mean_seconds",
    "latency_p99_seconds",
    "step_seconds",
    "step_cycles",
    "max_tile_bytes",
    "fits",
    "compile_host_seconds",
    "simulate_host_seconds",
    "error",
];

/// The CSV text of `entries`, header included.
///
/// # Panics
///
/// Never: a writer into memory doesn't fail, and its fields are UTF-8.
#[must_use]
pub fn text(entries: &[Entry]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(HEADER)
        .expect("writing to memory cannot fail");
    for entry in entries {
        writer
            .write_record(row(entry))
            .expect("every row has as many cells as the header");
    }
    let bytes = writer.into_inner().expect("writing to memory cannot fail");
    String::from_utf8(bytes).expect("all cells are UTF-8")
}

fn row(entry: &Entry) -> [String; HEADER.len()] {
    let mut row = [const { String::new() }; HEADER.len()];
    row[0].clone_from(&entry.run);
    row[1].clone_from(&entry.system);
    let (metrics, host) = match &entry.outcome {
        Outcome::Report { report } => (&report.metrics, &report.host_seconds),
        Outcome::Failed { error } => {
            row[15].clone_from(error);
            return row;
        }
    };
    row[2] = metrics.throughput_sequences_per_second.to_string();
    row[3] = metrics
        .throughput_packs_per_second
        .map_or_else(String::new, |packs| packs.to_string());
    row[4] = metrics.accuracy.interval.low.to_string();
    row[5] = metrics.accuracy.interval.high.to_string();
    row[6] = metrics.accuracy.in_domain.to_string();
    if let Some(latency) = metrics.latency_seconds {
        row[7] = latency.mean.0.to_string();
        row[8] = latency.p99.0.to_string();
    }
    row[9] = metrics.step_seconds.0.to_string();
    row[10] = metrics.step_cycles.0.to_string();
    if let Some(bytes) = metrics.fullest_tile() {
        row[11] = bytes.0.to_string();
    }
    row[12] = metrics.fits.to_string();
    row[13] = host.compile.0.to_string();
    row[14] = host.simulate.0.to_string();
    row
}

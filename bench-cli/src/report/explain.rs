//! An explanation as tables to read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bench_core::explain::IpuCycles;
use bench_core::explain::cause::{Cause, Causes};
use bench_core::explain::mechanism::Mechanism;
use bench_core::explain::pipeline::{Movable, Pipeline};
use bench_core::metrics::{IpuMemory, Metrics};
use bench_core::utilisation::AchievedRate;
use comfy_table::{CellAlignment, Table, presets};
use ipu_sim::units::Cycles;

use super::shares::{hundredths, percent};

/// Rows of kinds and layers below this share of every column are joined, in hundredths of a per cent.
const LEAST: u64 = 10;

/// The tables: time by cause, mechanism, kind, layer, pass and section, waiting, the pipeline,
/// utilisation, and memory.
#[must_use]
pub fn text(metrics: &Metrics) -> String {
    let explanation = &metrics.time;
    let ipus = &explanation.ipus;
    let step = metrics.step_cycles.0;
    let mut out = format!(
        "where the time of a step went: {step} cycles, {:.6} s; shares in %\n\n",
        metrics.step_seconds.0
    );
    let all = |name: &str, rows: Vec<TableRow>| section(name, rows, ipus, step);
    let causes: Vec<TableRow> = Cause::ALL
        .into_iter()
        .map(|cause| TableRow {
            name: cause.name().into(),
            cycles: ipus.iter().map(|ipu| ipu.by_cause.on(cause).0).collect(),
        })
        .collect();
    out += &all("cause", causes);
    let mechanisms = Mechanism::ALL.into_iter().map(|mechanism| {
        let on = |ipu: &IpuCycles| {
            ipu.by_mechanism
                .get(&mechanism)
                .map_or(0, |cycles| cycles.0)
        };
        TableRow {
            name: mechanism.name().into(),
            cycles: ipus.iter().map(on).collect(),
        }
    });
    out += &all("mechanism", mechanisms.collect());
    let kinds = rows(ipus, |ipu| totals(&ipu.by_kind));
    out += &all("kind of operation", join_small(kinds, step));
    let layers = rows(ipus, |ipu| totals(&ipu.by_layer));
    out += &all("layer", join_small(layers, step));
    out += &all("pass", rows(ipus, |ipu| ipu.by_pass.clone()));
    out += &all(
        "section of the program",
        rows(ipus, |ipu| ipu.by_section.clone()),
    );
    out += &all("waiting", rows(ipus, waits));
    if let Some(pipeline) = &explanation.pipeline {
        out += &pipeline_text(pipeline);
    }
    out += &utilisation(metrics);
    out += &memory(&metrics.ipus);
    out
}

/// One row of a table: cycles by IPU.
struct TableRow {
    name: String,
    cycles: Vec<u64>,
}

fn totals(map: &BTreeMap<String, Causes>) -> BTreeMap<String, Cycles> {
    let totals = map
        .iter()
        .map(|(name, causes)| (name.clone(), causes.total()));
    totals.collect()
}

fn waits(ipu: &IpuCycles) -> BTreeMap<String, Cycles> {
    let mut out = BTreeMap::new();
    for wait in &ipu.waits {
        let section = wait.section.as_deref().unwrap_or("outside");
        let name = match (wait.ipu, wait.cause) {
            (Some(last), _) => format!("{section}: for IPU {last}"),
            (None, Cause::IdleHost) => format!("{section}: for the host"),
            (None, Cause::IdleStreamingMemory) => format!("{section}: for streaming memory"),
            (None, _) => "for the end of the step".into(),
        };
        *out.entry(name).or_default() += wait.cycles;
    }
    out
}

/// One row for every name that some IPU has.
fn rows(ipus: &[IpuCycles], of: impl Fn(&IpuCycles) -> BTreeMap<String, Cycles>) -> Vec<TableRow> {
    let columns: Vec<BTreeMap<String, Cycles>> = ipus.iter().map(of).collect();
    let mut names: Vec<&String> = columns.iter().flat_map(BTreeMap::keys).collect();
    names.sort_unstable();
    names.dedup();
    let cycles = |name: &String| {
        let cycles = columns
            .iter()
            .map(|column| column.get(name).map_or(0, |c| c.0));
        cycles.collect()
    };
    names
        .into_iter()
        .map(|name| TableRow {
            name: name.clone(),
            cycles: cycles(name),
        })
        .collect()
}

fn join_small(rows: Vec<TableRow>, step: u64) -> Vec<TableRow> {
    let large = |row: &TableRow| {
        let mut shares = row.cycles.iter();
        shares.any(|&cycles| u128::from(cycles) * 10_000 >= u128::from(step) * u128::from(LEAST))
    };
    let (mut kept, small): (Vec<TableRow>, Vec<TableRow>) = rows.into_iter().partition(large);
    if small.len() < 2 {
        kept.extend(small);
        return kept;
    }
    let n_ipus = small[0].cycles.len();
    let sum = |at: usize| small.iter().map(|row| row.cycles[at]).sum();
    kept.push(TableRow {
        name: format!("{} smaller ones", small.len()),
        cycles: (0..n_ipus).map(sum).collect(),
    });
    kept
}

/// A table of shares of the step, biggest first: all IPUs, then each. Nothing for no rows.
fn section(name: &str, mut rows: Vec<TableRow>, ipus: &[IpuCycles], step: u64) -> String {
    rows.retain(|row| row.cycles.iter().any(|&cycles| cycles > 0));
    if rows.is_empty() {
        return String::new();
    }
    let sum = |row: &TableRow| row.cycles.iter().sum::<u64>();
    rows.sort_by_key(|row| std::cmp::Reverse(sum(row)));
    let column = |of: &dyn Fn(&TableRow) -> u64, total| {
        let cycles: Vec<u64> = rows.iter().map(of).collect();
        hundredths(&cycles, total)
    };
    let mut columns = vec![column(&sum, step * ipus.len() as u64)];
    columns.extend((0..ipus.len()).map(|at| column(&|row: &TableRow| row.cycles[at], step)));
    let heads = ipus.iter().map(head);
    let mut table = table([name.into(), "all".into()].into_iter().chain(heads));
    for (at, row) in rows.iter().enumerate() {
        let shares = columns.iter().map(|column| percent(column[at]));
        table.add_row(std::iter::once(row.name.clone()).chain(shares));
    }
    let sums = columns.iter().map(|column| percent(column.iter().sum()));
    table.add_row(std::iter::once("sum".to_string()).chain(sums));
    format!("{table}\n\n")
}

/// `IPU 2: stages 3, 5`.
fn head(ipu: &IpuCycles) -> String {
    let stages: Vec<String> = ipu.stages.iter().map(ToString::to_string).collect();
    match stages.len() {
        0 => format!("IPU {}", ipu.ipu),
        1 => format!("IPU {}: stage {}", ipu.ipu, stages[0]),
        _ => format!("IPU {}: stages {}", ipu.ipu, stages.join(", ")),
    }
}

fn table(header: impl Iterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn pipeline_text(pipeline: &Pipeline) -> String {
    let header = [
        "pipeline cycle",
        "bounds % of them",
        "slack, cycles",
        "slack %",
    ];
    let mut table = table(header.map(String::from).into_iter());
    let slack = pipeline.slack.iter().map(|slack| slack.0);
    let bounds = hundredths(&pipeline.bounds, pipeline.cycles);
    for (ipu, (slack, bound)) in slack.zip(bounds).enumerate() {
        table.add_row([
            format!("IPU {ipu}"),
            percent(bound),
            slack.to_string(),
            percent(hundredths(&[slack], pipeline.length.0)[0]),
        ]);
    }
    let mut out = format!(
        "{} pipeline cycles with work for every stage, of {} cycles each\n{table}\n",
        pipeline.cycles, pipeline.length.0
    );
    let percent = |share: f64| format!("{:.2} % of the step", 100.0 * share);
    let what = match pipeline.movable {
        Movable::Layer => "one encoder layer",
        Movable::HalfLayer => "half an encoder layer",
    };
    let best = match &pipeline.best_move {
        Some(found) => format!(
            "{what} from IPU {} to IPU {} would win {}",
            found.from,
            found.to,
            percent(found.win)
        ),
        None => format!("moving {what} would win nothing"),
    };
    let even = percent(pipeline.win_if_even);
    writeln!(
        out,
        "{best}; work spread evenly {even} (estimates; memory isn't looked at)\n"
    )
    .expect("a string accepts any text");
    out
}

fn utilisation(metrics: &Metrics) -> String {
    let used = &metrics.utilisation;
    let header = [
        "TFLOP/s of matrix products",
        "model",
        "% of peak",
        "with recomputation",
        "% of peak",
    ];
    let mut table = table(header.map(String::from).into_iter());
    let mut add = |name: String, achieved: &AchievedRate| {
        table.add_row([
            name,
            format!("{:.2}", achieved.model_flops_per_second / 1e12),
            format!("{:.2}", 100.0 * achieved.model_share),
            format!("{:.2}", achieved.hardware_flops_per_second / 1e12),
            format!("{:.2}", 100.0 * achieved.hardware_share),
        ]);
    };
    add("all replicas".into(), &used.all);
    for (ipu, achieved) in used.ipus.iter().enumerate() {
        add(format!("IPU {ipu}"), achieved);
    }
    let peak = used.peak_flops_per_second / 1e12;
    format!("peak of an IPU: {peak:.2} TFLOP/s\n{table}\n\n")
}

fn memory(ipus: &[IpuMemory]) -> String {
    let mut out = String::new();
    for (ipu, memory) in ipus.iter().enumerate() {
        let tile = &memory.fullest_tile;
        let at = match tile.fullest_at.as_slice() {
            [] => "all the time".into(),
            steps => format!("at {}", steps.join(" > ")),
        };
        let (bytes, tile_number) = (memory.max_tile_bytes, tile.tile);
        out += &format!("IPU {ipu}: fullest is tile {tile_number} with {bytes}, {at}\n");
        let mut table = table(["on it", "B", "%"].map(String::from).into_iter());
        let mut rows: Vec<(String, u64)> = tile
            .bytes_by_category
            .iter()
            .filter(|(_, bytes)| bytes.0 > 0)
            .map(|(name, bytes)| (name.clone(), bytes.0))
            .collect();
        rows.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        let largest = tile.largest.iter().map(|variable| {
            let lasting = if variable.always_live {
                ""
            } else {
                ", live just then"
            };
            (
                format!("tensor {}{lasting}", variable.name),
                variable.bytes.0,
            )
        });
        for (name, bytes) in rows.into_iter().chain(largest) {
            let share = percent(hundredths(&[bytes], memory.max_tile_bytes.0)[0]);
            table.add_row([name, bytes.to_string(), share]);
        }
        out += &format!("{table}\n\n");
    }
    out
}

#[cfg(test)]
mod tests;

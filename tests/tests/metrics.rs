//! Forty configurations of every kind, and what came of them.
//!
//! `cases/configurations.txt` has a command line a run: presets with changed options, and small
//! models drawn at random over tasks, placements, optimisers, types and systems; one of them doesn't
//! fit. `golden/metrics.txt` has what the program said of each: a restructuring must leave it as it
//! is, and a change of it is explained like the change of any other number.

use std::fmt::Write as _;

use bench_cli::args;
use bench_cli::clock::Date;
use bench_cli::request::prepare;
use bench_core::evaluate::evaluate;
use bench_core::metrics::Metrics;
use expect_test::expect_file;
use popart_graph::plan::PlanCache;

const CONFIGURATIONS: &str = include_str!("../cases/configurations.txt");

/// Time, interval, latency, and memory of each IPU, in one paragraph.
fn paragraph(metrics: &Metrics) -> String {
    let mut out = format!(
        "  {} sequences/s, {} to {}; {} cycles a step, {} on the device\n",
        metrics.throughput_sequences_per_second,
        metrics.accuracy.interval.low,
        metrics.accuracy.interval.high,
        metrics.step_cycles.0,
        metrics.device_cycles.0,
    );
    if let Some(latency) = &metrics.latency_seconds {
        writeln!(
            out,
            "  latency {} s, p99 {} s",
            latency.mean.0, latency.p99.0
        )
        .expect("a string takes any text");
    }
    for (ipu, memory) in metrics.ipus.iter().enumerate() {
        let (fullest, total) = (memory.max_tile_bytes.0, memory.total_bytes.0);
        let time = &metrics.time.ipus[ipu];
        let busy: u64 = time.by_mechanism.values().map(|cycles| cycles.0).sum();
        let tile = memory.fullest_tile.tile;
        writeln!(
            out,
            "  IPU {ipu}: tile {tile} has {fullest} B, all have {total} B; busy {busy} cycles"
        )
        .expect("a string takes any text");
    }
    if let Some(refusal) = &metrics.refusal {
        let refusal = refusal.to_string();
        writeln!(out, "  {}", refusal.lines().next().unwrap_or_default())
            .expect("a string takes any text");
    }
    out
}

#[test]
fn forty_configurations_give_what_they_gave() {
    let mut found = String::new();
    for line in CONFIGURATIONS.lines() {
        let words = line.split_whitespace().map(String::from);
        let request = prepare(&args::parse(words).unwrap(), Date::now())
            .unwrap()
            .request;
        let machine = &request.machine.spec;
        let plans = PlanCache::new(machine.tile.clone());
        let metrics = evaluate(&request.options.config, machine, &plans)
            .expect("configurations of the list run");
        writeln!(found, "{line}\n{}", paragraph(&metrics)).expect("a string takes any text");
    }
    expect_file!["../golden/metrics.txt"].assert_eq(&found);
}

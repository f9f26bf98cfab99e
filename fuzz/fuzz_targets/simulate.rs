//! The description of a machine: whatever can be read simulates a small run without a panic, or
//! refuses it in words.
#![no_main]

use bench_cli::clock::Date;
use bench_cli::{args, request};
use bench_core::evaluate::evaluate;
use ipu_sim::spec::MachineSpec;
use libfuzzer_sys::fuzz_target;
use popart_graph::plan::PlanCache;

/// A run that takes milliseconds.
const SMALL: &str = include_str!("../small.txt");

fuzz_target!(|text: &str| {
    let Ok(machine) = MachineSpec::from_toml(text) else {
        return;
    };
    let words = SMALL.split_whitespace().map(String::from);
    let given = args::parse(words).expect("the small run is sound");
    let prepared = request::prepare(&given, Date::now()).expect("the small run is sound");
    // As few tiles as the run has: more take longer, and nothing else.
    let tiles = machine.tile.tiles_per_ipu.min(64);
    let Ok(machine) = machine.scaled_down(machine.n_ipus, tiles) else {
        return;
    };
    let plans = PlanCache::new(machine.tile.clone());
    let _ = evaluate(&prepared.first().options.config, &machine, &plans);
});

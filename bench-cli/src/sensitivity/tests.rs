use std::collections::BTreeSet;

use super::constants::SILENT_IN_SUITE;
use super::*;

const DOCS: &str = include_str!("../../../docs/constants.md");

#[test]
fn every_constant_has_its_row() {
    // A machine that has all of them, gateways included.
    let machine = MachineSpec::shipped("mk2-pod128").unwrap();
    let keys: Vec<&str> = machine.constants().map(|c| c.id.key()).collect();
    let rows: Vec<&str> = KNOBS.iter().map(|knob| knob.changes[0].0).collect();
    assert_eq!(keys, rows);
}

#[test]
fn small_changes_are_no_zeros() {
    assert_eq!(change(1e9, 1e9), "0 %");
    assert_eq!(change(1e9, 1e9 + 1.0), "+1.0e-7 %");
    assert_eq!(change(1000.0, 999.0), "-0.100 %");
}

#[test]
fn every_constant_does_what_physics_says() {
    let found = sensitivity(false).unwrap();
    assert_eq!(found.len(), KNOBS.len());
    assert!(found.iter().all(Found::holds), "{}", text(&found));
}

/// With the plan fixed, more of a rate and less of a latency never costs time.
#[test]
fn more_bandwidth_and_less_latency_are_never_slower() {
    let rates = [
        "chip.exchange_rate",
        "chip.amp_coefficient_rate",
        "links.usable",
        "gateway.port",
        "host.ipu_bandwidth",
        "host.machine_bandwidth",
        "streaming_memory.bandwidth",
    ];
    let latencies = [
        "links.latency",
        "links.hop",
        "gateway.latency",
        "host.latency",
        "host.run",
        "streaming_memory.latency",
        "sync.hop",
        "sync.external",
    ];
    let runs = [Run::Training, Run::Racks, Run::Inference, Run::Partials];
    runs.into_iter().for_each(|run| {
        let prepared = Prepared::new(&run.words()).unwrap();
        let machine = &prepared.request.machine.spec;
        let more = rates.map(|key| (key, [2.0, 3.0, 8.0]));
        let less = latencies.map(|key| (key, [0.5, 0.1, 0.0]));
        for (key, factors) in more.into_iter().chain(less) {
            let mut before = prepared.base.step;
            for factor in factors {
                // Usable rates stay below the raw one.
                let raw = ("links.raw", Change::Times(10.0));
                let changes = [(key, Change::Times(factor)), raw];
                let changed = changed(machine, &changes).unwrap();
                let after = prepared.on(&changed, Plan::Fixed).unwrap().step;
                assert!(after <= before, "{}: {key} x {factor}", run.name());
                before = after;
            }
        }
    });
}

/// Memory that the planner may use changes plans; none of these stops the layer from fitting.
#[test]
fn more_memory_never_stops_a_model_from_fitting() {
    let run = Prepared::new(&Run::Base.words()).unwrap();
    let sizes = [64_u32, 96, 128, 192, 256, 384, 624, 1248];
    let fits: Vec<[bool; 2]> = sizes
        .into_iter()
        .map(|kib| {
            let halves = [kib / 2 / 16 * 16, kib - kib / 2 / 16 * 16];
            let value = |kib: u32| -> &'static str { format!("{kib} KiB").leak() };
            let changes = [
                ("chip.memory", Change::To(value(kib))),
                ("memory.executable", Change::To(value(halves[0]))),
                ("memory.interleaved", Change::To(value(halves[1]))),
            ];
            let machine = changed(&run.request.machine.spec, &changes).unwrap();
            [Plan::Fixed, Plan::Again].map(|plan| run.on(&machine, plan).is_ok_and(|run| run.fits))
        })
        .collect();
    assert!(fits.iter().any(|fits| !fits[0]) && fits.iter().any(|fits| fits[1]));
    for plan in 0..2 {
        assert!(fits.is_sorted_by_key(|fits| fits[plan]), "{fits:?}");
    }
}

/// The list in the documentation against the table, and the table against runs of the benchmark
/// in which all of these constants change at once.
#[test]
fn constants_without_effect_are_documented() {
    let rows = DOCS.lines().filter_map(|line| {
        let cell = line.strip_prefix("| `")?;
        cell.split_once('`').map(|(key, _)| key)
    });
    let documented: BTreeSet<&str> = rows.collect();
    let nothing = KNOBS
        .iter()
        .filter(|knob| matches!(knob.effect, Effect::Nothing(_)));
    let keys = nothing.map(|knob| knob.changes[0].0);
    let expected: BTreeSet<&str> = keys.chain(SILENT_IN_SUITE.iter().copied()).collect();
    assert_eq!(documented, expected);
    let runs = suite::runs();
    let chosen = [
        "1-large-128-pod16",
        "2-large-128-pod64",
        "10-base-3-minimum-latency-128-b4",
    ];
    for name in chosen {
        let run = runs.iter().find(|run| run.name == name).unwrap();
        let words = format!("{} --system {}", run.arguments.join(" "), run.system);
        let prepared = Prepared::new(&words).unwrap();
        let machine = &prepared.request.machine.spec;
        let silent = KNOBS
            .iter()
            .filter(|knob| expected.contains(knob.changes[0].0));
        let changes: Vec<(&str, Change)> = silent
            .flat_map(|knob| knob.changes)
            .copied()
            // The two regions say the same of each other.
            .filter(|(key, _)| machine.constants().any(|c| c.id.key() == *key))
            .collect();
        let machine = changed(machine, &changes).unwrap();
        let after = prepared.on(&machine, Plan::Fixed).unwrap();
        assert_eq!(after, prepared.base, "{name}");
    }
}

use std::collections::BTreeSet;

use ipu_sim::spec::constant::{Class, Expense};
use ipu_sim::spec::quantity::Value;

use super::*;

const DOCS: &str = include_str!("../../../docs/constants.md");

/// Constants that matter somewhere, but in none of the eighteen runs of the published benchmark.
const SILENT_IN_SUITE: &[ConstantId] = &[
    ConstantId::SystemIpusPerRack,
    ConstantId::ChipAmpUnitsF16F32,
    ConstantId::ChipAmpUnitsF32F32,
    ConstantId::GatewayPortsPerMachine,
    ConstantId::GatewayPort,
    ConstantId::GatewayLatency,
];

#[test]
fn every_constant_has_its_row() {
    let rows: Vec<ConstantId> = KNOBS.iter().map(|knob| knob.changes[0].0).collect();
    assert_eq!(ConstantId::ALL, rows);
}

/// What a constant is said to be the price of is where its change shows.
#[test]
fn what_costs_nothing_does_nothing() {
    for knob in KNOBS {
        let (id, _) = knob.changes[0];
        match (id.expense(), knob.effect) {
            (Expense::Nothing, ExpectedEffect::Nothing(_)) => {}
            (Expense::Memory, effect) => {
                assert!(
                    !matches!(effect, ExpectedEffect::Faster | ExpectedEffect::Slower),
                    "{id}"
                );
            }
            (expense, effect) => {
                assert!(expense != Expense::Nothing, "{id}");
                assert!(!matches!(effect, ExpectedEffect::Nothing(_)), "{id}");
            }
        }
    }
}

#[test]
fn every_constant_does_what_physics_says() {
    let found = sensitivity(ExtraRuns::Nothing).unwrap();
    assert_eq!(found.len(), KNOBS.len());
    assert!(found.iter().all(KnobEffect::holds), "{found:#?}");
}

/// With the plan fixed, more of a rate and less of a latency never costs time.
#[test]
fn more_bandwidth_and_less_latency_are_never_slower() {
    let runs = [Run::Training, Run::Racks, Run::Inference, Run::Partials];
    runs.into_iter().for_each(|run| {
        let (config, machine) = run.configured();
        let prepared = PreparedRun::new(config, machine).unwrap();
        let machine = &prepared.machine;
        for constant in machine.constants() {
            let id = constant.id;
            let factors = match (id.class(), constant.value) {
                (Class::Rate, _) if id.expense() != Expense::Cycles => [2.0, 3.0, 8.0],
                // Cycles are whole: there is no tenth of most.
                (Class::Time, Value::Quantity(time)) if time.unit.name != "cycles" => {
                    [0.5, 0.1, 0.0]
                }
                _ => continue,
            };
            let mut before = prepared.base.step;
            for factor in factors {
                // Usable rates stay below the raw one.
                let raw = (ConstantId::LinksRaw, Change::Times(10.0));
                let changes = [(id, Change::Times(factor)), raw];
                let changed = changed(machine, &changes).unwrap();
                let after = prepared.on(&changed, ProgramChoice::Fixed).unwrap().step;
                assert!(after <= before, "{}: {id} x {factor}", run.name());
                before = after;
            }
        }
    });
}

/// Memory that the planner may use changes plans; none of these stops the layer from fitting.
#[test]
fn more_memory_never_stops_a_model_from_fitting() {
    let (config, machine) = Run::Base.configured();
    let run = PreparedRun::new(config, machine).unwrap();
    let sizes = [64_u32, 96, 128, 192, 256, 384, 624, 1248];
    let fits: Vec<[bool; 2]> = sizes
        .into_iter()
        .map(|kib| {
            let halves = [kib / 2 / 16 * 16, kib - kib / 2 / 16 * 16];
            let value = |kib: u32| -> &'static str { format!("{kib} KiB").leak() };
            let changes = [
                (ConstantId::ChipMemory, Change::To(value(kib))),
                (ConstantId::MemoryExecutable, Change::To(value(halves[0]))),
                (ConstantId::MemoryInterleaved, Change::To(value(halves[1]))),
            ];
            let machine = changed(&run.machine, &changes).unwrap();
            [ProgramChoice::Fixed, ProgramChoice::Again]
                .map(|plan| run.on(&machine, plan).is_ok_and(|run| run.fits))
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
    let documented: BTreeSet<ConstantId> = rows
        .map(|key| ConstantId::from_key(key).expect(key))
        .collect();
    let nothing = KNOBS
        .iter()
        .filter(|knob| matches!(knob.effect, ExpectedEffect::Nothing(_)));
    let ids = nothing.map(|knob| knob.changes[0].0);
    let expected: BTreeSet<ConstantId> = ids.chain(SILENT_IN_SUITE.iter().copied()).collect();
    assert_eq!(documented, expected);
    let runs = suite::runs();
    let chosen = [
        "1-large-128-pod16",
        "2-large-128-pod64",
        "10-base-3-minimum-latency-128-b4",
    ];
    for name in chosen {
        let run = runs.iter().find(|run| run.name == name).unwrap();
        let prepared = PreparedRun::new(run.config.clone(), run.machine.clone()).unwrap();
        let machine = &prepared.machine;
        let silent = KNOBS
            .iter()
            .filter(|knob| expected.contains(&knob.changes[0].0));
        let changes: Vec<(ConstantId, Change)> = silent
            .flat_map(|knob| knob.changes)
            .copied()
            // The two regions say the same of each other.
            .filter(|(id, _)| machine.constant(*id).is_some())
            .collect();
        let machine = changed(machine, &changes).unwrap();
        let after = prepared.on(&machine, ProgramChoice::Fixed).unwrap();
        assert_eq!(after, prepared.base, "{name}");
    }
}

/// A run of one's own, against the table's run of the same keys.
#[test]
fn a_run_of_ones_own_is_looked_at_alike() {
    let (config, machine) = Run::Inference.configured();
    let (base, effects) = of_run(&config, &machine).unwrap();
    let prepared = PreparedRun::new(config, machine).unwrap();
    assert_eq!(base, prepared.base);
    let known = |effect: &&RunEffect| effect.knob.run == Run::Inference;
    assert!(effects.iter().any(|effect| known(&effect)));
    for effect in effects.iter().filter(known) {
        let changed = changed(&prepared.machine, effect.knob.changes).unwrap();
        let after = prepared.on(&changed, effect.knob.plan).unwrap();
        assert_eq!(effect.after, Some(after));
    }
}

//! The executed proof: a small BERT, run tile by tile on a small machine, ends with the losses and
//! the weights that plain `f64` arithmetic gives.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use bert_model::config::{Mode, Task};
use bert_model::placement::Recomputation;
use popart_graph::ir::TensorId;
use popart_graph::passes::Pipelining;
use popart_graph::passes::optimizer::rules::UpdateRule;
use rayon::prelude::*;
use tests::compare::{Distance, norm};
use tests::{Case, Plan, Results, adam, lamb, other_correction, plain_sgd, sgd};

const PRETRAINING: Task = Task::Pretraining(Mode::Training);

/// Of outputs and of every variable, in the norm of the tensor: many roundings of `f32`, each
/// 6e-8 of a number, in sums of up to 256.
const TOLERANCE_NORM: f64 = 1e-5;

/// Of the worst element, as a share of the largest.
const TOLERANCE_MAX: f64 = 1e-4;

/// Adam and LAMB divide a gradient by its own size, so that an element whose gradient all but
/// cancels moves as far as any, with no digit right. Elements whose first moment, which is
/// proportional to the gradient, has fewer digits than this in common are left out of the
/// comparison of weights (the moments themselves are compared whole) ...
const CANCELLED: f64 = 1e-5;

/// ... and may be at most this share of a weight: of the 64 biases of the pooler, whose gradients
/// of different sequences nearly cancel, up to 15 are.
const CANCELLED_SHARE: f64 = 0.25;

/// Of what a step adds to a weight, in the norm.
const TOLERANCE_CHANGE: f64 = 2e-5;

/// What storing a weight as `f32` may change it by.
const ROUNDING: f64 = 1.0 / (1_u64 << 24) as f64;

#[track_caller]
fn check(plan: Plan) {
    let failures = differences(plan);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Executes and evaluates a case, and compares all that is left.
fn differences(plan: Plan) -> Vec<String> {
    let case = Case::new(plan).unwrap();
    let got = case.execute().unwrap();
    let want = case.evaluate().unwrap();
    let mut failures = Vec::new();
    let mut got = got;
    for weight in &case.model.weights {
        failures.extend(leave_out_cancelled(&case, weight.tensor, &mut got, &want));
    }
    let pairs = [
        (&got.outputs, &want.outputs),
        (&got.variables, &want.variables),
    ];
    for (got, want) in pairs {
        assert!(!want.is_empty());
        for (id, want) in want {
            let distance = Distance::between(&got[id], want);
            if distance.norm > TOLERANCE_NORM || distance.max > TOLERANCE_MAX {
                let name = &case.compiled.graph.tensors[*id].name;
                failures.push(format!("`{name}`: {distance:?}"));
            }
        }
    }
    for weight in case.model.weights.iter().filter(|_| plan.task.trains()) {
        let id = weight.tensor;
        let old = &case.variables[&id];
        let change =
            |new: &[f64]| -> Vec<f64> { new.iter().zip(old).map(|(new, old)| new - old).collect() };
        let (got, want) = (change(&got.variables[&id]), change(&want.variables[&id]));
        let (name, size) = (&case.compiled.graph.tensors[id].name, norm(&want));
        assert!(size > 0.0, "`{name}` learns nothing");
        let allowed = TOLERANCE_CHANGE + ROUNDING * norm(old) / size;
        let distance = Distance::between(&got, &want);
        if distance.norm > allowed {
            failures.push(format!(
                "change of `{name}`, allowed {allowed}: {distance:?}"
            ));
        }
    }
    failures
}

/// Puts the wanted value where the gradient of a weight cancelled; says so if that is often.
fn leave_out_cancelled(
    case: &Case,
    weight: TensorId,
    got: &mut Results,
    want: &Results,
) -> Option<String> {
    let tensors = &case.compiled.graph.tensors;
    let moment = format!("Accl1___{}", tensors[weight].name);
    let moment = want
        .variables
        .keys()
        .find(|&&id| tensors[id].name == moment)?;
    let moments = got.variables[moment].iter().zip(&want.variables[moment]);
    let cancelled: Vec<usize> = moments
        .enumerate()
        .filter(|(_, (got, want))| (*got - *want).abs() > CANCELLED * want.abs())
        .map(|(element, _)| element)
        .collect();
    let wanted = &want.variables[&weight];
    let values = got.variables.get_mut(&weight).unwrap();
    for &element in &cancelled {
        values[element] = wanted[element];
    }
    let share = cancelled.len() as f64 / wanted.len() as f64;
    let name = &tensors[weight].name;
    (share > CANCELLED_SHARE).then(|| format!("`{name}`: {share} of its gradient cancels"))
}

fn training(rule: UpdateRule, pipelining: Pipelining, micro_batches: u32) -> Plan {
    Plan::new(PRETRAINING, pipelining, micro_batches, rule)
}

#[test]
fn a_step_with_lamb() {
    check(training(lamb(), Pipelining::Off, 1));
}

#[test]
fn a_step_with_adam() {
    check(training(adam(), Pipelining::Off, 1));
}

#[test]
fn a_step_with_sgd() {
    check(training(sgd(), Pipelining::Off, 1));
}

#[test]
fn gradients_of_four_micro_batches_are_summed() {
    check(training(lamb(), Pipelining::Off, 4));
}

#[test]
fn answers_of_inference() {
    let task = Task::Squad(Mode::Inference);
    check(Plan::new(task, Pipelining::Off, 2, sgd()));
}

#[test]
fn a_step_of_a_pipeline() {
    check(training(lamb(), Pipelining::On, 8));
}

#[test]
fn answers_of_a_pipeline() {
    let task = Task::Squad(Mode::Inference);
    check(Plan::new(task, Pipelining::On, 6, sgd()));
}

/// The values of one factor of the matrix that are combined with those of the others.
const FACTORS: [usize; 6] = [PLACEMENTS.len(), ACCUMULATIONS.len(), 3, 2, 2, 6];

/// Pipelining, IPU of the first encoder layer, layers of each IPU from there on. Every pipeline
/// returns to its first IPU, for the projection shares the word table.
const PLACEMENTS: [(Pipelining, u32, &[u32]); 4] = [
    (Pipelining::Off, 0, &[2]),
    (Pipelining::Off, 2, &[1]),
    (Pipelining::On, 0, &[1, 1]),
    (Pipelining::On, 1, &[1]),
];

const ACCUMULATIONS: [u32; 3] = [1, 4, 8];

/// The plan of one value of each factor; none where they exclude each other: a pipeline needs
/// micro-batches to fill, and only a pipeline recomputes.
fn combined(values: [usize; 6]) -> Option<Plan> {
    let [placement, accumulation, recomputation, qkv, vocab, rule] = values;
    let (pipelining, encoder_start_ipu, layers_per_ipu) = PLACEMENTS[placement];
    let micro_batches = ACCUMULATIONS[accumulation];
    let recomputation = [
        Recomputation::Off,
        Recomputation::FromStageInput,
        Recomputation::FromEveryLayer,
    ][recomputation];
    let rule = [
        lamb(),
        other_correction(lamb()),
        adam(),
        other_correction(adam()),
        sgd(),
        plain_sgd(),
    ][rule];
    let valid = match pipelining {
        Pipelining::On => micro_batches == 8,
        Pipelining::Off => recomputation == Recomputation::Off,
    };
    valid.then_some(Plan {
        recomputation,
        encoder_start_ipu,
        layers_per_ipu,
        split_qkv: qkv == 0,
        vocab_steps: 1 + vocab as u32,
        ..Plan::new(PRETRAINING, pipelining, micro_batches, rule)
    })
}

/// Two factors and a value of each.
type Pair = [(usize, usize); 2];

fn pairs(values: [usize; 6]) -> impl Iterator<Item = Pair> {
    let all = (0..6).flat_map(|a| (a + 1..6).map(move |b| (a, b)));
    all.map(move |(a, b)| [(a, values[a]), (b, values[b])])
}

/// Few combinations in which every pair of values occurs that can occur at all: always the one
/// that adds most pairs, the first of equals.
fn covering() -> Vec<[usize; 6]> {
    let mut all = vec![[0; 6]];
    for (factor, &count) in FACTORS.iter().enumerate() {
        let with = |values: [usize; 6]| {
            (0..count).map(move |value| {
                let mut values = values;
                values[factor] = value;
                values
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all.retain(|&values| combined(values).is_some());
    let mut missing: BTreeSet<Pair> = all.iter().copied().flat_map(pairs).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain =
            |values: &[usize; 6]| pairs(*values).filter(|pair| missing.contains(pair)).count();
        let best = all.iter().rev().max_by_key(|values| gain(values)).unwrap();
        for pair in pairs(*best) {
            missing.remove(&pair);
        }
        chosen.push(*best);
    }
    chosen
}

/// Placement, accumulation, recomputation, split or merged queries, keys and values, serialised
/// projection and optimiser, in every pair of choices.
#[test]
fn every_pair_of_choices() {
    let chosen = covering();
    // At least one for every two values of the two largest factors that go together.
    assert!((24..60).contains(&chosen.len()), "{}", chosen.len());
    let failures: Vec<String> = chosen
        .par_iter()
        .flat_map_iter(|&values| {
            let failures = differences(combined(values).unwrap());
            let named = move |failure: String| format!("{values:?}: {failure}");
            failures.into_iter().map(named)
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

//! The executed proof: a small BERT, run tile by tile on a small machine, ends with the losses and
//! the weights that plain `f64` arithmetic gives.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bert_model::config::{Mode, Task};
use popart_graph::passes::Pipelining;
use popart_graph::passes::optimizer::rules::UpdateRule;
use tests::compare::{Distance, norm};
use tests::{Case, Plan, adam, lamb, sgd};

const PRETRAINING: Task = Task::Pretraining(Mode::Training);

/// Of outputs and of every variable, in the norm of the tensor: many roundings of `f32`, each
/// 6e-8 of a number, in sums of up to 256.
const TOLERANCE_NORM: f64 = 1e-5;

/// Of the worst element, as a share of the largest. Adam and LAMB divide a gradient by its own
/// size, so that an element whose gradient all but cancels is as large as any, with fewer digits.
const TOLERANCE_MAX: f64 = 3e-4;

/// Of what a step adds to a weight, in the norm.
const TOLERANCE_CHANGE: f64 = 2e-5;

/// What storing a weight as `f32` may change it by.
const ROUNDING: f64 = 1.0 / (1_u64 << 24) as f64;

/// Executes and evaluates a case, and compares all that is left.
#[track_caller]
fn check(plan: Plan) {
    let case = Case::new(plan).unwrap();
    let got = case.execute().unwrap();
    let want = case.evaluate().unwrap();
    let mut failures = Vec::new();
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
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn training(rule: UpdateRule, pipelining: Pipelining, micro_batches: u32) -> Plan {
    Plan {
        task: PRETRAINING,
        pipelining,
        micro_batches,
        rule,
    }
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
    check(Plan {
        task: Task::Squad(Mode::Inference),
        pipelining: Pipelining::Off,
        micro_batches: 2,
        rule: sgd(),
    });
}

#[test]
fn a_step_of_a_pipeline() {
    check(training(lamb(), Pipelining::On, 8));
}

#[test]
fn answers_of_a_pipeline() {
    check(Plan {
        task: Task::Squad(Mode::Inference),
        pipelining: Pipelining::On,
        micro_batches: 6,
        rule: sgd(),
    });
}

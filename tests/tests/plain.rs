//! What the passes make of a model is what training it means: the graph after all passes, evaluated
//! in `f64`, against the model trained by the definition.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bert_model::config::{Mode, Task};
use popart_graph::ir::Reduction;
use popart_graph::passes::Pipelining;
use rayon::prelude::*;
use tests::compare::{Distance, norm};
use tests::matrix::{PRETRAINING, SQUAD, asked_for, combined, turn};
use tests::plan::sgd;
use tests::{Case, Plan, plain};

/// Both sides compute in `f64`, with sums in other orders.
const TOLERANCE: f64 = 1e-9;

/// Of a slope by differences: of itself, and what rounding makes of a loss of about 10 over steps
/// of 1e-4.
const SLOPE_TOLERANCE: f64 = 1e-8;
const SLOPE_ROUNDING: f64 = 1e-9;

/// Compares all that is left of a case: outputs, weights, moments, steps, accumulators.
fn differences(plan: Plan) -> Vec<String> {
    let case = Case::new(plan).unwrap();
    let (got, want) = (case.evaluate().unwrap(), plain::run(&case).unwrap());
    let mut failures = Vec::new();
    for (got, want) in [
        (&got.outputs, &want.outputs),
        (&got.variables, &want.variables),
    ] {
        assert!(!want.is_empty());
        assert!(got.keys().eq(want.keys()));
        for (id, want) in want {
            let name = &case.compiled.graph.tensors[*id].name;
            let distance = Distance::between(&got[id], want);
            let is_right = match plan.task == SQUAD && vanishes(name) {
                true => norm(&got[id]).max(norm(want)) < VANISHED,
                false => distance.norm < TOLERANCE,
            };
            if !is_right {
                failures.push(format!("`{name}`: {distance:?}"));
            }
        }
    }
    failures
}

/// What only shifts all logits of a SQuAD softmax, which doesn't change: gradients are zero but for
/// rounding, ...
fn vanishes(name: &str) -> bool {
    let weight = name.rsplit("___").next().unwrap();
    !name.starts_with("Step___")
        && (weight.ends_with("Squad/SquadB") || weight.ends_with("Layer1/FF/Beta"))
}

/// ... of which Adam makes at most this much, for it adds an epsilon of 1e-6 to what it divides by.
const VANISHED: f64 = 1e-9;

#[track_caller]
fn check(plan: Plan) {
    let failures = differences(plan);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Every three choices of the matrix together, or as many as `IPU_BENCH_PROOF` asks for, but for
/// pipelines without accumulation, each with sums and with means, and with a second update, which
/// starts from the moments of the first.
#[test]
fn every_three_choices_train_as_defined() {
    let in_turn = |plan: &Plan| plan.pipelining == Pipelining::Off || plan.micro_batches > 1;
    let chosen = asked_for(3, in_turn);
    // At least one for every two values of the two largest factors, which go together.
    assert!(chosen.len() >= 54, "{}", chosen.len());
    let plans = chosen.into_iter().flat_map(|values| {
        let plan = combined(values, turn(values)).unwrap();
        [Reduction::Sum, Reduction::Mean].map(|reduction| Plan {
            reduction,
            updates: 2,
            ..plan
        })
    });
    let plans: Vec<Plan> = plans.collect();
    let failures: Vec<String> = plans
        .into_par_iter()
        .flat_map_iter(|plan| {
            let named = move |failure| format!("{plan:?}: {failure}");
            differences(plan).into_iter().map(named)
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The gradients that the definition starts from are slopes of the loss.
#[test]
fn gradients_are_slopes_of_the_loss() {
    for task in [PRETRAINING, SQUAD] {
        let case = Case::new(Plan::new(task, Pipelining::Off, 1, sgd())).unwrap();
        let slopes = plain::slopes(&case).unwrap();
        assert_eq!(slopes.len(), case.model.weights.len());
        for (weight, (got, want)) in slopes {
            let name = &case.model.graph.tensors[weight].name;
            let allowed = SLOPE_TOLERANCE * want.abs() + SLOPE_ROUNDING;
            assert!((got - want).abs() < allowed, "`{name}`: {got}, not {want}");
            let is_slope = want.abs() > 1e5 * SLOPE_ROUNDING;
            assert_eq!(
                is_slope,
                task != SQUAD || !vanishes(name),
                "`{name}`: {want}"
            );
        }
    }
}

/// Forward passes have nothing but copies between IPUs added.
#[test]
fn answers_are_those_of_the_model() {
    let task = Task::Squad(Mode::Inference);
    for pipelining in [Pipelining::Off, Pipelining::On] {
        check(Plan::new(task, pipelining, 6, sgd()));
    }
}

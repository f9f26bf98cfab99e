//! The executed proof: a small BERT, run tile by tile on a small machine, ends with the losses and
//! the weights that plain `f64` arithmetic gives.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use bert_model::config::{Dropout, Mode, Task};
use bert_model::placement::{Recomputation, SquadHead};
use ipu_sim::program::Step;
use popart_graph::ir::{Op, OpKind, Reduction, TensorId};
use popart_graph::passes::optimizer::rules::UpdateRule;
use popart_graph::passes::{OptimizerState, Pipelining};
use rayon::prelude::*;
use tests::compare::{Distance, norm};
use tests::plan::{adam, lamb, other_correction, plain_sgd, sgd};
use tests::{Case, Plan, Results};

const PRETRAINING: Task = Task::Pretraining(Mode::Training);
const SQUAD: Task = Task::Squad(Mode::Training);

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

/// Of what a step adds to a weight, in the norm. LAMB divides by the norm of all elements, those
/// whose gradient cancels included: of 32 scales of the embedding's norm, one that is off by 0.2 %
/// moves all others by 3e-5.
const TOLERANCE_CHANGE: f64 = 4e-5;

/// What storing a weight as `f32` may change it by, once an update.
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
    let (mut got, mut want) = (got, want);
    if plan.task == SQUAD {
        failures.extend(leave_out_vanishing(&case, &mut got, &mut want));
    }
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
            // What a second update starts from is as far off as the first has left it.
            let updates = f64::from(plan.updates);
            if distance.norm > updates * TOLERANCE_NORM || distance.max > updates * TOLERANCE_MAX {
                let name = &case.compiled.graph.tensors[*id].name;
                failures.push(format!("`{name}`: {distance:?}"));
            }
        }
    }
    for weight in case.model.weights.iter().filter(|_| plan.task.trains()) {
        let id = weight.tensor;
        if !want.variables.contains_key(&id) {
            continue;
        }
        let old = &case.variables[&id];
        let change =
            |new: &[f64]| -> Vec<f64> { new.iter().zip(old).map(|(new, old)| new - old).collect() };
        let (got, want) = (change(&got.variables[&id]), change(&want.variables[&id]));
        let (name, size) = (&case.compiled.graph.tensors[id].name, norm(&want));
        assert!(size > 0.0, "`{name}` learns nothing");
        let allowed = f64::from(plan.updates) * (TOLERANCE_CHANGE + ROUNDING * norm(old) / size);
        let distance = Distance::between(&got, &want);
        if distance.norm > allowed {
            failures.push(format!(
                "change of `{name}`, allowed {allowed}: {distance:?}"
            ));
        }
    }
    failures
}

/// Takes out what only shifts all logits of a SQuAD softmax, which doesn't change: gradients are
/// zero but for rounding, and Adam makes a step of that. Says so where rounding isn't all.
fn leave_out_vanishing(case: &Case, got: &mut Results, want: &mut Results) -> Vec<String> {
    let tensors = &case.compiled.graph.tensors;
    let sizes = |results: &Results, suffix: &str| -> Vec<(String, f64)> {
        let states = results.variables.iter().filter_map(|(&id, values)| {
            let (prefix, weight) = tensors[id].name.split_once("___")?;
            let is_moment = prefix == "Accl" || prefix == "Accl1";
            (is_moment && weight == suffix).then(|| (prefix.to_owned(), norm(values)))
        });
        states.collect()
    };
    let mut failures = Vec::new();
    let of_weight = sizes(want, "Squad/SquadW");
    for name in ["Squad/SquadB", "Layer1/FF/Beta"] {
        for results in [&*got, &*want] {
            for ((prefix, size), (_, of_weight)) in sizes(results, name).iter().zip(&of_weight) {
                if *size > TOLERANCE_NORM * of_weight {
                    failures.push(format!("{prefix} of `{name}` is {size}, not rounded 0"));
                }
            }
        }
        let is_of = |id: &TensorId| tensors[*id].name.ends_with(name);
        got.variables.retain(|id, _| !is_of(id));
        want.variables.retain(|id, _| !is_of(id));
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
    let wanted = want.variables.get(&weight)?;
    let values = got.variables.get_mut(&weight)?;
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

/// One update of a model twice as wide, unpipelined on four IPUs of 32 tiles: every output,
/// weight and moment is right as a whole, with nothing left out.
#[track_caller]
fn check_whole(rule: UpdateRule) {
    let case = Case::new(Plan {
        hidden_size: 64,
        n_ipus: 4,
        ..training(rule, Pipelining::Off, 1)
    })
    .unwrap();
    let (got, want) = (case.execute().unwrap(), case.evaluate().unwrap());
    let weights = case.model.weights.iter().map(|weight| weight.tensor);
    for id in weights {
        let new = &want.variables[&id];
        assert_ne!(*new, case.variables[&id], "a weight learns nothing");
    }
    assert!(!want.outputs.is_empty(), "there is a loss");
    for (got, want) in [
        (&got.outputs, &want.outputs),
        (&got.variables, &want.variables),
    ] {
        for (id, want) in want {
            let Distance { norm, .. } = Distance::between(&got[id], want);
            let name = &case.compiled.graph.tensors[*id].name;
            assert!(norm < TOLERANCE_NORM, "`{name}` is off by {norm}");
        }
    }
}

#[test]
fn a_whole_step_with_lamb() {
    check_whole(lamb());
}

#[test]
fn a_whole_step_with_adam() {
    check_whole(adam());
}

#[test]
fn a_whole_step_with_sgd() {
    check_whole(sgd());
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

/// Both layers on one IPU, whose calls copy what they take while stashes and recomputation
/// bring it back.
#[test]
fn layers_of_one_ipu_share_code_and_values() {
    let recomputations = [
        Recomputation::Off,
        Recomputation::FromStageInput,
        Recomputation::FromEveryLayer,
    ];
    for recomputation in recomputations {
        for (outline, split_qkv) in [(true, true), (true, false), (false, true)] {
            let plan = Plan {
                layers_per_ipu: &[2],
                recomputation,
                outline,
                split_qkv,
                ..training(lamb(), Pipelining::On, 8)
            };
            let case = Case::new(plan).unwrap();
            let is_copy = |op: &Op| matches!(op.kind, OpKind::CallInput);
            let copies = case.compiled.graph.ops.values().any(is_copy);
            assert_eq!(copies, outline, "calls take copies");
            check(plan);
        }
    }
}

#[test]
fn answers_of_a_pipeline() {
    let task = Task::Squad(Mode::Inference);
    check(Plan::new(task, Pipelining::On, 6, sgd()));
}

#[test]
fn replicas_train_as_one_does_on_all_their_data() {
    check(Plan {
        replicas: 2,
        ..training(adam(), Pipelining::Off, 4)
    });
}

/// Every micro-batch of a pipeline may be an update of its own, in the stage that ends its
/// gradient.
#[test]
fn updates_in_the_stages_of_a_pipeline() {
    for rule in [plain_sgd(), sgd(), lamb(), adam()] {
        check(Plan {
            updates: 8,
            ..training(rule, Pipelining::On, 1)
        });
    }
}

/// The second update starts from moments that the first has left in streaming memory.
#[test]
fn a_second_update_takes_the_moments_of_the_first() {
    check(Plan {
        replicas: 2,
        updates: 2,
        state: BOTH,
        ..training(lamb(), Pipelining::On, 8)
    });
}

const BOTH: OptimizerState = OptimizerState {
    sharded: true,
    off_chip: true,
};

/// Reading memory that nothing wrote says which tensor, and on which tile.
#[test]
fn what_nothing_wrote_cant_be_read() {
    let case = Case::new(training(lamb(), Pipelining::Off, 1)).unwrap();
    let mut lowered = case.lower().unwrap();
    // An exchange brings operands to a vertex: without it they aren't there.
    let steps = &mut lowered.program.steps;
    let is_exchange = |step: &Step| matches!(step, Step::Exchange(_));
    let first = steps.iter().position(is_exchange);
    steps.remove(first.expect("a micro-batch isn't repeated"));
    let error = tests::execute::run(&case, &lowered, case.feeds()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with('`') && text.contains("` on tile "),
        "{text}"
    );
    assert!(text.ends_with(" is read before it is written"), "{text}");
}

/// The values of one factor of the matrix that are combined with those of the others.
const FACTORS: [usize; 8] = [PLACEMENTS.len(), ACCUMULATIONS.len(), 3, 2, 2, 6, 2, 4];

/// Which model is where.
struct Placed {
    task: Task,
    pipelining: Pipelining,
    encoder_start_ipu: u32,
    layers_per_ipu: &'static [u32],
    squad_head: SquadHead,
    /// Of the pipeline, backward ones included; 1 without one.
    n_stages: u32,
}

const fn placed(pipelining: Pipelining, encoder_start_ipu: u32, n_stages: u32) -> Placed {
    Placed {
        task: PRETRAINING,
        pipelining,
        encoder_start_ipu,
        layers_per_ipu: &[1],
        squad_head: SquadHead::FirstIpu,
        n_stages,
    }
}

/// A pipeline for pre-training returns to its first IPU, for the projection shares the word
/// table; one for SQuAD may end where its encoder does.
const PLACEMENTS: [Placed; 7] = [
    // One IPU, and four in turn.
    Placed {
        layers_per_ipu: &[2],
        ..placed(Pipelining::Off, 0, 1)
    },
    placed(Pipelining::Off, 2, 1),
    // Two forward stages, and four.
    Placed {
        task: SQUAD,
        squad_head: SquadHead::LastEncoderIpu,
        ..placed(Pipelining::On, 0, 3)
    },
    Placed {
        task: SQUAD,
        squad_head: SquadHead::LastEncoderIpu,
        ..placed(Pipelining::On, 2, 7)
    },
    // Back on the first IPU: two IPUs, three, and two again for SQuAD.
    placed(Pipelining::On, 0, 5),
    placed(Pipelining::On, 1, 7),
    Placed {
        task: SQUAD,
        ..placed(Pipelining::On, 0, 5)
    },
];

const ACCUMULATIONS: [u32; 3] = [1, 4, 8];

/// The plan of one value of each factor; none where they exclude each other: a pipeline that
/// accumulates needs as many micro-batches as stages, and only a pipeline recomputes. One that
/// doesn't accumulate makes enough updates to fill it and repeat its main cycle.
///
/// What isn't a factor takes turns: tiles of an IPU, reduction, dropout, merged collectives.
fn combined(values: [usize; 8]) -> Option<Plan> {
    let [
        placement,
        accumulation,
        recomputation,
        qkv,
        vocab,
        rule,
        replicas,
        state,
    ] = values;
    let placed = &PLACEMENTS[placement];
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
    let (valid, updates) = match placed.pipelining {
        Pipelining::On if micro_batches == 1 => (true, placed.n_stages + 1),
        Pipelining::On => (micro_batches >= placed.n_stages, 1),
        Pipelining::Off => (recomputation == Recomputation::Off, 1),
    };
    let turn: usize = values.iter().sum();
    valid.then_some(Plan {
        updates,
        recomputation,
        encoder_start_ipu: placed.encoder_start_ipu,
        layers_per_ipu: placed.layers_per_ipu,
        squad_head: placed.squad_head,
        split_qkv: qkv == 0,
        vocab_steps: 1 + vocab as u32,
        replicas: 1 + replicas as u32,
        state: OptimizerState {
            sharded: state % 2 == 1,
            off_chip: state / 2 == 1,
        },
        n_tiles: [16, 32, 64][turn % 3],
        merge_collectives: turn % 2 == 1,
        reduction: [Reduction::Sum, Reduction::Mean][turn % 2],
        dropout: [Dropout::HiddenAndAttention, Dropout::Hidden, Dropout::Off][turn / 2 % 3],
        ..Plan::new(placed.task, placed.pipelining, micro_batches, rule)
    })
}

/// All combinations that can be.
fn all() -> Vec<[usize; 8]> {
    let mut all = vec![[0; 8]];
    for (factor, &count) in FACTORS.iter().enumerate() {
        let with = |values: [usize; 8]| {
            (0..count).map(move |value| {
                let mut values = values;
                values[factor] = value;
                values
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all.retain(|&values| combined(values).is_some());
    all
}

/// Every choice of `strength` factors with their values, each as one number: a digit for each
/// factor, 0 where it isn't chosen.
fn choices(values: [usize; 8], strength: u32) -> impl Iterator<Item = u64> {
    let chosen = (0_u32..1 << 8).filter(move |mask| mask.count_ones() == strength);
    chosen.map(move |mask| {
        let digits = values.iter().enumerate().map(|(factor, &value)| {
            (u64::from(mask >> factor & 1) * (value as u64 + 1)) << (4 * factor)
        });
        digits.sum()
    })
}

/// Few combinations in which every choice of `strength` values occurs that can occur at all:
/// always the one that adds most, the first of equals.
fn covering(strength: u32) -> Vec<[usize; 8]> {
    let all = all();
    let mut missing: BTreeSet<u64> = all
        .iter()
        .flat_map(|&values| choices(values, strength))
        .collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |values: &[usize; 8]| {
            let found = choices(*values, strength).filter(|choice| missing.contains(choice));
            found.count()
        };
        let best = all.iter().rev().max_by_key(|values| gain(values)).unwrap();
        for choice in choices(*best, strength) {
            missing.remove(&choice);
        }
        chosen.push(*best);
    }
    chosen
}

/// What `IPU_BENCH_PROOF` asks for: `2` values together in every way, the default; `3`; or
/// `all`, which takes an hour.
fn asked_for() -> Vec<[usize; 8]> {
    match std::env::var("IPU_BENCH_PROOF").as_deref() {
        Err(_) | Ok("2") => covering(2),
        Ok("3") => covering(3),
        Ok("all") => all(),
        Ok(other) => panic!("IPU_BENCH_PROOF is 2, 3 or all, not `{other}`"),
    }
}

/// Placement, accumulation, recomputation, split or merged queries, keys and values, serialised
/// projection, optimiser, replicas and where moments live, in every pair of choices.
#[test]
fn every_pair_of_choices() {
    let chosen = asked_for();
    // At least one for every two values of the two largest factors, which go together.
    assert!(chosen.len() >= 42, "{}", chosen.len());
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

//! The executed proof: a small BERT, run tile by tile on a small machine, ends with the losses and
//! the weights that plain `f64` arithmetic gives.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use bert_model::config::{Dropout, Mode, Task};
use bert_model::optim::OptimizerOptions;
use bert_model::placement::{Recomputation, SquadHead};
use ipu_sim::ids::IpuId;
use ipu_sim::program::Step;
use popart_graph::ir::{Op, OpKind, Phase, Recompute, TensorId};
use popart_graph::passes::{
    OptimizerState, Outlining, Pipelining, Sharding, SoftmaxDropoutGradient, StateMemory,
};
use rayon::prelude::*;
use tests::compare::{Distance, norm};
use tests::matrix::{FACTORS, PACKS, PRETRAINING, SQUAD, all, asked_for, combined, turn};
use tests::plan::{adam, half_first_moment, lamb, plain_sgd, sgd};
use tests::{Case, Plan, Results};

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

/// ... where several updates follow each other, at most this one: what cancelled in one update
/// has moved its weight anyhow, and so takes digits from all gradients of the next. In the sixth,
/// the smaller two thirds of the gradients of one case of packs, among all threes of choices, have
/// lost them; in their norm the moments still agree.
const CANCELLED_SHARE_OF_SEVERAL: f64 = 0.7;

/// Of what a step adds to a weight, in the norm. LAMB divides by the norm of all elements, those
/// whose gradient cancels included: of 32 scales of the embedding's norm, one that is off by 0.2 %
/// moves all others by 3e-5.
const TOLERANCE_CHANGE: f64 = 4e-5;

/// What storing a weight as `f32` may change it by, once an update.
const ROUNDING: f64 = 1.0 / (1_u64 << 24) as f64;

/// How much coarser all that follows from a first moment in `f16` is: of its 11 binary digits the
/// last is half of 1e-3, of which the step of a weight takes as much.
const HALF_MOMENT: f64 = 100.0;

#[track_caller]
fn check(plan: Plan) {
    let failures = differences(plan);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Executes and evaluates a case, and compares all that is left.
fn differences(plan: Plan) -> Vec<String> {
    let cancelled_most = match plan.updates {
        1 => CANCELLED_SHARE,
        _ => CANCELLED_SHARE_OF_SEVERAL,
    };
    let coarser = match plan.optimizer.moments.keep_loss_scale() {
        true => HALF_MOMENT,
        false => 1.0,
    };
    let case = Case::new(plan).unwrap();
    let (mut got, mut want) = match (case.execute(), case.evaluate()) {
        (Ok(got), Ok(want)) => (got, want),
        (got, want) => {
            let failed = [("tiles", got.err()), ("graph", want.err())];
            let failed = failed.map(|(by, error)| Some(format!("{by}: {}", error?)));
            return failed.into_iter().flatten().collect();
        }
    };
    let mut failures = Vec::new();
    if plan.task == SQUAD {
        failures.extend(leave_out_vanishing(&case, &mut got, &mut want));
    }
    for weight in &case.model.weights {
        let digits = coarser * CANCELLED;
        let cancelled = leave_out_cancelled(&case, weight.tensor, digits, &mut got, &want);
        if let Some((name, cancelled)) =
            cancelled.filter(|(_, cancelled)| *cancelled > cancelled_most)
        {
            failures.push(format!("`{name}`: {cancelled} of its gradient cancels"));
        }
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
            let allowed = coarser * f64::from(plan.updates);
            if distance.norm > allowed * TOLERANCE_NORM || distance.max > allowed * TOLERANCE_MAX {
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
        let allowed =
            f64::from(plan.updates) * (coarser * TOLERANCE_CHANGE + ROUNDING * norm(old) / size);
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

/// Puts the wanted value where the gradient of a weight cancelled, to fewer `digits` than it should
/// have; gives the weight's name, and the share of it.
fn leave_out_cancelled(
    case: &Case,
    weight: TensorId,
    digits: f64,
    got: &mut Results,
    want: &Results,
) -> Option<(String, f64)> {
    let tensors = &case.compiled.graph.tensors;
    let moment = format!("Accl1___{}", tensors[weight].name);
    let moment = want
        .variables
        .keys()
        .find(|&&id| tensors[id].name == moment)?;
    let moments = got.variables[moment].iter().zip(&want.variables[moment]);
    let cancelled: Vec<usize> = moments
        .enumerate()
        .filter(|(_, (got, want))| (*got - *want).abs() > digits * want.abs())
        .map(|(element, _)| element)
        .collect();
    let wanted = want.variables.get(&weight)?;
    let values = got.variables.get_mut(&weight)?;
    for &element in &cancelled {
        values[element] = wanted[element];
    }
    let share = cancelled.len() as f64 / wanted.len() as f64;
    Some((tensors[weight].name.clone(), share))
}

fn training(optimizer: OptimizerOptions, pipelining: Pipelining, micro_batches: u32) -> Plan {
    Plan::new(PRETRAINING, pipelining, micro_batches, optimizer)
}

/// One update of a model twice as wide, unpipelined on four IPUs of 32 tiles: every output,
/// weight and moment is right as a whole, with nothing left out.
#[track_caller]
fn check_whole(optimizer: OptimizerOptions) {
    let case = Case::new(Plan {
        hidden_size: 64,
        n_ipus: 4,
        ..training(optimizer, Pipelining::Off, 1)
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

/// Losses, accuracies and weights of rows that hold several sequences, in turn and in a pipeline
/// whose stages make the mask again.
#[test]
fn a_step_of_packs() {
    for (pipelining, micro_batches) in [(Pipelining::Off, 2), (Pipelining::On, 8)] {
        check(Plan {
            sequence_format: PACKS,
            ..training(lamb(), pipelining, micro_batches)
        });
    }
}

/// The numbers of sequences come by one stream to the first stage with a layer, are copied on to
/// the next, and are kept by both, which make their masks again from them.
#[test]
fn numbers_of_packs_go_from_stage_to_stage() {
    let case = Case::new(Plan {
        sequence_format: PACKS,
        ..training(lamb(), Pipelining::On, 8)
    })
    .unwrap();
    let ops = case.compiled.graph.ops.values();
    let mut moved: Vec<(&str, u32, u32)> = ops
        .clone()
        .filter(|op| op.name.ends_with("input_mask"))
        .map(|op| (op.kind.name(), op.ipu.unwrap().0, op.stage.unwrap().0))
        .collect();
    moved.sort_unstable();
    assert_eq!(
        moved,
        [
            ("ipu_copy", 1, 1),
            ("restore", 1, 5),
            ("restore", 2, 4),
            ("stash", 1, 1),
            ("stash", 2, 2),
        ]
    );
    let masks = ops.filter(|op| op.kind == OpKind::AttentionMask);
    let again = masks.map(|op| (op.stage.unwrap().0, op.recompute));
    let expected = [(1, Recompute::Recompute), (2, Recompute::Recompute)];
    assert_eq!(again.collect::<Vec<_>>(), expected);
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
fn a_step_with_half_of_the_state_in_f16() {
    for optimizer in [lamb(), adam()] {
        check(training(half_first_moment(optimizer), Pipelining::Off, 1));
    }
}

/// SQuAD with its head back on the first IPU, in a stage of its own, or behind its last layer.
#[test]
fn a_step_on_questions_with_the_head_on_the_first_ipu_or_the_last() {
    // Gradients are sums over eight micro-batches and not clipped: with more they overflow `f16`.
    let optimizer = OptimizerOptions {
        loss_scaling: 4096.0,
        ..half_first_moment(adam())
    };
    for (squad_head, n_stages) in [(SquadHead::FirstIpu, 5), (SquadHead::LastEncoderIpu, 3)] {
        let plan = Plan {
            encoder_start_ipu: 0,
            squad_head,
            ..Plan::new(SQUAD, Pipelining::On, 8, optimizer)
        };
        assert_eq!(Case::new(plan).unwrap().n_stages(), n_stages);
        check(plan);
        let answers = Plan {
            task: Task::Squad(Mode::Inference),
            micro_batches: 6,
            ..plan
        };
        assert_eq!(Case::new(answers).unwrap().n_stages(), n_stages / 2 + 1);
        check(answers);
    }
}

/// Without the dropout in the gradient of attention there is one less in every layer, and other
/// gradients.
#[test]
fn a_step_without_the_gradient_of_attention_dropout() {
    let exact = training(lamb(), Pipelining::On, 8);
    let identity = Plan {
        softmax_dropout_gradient: SoftmaxDropoutGradient::Identity,
        ..exact
    };
    let dropouts = |plan| {
        let case = Case::new(plan).unwrap();
        let is_dropout =
            |op: &&Op| op.phase == Phase::Backward && matches!(op.kind, OpKind::Dropout { .. });
        case.compiled.graph.ops.values().filter(is_dropout).count()
    };
    let n_layers = exact.config().num_layers as usize;
    assert_eq!(dropouts(identity) + n_layers, dropouts(exact));
    check(identity);
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
        let (on, off) = (Outlining::On, Outlining::Off);
        for (outlining, split_qkv) in [(on, true), (on, false), (off, true)] {
            let plan = Plan {
                layers_per_ipu: &[2],
                recomputation,
                outlining,
                split_qkv,
                ..training(lamb(), Pipelining::On, 8)
            };
            let case = Case::new(plan).unwrap();
            let is_copy = |op: &Op| matches!(op.kind, OpKind::CallInput);
            let copies = case.compiled.graph.ops.values().any(is_copy);
            assert_eq!(copies, outlining == on, "calls take copies");
            check(plan);
        }
    }
}

/// A layer's halves may be in two stages, on the first IPU's last one among others.
#[test]
fn layers_cut_in_the_middle() {
    let recomputations = [
        Recomputation::Off,
        Recomputation::FromStageInput,
        Recomputation::FromEveryBlock,
    ];
    let groups: [&[(u32, u32, u32)]; 4] = [
        &[(1, 2, 1), (0, 0, 1)],
        // Attention on the first IPU, too, behind the embedding and before the heads.
        &[(0, 1, 0), (1, 1, 1), (0, 0, 1)],
        // Each half on its own, and one IPU twice.
        &[(1, 1, 0), (2, 0, 1), (1, 1, 0), (2, 0, 1)],
        // Nothing on IPU 1.
        &[(2, 1, 0), (0, 1, 2)],
    ];
    for half_layers in groups {
        let mut graphs = Vec::new();
        for recomputation in recomputations {
            let plan = Plan {
                half_layers,
                recomputation,
                ..training(lamb(), Pipelining::On, 12)
            };
            graphs.push(Case::new(plan).unwrap().compiled.graph);
            check(plan);
        }
        assert!(graphs[0] != graphs[1] && graphs[1] != graphs[2]);
    }
}

/// Where a layer is cut, its attention output goes on, which is also the residual of the
/// feed-forward half: one tensor.
#[test]
fn one_tensor_crosses_a_cut() {
    let plan = Plan {
        half_layers: &[(1, 2, 1), (0, 0, 1)],
        dropout: Dropout::Off,
        ..training(lamb(), Pipelining::On, 8)
    };
    let case = Case::new(plan).unwrap();
    let graph = &case.compiled.graph;
    let forward = graph.ops.values().filter(|op| {
        let from_one = op.ipu == Some(IpuId(1)) && op.phase == Phase::Forward;
        from_one && matches!(op.kind, OpKind::IpuCopy { .. })
    });
    let crossing: Vec<&[u32]> = forward
        .map(|op| graph.tensors[op.inputs[0]].shape.dims())
        .collect();
    let config = plan.config();
    assert_eq!(crossing, [[config.rows(), config.hidden_size]]);
}

/// One factor for the gradients of all IPUs and replicas, whole or in shards.
#[test]
fn gradients_clipped_by_their_common_norm() {
    for (optimizer, pipelining, replicas, state) in [
        (lamb(), Pipelining::Off, 1, None),
        (adam(), Pipelining::On, 1, None),
        (lamb(), Pipelining::On, 2, Some(BOTH)),
    ] {
        let clipped = |clip_norm| {
            let mut plan = Plan {
                replicas,
                updates: 2,
                ..training(
                    OptimizerOptions {
                        clip_norm,
                        ..optimizer
                    },
                    pipelining,
                    8,
                )
            };
            plan.state = state.unwrap_or(plan.state);
            plan
        };
        check(clipped(Some(0.25)));
        // It acts, and a limit that no norm reaches doesn't.
        let moments = |clip_norm| Case::new(clipped(clip_norm)).unwrap().evaluate().unwrap();
        let outputs = [Some(0.25), None, Some(1e9)].map(|limit| moments(limit).outputs);
        assert_ne!(
            outputs[0], outputs[1],
            "the second update starts from other weights"
        );
        assert_eq!(outputs[1], outputs[2]);
    }
}

/// Every forward stage may keep all that its backward stage reads while the others compute it again.
#[test]
fn each_stage_of_a_pipeline_recomputes_or_not() {
    for whole_stages in [&[0][..], &[1, 2]] {
        let plan = Plan {
            layers_per_ipu: &[2],
            recomputation: Recomputation::FromEveryLayer,
            whole_stages,
            ..training(lamb(), Pipelining::On, 8)
        };
        let case = Case::new(plan).unwrap();
        let again = case.compiled.graph.ops.values();
        let again = again.filter(|op| op.recompute == Recompute::Recompute);
        let again: BTreeSet<u32> = again.filter_map(|op| Some(op.stage?.0)).collect();
        // The loss follows in the last of three stages at once.
        let expected = (0..2).filter(|stage| !whole_stages.contains(stage));
        assert_eq!(again, expected.collect(), "{whole_stages:?}");
        check(plan);
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
    for optimizer in [plain_sgd(), sgd(), lamb(), adam()] {
        check(Plan {
            updates: 8,
            ..training(optimizer, Pipelining::On, 1)
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
    sharding: Sharding::On,
    memory: StateMemory::OffChip,
};

/// Reading memory that nothing wrote says which tensor, and on which tile.
#[test]
fn what_nothing_wrote_cant_be_read() {
    let case = Case::new(training(lamb(), Pipelining::Off, 1)).unwrap();
    let mut lowered = case.compiled.lowered.clone();
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

/// Two values of a factor whose graphs are equal in every combination would prove one thing twice.
#[test]
fn no_two_values_of_a_factor_give_the_same_graphs() {
    // A mean over all replicas, of which there may be two.
    const TURN: usize = 1;
    let all = all();
    let graph = |values| {
        Case::new(combined(values, TURN).unwrap())
            .unwrap()
            .compiled
            .graph
    };
    for (factor, &count) in FACTORS.iter().enumerate() {
        for (one, other) in
            (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)))
        {
            let pairs = all.iter().rev().filter(|values| values[factor] == one);
            let pairs = pairs.filter_map(|&values| {
                let mut changed = values;
                changed[factor] = other;
                combined(changed, TURN).map(|_| (values, changed))
            });
            let mut pairs = pairs.peekable();
            // What is kept of whole layers and of half layers never meets.
            let exclude_each_other = pairs.peek().is_none();
            assert_eq!(exclude_each_other, (factor, one, other) == (2, 2, 3));
            let differ = pairs.any(|(values, changed)| graph(values) != graph(changed));
            assert!(
                differ || exclude_each_other,
                "values {one} and {other} of factor {factor} give the same graphs"
            );
        }
    }
}

/// With both layers on one IPU, each way to recompute has a graph of its own; with one, keeping the
/// output of every layer keeps nothing more.
#[test]
fn every_recomputation_has_a_graph_of_its_own() {
    let graphs = |plan: Plan| {
        let ways = [
            Recomputation::Off,
            Recomputation::FromStageInput,
            Recomputation::FromEveryLayer,
        ];
        ways.map(|recomputation| {
            let case = Case::new(Plan {
                recomputation,
                ..plan
            })
            .unwrap();
            case.compiled.graph
        })
    };
    let mut seen = 0;
    for values in all().into_iter().filter(|values| values[2..] == [0; 6]) {
        let plan = combined(values, turn(values)).unwrap();
        if plan.pipelining == Pipelining::Off || !plan.half_layers.is_empty() {
            continue;
        }
        let [off, from_stage, from_layer] = graphs(plan);
        assert_ne!(off, from_stage, "{values:?}");
        assert_ne!(off, from_layer, "{values:?}");
        assert_eq!(
            from_stage == from_layer,
            plan.layers_per_ipu == [1],
            "{values:?}"
        );
        seen += u32::from(plan.layers_per_ipu == [2]);
    }
    // Placements of 3, 5 and 7 stages without accumulation, with 8, and the first also with 4; that
    // of packs of 5 stages.
    assert_eq!(seen, 9);
}

/// Placement, accumulation, recomputation, split or merged queries, keys and values, serialised
/// projection, optimiser, replicas and where moments live, in every pair of choices.
#[test]
fn every_pair_of_choices() {
    let chosen = asked_for(2, |_| true);
    // At least one for every two values of the two largest factors, which go together.
    assert!(chosen.len() >= 54, "{}", chosen.len());
    let failures: Vec<String> = chosen
        .par_iter()
        .flat_map_iter(|&values| {
            let failures = differences(combined(values, turn(values)).unwrap());
            let named = move |failure: String| format!("{values:?}: {failure}");
            failures.into_iter().map(named)
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

//! Where SQuAD's head is, and what half of the state of its optimiser in `f16` takes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bert_model::config::{Mode as TaskMode, Task};
use bert_model::placement::{Recomputation, SquadHead};
use ipu_sim::engine::{self, Mode, Options};
use ipu_sim::ids::IpuId;
use popart_graph::ir::{Graph, OpKind, Recompute, StageId, TensorKind};
use popart_graph::passes::{OptimizerState, Pipelining, Sharding, StateMemory};
use popart_graph::session::Compiled;
use tests::matrix::SQUAD;
use tests::plan::{adam, half_first_moment};
use tests::{Case, Plan, small_machine};

/// Two layers on two IPUs: stages 0 and 1, and 2 where the head wraps.
fn plan(squad_head: SquadHead) -> Plan {
    Plan {
        encoder_start_ipu: 0,
        squad_head,
        recomputation: Recomputation::FromStageInput,
        ..Plan::new(SQUAD, Pipelining::On, 8, adam())
    }
}

fn graph(plan: Plan) -> Graph {
    Case::new(plan).unwrap().compiled.graph
}

/// The most micro-batches in flight that a stage stashes; none if it stashes nothing.
fn slots(graph: &Graph, stage: u32) -> Option<u32> {
    let stashes = graph.ops.values().filter_map(|op| match op.kind {
        OpKind::Stash { slots } if op.stage == Some(StageId(stage)) => Some(slots),
        _ => None,
    });
    stashes.max()
}

/// A stage keeps what it stashes until its backward pass, `2 (Lp - s)` stages later: two less where
/// the loss is one stage earlier.
#[test]
fn a_head_on_the_last_ipu_takes_two_slots_from_every_stash() {
    let wrapped = graph(plan(SquadHead::FirstIpu));
    let unwrapped = graph(plan(SquadHead::LastEncoderIpu));
    let of = |graph: &Graph| [0, 1, 2].map(|stage| slots(graph, stage));
    assert_eq!(of(&wrapped), [Some(5), Some(3), None]);
    assert_eq!(of(&unwrapped), [Some(3), None, None]);
}

/// The loss stage runs nothing twice behind its last checkpoint, and with one layer there is none.
#[test]
fn the_stage_of_the_loss_computes_nothing_again() {
    for (squad_head, expected) in [
        (SquadHead::FirstIpu, [true, true, false]),
        (SquadHead::LastEncoderIpu, [true, false, false]),
    ] {
        let graph = graph(plan(squad_head));
        let again = |stage| {
            let mut ops = graph.ops.values();
            ops.any(|op| op.stage == Some(StageId(stage)) && op.recompute == Recompute::Recompute)
        };
        assert_eq!([0, 1, 2].map(again), expected, "{squad_head:?}");
    }
}

/// With both layers in the stage of the loss, the first of them is computed again from what arrived:
/// its output is the last checkpoint.
#[test]
fn layers_before_the_last_checkpoint_are_computed_again_in_the_stage_of_the_loss() {
    let compiled = |recomputation| {
        let plan = Plan {
            encoder_start_ipu: 1,
            layers_per_ipu: &[2],
            recomputation,
            ..plan(SquadHead::LastEncoderIpu)
        };
        Case::new(plan).unwrap().compiled
    };
    let every_layer = compiled(Recomputation::FromEveryLayer);
    let again = every_layer
        .graph
        .ops
        .values()
        .filter(|op| op.recompute == Recompute::Recompute && op.stage == Some(StageId(1)));
    let named: Vec<&str> = again.map(|op| op.name.as_str()).collect();
    assert!(!named.is_empty());
    assert!(
        named.iter().all(|name| name.starts_with("Layer0/")),
        "{named:?}"
    );
    // The program calls it twice in a micro-batch, and what is kept for stages after none.
    let machine = small_machine(8, 32).unwrap();
    let busy = |compiled: &Compiled| {
        let options = Options {
            mode: Mode::Folded,
            trace_depth: 0,
        };
        let timeline = engine::time(&compiled.lowered.program, &machine, options).unwrap();
        timeline.total.0
    };
    let stage_input = compiled(Recomputation::FromStageInput);
    assert!(busy(&every_layer) > busy(&stage_input));
}

/// Hidden states go to the first IPU and their gradients come back where the head wraps; where it
/// doesn't, both stay.
#[test]
fn hidden_states_are_copied_to_a_wrapped_head() {
    let inference = |squad_head| Plan {
        task: Task::Squad(TaskMode::Inference),
        ..plan(squad_head)
    };
    for (training, answering, squad_head) in [
        (1, 1, SquadHead::FirstIpu),
        (0, 0, SquadHead::LastEncoderIpu),
    ] {
        let copies = |plan, from: u32, to: u32| {
            let graph = graph(plan);
            let hidden = [16, 32];
            let copies = graph.ops.values().filter(|op| {
                matches!(op.kind, OpKind::IpuCopy { to: ipu } if ipu == IpuId(to))
                    && op.ipu == Some(IpuId(from))
                    && graph.tensors[op.outputs[0]].shape.dims() == hidden
            });
            copies.count()
        };
        // Gradients of the first layer's output go that way in any case.
        assert_eq!(copies(plan(squad_head), 1, 0), 1 + training);
        assert_eq!(copies(plan(squad_head), 0, 1), 1 + training);
        assert_eq!(copies(inference(squad_head), 1, 0), answering);
    }
}

/// Bytes of both moments in one replica: those of tensors with at least `sharded` elements, and those
/// of smaller ones.
fn state(graph: &Graph, sharded: u64) -> [[u64; 2]; 2] {
    let moments = |prefix: &str| {
        let of_sharded = |is_shard: bool| {
            let tensors = graph.tensors.values().filter(|tensor| {
                let elements = tensor.shape.elements().0;
                tensor.name.starts_with(prefix)
                    && matches!(tensor.kind, TensorKind::Variable { .. })
                    && (elements >= sharded) == is_shard
            });
            tensors.map(|tensor| tensor.bytes().0).sum()
        };
        [of_sharded(true), of_sharded(false)]
    };
    [moments("Accl1___"), moments("Accl2___")]
}

/// `2 / R + 4 / R` bytes for every weight instead of `4 / R + 4 / R`, on the chip and, loaded and
/// stored once in an update, between it and streaming memory.
#[test]
fn a_first_moment_in_f16_takes_half_the_bytes() {
    const REPLICAS: u64 = 2;
    let with = |optimizer, memory| {
        graph(Plan {
            replicas: REPLICAS as u32,
            optimizer,
            state: OptimizerState {
                sharding: Sharding::On,
                memory,
            },
            ..plan(SquadHead::LastEncoderIpu)
        })
    };
    let weights: Vec<u64> = {
        let case = Case::new(plan(SquadHead::LastEncoderIpu)).unwrap();
        let tensors = &case.model.graph.tensors;
        let elements =
            |info: &bert_model::interface::WeightInfo| tensors[info.tensor].shape.elements().0;
        case.model.weights.iter().map(elements).collect()
    };
    // From so many elements on a tensor is sharded (PopART, `TensorLocationSettings`).
    let large: u64 = weights.iter().filter(|&&elements| elements >= 8192).sum();
    let small: u64 = weights.iter().filter(|&&elements| elements < 8192).sum();
    assert!(large > 0 && small > 0);
    for (optimizer, first) in [(adam(), 4), (half_first_moment(adam()), 2)] {
        let on_chip = with(optimizer, StateMemory::OnChip);
        let bytes = |size: u64| [size * large / REPLICAS, size * small];
        // A shard of the smallest sharded tensor is larger than the largest whole one.
        let found = state(&on_chip, 8192 / REPLICAS);
        assert_eq!(found, [bytes(first), bytes(4)]);

        let off_chip = with(optimizer, StateMemory::OffChip);
        let moved: u64 = off_chip
            .ops
            .values()
            .filter_map(|op| match op.kind {
                OpKind::RemoteLoad => Some(op.outputs[0]),
                OpKind::RemoteStore => Some(op.inputs[0]),
                _ => None,
            })
            .map(|tensor| off_chip.tensors[tensor].bytes().0)
            .sum();
        assert_eq!(moved, 2 * (first + 4) * (large / REPLICAS + small));
    }
}

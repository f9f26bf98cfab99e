//! Which values wait on their IPU for a later stage.
//!
//! **Assumes** a pipelined graph with copies between IPUs and with recomputation decided.
//! **Guarantees** that an operation of a later stage reads a restored value, which is that
//! of its own micro-batch. A value is stashed if a later stage on its IPU needs it, either
//! directly or to recompute something; what is recomputed itself isn't stashed. A ring has
//! `last restoring stage - stashing stage + 1` slots, one for each micro-batch that can be
//! in flight between the two (PopART, `willow/src/transforms/pipeline.cpp`).
//! **Leaves alone** variables, constants, accumulators and hyper-parameters, which have no
//! micro-batch: where stages update weights, each reads those that are there when it runs.
//! Running it twice changes nothing more.
//!
//! There is one stash for each tensor and one restore for each later stage. A restore writes
//! the tensor's own place again, where recomputed operations look for it: they go on
//! reading the tensor, and a restore may have no reader of its own.
//! PopART refuses a tensor that two later stages need for recomputation; here it is allowed.
//!
//! ```text
//! before
//! stream %0: f32[4] "x"
//! %1: f32[4] = tanh(%0) @ipu0 stage0 fwd "a"
//! %2: f32[4] = ipu_copy(%1) {to: ipu1} @ipu0 stage0 fwd "a"
//! %3: f32[4] = neg(%2) @ipu1 stage1 fwd "loss"
//! %4: f32[4] = ipu_copy(%3) {to: ipu0} @ipu1 stage1 bwd "dy"
//! %5: f32[4] = tanh_grad(%1, %4) @ipu0 stage2 bwd "a"
//! inputs %0
//! outputs %5
//! after
//! stream %0: f32[4] "x"
//! %1: f32[4] = tanh(%0) @ipu0 stage0 fwd "a"
//! %2: f32[4] = ipu_copy(%1) {to: ipu1} @ipu0 stage0 fwd "a"
//! %3: f32[4] = neg(%2) @ipu1 stage1 fwd "loss"
//! %4: f32[4] = ipu_copy(%3) {to: ipu0} @ipu1 stage1 bwd "dy"
//! %6: f32[4] = stash(%1) {slots: 3} @ipu0 stage0 fwd "Stashed___a"
//! %7: f32[4] = restore(%6) {slots: 3} @ipu0 stage2 bwd "Restored___a"
//! %5: f32[4] = tanh_grad(%7, %4) @ipu0 stage2 bwd "a"
//! inputs %0
//! outputs %5
//! ```

use std::collections::BTreeMap;

use ipu_sim::ids::{IdVec, IpuId};

use crate::infer::InferError;
use crate::ir::{
    Cycle, Graph, GraphError, OpId, OpKind, Phase, Purpose, Recompute, Scope, StageId, TensorId,
    TensorKind,
};

/// Later stages that need a value, each with the first of its phases that does.
type Needs = BTreeMap<StageId, Phase>;

/// Puts a stash after, and restores before the later uses of, every value that must wait.
///
/// # Errors
/// The graph has a cycle.
pub fn stash(mut graph: Graph) -> Result<Graph, GraphError> {
    let homes = homes(&graph);
    let needs = needs(&graph, &homes)?;
    let producers = graph.producers();
    let consumers = graph.consumers();
    let is_stash = |op: OpId| matches!(graph.ops[op].kind, OpKind::Stash { .. });
    let recomputed = |op: OpId| graph.ops[op].recompute == Recompute::Recompute;
    let waiting: Vec<TensorId> = graph
        .tensors
        .ids()
        .filter(|&id| !needs[id].is_empty())
        .filter(|&id| !producers[id].is_some_and(|op| recomputed(op) || is_stash(op)))
        .filter(|&id| !consumers[id].iter().any(|&op| is_stash(op)))
        .collect();
    for tensor in waiting {
        let home = homes[tensor].expect("what is needed has a home");
        keep(&mut graph, tensor, home, &needs[tensor], &consumers[tensor])?;
    }
    Ok(graph)
}

/// Adds the stash of one tensor and its restores.
fn keep(
    graph: &mut Graph,
    tensor: TensorId,
    home: Home,
    needs: &Needs,
    consumers: &[OpId],
) -> Result<(), InferError> {
    let last = needs.keys().max().expect("some stage needs the tensor");
    let slots = last.0 - home.stage.0 + 1;
    let (name, part) = (
        graph.tensors[tensor].name.clone(),
        graph.tensors[tensor].part,
    );
    let scope = |prefix: &str, stage, phase| Scope {
        name: format!("{prefix}{name}"),
        ipu: Some(home.ipu),
        stage: Some(stage),
        part,
        phase,
        recompute: Recompute::Checkpoint,
        purpose: Purpose::General,
    };
    let kept = graph.add(
        OpKind::Stash { slots },
        &[tensor],
        &scope("Stashed___", home.stage, home.phase),
    )?;
    for (&stage, &phase) in needs {
        let restored = graph.add(
            OpKind::Restore { slots },
            &[kept],
            &scope("Restored___", stage, phase),
        )?;
        for &reader in consumers {
            let reader = &mut graph.ops[reader];
            if reader.stage == Some(stage) && reader.recompute == Recompute::Checkpoint {
                for input in reader.inputs.iter_mut().filter(|input| **input == tensor) {
                    *input = restored;
                }
            }
        }
    }
    Ok(())
}

/// Where a value of a micro-batch first is.
#[derive(Clone, Copy, Debug)]
struct Home {
    ipu: IpuId,
    stage: StageId,
    phase: Phase,
}

/// The home of every value of a micro-batch: its operation's stage or, where it arrives by
/// copy or stream, the lowest stage that reads it.
fn homes(graph: &Graph) -> IdVec<TensorId, Option<Home>> {
    let mut homes = IdVec::from(vec![None; graph.tensors.len()]);
    let of_op = |id: OpId| {
        let op = &graph.ops[id];
        Some(Home {
            ipu: op.ipu?,
            stage: op.stage?,
            phase: op.phase,
        })
    };
    let consumers = graph.consumers();
    let lowest_reader = |tensor: TensorId| {
        let readers = consumers[tensor].iter().filter_map(|&op| of_op(op));
        readers.min_by_key(|home| (home.stage, home.phase))
    };
    for (id, op) in graph.ops.iter() {
        for &output in &op.outputs {
            homes[output] = match (&op.kind, op.phase) {
                (_, Phase::Update) => None,
                (OpKind::IpuCopy { .. }, _) => lowest_reader(output),
                (_, Phase::Accumulate) => None,
                (_, Phase::Forward | Phase::Backward) => of_op(id),
            };
        }
    }
    let hyper_parameters = graph.hyper_parameters();
    for (id, tensor) in graph.tensors.iter() {
        if tensor.kind == TensorKind::Stream && !hyper_parameters[id] {
            homes[id] = lowest_reader(id);
        }
    }
    homes
}

/// The later stages that need each value, directly or to recompute what they need.
fn needs(
    graph: &Graph,
    homes: &IdVec<TensorId, Option<Home>>,
) -> Result<IdVec<TensorId, Needs>, Cycle> {
    let mut needs: IdVec<TensorId, Needs> = IdVec::from(vec![Needs::new(); graph.tensors.len()]);
    for id in graph.topological_order()?.into_iter().rev() {
        let op = &graph.ops[id];
        let mut uses: Vec<(StageId, Phase)> = op
            .stage
            .map(|stage| (stage, op.phase))
            .into_iter()
            .collect();
        if op.recompute == Recompute::Recompute {
            for &output in &op.outputs {
                uses.extend(needs[output].iter().map(|(&stage, &phase)| (stage, phase)));
            }
        }
        for &input in &op.inputs {
            let Some(home) = homes[input] else { continue };
            for &(stage, phase) in uses.iter().filter(|(stage, _)| *stage > home.stage) {
                let first = needs[input].entry(stage).or_insert(phase);
                *first = phase.min(*first);
            }
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::testing::check_header;
    use crate::text::{parse, print};
    use crate::verify::{Form, verify};

    #[track_caller]
    fn check(text: &str, expected: &Expect) {
        let graph = stash(parse(text).unwrap()).unwrap();
        verify(&graph, Form::Pipelined).unwrap();
        assert_eq!(stash(graph.clone()).unwrap(), graph);
        expected.assert_eq(&print(&graph));
    }

    #[test]
    fn the_header_shows_it() {
        check_header(include_str!("stash.rs"), |graph| stash(graph).unwrap());
    }

    #[test]
    fn what_a_gradient_reads_waits_for_it() {
        check(
            r#"stream %0: f32[4] "x"
%1: f32[4] = tanh(%0) @ipu0 stage0 fwd "a"
%2 "a1": f32[4] = ipu_copy(%1) {to: ipu1} @ipu0 stage0 fwd "a"
%3: f32[4] = neg(%2) @ipu1 stage1 fwd "loss"
%4: f32[4] = neg_grad(%2, %3) @ipu1 stage1 bwd "loss"
%5 "dy": f32[4] = ipu_copy(%4) {to: ipu0} @ipu1 stage1 bwd "dy"
%6: f32[4] = tanh_grad(%1, %5) @ipu0 stage2 bwd "a"
inputs %0
outputs %6
"#,
            &expect![[r#"
                stream %0: f32[4] "x"
                %1: f32[4] = tanh(%0) @ipu0 stage0 fwd "a"
                %2 "a1": f32[4] = ipu_copy(%1) {to: ipu1} @ipu0 stage0 fwd "a"
                %3: f32[4] = neg(%2) @ipu1 stage1 fwd "loss"
                %4: f32[4] = neg_grad(%2, %3) @ipu1 stage1 bwd "loss"
                %5: f32[4] = ipu_copy(%4) {to: ipu0} @ipu1 stage1 bwd "dy"
                %7: f32[4] = stash(%1) {slots: 3} @ipu0 stage0 fwd "Stashed___a"
                %8: f32[4] = restore(%7) {slots: 3} @ipu0 stage2 bwd "Restored___a"
                %6: f32[4] = tanh_grad(%8, %5) @ipu0 stage2 bwd "a"
                inputs %0
                outputs %6
            "#]],
        );
    }

    #[test]
    fn what_recomputation_starts_from_waits_for_it() {
        // `b` is computed again from the stream and the dropout's seed: those wait.
        check(
            r#"stream %0: f32[4] "x"
stream %1: u32[2] "seed"
%2: f32[4] = tanh(%0) @ipu0 stage0 fwd recompute "a"
%3: f32[4] = dropout(%2, %1) {probability: 0.5, id: 1} @ipu0 stage0 fwd recompute "b"
%4: f32[4] = ipu_copy(%3) {to: ipu1} @ipu0 stage0 fwd "b"
%5: f32[4] = neg(%4) @ipu1 stage1 bwd "loss"
%6: f32[4] = ipu_copy(%5) {to: ipu0} @ipu1 stage1 bwd "dy"
%7: f32[4] = dropout(%6, %1) {probability: 0.5, id: 1} @ipu0 stage2 bwd "b"
%8: f32[4] = tanh_grad(%2, %7) @ipu0 stage2 bwd "a"
inputs %0, %1
outputs %8
"#,
            &expect![[r#"
                stream %0: f32[4] "x"
                stream %1: u32[2] "seed"
                %2: f32[4] = tanh(%0) @ipu0 stage0 fwd recompute "a"
                %3: f32[4] = dropout(%2, %1) {probability: 0.5, id: 1} @ipu0 stage0 fwd recompute "b"
                %4: f32[4] = ipu_copy(%3) {to: ipu1} @ipu0 stage0 fwd "b"
                %5: f32[4] = neg(%4) @ipu1 stage1 bwd "loss"
                %6: f32[4] = ipu_copy(%5) {to: ipu0} @ipu1 stage1 bwd "dy"
                %11: u32[2] = stash(%1) {slots: 3} @ipu0 stage0 fwd "Stashed___seed"
                %12: u32[2] = restore(%11) {slots: 3} @ipu0 stage2 bwd "Restored___seed"
                %7: f32[4] = dropout(%6, %12) {probability: 0.5, id: 1} @ipu0 stage2 bwd "b"
                %8: f32[4] = tanh_grad(%2, %7) @ipu0 stage2 bwd "a"
                %9: f32[4] = stash(%0) {slots: 3} @ipu0 stage0 fwd "Stashed___x"
                %10: f32[4] = restore(%9) {slots: 3} @ipu0 stage2 bwd "Restored___x"
                inputs %0, %1
                outputs %8
            "#]],
        );
    }

    #[test]
    fn weights_and_accumulators_dont_wait() {
        let text = r#"variable %0: f32[4] = zeros "w"
variable %1: f32[4] = zeros "sum"
stream %2: f32[4] "x"
%3: f32[4] = add(%2, %0) @ipu0 stage0 fwd recompute "a"
%4: f32[4] = ipu_copy(%3) {to: ipu1} @ipu0 stage0 fwd "a"
%5: f32[4] = ipu_copy(%4) {to: ipu0} @ipu1 stage1 bwd "a"
%6: f32[4] = accumulate(%1, %5) {factor: 1.0} @ipu0 stage2 acc "sum"
inputs %2
outputs %6
update %1 = %6
"#;
        let graph = parse(text).unwrap();
        assert_eq!(stash(graph.clone()).unwrap(), graph);
    }
}

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::eval::{EvalOptions, Inputs, PerReplica, eval};
use crate::ir::{Scope, TensorId, TensorKind};
use crate::passes::inter_ipu_copies::{CopyError, inter_ipu_copies};
use crate::schedule::schedule;
use crate::testing::{check_header, graphs, sample_inputs};
use crate::text::{parse, print};
use crate::verify::{Form, verify};

#[test]
fn the_header_shows_it() {
    check_header(include_str!("../merge_collectives.rs"), merge_collectives);
}

/// The lines of a graph after the pass that aren't declarations.
#[track_caller]
fn check(operations: &str, expected: &Expect) {
    let text = format!(
        r#"stream %0: f16[4] "a"
stream %1: f16[6] "b"
stream %2: f32[6] "c"
variable %3: f16[4] = zeros "w"
{operations}
inputs %0, %1, %2
"#
    );
    let graph = merge_collectives(parse(&text).unwrap());
    verify(&graph, Form::Placed).unwrap();
    schedule(&graph).unwrap();
    assert_eq!(merge_collectives(graph.clone()), graph, "twice is once");
    let printed = print(&graph);
    let declares = |line: &&str| {
        let words = ["part0", "stream", "variable"];
        words.iter().any(|word| line.starts_with(word))
    };
    let lines = printed.lines().filter(|line| !declares(line));
    let lines: Vec<&str> = lines.collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn kinds_types_shards_and_phases_stay_apart() {
    check(
        r#"%4: f16[4] = all_reduce(%0) @ipu0 bwd "a"
%5: f16[6] = all_reduce(%1) @ipu0 upd "b"
%6: f32[6] = all_reduce(%2) @ipu0 upd "c"
%7: f16[2] = reduce_scatter(%0) {shards: 2} @ipu0 upd "a"
%8: f16[3] = reduce_scatter(%1) {shards: 2} @ipu0 upd "b"
%9: f16[2] = reduce_scatter(%1) {shards: 4} @ipu0 upd "b"
outputs %4, %5, %6, %7, %8, %9"#,
        &expect![[r#"
            %4: f16[4] = all_reduce(%0) @ipu0 bwd "a"
            %5: f16[6] = all_reduce(%1) @ipu0 upd "b"
            %6: f32[6] = all_reduce(%2) @ipu0 upd "c"
            %7 "a": f16[2], %8 "b": f16[3] = multi_reduce_scatter(%0, %1) {ipus: [0,0], shards: 2} @ipu0 part0 upd "Merged"
            %9: f16[2] = reduce_scatter(%1) {shards: 4} @ipu0 upd "b"
            inputs %0, %1, %2
            outputs %4, %5, %6, %7, %8, %9"#]],
    );
}

#[test]
fn what_needs_another_is_not_merged_with_it() {
    // Neither directly, nor through other operations, nor through memory: `w` is read (and
    // gathered from) before the gathered sum replaces it, so its gather comes second.
    check(
        r#"%4: f16[2] = local_slice(%0) {shards: 2} @ipu0 upd "a"
%5: f16[3] = local_slice(%1) {shards: 2} @ipu0 upd "b"
%6: f16[4] = all_gather(%4) {shards: 2, shape: [4]} @ipu0 upd "a"
%7: f16[4] = add(%6, %3) @ipu0 upd "a"
%8: f16[2] = local_slice(%7) {shards: 2} @ipu0 upd "a"
%9: f16[6] = all_gather(%5) {shards: 2, shape: [6]} @ipu0 upd "b"
%10: f16[4] = all_gather(%4) {shards: 2, shape: [4]} @ipu0 upd "w"
%11: f16[4] = all_gather(%8) {shards: 2, shape: [4]} @ipu0 upd "after"
outputs %7, %9, %11
update %3 = %10"#,
        &expect![[r#"
            %4: f16[2] = local_slice(%0) {shards: 2} @ipu0 upd "a"
            %5: f16[3] = local_slice(%1) {shards: 2} @ipu0 upd "b"
            %6 "a": f16[4], %9 "b": f16[6] = multi_all_gather(%4, %5) {ipus: [0,0], shards: 2, shapes: [[4],[6]]} @ipu0 part0 upd "Merged"
            %7: f16[4] = add(%6, %3) @ipu0 upd "a"
            %8: f16[2] = local_slice(%7) {shards: 2} @ipu0 upd "a"
            %10 "w": f16[4], %11 "after": f16[4] = multi_all_gather(%4, %8) {ipus: [0,0], shards: 2, shapes: [[4],[4]]} @ipu0 part0 upd "Merged"
            inputs %0, %1, %2
            outputs %7, %9, %11
            update %3 = %10"#]],
    );
}

/// Operations of two IPUs, with copies, in which some results are summed over replicas before
/// others read them; `None` if a variable is on both.
fn with_collectives(mut graph: Graph, choice: u64) -> Option<Graph> {
    for op in graph.ops.values_mut() {
        op.ipu = Some(IpuId(op.stage.map_or(0, |stage| stage.0 % 2)));
        op.stage = None;
        op.recompute = Recompute::Checkpoint;
    }
    let mut graph = match inter_ipu_copies(graph, None) {
        Err(CopyError::VariableOnTwoIpus { .. }) => return None,
        graph => graph.unwrap(),
    };
    let consumers = graph.consumers();
    let chosen: Vec<(TensorId, Scope)> = graph
        .ops
        .values()
        .enumerate()
        .filter(|(number, op)| {
            let is_float = graph.tensors[op.outputs[0]].dtype != DType::U32;
            let moves = matches!(op.kind, OpKind::IpuCopy { .. });
            is_float && !moves && choice >> (number % 64) & 1 == 1
        })
        .map(|(_, op)| (op.outputs[0], op.scope()))
        .collect();
    for (number, (tensor, scope)) in chosen.into_iter().enumerate() {
        let shape = graph.tensors[tensor].shape.clone();
        let shards = 2;
        let result = match number % 3 {
            0 => graph.add(OpKind::AllReduce, &[tensor], &scope),
            kind => {
                let cut = match kind {
                    1 => OpKind::ReduceScatter { shards },
                    _ => OpKind::LocalSlice { shards },
                };
                let shard = graph.add(cut, &[tensor], &scope).unwrap();
                graph.add(OpKind::AllGather { shards, shape }, &[shard], &scope)
            }
        };
        let result = result.unwrap();
        for &reader in &consumers[tensor] {
            for input in &mut graph.ops[reader].inputs {
                if *input == tensor {
                    *input = result;
                }
            }
        }
        graph.outputs.push(result);
    }
    Some(graph)
}

fn values(graph: &Graph) -> Vec<PerReplica> {
    let samples = [0, 1].map(|replica| sample_inputs(graph, replica));
    let each = samples[0].keys().map(|&id| {
        let is_stream = graph.tensors[id].kind == TensorKind::Stream;
        let value = match is_stream {
            true => PerReplica::Each(
                samples
                    .iter()
                    .map(|sample| sample[&id].on(0).clone())
                    .collect(),
            ),
            false => samples[0][&id].clone(),
        };
        (id, value)
    });
    let inputs: Inputs = each.collect();
    let options = EvalOptions {
        round_to_dtype: true,
        replicas: 2,
    };
    let values = eval(graph, &inputs, options).unwrap();
    graph.outputs.iter().map(|&id| values[id].clone()).collect()
}

fn n_collectives(graph: &Graph) -> usize {
    let kinds = graph.ops.values().map(|op| &op.kind);
    let is_collective =
        |kind: &&OpKind| Kind::of(kind).is_some() || matches!(kind, OpKind::Multi { .. });
    kinds.filter(is_collective).count()
}

proptest! {
    /// The numbers are the same to the bit, for every tensor is summed as it was.
    #[test]
    fn random_graphs_keep_their_numbers(graph in graphs(), choice: u64) {
        let Some(graph) = with_collectives(graph, choice) else {
            return Ok(());
        };
        verify(&graph, Form::Placed).unwrap();
        let merged = merge_collectives(graph.clone());
        verify(&merged, Form::Placed).unwrap();
        prop_assert_eq!(schedule(&merged).unwrap().order.len(), merged.ops.len());
        prop_assert!(n_collectives(&merged) <= n_collectives(&graph));
        let (got, expected) = (values(&merged), values(&graph));
        // Not a number is no number's equal, but prints alike.
        prop_assert_eq!(format!("{got:?}"), format!("{expected:?}"));
        prop_assert_eq!(&parse(&print(&merged)).unwrap(), &merged);
        prop_assert_eq!(&merge_collectives(merged.clone()), &merged);
    }
}

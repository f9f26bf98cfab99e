use expect_test::{Expect, expect};
use ipu_sim::ids::Id;
use ipu_sim::numerics::DType;
use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::eval::{EvalOptions, eval};
use crate::ir::{BinaryFn, Init, MatMulPass, Shape, UnaryFn};
use crate::testing::{check_header, matmul, sample_inputs};
use crate::text::{parse, print};
use crate::verify::{Form, verify};

#[test]
fn the_header_shows_it() {
    check_header(include_str!("../outline.rs"), |graph| {
        outline(graph).unwrap()
    });
}

/// The lines of a graph after the pass that aren't declarations.
#[track_caller]
fn check(operations: &str, expected: &Expect) {
    let product = "{pass: training_fwd, proportion: 0.6, partials: half} @ipu0";
    let text = format!(
        r#"variable %0: f32[8,8] = zeros "w0"
variable %1: f32[8,8] = zeros "w1"
stream %2: f32[8,8] "x"
{}
inputs %2
"#,
        operations.replace("PRODUCT", product)
    );
    let graph = outline(parse(&text).unwrap()).unwrap();
    verify(&graph, Form::Placed).unwrap();
    assert_eq!(outline(graph.clone()).unwrap(), graph, "twice is once");
    let printed = print(&graph).replace(product, "PRODUCT");
    let lines = printed.lines().skip(3).collect::<Vec<_>>().join("\n");
    expected.assert_eq(&lines);
}

#[test]
fn other_ipus_types_and_wirings_are_not_alike() {
    check(
        r#"%3: f32[8,8] = matmul(%2, %0) PRODUCT fwd "a"
%4: f32[8,8] = matmul(%3, %3) PRODUCT fwd "b"
%5: f32[8,8] = ipu_copy(%4) {to: ipu1} @ipu0 fwd "between"
%6: f32[8,8] = matmul(%5, %5) {pass: training_bwd, proportion: 0.6, partials: half} @ipu1 fwd "c"
%7: f32[8,8] = tanh(%6) @ipu1 fwd "end"
outputs %7"#,
        &expect![[r#"
            %3: f32[8,8] = matmul(%2, %0) PRODUCT fwd "a"
            %4: f32[8,8] = matmul(%3, %3) PRODUCT fwd "b"
            %5: f32[8,8] = ipu_copy(%4) {to: ipu1} @ipu0 fwd "between"
            %6: f32[8,8] = matmul(%5, %5) {pass: training_bwd, proportion: 0.6, partials: half} @ipu1 fwd "c"
            %7: f32[8,8] = tanh(%6) @ipu1 fwd "end"
            inputs %2
            outputs %7"#]],
    );
}

/// The second piece sees the whole, transposed, as the first one does; what nobody reads through
/// a view any more keeps none.
#[test]
fn a_piece_is_handed_the_whole_and_sees_it_as_it_likes() {
    check(
        r#"%3: f32[8,8] = transpose(%0) {perm: [1,0]} @ipu0 fwd "w0"
%4: f32[8,8] = matmul(%2, %3) PRODUCT fwd "a"
%5: f32[8,8] = transpose(%1) {perm: [1,0]} @ipu0 fwd "w1"
%6: f32[8,8] = matmul(%4, %5) PRODUCT fwd "b"
%7: f32[64] = reshape(%6) {shape: [64]} @ipu0 fwd "flat"
%8: f32[64] = tanh(%7) @ipu0 fwd "end"
outputs %8"#,
        &expect![[r#"
            %10: f32[8,8] = call_input(%0) @ipu0 fwd "a"
            %3: f32[8,8] = transpose(%10) {perm: [1,0]} @ipu0 fwd "w0"
            %9: f32[8,8] = call_input(%2) @ipu0 fwd "a"
            %4: f32[8,8] = matmul(%9, %3) PRODUCT fwd "a"
            %13: f32[8,8] = call_input(%1) @ipu0 fwd "b"
            %5: f32[8,8] = transpose(%13) {perm: [1,0]} @ipu0 fwd "w1"
            %11: f32[8,8] = call_output(%4) @ipu0 fwd "a"
            %12: f32[8,8] = call_input(%11) @ipu0 fwd "b"
            %6: f32[8,8] = matmul(%12, %5) PRODUCT fwd "b"
            %14: f32[8,8] = call_output(%6) @ipu0 fwd "b"
            %7: f32[64] = reshape(%14) {shape: [64]} @ipu0 fwd "flat"
            %8: f32[64] = tanh(%7) @ipu0 fwd "end"
            inputs %2
            outputs %8"#]],
    );
}

/// What a restore gives back is what was stashed, so that is what pieces which run again enter
/// with, not a view each of them makes of what it was a view of.
#[test]
fn a_stashed_view_is_handed_as_it_is() {
    check(
        r#"%3: f32[8,8] = matmul(%2, %0) PRODUCT stage0 fwd "kept"
%4: f32[8,8] = transpose(%3) {perm: [1,0]} @ipu0 stage0 fwd "kept"
%5: f32[8,8] = stash(%4) {slots: 3} @ipu0 stage0 fwd "stash"
%6: f32[8,8] = matmul(%4, %0) PRODUCT stage0 fwd recompute "a"
%7: f32[8,8] = matmul(%6, %1) PRODUCT stage0 fwd recompute "b"
%8: f32[8,8] = ipu_copy(%7) {to: ipu1} @ipu0 stage0 fwd "there"
%9: f32[8,8] = tanh(%8) @ipu1 stage1 fwd "loss"
%10: f32[8,8] = ipu_copy(%9) {to: ipu0} @ipu1 stage1 bwd "back"
%11: f32[8,8] = restore(%5) {slots: 3} @ipu0 stage2 bwd "restore"
%12: f32[8,8] = tanh_grad(%7, %10) @ipu0 stage2 bwd "end"
%13: f32[8,8] = add(%11, %12) @ipu0 stage2 bwd "end"
outputs %13"#,
        &expect![[r#"
            %3: f32[8,8] = matmul(%2, %0) PRODUCT stage0 fwd "kept"
            %4: f32[8,8] = transpose(%3) {perm: [1,0]} @ipu0 stage0 fwd "kept"
            %5: f32[8,8] = stash(%4) {slots: 3} @ipu0 stage0 fwd "stash"
            %14: f32[8,8] = call_input(%4) @ipu0 stage0 fwd recompute "a"
            %15: f32[8,8] = call_input(%0) @ipu0 stage0 fwd recompute "a"
            %6: f32[8,8] = matmul(%14, %15) PRODUCT stage0 fwd recompute "a"
            %16: f32[8,8] = call_output(%6) @ipu0 stage0 fwd recompute "a"
            %17: f32[8,8] = call_input(%16) @ipu0 stage0 fwd recompute "b"
            %18: f32[8,8] = call_input(%1) @ipu0 stage0 fwd recompute "b"
            %7: f32[8,8] = matmul(%17, %18) PRODUCT stage0 fwd recompute "b"
            %19: f32[8,8] = call_output(%7) @ipu0 stage0 fwd recompute "b"
            %8: f32[8,8] = ipu_copy(%19) {to: ipu1} @ipu0 stage0 fwd "there"
            %9: f32[8,8] = tanh(%8) @ipu1 stage1 fwd "loss"
            %10: f32[8,8] = ipu_copy(%9) {to: ipu0} @ipu1 stage1 bwd "back"
            %11: f32[8,8] = restore(%5) {slots: 3} @ipu0 stage2 bwd "restore"
            %12: f32[8,8] = tanh_grad(%19, %10) @ipu0 stage2 bwd "end"
            %13: f32[8,8] = add(%11, %12) @ipu0 stage2 bwd "end"
            inputs %2
            outputs %13"#]],
    );
}

#[test]
fn gradients_are_added_to_accumulators_inside() {
    check(
        r#"%3: f32[8,8] = matmul(%2, %2) PRODUCT bwd "a"
%4: f32[8,8] = accumulate(%0, %3) {factor: 1.0} @ipu0 acc "a"
%5: f32[8,8] = matmul(%2, %3) PRODUCT bwd "b"
%6: f32[8,8] = matmul(%5, %5) PRODUCT bwd "c"
%7: f32[8,8] = accumulate(%1, %6) {factor: 1.0} @ipu0 acc "c"
update %0 = %4
update %1 = %7"#,
        &expect![[r#"
            %8: f32[8,8] = call_input(%2) @ipu0 bwd "a"
            %3: f32[8,8] = matmul(%8, %8) PRODUCT bwd "a"
            %4: f32[8,8] = accumulate(%0, %3) {factor: 1.0} @ipu0 acc "a"
            %9: f32[8,8] = call_output(%3) @ipu0 bwd "a"
            %5: f32[8,8] = matmul(%2, %9) PRODUCT bwd "b"
            %10: f32[8,8] = call_input(%5) @ipu0 bwd "c"
            %6: f32[8,8] = matmul(%10, %10) PRODUCT bwd "c"
            %7: f32[8,8] = accumulate(%1, %6) {factor: 1.0} @ipu0 acc "c"
            inputs %2
            update %0 = %4
            update %1 = %7"#]],
    );
}

/// What one layer of a random chain does: operations on what came before, as numbers that
/// choose among them.
type Layer = Vec<(u8, u8, u8)>;

/// A chain of layers that are alike, each with weights of its own, ending in a sum.
fn chain(layer: &Layer, n_layers: usize) -> Graph {
    let mut graph = Graph::default();
    let shape = Shape::from([4, 4]);
    let mut x = graph.stream("x", DType::F32, shape.clone());
    let mask = graph.stream("mask", DType::F32, shape.clone());
    let mut skipped = mask;
    for number in 0..n_layers {
        let scope = Scope {
            ipu: Some(IpuId(0)),
            ..Scope::named(&format!("layer{number}"))
        };
        let weight = graph.variable(&format!("w{number}"), DType::F32, shape.clone(), None);
        let mut known = vec![x, weight, mask, skipped];
        for &(kind, left, right) in layer {
            let pick = |which: u8| known[usize::from(which) % known.len()];
            let (left, right) = (pick(left), pick(right));
            let perm = smallvec![1, 0];
            let (kind, operands) = match kind % 5 {
                0 => (matmul(MatMulPass::TrainingFwd), vec![left, right]),
                1 => (OpKind::Binary(BinaryFn::Add), vec![left, right]),
                2 => (OpKind::Transpose { perm }, vec![left]),
                3 => (OpKind::Unary(UnaryFn::Relu), vec![left]),
                _ => (OpKind::Identity, vec![right]),
            };
            known.push(graph.add(kind, &operands, &scope).unwrap());
        }
        (skipped, x) = (x, known[known.len() - 1]);
    }
    let end = Scope {
        ipu: Some(IpuId(0)),
        ..Scope::named("end")
    };
    let axes = smallvec![0, 1];
    let sum = OpKind::ReduceSum {
        axes,
        keep_dims: false,
    };
    let sum = graph.add(sum, &[x], &end).unwrap();
    graph.outputs.push(sum);
    graph
}

proptest! {
    #[test]
    fn values_stay_and_layers_are_handed_copies(
        layer in prop::collection::vec(any::<(u8, u8, u8)>(), 1..8),
        n_layers in 1..5_usize,
    ) {
        let before = chain(&layer, n_layers);
        let after = outline(before.clone()).unwrap();
        verify(&after, Form::Placed).unwrap();
        let options = EvalOptions { round_to_dtype: false, replicas: 1 };
        let sum = |graph: &Graph| {
            let values = eval(graph, &sample_inputs(graph, 1), options).unwrap();
            format!("{:?}", values[graph.outputs[0]])
        };
        prop_assert_eq!(sum(&before), sum(&after));
        // What views there were is there once for each that sees it, and never idle.
        let readers = after.consumers();
        for (id, op) in after.ops.iter().filter(|(_, op)| is_view(&op.kind)) {
            let idle = readers[op.outputs[0]].is_empty();
            let was_idle = id.index() < before.ops.len()
                && before.consumers()[before.ops[id].outputs[0]].is_empty();
            prop_assert!(!idle || was_idle || leads_nowhere(&before, id), "{}", print(&after));
        }
        // No tensor crosses the border of a piece but as a copy.
        let copies = |wanted: &OpKind| after.ops.values().filter(|op| op.kind == *wanted).count();
        let entering = copies(&OpKind::CallInput);
        prop_assert!(entering > 0 || copies(&OpKind::CallOutput) == 0);
        let products = layer.iter().filter(|(kind, ..)| kind % 5 == 0).count();
        prop_assert!(n_layers > 1 || products > 1 || entering == 0);
    }
}

/// Whether nothing but views reads an operation of the graph as it was.
fn leads_nowhere(graph: &Graph, op: OpId) -> bool {
    let readers = graph.consumers();
    let mut pending = vec![op];
    while let Some(op) = pending.pop() {
        let Some(op) = (op.index() < graph.ops.len()).then(|| &graph.ops[op]) else {
            return false;
        };
        for &reader in &readers[op.outputs[0]] {
            match is_view(&graph.ops[reader].kind) {
                true => pending.push(reader),
                false => return false,
            }
        }
    }
    true
}

/// Slices of a table are looked up by what tells them apart, not one after the other.
#[test]
fn operations_that_differ_in_an_attribute_are_in_buckets_of_their_own() {
    let n = 100;
    let mut graph = Graph::default();
    let table = graph.variable("table", DType::F32, Shape::from([4, 2]), Some(Init::Zeros));
    let indices = graph.stream("indices", DType::U32, Shape::from([3]));
    for first_row in (0..n).chain(0..n) {
        let scope = Scope::named("look up");
        let gather = OpKind::Gather { first_row };
        graph.add(gather, &[table, indices], &scope).unwrap();
    }
    let seen = Seen::of(&graph).unwrap();
    let part = (None, None, Phase::Forward, Recompute::Checkpoint);
    let mut classes = Classes::default();
    let ops = graph.ops.values();
    let numbers = ops.map(|op| classes.number(part, Class::of(&graph, &seen, op)));
    let numbers: Vec<u32> = numbers.collect();
    assert!(numbers.iter().copied().eq((0..n).chain(0..n)));
    assert_eq!(classes.buckets.len(), n as usize);
}

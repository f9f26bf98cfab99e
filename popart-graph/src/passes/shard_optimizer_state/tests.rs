use std::collections::BTreeMap;

use expect_test::expect;
use ipu_sim::ids::IpuId;
use ipu_sim::numerics::DType;

use super::*;
use crate::eval::{EvalOptions, Inputs, PerReplica, Value, apply_updates, eval};
use crate::ir::{Reduction, Scope};
use crate::passes::accumulate::accumulate;
use crate::passes::differentiate::Gradients;
use crate::passes::offload_optimizer_state::offload_optimizer_state;
use crate::passes::optimizer::optimizer;
use crate::passes::optimizer::rules::{
    Adam, Correction, LearningRate, MomentTypes, OptimizerOptions, Scaling, UpdateRule,
    WeightUpdate,
};
use crate::testing::check_header;
use crate::text::print;
use crate::verify::{Form, verify};

const REPLICAS: u32 = 4;

/// A LAMB update of weights with that many elements, the first two of which share a norm.
fn lamb(sizes: &[u32], dtype: DType) -> (Graph, Vec<TensorId>) {
    clipped_lamb(sizes, dtype, None)
}

/// The same with a limit on the norm of all gradients.
fn clipped_lamb(sizes: &[u32], dtype: DType, clip_norm: Option<f64>) -> (Graph, Vec<TensorId>) {
    let mut graph = Graph::default();
    let scope = Scope {
        ipu: Some(IpuId(0)),
        phase: Phase::Backward,
        ..Scope::named("backward")
    };
    let mut gradients = Gradients::new();
    for (position, &size) in sizes.iter().enumerate() {
        let name = format!("w{position}");
        let weight = graph.variable(&name, dtype, Shape::from([size]), None);
        let sent = graph.stream("sent", dtype, Shape::from([size]));
        let gradient = graph.add(OpKind::Identity, &[sent], &scope).unwrap();
        gradients.insert(weight, gradient);
    }
    let rule = UpdateRule::Adam(Adam {
        beta1: 0.5,
        beta2: 0.75,
        epsilon: 1e-6,
        weight_decay: 0.25,
        correction: Correction::Bias,
        max_weight_norm: Some(65504.0),
        moments: MomentTypes::FLOAT,
    });
    let weights: Vec<TensorId> = gradients.keys().copied().collect();
    let options = OptimizerOptions {
        weights: weights
            .iter()
            .map(|&weight| WeightUpdate {
                weight,
                learning_rate_scale: 1.0,
                rule,
            })
            .collect(),
        joint_norms: vec![weights.iter().copied().take(2).collect()],
        scaling: Scaling {
            loss_scale: 4.0,
            accumulation: 2,
            replicas: REPLICAS,
            reduction: Reduction::Mean,
        },
        learning_rate: LearningRate::Constant(0.5),
        clip_norm,
    };
    let (graph, accumulated) = accumulate(graph, &gradients, &options).unwrap();
    let (graph, _) = optimizer(graph, &accumulated, &options).unwrap();
    (graph, weights)
}

/// The weights after two updates, with another gradient on every replica.
fn updated(graph: &Graph, weights: &[TensorId]) -> Vec<f64> {
    let mut state: Inputs = BTreeMap::new();
    for &tensor in weights.iter().chain(&graph.inputs) {
        let n = graph.tensors[tensor].shape.elements().0;
        let each = (0..u64::from(REPLICAS)).map(|replica| {
            let replica = if weights.contains(&tensor) {
                0
            } else {
                replica
            };
            let of = |index: u64| ((index * 7 + replica * 3) % 13) as f64 - 6.0;
            Value::Float((0..n).map(of).collect())
        });
        state.insert(tensor, PerReplica::from_each(each.collect()));
    }
    let options = EvalOptions {
        round_to_dtype: false,
        replicas: REPLICAS,
    };
    for _ in 0..2 {
        let values = eval(graph, &state, options).unwrap();
        apply_updates(graph, &values, &mut state);
    }
    let all = weights.iter().map(|weight| &state[weight]);
    all.flat_map(|value| value.on(3).as_floats().to_vec())
        .collect()
}

#[test]
fn the_header_shows_it() {
    check_header(include_str!("../shard_optimizer_state.rs"), |graph| {
        shard_optimizer_state(graph, 4).unwrap()
    });
}

/// The norm of gradients is summed from shards, and the factor multiplies shards; a weight that is
/// too small for shards has all of its norm already.
#[test]
fn clipped_gradients_come_in_shards() {
    let sizes = [8192, 2];
    let (whole, weights) = clipped_lamb(&sizes, DType::F16, Some(0.5));
    let graph = shard_optimizer_state(whole.clone(), REPLICAS).unwrap();
    verify(&graph, Form::Placed).unwrap();
    assert_eq!(
        shard_optimizer_state(graph.clone(), REPLICAS).unwrap(),
        graph
    );
    let text = print(&graph);
    let lines = text.lines().filter(|line| line.contains("upd"));
    let lines: Vec<&str> = lines.take(18).collect();
    expect![[r#"
        %11: f16[2048] = reduce_scatter(%7) {shards: 4} @ipu0 upd "w0"
        %12: f32[2048] = cast(%11) {to: f32} @ipu0 upd "w0"
        %13: f32[2048] = scale(%12) {factor: 0.03125} @ipu0 upd "w0"
        %14: f16[2] = all_reduce(%9) @ipu0 upd "w1"
        %15: f32[2] = cast(%14) {to: f32} @ipu0 upd "w1"
        %16: f32[2] = scale(%15) {factor: 0.03125} @ipu0 upd "w1"
        %17: f32[] = square_sum(%13) @ipu0 upd "w0"
        %54: f32[] = all_reduce(%17) @ipu0 upd "w0"
        %18: f32[1] = reshape(%54) {shape: [1]} @ipu0 upd "w0"
        %19: f32[] = square_sum(%16) @ipu0 upd "w1"
        %20: f32[1] = reshape(%19) {shape: [1]} @ipu0 upd "w1"
        %21: f32[2] = concat(%18, %20) {axis: 0} @ipu0 part0 upd "gradientNorm"
        %22: f32[] = reduce_sum(%21) {axes: [0], keep_dims: false} @ipu0 part0 upd "gradientNorm"
        %23: f32[] = sqrt(%22) @ipu0 part0 upd "gradientNorm"
        %25: f32[] = max(%23, %24) @ipu0 part0 upd "gradientNorm"
        %26: f32[] = div(%24, %25) @ipu0 part0 upd "gradientNorm"
        %27: f32[2048] = mul(%13, %26) @ipu0 upd "w0"
        %28: f32[2] = mul(%16, %26) @ipu0 upd "w1"
    "#]]
    .assert_eq(&(lines.join("\n") + "\n"));
    for (got, want) in updated(&graph, &weights)
        .iter()
        .zip(updated(&whole, &weights))
    {
        assert!((got - want).abs() < 1e-9, "{got} is not {want}");
    }
}

#[test]
fn shards_follow_the_gradient_to_the_weight() {
    let (graph, _) = lamb(&[8192], DType::F16);
    let graph = shard_optimizer_state(graph, REPLICAS).unwrap();
    verify(&graph, Form::Placed).unwrap();
    assert_eq!(
        shard_optimizer_state(graph.clone(), REPLICAS).unwrap(),
        graph
    );
    expect![[r#"
        variable %0: f16[8192] "w0"
        stream %1: f16[8192] "sent"
        variable %3: f16[8192] = zeros "Accum___w0"
        constant %5: f32[] = splat(0.5) "learningRate"
        variable %9: f32[2048] = zeros "Accl1___w0"
        variable %11: f32[2048] = zeros "Accl2___w0"
        constant %14: f32[] = splat(1.0) "one"
        variable %15: f32[] = zeros "Step___w0"
        %2: f16[8192] = identity(%1) @ipu0 bwd "backward"
        %4: f16[8192] = accumulate(%3, %2) {factor: 1.0} @ipu0 acc "Accum___w0"
        %6: f16[2048] = reduce_scatter(%4) {shards: 4} @ipu0 upd "w0"
        %7: f32[2048] = cast(%6) {to: f32} @ipu0 upd "w0"
        %8: f32[2048] = scale(%7) {factor: 0.03125} @ipu0 upd "w0"
        %10: f32[2048] = adam_moment(%9, %8) {beta: 0.5, square: false} @ipu0 upd "w0"
        %12: f32[2048] = adam_moment(%11, %8) {beta: 0.75, square: true} @ipu0 upd "w0"
        %13: f16[8192] = zero(%4) @ipu0 upd "w0"
        %16: f32[] = add(%15, %14) @ipu0 upd "w0"
        %21: f16[2048] = local_slice(%0) {shards: 4} @ipu0 upd "w0"
        %17: f16[2048] = adam_updater(%10, %12, %21, %16) {epsilon: 1e-6, weight_decay: 0.25, beta1: 0.5, beta2: 0.75} @ipu0 upd "w0"
        %18: f32[] = square_sum(%21) @ipu0 upd "w0"
        %19: f32[] = square_sum(%17) @ipu0 upd "w0"
        %23: f32[] = all_reduce(%18) @ipu0 upd "w0"
        %24: f32[] = all_reduce(%19) @ipu0 upd "w0"
        %20: f16[2048] = lamb_update(%21, %17, %23, %24, %5) {max_weight_norm: 65504.0} @ipu0 upd "w0"
        %22: f16[8192] = all_gather(%20) {shards: 4, shape: [8192]} @ipu0 upd "w0"
        inputs %1
        update %3 = %13
        update %9 = %10
        update %11 = %12
        update %15 = %16
        update %0 = %22
    "#]].assert_eq(&print(&graph));
}

#[test]
fn shared_norms_are_summed_before_replicas() {
    let (graph, _) = lamb(&[8192, 8192], DType::F16);
    let graph = shard_optimizer_state(graph, REPLICAS).unwrap();
    let reduced = graph.ops.values().filter(|op| op.kind == OpKind::AllReduce);
    // One of the weights and one of the steps.
    assert_eq!(reduced.count(), 2);
}

#[test]
fn weights_are_the_same_as_without_shards() {
    // 8193 elements leave padding; 10 are too few to shard.
    for sizes in [vec![8192, 8192, 10], vec![8193, 8192], vec![10, 9000, 8192]] {
        let (whole, weights) = lamb(&sizes, DType::F32);
        let sharded = shard_optimizer_state(whole.clone(), REPLICAS).unwrap();
        verify(&sharded, Form::Placed).unwrap();
        let off_chip = offload_optimizer_state(sharded.clone()).unwrap();
        verify(&off_chip, Form::Placed).unwrap();
        let expected = updated(&whole, &weights);
        for graph in [sharded, off_chip] {
            let got = updated(&graph, &weights);
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
            }
        }
    }
}

#[test]
fn one_replica_keeps_everything() {
    let (graph, _) = lamb(&[8192], DType::F16);
    assert_eq!(shard_optimizer_state(graph.clone(), 1).unwrap(), graph);
}

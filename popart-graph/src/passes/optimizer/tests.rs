use std::collections::BTreeMap;

use expect_test::expect;

use super::*;
use crate::eval::{EvalOptions, Inputs, PerReplica, Value, apply_updates, eval};
use crate::ir::{Reduction, StageId};
use crate::passes::accumulate::accumulate;
use crate::passes::differentiate::Gradients;
use crate::testing::check_header;
use crate::text::print;
use crate::verify::{Form, verify};

const LAMB: Adam = Adam {
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-6,
    weight_decay: 0.01,
    correction: Correction::None,
    max_weight_norm: Some(65504.0),
    moments: MomentTypes::FLOAT,
};

const SGD: Sgd = Sgd {
    momentum: 0.5,
    dampening: 0.25,
    velocity_scaling: 2.0,
    weight_decay: 0.125,
};

/// Weights `[2]` whose gradients are sent by the host.
fn weights(n: u32, dtype: DType) -> (Graph, Vec<TensorId>, Gradients) {
    let mut graph = Graph::default();
    let scope = Scope {
        ipu: Some(IpuId(0)),
        phase: Phase::Backward,
        ..Scope::named("backward")
    };
    let mut streams = Vec::new();
    let mut gradients = Gradients::new();
    for position in 0..n {
        let shape = Shape::from([2]);
        let weight = graph.variable(&format!("w{position}"), dtype, shape.clone(), None);
        let stream = graph.stream("sent", dtype, shape);
        let gradient = graph.add(OpKind::Identity, &[stream], &scope).unwrap();
        streams.push(stream);
        gradients.insert(weight, gradient);
    }
    (graph, streams, gradients)
}

fn options(gradients: &Gradients, rule: UpdateRule, scaling: Scaling) -> OptimizerOptions {
    let update = |&weight: &TensorId| WeightUpdate {
        weight,
        learning_rate_scale: 1.0,
        rule,
    };
    OptimizerOptions {
        weights: gradients.keys().map(update).collect(),
        joint_norms: Vec::new(),
        scaling,
        learning_rate: LearningRate::Constant(0.5),
        clip_norm: None,
    }
}

fn scaling(accumulation: u32, replicas: u32, reduction: Reduction) -> Scaling {
    Scaling {
        loss_scale: 8.0,
        accumulation,
        replicas,
        reduction,
    }
}

/// A gradient of element `element` in one micro-batch of one replica, before the loss scale.
fn gradient(update: u32, micro_batch: u32, replica: u32, element: usize) -> f64 {
    let seed = update * 7 + micro_batch * 3 + replica * 5 + element as u32 * 2;
    f64::from(seed % 11) / 4.0 - 1.0
}

const UPDATES: u32 = 3;

/// The weights, one after the other, after a few updates.
fn train(n: u32, rule: UpdateRule, scaling: Scaling, joint: bool) -> Vec<f64> {
    train_clipped(n, rule, scaling, joint, None)
}

/// The same with a limit on the norm of all gradients.
fn train_clipped(
    n: u32,
    rule: UpdateRule,
    scaling: Scaling,
    joint: bool,
    clip_norm: Option<f64>,
) -> Vec<f64> {
    let (graph, streams, gradients) = weights(n, DType::F32);
    let mut options = options(&gradients, rule, scaling);
    options.clip_norm = clip_norm;
    if joint {
        options.joint_norms = vec![gradients.keys().copied().collect()];
    }
    let (accumulating, accumulated) = accumulate(graph, &gradients, &options).unwrap();
    let (graph, _) = optimizer(accumulating.clone(), &accumulated, &options).unwrap();
    verify(&graph, Form::Logical).unwrap();
    let eval_options = EvalOptions {
        round_to_dtype: false,
        replicas: scaling.replicas,
    };
    let mut state: Inputs = BTreeMap::new();
    for &weight in gradients.keys() {
        state.insert(weight, vec![1.0, -2.0].into());
    }
    for update in 0..UPDATES {
        for micro_batch in 0..scaling.accumulation {
            for (position, &stream) in streams.iter().enumerate() {
                let each = (0..scaling.replicas).map(|replica| {
                    let of = |element| gradient(update, micro_batch, replica, element);
                    let values = [2 * position, 2 * position + 1].map(of);
                    Value::Float(values.map(|g| g * scaling.loss_scale).to_vec())
                });
                state.insert(stream, PerReplica::from_each(each.collect()));
            }
            let last = micro_batch + 1 == scaling.accumulation;
            let step = if last { &graph } else { &accumulating };
            let values = eval(step, &state, eval_options).unwrap();
            apply_updates(step, &values, &mut state);
        }
    }
    let after = gradients.keys().map(|weight| &state[weight]);
    after
        .flat_map(|value| value.on(0).as_floats().to_vec())
        .collect()
}

/// The gradients of an update, as a textbook has them: over all micro-batches and replicas.
fn combined(update: u32, n: u32, scaling: Scaling) -> Vec<f64> {
    let all = scaling.accumulation * scaling.replicas;
    let divisor = match scaling.reduction {
        Reduction::Mean => f64::from(all),
        Reduction::Sum => 1.0,
    };
    let of = |element| {
        let sum: f64 = (0..scaling.accumulation)
            .flat_map(|micro_batch| {
                (0..scaling.replicas).map(move |replica| (micro_batch, replica))
            })
            .map(|(micro_batch, replica)| gradient(update, micro_batch, replica, element))
            .sum();
        sum / divisor
    };
    (0..2 * n as usize).map(of).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Adam or LAMB as in the papers, all weights as one.
fn textbook_adam(n: u32, adam: Adam, scaling: Scaling) -> Vec<f64> {
    textbook_clipped(n, adam, scaling, f64::INFINITY)
}

/// The same from gradients of limited norm.
fn textbook_clipped(n: u32, adam: Adam, scaling: Scaling, clip_norm: f64) -> Vec<f64> {
    let mut w: Vec<f64> = [1.0, -2.0].repeat(n as usize);
    let (mut m, mut v) = (vec![0.0; w.len()], vec![0.0; w.len()]);
    for update in 0..UPDATES {
        let gradients = combined(update, n, scaling);
        let factor = (clip_norm / norm(&gradients)).min(1.0);
        let mut x = Vec::new();
        for (element, g) in gradients.into_iter().enumerate() {
            let g = factor * g;
            m[element] = adam.beta1 * m[element] + (1.0 - adam.beta1) * g;
            v[element] = adam.beta2 * v[element] + (1.0 - adam.beta2) * g * g;
            let steps = update as i32 + 1;
            let corrected = |moment: f64, beta: f64| match adam.correction {
                Correction::Bias => moment / (1.0 - beta.powi(steps)),
                Correction::None => moment,
            };
            let step = corrected(m[element], adam.beta1)
                / (corrected(v[element], adam.beta2).sqrt() + adam.epsilon);
            x.push(step + adam.weight_decay * w[element]);
        }
        let ratio = match adam.max_weight_norm {
            Some(most) => norm(&w).min(most) / norm(&x),
            None => 1.0,
        };
        for (w, x) in w.iter_mut().zip(x) {
            *w -= 0.5 * ratio * x;
        }
    }
    w
}

/// `v = momentum v + (1 - dampening) (g + decay w)`, `w -= rate v`. PopART's velocity begins
/// at zero, so the first update has no decay.
fn textbook_sgd(sgd: Sgd, scaling: Scaling) -> Vec<f64> {
    let mut w = vec![1.0, -2.0];
    let mut v = vec![0.0; 2];
    for update in 0..UPDATES {
        for (element, g) in combined(update, 1, scaling).into_iter().enumerate() {
            let decays = update > 0 || sgd.momentum == 0.0;
            let decay = if decays { sgd.weight_decay } else { 0.0 };
            v[element] =
                sgd.momentum * v[element] + (1.0 - sgd.dampening) * (g + decay * w[element]);
        }
        for (w, v) in w.iter_mut().zip(&v) {
            *w -= 0.5 * v;
        }
    }
    w
}

#[track_caller]
fn assert_close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
    }
}

/// Every way of combining two micro-batches and four replicas.
fn scalings() -> Vec<Scaling> {
    let mut all = Vec::new();
    for reduction in [Reduction::Mean, Reduction::Sum] {
        for (accumulation, replicas) in [(1, 1), (2, 1), (1, 4), (2, 4)] {
            all.push(scaling(accumulation, replicas, reduction));
        }
    }
    all
}

#[test]
fn the_header_shows_it() {
    check_header(include_str!("../optimizer.rs"), |graph| {
        let gradients = Gradients::from([(TensorId(0), TensorId(3))]);
        let accumulated = Accumulated {
            value: TensorId(4),
            variable: Some(TensorId(2)),
        };
        let accumulated = AccumulatedGradients::from([(TensorId(0), accumulated)]);
        let lamb = UpdateRule::Adam(LAMB);
        let options = options(&gradients, lamb, scaling(4, 1, Reduction::Mean));
        optimizer(graph, &accumulated, &options).unwrap().0
    });
}

#[test]
fn adam_and_lamb_follow_the_papers() {
    for scaling in scalings() {
        for correction in [Correction::None, Correction::Bias] {
            for max_weight_norm in [None, Some(65504.0), Some(0.5)] {
                let adam = Adam {
                    correction,
                    max_weight_norm,
                    ..LAMB
                };
                let got = train(1, UpdateRule::Adam(adam), scaling, false);
                assert_close(&got, &textbook_adam(1, adam, scaling));
            }
        }
    }
}

/// The limit is on the gradient itself, without the scale of the loss, over all weights.
#[test]
fn gradients_are_clipped_by_the_norm_of_all() {
    for scaling in scalings() {
        let clipped = |clip_norm| {
            let rule = UpdateRule::Adam(LAMB);
            train_clipped(3, rule, scaling, true, Some(clip_norm))
        };
        for clip_norm in [0.25, 2.0, 1e6] {
            let expected = textbook_clipped(3, LAMB, scaling, clip_norm);
            assert_close(&clipped(clip_norm), &expected);
        }
        assert_ne!(clipped(0.25), clipped(1e6));
    }
}

/// One number for all IPUs, made where most gradients are.
#[test]
fn the_norm_is_made_on_the_ipu_with_most_gradients() {
    let (mut graph, _, gradients) = weights(3, DType::F16);
    for (op, ipu) in graph.ops.values_mut().zip([0, 1, 1]) {
        op.ipu = Some(IpuId(ipu));
    }
    let mut options = options(
        &gradients,
        UpdateRule::Adam(LAMB),
        scaling(2, 1, Reduction::Mean),
    );
    options.clip_norm = Some(0.5);
    let (graph, accumulated) = accumulate(graph, &gradients, &options).unwrap();
    let (graph, _) = optimizer(graph, &accumulated, &options).unwrap();
    verify(&graph, Form::Logical).unwrap();
    let text = print(&graph);
    let lines = text.lines().filter(|line| {
        let words = [
            "square_sum",
            "reshape",
            "concat",
            "reduce_sum",
            "sqrt",
            "max(",
            "div(",
            "mul(",
        ];
        words.iter().any(|word| line.contains(word))
    });
    // The first square sums are those of the gradients; those of LAMB follow.
    let lines: Vec<&str> = lines.take(14).collect();
    expect![[r#"
        %22: f32[] = square_sum(%17) @ipu0 upd "w0"
        %23: f32[1] = reshape(%22) {shape: [1]} @ipu0 upd "w0"
        %24: f32[] = square_sum(%19) @ipu1 upd "w1"
        %25: f32[1] = reshape(%24) {shape: [1]} @ipu1 upd "w1"
        %26: f32[] = square_sum(%21) @ipu1 upd "w2"
        %27: f32[1] = reshape(%26) {shape: [1]} @ipu1 upd "w2"
        %28: f32[3] = concat(%23, %25, %27) {axis: 0} @ipu1 part0 upd "gradientNorm"
        %29: f32[] = reduce_sum(%28) {axes: [0], keep_dims: false} @ipu1 part0 upd "gradientNorm"
        %30: f32[] = sqrt(%29) @ipu1 part0 upd "gradientNorm"
        %32: f32[] = max(%30, %31) @ipu1 part0 upd "gradientNorm"
        %33: f32[] = div(%31, %32) @ipu1 part0 upd "gradientNorm"
        %34: f32[2] = mul(%17, %33) @ipu0 upd "w0"
        %35: f32[2] = mul(%19, %33) @ipu1 upd "w1"
        %36: f32[2] = mul(%21, %33) @ipu1 upd "w2"
    "#]]
    .assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn gradients_that_cannot_be_clipped_are_refused() {
    let refused = |rule, accumulation, stage: Option<u32>, clip_norm| {
        let (mut graph, _, gradients) = weights(1, DType::F32);
        for op in graph.ops.values_mut() {
            op.stage = stage.map(StageId);
        }
        let mut options = options(&gradients, rule, scaling(accumulation, 1, Reduction::Mean));
        options.clip_norm = Some(clip_norm);
        let (graph, accumulated) = accumulate(graph, &gradients, &options).unwrap();
        optimizer(graph, &accumulated, &options).unwrap_err()
    };
    let lamb = UpdateRule::Adam(LAMB);
    let sgd = UpdateRule::Sgd(SGD);
    assert_eq!(
        refused(sgd, 2, None, 1.0),
        OptimizerError::ClippedWithoutMoments
    );
    assert_eq!(
        refused(lamb, 1, Some(1), 1.0),
        OptimizerError::ClippedInStages
    );
    assert_eq!(
        refused(lamb, 2, None, 0.0).to_string(),
        "clip_norm is out of range, expected above 0, got 0"
    );
}

#[test]
fn slices_of_one_weight_share_a_norm() {
    let scaling = scaling(2, 4, Reduction::Mean);
    let joint = train(3, UpdateRule::Adam(LAMB), scaling, true);
    assert_close(&joint, &textbook_adam(3, LAMB, scaling));
    assert_ne!(joint, train(3, UpdateRule::Adam(LAMB), scaling, false));
}

#[test]
fn moments_that_keep_the_loss_scale_give_the_same_step() {
    let scaling = scaling(2, 4, Reduction::Mean);
    let half = Adam {
        moments: MomentTypes::HALF_FIRST,
        ..LAMB
    };
    let got = train(1, UpdateRule::Adam(half), scaling, false);
    assert_close(&got, &textbook_adam(1, LAMB, scaling));
}

#[test]
fn a_norm_limit_of_zero_is_adam() {
    let scaling = scaling(1, 1, Reduction::Sum);
    let limit = |max_weight_norm| {
        let adam = Adam {
            max_weight_norm,
            ..LAMB
        };
        train(1, UpdateRule::Adam(adam), scaling, false)
    };
    assert_eq!(limit(Some(0.0)), limit(None));
}

#[test]
fn sgd_follows_the_textbook() {
    for scaling in scalings() {
        for momentum in [0.0, 0.5] {
            let sgd = Sgd { momentum, ..SGD };
            let got = train(1, UpdateRule::Sgd(sgd), scaling, false);
            assert_close(&got, &textbook_sgd(sgd, scaling));
        }
    }
}

#[test]
fn a_weight_may_scale_the_learning_rate() {
    let (graph, _, gradients) = weights(2, DType::F32);
    let sgd = Sgd {
        momentum: 0.0,
        ..SGD
    };
    let scaling = scaling(1, 1, Reduction::Sum);
    let mut options = options(&gradients, UpdateRule::Sgd(sgd), scaling);
    options.learning_rate = LearningRate::Stream;
    options.weights[1].learning_rate_scale = 3.0;
    let (graph, accumulated) = accumulate(graph, &gradients, &options).unwrap();
    let (graph, rate) = optimizer(graph, &accumulated, &options).unwrap();
    assert_eq!(rate, graph.inputs.last().copied());
    expect![[r#"
        part0 = "learningRate"
        variable %0: f32[2] "w0"
        stream %1: f32[2] "sent"
        variable %3: f32[2] "w1"
        stream %4: f32[2] "sent"
        stream %6: f32[] part0 "learningRate"
        %2: f32[2] = identity(%1) @ipu0 bwd "backward"
        %5: f32[2] = identity(%4) @ipu0 bwd "backward"
        %7: f32[2] = sgd_update(%0, %2, %6) {scale: 0.09375, weight_decay: 0.09375} @ipu0 upd "w0"
        %8: f32[] = scale(%6) {factor: 3.0} @ipu0 part0 upd "learningRate"
        %9: f32[2] = sgd_update(%3, %5, %8) {scale: 0.09375, weight_decay: 0.09375} @ipu0 upd "w1"
        inputs %1, %4, %6
        update %0 = %7
        update %3 = %9
    "#]]
    .assert_eq(&print(&graph));
}

#[test]
fn the_chain_of_lamb() {
    let (graph, _, gradients) = weights(1, DType::F16);
    let lamb = Adam {
        correction: Correction::Bias,
        ..LAMB
    };
    let scaling = scaling(16, 4, Reduction::Mean);
    let options = options(&gradients, UpdateRule::Adam(lamb), scaling);
    let (graph, accumulated) = accumulate(graph, &gradients, &options).unwrap();
    let (graph, _) = optimizer(graph, &accumulated, &options).unwrap();
    expect![[r#"
        variable %0: f16[2] "w0"
        stream %1: f16[2] "sent"
        variable %3: f16[2] = zeros "Accum___w0"
        constant %5: f32[] = splat(0.5) "learningRate"
        variable %9: f32[2] = zeros "Accl1___w0"
        variable %11: f32[2] = zeros "Accl2___w0"
        constant %14: f32[] = splat(1.0) "one"
        variable %15: f32[] = zeros "Step___w0"
        %2: f16[2] = identity(%1) @ipu0 bwd "backward"
        %4: f16[2] = accumulate(%3, %2) {factor: 1.0} @ipu0 acc "Accum___w0"
        %6: f16[2] = all_reduce(%4) @ipu0 upd "w0"
        %7: f32[2] = cast(%6) {to: f32} @ipu0 upd "w0"
        %8: f32[2] = scale(%7) {factor: 0.001953125} @ipu0 upd "w0"
        %10: f32[2] = adam_moment(%9, %8) {beta: 0.9, square: false} @ipu0 upd "w0"
        %12: f32[2] = adam_moment(%11, %8) {beta: 0.99, square: true} @ipu0 upd "w0"
        %13: f16[2] = zero(%6) @ipu0 upd "w0"
        %16: f32[] = add(%15, %14) @ipu0 upd "w0"
        %17: f16[2] = adam_updater(%10, %12, %0, %16) {epsilon: 1e-6, weight_decay: 0.01, beta1: 0.9, beta2: 0.99} @ipu0 upd "w0"
        %18: f32[] = square_sum(%0) @ipu0 upd "w0"
        %19: f32[] = square_sum(%17) @ipu0 upd "w0"
        %20: f16[2] = lamb_update(%0, %17, %18, %19, %5) {max_weight_norm: 65504.0} @ipu0 upd "w0"
        inputs %1
        update %3 = %13
        update %9 = %10
        update %11 = %12
        update %15 = %16
        update %0 = %20
    "#]].assert_eq(&print(&graph));
}

/// With a first moment in `f16` the sum of gradients isn't cast, and both moments and the epsilon
/// keep the loss scale of 8: only the reduction over 16 micro-batches and 4 replicas is taken out.
#[test]
fn the_chain_of_adam_with_half_of_its_state_in_f16() {
    let (graph, _, gradients) = weights(1, DType::F16);
    let adam = Adam {
        max_weight_norm: None,
        moments: MomentTypes::HALF_FIRST,
        ..LAMB
    };
    let scaling = scaling(16, 4, Reduction::Mean);
    let options = options(&gradients, UpdateRule::Adam(adam), scaling);
    let (graph, accumulated) = accumulate(graph, &gradients, &options).unwrap();
    let (graph, _) = optimizer(graph, &accumulated, &options).unwrap();
    expect![[r#"
        variable %0: f16[2] "w0"
        stream %1: f16[2] "sent"
        variable %3: f16[2] = zeros "Accum___w0"
        constant %5: f32[] = splat(0.5) "learningRate"
        variable %8: f16[2] = zeros "Accl1___w0"
        variable %10: f32[2] = zeros "Accl2___w0"
        %2: f16[2] = identity(%1) @ipu0 bwd "backward"
        %4: f16[2] = accumulate(%3, %2) {factor: 1.0} @ipu0 acc "Accum___w0"
        %6: f16[2] = all_reduce(%4) @ipu0 upd "w0"
        %7: f16[2] = scale(%6) {factor: 0.015625} @ipu0 upd "w0"
        %9: f16[2] = adam_moment(%8, %7) {beta: 0.9, square: false} @ipu0 upd "w0"
        %11: f32[2] = adam_moment(%10, %7) {beta: 0.99, square: true} @ipu0 upd "w0"
        %12: f16[2] = zero(%6) @ipu0 upd "w0"
        %13: f16[2] = adam_updater(%9, %11, %0) {epsilon: 8e-6, weight_decay: 0.01} @ipu0 upd "w0"
        %14: f16[2] = adam_update(%0, %13, %5) @ipu0 upd "w0"
        inputs %1
        update %3 = %12
        update %8 = %9
        update %10 = %11
        update %0 = %14
    "#]]
    .assert_eq(&print(&graph));
}

/// PopART casts the sum of gradients only if it is in `f16` and both moments are in `f32`.
#[test]
fn gradients_are_cast_for_two_moments_in_f32_only() {
    for (moments, casts) in [
        ([DType::F32, DType::F32], 1),
        ([DType::F16, DType::F32], 0),
        ([DType::F16, DType::F16], 0),
        ([DType::F32, DType::F16], 0),
    ] {
        let (graph, _, gradients) = weights(1, DType::F16);
        let [first, second] = moments;
        let adam = Adam {
            moments: MomentTypes { first, second },
            ..LAMB
        };
        let scaling = scaling(2, 1, Reduction::Mean);
        let options = options(&gradients, UpdateRule::Adam(adam), scaling);
        let (graph, accumulated) = accumulate(graph, &gradients, &options).unwrap();
        let (graph, _) = optimizer(graph, &accumulated, &options).unwrap();
        let is_cast = |op: &&crate::ir::Op| matches!(op.kind, OpKind::Cast { .. });
        assert_eq!(graph.ops.values().filter(is_cast).count(), casts);
        let of = |prefix: &str| {
            let named = |tensor: &&crate::ir::Tensor| tensor.name.starts_with(prefix);
            graph.tensors.values().find(named).unwrap().dtype
        };
        assert_eq!([of("Accl1___"), of("Accl2___")], moments);
    }
}

#[test]
fn hyper_parameters_have_ranges() {
    let (graph, _, gradients) = weights(1, DType::F16);
    let wild = Adam { beta2: 1.0, ..LAMB };
    let scaling = scaling(1, 1, Reduction::Mean);
    let options = options(&gradients, UpdateRule::Adam(wild), scaling);
    let (graph, accumulated) = accumulate(graph, &gradients, &options).unwrap();
    let error = optimizer(graph, &accumulated, &options).unwrap_err();
    expect!["adam_moment `w0`: beta is out of range, expected at least 0 and below 1, got 1"]
        .assert_eq(&error.to_string());
}

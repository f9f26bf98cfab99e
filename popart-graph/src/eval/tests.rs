use ipu_sim::numerics::dropout_keep;
use smallvec::smallvec;

use super::*;
use crate::ir::{BiasCorrection, BinaryFn, MatMulPass, Reduction, Shape, UnaryFn};
use crate::testing::{every_kind, graphs, matmul, sample_inputs, single, types};
use proptest::prelude::*;

const EXACT: EvalOptions = EvalOptions {
    round_to_dtype: false,
    replicas: 1,
};

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-12 * right.abs().max(1.0)
}

/// The first result of one operation on streams of these types and values.
fn evaluate(
    kind: OpKind,
    operands: &str,
    values: &[PerReplica],
    options: EvalOptions,
) -> Result<PerReplica> {
    let graph = single(kind, &types(operands));
    let inputs = graph.inputs.iter().copied().zip(values.iter().cloned());
    let values = eval(&graph, &inputs.collect(), options)?;
    Ok(values[graph.outputs[0]].clone())
}

#[track_caller]
fn check(kind: OpKind, operands: &str, values: &[PerReplica], expected: &[f64]) {
    let result = evaluate(kind, operands, values, EXACT).unwrap();
    let got = result.on(0).as_floats();
    let equal = got.len() == expected.len() && got.iter().zip(expected).all(|(&a, &b)| near(a, b));
    assert!(equal, "expected {expected:?}, got {got:?}");
}

fn f(values: &[f64]) -> PerReplica {
    values.to_vec().into()
}

fn u(values: &[u32]) -> PerReplica {
    values.to_vec().into()
}

#[test]
fn products_and_functions() {
    check(
        matmul(MatMulPass::None),
        "f16[2,2] f16[2,1]",
        &[f(&[1., 2., 3., 4.]), f(&[5., 6.])],
        &[17., 39.],
    );
    check(
        matmul(MatMulPass::None),
        "f16[2,1,2] f16[2,2,1]",
        &[f(&[1., 2., 3., 4.]), f(&[5., 6., 7., 8.])],
        &[17., 53.],
    );
    check(
        OpKind::Binary(BinaryFn::Sub),
        "f16[2,1] f16[3]",
        &[f(&[10., 20.]), f(&[1., 2., 3.])],
        &[9., 8., 7., 19., 18., 17.],
    );
    let unary =
        |function, x: f64, y: f64| check(OpKind::Unary(function), "f32[1]", &[f(&[x])], &[y]);
    // Both forms of GELU at 1, to 15 digits, from their definitions.
    unary(UnaryFn::Gelu, 1.0, 0.841_191_990_608_276_1);
    unary(UnaryFn::GeluErf, 1.0, 0.841_344_746_068_542_9);
    unary(UnaryFn::Rsqrt, 4.0, 0.5);
    unary(UnaryFn::Sigmoid, 0.0, 0.5);
    unary(UnaryFn::Relu, -2.0, 0.0);
}

#[test]
fn views_and_sums() {
    let x = f(&[1., 2., 3., 4., 5., 6.]);
    let check_x =
        |kind, expected: &[f64]| check(kind, "f32[2,3]", std::slice::from_ref(&x), expected);
    check_x(
        OpKind::Transpose {
            perm: smallvec![1, 0],
        },
        &[1., 4., 2., 5., 3., 6.],
    );
    check_x(
        OpKind::Slice {
            axis: 1,
            begin: 1,
            end: 3,
        },
        &[2., 3., 5., 6.],
    );
    check_x(
        OpKind::Pad {
            axis: 1,
            before: 1,
            after: 0,
        },
        &[0., 1., 2., 3., 0., 4., 5., 6.],
    );
    check_x(
        OpKind::ReduceSum {
            axes: smallvec![0],
            keep_dims: false,
        },
        &[5., 7., 9.],
    );
    check(
        OpKind::Concat { axis: 1 },
        "f32[2,1] f32[2,2]",
        &[f(&[1., 2.]), f(&[3., 4., 5., 6.])],
        &[1., 3., 4., 2., 5., 6.],
    );
    check(
        OpKind::Broadcast {
            shape: Shape::from([2, 2]),
        },
        "f32[2,1]",
        &[f(&[1., 2.])],
        &[1., 1., 2., 2.],
    );
    check(
        OpKind::Transpose {
            perm: smallvec![2, 0, 1],
        },
        "f32[1,2,3]",
        std::slice::from_ref(&x),
        &[1., 4., 2., 5., 3., 6.],
    );
}

#[test]
fn rows() {
    let ln3 = 3.0_f64.ln();
    check(
        OpKind::Softmax,
        "f32[1,2]",
        &[f(&[1000., 1000. + ln3])],
        &[0.25, 0.75],
    );
    // Mean 2, biased variance 1, epsilon 0.
    check(
        OpKind::LayerNorm { epsilon: 0.0 },
        "f32[1,2] f32[2] f32[2]",
        &[f(&[1., 3.]), f(&[1., 2.]), f(&[0., 10.])],
        &[-1., 12.],
    );
    check(
        OpKind::Gather { first_row: 1 },
        "f32[2,2] u32[4]",
        &[f(&[1., 2., 3., 4.]), u(&[1, 2, 0, 3])],
        &[1., 2., 3., 4., 0., 0., 0., 0.],
    );
    check(
        OpKind::GatherGrad {
            first_row: 1,
            rows: 2,
        },
        "f32[4,1] u32[4]",
        &[f(&[1., 10., 100., 1000.]), u(&[1, 2, 2, 0])],
        &[1., 110.],
    );
    check(
        OpKind::SparseAccumulate {
            first_row: 0,
            factor: 0.5,
        },
        "f32[2,1] f32[2,1] u32[2]",
        &[f(&[1., 2.]), f(&[4., 6.]), u(&[1, 1])],
        &[1., 7.],
    );
    let depth = 2;
    let dtype = DType::F32;
    check(
        OpKind::OneHot { depth, dtype },
        "u32[3]",
        &[u(&[1, 0, 9])],
        &[0., 1., 1., 0., 0., 0.],
    );
}

/// Two masked tokens reserved, one used, sequence of five in a row of six; then
/// only a length.
#[test]
fn attention_masks() {
    let masked = -1000.0;
    let kind = |mask_tokens| OpKind::SequenceMask {
        sequence_length: 6,
        mask_tokens,
        dtype: DType::F32,
    };
    check(
        kind(Some(2)),
        "u32[1,1] u32[1,1]",
        &[u(&[1]), u(&[5])],
        &[0., masked, 0., 0., 0., masked],
    );
    check(
        kind(None),
        "u32[2,1]",
        &[u(&[2, 6])],
        &[
            0., 0., masked, masked, masked, masked, 0., 0., 0., 0., 0., 0.,
        ],
    );
}

/// Positions of equal numbers see each other, padding (0) included.
#[test]
fn a_mask_of_pairs_tells_sequences_apart() {
    let [one, two] = [1.0_f64, 2.0].map(|apart| -10_000. * apart.tanh());
    check(
        OpKind::AttentionMask,
        "u32[2,2] f32[2,3,2,2]",
        &[u(&[1, 2, 2, 0]), f(&[0.5; 24])],
        &[0., one, one, 0., 0., two, two, 0.],
    );
    assert!((one + 7616.).abs() < 0.5 && (two + 9640.).abs() < 0.5);
}

#[test]
fn losses() {
    let probabilities = f(&[0.5, 0.25, 0.25, 0.125, 0.875, 0.0, 0.2, 0.3, 0.5]);
    let loss = |reduction, ignore_index| OpKind::NllLoss {
        reduction,
        ignore_index,
    };
    let ln2 = 2.0_f64.ln();
    let operands = "f32[3,3] u32[3]";
    let values = |labels: &[u32]| [probabilities.clone(), u(labels)];
    check(
        loss(Some(Reduction::Sum), None),
        operands,
        &values(&[0, 0, 2]),
        &[5. * ln2],
    );
    check(
        loss(Some(Reduction::Mean), Some(0)),
        operands,
        &values(&[1, 0, 2]),
        &[1.5 * ln2],
    );
    check(
        loss(Some(Reduction::Mean), Some(0)),
        operands,
        &values(&[0, 0, 0]),
        &[0.],
    );
    let vanishing = &[f(&[0., 1.]), u(&[0])];
    let sum = || loss(Some(Reduction::Sum), None);
    check(sum(), "f32[1,2] u32[1]", vanishing, &[-(1e-7_f64.ln())]);
    check(sum(), "f16[1,2] u32[1]", vanishing, &[-(6.104e-5_f64.ln())]);
    let accuracy = |ignore_index| OpKind::Accuracy {
        ignore_index,
        weighted: false,
    };
    check(accuracy(None), operands, &values(&[0, 0, 2]), &[2., 3.]);
    check(accuracy(Some(0)), operands, &values(&[0, 0, 2]), &[1., 1.]);
    check(
        OpKind::Accuracy {
            ignore_index: None,
            weighted: true,
        },
        "f32[3,3] u32[3] u32[3]",
        &[probabilities.clone(), u(&[0, 0, 2]), u(&[0, 7, 1])],
        &[1., 2.],
    );
    check(
        loss(None, Some(1)),
        operands,
        &values(&[0, 1, 1]),
        &[ln2, 0., 0.],
    );
    check(
        OpKind::NllSoftmaxGrad {
            reduction: None,
            ignore_index: None,
        },
        "f32[3,3] u32[3] f32[3]",
        &[probabilities.clone(), u(&[1, 0, 2]), f(&[8., 0., -2.])],
        &[4., -6., 2., 0., 0., 0., -0.4, -0.6, 1.],
    );
    check(
        OpKind::NllSoftmaxGrad {
            reduction: Some(Reduction::Mean),
            ignore_index: Some(0),
        },
        "f32[3,3] u32[3] f32[]",
        &[probabilities.clone(), u(&[1, 0, 2]), f(&[8.])],
        &[2., -3., 1., 0., 0., 0., 0.8, 1.2, -2.],
    );
    let error = evaluate(sum(), operands, &values(&[0, 3, 0]), EXACT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nll_loss `op`: label 3 of sample 1 is outside 3 classes"
    );
}

#[test]
fn optimisers() {
    let moment = |square| OpKind::AdamMoment { beta: 0.75, square };
    check(moment(false), "f32[1] f32[1]", &[f(&[4.]), f(&[8.])], &[5.]);
    check(moment(true), "f32[1] f32[1]", &[f(&[4.]), f(&[8.])], &[19.]);
    let updater = |weight_decay, bias_correction| OpKind::AdamUpdater {
        epsilon: 1.0,
        weight_decay,
        bias_correction,
    };
    check(
        updater(None, None),
        "f32[1] f32[1]",
        &[f(&[6.]), f(&[4.])],
        &[2.],
    );
    check(
        updater(Some(0.5), None),
        "f32[1] f32[1] f32[1]",
        &[f(&[6.]), f(&[4.]), f(&[8.])],
        &[6.],
    );
    // At step 2: m / (1 - 0.5^2) = 8, v / (1 - 0.75^2) = 9.
    check(
        updater(
            None,
            Some(BiasCorrection {
                beta1: 0.5,
                beta2: 0.75,
            }),
        ),
        "f32[1] f32[1] f32[]",
        &[f(&[6.]), f(&[9. * 0.4375]), f(&[2.])],
        &[2.],
    );
    check(OpKind::SquareSum, "f32[2]", &[f(&[3., 4.])], &[25.]);
    let lamb = |max_weight_norm, weight: f64, expected: f64| {
        check(
            OpKind::LambUpdate { max_weight_norm },
            "f32[1] f32[1] f32[] f32[] f32[]",
            &[f(&[10.]), f(&[2.]), f(&[weight]), f(&[4.]), f(&[0.5])],
            &[expected],
        );
    };
    lamb(100.0, 36.0, 10. - 0.5 * 3. * 2.);
    lamb(4.0, 36.0, 10. - 0.5 * 2. * 2.);
    lamb(100.0, 0.0, 10. - 0.5 * 2.);
    lamb(0.0, 36.0, 10. - 0.5 * 2.);
    check(
        OpKind::SgdUpdate {
            scale: 0.25,
            weight_decay: 0.1,
        },
        "f32[1] f32[1] f32[]",
        &[f(&[10.]), f(&[8.]), f(&[0.5])],
        &[9.5 - 1.],
    );
    check(
        OpKind::SgdMomentum {
            momentum: 0.5,
            weight_decay: 0.1,
        },
        "f32[1] f32[1]",
        &[f(&[8.]), f(&[10.])],
        &[5.],
    );
}

#[test]
fn dropout_scales_what_it_keeps() {
    let kind = OpKind::Dropout {
        probability: 0.5,
        id: 3,
    };
    let expected: Vec<f64> = (0..8)
        .map(|index| f64::from(u8::from(dropout_keep([1, 2], 3, index, 0.5))) * 2.0)
        .collect();
    assert!(expected.contains(&0.0) && expected.contains(&2.0));
    check(
        kind,
        "f32[8] u32[2]",
        &[f(&[1.0; 8]), u(&[1, 2])],
        &expected,
    );
}

#[test]
fn rounding_is_to_the_type_of_each_tensor() {
    let rounding = EvalOptions {
        round_to_dtype: true,
        replicas: 1,
    };
    let double = |dtype: &str, x: f64| {
        let result = evaluate(OpKind::Scale { factor: 2.0 }, dtype, &[f(&[x])], rounding).unwrap();
        result.on(0).as_floats()[0]
    };
    assert_eq!(double("f32[1]", 0.1), 2.0 * f64::from(0.1_f32));
    assert_eq!(double("f16[1]", 1.0 + 1.0 / 4096.0), 2.0);
    assert_eq!(double("f16[1]", 32752.0), 65504.0);
    assert!(double("f16[1]", 40000.0).is_nan());
}

/// Four replicas, of which pairs hold a tensor of three elements together.
#[test]
fn collectives() {
    let replicas = EvalOptions {
        round_to_dtype: false,
        replicas: 4,
    };
    let each = |values: &[&[f64]]| {
        PerReplica::from_each(
            values
                .iter()
                .map(|value| Value::Float(value.to_vec()))
                .collect(),
        )
    };
    let run =
        |kind, operands: &str, value: PerReplica| evaluate(kind, operands, &[value], replicas);
    let whole = || f(&[1., 2., 3.]);
    let shards = 2;
    let shape = Shape::from([3]);
    let slices = each(&[&[1., 2.], &[3., 0.], &[1., 2.], &[3., 0.]]);
    assert_eq!(
        run(OpKind::AllReduce, "f32[3]", whole()),
        Ok(f(&[4., 8., 12.]))
    );
    assert_eq!(
        run(
            OpKind::AllReduce,
            "f32[1]",
            each(&[&[1.], &[2.], &[3.], &[4.]])
        ),
        Ok(f(&[10.]))
    );
    assert_eq!(
        run(OpKind::LocalSlice { shards }, "f32[3]", whole()),
        Ok(slices.clone())
    );
    assert_eq!(
        run(OpKind::ReduceScatter { shards }, "f32[3]", whole()),
        Ok(each(&[&[4., 8.], &[12., 0.], &[4., 8.], &[12., 0.]]))
    );
    assert_eq!(
        run(OpKind::AllGather { shards, shape }, "f32[2]", slices),
        Ok(whole())
    );
    let odd = run(OpKind::LocalSlice { shards: 3 }, "f32[3]", whole()).unwrap_err();
    assert_eq!(
        odd.to_string(),
        "local_slice `op`: 3 shards don't divide 4 replicas"
    );
}

#[test]
fn values_must_fit() {
    let identity = |values: &[PerReplica]| {
        evaluate(OpKind::Identity, "f32[2]", values, EXACT)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(identity(&[]), "no value for %0 `operand`");
    assert_eq!(
        identity(&[u(&[1, 2])]),
        "the value of %0 `operand` doesn't fit, expected 2 elements of f32, got 2 of u32"
    );
    let two = PerReplica::Each(vec![Value::Float(vec![1., 2.]), Value::Float(vec![3., 4.])]);
    assert_eq!(
        identity(&[two]),
        "%0 `operand` has values for the wrong number of replicas, expected 1, got 2"
    );
}

#[test]
fn updates_carry_to_the_next_run() {
    let mut graph = Graph::default();
    let shape = Shape::from([1]);
    let sum = graph.variable("sum", DType::F32, shape.clone(), Some(Init::Zeros));
    let x = graph.stream("x", DType::F32, shape);
    let scope = crate::ir::Scope::named("add");
    let next = graph
        .add(OpKind::Accumulate { factor: 1.0 }, &[sum, x], &scope)
        .unwrap();
    graph.update(sum, next);
    let mut inputs = Inputs::from([(x, f(&[2.]))]);
    for expected in [2.0, 4.0, 6.0] {
        let values = eval(&graph, &inputs, EXACT).unwrap();
        assert_eq!(values[next], f(&[expected]));
        apply_updates(&graph, &values, &mut inputs);
    }
}

#[test]
fn every_kind_gives_as_many_elements_as_inferred() {
    for (kind, operands) in every_kind() {
        let graph = single(kind, &operands);
        let options = EvalOptions {
            round_to_dtype: true,
            replicas: 2,
        };
        let values = eval(&graph, &sample_inputs(&graph, 5), options).unwrap();
        for &output in &graph.outputs {
            let tensor = &graph.tensors[output];
            let value = values[output].on(1);
            assert_eq!(value.len(), value::count(&tensor.shape), "{:?}", graph.ops);
            assert_eq!(value.is_float(), tensor.dtype != DType::U32);
        }
    }
}

proptest! {
    #[test]
    fn random_graphs_evaluate_and_replicas_agree(graph in graphs(), seed in 0..9_u32) {
        let inputs = sample_inputs(&graph, seed);
        let alone = eval(&graph, &inputs, EXACT).unwrap();
        let together = eval(&graph, &inputs, EvalOptions { replicas: 3, ..EXACT }).unwrap();
        let same = graph.outputs.iter().all(|&id| {
            let bits = |value: &Value| match value {
                Value::Float(x) => x.iter().map(|x| x.to_bits()).collect(),
                Value::Int(x) => x.iter().map(|&x| u64::from(x)).collect::<Vec<_>>(),
            };
            bits(alone[id].on(0)) == bits(together[id].on(2))
        });
        prop_assert!(same);
    }
}

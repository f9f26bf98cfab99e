use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::eval::{EvalOptions, Inputs, PerReplica, eval};
use crate::ir::{BinaryFn, MatMulPass, OpKind, Piece, Reduction, TensorKind, TensorType, UnaryFn};
use crate::testing::{graphs, matmul, sample_inputs, types};
use crate::verify::{Form, verify};

const EXACT: EvalOptions = EvalOptions {
    round_to_dtype: false,
    replicas: 1,
};

/// A distance that keeps both the truncation error of [`five_points`], which falls with its
/// fourth power, and the rounding error far below the tolerance, also where a norm over equal
/// numbers makes every derivative thirty times the one before.
const STEP: f64 = 1e-4;

/// The derivative at 0 of a function sampled at two points on either side.
fn five_points(at: impl Fn(f64) -> f64) -> f64 {
    (8.0 * (at(STEP) - at(-STEP)) - (at(2.0 * STEP) - at(-2.0 * STEP))) / (12.0 * STEP)
}

fn number(graph: &Graph, inputs: &Inputs, tensor: TensorId) -> f64 {
    eval(graph, inputs, EXACT).unwrap()[tensor]
        .on(0)
        .as_floats()[0]
}

/// Compares gradients of `loss` with differences of its value, element by element.
/// The tolerance is relative to the largest numbers involved.
fn check_differences(graph: &Graph, loss: TensorId, variables: &[TensorId], inputs: &Inputs) {
    let mut with_gradients = graph.clone();
    let gradients = backward(&mut with_gradients, loss, 1.0, variables).unwrap();
    verify(&with_gradients, Form::Logical).unwrap();
    let values = eval(&with_gradients, inputs, EXACT).unwrap();
    let size = number(graph, inputs, loss).abs().max(1.0);
    for (&variable, &gradient) in &gradients {
        let gradient = values[gradient].on(0).as_floats();
        let at = inputs[&variable].on(0).as_floats();
        assert_eq!(gradient.len(), at.len());
        for element in 0..at.len() {
            let moved = |by: f64| {
                let mut moved = at.to_vec();
                moved[element] += by;
                let mut inputs = inputs.clone();
                inputs.insert(variable, moved.into());
                number(graph, &inputs, loss)
            };
            let difference = five_points(moved);
            let error = (difference - gradient[element]).abs();
            let tolerance = 1e-6 * gradient[element].abs().max(size);
            assert!(
                error <= tolerance,
                "element {element} of {variable}: difference {difference}, gradient {}",
                gradient[element]
            );
        }
    }
}

/// The sum of a tensor's elements with different weights.
fn weighted_sum(graph: &mut Graph, tensor: TensorId) -> TensorId {
    let TensorType { dtype, shape } = graph.tensors[tensor].ty();
    let axes = (0_u32..).take(shape.rank()).collect();
    let scope = Scope::named("loss");
    let iota = graph.constant("iota", dtype, shape, Constant::Iota);
    let multiply = OpKind::Binary(BinaryFn::Mul);
    let smaller = graph
        .add(OpKind::Scale { factor: 0.3 }, &[iota], &scope)
        .unwrap();
    let one = graph.constant("one", dtype, Shape::scalar(), Constant::Splat(1.0));
    let weights = graph
        .add(OpKind::Binary(BinaryFn::Add), &[smaller, one], &scope)
        .unwrap();
    let weighted = graph.add(multiply, &[tensor, weights], &scope).unwrap();
    let keep_dims = false;
    graph
        .add(OpKind::ReduceSum { axes, keep_dims }, &[weighted], &scope)
        .unwrap()
}

/// Gradients of one operation's first result with respect to all float operands.
#[track_caller]
fn check(kind: OpKind, operands: &str) {
    let mut graph = Graph::default();
    let mut inputs = Inputs::new();
    let mut variables = Vec::new();
    let mut ids = Vec::new();
    for (position, ty) in types(operands).into_iter().enumerate() {
        let length = ty.shape.elements().0 as u32;
        let id = if ty.dtype == DType::U32 {
            graph.stream("stream", ty.dtype, ty.shape)
        } else {
            graph.variable("variable", ty.dtype, ty.shape, None)
        };
        let value: PerReplica = if graph.tensors[id].dtype == DType::U32 {
            (0..length)
                .map(|index| index % 3)
                .collect::<Vec<u32>>()
                .into()
        } else {
            // Positive, away from kinks, in no order.
            let one = |index: u32| 0.35 + f64::from((index * 7 + position as u32 * 3) % 11) * 0.13;
            variables.push(id);
            (0..length).map(one).collect::<Vec<f64>>().into()
        };
        inputs.insert(id, value);
        ids.push(id);
    }
    let result = graph.add(kind, &ids, &Scope::named("op")).unwrap();
    let loss = weighted_sum(&mut graph, result);
    check_differences(&graph, loss, &variables, &inputs);
}

#[test]
fn products_and_functions() {
    check(matmul(MatMulPass::TrainingFwd), "f32[2,3] f32[3,2]");
    check(matmul(MatMulPass::TrainingFwd), "f32[2,2,3] f32[2,3,1]");
    // No gradient flows through a maximum.
    let differentiable = BinaryFn::ALL.iter().filter(|&&f| f != BinaryFn::Max);
    for &function in differentiable {
        check(OpKind::Binary(function), "f32[2,3] f32[2,3]");
        check(OpKind::Binary(function), "f32[2,1,3] f32[2,1]");
        check(OpKind::Binary(function), "f32[] f32[1,2]");
    }
    for &function in UnaryFn::ALL {
        check(OpKind::Unary(function), "f32[5]");
    }
    check(OpKind::Scale { factor: -2.5 }, "f32[3]");
    check(OpKind::Cast { to: DType::F16 }, "f32[3]");
    check(OpKind::Identity, "f32[3]");
}

#[test]
fn views_and_sums() {
    let shape = |dims: &[u32]| Shape::from(dims);
    check(
        OpKind::Reshape {
            shape: shape(&[3, 2]),
        },
        "f32[2,3]",
    );
    check(
        OpKind::Transpose {
            perm: smallvec![2, 0, 1],
        },
        "f32[2,3,2]",
    );
    check(
        OpKind::Slice {
            axis: 1,
            begin: 1,
            end: 2,
        },
        "f32[2,4]",
    );
    check(OpKind::Concat { axis: 1 }, "f32[2,1] f32[2,3]");
    check(
        OpKind::Pad {
            axis: 0,
            before: 1,
            after: 2,
        },
        "f32[2,2]",
    );
    check(
        OpKind::Broadcast {
            shape: shape(&[2, 3, 2]),
        },
        "f32[3,1]",
    );
    for keep_dims in [false, true] {
        let axes = smallvec![0, 2];
        check(OpKind::ReduceSum { axes, keep_dims }, "f32[2,3,2]");
    }
}

#[test]
fn rows() {
    check(OpKind::Softmax, "f32[2,3]");
    check(OpKind::LayerNorm { epsilon: 0.1 }, "f32[2,4] f32[4] f32[4]");
    let probability = 0.5;
    check(OpKind::Dropout { probability, id: 1 }, "f32[3,4] u32[2]");
    check(OpKind::Gather { first_row: 1 }, "f32[2,3] u32[4]");
    let (first_row, rows) = (1, 2);
    check(OpKind::GatherGrad { first_row, rows }, "f32[4,3] u32[4]");
}

/// `loss(softmax(x))` on logits `[3, 4]`, with labels 2, 0 and 3.
fn classifier(
    reduction: Option<Reduction>,
    ignore_index: Option<u32>,
) -> (Graph, TensorId, Inputs) {
    let mut graph = Graph::default();
    let scope = Scope::named("loss");
    let logits = graph.variable("logits", DType::F32, Shape::from([3, 4]), None);
    let labels = graph.stream("labels", DType::U32, Shape::from([3]));
    let p = graph.add(OpKind::Softmax, &[logits], &scope).unwrap();
    let nll = OpKind::NllLoss {
        reduction,
        ignore_index,
    };
    let loss = graph.add(nll, &[p, labels], &scope).unwrap();
    let numbers: Vec<f64> = (0..12_u32)
        .map(|index| f64::from(index * 5 % 7) * 0.4)
        .collect();
    let inputs = Inputs::from([(logits, numbers.into()), (labels, vec![2_u32, 0, 3].into())]);
    (graph, loss, inputs)
}

/// Losses of samples, weighted and summed.
#[test]
fn samples_of_a_loss_have_weights() {
    let (mut graph, losses, mut inputs) = classifier(None, Some(0));
    let scope = Scope::named("weights");
    let weights = graph.stream("weights", DType::F32, Shape::from([3]));
    inputs.insert(weights, vec![0.5, 2.0, -3.0].into());
    let weighted = OpKind::Binary(BinaryFn::Mul);
    let weighted = graph.add(weighted, &[losses, weights], &scope).unwrap();
    let sum = OpKind::ReduceSum {
        axes: smallvec![0],
        keep_dims: false,
    };
    let loss = graph.add(sum, &[weighted], &scope).unwrap();
    check_differences(&graph, loss, &[TensorId(0)], &inputs);
}

/// The mask is made after the scores, but they don't learn by it.
#[test]
fn no_gradient_flows_through_a_mask_of_pairs() {
    let mut graph = Graph::default();
    let scope = Scope::named("scores");
    let scores = graph.variable("scores", DType::F32, Shape::from([1, 2, 3, 3]), None);
    let numbers = graph.stream("numbers", DType::U32, Shape::from([1, 3]));
    let mask = graph
        .add(OpKind::AttentionMask, &[numbers, scores], &scope)
        .unwrap();
    let masked = OpKind::Binary(BinaryFn::Add);
    let masked = graph.add(masked, &[scores, mask], &scope).unwrap();
    let sum = OpKind::ReduceSum {
        axes: smallvec![0, 1, 2, 3],
        keep_dims: false,
    };
    let loss = graph.add(sum, &[masked], &scope).unwrap();
    backward(&mut graph, loss, 1.0, &[scores]).unwrap();
    let kinds: Vec<&str> = graph.ops.values().map(|op| op.kind.name()).collect();
    // Over the heads, nothing is summed for the mask.
    assert_eq!(
        kinds,
        [
            "attention_mask",
            "add",
            "reduce_sum",
            "reshape",
            "broadcast"
        ]
    );
}

#[test]
fn losses_of_softmax_are_fused() {
    for &reduction in Reduction::ALL {
        for ignore_index in [None, Some(0)] {
            let (mut graph, loss, inputs) = classifier(Some(reduction), ignore_index);
            let logits = TensorId(0);
            check_differences(&graph, loss, &[logits], &inputs);
            backward(&mut graph, loss, 1.0, &[logits]).unwrap();
            let kinds: Vec<&str> = graph.ops.values().map(|op| op.kind.name()).collect();
            assert_eq!(kinds, ["softmax", "nll_loss", "nll_softmax_grad"]);
        }
    }
}

#[test]
fn the_loss_scale_multiplies_gradients() {
    let (mut graph, loss, inputs) = classifier(Some(Reduction::Mean), None);
    let mut scaled = graph.clone();
    let logits = TensorId(0);
    let gradient = |graph: &mut Graph, scale| {
        let id = backward(graph, loss, scale, &[logits]).unwrap()[&logits];
        eval(graph, &inputs, EXACT).unwrap()[id]
            .on(0)
            .as_floats()
            .to_vec()
    };
    let once = gradient(&mut graph, 1.0);
    let times = gradient(&mut scaled, 64.0);
    assert!(
        once.iter()
            .zip(&times)
            .all(|(once, times)| once * 64.0 == *times)
    );
}

/// A probability used twice: by its loss, past the softmax, and by something else.
#[test]
fn a_fused_loss_and_another_use_add_up() {
    let (mut graph, loss, inputs) = classifier(Some(Reduction::Sum), None);
    let p = graph.ops[OpId(0)].outputs[0];
    let other = weighted_sum(&mut graph, p);
    let add = OpKind::Binary(BinaryFn::Add);
    let total = graph
        .add(add, &[loss, other], &Scope::named("total"))
        .unwrap();
    check_differences(&graph, total, &[TensorId(0)], &inputs);
}

/// One table, stored transposed: looked up, and projected with.
fn tied_embedding() -> (Graph, TensorId, TensorId, Inputs) {
    let mut graph = Graph::default();
    let scope = |stage: u32| Scope {
        stage: Some(StageId(stage)),
        ..Scope::named("Embedding")
    };
    let table = graph.variable("table", DType::F32, Shape::from([2, 4]), None);
    let indices = graph.stream("indices", DType::U32, Shape::from([3]));
    let perm = smallvec![1, 0];
    let rows = graph
        .add(OpKind::Transpose { perm }, &[table], &scope(0))
        .unwrap();
    let x = graph
        .add(OpKind::Gather { first_row: 0 }, &[rows, indices], &scope(0))
        .unwrap();
    let x = graph
        .add(OpKind::Unary(UnaryFn::Gelu), &[x], &scope(1))
        .unwrap();
    let product = matmul(MatMulPass::TrainingFwd);
    let logits = graph.add(product, &[x, table], &scope(2)).unwrap();
    let p = graph.add(OpKind::Softmax, &[logits], &scope(2)).unwrap();
    let loss = OpKind::NllLoss {
        reduction: Some(Reduction::Mean),
        ignore_index: None,
    };
    let loss = graph.add(loss, &[p, indices], &scope(2)).unwrap();
    let numbers: Vec<f64> = (0..8_u32)
        .map(|index| f64::from(index * 5 % 7) * 0.3 - 0.7)
        .collect();
    let inputs = Inputs::from([(table, numbers.into()), (indices, vec![1_u32, 3, 1].into())]);
    (graph, loss, table, inputs)
}

#[test]
fn a_tied_embedding_sums_both_uses() {
    let (graph, loss, table, inputs) = tied_embedding();
    check_differences(&graph, loss, &[table], &inputs);
}

#[test]
fn backward_operations_mirror_the_forward_ones() {
    let (mut graph, loss, table, _) = tied_embedding();
    let n_forward = graph.ops.len();
    let gradient = backward(&mut graph, loss, 1.0, &[table]).unwrap()[&table];
    let backward_ops: Vec<String> = graph
        .ops
        .values()
        .skip(n_forward)
        .map(|op| {
            assert_eq!((op.phase, op.name.as_str()), (Phase::Backward, "Embedding"));
            let pass = match op.kind {
                OpKind::MatMul { pass, .. } => pass.name(),
                _ => "",
            };
            let stage = op.stage.map_or(String::new(), |stage| stage.to_string());
            format!("{stage} {} {pass}", op.kind.name())
                .trim()
                .to_owned()
        })
        .collect();
    assert_eq!(
        backward_ops,
        [
            "stage2 nll_softmax_grad",
            "stage2 transpose",
            "stage2 matmul training_bwd",
            "stage2 transpose",
            "stage2 matmul training_wu",
            "stage3 gelu_grad",
            "stage4 gather_grad",
            "stage4 transpose",
            "stage4 add",
        ]
    );
    assert_eq!(graph.producers()[gradient], Some(OpId(14)));
}

#[test]
fn detach_stops_gradients() {
    let mut graph = Graph::default();
    let scope = Scope::named("f");
    let x = graph.variable("x", DType::F32, Shape::scalar(), None);
    let stopped = graph.add(OpKind::Detach, &[x], &scope).unwrap();
    let product = graph
        .add(OpKind::Binary(BinaryFn::Mul), &[x, stopped], &scope)
        .unwrap();
    let inputs = Inputs::from([(x, vec![3.0].into())]);
    let only_stopped = graph.add(OpKind::Identity, &[stopped], &scope).unwrap();
    let unchanged = graph.clone();
    let error = backward(&mut graph, only_stopped, 1.0, &[x]).unwrap_err();
    assert_eq!(error.to_string(), "the loss doesn't depend on %0 `x`");
    assert_eq!(graph, unchanged);
    let gradient = backward(&mut graph, product, 1.0, &[x]).unwrap()[&x];
    assert_eq!(number(&graph, &inputs, gradient), 3.0);
}

#[test]
fn what_has_no_gradient_is_named() {
    let mut graph = Graph::default();
    let scope = Scope::named("f");
    let x = graph.variable("x", DType::F32, Shape::from([1, 2]), None);
    let labels = graph.stream("labels", DType::U32, Shape::from([1]));
    let loss = OpKind::NllLoss {
        reduction: Some(Reduction::Sum),
        ignore_index: None,
    };
    let loss = graph.add(loss, &[x, labels], &scope).unwrap();
    let error = backward(&mut graph, loss, 1.0, &[x]).unwrap_err();
    assert_eq!(error.to_string(), "nll_loss `f`: no gradient is defined");
    let error = backward(&mut graph, x, 1.0, &[x]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "loss %0 `x` has type f32[1,2], expected one float"
    );
}

proptest! {
    /// With a smooth function in the place of the one with a kink.
    #[test]
    fn random_graphs_agree_with_differences(graph in graphs(), seed in 0..9_u32) {
        let mut graph = graph;
        for op in graph.ops.values_mut() {
            if op.kind == OpKind::Unary(UnaryFn::Relu) {
                op.kind = OpKind::Unary(UnaryFn::Tanh);
            }
            op.stage = None;
        }
        let Some(&last) = graph.outputs.last() else { return Ok(()) };
        let loss = weighted_sum(&mut graph, last);
        let inputs = sample_inputs(&graph, seed);
        let wanted: Vec<TensorId> = graph
            .tensors
            .iter()
            .filter(|(_, tensor)| tensor.dtype != DType::U32)
            .filter(|(_, tensor)| matches!(tensor.kind, TensorKind::Variable { .. } | TensorKind::Stream))
            .map(|(id, _)| id)
            .filter(|&id| backward(&mut graph.clone(), loss, 1.0, &[id]).is_ok())
            .collect();
        if number(&graph, &inputs, loss).abs() < 1e3 {
            check_differences(&graph, loss, &wanted, &inputs);
        }
    }
}

/// `x` times three columns of a weight side by side, or thirds of `x` times rows of it, added.
fn in_pieces(columns: bool, piece: Piece) -> (Graph, TensorId, TensorId) {
    let kind = OpKind::MatMul {
        pass: MatMulPass::TrainingFwd,
        available_memory_proportion: crate::ir::MemoryProportion::POPLIBS_DEFAULT,
        partials: crate::ir::Partials::Float,
        piece,
    };
    let mut graph = Graph::default();
    let at = Scope::named("f");
    let x = graph.variable("x", DType::F16, Shape::from([1, 3]), None);
    let shape = if columns { [3, 1] } else { [1, 2] };
    let weights =
        ["w0", "w1", "w2"].map(|name| graph.variable(name, DType::F16, shape.into(), None));
    let mut results = Vec::new();
    for (number, weight) in (0..).zip(weights) {
        let slice = OpKind::Slice {
            axis: 1,
            begin: number,
            end: number + 1,
        };
        let x = match columns {
            true => x,
            false => graph.add(slice, &[x], &at).unwrap(),
        };
        results.push(graph.add(kind.clone(), &[x, weight], &at).unwrap());
    }
    let mut y = match columns {
        true => {
            let side_by_side = OpKind::Concat { axis: 1 };
            graph.add(side_by_side, &results, &at).unwrap()
        }
        false => {
            let add = |sum, &y| {
                let kind = OpKind::Binary(BinaryFn::Add);
                graph.add(kind, &[sum, y], &at).unwrap()
            };
            results[1..].iter().fold(results[0], add)
        }
    };
    if piece == Piece::Addend {
        y = graph
            .add(OpKind::Cast { to: DType::F16 }, &[y], &at)
            .unwrap();
    }
    let axes = smallvec![0, 1];
    let kind = OpKind::ReduceSum {
        axes,
        keep_dims: false,
    };
    let loss = graph.add(kind, &[y], &at).unwrap();
    graph.outputs.push(loss);
    (graph, x, loss)
}

/// The types of the results of all products, sums of two and casts behind the forward pass.
fn backward_types(graph: &Graph, n_forward: usize) -> Vec<String> {
    let ops = graph.ops.values().skip(n_forward);
    let line =
        |op: &crate::ir::Op| format!("{} {}", op.kind.name(), graph.tensors[op.outputs[0]].ty());
    ops.map(line)
        .filter(|line| {
            ["matmul", "add", "cast"]
                .iter()
                .any(|word| line.starts_with(word))
        })
        .collect()
}

#[test]
fn addends_of_serialised_products_are_summed_in_f32() {
    let backward_of = |columns, piece| {
        let (mut graph, x, loss) = in_pieces(columns, piece);
        let n_forward = graph.ops.len();
        backward(&mut graph, loss, 1.0, &[x]).unwrap();
        verify(&graph, Form::Logical).unwrap();
        backward_types(&graph, n_forward)
    };
    let f16 = [["matmul f16[1,3]"; 3].as_slice(), &["add f16[1,3]"; 2]].concat();
    assert_eq!(backward_of(true, Piece::Whole), f16);
    let kept = [
        ["matmul f32[1,3]"; 3].as_slice(),
        &["add f32[1,3]"; 2],
        &["cast f16[1,3]"],
    ];
    assert_eq!(backward_of(true, Piece::Columns), kept.concat());
    // The sum's gradient is cast with it, which nobody reads: the products' gradients are made of
    // what it was before, and are parts of `x`, not addends.
    let of_rows = [
        ["cast f32[1,2]"].as_slice(),
        &["matmul f16[1,1]"; 3],
        &["add f16[1,3]"; 2],
    ];
    assert_eq!(backward_of(false, Piece::Addend), of_rows.concat());
}

/// 2048, 1 and 1: above 2048, f16 counts in twos, and a sum half-way between goes to the even one.
#[test]
fn addends_keep_what_f16_would_lose() {
    let rounded = EvalOptions {
        round_to_dtype: true,
        replicas: 1,
    };
    let sum_of = |columns, piece| {
        let (mut graph, x, loss) = in_pieces(columns, piece);
        let y = graph.ops.values().last().unwrap().inputs[0];
        let gradient = backward(&mut graph, loss, 1.0, &[x]).unwrap()[&x];
        let variables = graph.tensors.iter().filter_map(|(id, tensor)| {
            let value = match tensor.name.as_str() {
                "x" => vec![1.0; 3],
                // Gradients are added from the last piece on.
                "w2" if columns => vec![2048.0, 0.0, 0.0],
                _ if columns => vec![1.0, 0.0, 0.0],
                "w0" => vec![2048.0, 0.0],
                _ => vec![1.0, 0.0],
            };
            let is_variable = matches!(tensor.kind, TensorKind::Variable { .. });
            is_variable.then(|| (id, value.into()))
        });
        let inputs: Inputs = variables.collect();
        let values = eval(&graph, &inputs, rounded).unwrap();
        let read = if columns { gradient } else { y };
        values[read].on(0).as_floats()[0]
    };
    assert_eq!(sum_of(false, Piece::Addend), 2050.0);
    assert_eq!(sum_of(false, Piece::Whole), 2048.0);
    assert_eq!(sum_of(true, Piece::Columns), 2050.0);
    assert_eq!(sum_of(true, Piece::Whole), 2048.0);
}

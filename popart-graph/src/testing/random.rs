//! Random valid graphs.
//!
//! They come from a list of choices, one for each step, so that a failure shrinks
//! by dropping steps. Operands are taken from what is there where something fits,
//! else a new tensor is made, so that every step applies.

use ipu_sim::ids::IpuId;
use ipu_sim::numerics::DType;
use proptest::prelude::*;
use smallvec::smallvec;

use super::matmul;
use crate::ir::{
    BinaryFn, Constant, Graph, Init, MatMulPass, OpKind, Part, PartId, PartKind, Phase, Purpose,
    Recompute, Scope, Shape, StageId, TensorId, TensorKind, TensorType, UnaryFn,
};

/// What one step of the generator decides.
#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    operand: u8,
    detail: u8,
    place: u8,
}

/// Random graphs that keep the rules of `Form::Logical`, forward operations only.
/// Evaluated on small whole numbers, many of their values are exact.
pub(crate) fn graphs() -> impl Strategy<Value = Graph> {
    let step = any::<[u8; 4]>().prop_map(|[kind, operand, detail, place]| Step {
        kind,
        operand,
        detail,
        place,
    });
    prop::collection::vec(step, 0..16).prop_map(|steps| {
        let mut graph = Graph::default();
        graph.stream("seed", DType::U32, Shape::from([2]));
        graph.stream("indices", DType::U32, Shape::from([3]));
        graph.stream("x", DType::F32, Shape::from([3, 4]));
        for step in &steps {
            add_step(&mut graph, step);
        }
        let consumers = graph.consumers();
        graph.outputs = graph
            .tensors
            .ids()
            .filter(|&id| {
                consumers[id].is_empty() && graph.tensors[id].kind == TensorKind::Activation
            })
            .collect();
        graph
    })
}

/// The `choice`-th, counted round, of the tensors that fit.
fn choose(graph: &Graph, choice: u8, fits: impl Fn(&TensorType) -> bool) -> Option<TensorId> {
    let found: Vec<TensorId> = graph
        .tensors
        .iter()
        .filter(|(_, tensor)| fits(&tensor.ty()))
        .map(|(id, _)| id)
        .collect();
    found.get(choice as usize % found.len().max(1)).copied()
}

/// A tensor of that type: one that is there, or a new variable or constant.
fn of_type(graph: &mut Graph, step: &Step, dtype: DType, shape: Shape) -> TensorId {
    let wanted = TensorType::new(dtype, shape);
    if let Some(found) = choose(graph, step.detail, |ty| *ty == wanted) {
        return found;
    }
    let value = f64::from(step.detail % 5) - 2.0;
    if step.place.is_multiple_of(2) {
        let init = Some(Init::Splat(value));
        graph.variable("made \"up\"", dtype, wanted.shape, init)
    } else {
        graph.constant("constant", dtype, wanted.shape, Constant::Splat(value))
    }
}

fn add_step(graph: &mut Graph, step: &Step) {
    let is_float = |ty: &TensorType| ty.dtype != DType::U32;
    let float = choose(graph, step.operand, is_float).expect("x is a float");
    let ty = graph.tensors[float].ty();
    let (kind, inputs) = match step.kind % 5 {
        0 => elementwise_step(graph, step, float, &ty),
        1 => view_step(graph, step, float, &ty),
        2 => row_step(graph, step, float, &ty),
        3 => matmul_step(graph, step, float, &ty),
        _ => seeded_step(graph, step, float),
    };
    let stage = inputs
        .iter()
        .filter_map(|&input| graph.producers()[input])
        .filter_map(|op| graph.ops[op].stage)
        .max()
        .map_or(0, |stage| stage.0)
        + u32::from(step.place % 4 == 3);
    let scope = Scope {
        name: format!("Layer{}/step", step.place % 3),
        ipu: (step.place % 8 < 6).then_some(IpuId(stage)),
        stage: Some(StageId(stage)),
        part: part(graph, step),
        phase: Phase::Forward,
        recompute: Recompute::ALL[usize::from(step.place / 128)],
        purpose: Purpose::ALL[usize::from(step.place % 4)],
    };
    graph
        .add_op(kind, &inputs, &scope)
        .expect("the step fits its operands");
}

/// The part that a step belongs to: none, a layer, or a part of it.
fn part(graph: &mut Graph, step: &Step) -> Option<PartId> {
    let layer = Part {
        kind: PartKind::Repeated,
        ..Part::single(&format!("Layer{}", step.place % 3))
    };
    let choice = step.detail % 3;
    let layer = (choice > 0).then(|| graph.parts.add(layer))?;
    Some(match choice {
        1 => layer,
        _ => graph.parts.add(Part {
            within: Some(layer),
            ..Part::single("Half")
        }),
    })
}

fn elementwise_step(
    graph: &mut Graph,
    step: &Step,
    x: TensorId,
    ty: &TensorType,
) -> (OpKind, Vec<TensorId>) {
    match step.detail % 8 {
        0..=2 => {
            let function = [BinaryFn::Add, BinaryFn::Sub, BinaryFn::Mul][step.detail as usize % 8];
            let shape = match (step.place % 3, ty.shape.rank()) {
                (0, rank) if rank > 0 => Shape::from(&ty.shape.dims()[1..]),
                (1, rank) if rank > 0 => ty.shape.with(0, 1),
                _ => ty.shape.clone(),
            };
            let other = of_type(graph, step, ty.dtype, shape);
            (OpKind::Binary(function), vec![x, other])
        }
        3 => (OpKind::Scale { factor: 0.5 }, vec![x]),
        4 => (OpKind::Unary(UnaryFn::Relu), vec![x]),
        5 => (OpKind::Unary(UnaryFn::Gelu), vec![x]),
        6 => (OpKind::Cast { to: DType::F32 }, vec![x]),
        _ => (OpKind::Unary(UnaryFn::Neg), vec![x]),
    }
}

fn view_step(
    graph: &mut Graph,
    step: &Step,
    x: TensorId,
    ty: &TensorType,
) -> (OpKind, Vec<TensorId>) {
    let rank = ty.shape.rank() as u32;
    if rank == 0 {
        let shape = Shape::from([2, 3]);
        return (OpKind::Broadcast { shape }, vec![x]);
    }
    let axis = u32::from(step.operand) % rank;
    let size = ty.shape.dims()[axis as usize];
    match step.detail % 6 {
        0 => {
            let shape = Shape::from([ty.shape.elements().0 as u32]);
            (OpKind::Reshape { shape }, vec![x])
        }
        1 => {
            let perm = (0..rank).rev().collect();
            (OpKind::Transpose { perm }, vec![x])
        }
        2 => {
            let begin = u32::from(step.place) % size;
            let end = size;
            (OpKind::Slice { axis, begin, end }, vec![x])
        }
        3 => {
            let other = of_type(graph, step, ty.dtype, ty.shape.clone());
            (OpKind::Concat { axis }, vec![x, other])
        }
        4 => {
            let (before, after) = (1, u32::from(step.place) % 2);
            (
                OpKind::Pad {
                    axis,
                    before,
                    after,
                },
                vec![x],
            )
        }
        _ => {
            let keep_dims = step.place.is_multiple_of(2);
            let axes = smallvec![axis];
            (OpKind::ReduceSum { axes, keep_dims }, vec![x])
        }
    }
}

fn row_step(
    graph: &mut Graph,
    step: &Step,
    x: TensorId,
    ty: &TensorType,
) -> (OpKind, Vec<TensorId>) {
    let &[rows, columns] = ty.shape.dims() else {
        return (OpKind::Softmax, vec![x]);
    };
    match step.detail % 4 {
        0 => (OpKind::Softmax, vec![x]),
        1 => {
            let gamma = of_type(graph, step, ty.dtype, Shape::from([columns]));
            let beta = of_type(graph, step, ty.dtype, Shape::from([columns]));
            // Large, for rows of equal numbers are common here, and a chain of norms would
            // multiply the rounding errors of their variance by 1 / sqrt(epsilon) each.
            let epsilon = 0.25;
            (OpKind::LayerNorm { epsilon }, vec![x, gamma, beta])
        }
        2 => {
            let indices = of_type(graph, step, DType::U32, Shape::from([3]));
            (OpKind::Gather { first_row: 0 }, vec![x, indices])
        }
        _ => {
            let indices = graph.stream("rows", DType::U32, Shape::from([rows]));
            let (first_row, rows) = (1, 4);
            (OpKind::GatherGrad { first_row, rows }, vec![x, indices])
        }
    }
}

fn matmul_step(
    graph: &mut Graph,
    step: &Step,
    x: TensorId,
    ty: &TensorType,
) -> (OpKind, Vec<TensorId>) {
    let [batch @ .., _, inner] = ty.shape.dims() else {
        return (OpKind::Identity, vec![x]);
    };
    let columns = u32::from(step.detail) % 4 + 1;
    let shape: Shape = batch.iter().copied().chain([*inner, columns]).collect();
    let weight = of_type(graph, step, ty.dtype, shape);
    (matmul(MatMulPass::TrainingFwd), vec![x, weight])
}

fn seeded_step(graph: &mut Graph, step: &Step, x: TensorId) -> (OpKind, Vec<TensorId>) {
    let seed = of_type(graph, step, DType::U32, Shape::from([2]));
    let (probability, id) = (0.5, u32::from(step.detail));
    (OpKind::Dropout { probability, id }, vec![x, seed])
}

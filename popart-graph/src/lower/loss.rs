//! Negative log-likelihood after softmax, its gradient, and accuracy.
//!
//! Source: PopART `willow/src/popx/op/nllx.cpp`: the probability of the label is picked by
//! a one-hot product and a reduction; the gradient of both operations together is the
//! probabilities less the one-hot labels.

use ipu_sim::numerics::DType;
use ipu_sim::vertex::{BinaryFn, MapOp, ReduceOp};

use super::builder::Reduction;
use super::ctx::{Ctx, label_of};
use super::value::Value;
use crate::ir;

/// Least probability whose logarithm is taken, by element type.
fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 6.104e-5,
        DType::F32 | DType::U32 => 1.0e-7,
    }
}

/// A loss and what it is computed from.
pub(crate) struct Loss<'a> {
    /// `[n, classes]`.
    pub(crate) probabilities: &'a Value,
    /// `[n]`.
    pub(crate) labels: &'a Value,
    /// `None` keeps the loss of every row.
    pub(crate) reduction: Option<ir::Reduction>,
    pub(crate) ignore: Option<u32>,
}

/// The probability of each row's label, `[n]` in f32.
fn picked(ctx: &mut Ctx<'_>, probabilities: &Value, labels: &Value, name: &str) -> Value {
    let n = labels.shape()[0];
    let column = ctx.builder.reshape(labels, &[n, 1]);
    let pick = MapOp::Pick {
        class: label_of(probabilities, 1),
    };
    let dtype = probabilities.dtype;
    let only = ctx
        .builder
        .map_at(pick, &[&column, probabilities], 1, dtype, name);
    ctx.builder.sum(&only, &[1], DType::F32, name)
}

/// 1 for each row that counts, `[n]` in f32.
fn counts(ctx: &mut Ctx<'_>, labels: &Value, ignore: Option<u32>, name: &str) -> Value {
    ctx.builder
        .map(MapOp::Counts { ignore }, &[labels], DType::F32, name)
}

/// The number of rows that count, at least 1: a scalar.
fn counted(ctx: &mut Ctx<'_>, labels: &Value, ignore: Option<u32>, name: &str) -> Value {
    let ones = counts(ctx, labels, ignore, name);
    let total = ctx.builder.sum(&ones, &[0], DType::F32, name);
    // Adding -1, clamping at 0 and adding 1 again, in one step of the scalar.
    let floor = ctx
        .builder
        .map(MapOp::Scale { factor: 0.0 }, &[&total], DType::F32, name);
    let one = ctx
        .builder
        .map_in_place(MapOp::Unary(ipu_sim::vertex::UnaryFn::Exp), &[&floor], 0);
    ctx.builder
        .map_in_place(MapOp::Binary(BinaryFn::Max), &[&total, &one], 0)
}

pub(crate) fn nll(
    ctx: &mut Ctx<'_>,
    probabilities: &Value,
    labels: &Value,
    reduction: Option<ir::Reduction>,
    ignore: Option<u32>,
    name: &str,
) -> Value {
    let probabilities = ctx.labelled(probabilities);
    let rows = picked(ctx, &probabilities, labels, name);
    let log = MapOp::ClampedLog {
        epsilon: epsilon(probabilities.dtype),
        factor: -1.0,
    };
    let rows = ctx.builder.map_in_place(log, &[&rows], 0);
    let ones = counts(ctx, labels, ignore, name);
    let rows = ctx
        .builder
        .map_in_place(MapOp::Binary(BinaryFn::Mul), &[&rows, &ones], 0);
    let Some(reduction) = reduction else {
        return rows;
    };
    let total = ctx.builder.sum(&rows, &[0], DType::F32, name);
    match reduction {
        ir::Reduction::Sum => total,
        ir::Reduction::Mean => {
            let counted = counted(ctx, labels, ignore, name);
            ctx.builder
                .map_in_place(MapOp::Binary(BinaryFn::Div), &[&total, &counted], 0)
        }
    }
}

pub(crate) fn nll_softmax_grad(
    ctx: &mut Ctx<'_>,
    loss: &Loss<'_>,
    dloss: &Value,
    name: &str,
) -> Value {
    let probabilities = ctx.labelled(loss.probabilities);
    let n = loss.labels.shape()[0];
    let scale = match loss.reduction {
        None => ctx.builder.reshape(dloss, &[n, 1]),
        Some(ir::Reduction::Sum) => dloss.clone(),
        Some(ir::Reduction::Mean) => {
            let counted = counted(ctx, loss.labels, loss.ignore, name);
            ctx.builder.map(
                MapOp::Binary(BinaryFn::Div),
                &[dloss, &counted],
                DType::F32,
                name,
            )
        }
    };
    let column = ctx.builder.reshape(loss.labels, &[n, 1]);
    let gradient = MapOp::SoftmaxNllGrad {
        class: label_of(&probabilities, 1),
        ignore: loss.ignore,
    };
    let dtype = probabilities.dtype;
    ctx.builder
        .map(gradient, &[&probabilities, &column, &scale], dtype, name)
}

/// `[correct, counted]`; of equal largest probabilities the first is the prediction.
pub(crate) fn accuracy(
    ctx: &mut Ctx<'_>,
    probabilities: &Value,
    labels: &Value,
    weights: Option<&Value>,
    ignore: Option<u32>,
    name: &str,
) -> Value {
    let probabilities = ctx.labelled(probabilities);
    let n = labels.shape()[0];
    let max = Reduction {
        op: ReduceOp::Max,
        scale: 1.0,
        dtype: DType::F32,
    };
    let largest = ctx.builder.reduce_one(&probabilities, max, &[1], name);
    let largest = ctx.builder.reshape(&largest, &[n, 1]);
    let index = MapOp::MinusIndex {
        class: label_of(&probabilities, 1),
    };
    let places = ctx
        .builder
        .map(index, &[&probabilities, &largest], DType::F32, name);
    let predicted = ctx.builder.reduce_one(&places, max, &[1], name);
    let wanted = ctx
        .builder
        .map(MapOp::Scale { factor: -1.0 }, &[labels], DType::F32, name);
    let equal = MapOp::Binary(BinaryFn::Equal);
    let correct = ctx.builder.map_in_place(equal, &[&predicted, &wanted], 0);
    let mut ones = counts(ctx, labels, ignore, name);
    if let Some(weights) = weights {
        let weighted = counts(ctx, weights, Some(0), name);
        let multiply = MapOp::Binary(BinaryFn::Mul);
        ones = ctx.builder.map_in_place(multiply, &[&ones, &weighted], 0);
    }
    let correct = ctx
        .builder
        .map_in_place(MapOp::Binary(BinaryFn::Mul), &[&correct, &ones], 0);
    let correct = ctx.builder.sum(&correct, &[0], DType::F32, name);
    let attempted = ctx.builder.sum(&ones, &[0], DType::F32, name);
    let correct = ctx.builder.reshape(&correct, &[1]);
    let attempted = ctx.builder.reshape(&attempted, &[1]);
    ctx.builder.concat(&[&correct, &attempted], 0)
}

//! Softmax and layer norm as the element-wise passes and reductions that popnn makes of them.
//!
//! Sources: PopLibs `lib/popnn/NonLinearity.cpp` (softmax, stable form) and
//! `lib/popnn/NormsInternal.cpp`, `lib/popnn/GroupNorm.cpp` (one group: layer norm).
//! Every pass is a compute set of its own.

use ipu_sim::numerics::DType;
use ipu_sim::vertex::{BinaryFn, MapOp, ReduceOp, UnaryFn};

use super::builder::Reduction;
use super::ctx::Ctx;
use super::value::Value;

const ADD: MapOp = MapOp::Binary(BinaryFn::Add);
const SUB: MapOp = MapOp::Binary(BinaryFn::Sub);
const MUL: MapOp = MapOp::Binary(BinaryFn::Mul);

/// A reduced value with its lost last axis back, of one index.
fn column(ctx: &mut Ctx<'_>, value: &Value) -> Value {
    let mut shape = value.shape();
    shape.push(1);
    ctx.builder.reshape(value, &shape)
}

/// A scalar as a row of one element; anything else as it is.
fn row(ctx: &mut Ctx<'_>, value: &Value) -> Value {
    match value.shape().as_slice() {
        [] => ctx.builder.reshape(value, &[1]),
        _ => value.clone(),
    }
}

pub(crate) fn softmax(ctx: &mut Ctx<'_>, x: &Value, name: &str) -> Value {
    let x = &row(ctx, x);
    let last = x.shape().len() - 1;
    let largest = Reduction {
        op: ReduceOp::Max,
        scale: 1.0,
        dtype: x.dtype,
    };
    let largest = ctx.builder.reduce_one(x, largest, &[last], name);
    let largest = column(ctx, &largest);
    let y = ctx.builder.map(SUB, &[x, &largest], x.dtype, name);
    let y = ctx
        .builder
        .map_in_place(MapOp::Unary(UnaryFn::Exp), &[&y], 0);
    let total = ctx.builder.sum(&y, &[last], DType::F32, name);
    let inverse = ctx
        .builder
        .map_in_place(MapOp::Unary(UnaryFn::Reciprocal), &[&total], 0);
    let inverse = if x.dtype == DType::F32 {
        inverse
    } else {
        ctx.builder.map(MapOp::Cast, &[&inverse], x.dtype, name)
    };
    let inverse = column(ctx, &inverse);
    ctx.builder.map_in_place(MUL, &[&y, &inverse], 0)
}

pub(crate) fn softmax_grad(ctx: &mut Ctx<'_>, y: &Value, dy: &Value, name: &str) -> Value {
    let (y, dy) = (&row(ctx, y), &row(ctx, dy));
    let last = y.shape().len() - 1;
    let dx = ctx.builder.map(MUL, &[y, dy], y.dtype, name);
    let total = ctx.builder.sum(&dx, &[last], y.dtype, name);
    let total = column(ctx, &total);
    let share = ctx.builder.map(MUL, &[y, &total], y.dtype, name);
    ctx.builder.map_in_place(SUB, &[&dx, &share], 0)
}

/// `x, gamma, beta -> y, mean, inverse standard deviation`.
pub(crate) fn layer_norm(
    ctx: &mut Ctx<'_>,
    [x, gamma, beta]: [&Value; 3],
    epsilon: f64,
    name: &str,
) -> [Value; 3] {
    let scale = 1.0 / f64::from(x.shape()[1]);
    let moment = |op| Reduction {
        op,
        scale,
        dtype: DType::F32,
    };
    let mut moments = ctx.builder.reduce(
        &[(moment(ReduceOp::Sum), x), (moment(ReduceOp::SquareSum), x)],
        &[1],
        name,
    );
    let power = moments.pop().expect("two reductions have two results");
    let mean = moments.pop().expect("two reductions have two results");
    let inv_std = MapOp::InverseStdDev { epsilon };
    let inv_std = ctx.builder.map_in_place(inv_std, &[&mean, &power], 1);
    let y = whiten(ctx, x, &mean, &inv_std, name);
    let y = ctx.builder.map_in_place(MUL, &[&y, gamma], 0);
    let y = ctx.builder.map_in_place(ADD, &[&y, beta], 0);
    [y, mean, inv_std]
}

fn whiten(ctx: &mut Ctx<'_>, x: &Value, mean: &Value, inv_std: &Value, name: &str) -> Value {
    let (mean, inv_std) = (column(ctx, mean), column(ctx, inv_std));
    let y = ctx.builder.map(SUB, &[x, &mean], x.dtype, name);
    ctx.builder.map_in_place(MUL, &[&y, &inv_std], 0)
}

/// What the forward pass leaves for the gradient.
pub(crate) struct Saved<'a> {
    pub(crate) x: &'a Value,
    pub(crate) gamma: &'a Value,
    pub(crate) mean: &'a Value,
    pub(crate) inv_std: &'a Value,
}

/// Gradients of `x`, `gamma` and `beta`.
pub(crate) fn layer_norm_grad(
    ctx: &mut Ctx<'_>,
    saved: Saved<'_>,
    dy: &Value,
    name: &str,
) -> [Value; 3] {
    let Saved {
        x,
        gamma,
        mean,
        inv_std,
    } = saved;
    let dtype = x.dtype;
    let white = whiten(ctx, x, mean, inv_std, name);
    let dy = ctx.builder.beside(dy, &white);
    let total = |scale, dtype| Reduction {
        op: ReduceOp::Sum,
        scale,
        dtype,
    };
    let product = ctx.builder.map(MUL, &[&white, &dy], dtype, name);
    let parameters = total(1.0, gamma.dtype);
    let mut gradients =
        ctx.builder
            .reduce(&[(parameters, &product), (parameters, &dy)], &[0], name);
    let dbeta = gradients.pop().expect("two reductions have two results");
    let dgamma = gradients.pop().expect("two reductions have two results");
    let g = ctx.builder.map(MUL, &[&dy, gamma], dtype, name);
    let product = ctx.builder.map(MUL, &[&g, &white], dtype, name);
    let average = total(1.0 / f64::from(x.shape()[1]), DType::F32);
    let mut means = ctx
        .builder
        .reduce(&[(average, &g), (average, &product)], &[1], name);
    let along = means.pop().expect("two reductions have two results");
    let offset = means.pop().expect("two reductions have two results");
    let (along, offset) = (column(ctx, &along), column(ctx, &offset));
    let inv_std = column(ctx, inv_std);
    let white = ctx.builder.map_in_place(MUL, &[&white, &along], 0);
    let dx = ctx.builder.map_in_place(SUB, &[&g, &offset], 0);
    let dx = ctx.builder.map_in_place(SUB, &[&dx, &white], 0);
    let dx = ctx.builder.map_in_place(MUL, &[&dx, &inv_std], 0);
    [dx, dgamma, dbeta]
}

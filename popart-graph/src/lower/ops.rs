//! What every operation becomes: one arm each.

use ipu_sim::ids::IpuId;
use ipu_sim::layout::Layout;
use ipu_sim::numerics::DType;
use ipu_sim::program::{CollectiveKind, Label, Operand, Role, VarId, VarKind, VertexGroup};
use ipu_sim::vertex::{self as vertex, MAX_LABELS, MapOp, ReduceOp, Vertex, WorkerSeeds};
use smallvec::SmallVec;

use super::builder::Reduction;
use super::ctx::Ctx;
use super::matmul::matmul;
use super::products::planned;
use super::value::Value;
use super::{gather, loss, movement, norm, stash, state};
use crate::ir::{BinaryFn, MASKED_PAIR_SCORE, MultiKind, Op, OpId, OpKind, OpTag, UnaryFn};
use crate::profile::{Line, LineKind};

/// Lowers an operation and writes results that belong to variables into them.
pub(crate) fn lower_and_commit(ctx: &mut Ctx<'_>, id: OpId) {
    lower(ctx, id);
    stash::own_memory(ctx, id);
    let op = &ctx.graph.ops[id];
    for (result, &tensor) in op.outputs.iter().enumerate() {
        let Some(variable) = ctx.variables.updated_by(tensor) else {
            continue;
        };
        ctx.builder.ipu = op.result_ipu(result).unwrap_or(IpuId(0));
        if state::is_remote(ctx, variable) {
            continue;
        }
        let (value, target) = (ctx.value(tensor), ctx.value(variable));
        if value != target {
            let view = target.single().expect("a variable is one view").clone();
            ctx.builder.copy_to_view(&value, &view);
        }
    }
}

/// Lowers one operation whose operands are all lowered.
fn lower(ctx: &mut Ctx<'_>, id: OpId) {
    let op = &ctx.graph.ops[id];
    ctx.builder.ipu = op.ipu.unwrap_or(IpuId(0));
    let tag = op.kind.tag();
    let line = Line {
        kind: LineKind::Op(tag),
        phase: Some(op.phase),
        part: op.part,
        purpose: op.purpose,
    };
    ctx.builder.source = ctx.builder.line(&op.name, line, role(tag));
    let inputs: SmallVec<[Value; 4]> = match op.kind {
        // What lives in streaming memory has no variable on the device.
        OpKind::RemoteLoad => SmallVec::new(),
        _ => {
            let each = op.inputs.iter().enumerate().map(|(operand, &input)| {
                ctx.builder.ipu = op.operand_ipu(operand).unwrap_or(IpuId(0));
                ctx.value(input)
            });
            each.collect()
        }
    };
    let outputs = results(ctx, id, op, &inputs);
    for (&tensor, value) in op.outputs.iter().zip(outputs) {
        ctx.values[tensor] = Some(value);
    }
}

/// Operations that only make a tensor lie differently compute nothing.
fn role(tag: OpTag) -> Role {
    match tag {
        OpTag::Identity
        | OpTag::Detach
        | OpTag::Reshape
        | OpTag::Transpose
        | OpTag::Slice
        | OpTag::Concat
        | OpTag::Pad
        | OpTag::Broadcast => Role::Layout,
        OpTag::CallInput | OpTag::CallOutput => Role::Call,
        OpTag::Binary(_)
        | OpTag::Unary(_)
        | OpTag::UnaryGrad(_)
        | OpTag::MatMul
        | OpTag::Scale
        | OpTag::Cast
        | OpTag::ReduceSum
        | OpTag::Softmax
        | OpTag::SoftmaxGrad
        | OpTag::LayerNorm
        | OpTag::LayerNormGrad
        | OpTag::Dropout
        | OpTag::Gather
        | OpTag::GatherGrad
        | OpTag::OneHot
        | OpTag::SequenceMask
        | OpTag::AttentionMask
        | OpTag::NllLoss
        | OpTag::NllSoftmaxGrad
        | OpTag::Accuracy
        | OpTag::Accumulate
        | OpTag::SparseAccumulate
        | OpTag::Zero
        | OpTag::AdamMoment
        | OpTag::AdamUpdater
        | OpTag::SquareSum
        | OpTag::AdamUpdate
        | OpTag::LambUpdate
        | OpTag::SgdUpdate
        | OpTag::SgdMomentum
        | OpTag::IpuCopy
        | OpTag::Stash
        | OpTag::Restore
        | OpTag::AllReduce
        | OpTag::ReduceScatter
        | OpTag::AllGather
        | OpTag::LocalSlice
        | OpTag::MultiAllReduce
        | OpTag::MultiReduceScatter
        | OpTag::MultiAllGather
        | OpTag::RemoteLoad
        | OpTag::RemoteStore => Role::Work,
    }
}

fn results(ctx: &mut Ctx<'_>, id: OpId, op: &Op, inputs: &[Value]) -> SmallVec<[Value; 3]> {
    let dtype = ctx.dtype_of(op.outputs[0]);
    let shape: Vec<u32> = ctx.graph.tensors[op.outputs[0]].shape.dims().to_vec();
    let one = |value: Value| -> SmallVec<[Value; 3]> { SmallVec::from_iter([value]) };
    let refs: SmallVec<[&Value; 4]> = inputs.iter().collect();
    let name = op.name.as_str();
    let builder = &mut ctx.builder;
    match &op.kind {
        OpKind::MatMul { .. } => one(lower_matmul(ctx, op, inputs, dtype)),
        OpKind::Binary(f) => one(builder.map(MapOp::Binary(binary(*f)), &refs, dtype, name)),
        OpKind::Scale { factor } => {
            one(builder.map(MapOp::Scale { factor: *factor }, &refs, dtype, name))
        }
        OpKind::Unary(f) => one(builder.map(MapOp::Unary(*f), &refs, dtype, name)),
        OpKind::UnaryGrad(UnaryFn::Exp) => {
            // The derivative of the exponential is its result; the operand is what was kept.
            let result = builder.map(MapOp::Unary(vertex::UnaryFn::Exp), &refs[..1], dtype, name);
            let grad = MapOp::UnaryGrad(vertex::UnaryFn::Exp);
            one(builder.map(grad, &[&result, refs[1]], dtype, name))
        }
        OpKind::UnaryGrad(f) => one(builder.map(MapOp::UnaryGrad(*f), &refs, dtype, name)),
        OpKind::Cast { .. } => one(builder.map(MapOp::Cast, &refs, dtype, name)),
        OpKind::Identity | OpKind::Detach => one(inputs[0].clone()),
        OpKind::Reshape { shape } => one(builder.reshape(&inputs[0], shape.dims())),
        OpKind::Transpose { perm } => {
            let order: Vec<usize> = perm.iter().map(|&axis| axis as usize).collect();
            one(inputs[0].transpose(&order))
        }
        OpKind::Slice { axis, begin, end } => {
            one(builder.slice(&inputs[0], *axis as usize, *begin, *end))
        }
        OpKind::Concat { axis } => one(builder.concat(&refs, *axis as usize)),
        OpKind::Pad { axis, before, .. } => {
            one(pad(ctx, &inputs[0], *axis as usize, *before, &shape, name))
        }
        OpKind::Broadcast { .. } => {
            one(builder.map_to_shape(MapOp::Cast, &refs, &shape, dtype, name))
        }
        OpKind::ReduceSum { axes, .. } => {
            let axes: Vec<usize> = axes.iter().map(|&axis| axis as usize).collect();
            let sum = ctx.builder.sum(&inputs[0], &axes, dtype, name);
            one(ctx.builder.reshape(&sum, &shape))
        }
        OpKind::Softmax => {
            let y = norm::softmax(ctx, &inputs[0], name);
            one(ctx.builder.reshape(&y, &shape))
        }
        OpKind::SoftmaxGrad => {
            let dx = norm::softmax_grad(ctx, &inputs[0], &inputs[1], name);
            one(ctx.builder.reshape(&dx, &shape))
        }
        OpKind::LayerNorm { epsilon } => SmallVec::from(norm::layer_norm(
            ctx,
            [&inputs[0], &inputs[1], &inputs[2]],
            *epsilon,
            name,
        )),
        OpKind::LayerNormGrad => {
            let [x, gamma, mean, inv_std, dy] = [0, 1, 2, 3, 4].map(|index: usize| &inputs[index]);
            SmallVec::from(norm::layer_norm_grad(
                ctx,
                norm::Saved {
                    x,
                    gamma,
                    mean,
                    inv_std,
                },
                dy,
                name,
            ))
        }
        OpKind::Dropout { probability, id } => one(dropout(
            ctx,
            &inputs[0],
            &inputs[1],
            *probability,
            *id,
            name,
        )),
        OpKind::Gather { first_row } => one(gather::gather(
            ctx, &inputs[0], &inputs[1], *first_row, name,
        )),
        OpKind::GatherGrad { first_row, rows } => one(gather::gather_grad(
            ctx, &inputs[0], &inputs[1], *first_row, *rows, name,
        )),
        OpKind::OneHot { .. } => {
            let indices = builder.reshape(&inputs[0], &[shape[0], 1]);
            let class = MapOp::OneHot { class: Label(1) };
            one(builder.map_to_shape(class, &[&indices], &shape, dtype, name))
        }
        OpKind::SequenceMask { mask_tokens, .. } => one(sequence_mask(
            ctx,
            inputs,
            *mask_tokens,
            &shape,
            dtype,
            name,
        )),
        OpKind::AttentionMask => one(attention_mask(ctx, &inputs[0], &shape, dtype, name)),
        OpKind::NllLoss {
            reduction,
            ignore_index,
        } => one(loss::nll(
            ctx,
            &inputs[0],
            &inputs[1],
            *reduction,
            *ignore_index,
            name,
        )),
        OpKind::NllSoftmaxGrad {
            reduction,
            ignore_index,
        } => {
            let [probabilities, labels, dloss] = [0, 1, 2].map(|index: usize| &inputs[index]);
            let loss = loss::Loss {
                probabilities,
                labels,
                reduction: *reduction,
                ignore: *ignore_index,
            };
            one(loss::nll_softmax_grad(ctx, &loss, dloss, name))
        }
        OpKind::Accuracy { ignore_index, .. } => one(loss::accuracy(
            ctx,
            &inputs[0],
            &inputs[1],
            inputs.get(2),
            *ignore_index,
            name,
        )),
        OpKind::Accumulate { factor } => one(in_place(
            ctx,
            op,
            MapOp::ScaledAdd { factor: *factor },
            &refs,
        )),
        OpKind::SparseAccumulate { first_row, factor } => {
            let [accumulator, dy, indices] = [0, 1, 2].map(|index: usize| &inputs[index]);
            one(gather::accumulate(
                ctx,
                accumulator,
                dy,
                indices,
                *first_row,
                *factor,
            ))
        }
        OpKind::Zero => {
            let target = if ctx.replaces(op, 0) {
                inputs[0].clone()
            } else {
                let layout = ctx.builder.spread(&shape, dtype);
                ctx.builder
                    .new_value(name, dtype, layout, VarKind::Activation)
            };
            for part in &target.parts {
                ctx.builder.fill(part.var, 0.0);
            }
            one(target)
        }
        OpKind::AdamMoment { beta, square } => {
            let average = MapOp::MovingAverage {
                factor: *beta,
                square: *square,
            };
            one(in_place(ctx, op, average, &refs))
        }
        OpKind::AdamUpdater {
            epsilon,
            weight_decay,
            bias_correction,
        } => {
            let updater = MapOp::AdamUpdater {
                epsilon: *epsilon,
                decay: *weight_decay,
                correction: bias_correction.map(|correction| (correction.beta1, correction.beta2)),
            };
            one(builder.map(updater, &refs, dtype, name))
        }
        OpKind::SquareSum => {
            let axes: Vec<usize> = (0..inputs[0].shape().len()).collect();
            let reduction = Reduction {
                op: ReduceOp::SquareSum,
                scale: 1.0,
                dtype,
            };
            one(ctx.builder.reduce_one(&inputs[0], reduction, &axes, name))
        }
        OpKind::AdamUpdate => {
            let descend = MapOp::Descend {
                scale: 1.0,
                decay: 0.0,
            };
            one(in_place(ctx, op, descend, &refs))
        }
        OpKind::LambUpdate { max_weight_norm } => {
            let lamb = MapOp::LambUpdate {
                max_weight_norm: *max_weight_norm,
            };
            one(in_place(ctx, op, lamb, &refs))
        }
        OpKind::SgdUpdate {
            scale,
            weight_decay,
        } => {
            let descend = MapOp::Descend {
                scale: *scale,
                decay: *weight_decay,
            };
            one(in_place(ctx, op, descend, &refs))
        }
        OpKind::SgdMomentum {
            momentum,
            weight_decay,
        } => {
            let blend = MapOp::Blend {
                first: *momentum,
                second: *weight_decay,
            };
            one(in_place(ctx, op, blend, &refs))
        }
        OpKind::IpuCopy { to } => one(movement::ipu_copy(ctx, op, &inputs[0], *to)),
        OpKind::Stash { slots } => one(stash::stash(ctx, id, &inputs[0], *slots, name)),
        OpKind::Restore { .. } => one(stash::restore(ctx, id)),
        OpKind::CallInput | OpKind::CallOutput => one(movement::copy_in_place(ctx, op, &inputs[0])),
        OpKind::AllReduce => movement::collective(ctx, CollectiveKind::AllReduce, op, inputs),
        OpKind::ReduceScatter { .. } => {
            movement::collective(ctx, CollectiveKind::ReduceScatter, op, inputs)
        }
        OpKind::LocalSlice { .. } => {
            movement::collective(ctx, CollectiveKind::TakeShard, op, inputs)
        }
        OpKind::AllGather { .. } => {
            movement::collective(ctx, CollectiveKind::AllGather, op, inputs)
        }
        OpKind::Multi { kind, .. } => {
            let kind = match kind {
                MultiKind::AllReduce => CollectiveKind::AllReduce,
                MultiKind::ReduceScatter { .. } => CollectiveKind::ReduceScatter,
                MultiKind::AllGather { .. } => CollectiveKind::AllGather,
            };
            movement::collective(ctx, kind, op, inputs)
        }
        OpKind::RemoteLoad => one(movement::remote_load(ctx, op)),
        OpKind::RemoteStore => {
            movement::remote_store(ctx, op, &inputs[0]);
            one(inputs[0].clone())
        }
    }
}

fn binary(f: BinaryFn) -> vertex::BinaryFn {
    match f {
        BinaryFn::Add => vertex::BinaryFn::Add,
        BinaryFn::Sub => vertex::BinaryFn::Sub,
        BinaryFn::Mul => vertex::BinaryFn::Mul,
        BinaryFn::Div => vertex::BinaryFn::Div,
        BinaryFn::Max => vertex::BinaryFn::Max,
    }
}

/// Over the first operand where that is a variable which takes the result, else beside it.
fn in_place(ctx: &mut Ctx<'_>, op: &Op, map: MapOp, inputs: &[&Value]) -> Value {
    if ctx.replaces(op, 0) || ctx.is_last_use(op, 0) {
        ctx.builder.map_in_place(map, inputs, 0)
    } else {
        let dtype = ctx.dtype_of(op.outputs[0]);
        ctx.builder.map(map, inputs, dtype, &op.name)
    }
}

fn lower_matmul(ctx: &mut Ctx<'_>, op: &Op, inputs: &[Value], dtype: DType) -> Value {
    let planned = planned(ctx, op);
    matmul(
        &mut ctx.builder,
        &planned,
        [&inputs[0], &inputs[1]],
        dtype,
        &op.name,
    )
}

fn pad(
    ctx: &mut Ctx<'_>,
    value: &Value,
    axis: usize,
    before: u32,
    shape: &[u32],
    name: &str,
) -> Value {
    let layout = ctx.builder.spread(shape, value.dtype);
    let var = ctx
        .builder
        .add_var(name, value.dtype, layout, VarKind::Activation);
    ctx.builder.fill(var, 0.0);
    let whole = ctx.builder.value_of(var);
    let extent = value.shape()[axis];
    let window = whole
        .slice(axis, before, before + extent)
        .expect("an axis of a whole variable can be cut anywhere");
    ctx.builder.copy_to_view(value, &window.parts[0]);
    whole
}

/// As `poprand::dropout` does it, with the generators of all workers on all tiles seeded for this
/// operation and put back afterwards.
fn dropout(
    ctx: &mut Ctx<'_>,
    x: &Value,
    seed: &Value,
    probability: f64,
    id: u32,
    name: &str,
) -> Value {
    let seed = own_seed(ctx, seed);
    let seed = ctx.everywhere(&seed, "seed");
    let words = WorkerSeeds::WORDS * ctx.spec().workers;
    let everywhere = Layout::on_every_tile(&[words], ctx.spec().tiles_per_ipu);
    let saved = ctx.builder.part("saved_seeds");
    let saved = ctx
        .builder
        .add_var(&saved, DType::U32, everywhere, VarKind::Temporary);
    worker_seeds(ctx, WorkerSeeds::Save, saved);
    worker_seeds(ctx, WorkerSeeds::Set, seed);
    let x = ctx.labelled(x);
    let view = x.single().expect("labelled values have one part");
    let shape = x.shape();
    let mut strides = [0; MAX_LABELS];
    let mut stride = 1;
    for axis in (0..shape.len()).rev() {
        if let Some(digit) = view.shape.axes[axis].first() {
            strides[usize::from(digit.axis)] = stride;
        }
        stride *= u64::from(shape[axis]);
    }
    let op = MapOp::Dropout {
        probability,
        id,
        strides,
    };
    let whole = Operand {
        var: seed,
        labels: SmallVec::from_iter([Label::WHOLE]),
    };
    let masked = ctx.builder.map_with(op, &[&x], &[whole], x.dtype, name);
    worker_seeds(ctx, WorkerSeeds::Restore, saved);
    masked
}

/// The seed of one operation. PopART adds the operation's number to the seed and hashes the sum,
/// on tiles of their own (`ModifyRandomSeed`); here the mask takes the number, and vertices copy
/// the seed in its place.
fn own_seed(ctx: &mut Ctx<'_>, seed: &Value) -> Value {
    let n_tiles = ctx.spec().tiles_per_ipu;
    let mut seed = seed.clone();
    for (what, tile) in [("seed_sum", 1), ("seed_hash", 2)] {
        let layout = Layout {
            first_tile: tile % n_tiles,
            ..Layout::on_every_tile(&seed.shape(), 1)
        };
        let arrived = ctx.builder.part(what);
        let arrived = ctx.builder.materialise(&seed, &layout, &arrived);
        let own = ctx.builder.part(what);
        let own = ctx
            .builder
            .add_var(&own, seed.dtype, layout, VarKind::Temporary);
        ctx.builder.emit_compute(vec![VertexGroup {
            vertex: Vertex::Copy,
            output: Operand::new(own, &[0]),
            inputs: SmallVec::from_iter([Operand::new(arrived, &[0])]),
        }]);
        seed = ctx.builder.value_of(own);
    }
    seed
}

fn worker_seeds(ctx: &mut Ctx<'_>, step: WorkerSeeds, var: VarId) {
    let operand = Operand::new(var, &[0]);
    let inputs = match step {
        WorkerSeeds::Save => SmallVec::new(),
        WorkerSeeds::Set | WorkerSeeds::Restore => SmallVec::from_iter([operand.clone()]),
    };
    ctx.builder.emit_compute(vec![VertexGroup {
        vertex: Vertex::WorkerSeeds(step),
        output: operand,
        inputs,
    }]);
}

fn sequence_mask(
    ctx: &mut Ctx<'_>,
    inputs: &[Value],
    mask_tokens: Option<u32>,
    shape: &[u32],
    dtype: DType,
    name: &str,
) -> Value {
    // The graph gives the number of masked tokens first, the vertex takes the length first.
    let rows: Vec<Value> = inputs
        .iter()
        .rev()
        .map(|input| ctx.builder.reshape(input, &[shape[0], 1, 1, 1]))
        .collect();
    let rows: Vec<&Value> = rows.iter().collect();
    let mask = MapOp::SequenceMask {
        position: Label(3),
        first: mask_tokens.unwrap_or(0),
    };
    ctx.builder.map_to_shape(mask, &rows, shape, dtype, name)
}

/// As the application's custom operation does it: the numbers as floats, their differences, and
/// then the rest in place.
fn attention_mask(
    ctx: &mut Ctx<'_>,
    numbers: &Value,
    shape: &[u32],
    dtype: DType,
    name: &str,
) -> Value {
    let &[rows, _, positions, _] = shape else {
        unreachable!("a mask of pairs has four axes");
    };
    let builder = &mut ctx.builder;
    let cast = builder.part("numbers");
    let numbers = builder.map(MapOp::Cast, &[numbers], dtype, &cast);
    let column = builder.reshape(&numbers, &[rows, 1, positions, 1]);
    let row = builder.reshape(&numbers, &[rows, 1, 1, positions]);
    let apart = MapOp::Binary(vertex::BinaryFn::Sub);
    let mut mask = builder.map_to_shape(apart, &[&column, &row], shape, dtype, name);
    for step in [
        MapOp::Unary(vertex::UnaryFn::Abs),
        MapOp::Unary(vertex::UnaryFn::Tanh),
        MapOp::Scale {
            factor: MASKED_PAIR_SCORE,
        },
    ] {
        mask = builder.map_in_place(step, &[&mask], 0);
    }
    mask
}

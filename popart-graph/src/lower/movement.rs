//! What moves beyond an IPU: copies to others, collectives, streaming memory.

use std::collections::BTreeMap;

use ipu_sim::ids::IpuId;
use ipu_sim::program::{
    Collective, CollectiveKind, CollectiveTensor, IpuCopy, Operand, Step, Transfer, VarId, VarKind,
    VertexGroup,
};
use ipu_sim::vertex::Vertex;
use ipu_sim::view::View;
use smallvec::SmallVec;

use super::ctx::{Ctx, elements};
use super::value::Value;
use super::{layouts, state};
use crate::ir::{Op, OpKind, Phase, TensorId};

/// The view of a whole variable that a value is, copied together if it is not.
fn whole_view(ctx: &mut Ctx<'_>, value: &Value, name: &str) -> View {
    match value.single() {
        Some(view) if ctx.builder.program.elements_of(view.var).0 == elements(&value.shape()) => {
            view.clone()
        }
        _ => {
            let layout = ctx.builder.spread(&value.shape(), value.dtype);
            let var = ctx.builder.relay(value, &layout, name);
            ctx.builder.program.view(var)
        }
    }
}

pub(super) fn ipu_copy(ctx: &mut Ctx<'_>, op: &Op, value: &Value, to: IpuId) -> Value {
    let (from, name) = (ctx.builder.ipu, op.name.as_str());
    let mut view = whole_view(ctx, value, name);
    let layout = ctx.builder.program.layout_of(view.var).clone();
    if ctx.late_copies.is_some() && op.phase == Phase::Forward {
        // Recomputation and restores of the same cycle overwrite the tensor before it leaves.
        view.var = snapshot(ctx, view.var, name);
    }
    ctx.builder.ipu = to;
    let kind = if ctx.late_copies.is_some() {
        VarKind::CopyBuffer
    } else {
        VarKind::Activation
    };
    let dst = ctx.builder.add_var(name, value.dtype, layout, kind);
    ctx.builder.ipu = from;
    let copy = IpuCopy { src: view.var, dst };
    match &mut ctx.late_copies {
        Some(copies) => copies.push(copy),
        None => {
            let source = ctx.builder.source;
            ctx.builder.steps.push(Step::IpuCopies {
                source,
                copies: vec![copy],
            });
        }
    }
    let shape = view.shape;
    Value::of(View { var: dst, shape }, value.dtype)
}

/// A copy of a variable that is safe until the end of the pipeline cycle.
fn snapshot(ctx: &mut Ctx<'_>, var: VarId, name: &str) -> VarId {
    let (copy, vertices) = copied(ctx, var, name, VarKind::CopyBuffer);
    ctx.builder.emit_compute(vec![vertices]);
    copy
}

/// A variable beside another, and the vertices that copy the one to the other where it lies.
fn copied(ctx: &mut Ctx<'_>, var: VarId, name: &str, kind: VarKind) -> (VarId, VertexGroup) {
    let layout = ctx.builder.program.layout_of(var).clone();
    let dtype = ctx.builder.program.vars[var].dtype;
    let labels: Vec<u8> = (0..layout.axes.len() as u8).collect();
    let copy = ctx.builder.add_var(name, dtype, layout, kind);
    let vertices = VertexGroup {
        vertex: Vertex::Copy,
        output: Operand::new(copy, &labels),
        inputs: SmallVec::from_iter([Operand::new(var, &labels)]),
    };
    (copy, vertices)
}

/// A value, as what enters or leaves an outlined call, copied where it lies, all variables at
/// once.
pub(super) fn copy_in_place(ctx: &mut Ctx<'_>, op: &Op, value: &Value) -> Value {
    let mut copies: BTreeMap<VarId, VarId> = BTreeMap::new();
    let mut vertices = Vec::new();
    for part in &value.parts {
        copies.entry(part.var).or_insert_with(|| {
            let (copy, group) = copied(ctx, part.var, &op.name, VarKind::Activation);
            vertices.push(group);
            copy
        });
    }
    ctx.builder.emit_compute(vertices);
    let mut value = value.clone();
    for part in &mut value.parts {
        part.var = copies[&part.var];
    }
    value
}

/// One step for what replicas do together with an operation's operands, each on its own IPU.
pub(super) fn collective(
    ctx: &mut Ctx<'_>,
    kind: CollectiveKind,
    op: &Op,
    inputs: &[Value],
) -> SmallVec<[Value; 3]> {
    let mut tensors = Vec::with_capacity(inputs.len());
    let mut results = SmallVec::new();
    for (position, value) in inputs.iter().enumerate() {
        let member = Member {
            input: op.inputs[position],
            output: op.outputs[position],
            name: &ctx.graph.tensors[op.outputs[position]].name,
        };
        ctx.builder.ipu = op.operand_ipu(position).unwrap_or(IpuId(0));
        let (tensor, result) = match kind {
            CollectiveKind::AllReduce => all_reduce(ctx, &member, value),
            CollectiveKind::ReduceScatter | CollectiveKind::TakeShard => {
                to_shard(ctx, &member, value)
            }
            CollectiveKind::AllGather => all_gather(ctx, &member, value),
        };
        tensors.push(tensor);
        results.push(result);
    }
    // The step is that of the operation's own IPU.
    ctx.builder.ipu = op.ipu.unwrap_or(IpuId(0));
    let source = ctx.builder.source;
    ctx.builder.steps.push(Step::Collective(Collective {
        source,
        kind,
        tensors,
    }));
    results
}

/// One operand of a collective and its result.
struct Member<'a> {
    input: TensorId,
    output: TensorId,
    name: &'a str,
}

/// Sums over replicas, in place where nothing else reads the operand but to clear it.
fn all_reduce(ctx: &mut Ctx<'_>, member: &Member<'_>, value: &Value) -> (CollectiveTensor, Value) {
    let view = whole_view(ctx, value, member.name);
    let readers = ctx.variables.consumers(member.input).iter();
    let others = readers
        .filter(|&&reader| !matches!(ctx.graph.ops[reader].kind, OpKind::Zero))
        .count();
    let dst = if others == 1 {
        view.var
    } else {
        let layout = ctx.builder.program.layout_of(view.var).clone();
        ctx.builder
            .add_var(member.name, value.dtype, layout, VarKind::Activation)
    };
    let tensor = CollectiveTensor { src: view.var, dst };
    let shape = view.shape;
    (tensor, Value::of(View { var: dst, shape }, value.dtype))
}

/// A replica's shard of a tensor, summed over replicas or cut out of its own, where that of the
/// weight it is used with is cut.
///
/// Accumulators lie like their weight from the start; a gradient that was never accumulated
/// lies as the backward pass made it.
fn to_shard(ctx: &mut Ctx<'_>, member: &Member<'_>, value: &Value) -> (CollectiveTensor, Value) {
    let value = match state::weight_of(ctx, member.output) {
        Some(weight) if weight != member.input => like_weight(ctx, value, weight, member.name),
        _ => value.clone(),
    };
    let view = whole_view(ctx, &value, member.name);
    let replicas = ctx.builder.program.n_replicas;
    let layout = layouts::shard(ctx.builder.program.layout_of(view.var), replicas);
    let dst = ctx
        .builder
        .add_var(member.name, value.dtype, layout, VarKind::Activation);
    let tensor = CollectiveTensor { src: view.var, dst };
    (tensor, ctx.builder.value_of(dst))
}

/// Gathers shards into the variable that takes the result, or one laid out like it.
fn all_gather(ctx: &mut Ctx<'_>, member: &Member<'_>, shard: &Value) -> (CollectiveTensor, Value) {
    let view = shard.single().expect("a shard is one variable").clone();
    let target = match ctx.variables.updated_by(member.output) {
        Some(variable) => ctx.value(variable),
        None => {
            let shape = ctx.graph.tensors[member.output].shape.dims().to_vec();
            let layout = ctx.builder.spread(&shape, shard.dtype);
            ctx.builder
                .new_value(member.name, shard.dtype, layout, VarKind::Activation)
        }
    };
    let dst = target.single().expect("a variable is one view").var;
    (CollectiveTensor { src: view.var, dst }, target)
}

/// The value as it is if it lies like `weight`, else a copy that does.
fn like_weight(ctx: &mut Ctx<'_>, value: &Value, weight: TensorId, name: &str) -> Value {
    let home = ctx.value(weight);
    let home = home.single().expect("a variable is one view").clone();
    let layout = ctx.builder.program.layout_of(home.var).clone();
    if let Some(view) = value.single()
        && view.shape == home.shape
        && *ctx.builder.program.layout_of(view.var) == layout
    {
        return value.clone();
    }
    let var = ctx
        .builder
        .add_var(name, value.dtype, layout, VarKind::Activation);
    let view = View {
        var,
        shape: home.shape,
    };
    ctx.builder.copy_to_view(value, &view);
    Value::of(view, value.dtype)
}

/// Takes out the last step if it is `wanted`, on other IPUs only, and nothing has happened on
/// these since: then what is to be done now on `ipu` can be done with it.
fn take_beside(ctx: &mut Ctx<'_>, ipu: IpuId, wanted: impl Fn(&Step) -> bool) -> Option<Step> {
    let program = &ctx.builder.program;
    let ipus = |step: &Step| -> SmallVec<[IpuId; 4]> {
        let of = |var: VarId| program.vars[var].ipu;
        match step {
            Step::Transfers { transfers, .. } => transfers
                .iter()
                .map(|transfer| of(transfer.var()))
                .collect(),
            _ => SmallVec::new(),
        }
    };
    let local = |step: &Step| match step {
        Step::Compute(set) => set.ipu == ipu,
        Step::Exchange(exchange) => exchange.ipu == ipu,
        _ => false,
    };
    let last = ctx.builder.steps.iter().rposition(|step| !local(step))?;
    let step = &ctx.builder.steps[last];
    let fits = wanted(step) && !ipus(step).contains(&ipu);
    fits.then(|| ctx.builder.steps.remove(last))
}

pub(super) fn remote_load(ctx: &mut Ctx<'_>, op: &Op) -> Value {
    let variable = op.inputs[0];
    let (layout, view) = state::remote_layout(ctx, variable);
    let tensor = &ctx.graph.tensors[variable];
    let (name, dtype) = (tensor.name.clone(), tensor.dtype);
    let var = ctx
        .builder
        .add_var(&name, dtype, layout, VarKind::Activation);
    let buffer = state::remote_buffer(ctx, variable, var);
    push_transfer(ctx, Transfer::RemoteLoad { buffer, var });
    let view = View { var, shape: view };
    ctx.variables.remote.push((variable, buffer, view.clone()));
    Value::of(view, dtype)
}

pub(super) fn remote_store(ctx: &mut Ctx<'_>, op: &Op, value: &Value) {
    let var = value.single().expect("optimiser state is one view").var;
    if let Some(variable) = ctx.variables.updated_by(op.outputs[0]) {
        let buffer = state::remote_buffer(ctx, variable, var);
        push_transfer(ctx, Transfer::RemoteStore { buffer, var });
    }
}

pub(super) fn push_transfer(ctx: &mut Ctx<'_>, transfer: Transfer) {
    let source = ctx.builder.source;
    let ipu = ctx.builder.ipu;
    let loads = matches!(transfer, Transfer::RemoteLoad { .. });
    let stores = matches!(transfer, Transfer::RemoteStore { .. });
    // Loads and stores of one moment are one exchange (PopART, `mergeexchange.cpp`).
    let alike = |step: &Step| match step {
        Step::Transfers { transfers, .. } => match transfers[0] {
            Transfer::RemoteLoad { .. } => loads,
            Transfer::RemoteStore { .. } => stores,
            Transfer::HostRead { .. } | Transfer::HostWrite { .. } => false,
        },
        _ => false,
    };
    let mut step = take_beside(ctx, ipu, alike).unwrap_or(Step::Transfers {
        source,
        transfers: Vec::new(),
    });
    if let Step::Transfers { transfers, .. } = &mut step {
        transfers.push(transfer);
    }
    ctx.builder.steps.push(step);
}

//! Variables, constants and streams: where they lie, and what replaces what.
//!
//! A tensor without a producer takes the layout that its consumer wants most: a weight
//! lies at home for its forward product, a table as rows are picked from it, optimiser
//! state like its weight, anything else spread evenly (PopART, `irlowering.cpp`: creators
//! and unwinding).

use ipu_sim::ids::IpuId;
use ipu_sim::layout::{AxisSplit, Layout};
use ipu_sim::program::{
    RemoteBuffer, RemoteBufferId, Role, SourceId, Step, Stream, Transfer, VarId, VarKind,
};
use ipu_sim::units::Bytes;
use ipu_sim::view::{Digit, View, ViewAxis, ViewShape};
use smallvec::{SmallVec, smallvec};

use super::ctx::{Ctx, is_variable};
use super::layouts;
use super::options::{HostStreams, Prefetch};
use super::products::planned;
use super::value::Value;
use crate::ir::{OpId, OpKind, Part, Phase, TensorId, TensorKind};
use crate::profile::{Line, LineKind};

/// Whether a variable lives in streaming memory.
pub(crate) fn is_remote(ctx: &Ctx<'_>, variable: TensorId) -> bool {
    ctx.variables
        .consumers(variable)
        .iter()
        .any(|&op| matches!(ctx.graph.ops[op].kind, OpKind::RemoteLoad))
}

impl Ctx<'_> {
    /// The lowered tensor, made now if it is a variable, constant or stream.
    pub(crate) fn value(&mut self, id: TensorId) -> Value {
        if let Some(value) = &self.values[id] {
            return value.clone();
        }
        let key = (id, self.builder.ipu);
        if let Some(value) = self.constant_values.get(&key) {
            return value.clone();
        }
        let value = create(self, id);
        match self.graph.tensors[id].kind {
            TensorKind::Constant(_) => _ = self.constant_values.insert(key, value.clone()),
            _ => self.values[id] = Some(value.clone()),
        }
        value
    }
}

/// Makes the variable of a tensor that no operation produces.
fn create(ctx: &mut Ctx<'_>, id: TensorId) -> Value {
    let tensor = &ctx.graph.tensors[id];
    let (name, dtype) = (tensor.name.clone(), tensor.dtype);
    let shape = tensor.shape.dims().to_vec();
    match &tensor.kind {
        TensorKind::Variable { .. } => {
            let home_ipu = ctx.builder.ipu;
            if let Some(&op) = ctx.variables.consumers(id).first() {
                let reader = &ctx.graph.ops[op];
                let operand = reader.inputs.iter().position(|&input| input == id);
                let ipu = operand.and_then(|operand| reader.operand_ipu(operand));
                ctx.builder.ipu = ipu.unwrap_or(IpuId(0));
            }
            let (layout, view) = variable_layout(ctx, id, 0);
            let kind = variable_kind(ctx, id);
            let var = ctx.builder.add_var(&name, dtype, layout, kind);
            ctx.builder.ipu = home_ipu;
            Value::of(View { var, shape: view }, dtype)
        }
        TensorKind::Constant(constant) => {
            let layout = ctx.builder.spread(&shape, dtype);
            let value = ctx
                .builder
                .new_value(&name, dtype, layout, VarKind::Constant);
            ctx.constants.push((value.parts[0].var, *constant));
            value
        }
        TensorKind::Stream => {
            let layout = ctx.builder.spread(&shape, dtype);
            let kind = match ctx.host {
                HostStreams::Absent => VarKind::Constant,
                HostStreams::WhereNeeded | HostStreams::Grouped => VarKind::StreamBuffer,
            };
            let value = ctx.builder.new_value(&name, dtype, layout, kind);
            if ctx.host == HostStreams::Absent {
                return value;
            }
            let stream = ctx.builder.program.streams.push(Stream {
                name,
                prefetch: ctx.prefetch != Prefetch::Off,
                buffering_depth: match ctx.prefetch {
                    Prefetch::Off => 1,
                    Prefetch::Ahead(batches) => batches,
                },
            });
            ctx.variables.streams.push((id, stream));
            let var = value.parts[0].var;
            read_from_host(ctx, Transfer::HostRead { stream, var });
            value
        }
        TensorKind::Activation => {
            unreachable!("`{name}` is read before the operation that makes it")
        }
    }
}

/// Reads a stream: here, or together with the others that this IPU reads at the same point.
///
/// Poplar merges stream copies that follow each other into one host exchange.
fn read_from_host(ctx: &mut Ctx<'_>, read: Transfer) {
    if ctx.host == HostStreams::WhereNeeded {
        let source = inputs_line(ctx);
        ctx.builder.steps.push(Step::Transfers {
            source,
            transfers: vec![read],
        });
        return;
    }
    let ipu_of = |transfer: &Transfer| ctx.builder.program.vars[transfer.var()].ipu;
    let merged = ctx.host_reads.iter_mut().find_map(|step| match step {
        Step::Transfers { transfers, .. } if ipu_of(&transfers[0]) == ipu_of(&read) => {
            Some(transfers)
        }
        _ => None,
    });
    match merged {
        Some(transfers) => transfers.push(read),
        None => {
            let source = inputs_line(ctx);
            ctx.host_reads.push(Step::Transfers {
                source,
                transfers: vec![read],
            });
        }
    }
}

/// Streams are read together, and belong to no part of the model but are one of their own.
fn inputs_line(ctx: &mut Ctx<'_>) -> SourceId {
    let name = "inputs";
    let part = ctx.builder.profile.parts.add(Part::single(name));
    let line = Line::around(LineKind::HostInput, Some(part));
    ctx.builder.line(name, line, Role::Work)
}

fn variable_kind(ctx: &Ctx<'_>, id: TensorId) -> VarKind {
    let read_by = |wanted: fn(&OpKind) -> bool| {
        ctx.variables.consumers(id).iter().any(|&op| {
            let op = &ctx.graph.ops[op];
            op.inputs[0] == id && wanted(&op.kind)
        })
    };
    if read_by(|kind| {
        matches!(
            kind,
            OpKind::Accumulate { .. } | OpKind::SparseAccumulate { .. }
        )
    }) {
        VarKind::Accumulator
    } else if read_by(|kind| matches!(kind, OpKind::AdamMoment { .. } | OpKind::SgdMomentum { .. }))
    {
        VarKind::OptimizerState
    } else {
        VarKind::Weight
    }
}

/// Where a variable lies, and how its tensor sees it.
fn variable_layout(ctx: &mut Ctx<'_>, id: TensorId, depth: u32) -> (Layout, ViewShape) {
    let tensor = &ctx.graph.tensors[id];
    let shape = tensor.shape.dims().to_vec();
    let dtype = tensor.dtype;
    if let Some(found) = operand_use(ctx, id).and_then(|operand| at_home(ctx, &operand)) {
        return found;
    }
    if is_table(ctx, id) {
        let layout = layouts::table(shape[0], shape[1], dtype, ctx.spec().tiles_per_ipu);
        return (layout, ViewShape::identity(&shape));
    }
    if depth == 0
        && let Some(weight) = weight_of(ctx, id)
    {
        return like(ctx, id, weight);
    }
    (
        ctx.builder.spread(&shape, dtype),
        ViewShape::identity(&shape),
    )
}

/// The layout of `weight` for another tensor of its size, or a shard of it.
fn like(ctx: &mut Ctx<'_>, id: TensorId, weight: TensorId) -> (Layout, ViewShape) {
    let value = ctx.value(weight);
    let view = value.single().expect("a variable is one view").clone();
    let layout = ctx.builder.program.layout_of(view.var).clone();
    let tensors = &ctx.graph.tensors;
    if tensors[id].shape.elements() == tensors[weight].shape.elements() {
        return (layout, view.shape);
    }
    let shard = layouts::shard(&layout, ctx.builder.program.n_replicas);
    let shape = ViewShape::identity(&shard.shape());
    (shard, shape)
}

/// Where a tensor of streaming memory lies while it is on the device.
pub(crate) fn remote_layout(ctx: &mut Ctx<'_>, variable: TensorId) -> (Layout, ViewShape) {
    match weight_of(ctx, variable) {
        Some(weight) => like(ctx, variable, weight),
        None => variable_layout(ctx, variable, 1),
    }
}

/// The buffer in streaming memory of a variable that `var` is the copy of on the device.
pub(crate) fn remote_buffer(ctx: &mut Ctx<'_>, variable: TensorId, var: VarId) -> RemoteBufferId {
    if let Some(&buffer) = ctx.variables.remote_buffers.get(&variable) {
        return buffer;
    }
    let layout = ctx.builder.program.layout_of(var);
    let stored: u64 = layout
        .boxes()
        .map(|(_, index)| layout.stored_elements(&layout.extents(&index)))
        .sum();
    let bytes = Bytes(stored * ctx.builder.program.vars[var].dtype.size().0);
    let buffer = ctx.builder.program.remote_buffers.push(RemoteBuffer {
        name: ctx.graph.tensors[variable].name.clone(),
        bytes,
    });
    ctx.variables.remote_buffers.insert(variable, buffer);
    buffer
}

/// How a matrix product reads a variable.
struct OperandUse {
    product: OpId,
    operand: usize,
    /// Axis `i` of the operand is axis `permutation[i]` of the variable.
    permutation: Vec<usize>,
    /// The part of an axis of the operand that the variable is, if it is not all of it.
    window: Option<(usize, u32, u32)>,
}

/// The first product that reads a variable, forward ones first, through transposes and one
/// concatenation.
fn operand_use(ctx: &Ctx<'_>, id: TensorId) -> Option<OperandUse> {
    let graph = ctx.graph;
    let rank = graph.tensors[id].shape.rank();
    let mut pending = vec![(id, (0..rank).collect::<Vec<_>>(), None)];
    let mut best: Option<OperandUse> = None;
    while let Some((tensor, permutation, window)) = pending.pop() {
        for &reader in ctx.variables.consumers(tensor) {
            let op = &graph.ops[reader];
            match &op.kind {
                OpKind::MatMul { .. } => {
                    let is_forward = |op: OpId| graph.ops[op].phase == Phase::Forward;
                    let better = best.as_ref().is_none_or(|best| {
                        (!is_forward(reader), reader) < (!is_forward(best.product), best.product)
                    });
                    if better {
                        best = Some(OperandUse {
                            product: reader,
                            operand: op.inputs.iter().position(|&input| input == tensor)?,
                            permutation: permutation.clone(),
                            window,
                        });
                    }
                }
                OpKind::Transpose { perm } => {
                    let permutation = perm
                        .iter()
                        .map(|&axis| permutation[axis as usize])
                        .collect();
                    let window = window.map(|(axis, begin, len)| {
                        let moved = perm.iter().position(|&from| from as usize == axis);
                        (moved.unwrap_or(axis), begin, len)
                    });
                    pending.push((op.outputs[0], permutation, window));
                }
                OpKind::Concat { axis } if window.is_none() => {
                    let axis = *axis as usize;
                    let before: u32 = op
                        .inputs
                        .iter()
                        .take_while(|&&input| input != tensor)
                        .map(|&input| graph.tensors[input].shape.dims()[axis])
                        .sum();
                    let len = graph.tensors[tensor].shape.dims()[axis];
                    pending.push((
                        op.outputs[0],
                        permutation.clone(),
                        Some((axis, before, len)),
                    ));
                }
                OpKind::Identity | OpKind::Detach | OpKind::CallInput => {
                    pending.push((op.outputs[0], permutation.clone(), window));
                }
                _ => {}
            }
        }
    }
    best
}

/// The variable's share of the operand's home. `None` where a window cuts the plan's slices.
fn at_home(ctx: &mut Ctx<'_>, operand: &OperandUse) -> Option<(Layout, ViewShape)> {
    let op = &ctx.graph.ops[operand.product];
    let planned = planned(ctx, op);
    let dtype = ctx.graph.tensors[op.inputs[operand.operand]].dtype;
    let shape = ctx.graph.tensors[op.inputs[operand.operand]]
        .shape
        .dims()
        .to_vec();
    // The operand as if it were a variable of its own axes, seen with the axes of its home.
    let symbol = View {
        var: VarId(u32::MAX),
        shape: ViewShape::identity(&shape),
    };
    let home_axes =
        planned.in_home_axes(&mut ctx.builder, &Value::of(symbol, dtype), operand.operand);
    let digits: Vec<Option<Digit>> = home_axes.parts[0]
        .shape
        .axes
        .iter()
        .map(|digits| digits.first().copied())
        .collect();
    let mut layout = planned.home(planned.side_of(operand.operand));
    if let Some((axis, begin, len)) = operand.window {
        cut_window(&mut layout, &digits, axis, begin, len)?;
    }
    let mut axes: Vec<ViewAxis> = vec![SmallVec::new(); shape.len()];
    for (operand_axis, &axis) in operand.permutation.iter().enumerate() {
        let mut walked: Vec<(u32, u8)> = digits
            .iter()
            .enumerate()
            .filter_map(|(home, digit)| {
                let digit = (*digit)?;
                (usize::from(digit.axis) == operand_axis).then_some((digit.stride, home as u8))
            })
            .collect();
        walked.sort_unstable_by_key(|&(stride, _)| std::cmp::Reverse(stride));
        axes[axis] = walked
            .into_iter()
            .map(|(_, home)| Digit {
                axis: home,
                stride: 1,
                extent: layout.axes[usize::from(home)].extent(),
            })
            .filter(|digit| digit.extent > 1)
            .collect();
    }
    let offsets = smallvec![0; layout.axes.len()];
    Some((layout, ViewShape { axes, offsets }))
}

fn cut_window(
    layout: &mut Layout,
    digits: &[Option<Digit>],
    axis: usize,
    begin: u32,
    len: u32,
) -> Option<()> {
    let walked: Vec<usize> = (0..digits.len())
        .filter(|&home| digits[home].is_some_and(|digit| usize::from(digit.axis) == axis))
        .collect();
    match walked.as_slice() {
        [home] => layout.axes[*home] = layout.axes[*home].window(begin, len),
        [outer, inner] => {
            let step = layout.axes[*inner].extent();
            if !begin.is_multiple_of(step) || !len.is_multiple_of(step) {
                return None;
            }
            layout.axes[*outer] = AxisSplit::whole(len / step);
        }
        _ => return None,
    }
    Some(())
}

fn is_table(ctx: &Ctx<'_>, id: TensorId) -> bool {
    ctx.variables.consumers(id).iter().any(|&op| {
        let op = &ctx.graph.ops[op];
        matches!(op.kind, OpKind::Gather { .. }) && op.inputs[0] == id
    })
}

/// The weight that a variable of the optimiser or an accumulator belongs to; a scalar, as the
/// count of steps, to none, for it doesn't lie like one.
pub(crate) fn weight_of(ctx: &Ctx<'_>, id: TensorId) -> Option<TensorId> {
    let graph = ctx.graph;
    if graph.tensors[id].shape.rank() == 0 {
        return None;
    }
    let mut pending = vec![id];
    let mut seen = std::collections::BTreeSet::from([id]);
    while let Some(tensor) = pending.pop() {
        for &reader in ctx.variables.consumers(tensor) {
            let op = &graph.ops[reader];
            if !matches!(op.phase, Phase::Accumulate | Phase::Update) {
                continue;
            }
            if matches!(op.kind, OpKind::Multi { .. }) {
                // Each operand has a result of its own, and nothing to do with the others.
                let own = op.inputs.iter().zip(&op.outputs);
                let own = own.filter(|&(&input, &output)| input == tensor && seen.insert(output));
                pending.extend(own.map(|(_, &output)| output));
                continue;
            }
            let weight = op
                .inputs
                .iter()
                .find_map(|&input| weight_behind(ctx, input, id));
            if let Some(weight) = weight {
                return Some(weight);
            }
            if !matches!(op.kind, OpKind::SquareSum) {
                pending.extend(
                    op.outputs
                        .iter()
                        .copied()
                        .filter(|&output| seen.insert(output)),
                );
            }
        }
    }
    None
}

/// The weight that `input` is, or is this replica's shard of.
fn weight_behind(ctx: &Ctx<'_>, input: TensorId, other_than: TensorId) -> Option<TensorId> {
    let source = match ctx.variables.producer(input) {
        None => input,
        Some(op) if matches!(ctx.graph.ops[op].kind, OpKind::LocalSlice { .. }) => {
            ctx.graph.ops[op].inputs[0]
        }
        Some(_) => return None,
    };
    let is_weight = is_variable(ctx.graph, source)
        && source != other_than
        && ctx
            .variables
            .consumers(source)
            .iter()
            .any(|&op| ctx.graph.ops[op].phase == Phase::Forward);
    is_weight.then_some(source)
}

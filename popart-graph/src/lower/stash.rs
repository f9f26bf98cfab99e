//! Rings that keep tensors for a later pipeline stage.
//!
//! A stash writes slot `k` and steps `k` on; a restore reads with a counter of its own, so
//! that values leave in the order they entered. Restoring writes the tensor's own variable,
//! which is where recomputation and gradients look for it (PopART, `RestoreInplace`). A stashed
//! view of weights, such as several side by side, therefore needs variables of its own where
//! stages update weights: else they would be what they were before.

use ipu_sim::layout::Layout;
use ipu_sim::numerics::DType;
use ipu_sim::program::{Label, Operand, VarId, VarKind, VertexGroup};
use ipu_sim::vertex::{MapOp, Vertex};
use ipu_sim::view::View;
use smallvec::SmallVec;

use super::ctx::{Ctx, Ring};
use super::value::Value;
use super::{layouts, movement};
use crate::ir::{OpId, OpKind};

/// A counter on every tile, 0 when the program starts.
fn counter(ctx: &mut Ctx<'_>) -> VarId {
    let layout = Layout::on_every_tile(&[], ctx.spec().tiles_per_ipu);
    let var = ctx.builder.add_var(
        &ctx.builder.part("slot"),
        DType::U32,
        layout,
        VarKind::Control,
    );
    let steps = std::mem::take(&mut ctx.builder.steps);
    ctx.builder.fill(var, 0.0);
    let fill = std::mem::replace(&mut ctx.builder.steps, steps);
    ctx.init.extend(fill);
    var
}

fn step_on(ctx: &mut Ctx<'_>, counter: VarId, slots: u32) {
    let value = ctx.builder.value_of(counter);
    let next = MapOp::Count {
        addend: 1,
        modulus: slots,
    };
    ctx.builder.map_in_place(next, &[&value], 0);
}

/// Copies results of an operation that are stashed but lie in variables that stages update.
pub(crate) fn own_memory(ctx: &mut Ctx<'_>, id: OpId) {
    if !ctx.updates_in_stages {
        return;
    }
    let op = &ctx.graph.ops[id];
    for &tensor in &op.outputs {
        let is_stash = |&reader: &OpId| matches!(ctx.graph.ops[reader].kind, OpKind::Stash { .. });
        if !ctx.variables.consumers(tensor).iter().any(is_stash) {
            continue;
        }
        let value = ctx.value(tensor);
        let is_weight = |part: &View| ctx.builder.program.vars[part.var].kind == VarKind::Weight;
        if value.parts.iter().any(is_weight) {
            ctx.values[tensor] = Some(movement::copy_in_place(ctx, op, &value));
        }
    }
}

/// Writes the tensor's variables into rings of `slots`; the result stands for them.
pub(crate) fn stash(ctx: &mut Ctx<'_>, id: OpId, value: &Value, slots: u32, name: &str) -> Value {
    let counter = counter(ctx);
    let mut rings = Vec::new();
    let mut vertices = Vec::new();
    for part in &value.parts {
        let layout = layouts::ring(slots, ctx.builder.program.layout_of(part.var));
        let labels: Vec<u8> = (0..layout.axes.len() as u8).collect();
        let ring = ctx
            .builder
            .add_var(name, value.dtype, layout, VarKind::Stash);
        vertices.push(VertexGroup {
            vertex: Vertex::DynamicUpdate { slot: Label(0) },
            output: Operand::new(ring, &labels),
            inputs: SmallVec::from_iter([
                Operand::new(part.var, &labels[1..]),
                Operand::new(counter, &[]),
            ]),
        });
        rings.push(Ring {
            tensor: part.var,
            ring,
            slots,
        });
    }
    ctx.builder.emit_compute(vertices);
    step_on(ctx, counter, slots);
    let output = ctx.graph.ops[id].outputs[0];
    ctx.stashes.rings.insert(output, (value.clone(), rings));
    value.clone()
}

/// Writes the oldest slots back over the tensor's variables.
pub(crate) fn restore(ctx: &mut Ctx<'_>, id: OpId) -> Value {
    let stashed = ctx.graph.ops[id].inputs[0];
    let (value, rings) = ctx
        .stashes
        .rings
        .get(&stashed)
        .cloned()
        .expect("a stash stands before its restore");
    let counter = counter(ctx);
    let mut vertices = Vec::new();
    for ring in &rings {
        let labels: Vec<u8> =
            (0..ctx.builder.program.layout_of(ring.ring).axes.len() as u8).collect();
        vertices.push(VertexGroup {
            vertex: Vertex::DynamicSlice { slot: Label(0) },
            output: Operand::new(ring.tensor, &labels[1..]),
            inputs: SmallVec::from_iter([
                Operand::new(ring.ring, &labels),
                Operand::new(counter, &[]),
            ]),
        });
    }
    ctx.builder.emit_compute(vertices);
    step_on(ctx, counter, rings[0].slots);
    value
}

//! Optimiser state dealt out to the replicas (replicated tensor sharding).
//!
//! **Assumes** a weight update of Adam or LAMB with sums over replicas, before offloading.
//! **Guarantees** for every weight with [`ELEMENTS_SHARDED_MIN`] elements or more that each
//! replica holds a shard of the moments and updates its shard of the weight:
//!
//! ```text
//! s = all_reduce(sum)                 s* = reduce_scatter(sum)
//! g = scale(cast(s))                  g* = scale(cast(s*))
//! m = adam_moment(Accl1, g)    ->     m* = adam_moment(Accl1*, g*)
//! x = adam_updater(m, v, w)           x* = adam_updater(m*, v*, local_slice(w))
//! r = square_sum(x)                   r = all_reduce(square_sum(x*))
//! w = lamb_update(w, x, r, ..)        w = all_gather(lamb_update(local_slice(w), x*, r, ..))
//! sum = zero(s)                       sum = zero(sum)
//! ```
//!
//! A factor by which gradients are clipped multiplies their shards.
//! Norms that are summed over slices of a weight are summed before the all-reduce. A reader of
//! a moment that knows nothing of shards gets them gathered.
//! **Leaves alone** smaller weights, SGD, and everything without replicas. Running it twice
//! changes nothing more. The rules are PopART's (`willow/src/transforms/
//! streamingmemory.cpp` and `tensorlocation.hpp`).
//!
//! ```text
//! before
//! variable %0: f32[8192] = zeros "w"
//! variable %1: f32[8192] = zeros "Accum___w"
//! variable %2: f32[8192] = zeros "Accl1___w"
//! variable %3: f32[8192] = zeros "Accl2___w"
//! constant %4: f32[] = splat(0.5) "learningRate"
//! %5: f32[8192] = all_reduce(%1) @ipu0 upd "w"
//! %6: f32[8192] = adam_moment(%2, %5) {beta: 0.9, square: false} @ipu0 upd "w"
//! %7: f32[8192] = adam_moment(%3, %5) {beta: 0.9, square: true} @ipu0 upd "w"
//! %8: f32[8192] = zero(%5) @ipu0 upd "w"
//! %9: f32[8192] = adam_updater(%6, %7) {epsilon: 1e-6} @ipu0 upd "w"
//! %10: f32[8192] = adam_update(%0, %9, %4) @ipu0 upd "w"
//! update %2 = %6
//! update %3 = %7
//! update %1 = %8
//! update %0 = %10
//! after
//! variable %0: f32[8192] = zeros "w"
//! variable %1: f32[8192] = zeros "Accum___w"
//! variable %2: f32[2048] = zeros "Accl1___w"
//! variable %3: f32[2048] = zeros "Accl2___w"
//! constant %4: f32[] = splat(0.5) "learningRate"
//! %5: f32[2048] = reduce_scatter(%1) {shards: 4} @ipu0 upd "w"
//! %6: f32[2048] = adam_moment(%2, %5) {beta: 0.9, square: false} @ipu0 upd "w"
//! %7: f32[2048] = adam_moment(%3, %5) {beta: 0.9, square: true} @ipu0 upd "w"
//! %8: f32[8192] = zero(%1) @ipu0 upd "w"
//! %9: f32[2048] = adam_updater(%6, %7) {epsilon: 1e-6} @ipu0 upd "w"
//! %11: f32[2048] = local_slice(%0) {shards: 4} @ipu0 upd "w"
//! %10: f32[2048] = adam_update(%11, %9, %4) @ipu0 upd "w"
//! %12: f32[8192] = all_gather(%10) {shards: 4, shape: [8192]} @ipu0 upd "w"
//! update %2 = %6
//! update %3 = %7
//! update %1 = %8
//! update %0 = %12
//! ```

use std::collections::{BTreeMap, BTreeSet};

use ipu_sim::ids::IdVec;
use ipu_sim::units::Elements;

use crate::infer::InferError;
use crate::ir::{BinaryFn, Graph, GraphError, OpId, OpKind, Phase, Shape, TensorId, TensorKind};

/// Elements from which on a tensor is sharded (PopART, `TensorLocationSettings`).
pub const ELEMENTS_SHARDED_MIN: Elements = Elements(8192);

/// Shards moments over `replicas`.
///
/// # Errors
/// None on a well-formed graph.
pub fn shard_optimizer_state(graph: Graph, replicas: u32) -> Result<Graph, GraphError> {
    if replicas < 2 {
        return Ok(graph);
    }
    let order: Vec<OpId> = graph
        .topological_order()?
        .into_iter()
        .filter(|&op| graph.ops[op].phase == Phase::Update)
        .collect();
    let producers = graph.producers();
    let mut zeros: BTreeMap<TensorId, Vec<OpId>> = BTreeMap::new();
    for (id, op) in graph.ops.iter().filter(|(_, op)| op.kind == OpKind::Zero) {
        zeros.entry(op.inputs[0]).or_default().push(id);
    }
    let mut takers: BTreeMap<TensorId, Vec<usize>> = BTreeMap::new();
    for (at, &(_, value)) in graph.updates.iter().enumerate() {
        takers.entry(value).or_default().push(at);
    }
    let mut ctx = Ctx {
        shards: replicas,
        full: BTreeMap::new(),
        slices: BTreeMap::new(),
        partial: BTreeSet::new(),
        totals: BTreeMap::new(),
        producers,
        zeros,
        takers,
        graph,
    };
    for &op in &order {
        if ctx.is_unsharded_moment(op) {
            let variable = ctx.graph.ops[op].inputs[0];
            ctx.shrink(variable);
        }
    }
    ctx.shard_clipped(&order)?;
    let weights = ctx.sharded_weights(&order);
    for op in order {
        ctx.rewrite(op, &weights)?;
    }
    Ok(ctx.graph)
}

/// A weight update being sharded.
struct Ctx {
    graph: Graph,
    shards: u32,
    /// Sharded tensors with the shape of the whole.
    full: BTreeMap<TensorId, Shape>,
    /// Shards of tensors that every replica has whole.
    slices: BTreeMap<TensorId, TensorId>,
    /// Sums of squares over a shard only.
    partial: BTreeSet<TensorId>,
    /// These, summed over replicas.
    totals: BTreeMap<TensorId, TensorId>,
    /// Of the tensors before sharding.
    producers: IdVec<TensorId, Option<OpId>>,
    /// What zeroes each tensor.
    zeros: BTreeMap<TensorId, Vec<OpId>>,
    /// Places among the updates of variables that take each value.
    takers: BTreeMap<TensorId, Vec<usize>>,
}

impl Ctx {
    /// Whether the operation changes a moment that is to be sharded and isn't.
    fn is_unsharded_moment(&self, op: OpId) -> bool {
        let op = &self.graph.ops[op];
        let is_moment = matches!(op.kind, OpKind::AdamMoment { .. });
        is_moment && {
            let state = &self.graph.tensors[op.inputs[0]];
            matches!(state.kind, TensorKind::Variable { .. })
                && state.shape.elements() >= ELEMENTS_SHARDED_MIN
                && !self.comes_in_shards(op.inputs[1])
        }
    }

    /// Whether a gradient is scattered already.
    fn comes_in_shards(&self, gradient: TensorId) -> bool {
        let Some(id) = self.producers[gradient] else {
            return false;
        };
        let op = &self.graph.ops[id];
        match op.kind {
            OpKind::ReduceScatter { .. } | OpKind::LocalSlice { .. } => true,
            OpKind::Binary(_) if self.multiplies(id) => self.comes_in_shards(op.inputs[0]),
            OpKind::Cast { .. } | OpKind::Scale { .. } => self.comes_in_shards(op.inputs[0]),
            _ => false,
        }
    }

    /// Lets moments of gradients that were clipped by their norm take shards before the norm
    /// reads the gradients, which comes first.
    fn shard_clipped(&mut self, order: &[OpId]) -> Result<(), InferError> {
        for &op in order {
            let operation = &self.graph.ops[op];
            let is_moment = matches!(operation.kind, OpKind::AdamMoment { .. });
            if is_moment && self.full.contains_key(&operation.inputs[0]) {
                let gradient = operation.inputs[1];
                let producer = self.producers.get(gradient).copied().flatten();
                if producer.is_some_and(|producer| self.multiplies(producer)) {
                    self.take_shards(op)?;
                }
            }
        }
        Ok(())
    }

    /// Whether an operation multiplies a tensor with one number, the same for all elements.
    fn multiplies(&self, op: OpId) -> bool {
        let op = &self.graph.ops[op];
        op.kind == OpKind::Binary(BinaryFn::Mul)
            && self.graph.tensors[op.inputs[1]].shape.rank() == 0
    }

    /// Makes a shard of a tensor.
    fn shrink(&mut self, tensor: TensorId) {
        let shape = &mut self.graph.tensors[tensor].shape;
        let shard = shape.shard(self.shards);
        let full = std::mem::replace(shape, shard);
        self.full.insert(tensor, full);
    }

    /// The weights whose new value will come from shards.
    fn sharded_weights(&self, order: &[OpId]) -> BTreeSet<TensorId> {
        let mut sharded: BTreeSet<TensorId> = self.full.keys().copied().collect();
        let mut weights = BTreeSet::new();
        for &op in order {
            let op = &self.graph.ops[op];
            let from = |operand: usize| sharded.contains(&op.inputs[operand]);
            match op.kind {
                OpKind::AdamMoment { .. } | OpKind::AdamUpdater { .. } if from(0) => {
                    sharded.insert(op.outputs[0]);
                }
                OpKind::AdamUpdate | OpKind::LambUpdate { .. } if from(1) => {
                    weights.insert(op.inputs[0]);
                }
                _ => {}
            }
        }
        weights
    }

    fn rewrite(&mut self, op: OpId, weights: &BTreeSet<TensorId>) -> Result<(), InferError> {
        let operation = self.graph.ops[op].clone();
        let any_sharded = operation.inputs.iter().any(|id| self.full.contains_key(id));
        match operation.kind {
            OpKind::AdamMoment { .. } | OpKind::AdamUpdater { .. } if any_sharded => {
                self.take_shards(op)?;
                self.shrink(operation.outputs[0]);
            }
            OpKind::AdamUpdate | OpKind::LambUpdate { .. } if any_sharded => {
                self.take_shards(op)?;
                self.gather_weight(op)?;
            }
            OpKind::SquareSum if any_sharded || weights.contains(&operation.inputs[0]) => {
                self.take_shards(op)?;
                self.partial.insert(operation.outputs[0]);
            }
            // Shrunk with the moment that reads it.
            OpKind::Cast { .. } | OpKind::Scale { .. } if any_sharded => {}
            OpKind::Binary(_) if any_sharded && self.multiplies(op) => {}
            _ if any_sharded => self.gather_operands(op)?,
            _ => {}
        }
        self.sum_partials(op)
    }

    /// Lets an operation read shards of all operands that aren't single numbers.
    fn take_shards(&mut self, op: OpId) -> Result<(), InferError> {
        for operand in 0..self.graph.ops[op].inputs.len() {
            let input = self.graph.ops[op].inputs[operand];
            if self.graph.tensors[input].shape.rank() > 0 {
                self.graph.ops[op].inputs[operand] = self.shard_of(input, op)?;
            }
        }
        Ok(())
    }

    /// A shard of a tensor for `reader`: scattered instead of reduced, computed from shards,
    /// or cut out.
    fn shard_of(&mut self, tensor: TensorId, reader: OpId) -> Result<TensorId, InferError> {
        if self.full.contains_key(&tensor) {
            return Ok(tensor);
        }
        if let Some(&slice) = self.slices.get(&tensor) {
            return Ok(slice);
        }
        let shards = self.shards;
        if let Some(op) = self.producers.get(tensor).copied().flatten()
            && self.graph.ops[op].phase == Phase::Update
        {
            let source = self.graph.ops[op].inputs[0];
            match self.graph.ops[op].kind {
                OpKind::AllReduce => {
                    self.graph.ops[op].kind = OpKind::ReduceScatter { shards };
                    self.shrink(tensor);
                    self.zero_instead(tensor, source);
                    return Ok(tensor);
                }
                OpKind::Cast { .. } | OpKind::Scale { .. } => {
                    self.graph.ops[op].inputs[0] = self.shard_of(source, op)?;
                    self.shrink(tensor);
                    return Ok(tensor);
                }
                OpKind::Binary(_) if self.multiplies(op) => {
                    self.graph.ops[op].inputs[0] = self.shard_of(source, op)?;
                    self.shrink(tensor);
                    return Ok(tensor);
                }
                _ => {}
            }
        }
        let scope = self.graph.ops[reader].scope();
        let kind = OpKind::LocalSlice { shards };
        let slice = self.graph.add(kind, &[tensor], &scope)?;
        let full = self.graph.tensors[tensor].shape.clone();
        self.full.insert(slice, full);
        self.slices.insert(tensor, slice);
        Ok(slice)
    }

    /// Lets what zeroed the reduced sum zero the sum that was reduced.
    fn zero_instead(&mut self, reduced: TensorId, sum: TensorId) {
        for &op in self.zeros.get(&reduced).into_iter().flatten() {
            self.graph.ops[op].inputs[0] = sum;
        }
    }

    /// Gathers a weight's new value and lets the weight take that.
    fn gather_weight(&mut self, op: OpId) -> Result<(), InferError> {
        let value = self.graph.ops[op].outputs[0];
        self.shrink(value);
        let gathered = self.gathered(value, op)?;
        for &at in self.takers.get(&value).into_iter().flatten() {
            self.graph.updates[at].1 = gathered;
        }
        Ok(())
    }

    fn gathered(&mut self, value: TensorId, beside: OpId) -> Result<TensorId, InferError> {
        let kind = OpKind::AllGather {
            shards: self.shards,
            shape: self.full[&value].clone(),
        };
        let scope = self.graph.ops[beside].scope();
        self.graph.add(kind, &[value], &scope)
    }

    /// Lets an operation that knows nothing of shards read the whole.
    fn gather_operands(&mut self, op: OpId) -> Result<(), InferError> {
        for operand in 0..self.graph.ops[op].inputs.len() {
            let input = self.graph.ops[op].inputs[operand];
            if self.full.contains_key(&input) {
                self.graph.ops[op].inputs[operand] = self.gathered(input, op)?;
            }
        }
        Ok(())
    }

    /// Sums partial norms over replicas before anything but a sum reads them.
    fn sum_partials(&mut self, op: OpId) -> Result<(), InferError> {
        let operation = self.graph.ops[op].clone();
        let is_partial = |id: &TensorId| self.partial.contains(id);
        if operation.kind == OpKind::Binary(BinaryFn::Add)
            && operation.inputs.iter().all(is_partial)
        {
            self.partial.insert(operation.outputs[0]);
            return Ok(());
        }
        for (operand, &input) in operation.inputs.iter().enumerate() {
            if !self.partial.contains(&input) {
                continue;
            }
            let total = match self.totals.get(&input) {
                Some(&total) => total,
                None => {
                    let scope = operation.scope();
                    self.graph.add(OpKind::AllReduce, &[input], &scope)?
                }
            };
            self.totals.insert(input, total);
            self.graph.ops[op].inputs[operand] = total;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

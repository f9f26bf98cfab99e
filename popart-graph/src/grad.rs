//! Derivative of every operation.
//!
//! [`backward`] adds to a graph the operations that compute gradients of its loss,
//! by the chain rule from the loss back. Like PopART's autodiff it runs before
//! copies between IPUs, stashes and optimisers are put in: operations of those kinds
//! have no gradient here.
//!
//! A gradient operation carries name, part, purpose and IPU of the forward operation and is of
//! [`Phase::Backward`]; the gradient of stage `s` is in stage `2 l - s`, where `l` is
//! the stage of the loss. Contributions to the gradient of one tensor are added in
//! the order in which they arise, those nearest to the loss first; but what the pieces of one
//! serialised product give comes before the rest, in `f32`, and is cast once it is summed.

mod error;
mod rules;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use ipu_sim::ids::IdVec;
use ipu_sim::numerics::DType;
use smallvec::SmallVec;

pub use self::error::GradError;

use self::error::Result;
use crate::ir::{
    BinaryFn, Constant, Graph, OpId, OpKind, Phase, Recompute, Scope, Shape, StageId, TensorId,
};

/// Adds the gradients of `loss_scale * loss` with respect to `with_respect_to` to a
/// well-formed graph, and gives for each of these the tensor that holds its gradient.
///
/// # Errors
/// The loss is not one float; it doesn't depend on one of the tensors; or it
/// depends on one through an operation without a gradient. The graph is then as it
/// was.
pub fn backward(
    graph: &mut Graph,
    loss: TensorId,
    loss_scale: f64,
    with_respect_to: &[TensorId],
) -> Result<IndexMap<TensorId, TensorId>> {
    let order = graph.topological_order()?;
    let mut ctx = Ctx::new(graph.clone(), &order, loss, with_respect_to);
    ctx.seed(loss, loss_scale)?;
    for &op in order.iter().rev() {
        ctx.differentiate(op)?;
    }
    let mut gradients = IndexMap::new();
    for &tensor in with_respect_to {
        let Some(gradient) = ctx.gradient(tensor)? else {
            let name = ctx.graph.tensors[tensor].name.clone();
            return Err(GradError::Independent { tensor, name });
        };
        gradients.insert(tensor, gradient);
    }
    *graph = ctx.graph;
    Ok(gradients)
}

/// Partial gradient of a tensor, from one of the operations that read it.
#[derive(Clone, Copy)]
struct PartialGradient {
    gradient: TensorId,
    /// The forward operation; `None` for the start at the loss.
    from: Option<OpId>,
}

/// A backward pass under construction.
struct Ctx {
    graph: Graph,
    /// Producers of the forward tensors.
    producers: IdVec<TensorId, Option<OpId>>,
    /// Which forward tensors depend, differentiably, on what gradients are wanted of.
    depends: IdVec<TensorId, bool>,
    /// Parts of each forward tensor's gradient.
    partials: IdVec<TensorId, SmallVec<[PartialGradient; 2]>>,
    /// Gradients cast to another type, and what they were before.
    narrow: BTreeMap<TensorId, TensorId>,
    loss_stage: Option<StageId>,
}

impl Ctx {
    fn new(graph: Graph, order: &[OpId], loss: TensorId, with_respect_to: &[TensorId]) -> Self {
        let producers = graph.producers();
        let is_float = |tensor: TensorId| graph.tensors[tensor].dtype != DType::U32;
        let mut depends = IdVec::from(vec![false; graph.tensors.len()]);
        for &tensor in with_respect_to {
            depends[tensor] = is_float(tensor);
        }
        for &op in order {
            let op = &graph.ops[op];
            let stops = matches!(op.kind, OpKind::Detach | OpKind::AttentionMask);
            if !stops && op.inputs.iter().any(|&input| depends[input]) {
                for &output in &op.outputs {
                    depends[output] |= is_float(output);
                }
            }
        }
        Self {
            partials: IdVec::from(vec![SmallVec::new(); graph.tensors.len()]),
            loss_stage: producers[loss].and_then(|op| graph.ops[op].stage),
            graph,
            producers,
            depends,
            narrow: BTreeMap::new(),
        }
    }

    /// Starts with the gradient of the scaled loss with respect to the loss.
    fn seed(&mut self, loss: TensorId, loss_scale: f64) -> Result<()> {
        let tensor = &self.graph.tensors[loss];
        let dtype = tensor.dtype;
        if tensor.shape != Shape::scalar() || dtype == DType::U32 {
            return Err(GradError::LossNotScalar {
                tensor: loss,
                name: tensor.name.clone(),
                got: tensor.ty(),
            });
        }
        let value = Constant::Splat(loss_scale);
        let gradient = self
            .graph
            .constant("loss_scale", dtype, Shape::scalar(), value);
        if self.depends[loss] {
            self.partials[loss].push(PartialGradient {
                gradient,
                from: None,
            });
        }
        Ok(())
    }

    /// The sum of all partials of a forward tensor's gradient, if there are any. A
    /// result's partials are summed beside its producer's gradient, a variable's where
    /// the last partial comes from.
    fn gradient(&mut self, tensor: TensorId) -> Result<Option<TensorId>> {
        let partials = std::mem::take(&mut self.partials[tensor]);
        let dtype = self.graph.tensors[tensor].dtype;
        // Addends of one product are summed before they lose precision, then the rest.
        let is_addend =
            |partial: &PartialGradient| self.graph.tensors[partial.gradient].dtype != dtype;
        let (addends, mut rest): (Vec<PartialGradient>, Vec<PartialGradient>) =
            partials.into_iter().partition(is_addend);
        if let Some(sum) = self.summed(tensor, &addends)? {
            let at = self.producers[tensor].or(sum.from);
            let scope = self.scope(at.expect("an addend is of a product"));
            let to = dtype;
            let gradient = self
                .graph
                .add(OpKind::Cast { to }, &[sum.gradient], &scope)?;
            rest.insert(0, PartialGradient { gradient, from: at });
        }
        let sum = self.summed(tensor, &rest)?;
        self.partials[tensor].extend(sum);
        Ok(sum.map(|sum| sum.gradient))
    }

    /// Parts of one type of a tensor's gradient, added in their order.
    fn summed(
        &mut self,
        tensor: TensorId,
        partials: &[PartialGradient],
    ) -> Result<Option<PartialGradient>> {
        let Some((&first, rest)) = partials.split_first() else {
            return Ok(None);
        };
        let mut sum = first;
        for partial in rest {
            let at = self.producers[tensor].or(partial.from);
            let scope = self.scope(at.expect("only the first partial has no operation"));
            let operands = [sum.gradient, partial.gradient];
            sum = PartialGradient {
                gradient: self
                    .graph
                    .add(OpKind::Binary(BinaryFn::Add), &operands, &scope)?,
                from: at,
            };
        }
        Ok(Some(sum))
    }

    /// Where the gradient of a forward operation belongs.
    fn scope(&self, op: OpId) -> Scope {
        let forward = &self.graph.ops[op];
        let mirrored = |of_loss: StageId, own: StageId| {
            let stage = (2 * of_loss.0).checked_sub(own.0);
            StageId(stage.expect("stages don't decrease on the way to the loss"))
        };
        Scope {
            name: forward.name.clone(),
            ipu: forward.ipu,
            stage: self
                .loss_stage
                .zip(forward.stage)
                .map(|(of_loss, own)| mirrored(of_loss, own)),
            part: forward.part,
            phase: Phase::Backward,
            recompute: Recompute::Checkpoint,
            purpose: forward.purpose,
        }
    }
}

#[cfg(test)]
mod tests;

//! The rule of each kind: gradients of operands from gradients of results.

use ipu_sim::numerics::DType;
use smallvec::{SmallVec, smallvec};

use super::error::{GradError, Result};
use super::{Ctx, PartialGradient};
use crate::ir::{
    BinaryFn, MatMulPass, Op, OpId, OpKind, OpLabel, Piece, Saved, Scope, Shape, TensorId, UnaryFn,
    saved,
};

impl Ctx {
    /// Adds the gradients of one operation's operands, if its results have any.
    pub(super) fn differentiate(&mut self, id: OpId) -> Result<()> {
        let forward = self.graph.ops[id].clone();
        let mut of_results: SmallVec<[Option<TensorId>; 2]> = SmallVec::new();
        for &output in &forward.outputs {
            of_results.push(self.gradient(output)?);
        }
        if of_results.iter().all(Option::is_none) {
            return Ok(());
        }
        let mut step = Step {
            scope: self.scope(id),
            ctx: self,
            id,
            forward,
        };
        // The statistics of a normalisation are for its gradient only.
        match (of_results[0], &of_results[1..]) {
            (Some(dy), rest) if rest.iter().all(Option::is_none) => step.rule(dy),
            _ => Err(step.no_gradient()),
        }
    }
}

/// The gradient of one operation.
struct Step<'a> {
    ctx: &'a mut Ctx,
    id: OpId,
    forward: Op,
    scope: Scope,
}

impl Step<'_> {
    fn rule(&mut self, dy: TensorId) -> Result<()> {
        match self.forward.kind.clone() {
            OpKind::MatMul {
                pass,
                available_memory_proportion,
                partials,
                piece,
            } => {
                let dy = self.as_operand(dy)?;
                let of_left = match piece {
                    Piece::Columns => Piece::Addend,
                    Piece::Whole | Piece::Addend => Piece::Whole,
                };
                self.matmul(dy, pass, |operand, pass| OpKind::MatMul {
                    pass,
                    available_memory_proportion,
                    partials,
                    piece: match operand {
                        0 => of_left,
                        _ => Piece::Whole,
                    },
                })
            }
            OpKind::Binary(function) => self.binary(function, dy),
            OpKind::Scale { factor } => self.replace(OpKind::Scale { factor }, &[dy]),
            OpKind::Unary(function) => {
                let saved = match saved(function) {
                    Saved::Input => self.forward.inputs[0],
                    Saved::Output => self.forward.outputs[0],
                };
                self.replace(OpKind::UnaryGrad(function), &[saved, dy])
            }
            OpKind::Cast { .. } => {
                let to = self.dtype(0);
                if self.wants(0) {
                    let wide = self.add(OpKind::Cast { to }, &[dy])?;
                    self.ctx.narrow.insert(wide, dy);
                    self.give(0, wide);
                }
                Ok(())
            }
            OpKind::Identity => {
                self.give(0, dy);
                Ok(())
            }

            OpKind::Reshape { .. } => {
                let shape = self.shape(0);
                self.replace(OpKind::Reshape { shape }, &[dy])
            }
            OpKind::Transpose { perm } => {
                let mut inverse: SmallVec<[u32; 4]> = smallvec![0; perm.len()];
                for (to, &from) in (0_u32..).zip(&perm) {
                    inverse[from as usize] = to;
                }
                self.replace(OpKind::Transpose { perm: inverse }, &[dy])
            }
            OpKind::Slice { axis, begin, end } => {
                let after = self.shape(0).dims()[axis as usize] - end;
                let before = begin;
                self.replace(
                    OpKind::Pad {
                        axis,
                        before,
                        after,
                    },
                    &[dy],
                )
            }
            OpKind::Concat { axis } => self.concat(axis, dy),
            OpKind::Pad { axis, before, .. } => {
                let begin = before;
                let end = begin + self.shape(0).dims()[axis as usize];
                self.replace(OpKind::Slice { axis, begin, end }, &[dy])
            }
            OpKind::Broadcast { .. } => {
                let dx = self.summed_to(dy, &self.shape(0))?;
                self.give(0, dx);
                Ok(())
            }
            OpKind::ReduceSum { axes, .. } => self.reduce_sum(&axes, dy),

            OpKind::Softmax => self.replace(OpKind::SoftmaxGrad, &[self.forward.outputs[0], dy]),
            OpKind::LayerNorm { .. } => self.layer_norm(dy),
            OpKind::Dropout { probability, id } => self.replace(
                OpKind::Dropout { probability, id },
                &[dy, self.forward.inputs[1]],
            ),
            OpKind::Gather { first_row } => {
                let rows = self.shape(0).dims()[0];
                self.replace(
                    OpKind::GatherGrad { first_row, rows },
                    &[dy, self.forward.inputs[1]],
                )
            }
            OpKind::GatherGrad { first_row, .. } => {
                self.replace(OpKind::Gather { first_row }, &[dy, self.forward.inputs[1]])
            }
            OpKind::NllLoss {
                reduction,
                ignore_index,
            } => self.nll_of_softmax(
                OpKind::NllSoftmaxGrad {
                    reduction,
                    ignore_index,
                },
                dy,
            ),

            // Nothing flows through these, so nothing reaches them from the loss.
            OpKind::Detach
            | OpKind::OneHot { .. }
            | OpKind::SequenceMask { .. }
            | OpKind::AttentionMask => Ok(()),

            // Not differentiable, or made after differentiation.
            OpKind::UnaryGrad(_)
            | OpKind::SoftmaxGrad
            | OpKind::LayerNormGrad
            | OpKind::NllSoftmaxGrad { .. }
            | OpKind::Accuracy { .. }
            | OpKind::Accumulate { .. }
            | OpKind::SparseAccumulate { .. }
            | OpKind::Zero
            | OpKind::AdamMoment { .. }
            | OpKind::AdamUpdater { .. }
            | OpKind::SquareSum
            | OpKind::AdamUpdate
            | OpKind::LambUpdate { .. }
            | OpKind::SgdUpdate { .. }
            | OpKind::SgdMomentum { .. }
            | OpKind::IpuCopy { .. }
            | OpKind::Stash { .. }
            | OpKind::Restore { .. }
            | OpKind::AllReduce
            | OpKind::ReduceScatter { .. }
            | OpKind::AllGather { .. }
            | OpKind::LocalSlice { .. }
            | OpKind::Multi { .. }
            | OpKind::RemoteLoad
            | OpKind::RemoteStore
            | OpKind::CallInput
            | OpKind::CallOutput => Err(self.no_gradient()),
        }
    }

    /// `dA = dY B^T` and `dB = A^T dY`, as passes of the same training product
    /// (PopART, `MatMulLhsGradOp` and `MatMulRhsGradOp`).
    fn matmul(
        &mut self,
        dy: TensorId,
        pass: MatMulPass,
        product: impl Fn(usize, MatMulPass) -> OpKind,
    ) -> Result<()> {
        let (of_left, of_right) = match pass {
            MatMulPass::TrainingFwd => (MatMulPass::TrainingBwd, MatMulPass::TrainingWu),
            MatMulPass::None
            | MatMulPass::InferenceFwd
            | MatMulPass::TrainingBwd
            | MatMulPass::TrainingWu => (MatMulPass::None, MatMulPass::None),
        };
        let (left, right) = (self.forward.inputs[0], self.forward.inputs[1]);
        if self.wants(0) {
            let transposed = self.transposed(right)?;
            let dx = self.add(product(0, of_left), &[dy, transposed])?;
            self.give(0, dx);
        }
        if self.wants(1) {
            let transposed = self.transposed(left)?;
            let dx = self.add(product(1, of_right), &[transposed, dy])?;
            self.give(1, dx);
        }
        Ok(())
    }

    /// The gradient of a product in the type of its operands: an addend's is that of the sum,
    /// which was cast to that type.
    fn as_operand(&mut self, dy: TensorId) -> Result<TensorId> {
        let to = self.dtype(0);
        if self.ctx.graph.tensors[dy].dtype == to {
            return Ok(dy);
        }
        match self.ctx.narrow.get(&dy) {
            Some(&narrow) if self.ctx.graph.tensors[narrow].dtype == to => Ok(narrow),
            _ => self.add(OpKind::Cast { to }, &[dy]),
        }
    }

    /// A tensor with its last two axes swapped.
    fn transposed(&mut self, tensor: TensorId) -> Result<TensorId> {
        let rank = self.ctx.graph.tensors[tensor].shape.rank();
        let mut perm: SmallVec<[u32; 4]> = (0_u32..).take(rank).collect();
        perm.swap(rank - 2, rank - 1);
        self.add(OpKind::Transpose { perm }, &[tensor])
    }

    fn binary(&mut self, function: BinaryFn, dy: TensorId) -> Result<()> {
        let (left, right) = (self.forward.inputs[0], self.forward.inputs[1]);
        let multiply = OpKind::Binary(BinaryFn::Mul);
        let divide = OpKind::Binary(BinaryFn::Div);
        let negate = OpKind::Unary(UnaryFn::Neg);
        if self.wants(0) {
            let part = match function {
                BinaryFn::Add | BinaryFn::Sub => dy,
                BinaryFn::Mul => self.add(multiply.clone(), &[dy, right])?,
                BinaryFn::Div => self.add(divide.clone(), &[dy, right])?,
                BinaryFn::Max => return Err(self.no_gradient()),
            };
            let part = self.summed_to(part, &self.shape(0))?;
            self.give(0, part);
        }
        if self.wants(1) {
            let part = match function {
                BinaryFn::Add => dy,
                BinaryFn::Sub => self.add(negate, &[dy])?,
                BinaryFn::Mul => self.add(multiply, &[dy, left])?,
                BinaryFn::Div => {
                    let product = self.add(multiply, &[dy, self.forward.outputs[0]])?;
                    let quotient = self.add(divide, &[product, right])?;
                    self.add(negate, &[quotient])?
                }
                BinaryFn::Max => return Err(self.no_gradient()),
            };
            let part = self.summed_to(part, &self.shape(1))?;
            self.give(1, part);
        }
        Ok(())
    }

    /// The sum over the axes along which `shape` was stretched to the tensor's.
    fn summed_to(&mut self, tensor: TensorId, shape: &Shape) -> Result<TensorId> {
        let from = self.ctx.graph.tensors[tensor].shape.clone();
        if from == *shape {
            return Ok(tensor);
        }
        let missing = from.rank() - shape.rank();
        let stretched = |axis: usize| {
            axis < missing || (shape.dims()[axis - missing] == 1 && from.dims()[axis] != 1)
        };
        let axes = (0_u32..)
            .zip(0..from.rank())
            .filter(|&(_, axis)| stretched(axis))
            .map(|(axis, _)| axis)
            .collect();
        let keep_dims = false;
        let sum = self.add(OpKind::ReduceSum { axes, keep_dims }, &[tensor])?;
        if self.ctx.graph.tensors[sum].shape == *shape {
            return Ok(sum);
        }
        let shape = shape.clone();
        self.add(OpKind::Reshape { shape }, &[sum])
    }

    fn concat(&mut self, axis: u32, dy: TensorId) -> Result<()> {
        let mut begin = 0;
        for operand in 0..self.forward.inputs.len() {
            let end = begin + self.shape(operand).dims()[axis as usize];
            if self.wants(operand) {
                let part = self.add(OpKind::Slice { axis, begin, end }, &[dy])?;
                self.give(operand, part);
            }
            begin = end;
        }
        Ok(())
    }

    fn reduce_sum(&mut self, axes: &[u32], dy: TensorId) -> Result<()> {
        let shape = self.shape(0);
        let kept = axes
            .iter()
            .fold(shape.clone(), |kept, &axis| kept.with(axis as usize, 1));
        let dy = if self.ctx.graph.tensors[dy].shape == kept {
            dy
        } else {
            self.add(OpKind::Reshape { shape: kept }, &[dy])?
        };
        self.replace(OpKind::Broadcast { shape }, &[dy])
    }

    fn layer_norm(&mut self, dy: TensorId) -> Result<()> {
        let (inputs, outputs) = (&self.forward.inputs, &self.forward.outputs);
        let operands = [inputs[0], inputs[1], outputs[1], outputs[2], dy];
        let op = self
            .ctx
            .graph
            .add_op(OpKind::LayerNormGrad, &operands, &self.scope)?;
        for operand in 0..3 {
            let gradient = self.ctx.graph.ops[op].outputs[operand];
            self.give(operand, gradient);
        }
        Ok(())
    }

    /// The loss of a softmax: its gradient goes past the softmax to the logits. It
    /// is exact where the label's probability is above the smallest that the
    /// logarithm sees (PopART, pattern `NlllWithSoftmaxGradDirect`).
    fn nll_of_softmax(&mut self, gradient: OpKind, dloss: TensorId) -> Result<()> {
        let (probabilities, labels) = (self.forward.inputs[0], self.forward.inputs[1]);
        let softmax = self.ctx.producers[probabilities]
            .map(|op| &self.ctx.graph.ops[op])
            .filter(|op| op.kind == OpKind::Softmax);
        let Some(logits) = softmax.map(|op| op.inputs[0]) else {
            return Err(self.no_gradient());
        };
        if self.ctx.depends[logits] {
            let dlogits = self.add(gradient, &[probabilities, labels, dloss])?;
            self.give_to(logits, dlogits);
        }
        Ok(())
    }

    fn add(&mut self, kind: OpKind, operands: &[TensorId]) -> Result<TensorId> {
        Ok(self.ctx.graph.add(kind, operands, &self.scope)?)
    }

    /// The first operand's gradient is one operation.
    fn replace(&mut self, kind: OpKind, operands: &[TensorId]) -> Result<()> {
        if self.wants(0) {
            let gradient = self.add(kind, operands)?;
            self.give(0, gradient);
        }
        Ok(())
    }

    fn wants(&self, operand: usize) -> bool {
        self.ctx.depends[self.forward.inputs[operand]]
    }

    fn give(&mut self, operand: usize, gradient: TensorId) {
        self.give_to(self.forward.inputs[operand], gradient);
    }

    fn give_to(&mut self, tensor: TensorId, gradient: TensorId) {
        if self.ctx.depends[tensor] {
            let from = Some(self.id);
            self.ctx.partials[tensor].push(PartialGradient { gradient, from });
        }
    }

    fn shape(&self, operand: usize) -> Shape {
        self.ctx.graph.tensors[self.forward.inputs[operand]]
            .shape
            .clone()
    }

    fn dtype(&self, operand: usize) -> DType {
        self.ctx.graph.tensors[self.forward.inputs[operand]].dtype
    }

    fn no_gradient(&self) -> GradError {
        GradError::NoGradient {
            op: OpLabel::new(&self.forward.kind, &self.forward.name),
        }
    }
}

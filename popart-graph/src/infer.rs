//! Shapes and types of every operation.
//!
//! One rule for each kind: which operands it takes, and what its results are.
//! The rules follow PopART's operator definitions; where PopART reads a shape
//! from a constant operand, here it is an attribute.

mod checks;
mod error;

use ipu_sim::numerics::DType;
use smallvec::{SmallVec, smallvec};

pub use self::error::{AttributeName, InferError};

use self::error::Result;
use crate::ir::{MultiKind, OpKind, Piece, Reduction, Shape, TensorType};

/// Types of an operation's results.
pub type Types = SmallVec<[TensorType; 2]>;

/// The types of the results of `kind` on operands of types `inputs`; `name` is for
/// messages.
///
/// # Errors
/// The first reason why the operands don't fit the kind or why an attribute is
/// out of range.
pub fn infer(kind: &OpKind, name: &str, inputs: &[TensorType]) -> Result<Types> {
    let op = Operands { kind, name, inputs };
    match kind {
        OpKind::MatMul { piece, .. } => op.matmul(*piece),
        OpKind::Binary(_) => op.binary(),
        OpKind::Scale { factor } => {
            op.finite(AttributeName::Factor, *factor)?;
            op.float_map()
        }
        OpKind::Unary(_) | OpKind::Softmax | OpKind::AllReduce => op.float_map(),
        OpKind::UnaryGrad(_) | OpKind::SoftmaxGrad => op.alike(2),
        OpKind::Cast { to } => {
            op.count(1)?;
            one(*to, op.shape(0).clone())
        }
        OpKind::Identity
        | OpKind::Detach
        | OpKind::Zero
        | OpKind::CallInput
        | OpKind::CallOutput
        | OpKind::RemoteLoad
        | OpKind::RemoteStore
        | OpKind::IpuCopy { .. } => op.same(),
        OpKind::Stash { slots } | OpKind::Restore { slots } => {
            op.at_least_one(AttributeName::Slots, *slots)?;
            op.same()
        }

        OpKind::Reshape { shape } => op.reshape(shape),
        OpKind::Transpose { perm } => op.transpose(perm),
        OpKind::Slice { axis, begin, end } => op.slice(*axis, *begin, *end),
        OpKind::Concat { axis } => op.concat(*axis),
        OpKind::Pad {
            axis,
            before,
            after,
        } => op.pad(*axis, *before, *after),
        OpKind::Broadcast { shape } => op.broadcast(shape),
        OpKind::ReduceSum { axes, keep_dims } => op.reduce_sum(axes, *keep_dims),

        OpKind::LayerNorm { epsilon } => op.layer_norm(*epsilon),
        OpKind::LayerNormGrad => op.layer_norm_grad(),
        OpKind::Dropout { probability, .. } => op.dropout(*probability),

        OpKind::Gather { .. } => op.gather(),
        OpKind::GatherGrad { rows, .. } => op.gather_grad(*rows),
        OpKind::OneHot { depth, dtype } => op.one_hot(*depth, *dtype),
        OpKind::SequenceMask {
            sequence_length,
            mask_tokens,
            dtype,
        } => op.sequence_mask(*sequence_length, *mask_tokens, *dtype),

        OpKind::AttentionMask => op.attention_mask(),

        OpKind::NllLoss { reduction, .. } => {
            op.count(2)?;
            op.probabilities_and_labels()?;
            one(DType::F32, op.loss_shape(*reduction))
        }
        OpKind::NllSoftmaxGrad { reduction, .. } => {
            op.count(3)?;
            op.probabilities_and_labels()?;
            op.dtype(2, DType::F32)?;
            op.has_shape(2, &op.loss_shape(*reduction))?;
            Ok(smallvec![op.inputs[0].clone()])
        }
        OpKind::Accuracy { weighted, .. } => {
            op.count(if *weighted { 3 } else { 2 })?;
            op.probabilities_and_labels()?;
            if *weighted {
                op.dtype(2, DType::U32)?;
                op.has_shape(2, op.shape(1))?;
            }
            one(DType::F32, Shape::from([2]))
        }

        OpKind::Accumulate { factor } => {
            op.finite(AttributeName::Factor, *factor)?;
            op.floats_of_first_shape(2)
        }
        OpKind::SparseAccumulate { factor, .. } => {
            op.finite(AttributeName::Factor, *factor)?;
            op.sparse_accumulate()
        }
        OpKind::AdamMoment { beta, .. } => {
            op.within_unit(AttributeName::Beta, *beta)?;
            op.floats_of_first_shape(2)
        }
        OpKind::AdamUpdater {
            epsilon,
            weight_decay,
            bias_correction,
        } => {
            op.finite(AttributeName::Epsilon, *epsilon)?;
            op.finite(AttributeName::WeightDecay, weight_decay.unwrap_or(0.0))?;
            if let Some(betas) = bias_correction {
                op.within_unit(AttributeName::Beta1, betas.beta1)?;
                op.within_unit(AttributeName::Beta2, betas.beta2)?;
            }
            op.adam_updater(weight_decay.is_some(), bias_correction.is_some())
        }
        OpKind::SquareSum => {
            op.count(1)?;
            op.float(0)?;
            one(DType::F32, Shape::scalar())
        }
        OpKind::AdamUpdate => op.weight_update(2, 1),
        OpKind::LambUpdate { max_weight_norm } => {
            op.finite(AttributeName::MaxWeightNorm, *max_weight_norm)?;
            op.weight_update(2, 3)
        }
        OpKind::SgdUpdate {
            scale,
            weight_decay,
        } => {
            op.finite(AttributeName::Scale, *scale)?;
            op.finite(AttributeName::WeightDecay, *weight_decay)?;
            op.weight_update(2, 1)
        }
        OpKind::SgdMomentum {
            momentum,
            weight_decay,
        } => {
            op.finite(AttributeName::Momentum, *momentum)?;
            op.finite(AttributeName::WeightDecay, *weight_decay)?;
            op.weight_update(2, 0)
        }

        OpKind::ReduceScatter { shards } => {
            op.float_map()?;
            op.shard(*shards)
        }
        OpKind::LocalSlice { shards } => op.shard(*shards),
        OpKind::AllGather { shards, shape } => op.all_gather(*shards, shape),
        OpKind::Multi { kind, ipus } => op.multi(kind, ipus.len()),
    }
}

fn one(dtype: DType, shape: impl Into<Shape>) -> Result<Types> {
    Ok(smallvec![TensorType::new(dtype, shape)])
}

/// An operation being checked.
struct Operands<'a> {
    kind: &'a OpKind,
    name: &'a str,
    inputs: &'a [TensorType],
}

/// Rules for one kind each, or for a few that are alike.
impl Operands<'_> {
    /// One operand of any type, and a result like it.
    fn same(&self) -> Result<Types> {
        self.count(1)?;
        Ok(smallvec![self.inputs[0].clone()])
    }

    /// One float operand, and a result like it.
    fn float_map(&self) -> Result<Types> {
        self.alike(1)
    }

    /// `n` float operands of one type and shape, and a result like them.
    fn alike(&self, n: usize) -> Result<Types> {
        self.count(n)?;
        self.float(0)?;
        for operand in 1..n {
            self.dtype(operand, self.inputs[0].dtype)?;
            self.has_shape(operand, self.shape(0))?;
        }
        Ok(smallvec![self.inputs[0].clone()])
    }

    /// `n` floats of any type but one shape, and a result like the first.
    fn floats_of_first_shape(&self, n: usize) -> Result<Types> {
        self.count(n)?;
        for operand in 0..n {
            self.float(operand)?;
            self.has_shape(operand, self.shape(0))?;
        }
        Ok(smallvec![self.inputs[0].clone()])
    }

    /// `n` floats of one shape, then `scalars` f32 numbers; a result like the first.
    fn weight_update(&self, n: usize, scalars: usize) -> Result<Types> {
        self.count(n + scalars)?;
        for operand in n..n + scalars {
            self.scalar_f32(operand)?;
        }
        Operands {
            inputs: &self.inputs[..n],
            ..*self
        }
        .floats_of_first_shape(n)
    }

    fn matmul(&self, piece: Piece) -> Result<Types> {
        self.count(2)?;
        self.float(0)?;
        self.dtype(1, self.inputs[0].dtype)?;
        let (left, right) = (self.shape(0).dims(), self.shape(1).dims());
        let [batch @ .., m, k] = left else {
            return Err(self.rank_error(0, 2));
        };
        if right.len() != left.len() {
            return Err(self.rank_error(1, left.len()));
        }
        let [right_batch @ .., right_k, n] = right else {
            return Err(self.rank_error(1, 2));
        };
        self.sizes("inner dimensions", *k, *right_k)?;
        for (&expected, &got) in batch.iter().zip(right_batch) {
            self.sizes("batch dimensions", expected, got)?;
        }
        let shape: Shape = batch.iter().copied().chain([*m, *n]).collect();
        let dtype = match piece {
            Piece::Whole | Piece::Columns => self.inputs[0].dtype,
            Piece::Addend => DType::F32,
        };
        one(dtype, shape)
    }

    fn binary(&self) -> Result<Types> {
        self.count(2)?;
        self.float(0)?;
        self.dtype(1, self.inputs[0].dtype)?;
        let (left, right) = (self.shape(0), self.shape(1));
        let shape = left
            .broadcast(right)
            .ok_or_else(|| self.broadcast_error(left, right))?;
        one(self.inputs[0].dtype, shape)
    }

    fn reshape(&self, shape: &Shape) -> Result<Types> {
        self.count(1)?;
        let (expected, got) = (self.shape(0).elements(), shape.elements());
        if expected != got {
            return Err(InferError::Sizes {
                op: self.label(),
                what: "numbers of elements",
                expected: expected.0,
                got: got.0,
            });
        }
        one(self.inputs[0].dtype, shape.clone())
    }

    fn transpose(&self, perm: &[u32]) -> Result<Types> {
        self.count(1)?;
        self.rank(0, perm.len())?;
        let mut seen = vec![false; perm.len()];
        for &axis in perm {
            let position = self.axis(axis)?;
            if std::mem::replace(&mut seen[position], true) {
                return Err(self.attribute(AttributeName::Perm, "each axis once", axis.into()));
            }
        }
        let dims = self.shape(0).dims();
        let shape: Shape = perm.iter().map(|&axis| dims[axis as usize]).collect();
        one(self.inputs[0].dtype, shape)
    }

    fn slice(&self, axis: u32, begin: u32, end: u32) -> Result<Types> {
        self.count(1)?;
        let position = self.axis(axis)?;
        let size = self.shape(0).dims()[position];
        if begin > end || end > size {
            return Err(InferError::Range {
                op: self.label(),
                begin,
                end,
                size,
            });
        }
        one(
            self.inputs[0].dtype,
            self.shape(0).with(position, end - begin),
        )
    }

    fn concat(&self, axis: u32) -> Result<Types> {
        if self.inputs.is_empty() {
            self.count(1)?;
        }
        let position = self.axis(axis)?;
        let mut total = 0_u32;
        for operand in 0..self.inputs.len() {
            self.dtype(operand, self.inputs[0].dtype)?;
            self.rank(operand, self.shape(0).rank())?;
            let size = self.shape(operand).dims()[position];
            self.has_shape(operand, &self.shape(0).with(position, size))?;
            total = self.sum(AttributeName::Size, total, size)?;
        }
        one(self.inputs[0].dtype, self.shape(0).with(position, total))
    }

    fn pad(&self, axis: u32, before: u32, after: u32) -> Result<Types> {
        self.count(1)?;
        self.float(0)?;
        let position = self.axis(axis)?;
        let size = self.sum(
            AttributeName::Before,
            self.shape(0).dims()[position],
            before,
        )?;
        let size = self.sum(AttributeName::After, size, after)?;
        one(self.inputs[0].dtype, self.shape(0).with(position, size))
    }

    fn broadcast(&self, shape: &Shape) -> Result<Types> {
        self.count(1)?;
        if self.shape(0).broadcast(shape).as_ref() != Some(shape) {
            return Err(self.broadcast_error(self.shape(0), shape));
        }
        one(self.inputs[0].dtype, shape.clone())
    }

    fn reduce_sum(&self, axes: &[u32], keep_dims: bool) -> Result<Types> {
        self.count(1)?;
        self.float(0)?;
        for (position, &axis) in axes.iter().enumerate() {
            self.axis(axis)?;
            if position > 0 && axes[position - 1] >= axis {
                return Err(self.attribute(AttributeName::Axes, "increasing axes", axis.into()));
            }
        }
        let shape: Shape = (0_u32..)
            .zip(self.shape(0).dims())
            .filter_map(|(axis, &size)| match (axes.contains(&axis), keep_dims) {
                (false, _) => Some(size),
                (true, true) => Some(1),
                (true, false) => None,
            })
            .collect();
        one(self.inputs[0].dtype, shape)
    }

    fn layer_norm(&self, epsilon: f64) -> Result<Types> {
        self.finite(AttributeName::Epsilon, epsilon)?;
        self.count(3)?;
        self.float(0)?;
        self.rank(0, 2)?;
        let &[rows, columns] = self.shape(0).dims() else {
            return Err(self.rank_error(0, 2));
        };
        for operand in [1, 2] {
            self.dtype(operand, self.inputs[0].dtype)?;
            self.has_shape(operand, &Shape::from([columns]))?;
        }
        let statistic = TensorType::new(DType::F32, [rows]);
        Ok(smallvec![
            self.inputs[0].clone(),
            statistic.clone(),
            statistic
        ])
    }

    fn layer_norm_grad(&self) -> Result<Types> {
        self.count(5)?;
        self.float(0)?;
        let &[rows, columns] = self.shape(0).dims() else {
            return Err(self.rank_error(0, 2));
        };
        self.dtype(1, self.inputs[0].dtype)?;
        self.has_shape(1, &Shape::from([columns]))?;
        for operand in [2, 3] {
            self.dtype(operand, DType::F32)?;
            self.has_shape(operand, &Shape::from([rows]))?;
        }
        self.dtype(4, self.inputs[0].dtype)?;
        self.has_shape(4, self.shape(0))?;
        Ok(smallvec![
            self.inputs[0].clone(),
            self.inputs[1].clone(),
            self.inputs[1].clone()
        ])
    }

    fn dropout(&self, probability: f64) -> Result<Types> {
        self.within_unit(AttributeName::Probability, probability)?;
        self.count(2)?;
        self.float(0)?;
        self.dtype(1, DType::U32)?;
        self.has_shape(1, &Shape::from([2]))?;
        Ok(smallvec![self.inputs[0].clone()])
    }

    fn gather(&self) -> Result<Types> {
        self.count(2)?;
        self.float(0)?;
        self.rank(0, 2)?;
        let samples = self.indices(1)?;
        one(self.inputs[0].dtype, self.shape(0).with(0, samples))
    }

    fn gather_grad(&self, rows: u32) -> Result<Types> {
        self.count(2)?;
        self.float(0)?;
        self.rank(0, 2)?;
        let samples = self.indices(1)?;
        self.sizes("numbers of rows and indices", self.dim(0, 0), samples)?;
        one(self.inputs[0].dtype, self.shape(0).with(0, rows))
    }

    fn sparse_accumulate(&self) -> Result<Types> {
        self.count(3)?;
        for operand in [0, 1] {
            self.float(operand)?;
            self.rank(operand, 2)?;
        }
        let samples = self.indices(2)?;
        self.sizes("numbers of rows and indices", self.dim(1, 0), samples)?;
        self.sizes("row lengths", self.dim(0, 1), self.dim(1, 1))?;
        Ok(smallvec![self.inputs[0].clone()])
    }

    fn one_hot(&self, depth: u32, dtype: DType) -> Result<Types> {
        self.float_attribute(dtype)?;
        self.count(1)?;
        let samples = self.indices(0)?;
        one(dtype, [samples, depth])
    }

    fn sequence_mask(
        &self,
        sequence_length: u32,
        mask_tokens: Option<u32>,
        dtype: DType,
    ) -> Result<Types> {
        self.float_attribute(dtype)?;
        self.count(if mask_tokens.is_some() { 2 } else { 1 })?;
        self.rank(0, 2)?;
        let micro_batch = self.dim(0, 0);
        for operand in 0..self.inputs.len() {
            self.dtype(operand, DType::U32)?;
            self.has_shape(operand, &Shape::from([micro_batch, 1]))?;
        }
        one(dtype, [micro_batch, 1, 1, sequence_length])
    }

    fn attention_mask(&self) -> Result<Types> {
        self.count(2)?;
        self.dtype(0, DType::U32)?;
        self.rank(0, 2)?;
        self.float(1)?;
        self.rank(1, 4)?;
        let (micro_batch, positions) = (self.dim(0, 0), self.dim(0, 1));
        let scores = self.shape(1).with(0, micro_batch);
        let scores = scores.with(2, positions).with(3, positions);
        self.has_shape(1, &scores)?;
        one(self.inputs[1].dtype, scores.with(1, 1))
    }

    /// Of the samples of the first operand: one number for all, or one for each.
    fn loss_shape(&self, reduction: Option<Reduction>) -> Shape {
        match reduction {
            Some(_) => Shape::scalar(),
            None => Shape::from([self.dim(0, 0)]),
        }
    }

    fn probabilities_and_labels(&self) -> Result<()> {
        self.float(0)?;
        self.rank(0, 2)?;
        let samples = self.indices(1)?;
        self.sizes("numbers of samples and labels", self.dim(0, 0), samples)
    }

    fn adam_updater(&self, weight: bool, step: bool) -> Result<Types> {
        let tensors = 2 + usize::from(weight);
        let moment = self.weight_update(tensors, usize::from(step))?;
        Ok(if weight {
            smallvec![self.inputs[2].clone()]
        } else {
            moment
        })
    }

    fn shard(&self, shards: u32) -> Result<Types> {
        self.at_least_one(AttributeName::Shards, shards)?;
        self.count(1)?;
        self.shardable(self.shape(0), shards)?;
        one(self.inputs[0].dtype, self.shape(0).shard(shards))
    }

    /// Every operand by the rule of its own collective; all of one type.
    fn multi(&self, kind: &MultiKind, n: usize) -> Result<Types> {
        self.at_least_one(AttributeName::Ipus, n as u32)?;
        self.count(n)?;
        if let MultiKind::AllGather { shapes, .. } = kind {
            self.count(shapes.len())?;
        }
        let mut types = Types::new();
        for (operand, input) in self.inputs.iter().enumerate() {
            self.dtype(operand, self.inputs[0].dtype)?;
            let member = kind
                .member(operand)
                .expect("it has as many shapes as operands");
            types.extend(infer(&member, self.name, std::slice::from_ref(input))?);
        }
        Ok(types)
    }

    fn all_gather(&self, shards: u32, shape: &Shape) -> Result<Types> {
        self.at_least_one(AttributeName::Shards, shards)?;
        self.count(1)?;
        self.shardable(shape, shards)?;
        self.has_shape(0, &shape.shard(shards))?;
        one(self.inputs[0].dtype, shape.clone())
    }
}

#[cfg(test)]
mod tests;

//! Operations: a closed list.
//!
//! Formulas of losses and optimisers are PopART's (`willow/src/op/nll.cpp`,
//! `adamupdater.cpp`, `adamvarupdate.cpp`, `sgd1varupdate.cpp` and their
//! lowerings); shapes of all results are in [`crate::infer`], numbers in
//! [`crate::eval`].

use std::fmt;

use ipu_sim::ids::IpuId;
use ipu_sim::numerics::DType;
use smallvec::SmallVec;

use super::{
    BiasCorrection, BinaryFn, MatMulPass, MemoryProportion, PartId, Partials, Phase, Piece,
    Purpose, Recompute, Reduction, Shape, StageId, TensorId, UnaryFn,
};

/// One operation, where it runs and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// Kind of operation, with its attributes.
    pub kind: OpKind,
    /// Operands, in the order that the kind's documentation gives.
    pub inputs: SmallVec<[TensorId; 4]>,
    /// Results, in the order that the kind's documentation gives.
    pub outputs: SmallVec<[TensorId; 2]>,
    /// Scope path such as `Layer3/Attention/Out`, for people and profiles.
    pub name: String,
    /// The IPU within a replica that runs it; `None` before placement.
    pub ipu: Option<IpuId>,
    /// The pipeline stage it belongs to; `None` without a pipeline and in the
    /// weight update.
    pub stage: Option<StageId>,
    /// The part of the model that it belongs to; `None` if it belongs to none.
    pub part: Option<PartId>,
    /// Which phase of a training step it belongs to.
    pub phase: Phase,
    /// Whether its results are kept for the backward pass or computed again.
    pub recompute: Recompute,
    /// Purpose of the operation, if its kind doesn't say.
    pub purpose: Purpose,
}

impl Op {
    /// The IPU of operand `operand`: its own, but for collectives of several IPUs.
    #[must_use]
    pub fn operand_ipu(&self, operand: usize) -> Option<IpuId> {
        match &self.kind {
            OpKind::Multi { ipus, .. } => ipus.get(operand).copied().or(self.ipu),
            _ => self.ipu,
        }
    }

    /// The IPU of result `result`: its own, but for copies and collectives of several IPUs.
    #[must_use]
    pub fn result_ipu(&self, result: usize) -> Option<IpuId> {
        match &self.kind {
            OpKind::IpuCopy { to } => Some(*to),
            _ => self.operand_ipu(result),
        }
    }

    /// Scope of the operation, for another one beside it.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope {
            name: self.name.clone(),
            ipu: self.ipu,
            stage: self.stage,
            part: self.part,
            phase: self.phase,
            recompute: self.recompute,
            purpose: self.purpose,
        }
    }
}

/// An operation in a message: ``matmul `qk` ``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpLabel {
    /// The word for what it computes.
    pub kind: &'static str,
    /// Scope path of the operation.
    pub name: String,
}

impl OpLabel {
    /// The label of an operation.
    #[must_use]
    pub fn new(kind: &OpKind, name: &str) -> Self {
        Self {
            kind: kind.name(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for OpLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// Surroundings that operations made together have in common: all of an [`Op`] but what it
/// computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// Scope path.
    pub name: String,
    /// See [`Op::ipu`].
    pub ipu: Option<IpuId>,
    /// See [`Op::stage`].
    pub stage: Option<StageId>,
    /// See [`Op::part`].
    pub part: Option<PartId>,
    /// See [`Op::phase`].
    pub phase: Phase,
    /// See [`Op::recompute`].
    pub recompute: Recompute,
    /// See [`Op::purpose`].
    pub purpose: Purpose,
}

impl Scope {
    /// A forward operation that is not placed yet.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ipu: None,
            stage: None,
            part: None,
            phase: Phase::Forward,
            recompute: Recompute::Checkpoint,
            purpose: Purpose::General,
        }
    }
}

/// Score that [`OpKind::SequenceMask`] adds to attention scores that must not count (BERT
/// application, `attention_mask`).
pub const MASKED_SCORE: f64 = -1000.0;

/// Scale of the scores that [`OpKind::AttentionMask`] gives, where `tanh` is 1 (BERT application,
/// the custom operation `AttentionMask`).
pub const MASKED_PAIR_SCORE: f64 = -10_000.0;

/// The smallest probability that the logarithm of [`OpKind::NllLoss`] sees, by the
/// type of the probabilities (PopART, lowering of `nll`).
#[must_use]
pub fn nll_smallest_probability(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 6.104e-5,
        DType::F32 | DType::U32 => 1e-7,
    }
}

/// Kind of operation. `->` separates operands from results; a float is
/// `f16` or `f32`, and results have the element type of the first operand unless
/// said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum OpKind {
    /// Matrix product: `[.., m, k], [.., k, n] -> [.., m, n]`, leading axes equal; `f32` if it is
    /// an addend.
    MatMul {
        /// Training pass, for the planner.
        pass: MatMulPass,
        /// Memory for temporaries.
        available_memory_proportion: MemoryProportion,
        /// Type of partial sums.
        partials: Partials,
        /// Of a larger product.
        piece: Piece,
    },
    /// Element-wise on two floats of one type, broadcast by numpy's rule.
    Binary(BinaryFn),
    /// Multiplication of a float tensor by a number.
    Scale {
        /// The number.
        factor: f64,
    },
    /// Element-wise on one float tensor.
    Unary(UnaryFn),
    /// `saved, dy -> dx` of an element-wise function; [`saved`](super::saved) says
    /// what is saved.
    UnaryGrad(UnaryFn),
    /// Conversion to another element type; to `u32` by truncation.
    Cast {
        /// The type of the result.
        to: DType,
    },
    /// The operand itself.
    Identity,
    /// The operand itself; no gradient flows back.
    Detach,

    /// The same elements in row-major order under other sizes.
    Reshape {
        /// Sizes of the result.
        shape: Shape,
    },
    /// Axes in another order: axis `i` of the result is axis `perm[i]` of the operand.
    Transpose {
        /// The order.
        perm: SmallVec<[u32; 4]>,
    },
    /// Positions `begin..end` along one axis.
    Slice {
        /// The axis.
        axis: u32,
        /// First position.
        begin: u32,
        /// One past the last position.
        end: u32,
    },
    /// Operands one after the other along one axis.
    Concat {
        /// The axis.
        axis: u32,
    },
    /// Zeros put before and after along one axis: the gradient of [`OpKind::Slice`].
    Pad {
        /// The axis.
        axis: u32,
        /// Zeros before.
        before: u32,
        /// Zeros after.
        after: u32,
    },
    /// Stretched to a shape by numpy's rule: the gradient of [`OpKind::ReduceSum`].
    Broadcast {
        /// Sizes of the result.
        shape: Shape,
    },
    /// Sum over some axes.
    ReduceSum {
        /// The axes, increasing.
        axes: SmallVec<[u32; 4]>,
        /// Whether they stay, with size 1.
        keep_dims: bool,
    },

    /// Over the last axis, stable (the maximum is subtracted first).
    Softmax,
    /// `y, dy -> dx`: `y (dy - sum(y dy))` over the last axis.
    SoftmaxGrad,
    /// `x [t, h], gamma [h], beta [h] -> y [t, h], mean [t] f32, inv_std [t] f32`,
    /// with the biased variance: group normalisation with one group.
    LayerNorm {
        /// Added to the variance.
        epsilon: f64,
    },
    /// `x, gamma, mean, inv_std, dy -> dx, dgamma, dbeta`.
    LayerNormGrad,
    /// `x, seed [2] u32 -> y`: elements are zeroed with `probability`, others
    /// scaled by `1 / (1 - probability)`. The mask is a pure function
    /// ([`ipu_sim::numerics::dropout_keep`]) of seed, `id` and row-major position,
    /// so the gradient is the same operation on `dy`.
    Dropout {
        /// Of zeroing an element; at least 0, below 1.
        probability: f64,
        /// Distinguishes the uses of one seed.
        id: u32,
    },

    /// `table [r, h], indices [n] u32 -> [n, h]`. The table holds rows
    /// `first_row..first_row + r` of a larger one; other indices give zeros.
    Gather {
        /// The index of the table's first row.
        first_row: u32,
    },
    /// `dy [n, h], indices [n] u32 -> [rows, h]`: rows added up by index.
    GatherGrad {
        /// The index of the result's first row.
        first_row: u32,
        /// Rows of the result.
        rows: u32,
    },
    /// `indices [n] u32 -> [n, depth]`: 1 at the index, 0 elsewhere.
    OneHot {
        /// Classes.
        depth: u32,
        /// A float type.
        dtype: DType,
    },
    /// BERT's attention mask: 0 where a position may be attended to, else
    /// [`MASKED_SCORE`].
    /// `[mask_tokens_index [b, 1] u32,] sequence_index [b, 1] u32 -> [b, 1, 1, s]`.
    /// Position `p` is kept if `p < sequence_index` and, where the first
    /// `mask_tokens` positions hold masked tokens, `p < mask_tokens_index` or
    /// `p >= mask_tokens`.
    SequenceMask {
        /// `s`.
        sequence_length: u32,
        /// Positions reserved for masked tokens; `None` drops the first operand.
        mask_tokens: Option<u32>,
        /// A float type.
        dtype: DType,
    },

    /// The attention mask of rows that hold several sequences: 0 where two positions have the same
    /// number, else [`MASKED_PAIR_SCORE`] times `tanh` of how far their numbers are apart.
    /// `numbers [b, s] u32, scores [b, a, s, s] -> [b, 1, s, s]`, in the type of the scores, of
    /// which no value is read: they say how the mask lies, and that it is made after them. No
    /// gradient flows back.
    AttentionMask,

    /// `probabilities [n, c], labels [n] u32 -> loss [] f32`: the reduced
    /// `-log(max(p, eps))`, with [`nll_smallest_probability`] as eps.
    NllLoss {
        /// Sum or mean; `None` keeps the loss of every sample, `[n] f32`.
        reduction: Option<Reduction>,
        /// The label of samples that don't count.
        ignore_index: Option<u32>,
    },
    /// `probabilities [n, c], labels [n] u32, dloss [] f32 -> dlogits [n, c]`:
    /// [`OpKind::NllLoss`] after [`OpKind::Softmax`], `(p - onehot) scale`; `dloss` is `[n]` if
    /// the loss is.
    NllSoftmaxGrad {
        /// Of the loss.
        reduction: Option<Reduction>,
        /// Of the loss.
        ignore_index: Option<u32>,
    },
    /// `probabilities [n, c], labels [n] u32 [, weights [n] u32] -> [2] f32`: samples whose
    /// largest probability (the first of equals) is at the label, and samples that count.
    Accuracy {
        /// The label of samples that don't count.
        ignore_index: Option<u32>,
        /// Whether samples have weights: those of weight 0 don't count.
        weighted: bool,
    },

    /// `accumulator, gradient -> accumulator + factor gradient`; the gradient may
    /// be of the other float type.
    Accumulate {
        /// 1, or the dampening of SGD with momentum.
        factor: f64,
    },
    /// `accumulator [r, h], dy [n, h], indices [n] u32 -> accumulator'`: a
    /// [`OpKind::GatherGrad`] added to the accumulator without the dense gradient.
    SparseAccumulate {
        /// The index of the accumulator's first row.
        first_row: u32,
        /// See [`OpKind::Accumulate`].
        factor: f64,
    },
    /// `t -> 0` of its type: an accumulator after the update.
    Zero,

    /// `moment, gradient -> beta moment + (1 - beta) gradient`, or `gradient^2`.
    AdamMoment {
        /// Decay.
        beta: f64,
        /// Whether the gradient is squared.
        square: bool,
    },
    /// `m, v [, w] [, step [] f32] -> x = m / (sqrt v + epsilon) [+ weight_decay w]`,
    /// in `w`'s type if there is one. With `bias_correction`, `m` and `v` are first
    /// divided by `1 - beta^step`; the step is the new one, 1 in the first update.
    AdamUpdater {
        /// Added to the root.
        epsilon: f64,
        /// Decoupled decay; `None` drops `w`.
        weight_decay: Option<f64>,
        /// `None` drops `step`.
        bias_correction: Option<BiasCorrection>,
    },
    /// `t -> [] f32`: the sum of squares, for LAMB's norms.
    SquareSum,
    /// `w, x, lr [] f32 -> w - lr x`.
    AdamUpdate,
    /// `w, x, |w|^2 [] f32, |x|^2 [] f32, lr [] f32 -> w - lr ratio x`, with
    /// `ratio = min(|w|, max_weight_norm) / |x|`, or 1 if one of the three is 0.
    LambUpdate {
        /// Clips the weight's norm.
        max_weight_norm: f64,
    },
    /// `w, v, lr [] f32 -> (1 - lr weight_decay) w - lr scale v`. SGD without
    /// momentum: `v` is the gradient, `scale = (1 - dampening) / (loss scale,
    /// accumulation and replication factors)`. With momentum: `v` is the velocity,
    /// `scale = 1 / (velocity scaling, replication factor)`, no decay.
    SgdUpdate {
        /// Multiplies the gradient or velocity.
        scale: f64,
        /// Decay times `1 - dampening`.
        weight_decay: f64,
    },
    /// `v, w -> momentum v + weight_decay w`: the velocity for the next step.
    SgdMomentum {
        /// Decay of the velocity.
        momentum: f64,
        /// Decay times `(1 - dampening)` times velocity scaling.
        weight_decay: f64,
    },

    /// The same value on another IPU; the operation itself stands on the source.
    IpuCopy {
        /// The destination.
        to: IpuId,
    },
    /// Into a ring of `slots` micro-batches. A graph describes one micro-batch, so
    /// the result stands for its slot and has the operand's shape; memory is
    /// `slots` times that.
    Stash {
        /// Micro-batches in flight.
        slots: u32,
    },
    /// Out of the ring of a [`OpKind::Stash`].
    Restore {
        /// As in the stash.
        slots: u32,
    },
    /// A copy of what a call of outlined code takes from outside.
    CallInput,
    /// A copy of what a call of outlined code hands out.
    CallOutput,
    /// Sum over all replicas, known to each.
    AllReduce,
    /// Sum over all replicas, of which each keeps its shard: `[..] -> [ceil(n / shards)]`.
    ReduceScatter {
        /// Replicas that hold the result together; replica `r` has shard `r % shards`.
        shards: u32,
    },
    /// All shards put together: `[ceil(n / shards)] -> shape`.
    AllGather {
        /// Replicas that hold the operand together.
        shards: u32,
        /// Sizes of the result.
        shape: Shape,
    },
    /// A replica's own shard of a value that all have: `[..] -> [ceil(n / shards)]`.
    LocalSlice {
        /// Replicas that hold the result together.
        shards: u32,
    },
    /// Collectives of one kind as one: operand `i`, on IPU `i` of the list, gives result `i` there
    /// (PopART, `MultiReplicatedAllReduceOp` and its like). The operation itself stands on the
    /// first of the IPUs.
    Multi {
        /// What is done to each.
        kind: MultiKind,
        /// One for each operand.
        ipus: SmallVec<[IpuId; 4]>,
    },
    /// From streaming memory; the operand is the variable that lives there.
    RemoteLoad,
    /// To streaming memory; the result is the variable's next value.
    RemoteStore,
}

/// Kind of work that an [`OpKind::Multi`] does on each of its operands.
#[derive(Clone, Debug, PartialEq)]
pub enum MultiKind {
    /// [`OpKind::AllReduce`].
    AllReduce,
    /// [`OpKind::ReduceScatter`].
    ReduceScatter {
        /// As there.
        shards: u32,
    },
    /// [`OpKind::AllGather`].
    AllGather {
        /// As there.
        shards: u32,
        /// Sizes of every result.
        shapes: Vec<Shape>,
    },
}

impl MultiKind {
    /// Kind of work on operand `operand`, as an operation of its own; `None` if the list of
    /// shapes doesn't reach so far.
    #[must_use]
    pub fn member(&self, operand: usize) -> Option<OpKind> {
        Some(match self {
            Self::AllReduce => OpKind::AllReduce,
            Self::ReduceScatter { shards } => OpKind::ReduceScatter { shards: *shards },
            Self::AllGather { shards, shapes } => OpKind::AllGather {
                shards: *shards,
                shape: shapes.get(operand)?.clone(),
            },
        })
    }
}

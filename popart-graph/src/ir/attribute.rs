//! What operations are annotated with.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use ipu_sim::vertex::UnaryFn;

use super::words;

words! {
    /// Part of a training step, in the order in which they depend on each other.
    Phase {
        /// From the inputs to the loss, once for every micro-batch.
        Forward = "fwd",
        /// From the loss to the gradients, once for every micro-batch.
        Backward = "bwd",
        /// Adding gradients to accumulators, once for every micro-batch.
        Accumulate = "acc",
        /// The weight update: the outer fragment, once after all micro-batches of an update. In a
        /// pipeline that doesn't accumulate, operations of it have a stage and run in that, once
        /// for every micro-batch.
        Update = "upd",
    }

    /// What becomes of an operation's results until the backward pass.
    Recompute {
        /// Kept, and stashed by a pipeline.
        Checkpoint = "checkpoint",
        /// Computed again just before the backward pass needs them.
        Recompute = "recompute",
    }

    /// What an operation is for, where its kind serves several ends, as `add` and `scale` do.
    Purpose {
        /// Nothing in particular.
        General = "general",
        /// Attention scores: how much each position of a sequence counts for another.
        Scores = "scores",
        /// An activation function that is made of several operations.
        ActivationFunction = "activation_function",
        /// A loss, and what is made of it for the host.
        Loss = "loss",
    }

    /// The kind of training pass that a matrix product belongs to, which decides
    /// the layouts its plan shares with its siblings (PopLibs,
    /// `fullyConnectedPass`).
    MatMulPass {
        /// On its own.
        None = "none",
        /// Forward, with weights that never change.
        InferenceFwd = "inference_fwd",
        /// Forward of training.
        TrainingFwd = "training_fwd",
        /// Gradient of the activation.
        TrainingBwd = "training_bwd",
        /// Gradient of the weight.
        TrainingWu = "training_wu",
    }

    /// The type of the partial sums of a matrix product.
    Partials {
        /// Binary16.
        Half = "half",
        /// Binary32.
        Float = "float",
    }

    /// What a matrix product is of a larger one that runs piece by piece and keeps the precision
    /// of its partial sums (PopART, `serializematmuls.cpp`, `keep_precision`).
    Piece {
        /// All of it.
        Whole = "whole",
        /// Some columns: what the pieces give the gradient of their left operand are addends.
        Columns = "columns",
        /// One of several addends, kept in `f32` until they are summed.
        Addend = "addend",
    }

    /// How a loss combines the samples.
    Reduction {
        /// Sum over the samples that count, divided by their number (at least 1).
        Mean = "mean",
        /// Sum over the samples that count.
        Sum = "sum",
    }

    /// Element-wise functions of two operands.
    BinaryFn {
        /// `a + b`.
        Add = "add",
        /// `a - b`.
        Sub = "sub",
        /// `a * b`.
        Mul = "mul",
        /// `a / b`.
        Div = "div",
        /// The larger of the two; no gradient flows back.
        Max = "max",
    }
}

/// Value that the gradient of an element-wise function reads besides the incoming
/// gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The function's operand.
    Input,
    /// The function's result.
    Output,
}

/// The value that [`OpKind::UnaryGrad`](super::OpKind::UnaryGrad) of a function takes: the result
/// for `tanh` and `sigmoid`, whose derivative it gives directly, else the operand.
#[must_use]
pub fn saved(function: UnaryFn) -> Saved {
    match function {
        UnaryFn::Tanh | UnaryFn::Sigmoid => Saved::Output,
        UnaryFn::Gelu
        | UnaryFn::GeluErf
        | UnaryFn::Relu
        | UnaryFn::Exp
        | UnaryFn::Log
        | UnaryFn::Sqrt
        | UnaryFn::Rsqrt
        | UnaryFn::Square
        | UnaryFn::Reciprocal
        | UnaryFn::Neg
        | UnaryFn::Abs => Saved::Input,
    }
}

/// The share of a tile's memory that a matrix product may use for temporaries,
/// above 0 and at most 1 (PopLibs, `availableMemoryProportion`).
///
/// Kept as the bits of an `f64`, so that it compares, orders and hashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(into = "f64", try_from = "f64")]
pub struct MemoryProportion(u64);

/// A number that is no share of a tile's memory.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a share of memory must be above 0 and at most 1, got {0}")]
pub struct NoProportion(pub f64);

impl TryFrom<f64> for MemoryProportion {
    type Error = NoProportion;

    fn try_from(value: f64) -> Result<Self, NoProportion> {
        Self::new(value).ok_or(NoProportion(value))
    }
}

impl From<MemoryProportion> for f64 {
    fn from(share: MemoryProportion) -> f64 {
        share.value()
    }
}

impl MemoryProportion {
    /// Proportion that PopLibs takes when nothing is said.
    pub const POPLIBS_DEFAULT: Self = Self(0.6_f64.to_bits());

    /// `value` as a proportion, if it is above 0 and at most 1.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        (value > 0.0 && value <= 1.0).then_some(Self(value.to_bits()))
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Display for MemoryProportion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl fmt::Debug for MemoryProportion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryProportion({})", self.value())
    }
}

/// The decay rates by which Adam corrects its moments in early steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BiasCorrection {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
}

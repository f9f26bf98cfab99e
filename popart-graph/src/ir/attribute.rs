//! What operations are annotated with.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    }

    /// Element-wise functions of one operand.
    UnaryFn {
        /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, the form PopLibs computes.
        Gelu = "gelu",
        /// `x/2 (1 + erf(x / sqrt 2))`, the form of models trained elsewhere.
        GeluErf = "gelu_erf",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// `max(x, 0)`.
        Relu = "relu",
        /// Exponential.
        Exp = "exp",
        /// Natural logarithm.
        Log = "log",
        /// Square root.
        Sqrt = "sqrt",
        /// `1 / sqrt x`.
        Rsqrt = "rsqrt",
        /// `x^2`.
        Square = "square",
        /// `1 / x`.
        Reciprocal = "reciprocal",
        /// `-x`.
        Neg = "neg",
        /// `1 / (1 + exp(-x))`.
        Sigmoid = "sigmoid",
    }
}

/// What the gradient of an element-wise function reads besides the incoming
/// gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The function's operand.
    Input,
    /// The function's result.
    Output,
}

impl UnaryFn {
    /// Which value [`OpKind::UnaryGrad`](super::OpKind::UnaryGrad) takes: the result for `tanh` and
    /// `sigmoid`, whose derivative it gives directly, else the operand.
    #[must_use]
    pub fn saved(self) -> Saved {
        match self {
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
            | UnaryFn::Neg => Saved::Input,
        }
    }

    /// The word for the gradient of this function.
    #[must_use]
    pub fn grad_name(self) -> &'static str {
        match self {
            UnaryFn::Gelu => "gelu_grad",
            UnaryFn::GeluErf => "gelu_erf_grad",
            UnaryFn::Tanh => "tanh_grad",
            UnaryFn::Relu => "relu_grad",
            UnaryFn::Exp => "exp_grad",
            UnaryFn::Log => "log_grad",
            UnaryFn::Sqrt => "sqrt_grad",
            UnaryFn::Rsqrt => "rsqrt_grad",
            UnaryFn::Square => "square_grad",
            UnaryFn::Reciprocal => "reciprocal_grad",
            UnaryFn::Neg => "neg_grad",
            UnaryFn::Sigmoid => "sigmoid_grad",
        }
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
    /// What PopLibs takes when nothing is said.
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

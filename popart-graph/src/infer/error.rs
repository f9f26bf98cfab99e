//! What can be wrong with the operands or the attributes of an operation?

use crate::ir::{OpLabel, Shape, words};

/// The result of inference.
pub(super) type Result<T> = std::result::Result<T, InferError>;

words! {
    /// An attribute of an operation that has a range.
    AttributeName {
        /// Factor of a scale or of what is accumulated.
        Factor = "factor",
        /// Micro-batches that a stash holds.
        Slots = "slots",
        /// Order of axes of a transposition.
        Perm = "perm",
        /// Axes that are summed over.
        Axes = "axes",
        /// Size of the joint axis of a concatenation.
        Size = "size",
        /// Zeros before what is padded.
        Before = "before",
        /// Zeros after what is padded.
        After = "after",
        /// Summand that keeps a divisor from 0.
        Epsilon = "epsilon",
        /// Probability of dropping an element.
        Probability = "probability",
        /// Decay of a moment.
        Beta = "beta",
        /// Decay of the first moment.
        Beta1 = "beta1",
        /// Decay of the second moment.
        Beta2 = "beta2",
        /// Decay of a weight.
        WeightDecay = "weight_decay",
        /// LAMB's limit on the norm of a weight.
        MaxWeightNorm = "max_weight_norm",
        /// Factor of the velocity.
        Scale = "scale",
        /// Decay of the velocity.
        Momentum = "momentum",
        /// Replicas that share a tensor.
        Shards = "shards",
        /// IPUs of a collective.
        Ipus = "ipus",
    }
}

/// Why an operation can't have these operands or these attributes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InferError {
    /// Too few or too many operands.
    #[error("{op}: wrong number of operands, expected {expected}, got {got}")]
    OperandCount {
        /// Where.
        op: OpLabel,
        /// Operands it takes.
        expected: usize,
        /// Operands it was given.
        got: usize,
    },
    /// An operand of an element type that the operation doesn't take.
    #[error("{op}: operand {operand} has the wrong type, expected {expected}, got {got}")]
    OperandType {
        /// Where.
        op: OpLabel,
        /// Position of the operand.
        operand: usize,
        /// What it takes.
        expected: &'static str,
        /// What it was given.
        got: &'static str,
    },
    /// An operand with too few or too many axes.
    #[error("{op}: operand {operand} has the wrong rank, expected {expected}, got {got}")]
    OperandRank {
        /// Where.
        op: OpLabel,
        /// Position of the operand.
        operand: usize,
        /// Axes it takes.
        expected: usize,
        /// Axes it was given.
        got: usize,
    },
    /// Two sizes that must be equal and aren't.
    #[error("{op}: {what} differ, expected {expected}, got {got}")]
    Sizes {
        /// Where.
        op: OpLabel,
        /// Which sizes.
        what: &'static str,
        /// What the others imply.
        expected: u64,
        /// What was found.
        got: u64,
    },
    /// An operand of the wrong shape.
    #[error("{op}: operand {operand} has the wrong shape, expected {expected}, got {got}")]
    OperandShape {
        /// Where.
        op: OpLabel,
        /// Position of the operand.
        operand: usize,
        /// What the others imply.
        expected: Shape,
        /// What was found.
        got: Shape,
    },
    /// Shapes that don't stretch to each other.
    #[error("{op}: shapes {left} and {right} don't broadcast")]
    Broadcast {
        /// Where.
        op: OpLabel,
        /// One shape.
        left: Shape,
        /// The other.
        right: Shape,
    },
    /// An axis that the operand doesn't have.
    #[error("{op}: axis {axis} is outside rank {rank}")]
    Axis {
        /// Where.
        op: OpLabel,
        /// The axis.
        axis: u32,
        /// Axes there are.
        rank: usize,
    },
    /// Positions that the operand doesn't have.
    #[error("{op}: range {begin}..{end} is outside 0..{size}")]
    Range {
        /// Where.
        op: OpLabel,
        /// First position.
        begin: u32,
        /// One past the last.
        end: u32,
        /// Positions there are.
        size: u32,
    },
    /// A result that must be a float and isn't.
    #[error("{op}: the result has the wrong type, expected a float, got u32")]
    ResultNotFloat {
        /// Where.
        op: OpLabel,
    },
    /// An attribute out of its range.
    #[error("{op}: {} is out of range, expected {expected}, got {got}", attribute.name())]
    Attribute {
        /// Where.
        op: OpLabel,
        /// Its name.
        attribute: AttributeName,
        /// Values it may have.
        expected: &'static str,
        /// The value it has.
        got: f64,
    },
}

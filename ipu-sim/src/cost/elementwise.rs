//! Element-wise vertices: what does one operation on `n` elements of one tile cost?
//!
//! Source: PopLibs `lib/popops/popopsCycleEstimators.{cpp,hpp}` and
//! `lib/popops/PerformanceEstimation.cpp`; popnn's for the non-linearities.
//!
//! Two kinds of vertex, two return types.
//! A MultiVertex ("1-D") splits one contiguous region over the workers by itself and
//! its law returns tile [`Cycles`](crate::units::Cycles).
//! A worker vertex ("2-D") is run by one worker on its own list of regions and its law
//! returns [`WorkerCycles`]; the slowest worker of the tile decides, so take the largest
//! and put it [on the tile](WorkerCycles::on_tile).
//!
//! Left out, as in the source: dispatch of the compute set, sync, and the copies that
//! bring operands into contiguous memory. Operands are taken to be 64-bit aligned.
//! A call for an element type that has no such vertex is a bug in the caller, and panics.

pub mod binary;
pub mod broadcast;
pub mod cast;
pub mod fused;
pub mod nonlinearity;
pub mod pointwise;
pub mod scaled_add;
pub mod unary;
pub mod vector_inner;
pub mod worker;

pub use binary::{BinaryOp, binary_1d, binary_2d};
pub use broadcast::{
    Alignment, Matrix, ScalarOperand, broadcast_outer_by_column, broadcast_outer_by_row,
    broadcast_scalar_1d, broadcast_scalar_2d,
};
pub use cast::{cast, cast_1d, cast_1d_one_worker, cast_2d, check_accuracy_when_cast};
pub use fused::{MapExpression, MapOp, map};
pub use nonlinearity::{NonLinearity, NonLinearityGrad, nonlinearity, nonlinearity_grad};
pub use pointwise::{clamp, hadamard, inverse_std_dev, scalar_multiply, select};
pub use scaled_add::{
    OperandMemory, Scale, ScaledAdd, ScaledForm, scaled_add_1d, scaled_add_2d, scaled_add_mixed,
};
pub use unary::{UnaryOp, unary_1d, unary_2d};
pub use vector_inner::{VectorInner, VectorInnerOp, vector_inner};
pub use worker::WorkerCycles;

/// Tile cycles that a supervisor spends to start a vertex and return
/// (PopLibs `basicOpSupervisorOverhead`).
pub(crate) const SUPERVISOR_OVERHEAD: u64 = 11;

/// Where a vertex writes its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// Into a tensor of its own.
    New,
    /// Over its first operand.
    InPlace,
}

/// How the inner loop of an element-wise vertex advances.
///
/// Retyped from `OpPerformanceInfo` of PopLibs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InnerLoop {
    /// One 64-bit vector a pass: arithmetic cycles, without loads, stores and branch.
    Natural(u64),
    /// So many cycles, everything included, for so many elements.
    Unrolled(u64, u64),
    /// One element a pass: arithmetic cycles, without loads, stores and branch.
    Scalar(u64),
}

//! Element-wise vertices: what does one operation on `n` elements of one tile cost?
//!
//! Source: PopLibs `lib/popops/popopsCycleEstimators.{cpp,hpp}` and
//! `lib/popops/PerformanceEstimation.cpp`; popnn's for the non-linearities.
//!
//! Two kinds of vertex, two return types.
//! A MultiVertex ("1-D") splits one contiguous region over the workers by itself and
//! its law returns tile [`Cycles`](crate::units::Cycles).
//! A worker vertex ("2-D") is run by one worker on its own list of regions and its law
//! returns [`WorkerCycles`](worker::WorkerCycles); the slowest worker of the tile decides, so take the largest
//! and put it [on the tile](worker::WorkerCycles::on_tile).
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

#[cfg(test)]
mod tests {
    use super::Destination::{InPlace, New};
    use super::binary::{BinaryOp, binary_1d};
    use super::broadcast::broadcast_scalar_1d;
    use super::cast::cast_1d;
    use super::nonlinearity::{NonLinearity, NonLinearityGrad, nonlinearity, nonlinearity_grad};
    use super::unary::{UnaryOp, unary_1d};
    use crate::numerics::DType::{F16, F32};
    use crate::spec::TileSpec;
    use crate::spec::fixtures::gc200;
    use crate::units::Cycles;

    /// What one more element costs with all workers busy, worked out by hand from the cycles
    /// and elements of each loop: set-up costs cancel.
    #[test]
    fn quarter_cycles_per_element() {
        type Law<'a> = &'a dyn Fn(u64, &TileSpec) -> Cycles;
        let check = |name, law: Law<'_>, quarters| {
            // Whole vectors and whole passes for every worker at both sizes.
            let size = 6 * 4 * 100;
            let spec = gc200();
            let got = law(2 * size, &spec) - law(size, &spec);
            assert_eq!(got * 4, Cycles(size) * quarters, "{name}");
        };
        check(
            "add f16",
            &|n, s| binary_1d(BinaryOp::Add, F16, New, n, s),
            3,
        );
        check(
            "add f32",
            &|n, s| binary_1d(BinaryOp::Add, F32, New, n, s),
            6,
        );
        check(
            "divide f16",
            &|n, s| binary_1d(BinaryOp::Divide, F16, New, n, s),
            21,
        );
        check(
            "divide f32",
            &|n, s| binary_1d(BinaryOp::Divide, F32, New, n, s),
            20,
        );
        check(
            "scale f16",
            &|n, s| broadcast_scalar_1d(BinaryOp::Multiply, F16, New, n, s),
            2,
        );
        check(
            "scale f32",
            &|n, s| broadcast_scalar_1d(BinaryOp::Multiply, F32, New, n, s),
            4,
        );
        check("narrow", &|n, s| cast_1d(F32, F16, n, s), 2);
        check("widen", &|n, s| cast_1d(F16, F32, n, s), 2);
        check("exp f16", &|n, s| unary_1d(UnaryOp::Exp, F16, New, n, s), 4);
        check(
            "exp f32",
            &|n, s| unary_1d(UnaryOp::Exp, F32, New, n, s),
            12,
        );
        check(
            "tanh f16",
            &|n, s| unary_1d(UnaryOp::Tanh, F16, InPlace, n, s),
            2,
        );
        check(
            "tanh f32",
            &|n, s| unary_1d(UnaryOp::Tanh, F32, InPlace, n, s),
            20,
        );
        check(
            "sqrt f16",
            &|n, s| unary_1d(UnaryOp::Sqrt, F16, New, n, s),
            23,
        );
        check(
            "rsqrt f32",
            &|n, s| unary_1d(UnaryOp::ReciprocalSqrt, F32, New, n, s),
            16,
        );
        check(
            "gelu f16",
            &|n, s| nonlinearity(NonLinearity::Gelu, F16, n, s),
            5,
        );
        check(
            "gelu f32",
            &|n, s| nonlinearity(NonLinearity::Gelu, F32, n, s),
            20,
        );
        let grad = |n, s: &TileSpec| nonlinearity_grad(NonLinearityGrad::Gelu, F16, n, s);
        check("gelu gradient f16", &grad, 5);
    }
}

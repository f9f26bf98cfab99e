//! Activation functions that popnn implements itself, and their gradients.
//!
//! Source: PopLibs `lib/popnn/popnnCycleEstimators.cpp` (`NonLinearity1D`,
//! `NonLinearityGrad1D`) and `lib/popnn/PerformanceEstimation.hpp`, where the cycles of the
//! tanh form of GELU are marked as still to be verified.
//! Forward tanh, sigmoid, ReLU and the erf form of GELU are [unary](super::unary) operations
//! of popops. Left out: the 2-D vertices, and unpacking of scaled pointers.

use super::worker::{assert_float, multi_vertex, per_worker, vector_width};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Supervisor cycles of both vertices.
const SUPERVISOR: u64 = 9;
/// Worker cycles of the forward vertex before its loop: state, share of the work, alignment.
const FORWARD_PROLOGUE: u64 = 23;
/// The same for the gradient vertex.
const GRAD_PROLOGUE: u64 = 20;

/// A forward activation of popnn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NonLinearity {
    /// GELU in its tanh form.
    Gelu,
    /// x * sigmoid(x).
    Swish,
}

/// The gradient of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each name is the function's own")]
pub enum NonLinearityGrad {
    Relu,
    Sigmoid,
    Tanh,
    /// GELU in its tanh form.
    Gelu,
    /// GELU through the error function.
    GeluErf,
}

/// Cycles of one function.
struct OpCycles {
    /// Latency of one vector, at the ends of the pipeline and in remainders.
    latency: u64,
    /// One vector in the steady loop.
    vector: u64,
}

/// Tile cycles of `NonLinearity1D` (in place or not) over `elements`.
#[must_use]
pub fn nonlinearity(op: NonLinearity, dtype: DType, elements: u64, spec: &TileSpec) -> Cycles {
    assert_float(dtype, "an activation");
    let cycles = forward_cycles(op, dtype);
    let shape = Split::of(elements, dtype, spec);
    let body = match shape.vectors {
        0 => 0,
        n => 2 + cycles.latency + (n - 1) * cycles.vector + 1 + cycles.latency,
    };
    let remainder = match dtype {
        DType::F32 => 3 + shape.odd * (2 + cycles.latency),
        _ => 4 + shape.pairs * (2 + cycles.latency) + shape.odd * (3 + cycles.latency),
    };
    multi_vertex(SUPERVISOR, FORWARD_PROLOGUE + body + remainder, spec)
}

/// Tile cycles of `NonLinearityGrad1D` over `elements`.
#[must_use]
pub fn nonlinearity_grad(
    op: NonLinearityGrad,
    dtype: DType,
    elements: u64,
    spec: &TileSpec,
) -> Cycles {
    assert_float(dtype, "the gradient of an activation");
    let cycles = grad_cycles(op, dtype);
    let shape = Split::of(elements, dtype, spec);
    let body = match shape.vectors {
        0 => 0,
        n => 4 + (n - 1) * cycles + 1,
    };
    let remainder = match dtype {
        DType::F32 => 4 + shape.odd * (cycles + 1),
        _ => 6 + shape.pairs * (cycles + 2) + shape.odd * (cycles + 4),
    };
    multi_vertex(SUPERVISOR, GRAD_PROLOGUE + body + remainder, spec)
}

/// Whole vectors of the busiest worker, and what is left for one of them.
struct Split {
    vectors: u64,
    pairs: u64,
    odd: u64,
}

impl Split {
    fn of(elements: u64, dtype: DType, spec: &TileSpec) -> Self {
        let width = vector_width(dtype, spec);
        let left = elements % width;
        Self {
            vectors: per_worker(elements / width, spec),
            pairs: left / 2,
            odd: left % 2,
        }
    }
}

fn forward_cycles(op: NonLinearity, dtype: DType) -> OpCycles {
    let (latency, vector) = match (op, dtype) {
        (NonLinearity::Gelu, DType::F32) => (10, 10),
        (NonLinearity::Gelu, _) => (5, 5),
        (NonLinearity::Swish, DType::F32) => (6, 11),
        (NonLinearity::Swish, _) => (3, 5),
    };
    OpCycles { latency, vector }
}

fn grad_cycles(op: NonLinearityGrad, dtype: DType) -> u64 {
    match (op, dtype) {
        (NonLinearityGrad::Relu | NonLinearityGrad::Sigmoid | NonLinearityGrad::Tanh, _) => 3,
        (NonLinearityGrad::Gelu, DType::F32) => 10,
        (NonLinearityGrad::Gelu, _) => 5,
        (NonLinearityGrad::GeluErf, DType::F32) => 30,
        (NonLinearityGrad::GeluErf, _) => 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};

    #[test]
    fn forward() {
        let check = |op, dtype, elements, cycles| {
            let got = nonlinearity(op, dtype, elements, &gc200());
            assert_eq!(got, Cycles(cycles), "{op:?} {dtype:?} {elements}");
        };
        // 171 vectors: 9 + 6 (23 + 2 + 5 + 170 * 5 + 1 + 5 + 4).
        check(NonLinearity::Gelu, F16, 4096, 5349);
        check(NonLinearity::Gelu, F32, 4096, 20_763);
        // One whole vector and three elements over.
        check(NonLinearity::Gelu, F16, 7, 9 + 6 * (23 + 13 + 4 + 7 + 8));
        check(NonLinearity::Swish, F32, 1, 9 + 6 * (23 + 3 + 8));
    }

    #[test]
    fn gradient() {
        let check = |op, dtype, elements, cycles| {
            let got = nonlinearity_grad(op, dtype, elements, &gc200());
            assert_eq!(got, Cycles(cycles), "{op:?} {dtype:?} {elements}");
        };
        check(
            NonLinearityGrad::Gelu,
            F16,
            4096,
            9 + 6 * (20 + 4 + 170 * 5 + 1 + 6),
        );
        check(
            NonLinearityGrad::Tanh,
            F32,
            4096,
            9 + 6 * (20 + 4 + 341 * 3 + 1 + 4),
        );
        check(NonLinearityGrad::GeluErf, F16, 6, 9 + 6 * (20 + 5 + 6 + 17));
    }
}

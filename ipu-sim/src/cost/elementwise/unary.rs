//! Unary operations: one table from operation and element type to loop cost, and the
//! vertices around that loop.
//!
//! Source: PopLibs `unaryOpPerfInfo`, `unaryOpInPlacePerfInfo` and the `UnaryOp*`
//! estimators. Left out: trigonometry other than sine and cosine, integers, booleans.

use super::worker::{WorkerCycles, assert_float, multi_vertex, per_worker, vector_width};
use super::{Destination, InnerLoop, SUPERVISOR_OVERHEAD};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// An operation on one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each name is the operation's own")]
pub enum UnaryOp {
    Abs,
    Ceil,
    Floor,
    Round,
    Negate,
    Square,
    Sqrt,
    ReciprocalSqrt,
    Inverse,
    Exp,
    ExpMinusOne,
    Log,
    LogOnePlus,
    Tanh,
    Sigmoid,
    Relu,
    Truncate,
    Erf,
    /// The exact form, through the error function.
    GeluErf,
    CubeRoot,
    Sin,
    Cos,
    IsNan,
    IsInf,
    IsFinite,
    Signum,
}

/// Worker cycles around the loop, per region list of a 2-D vertex.
const WORKER_2D: u64 = 20;
/// Supervisor cycles of the 1-D vertices on top of the common overhead.
const SUPERVISOR_1D: u64 = 9;
/// Load, store and branch of a pass that the table doesn't include.
const PASS_OVERHEAD: u64 = 4;

/// Tile cycles of `UnaryOp1D` or `UnaryOp1DInPlace` over `elements`.
#[must_use]
pub fn unary_1d(
    op: UnaryOp,
    dtype: DType,
    destination: Destination,
    elements: u64,
    spec: &TileSpec,
) -> Cycles {
    let prologue = match (destination, op) {
        (Destination::New, UnaryOp::Exp) => 33,
        (Destination::New, _) => 17,
        (Destination::InPlace, _) => 55,
    };
    let share = per_worker(elements, spec);
    let body = loop_cycles(inner_loop(op, dtype, destination), dtype, share, spec);
    multi_vertex(SUPERVISOR_OVERHEAD + SUPERVISOR_1D, prologue + body, spec)
}

/// Worker cycles of `UnaryOp2D` or `UnaryOp2DInPlace` over regions of so many elements.
#[must_use]
pub fn unary_2d(
    op: UnaryOp,
    dtype: DType,
    destination: Destination,
    regions: &[u64],
    spec: &TileSpec,
) -> WorkerCycles {
    let inner = inner_loop(op, dtype, destination);
    let body: u64 = regions
        .iter()
        .map(|&n| loop_cycles(inner, dtype, n, spec))
        .sum();
    WorkerCycles(WORKER_2D + body)
}

/// PopLibs `unaryOpInnerLoopCycles`; a natural loop multiplies before it divides.
fn loop_cycles(inner: InnerLoop, dtype: DType, elements: u64, spec: &TileSpec) -> u64 {
    match inner {
        InnerLoop::Natural(cycles) => {
            let width = vector_width(dtype, spec);
            (cycles + PASS_OVERHEAD) * (elements + width - 1) / width
        }
        InnerLoop::Unrolled(cycles, step) => elements.div_ceil(step) * cycles,
        InnerLoop::Scalar(cycles) => (cycles + PASS_OVERHEAD) * elements,
    }
}

/// The table. Columns: f32, f16; rows with two lines differ in place.
pub(super) fn inner_loop(op: UnaryOp, dtype: DType, destination: Destination) -> InnerLoop {
    use Destination::{InPlace, New};
    use InnerLoop::{Natural, Scalar, Unrolled};
    assert_float(dtype, "a unary operation");
    let (f32, f16) = match (op, destination) {
        (UnaryOp::Abs, New) => (Scalar(1), Scalar(1)),
        (UnaryOp::Abs, InPlace) => (Natural(1), Natural(1)),
        (UnaryOp::Ceil | UnaryOp::Floor | UnaryOp::Round, _) => (Natural(2), Natural(2)),
        (UnaryOp::Negate, New) => (Unrolled(2, 2), Unrolled(2, 4)),
        (UnaryOp::Negate, InPlace) => (Unrolled(3, 2), Unrolled(3, 4)),
        (UnaryOp::Square, _) => (Unrolled(2, 2), Unrolled(2, 4)),
        (UnaryOp::Sqrt, _) => (Unrolled(10, 2), Unrolled(23, 4)),
        (UnaryOp::ReciprocalSqrt, _) => (Unrolled(8, 2), Unrolled(19, 4)),
        (UnaryOp::Inverse, _) => (Unrolled(6, 2), Unrolled(15, 4)),
        (UnaryOp::Exp, _) => (Unrolled(6, 2), Unrolled(4, 4)),
        (UnaryOp::ExpMinusOne, _) => (Scalar(4), Natural(5)),
        (UnaryOp::Log, New) => (Unrolled(12, 2), Unrolled(4, 4)),
        (UnaryOp::Log, InPlace) => (Unrolled(14, 2), Unrolled(6, 4)),
        (UnaryOp::LogOnePlus, New) => (Natural(18), Natural(18)),
        (UnaryOp::LogOnePlus, InPlace) => (Natural(18), Natural(17)),
        (UnaryOp::Tanh, New) => (Unrolled(12, 2), Unrolled(4, 4)),
        (UnaryOp::Tanh, InPlace) => (Unrolled(10, 2), Unrolled(2, 4)),
        (UnaryOp::Sigmoid, New) => (Unrolled(12, 2), Unrolled(6, 4)),
        (UnaryOp::Sigmoid, InPlace) => (Unrolled(10, 2), Unrolled(4, 4)),
        (UnaryOp::Relu, New) => (Unrolled(3, 2), Unrolled(3, 4)),
        (UnaryOp::Relu, InPlace) => (Unrolled(2, 2), Unrolled(2, 4)),
        (UnaryOp::Truncate, New) => (Unrolled(3, 2), Unrolled(11, 4)),
        (UnaryOp::Truncate, InPlace) => (Unrolled(4, 2), Unrolled(11, 4)),
        (UnaryOp::Erf, _) => (Unrolled(41, 1), Unrolled(13, 1)),
        (UnaryOp::GeluErf, _) => (Unrolled(22, 1), Unrolled(16, 1)),
        (UnaryOp::CubeRoot, _) => (Natural(27), Natural(17)),
        (UnaryOp::Sin | UnaryOp::Cos, _) => (Scalar(2300), Unrolled(25, 1)),
        (UnaryOp::IsNan, _) => (Natural(3), Natural(3)),
        (UnaryOp::IsInf, _) => (Natural(3), Natural(5)),
        (UnaryOp::IsFinite | UnaryOp::Signum, _) => (Natural(5), Natural(5)),
    };
    if dtype == DType::F32 { f32 } else { f16 }
}

#[cfg(test)]
mod tests {
    use super::Destination::{InPlace, New};
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};

    /// 4096 elements, by hand: the busiest of six workers has 683, that is 171 vectors of
    /// f16 or 342 of f32.
    #[test]
    fn one_dimensional() {
        let check = |op, dtype, destination, cycles| {
            let got = unary_1d(op, dtype, destination, 4096, &gc200());
            assert_eq!(got, Cycles(cycles), "{op:?} {dtype:?} {destination:?}");
        };
        check(UnaryOp::Tanh, F16, New, 4226);
        check(UnaryOp::Tanh, F16, InPlace, 2402);
        check(UnaryOp::Exp, F16, New, 4322);
        check(UnaryOp::Exp, F16, InPlace, 4454);
        check(UnaryOp::GeluErf, F16, InPlace, 65_918);
        check(UnaryOp::Inverse, F32, New, 12_434);
        // Natural: 20 + 6 (55 + floor(5 * 686 / 4)).
        check(UnaryOp::Abs, F16, InPlace, 5492);
        // Scalar: 20 + 6 (17 + 5 * 683).
        check(UnaryOp::Abs, F16, New, 20_612);
    }

    #[test]
    fn two_dimensional_adds_its_regions() {
        let got = unary_2d(UnaryOp::Exp, F16, New, &[5, 4], &gc200());
        assert_eq!(got, WorkerCycles(20 + 2 * 4 + 4));
    }

    #[test]
    #[should_panic(expected = "not for U32")]
    fn integers_are_refused() {
        let _ = unary_1d(UnaryOp::Exp, DType::U32, New, 1, &gc200());
    }
}

//! Binary operations: one table from operation and element type to loop cost, and the
//! vertices around that loop when both operands have the result's shape.
//!
//! Source: PopLibs `binaryOpPerfInfo`, `binaryOpInPlacePerfInfo` and the `BinaryOp*`
//! estimators. Left out: bit operations, and the variants for interleaved memory, which
//! PopLibs takes only under an environment variable.

use super::worker::{WorkerCycles, multi_vertex, per_worker, vector_width};
use super::{Destination, InnerLoop, SUPERVISOR_OVERHEAD};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// An operation on two operands of one element type.
///
/// The type of a comparison or a logical operation is that of its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each name is the operation's own")]
pub enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Maximum,
    Minimum,
    Power,
    Remainder,
    Atan2,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// On booleans, whatever element type is given.
    LogicalAnd,
    /// On booleans, whatever element type is given.
    LogicalOr,
    /// 1 / sqrt(variance + epsilon); exists with a scalar second operand only.
    VarianceToInverseStdDev,
    /// The reverse; exists with a scalar second operand only.
    InverseStdDevToVariance,
}

impl BinaryOp {
    /// Whether this is one of the three operations that PopLibs wrote in assembly.
    pub(super) fn is_arithmetic(self, dtype: DType) -> bool {
        dtype != DType::U32 && matches!(self, Self::Add | Self::Subtract | Self::Multiply)
    }
}

/// Tile cycles of `BinaryOp1D` or `BinaryOp1DInPlace` over `elements`.
#[must_use]
pub fn binary_1d(
    op: BinaryOp,
    dtype: DType,
    destination: Destination,
    elements: u64,
    spec: &TileSpec,
) -> Cycles {
    let prologue = match (destination, dtype) {
        (Destination::New, DType::F32) => 29,
        (Destination::New, _) => 26,
        (Destination::InPlace, _) => IN_PLACE_PROLOGUE,
    };
    let body = loop_cycles(op, dtype, destination, per_worker(elements, spec), spec);
    multi_vertex(SUPERVISOR_OVERHEAD, prologue + body, spec)
}

/// Worker cycles before the loop of `BinaryOp1DInPlace`.
pub(super) const IN_PLACE_PROLOGUE: u64 = 58;

/// Worker cycles of `BinaryOp2D` or `BinaryOp2DInPlace` over regions of so many elements.
#[must_use]
pub fn binary_2d(
    op: BinaryOp,
    dtype: DType,
    destination: Destination,
    regions: &[u64],
    spec: &TileSpec,
) -> WorkerCycles {
    let prologue = match destination {
        Destination::New => 5,
        Destination::InPlace => 20,
    };
    let body: u64 = regions
        .iter()
        .map(|&n| loop_cycles(op, dtype, destination, n, spec))
        .sum();
    WorkerCycles(prologue + body)
}

/// PopLibs `binaryOpInnerLoopCycles`.
fn loop_cycles(
    op: BinaryOp,
    dtype: DType,
    destination: Destination,
    elements: u64,
    spec: &TileSpec,
) -> u64 {
    match inner_loop(op, dtype, destination) {
        InnerLoop::Natural(cycles) => {
            let overhead = if op.is_arithmetic(dtype) { 2 } else { 5 };
            elements.div_ceil(vector_width(dtype, spec)) * (cycles + overhead)
        }
        InnerLoop::Unrolled(cycles, step) => elements.div_ceil(step) * cycles,
        InnerLoop::Scalar(cycles) => elements * cycles,
    }
}

/// The table. Columns: f32, f16, u32.
pub(super) fn inner_loop(op: BinaryOp, dtype: DType, destination: Destination) -> InnerLoop {
    use InnerLoop::{Natural, Unrolled};
    let row: [Option<InnerLoop>; 3] = match op {
        BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply => {
            [Some(Natural(1)), Some(Natural(1)), Some(Unrolled(7, 1))]
        }
        BinaryOp::Divide => {
            let int = Unrolled(277, 1);
            [Some(Unrolled(10, 2)), Some(Unrolled(21, 4)), Some(int)]
        }
        BinaryOp::Maximum | BinaryOp::Minimum => {
            let f32 = match destination {
                Destination::New => Unrolled(3, 2),
                Destination::InPlace => Unrolled(4, 2),
            };
            [Some(f32), Some(Unrolled(4, 4)), Some(Unrolled(7, 1))]
        }
        BinaryOp::Power => {
            let int = Unrolled(32, 1);
            [Some(Unrolled(312, 1)), Some(Unrolled(325, 1)), Some(int)]
        }
        BinaryOp::Remainder => {
            let int = Unrolled(292, 1);
            [Some(Unrolled(133, 2)), Some(Unrolled(300, 4)), Some(int)]
        }
        BinaryOp::Atan2 => [Some(Unrolled(272, 2)), Some(Unrolled(578, 4)), None],
        BinaryOp::Equal | BinaryOp::Less | BinaryOp::Greater => {
            let int = Unrolled(22, 4);
            [Some(Unrolled(14, 4)), Some(Unrolled(9, 4)), Some(int)]
        }
        BinaryOp::LessEqual | BinaryOp::GreaterEqual => {
            let int = Unrolled(26, 4);
            [Some(Unrolled(14, 4)), Some(Unrolled(9, 4)), Some(int)]
        }
        BinaryOp::NotEqual => {
            let int = Unrolled(22, 4);
            [Some(Unrolled(20, 4)), Some(Unrolled(11, 4)), Some(int)]
        }
        BinaryOp::LogicalAnd | BinaryOp::LogicalOr => [Some(Unrolled(5, 4)); 3],
        BinaryOp::VarianceToInverseStdDev | BinaryOp::InverseStdDevToVariance => [None; 3],
    };
    pick(row, op, dtype, "two tensors")
}

/// The column of `dtype`; a hole in the table is a bug of the caller.
#[track_caller]
pub(super) fn pick(
    [f32, f16, u32]: [Option<InnerLoop>; 3],
    op: BinaryOp,
    dtype: DType,
    operands: &str,
) -> InnerLoop {
    let entry = match dtype {
        DType::F32 => f32,
        DType::F16 => f16,
        DType::U32 => u32,
    };
    entry.unwrap_or_else(|| panic!("no vertex computes {op:?} of {operands} in {dtype:?}"))
}

#[cfg(test)]
mod tests {
    use super::Destination::{InPlace, New};
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32, U32};

    #[test]
    fn one_dimensional() {
        let check = |op, dtype, destination, elements, cycles| {
            let got = binary_1d(op, dtype, destination, elements, &gc200());
            assert_eq!(got, Cycles(cycles), "{op:?} {dtype:?} {destination:?}");
        };
        // 96 f16: 16 a worker, 4 vectors: 11 + 6 (26 + 4 * 3); the others likewise.
        check(BinaryOp::Add, F16, New, 96, 239);
        check(BinaryOp::Add, F16, New, 1000, 923);
        check(BinaryOp::Add, F16, New, 4096, 3245);
        check(BinaryOp::Add, F32, New, 96, 329);
        check(BinaryOp::Add, F32, New, 1000, 1697);
        check(BinaryOp::Add, F32, New, 4096, 6341);
        check(BinaryOp::Add, F16, InPlace, 96, 431);
        check(BinaryOp::Add, F16, InPlace, 1000, 1115);
        check(BinaryOp::Add, F16, InPlace, 4096, 3437);
        check(BinaryOp::Add, F32, InPlace, 96, 503);
        check(BinaryOp::Add, F32, InPlace, 1000, 1871);
        check(BinaryOp::Add, F32, InPlace, 4096, 6515);
        // 11 + 6 (26 + 4 * 21).
        check(BinaryOp::Divide, F16, New, 96, 671);
        // In place costs a cycle more: 11 + 6 (58 + 8 * 4) against 11 + 6 (29 + 8 * 3).
        check(BinaryOp::Maximum, F32, InPlace, 96, 551);
        check(BinaryOp::Maximum, F32, New, 96, 329);
        // 11 + 6 (26 + 4 * 26).
        check(BinaryOp::GreaterEqual, U32, New, 96, 791);
        check(BinaryOp::LogicalAnd, U32, New, 96, 11 + 6 * (26 + 4 * 5));
    }

    #[test]
    fn two_dimensional_adds_its_regions() {
        let run = |destination| binary_2d(BinaryOp::Add, F16, destination, &[5, 4], &gc200());
        assert_eq!(run(New), WorkerCycles(5 + 2 * 3 + 3));
        assert_eq!(run(InPlace), WorkerCycles(20 + 2 * 3 + 3));
    }

    #[test]
    #[should_panic(expected = "no vertex computes Atan2")]
    fn holes_of_the_table_are_refused() {
        let _ = binary_1d(BinaryOp::Atan2, U32, New, 1, &gc200());
    }
}

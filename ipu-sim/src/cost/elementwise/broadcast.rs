//! Binary operations whose second operand is a scalar, or a vector along the outer
//! dimension of a matrix.
//!
//! Source: PopLibs `broadcastOpPerfInfo`, `broadcastOpInPlacePerfInfo` and the estimators
//! of `BroadcastScalar*` and `BroadcastVectorOuter*`.
//! A vector along the inner dimension has its own file, [`vector_inner`](super::vector_inner).

use super::binary::{BinaryOp, pick};
use super::worker::{WorkerCycles, assert_float, multi_vertex, per_worker, vector_width};
use super::{Destination, InnerLoop, SUPERVISOR_OVERHEAD};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Worker cycles before the loop of the scalar vertices.
const SCALAR_PROLOGUE: u64 = 20;
/// Worker cycles of each region of a 2-D scalar vertex.
const SCALAR_REGION: u64 = 28;
/// Worker cycles before the outer loop of the vector-outer vertices.
const OUTER_PROLOGUE: u64 = 15;

/// The second operand of a 2-D scalar vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScalarOperand {
    /// One scalar for all regions.
    Shared,
    /// A scalar for each region.
    PerRegion,
}

/// Tile cycles of `BroadcastScalar1D` or its in-place form over `elements`: a bias or a
/// factor that all elements share.
#[must_use]
pub fn broadcast_scalar_1d(
    op: BinaryOp,
    dtype: DType,
    destination: Destination,
    elements: u64,
    spec: &TileSpec,
) -> Cycles {
    let share = per_worker(elements, spec);
    let overhead = shared_scalar_overhead(op, dtype);
    let body = scalar_loop(op, dtype, destination, overhead, share, spec);
    multi_vertex(SUPERVISOR_OVERHEAD, SCALAR_PROLOGUE + body, spec)
}

/// Worker cycles of `BroadcastScalar2D*` over regions of so many elements.
#[must_use]
pub fn broadcast_scalar_2d(
    op: BinaryOp,
    dtype: DType,
    destination: Destination,
    scalar: ScalarOperand,
    regions: &[u64],
    spec: &TileSpec,
) -> WorkerCycles {
    let overhead = match scalar {
        ScalarOperand::Shared => shared_scalar_overhead(op, dtype),
        ScalarOperand::PerRegion => 4,
    };
    let body: u64 = regions
        .iter()
        .map(|&n| SCALAR_REGION + scalar_loop(op, dtype, destination, overhead, n, spec))
        .sum();
    WorkerCycles(SCALAR_PROLOGUE + body)
}

/// Whether rows may start off a 64-bit boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alignment {
    /// Every row starts on 64 bits.
    Aligned,
    /// Rows may start anywhere; the vertex tests each.
    Unaligned,
}

impl Alignment {
    /// Worker cycles of each row.
    fn row_overhead(self) -> u64 {
        match self {
            Self::Aligned => 7,
            Self::Unaligned => 25,
        }
    }
}

/// Rows and columns of a matrix on one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Number of rows: elements of the broadcast vector.
    pub rows: u64,
    /// Contiguous elements of a row.
    pub columns: u64,
}

/// Tile cycles of `BroadcastVectorOuterByColumn1D`, in place or not: each row takes one
/// element of the vector and the workers share its columns. Add, subtract and multiply of
/// floating-point types.
#[must_use]
pub fn broadcast_outer_by_column(
    op: BinaryOp,
    dtype: DType,
    alignment: Alignment,
    matrix: Matrix,
    spec: &TileSpec,
) -> Cycles {
    let row = outer_row(op, dtype, alignment, per_worker(matrix.columns, spec), spec);
    let worker = OUTER_PROLOGUE + matrix.rows * row;
    multi_vertex(SUPERVISOR_OVERHEAD, worker, spec)
}

/// Tile cycles of `BroadcastVectorOuterByRow1D`, in place or not: as by column, with the
/// rows dealt out to the workers.
#[must_use]
pub fn broadcast_outer_by_row(
    op: BinaryOp,
    dtype: DType,
    alignment: Alignment,
    matrix: Matrix,
    spec: &TileSpec,
) -> Cycles {
    let row = outer_row(op, dtype, alignment, matrix.columns, spec);
    let worker = OUTER_PROLOGUE + per_worker(matrix.rows, spec) * row;
    multi_vertex(SUPERVISOR_OVERHEAD, worker, spec)
}

/// Worker cycles for `columns` of one row; multiplies before it divides, as the source.
fn outer_row(
    op: BinaryOp,
    dtype: DType,
    alignment: Alignment,
    columns: u64,
    spec: &TileSpec,
) -> u64 {
    assert_float(dtype, "a vector-outer broadcast");
    let InnerLoop::Natural(cycles) = inner_loop(op, dtype, Destination::New) else {
        panic!("no vertex broadcasts an outer vector for {op:?}");
    };
    let width = vector_width(dtype, spec);
    alignment.row_overhead() + (cycles + 1) * (columns + width - 1) / width
}

/// Load, store and branch of a pass that the table doesn't include.
fn shared_scalar_overhead(op: BinaryOp, dtype: DType) -> u64 {
    if op.is_arithmetic(dtype) { 1 } else { 4 }
}

fn scalar_loop(
    op: BinaryOp,
    dtype: DType,
    destination: Destination,
    overhead: u64,
    elements: u64,
    spec: &TileSpec,
) -> u64 {
    match inner_loop(op, dtype, destination) {
        InnerLoop::Natural(cycles) => {
            elements.div_ceil(vector_width(dtype, spec)) * (cycles + overhead)
        }
        InnerLoop::Unrolled(cycles, step) => elements.div_ceil(step) * cycles,
        InnerLoop::Scalar(cycles) => elements * cycles,
    }
}

/// The table. Columns: f32, f16, u32.
fn inner_loop(op: BinaryOp, dtype: DType, destination: Destination) -> InnerLoop {
    use InnerLoop::{Natural, Unrolled};
    let row: [Option<InnerLoop>; 3] = match op {
        BinaryOp::Add => [Some(Natural(1)), Some(Natural(1)), Some(Unrolled(6, 1))],
        BinaryOp::Subtract | BinaryOp::Multiply => [Some(Natural(1)), Some(Natural(1)), None],
        BinaryOp::Divide => [Some(Unrolled(6, 2)), Some(Unrolled(8, 4)), None],
        BinaryOp::Maximum | BinaryOp::Minimum => [Some(Unrolled(3, 2)), Some(Unrolled(3, 4)), None],
        BinaryOp::Power => [Some(Unrolled(312, 1)), Some(Unrolled(325, 1)), None],
        BinaryOp::NotEqual => [Some(Unrolled(18, 4)), Some(Unrolled(10, 4)), None],
        BinaryOp::Equal
        | BinaryOp::Less
        | BinaryOp::LessEqual
        | BinaryOp::Greater
        | BinaryOp::GreaterEqual => [Some(Unrolled(12, 4)), Some(Unrolled(8, 4)), None],
        BinaryOp::VarianceToInverseStdDev => [Some(Unrolled(12, 2)), Some(Unrolled(24, 4)), None],
        BinaryOp::InverseStdDevToVariance => {
            let f32 = match destination {
                Destination::New => Unrolled(11, 2),
                Destination::InPlace => Natural(7),
            };
            [Some(f32), Some(Unrolled(10, 2)), None]
        }
        BinaryOp::Remainder | BinaryOp::Atan2 | BinaryOp::LogicalAnd | BinaryOp::LogicalOr => {
            [None; 3]
        }
    };
    pick(row, op, dtype, "a tensor and a scalar")
}

#[cfg(test)]
mod tests {
    use super::Destination::{InPlace, New};
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};

    #[test]
    fn scalar() {
        let check = |op, dtype, destination, cycles| {
            let got = broadcast_scalar_1d(op, dtype, destination, 96, &gc200());
            assert_eq!(got, Cycles(cycles), "{op:?} {dtype:?} {destination:?}");
        };
        // 16 elements a worker: 4 passes in f16, 8 in f32.
        check(BinaryOp::Multiply, F16, New, 11 + 6 * (20 + 4 * 2));
        check(BinaryOp::Multiply, F32, InPlace, 11 + 6 * (20 + 8 * 2));
        check(BinaryOp::Divide, F16, New, 11 + 6 * (20 + 4 * 8));
        // Natural, but not one of the three in assembly.
        let op = BinaryOp::InverseStdDevToVariance;
        check(op, F32, InPlace, 11 + 6 * (20 + 8 * 11));
        check(op, F32, New, 11 + 6 * (20 + 8 * 11));
        check(op, F16, New, 11 + 6 * (20 + 8 * 10));

        let two_d =
            |scalar| broadcast_scalar_2d(BinaryOp::Add, F16, New, scalar, &[8, 5], &gc200());
        assert_eq!(
            two_d(ScalarOperand::Shared),
            WorkerCycles(20 + 2 * 28 + 4 * 2)
        );
        assert_eq!(
            two_d(ScalarOperand::PerRegion),
            WorkerCycles(20 + 2 * 28 + 4 * 5)
        );
    }

    #[test]
    fn vector_outer() {
        let matrix = Matrix {
            rows: 8,
            columns: 64,
        };
        let run = |law: fn(_, _, _, _, &_) -> Cycles, alignment| {
            law(BinaryOp::Add, F16, alignment, matrix, &gc200())
        };
        // By column each worker has 11 columns: floor(2 * 14 / 4) = 7 cycles of 8 rows.
        let by_column = Cycles(11 + 6 * (15 + 8 * (25 + 7)));
        assert_eq!(
            run(broadcast_outer_by_column, Alignment::Unaligned),
            by_column
        );
        // By row each worker has 2 rows of floor(2 * 67 / 4) = 33 cycles.
        let by_row = Cycles(11 + 6 * (15 + 2 * (7 + 33)));
        assert_eq!(run(broadcast_outer_by_row, Alignment::Aligned), by_row);
    }

    #[test]
    #[should_panic(expected = "no vertex broadcasts an outer vector")]
    fn vector_outer_has_three_operations() {
        let matrix = Matrix {
            rows: 1,
            columns: 1,
        };
        let op = BinaryOp::Divide;
        let _ = broadcast_outer_by_row(op, F16, Alignment::Aligned, matrix, &gc200());
    }
}

//! Transposes of small matrices that lie one after the other on a tile.
//!
//! Source: the last public PopLibs estimators of `Transpose`, `TransposeSupervisor` (now
//! `Transpose1D`), `SplitTranspose1D` and `Transpose2d` in
//! `lib/popops/popopsCycleEstimators.cpp`, and the choice between them in
//! `lib/popops/Rearrange.cpp`. Later estimators moved into Poplar's runtime and aren't public;
//! how the workers of a split transpose divide a matrix isn't either, and is taken to be by rows.
//!
//! As for scaled sums, pointers are taken to be scaled 64-bit ones.
//! Left out: 1-byte types.

use crate::cost::elementwise::worker::{WorkerCycles, multi_vertex, per_worker};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Matrices of one tile, each `[rows, columns]` before and `[columns, rows]` after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transpose {
    /// Rows of the source.
    pub rows: u64,
    /// Columns of the source.
    pub columns: u64,
    /// Number of matrices, contiguous in memory.
    pub matrices: u64,
}

/// The vertices that transpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransposeVertex {
    /// Fast, one worker does all matrices.
    OneWorker,
    /// Fast, workers share the matrices.
    Shared,
    /// Fast, several workers share each matrix.
    Split,
    /// Any sizes: a worker vertex with a list of matrices.
    TwoDimensional,
}

/// Elements along an edge of the block that the fast f16 code transposes.
const BLOCK: u64 = 4;
/// Supervisor cycles of the MultiVertex forms.
const SUPERVISOR: u64 = 7;
/// Worker cycles to unpack a scaled pointer, and twice that in a MultiVertex.
const UNPACK: u64 = 1;
/// Cycles of a lone worker's entry that a MultiVertex skips.
const ENTRY_SKIPPED: u64 = 7;
/// Most matrices of one block that go to one worker.
const LONE_BLOCKS_MAX: u64 = 4;
/// Passes of the hardware loop: its count has 12 bits.
const REPEAT_LIMIT: u64 = 4096;
/// Vectors that a stride in an instruction reaches: it has 10 bits, one of them the sign.
const STRIDE_LIMIT: u64 = 512;

/// Tile cycles of transposing, by the vertex that PopLibs would choose.
#[must_use]
pub fn transpose(dtype: DType, sizes: Transpose, spec: &TileSpec) -> Cycles {
    if sizes.matrices == 0 || sizes.rows == 0 || sizes.columns == 0 {
        return Cycles::ZERO;
    }
    match TransposeVertex::choose(dtype, sizes, spec) {
        TransposeVertex::OneWorker => {
            WorkerCycles(fast_core(sizes, sizes.matrices) + UNPACK).on_tile(spec)
        }
        TransposeVertex::Shared => multi(fast_core(sizes, per_worker(sizes.matrices, spec)), spec),
        TransposeVertex::Split => multi(split_core(sizes, spec), spec),
        TransposeVertex::TwoDimensional => {
            transpose_2d(dtype, sizes, per_worker(sizes.matrices, spec)).on_tile(spec)
        }
    }
}

impl TransposeVertex {
    /// The vertex that PopLibs takes for these matrices.
    #[must_use]
    pub fn choose(dtype: DType, sizes: Transpose, spec: &TileSpec) -> Self {
        let workers = u64::from(spec.workers);
        let blocks = sizes.rows.is_multiple_of(BLOCK) && sizes.columns.is_multiple_of(BLOCK);
        if dtype != DType::F16 || !blocks {
            Self::TwoDimensional
        } else if sizes.rows == BLOCK && sizes.columns == BLOCK && sizes.matrices <= LONE_BLOCKS_MAX
        {
            Self::OneWorker
        } else if sizes.matrices < workers && workers.is_multiple_of(sizes.matrices) {
            Self::Split
        } else {
            Self::Shared
        }
    }
}

fn multi(core: u64, spec: &TileSpec) -> Cycles {
    multi_vertex(SUPERVISOR, core + 2 * UNPACK - ENTRY_SKIPPED, spec)
}

/// Worker cycles of the fast code for `matrices` matrices of one worker.
fn fast_core(sizes: Transpose, matrices: u64) -> u64 {
    let rows = sizes.rows / BLOCK;
    let columns = sizes.columns / BLOCK;
    match (rows, columns, matrices) {
        (1, 1, 1) => 29,
        (1, 1, n) => 37 + 4 * (n - 2),
        (_, 1, n) => 27 + n * (27 + 4 * rows),
        (_, _, n) => 29 + n * (18 + rows * (4 + 4 * columns)),
    }
}

/// The same for one worker's part of one matrix; the workers divide its rows.
fn split_core(sizes: Transpose, spec: &TileSpec) -> u64 {
    let sharing = u64::from(spec.workers) / sizes.matrices;
    let rows = (sizes.rows / BLOCK).div_ceil(sharing);
    match sizes.columns / BLOCK {
        1 => 25 + 12 + 4 * rows,
        columns => 27 + rows * (4 + 4 * columns),
    }
}

/// Worker cycles of `Transpose2d` for `matrices` matrices of one worker.
#[must_use]
pub fn transpose_2d(dtype: DType, sizes: Transpose, matrices: u64) -> WorkerCycles {
    let Transpose { rows, columns, .. } = sizes;
    WorkerCycles(match dtype {
        DType::F32 | DType::U32 if is_fast_32_bit(rows, columns) => {
            27 + matrices * (11 + rows / 2 * (3 + 3 * (columns / 2)))
        }
        DType::F32 | DType::U32 => 13 + matrices * (8 + columns * (5 + 2 * rows)),
        DType::F16 if is_fast_16_bit(rows, columns) => match (rows / BLOCK, columns / BLOCK) {
            (1, 1) => 34 + 15 * matrices,
            (r, 1) => 30 + matrices * (29 + 4 * r),
            (r, c) => 39 + matrices * (12 + r * (7 + 4 * c)),
        },
        DType::F16 => 15 + matrices * (8 + columns * (5 + rows * 5 / 2)),
    })
}

fn is_fast_32_bit(rows: u64, columns: u64) -> bool {
    rows.is_multiple_of(2)
        && columns.is_multiple_of(2)
        && columns / 2 < REPEAT_LIMIT
        && rows * columns.saturating_sub(2) / 2 < STRIDE_LIMIT
        && rows < STRIDE_LIMIT
}

fn is_fast_16_bit(rows: u64, columns: u64) -> bool {
    // The loop runs along the columns, or along the rows if there is one block of columns.
    let passes = if columns == BLOCK { rows } else { columns } / BLOCK;
    rows.is_multiple_of(BLOCK)
        && columns.is_multiple_of(BLOCK)
        && passes < REPEAT_LIMIT
        && 1 + 3 * passes < STRIDE_LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};
    use TransposeVertex::{OneWorker, Shared, Split, TwoDimensional};

    #[test]
    fn laws() {
        let check = |dtype, [rows, columns, matrices]: [u64; 3], vertex, cycles| {
            let sizes = Transpose {
                rows,
                columns,
                matrices,
            };
            let spec = gc200();
            assert_eq!(
                TransposeVertex::choose(dtype, sizes, &spec),
                vertex,
                "{sizes:?}"
            );
            assert_eq!(transpose(dtype, sizes, &spec), Cycles(cycles), "{sizes:?}");
        };
        // A 16x16 block: 7 + 6 (29 + 18 + 4 (12 + 8) + 2 - 7), then four of them a worker.
        check(F16, [16, 16, 6], Shared, 739);
        check(F16, [16, 16, 24], Shared, 2503);
        // Eight 4x4 matrices a worker.
        check(F16, [4, 4, 48], Shared, 343);
        check(F16, [8, 4, 6], Shared, 7 + 6 * (27 + 35 - 5));
        check(F16, [4, 4, 1], OneWorker, 6 * 30);
        check(F16, [4, 4, 4], OneWorker, 6 * (37 + 8 + 1));
        // Two workers share each of three matrices: two rows of blocks for each.
        check(F16, [16, 16, 3], Split, 7 + 6 * (27 + 2 * 20 - 5));
        check(F16, [16, 4, 3], Split, 7 + 6 * (25 + 20 - 5));
        // Four matrices don't divide six workers.
        check(F16, [16, 16, 4], Shared, 739);
        // f32 pairs: 27 + 11 + 8 (6 + 3 * 7).
        check(F32, [16, 16, 6], TwoDimensional, 6 * (27 + 11 + 8 * 27));
        check(F32, [3, 2, 1], TwoDimensional, 6 * (13 + 8 + 2 * 11));
        check(F16, [2, 6, 7], TwoDimensional, 6 * (15 + 2 * (8 + 6 * 10)));
    }

    #[test]
    fn nothing_costs_nothing() {
        let sizes = Transpose {
            rows: 16,
            columns: 16,
            matrices: 0,
        };
        assert_eq!(transpose(F16, sizes, &gc200()), Cycles::ZERO);
    }

    #[test]
    fn fast_two_dimensional_forms() {
        let check = |[rows, columns]: [u64; 2], cycles| {
            let sizes = Transpose {
                rows,
                columns,
                matrices: 2,
            };
            assert_eq!(
                transpose_2d(F16, sizes, 2),
                WorkerCycles(cycles),
                "{sizes:?}"
            );
        };
        check([4, 4], 34 + 2 * 15);
        check([8, 4], 30 + 2 * 37);
        check([8, 8], 39 + 2 * (12 + 2 * 15));
        // 172 blocks of columns exceed the stride.
        check([4, 688], 15 + 2 * (8 + 688 * 15));
    }
}

//! Dynamic slice, multi-slice (gather) and multi-update (scatter): what do embedding
//! look-ups and their gradients cost on one tile?
//!
//! Source: PopLibs `getDynamicSlice1DEstimate` and `DynamicSlice2D`
//! (`lib/popops/popopsCycleEstimators.cpp`), `getMultiSliceCycleEstimate` and
//! `getMultiUpdateOpCycleEstimate` (`lib/popops/PerformanceEstimation.cpp`).
//!
//! When PopLibs estimates a built graph it assumes that every index is in range, and passes
//! one flag of the multi-slice law in the place of another; here the caller says how many
//! indices are in range. Left out: 8-bit and 64-bit types, slices that copy part of a word.

use super::elementwise::SUPERVISOR_OVERHEAD;
use super::elementwise::worker::{WorkerCycles, multi_vertex, per_worker, vector_width};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Bytes of the smallest store that needs no reading first (PopLibs
/// `getAtomicStoreGranularity`, documented with the target).
const ATOMIC_STORE: u64 = 4;

/// Elements that a dynamic slice or update moves on one tile: `[n_slices, region]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicSlice {
    /// Contiguous elements of one slice on this tile.
    pub region: u64,
    /// Slices taken along the sliced dimension.
    pub n_slices: u64,
}

/// Tile cycles of `DynamicSlice1D` or `DynamicUpdateSlice1D`.
#[must_use]
pub fn dynamic_slice_1d(dtype: DType, sizes: DynamicSlice, spec: &TileSpec) -> Cycles {
    let copies = per_worker(sizes.region, spec) / vector_width(dtype, spec);
    let worker = 39 + (24 + 2 * copies) * sizes.n_slices;
    multi_vertex(SUPERVISOR_OVERHEAD + 14, worker, spec)
}

/// Worker cycles of `DynamicSlice2D` or `DynamicUpdateSlice2D`: `n_slices` slices of each of
/// the regions of so many elements.
#[must_use]
pub fn dynamic_slice_2d(
    dtype: DType,
    n_slices: u64,
    regions: &[u64],
    spec: &TileSpec,
) -> WorkerCycles {
    let region = |&n: &u64| {
        let vectors = n.div_ceil(vector_width(dtype, spec));
        let slice = match dtype {
            DType::F16 => 31 + 2 * vectors,
            DType::F32 | DType::U32 => 29 + vectors,
        };
        slice * n_slices + 13
    };
    WorkerCycles(27 + regions.iter().map(region).sum::<u64>())
}

/// The indices that the busiest worker of a tile looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerIndices {
    /// Indices for which the worker has work.
    pub in_range: u64,
    /// Indices that point to rows elsewhere.
    pub out_of_range: u64,
}

impl WorkerIndices {
    /// A multi-slice deals its indices out to the workers; of `indices` on the tile, at most
    /// `in_range` point to rows of the tile, and one worker may hold them all.
    #[must_use]
    pub fn dealt_out(indices: u64, in_range: u64, spec: &TileSpec) -> Self {
        Self::scanned(per_worker(indices, spec), in_range)
    }

    /// In a multi-update each worker owns rows and looks at all `indices`, of which at most
    /// `in_range` are its own.
    #[must_use]
    pub fn scanned(indices: u64, in_range: u64) -> Self {
        let in_range = in_range.min(indices);
        Self {
            in_range,
            out_of_range: indices - in_range,
        }
    }
}

/// Direction of a multi-slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MultiSliceKind {
    /// `MultiSlice`: rows of the table to the output.
    Slice,
    /// `MultiUpdate`: rows of the input over rows of the table.
    Update,
}

/// Tile cycles of `MultiSlice` or `MultiUpdate` of rows of `elements`.
#[must_use]
pub fn multi_slice(
    kind: MultiSliceKind,
    dtype: DType,
    elements: u64,
    indices: WorkerIndices,
    spec: &TileSpec,
) -> Cycles {
    let moves = elements.div_ceil(multi_slice_width(dtype, spec));
    multi_slice_of(kind, moves, indices, spec)
}

/// Tile cycles of `MultiSlice` or `MultiUpdate` for a single index: the workers share the row
/// of `elements`.
#[must_use]
pub fn multi_slice_one(
    kind: MultiSliceKind,
    dtype: DType,
    elements: u64,
    spec: &TileSpec,
) -> Cycles {
    let moves = elements.div_ceil(multi_slice_width(dtype, spec));
    multi_slice_of(
        kind,
        per_worker(moves, spec),
        WorkerIndices::scanned(1, 1),
        spec,
    )
}

/// Elements that a multi-slice moves at a time: f16 by words, four-byte types by vectors.
fn multi_slice_width(dtype: DType, spec: &TileSpec) -> u64 {
    match dtype {
        DType::F16 => 2,
        DType::F32 | DType::U32 => vector_width(dtype, spec),
    }
}

fn multi_slice_of(
    kind: MultiSliceKind,
    moves: u64,
    indices: WorkerIndices,
    spec: &TileSpec,
) -> Cycles {
    let entry = match kind {
        MultiSliceKind::Slice => 30,
        MultiSliceKind::Update => 29,
    };
    let worker = entry + indices.in_range * (19 + 2 * moves) + indices.out_of_range * 8;
    multi_vertex(0, worker, spec)
}

/// Scaling of a row by a multi-update, before it adds or stores the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpdateScale {
    /// `MultiUpdateOp`: combines it as it is.
    None,
    /// `ScaledMultiUpdateOp` with add: multiplies by a factor of this type first.
    By(DType),
}

/// Order of the indices of a multi-update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IndexOrder {
    /// Any; every index is looked at.
    Unsorted,
    /// Ascending: each worker finds its own by binary search among the tile's indices.
    Sorted {
        /// Indices that point to one row of the table.
        per_entry: u64,
    },
}

/// Tile cycles of `MultiUpdateOp` or `ScaledMultiUpdateOp` on rows of `elements`.
///
/// A row that doesn't fill whole words is read, changed and stored element by element.
#[must_use]
pub fn multi_update_op(
    dtype: DType,
    scale: UpdateScale,
    elements: u64,
    indices: WorkerIndices,
    order: IndexOrder,
    spec: &TileSpec,
) -> Cycles {
    let is_four_byte = dtype != DType::F16;
    let special = special_row(dtype, scale, elements);
    let total = indices.in_range + indices.out_of_range;
    let scales = match scale {
        UpdateScale::None => 0,
        UpdateScale::By(_) => 4 + if is_four_byte { 2 } else { 0 },
    };
    let entry = 3 + if is_four_byte { 29 } else { 30 } + scales - u64::from(special.is_some());
    let (search, passed_over) = match order {
        IndexOrder::Unsorted => (0, indices.out_of_range),
        IndexOrder::Sorted { per_entry } => {
            let halvings = u64::from(total.max(1).next_power_of_two().ilog2());
            (2 * 10 * halvings + 15 * per_entry + 9 + 15, 0)
        }
    };
    let row = special.unwrap_or_else(|| general_row(dtype, scale, elements));
    let worker = entry + search + indices.in_range * row + passed_over * 5;
    multi_vertex(0, worker, spec)
}

/// Rows of 64 bits (or two of them in f32) have a code path of their own when scaled.
fn special_row(dtype: DType, scale: UpdateScale, elements: u64) -> Option<u64> {
    match (dtype, scale, elements) {
        (_, UpdateScale::None, _) => None,
        (DType::F16, UpdateScale::By(DType::F32), 4) => Some(12),
        (DType::F16, UpdateScale::By(_), 4) => Some(9),
        (DType::F32 | DType::U32, _, 2) => Some(8),
        (DType::F32 | DType::U32, _, 4) => Some(16),
        _ => None,
    }
}

/// Worker cycles of one row in range.
fn general_row(dtype: DType, scale: UpdateScale, elements: u64) -> u64 {
    let outer = match (dtype, scale) {
        (DType::F16, UpdateScale::None) => 12,
        (DType::F16, UpdateScale::By(_)) => 13,
        (DType::F32 | DType::U32, _) => 11,
    };
    let per_atom = ATOMIC_STORE / dtype.size().0;
    if !elements.is_multiple_of(per_atom) {
        return outer + 20 * elements;
    }
    let is_widened = dtype == DType::F16 && scale == UpdateScale::By(DType::F32);
    let pass = if is_widened { 4 } else { 3 };
    outer + (elements / per_atom).saturating_sub(1) * pass
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};
    use MultiSliceKind::{Slice, Update};

    #[test]
    fn dynamic_slices() {
        let check = |dtype, region, n_slices, cycles| {
            let sizes = DynamicSlice { region, n_slices };
            let got = dynamic_slice_1d(dtype, sizes, &gc200());
            assert_eq!(got, Cycles(cycles), "{dtype:?} {sizes:?}");
        };
        // 11 elements a worker, two whole vectors: 25 + 6 (39 + 24 + 2 * 2).
        check(F16, 64, 1, 427);
        check(F16, 1000, 1, 895);
        check(F16, 4096, 1, 2443);
        check(F32, 64, 3, 25 + 6 * (39 + 3 * (24 + 2 * 5)));

        let two_d = |dtype| dynamic_slice_2d(dtype, 2, &[9, 4], &gc200());
        assert_eq!(two_d(F16), WorkerCycles(27 + 2 * 37 + 13 + 2 * 33 + 13));
        assert_eq!(two_d(F32), WorkerCycles(27 + 2 * 34 + 13 + 2 * 31 + 13));
    }

    #[test]
    fn multi_slices() {
        let check = |kind, dtype, in_range, cycles| {
            let indices = WorkerIndices::scanned(10, in_range);
            let got = multi_slice(kind, dtype, 16, indices, &gc200());
            assert_eq!(got, Cycles(cycles), "{kind:?} {dtype:?} {in_range}");
        };
        // 8 moves of 2 cycles: 6 (30 + 19 + 16 + 9 * 8).
        check(Slice, F16, 1, 822);
        check(Slice, F32, 1, 822);
        check(Update, F16, 10, 2274);
        // One index, 512 words: 86 moves for the busiest worker.
        let one = multi_slice_one(Slice, F16, 1024, &gc200());
        assert_eq!(one, Cycles(6 * (30 + 19 + 2 * 86)));
    }

    #[test]
    fn multi_updates() {
        let check = |dtype, scale, elements, order, cycles| {
            let indices = WorkerIndices::scanned(10, 10);
            let got = multi_update_op(dtype, scale, elements, indices, order, &gc200());
            assert_eq!(got, Cycles(cycles), "{dtype:?} {scale:?} {elements}");
        };
        let unsorted = IndexOrder::Unsorted;
        let by = UpdateScale::By;
        // 6 (3 + 30 + 4 + 10 (13 + 7 * 3)) and 6 (3 + 29 + 6 + 10 (11 + 15 * 3)).
        check(F16, by(F16), 16, unsorted, 2262);
        check(F32, by(F32), 16, unsorted, 3588);
        check(
            F16,
            UpdateScale::None,
            16,
            unsorted,
            6 * (33 + 10 * (12 + 21)),
        );
        check(F16, by(F32), 16, unsorted, 6 * (37 + 10 * (13 + 28)));
        check(F16, by(F16), 4, unsorted, 6 * (36 + 10 * 9));
        check(F16, by(F32), 4, unsorted, 6 * (36 + 10 * 12));
        check(F32, by(F32), 2, unsorted, 6 * (37 + 10 * 8));
        check(F32, by(F32), 4, unsorted, 6 * (37 + 10 * 16));
        check(F16, by(F16), 3, unsorted, 6 * (37 + 10 * (13 + 60)));
        let sorted = IndexOrder::Sorted { per_entry: 2 };
        check(F16, by(F16), 16, sorted, 2262 + 6 * (80 + 30 + 24));
    }

    #[test]
    fn sorted_indices_out_of_range_cost_nothing() {
        let run = |order| {
            let indices = WorkerIndices::scanned(10, 1);
            multi_update_op(F32, UpdateScale::None, 8, indices, order, &gc200())
        };
        assert_eq!(
            run(IndexOrder::Unsorted),
            Cycles(6 * (32 + 11 + 21 + 9 * 5))
        );
        let sorted = IndexOrder::Sorted { per_entry: 1 };
        assert_eq!(run(sorted), Cycles(6 * (32 + 11 + 21 + 80 + 15 + 24)));
    }

    #[test]
    fn indices_of_the_busiest_worker() {
        let check = |got: WorkerIndices, in_range, out_of_range| {
            let expected = WorkerIndices {
                in_range,
                out_of_range,
            };
            assert_eq!(got, expected);
        };
        check(WorkerIndices::dealt_out(64, 2, &gc200()), 2, 9);
        check(WorkerIndices::dealt_out(64, 30, &gc200()), 11, 0);
        check(WorkerIndices::scanned(64, 30), 30, 34);
    }
}

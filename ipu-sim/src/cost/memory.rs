//! Fill, copy and transpose: what does moving data inside one tile cost?
//!
//! Sources: PopLibs `getFill1DCycleEstimate` and `getFill2DCycleEstimate`
//! (`lib/popops/PerformanceEstimation.cpp`) and `lib/popops/FillModelling.cpp`; copies as
//! measured on an IPU21 by an independent open-source compiler for it; transposes in
//! [`transpose`]. Left out: fills and copies of less than a 32-bit word at odd addresses.

pub mod transpose;

use super::elementwise::worker::{WorkerCycles, vector_width};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::{Bytes, BytesPerCycle, Cycles};

/// Tile cycles of a call of the local copy that all workers share (measured, IPU21).
pub(crate) const COPY_CALL: Cycles = Cycles(288);
/// Least vectors that a worker gets when a contiguous fill is split (PopLibs `Fill.cpp`).
const FILL_VECTORS_MIN: u64 = 2;

/// Worker cycles of `Fill`: one contiguous region of `elements`.
///
/// The average over alignments, as the source weighs them. An empty region costs its tests.
#[must_use]
pub fn fill_1d(dtype: DType, elements: u64, spec: &TileSpec) -> WorkerCycles {
    let width = vector_width(dtype, spec);
    WorkerCycles(match (dtype, elements) {
        (DType::F16, 1) => 15,
        (DType::F16, 2) => 21,
        (DType::F16, n) => 26 + n / width,
        (DType::F32 | DType::U32, n) => 16 + n / width + 6 + u64::from(n % width == 1) + 1,
    })
}

/// Worker cycles of `Fill2d` over regions of so many elements.
#[must_use]
pub fn fill_2d(dtype: DType, regions: &[u64], spec: &TileSpec) -> WorkerCycles {
    // The loop over regions saves part of what a 1-D fill pays to load its state.
    let (entry, saved) = match dtype {
        DType::F16 => (5, 2),
        DType::F32 | DType::U32 => (6, 3),
    };
    let body: u64 = regions
        .iter()
        .map(|&n| fill_1d(dtype, n, spec).0 - saved)
        .sum();
    WorkerCycles(entry + body)
}

/// Tile cycles of filling one contiguous region of `elements` with a `Fill` for each worker.
#[must_use]
pub fn fill(dtype: DType, elements: u64, spec: &TileSpec) -> Cycles {
    if elements == 0 {
        return Cycles::ZERO;
    }
    let width = vector_width(dtype, spec);
    let vectors = elements.div_ceil(width).div_ceil(u64::from(spec.workers));
    let share = (vectors.max(FILL_VECTORS_MIN) * width).min(elements);
    fill_1d(dtype, share, spec).on_tile(spec)
}

/// Tile cycles of copying `bytes` from one place of a tile to another; nothing for nothing.
#[must_use]
pub fn copy(bytes: Bytes, spec: &TileSpec) -> Cycles {
    match bytes {
        Bytes::ZERO => Cycles::ZERO,
        _ => COPY_CALL + bytes.div_ceil(BytesPerCycle(spec.data_path.0)),
    }
}

/// Tile cycles of putting `bytes` that arrived in fragments in order; nothing for nothing.
#[must_use]
pub fn assemble(bytes: Bytes, spec: &TileSpec) -> Cycles {
    match bytes {
        Bytes::ZERO => Cycles::ZERO,
        _ => COPY_CALL + Cycles((spec.assemble_64_bytes * bytes.0).0.div_ceil(64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32, U32};

    /// The source's own table for small regions (15, 21, 27, 28 and 24, 24, 25), which lies
    /// within the measured range over alignments, and 1024 elements.
    #[test]
    fn fill_of_one_worker() {
        let check = |dtype, elements, cycles| {
            let got = fill_1d(dtype, elements, &gc200());
            assert_eq!(got, WorkerCycles(cycles), "{dtype:?} {elements}");
        };
        check(F16, 1, 15);
        check(F16, 2, 21);
        check(F16, 4, 27);
        check(F16, 8, 28);
        check(F16, 1024, 282);
        check(F32, 1, 24);
        check(F32, 2, 24);
        check(F32, 4, 25);
        check(F32, 1024, 535);
        check(U32, 1024, 535);
    }

    #[test]
    fn fill_of_several_regions() {
        let f16 = fill_2d(F16, &[4, 8], &gc200());
        assert_eq!(f16, WorkerCycles(5 + 27 - 2 + 28 - 2));
        let f32 = fill_2d(F32, &[4], &gc200());
        assert_eq!(f32, WorkerCycles(6 + 25 - 3));
    }

    #[test]
    fn fill_of_a_tile() {
        let check = |dtype, elements, cycles| {
            let got = fill(dtype, elements, &gc200());
            assert_eq!(got, Cycles(cycles), "{dtype:?} {elements}");
        };
        check(F16, 0, 0);
        check(F16, 1, 6 * 15);
        // No worker gets less than two vectors, if there are two.
        check(F16, 24, 6 * 28);
        check(F16, 7, 6 * 27);
        check(F16, 4096, 6 * (26 + 171));
        check(F32, 4096, 6 * (16 + 342 + 7));
    }

    #[test]
    fn copies_pay_the_call_and_the_data_path() {
        let check = |bytes, cycles| assert_eq!(copy(Bytes(bytes), &gc200()), Cycles(cycles));
        check(0, 0);
        check(1, 289);
        check(8192, 288 + 1024);
        let spec = TileSpec {
            assemble_64_bytes: Cycles(40),
            ..gc200()
        };
        assert_eq!(assemble(Bytes(8192), &spec), Cycles(288 + 5 * 1024));
        assert_eq!(assemble(Bytes(0), &spec), Cycles(0));
    }
}

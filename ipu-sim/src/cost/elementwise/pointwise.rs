//! Small vertices of their own: select, clamp, Hadamard product, inverse standard
//! deviation, and f16 data times a f32 scalar.
//!
//! Source: PopLibs estimators of the same names in
//! `lib/popops/popopsCycleEstimators.cpp` and, for the inverse standard deviation,
//! `lib/poplin`.

use super::worker::{WorkerCycles, multi_vertex, per_worker, vector_width};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Worker cycles around the regions of select, clamp and Hadamard product.
const PROLOGUE: u64 = 5;
/// Worker cycles of each of their regions.
const REGION: u64 = 6;

/// Worker cycles of `Select`: `condition ? a : b`, element by element, over regions of so
/// many elements. Any element type.
#[must_use]
pub fn select(regions: &[u64]) -> WorkerCycles {
    WorkerCycles(PROLOGUE + regions.iter().map(|n| REGION + 5 * n).sum::<u64>())
}

/// Worker cycles of `Clamp` over regions of so many elements.
#[must_use]
pub fn clamp(dtype: DType, regions: &[u64], spec: &TileSpec) -> WorkerCycles {
    let width = vector_width(dtype, spec);
    let region = |n: &u64| REGION + 2 * (n + width - 1) / width;
    WorkerCycles(PROLOGUE + regions.iter().map(region).sum::<u64>())
}

/// Worker cycles of `HadamardProd` over regions of so many elements.
#[must_use]
pub fn hadamard(dtype: DType, regions: &[u64], spec: &TileSpec) -> WorkerCycles {
    let width = vector_width(dtype, spec);
    let region = |n: &u64| REGION + 2 * n.div_ceil(width);
    WorkerCycles(PROLOGUE + regions.iter().map(region).sum::<u64>())
}

/// Worker cycles of `InverseStdDeviation` from mean and power, over regions of so many
/// elements. Works in f32 pairs whatever the element types are.
#[must_use]
pub fn inverse_std_dev(regions: &[u64], spec: &TileSpec) -> WorkerCycles {
    let width = vector_width(DType::F32, spec);
    let region = |n: &u64| 4 + 5 * n.div_ceil(width);
    WorkerCycles(6 + regions.iter().map(region).sum::<u64>())
}

/// Tile cycles of `ScalarMultiply1D`: f16 data times a f32 scalar, four elements a pass.
///
/// The source's remainder depends on alignment; here a part of a pass costs a whole one.
#[must_use]
pub fn scalar_multiply(elements: u64, spec: &TileSpec) -> Cycles {
    let passes = per_worker(elements, spec).div_ceil(vector_width(DType::F16, spec));
    let body = 51 + 1 + 7 + 5 * passes.saturating_sub(1);
    multi_vertex(0, body, spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};

    #[test]
    fn laws() {
        let check = |got: WorkerCycles, cycles| assert_eq!(got, WorkerCycles(cycles));
        check(select(&[10, 1]), 5 + 56 + 11);
        // floor(2 * 13 / 4) and floor(2 * 4 / 4).
        check(clamp(F16, &[10, 1], &gc200()), 5 + 6 + 6 + 6 + 2);
        check(hadamard(F16, &[10, 1], &gc200()), 5 + 6 + 6 + 6 + 2);
        check(hadamard(F32, &[10, 1], &gc200()), 5 + 6 + 10 + 6 + 2);
        check(inverse_std_dev(&[10, 1], &gc200()), 6 + 29 + 9);
        // 16 elements a worker: four passes, the first in the prologue.
        assert_eq!(scalar_multiply(96, &gc200()), Cycles(6 * (59 + 15)));
    }
}

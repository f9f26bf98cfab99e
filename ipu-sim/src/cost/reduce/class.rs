//! Vertices of class labels: one-hot encoding, cross-entropy loss, argmax.
//!
//! Source: PopLibs `EncodeOneHot` (`lib/popops/popopsCycleEstimators.cpp`),
//! `LossCrossEntropyTransform` and `ReduceMaxClass*` (`lib/popnn/popnnCycleEstimators.cpp`,
//! `lib/popnn/PerformanceEstimation.hpp`). Left out: zeroing the output of an encoding, which
//! is a fill of its own, and argmax of integers.

use crate::cost::elementwise::SUPERVISOR_OVERHEAD;
use crate::cost::elementwise::worker::{WorkerCycles, assert_float, multi_vertex};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Tile cycles of encoding `indices` labels into rows of `out`, assuming that each row is on
/// the tile: the supervisor itself sets f16 ones, a worker in C++ those of other types.
#[must_use]
pub fn one_hot(out: DType, indices: u64, spec: &TileSpec) -> Cycles {
    match out {
        DType::F16 => Cycles(SUPERVISOR_OVERHEAD + 74 * indices),
        DType::F32 | DType::U32 => WorkerCycles(100 * indices).on_tile(spec),
    }
}

/// Worker cycles of the cross-entropy loss transform over `elements` probabilities.
#[must_use]
pub fn cross_entropy_loss(dtype: DType, elements: u64) -> WorkerCycles {
    assert_float(dtype, "the cross-entropy loss");
    WorkerCycles(match dtype {
        DType::F32 => 28 + 9 * elements,
        _ => 28 + 1 + 9 * (elements / 2) + 2 + elements % 2 * 11,
    })
}

/// Tile cycles of `ReduceMaxClassGather`, the first stage of an argmax: `per_worker` elements
/// (at least one) of each worker to their largest and its index.
#[must_use]
pub fn argmax_gather(dtype: DType, per_worker: u64, spec: &TileSpec) -> Cycles {
    assert_float(dtype, "an argmax");
    let worker = 17 + 3 * per_worker.saturating_sub(1) + 13;
    multi_vertex(9, worker, spec)
}

/// Worker cycles of `ReduceMaxClassSparse`, the later stages: the largest of `candidates`.
#[must_use]
pub fn argmax_sparse(dtype: DType, candidates: u64) -> WorkerCycles {
    assert_float(dtype, "an argmax");
    WorkerCycles(13 + 3 * candidates + 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32, U32};

    #[test]
    fn laws() {
        assert_eq!(one_hot(F16, 10, &gc200()), Cycles(751));
        assert_eq!(one_hot(F32, 10, &gc200()), Cycles(6000));
        assert_eq!(one_hot(U32, 1, &gc200()), Cycles(600));
        assert_eq!(cross_entropy_loss(F32, 64), WorkerCycles(28 + 576));
        assert_eq!(cross_entropy_loss(F16, 65), WorkerCycles(29 + 288 + 2 + 11));
        assert_eq!(argmax_gather(F16, 64, &gc200()), Cycles(9 + 6 * (30 + 189)));
        assert_eq!(argmax_sparse(F32, 20), WorkerCycles(83));
    }
}

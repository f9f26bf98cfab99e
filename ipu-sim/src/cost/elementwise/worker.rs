//! The barrel of a tile: from one worker's issue slots to tile cycles.
//!
//! A tile issues for its workers in turn, so an instruction of one worker takes as many
//! tile cycles as there are workers, whether the others are busy or not
//! (Tile Vertex ISA; PopLibs multiplies by `numWorkerContexts`).

use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Issue slots of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerCycles(pub u64);

impl WorkerCycles {
    /// Tile cycles during which the slowest worker takes this many slots.
    #[must_use]
    pub fn on_tile(self, spec: &TileSpec) -> Cycles {
        Cycles(self.0 * u64::from(spec.workers))
    }
}

/// Elements of the busiest worker when `elements` are split evenly.
pub(crate) fn per_worker(elements: u64, spec: &TileSpec) -> u64 {
    elements.div_ceil(u64::from(spec.workers))
}

/// Tile cycles of a MultiVertex: `supervisor` cycles, then all workers in step.
pub(crate) fn multi_vertex(supervisor: u64, worker: u64, spec: &TileSpec) -> Cycles {
    Cycles(supervisor) + WorkerCycles(worker).on_tile(spec)
}

/// Elements of `dtype` in one load.
pub(crate) fn vector_width(dtype: DType, spec: &TileSpec) -> u64 {
    spec.vector_width(dtype.size())
}

/// Refuses integers where only floating-point vertices exist.
#[track_caller]
pub(crate) fn assert_float(dtype: DType, vertex: &str) {
    assert!(
        matches!(dtype, DType::F16 | DType::F32),
        "{vertex} exists for f16 and f32, not for {dtype:?}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;

    #[test]
    fn a_worker_slot_takes_a_turn_of_the_barrel() {
        assert_eq!(WorkerCycles(10).on_tile(&gc200()), Cycles(60));
        assert_eq!(multi_vertex(11, 10, &gc200()), Cycles(71));
        assert_eq!(per_worker(13, &gc200()), 3);
    }
}

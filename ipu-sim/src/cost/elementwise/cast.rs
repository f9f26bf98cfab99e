//! Casts between element types.
//!
//! Source: PopLibs `getCast1DCycleEstimate`, `getCast1DSingleWorkerCycleEstimate`,
//! `getCast2DCycleEstimate` and `castWorkerCycles` in `lib/popops/PerformanceEstimation.cpp`;
//! the choice of vertex from `lib/popops/Cast.cpp`. Left out: 8-bit and 64-bit types.

use super::worker::{WorkerCycles, multi_vertex, per_worker, vector_width};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Supervisor cycles of `Cast1D`.
const SUPERVISOR: u64 = 12;
/// Worker cycles of `Cast1D` around its core.
const WORKER_1D: u64 = 18;
/// Worker cycles of a single-worker or 2-D vertex: parameters, call and exit.
const WORKER_SINGLE: u64 = 5;
/// Worker cycles of each region of `Cast2D`.
const REGION: u64 = 11;
/// Loads that a conversion may draw on at once, were memory interleaved: sets its width.
const READ_PORTS: u64 = 2;

/// Worker cycles of `CheckAccuracyWhenCast`: does a f32 scalar survive in f16?
#[must_use]
pub fn check_accuracy_when_cast() -> WorkerCycles {
    WorkerCycles(30)
}

/// Tile cycles of casting one contiguous region of `elements` with the vertex that popops
/// chooses: few elements go to one worker.
#[must_use]
pub fn cast(from: DType, to: DType, elements: u64, spec: &TileSpec) -> Cycles {
    let grain = vector_width(from, spec).min(vector_width(to, spec));
    if elements <= u64::from(spec.workers) * grain {
        cast_1d_one_worker(from, to, elements, spec).on_tile(spec)
    } else {
        cast_1d(from, to, elements, spec)
    }
}

/// Tile cycles of `Cast1D` over `elements`.
#[must_use]
pub fn cast_1d(from: DType, to: DType, elements: u64, spec: &TileSpec) -> Cycles {
    let share = per_worker(elements, spec);
    multi_vertex(SUPERVISOR, WORKER_1D + core(from, to, share, spec), spec)
}

/// Worker cycles of `Cast1DSingleWorker` over `elements`.
#[must_use]
pub fn cast_1d_one_worker(from: DType, to: DType, elements: u64, spec: &TileSpec) -> WorkerCycles {
    WorkerCycles(WORKER_SINGLE + core(from, to, elements, spec))
}

/// Worker cycles of `Cast2D` over regions of so many elements.
#[must_use]
pub fn cast_2d(from: DType, to: DType, regions: &[u64], spec: &TileSpec) -> WorkerCycles {
    let body: u64 = regions
        .iter()
        .map(|&n| REGION + core(from, to, n, spec))
        .sum();
    WorkerCycles(WORKER_SINGLE + body)
}

/// PopLibs `castWorkerCycles`: a loop as wide as loads and stores allow, then one test for
/// each smaller power of two, and two cycles where it is needed.
fn core(from: DType, to: DType, elements: u64, spec: &TileSpec) -> u64 {
    let load = vector_width(from, spec);
    let store = vector_width(to, spec);
    let is_float = from != DType::U32 && to != DType::U32;
    let step = if is_float {
        (load * READ_PORTS).min(store)
    } else {
        1
    };
    let moves = (step / step.min(load)).max(step / step.min(store));
    let pass = moves + u64::from(!is_float);
    let remainder = elements % step;
    let tests = u64::from(step.ilog2());
    let handled = u64::from(remainder.count_ones());
    19 + pass * (elements / step) + tests + 2 * handled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32, U32};

    /// Narrowing takes 2 cycles for 4 elements, widening 1 for 2: 64 elements leave 11 to a
    /// worker, that is 12 + 6 (18 + 19 + 2 * 2 + 2 + 2 * 2).
    #[test]
    fn one_dimensional() {
        let check = |from, to, elements, cycles| {
            let got = cast_1d(from, to, elements, &gc200());
            assert_eq!(got, Cycles(cycles), "{from:?} {to:?} {elements}");
        };
        check(F32, F16, 64, 294);
        check(F32, F16, 1000, 762);
        check(F32, F16, 4096, 2310);
        check(F16, F32, 64, 282);
        check(F16, F32, 1000, 750);
        check(F16, F32, 4096, 2298);
        // Integers go one by one, two cycles each.
        check(U32, F32, 60, 12 + 6 * (18 + 19 + 2 * 10));
    }

    #[test]
    fn few_elements_stay_with_one_worker() {
        let check = |elements, cycles| {
            assert_eq!(
                cast(F32, F16, elements, &gc200()),
                Cycles(cycles),
                "{elements}"
            );
        };
        check(12, 6 * (5 + 19 + 6 + 2));
        check(13, 12 + 6 * (18 + 19 + 2 + 4));
        check(64, 294);
    }

    #[test]
    fn two_dimensional_adds_its_regions() {
        let got = cast_2d(F32, F16, &[8, 4], &gc200());
        assert_eq!(got, WorkerCycles(5 + (11 + 19 + 4 + 2) + (11 + 19 + 2 + 2)));
        assert_eq!(check_accuracy_when_cast(), WorkerCycles(30));
    }
}

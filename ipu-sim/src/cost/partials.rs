//! What does it cost to add up the partial products of several tiles?
//!
//! The `ReduceAdd` vertex, the multi-stage plan around it, and the simple laws by which
//! the matmul planner charges its side work (casts, slices, adds in place).
//!
//! Source: PopLibs, `lib/poplin/poplinCycleEstimators.cpp` (the vertex),
//! `lib/poplin/ConvReducePlan.{hpp,cpp}` (stages, choice of form),
//! `lib/poplin/PerformanceEstimation.hpp` (the wrapper and the cast).
//! Left out: the fast form with interleaved loads, which needs the option
//! `enableFastReduce` (off by default), and the exchange before each stage.

use smallvec::SmallVec;

use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// How a `ReduceAdd` vertex finds its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceForm {
    /// The exchanged inputs lie one after the other; the tile's own partial is the start.
    SingleInput,
    /// Every input has its own address.
    General,
}

/// Element types on both sides of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReduceTypes {
    /// Element type of the sums that are added.
    pub partials: DType,
    /// Element type of the result.
    pub output: DType,
}

/// Elements that the accumulators of one vertex loop hold: 8 of f16, 4 of f32.
fn accumulators(partials: DType) -> u64 {
    if is_f32(partials) { 4 } else { 8 }
}

fn is_f32(dtype: DType) -> bool {
    dtype != DType::F16
}

/// Tile cycles of one `ReduceAdd` vertex that makes `outputs` elements from `inputs`
/// regions of as many; with [`ReduceForm::SingleInput`], `inputs` is one fewer than the
/// number of partials, because the first is already in place.
#[must_use]
pub fn reduce_add(
    outputs: u64,
    inputs: u64,
    form: ReduceForm,
    types: ReduceTypes,
    spec: &TileSpec,
) -> Cycles {
    let workers = u64::from(spec.workers);
    let width = accumulators(types.partials);
    let loads = width / spec.vector_width(types.partials.size());
    let f32_in = is_f32(types.partials);
    let f32_out = is_f32(types.output);
    match form {
        ReduceForm::SingleInput => {
            let per_loop = match (f32_in, f32_out) {
                (true, true) => 8,
                (true, false) => 7,
                (false, true) => 10,
                (false, false) => 9,
            };
            let loops = (outputs / width).div_ceil(workers);
            Cycles(33 + workers * (20 + (loads * inputs + per_loop) * loops))
        }
        ReduceForm::General => {
            let per_loop = match (f32_in, f32_out) {
                (true, true) => 7,
                (false, true) => 9,
                (true, false) => 6,
                (false, false) => 8,
            };
            let rest = outputs % width;
            let total = outputs / width + u64::from(rest.count_ones());
            let (mut loops, mut base) = (total / workers, 32);
            if !total.is_multiple_of(workers) {
                if rest == 0 {
                    loops += 1;
                } else {
                    base += 2 * inputs + if f32_in { 13 } else { 11 };
                }
            }
            Cycles(workers * (base + ((loads + 1) * inputs + per_loop) * loops))
        }
    }
}

/// One stage of a reduction over tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReduceStage {
    /// Partials that every tile adds up in this stage.
    pub depth: u64,
    /// Partials of each element that are left afterwards; 1 after the last stage.
    pub remaining: u64,
}

/// The stages of a reduction, first to last.
pub type ReduceStages = SmallVec<[ReduceStage; 3]>;

/// Splits a reduction of `depth` partials into stages, so that a tile receives few
/// messages; none for a depth of 0 or 1.
#[must_use]
pub fn reduce_stages(depth: u64) -> ReduceStages {
    let mut stages = ReduceStages::new();
    let mut remaining = depth;
    for target in intermediate_depths(depth) {
        let stage_depth = remaining.div_ceil(target);
        remaining = remaining.div_ceil(stage_depth);
        stages.push(ReduceStage {
            depth: stage_depth,
            remaining,
        });
    }
    if remaining > 1 {
        stages.push(ReduceStage {
            depth: remaining,
            remaining: 1,
        });
    }
    stages
}

/// Depths to reach after each stage but the last.
fn intermediate_depths(depth: u64) -> SmallVec<[u64; 2]> {
    // The thresholds come from the source's own benchmarking of exchange code size.
    let n_stages = match depth {
        0..16 => 1,
        16..125 => 2,
        _ => 3,
    };
    cheapest_depths(depth, n_stages).0
}

/// The intermediate depths with the fewest messages for an average tile, and that number.
/// f32, and the larger depth where both cost the same, as in the source.
fn cheapest_depths(depth: u64, n_stages: u32) -> (SmallVec<[u64; 2]>, f32) {
    if n_stages == 1 {
        return (SmallVec::new(), depth as f32);
    }
    let exponent = f64::from(n_stages - 1) / f64::from(n_stages);
    let below = libm::pow(depth as f64, exponent) as u64;
    let through = |next: u64| {
        let (mut depths, messages) = cheapest_depths(next, n_stages - 1);
        depths.insert(0, next);
        (depths, messages + depth as f32 / next as f32)
    };
    let (low, high) = (through(below), through(below + 1));
    if low.1 < high.1 { low } else { high }
}

/// Tile cycles to reduce `depth` partials of `outputs` final elements for each tile, in
/// the stages that [`reduce_stages`] gives. A single partial needs at most a cast, and not
/// even that inside a serial loop over input channels (`deferred_cast`).
#[must_use]
pub fn conv_reduce(
    outputs: u64,
    depth: u64,
    deferred_cast: bool,
    types: ReduceTypes,
    spec: &TileSpec,
) -> Cycles {
    if depth == 1 && types.partials != types.output && !deferred_cast {
        return planner_cast(outputs, types, spec);
    }
    conv_reduce_stages(outputs, depth, &reduce_stages(depth), types, spec)
}

/// Cycles of [`conv_reduce`] for two partials or more, with the stages already at hand.
#[must_use]
pub fn conv_reduce_stages(
    outputs: u64,
    depth: u64,
    stages: &[ReduceStage],
    types: ReduceTypes,
    spec: &TileSpec,
) -> Cycles {
    let mut size = outputs * depth;
    let mut cycles = Cycles::ZERO;
    for stage in stages {
        size = size.div_ceil(stage.depth);
        let output = if stage.remaining == 1 {
            types.output
        } else {
            types.partials
        };
        let types = ReduceTypes { output, ..types };
        let (form, inputs) = stage_form(size, stage.depth, types.partials, spec);
        cycles += reduce_add(size, inputs, form, types, spec);
    }
    cycles
}

/// The form of vertex that adds `depth` partials of `size` elements, and its inputs.
pub(super) fn stage_form(
    size: u64,
    depth: u64,
    partials: DType,
    spec: &TileSpec,
) -> (ReduceForm, u64) {
    let whole_loops = size.is_multiple_of(accumulators(partials));
    let received = partials.size() * ((depth - 1) * size);
    // The inputs must not claim a large block of contiguous memory.
    let elements = received.0.div_ceil(spec.memory_element.0);
    if whole_loops && elements * spec.memory_element.0 < spec.memory.0 / 16 {
        (ReduceForm::SingleInput, depth - 1)
    } else {
        (ReduceForm::General, depth)
    }
}

/// Tile cycles that the planner charges to cast `elements`: one load or store a cycle.
#[must_use]
pub fn planner_cast(elements: u64, types: ReduceTypes, spec: &TileSpec) -> Cycles {
    let workers = u64::from(spec.workers);
    let per_worker = elements.div_ceil(workers);
    let vectors = |dtype: DType| per_worker.div_ceil(spec.vector_width(dtype.size()));
    Cycles(workers * (vectors(types.partials).max(vectors(types.output)) + 26))
}

/// Tile cycles that the planner charges to take or put back one slice of `elements` in a
/// serial loop (PopLibs, `DynamicSlice1D` with one sub-element).
#[must_use]
pub fn planner_slice(elements: u64, dtype: DType, spec: &TileSpec) -> Cycles {
    let workers = u64::from(spec.workers);
    let vectors = elements.div_ceil(workers) / spec.vector_width(dtype.size());
    Cycles(25 + workers * (39 + 24 + 2 * vectors))
}

/// Tile cycles that the planner charges to add `elements` into the sum of a serial loop
/// (PopLibs, `BinaryOp1DInPlace` add).
#[must_use]
pub fn planner_add_in_place(elements: u64, dtype: DType, spec: &TileSpec) -> Cycles {
    let workers = u64::from(spec.workers);
    let vectors = elements
        .div_ceil(workers)
        .div_ceil(spec.vector_width(dtype.size()));
    Cycles(11 + workers * (58 + 3 * vectors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;

    const F16: ReduceTypes = ReduceTypes {
        partials: DType::F16,
        output: DType::F16,
    };
    const F32_TO_F16: ReduceTypes = ReduceTypes {
        partials: DType::F32,
        output: DType::F16,
    };

    /// Evaluated by hand from PopLibs' `getReduceCycleEstimate`.
    #[test]
    fn one_vertex() {
        let check = |types, outputs, inputs, form, expect| {
            let got = reduce_add(outputs, inputs, form, types, &gc200());
            assert_eq!(got, Cycles(expect), "{outputs} x {inputs}, {form:?}");
        };
        check(F16, 768, 8, ReduceForm::General, 3264);
        check(F16, 768, 7, ReduceForm::SingleInput, 2361);
        check(F32_TO_F16, 768, 7, ReduceForm::SingleInput, 4185);
        check(F32_TO_F16, 768, 8, ReduceForm::General, 5952);
        check(F32_TO_F16, 1000, 4, ReduceForm::General, 4728);
        check(F16, 96, 2, ReduceForm::General, 360);
    }

    /// A rest that is no whole vector goes to the base, not to the loop: 13 = 8 + 4 + 1 is
    /// three loops for six workers.
    #[test]
    fn one_vertex_with_a_rest() {
        let got = reduce_add(13, 2, ReduceForm::General, F16, &gc200());
        assert_eq!(got, Cycles(6 * (32 + 2 * 2 + 11)));
    }

    /// Evaluated by hand from PopLibs' `getMultiStageReducePlan`: depth of each stage.
    #[test]
    fn stages() {
        let check = |depth, expect: &[u64]| {
            let stages = reduce_stages(depth);
            let got: Vec<u64> = stages.iter().map(|stage| stage.depth).collect();
            assert_eq!(got, expect, "depth {depth}");
            assert!(stages.last().is_none_or(|stage| stage.remaining == 1));
        };
        check(0, &[]);
        check(1, &[]);
        check(2, &[2]);
        check(15, &[15]);
        check(16, &[4, 4]);
        check(23, &[5, 5]);
        check(48, &[7, 7]);
        check(64, &[8, 8]);
        check(124, &[12, 11]);
        check(125, &[5, 5, 5]);
        check(1472, &[12, 12, 11]);
    }

    /// Sums of the vertices above: the size of a stage, its form and its output type.
    #[test]
    fn whole_reductions() {
        let check = |types, outputs, depth, deferred_cast, expect| {
            let got = conv_reduce(outputs, depth, deferred_cast, types, &gc200());
            assert_eq!(got, Cycles(expect), "{outputs} x {depth}");
        };
        check(F16, 2864, 0, false, 0);
        check(F16, 2864, 1, false, 0);
        check(F32_TO_F16, 1000, 1, false, 660);
        check(F32_TO_F16, 1000, 1, true, 0);
        // 17,184 B received fit two memory elements: single input.
        check(F16, 2864, 4, false, 5553);
        // 43,008 B received don't: 6 * (32 + (3 * 8 + 8) * cd(3072 / 8, 6)).
        check(F16, 3072, 8, false, 12480);
        // Two stages of four: 4 * 768 elements (32,256 B received), then 768.
        let first = reduce_add(3072, 3, ReduceForm::SingleInput, F16, &gc200());
        let last = reduce_add(768, 3, ReduceForm::SingleInput, F16, &gc200());
        check(F16, 768, 16, false, (first + last).0);
    }

    /// Evaluated by hand from PopLibs' `estimateCastCycles` and popops estimators.
    #[test]
    fn planner_side_work() {
        let spec = gc200();
        let cast = |n| planner_cast(n, F32_TO_F16, &spec).0;
        assert_eq!([64, 1000, 4096].map(cast), [192, 660, 2208]);
        let slice = |n| planner_slice(n, DType::F16, &spec).0;
        assert_eq!([64, 1000, 4096].map(slice), [427, 895, 2443]);
        let half = |n| planner_add_in_place(n, DType::F16, &spec).0;
        assert_eq!([96, 1000, 4096].map(half), [431, 1115, 3437]);
        let float = |n| planner_add_in_place(n, DType::F32, &spec).0;
        assert_eq!([96, 1000, 4096].map(float), [503, 1871, 6515]);
    }
}

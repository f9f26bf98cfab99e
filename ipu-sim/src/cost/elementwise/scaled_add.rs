//! Scaled sums: `A += k B`, `A -= k B`, `A = a A + b B`.
//!
//! Source: PopLibs `getScaledArithmeticSupervisorCycleEstimate`
//! (`lib/popops/PerformanceEstimation.cpp`), `ScaledArithmetic2DCycleEstimate` and
//! `aXPlusbYMixedSupervisorCycleEstimate` (`lib/popops/popopsCycleEstimators.cpp`).
//!
//! As the source's own planner does, pointers are taken to be scaled 64-bit ones.
//! The source forgets the whole vectors that don't divide over the workers when both
//! operands have one type, and these laws follow it: at most one pass of the loop.
//! Left out: integers.

use super::SUPERVISOR_OVERHEAD;
use super::worker::{WorkerCycles, assert_float, multi_vertex, per_worker, vector_width};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Expression of a scaled sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScaledForm {
    /// `A += k B`.
    Add,
    /// `A -= k B`.
    Subtract,
    /// `A = a A + b B`, also as `A - a A + b B`.
    AxPlusBy,
    /// `A = a A - b B`.
    AxMinusBy,
}

impl ScaledForm {
    fn scales_both(self) -> bool {
        matches!(self, Self::AxPlusBy | Self::AxMinusBy)
    }
}

/// Where the factors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scale {
    /// Known when the graph is built.
    Constant,
    /// Read from a tensor on the tile.
    Tensor,
}

/// Whether the graph promises a placement of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperandMemory {
    /// Anywhere.
    Any,
    /// In different memory elements, so that both are read in one cycle.
    SeparateElements,
}

/// One scaled sum, without its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaledAdd {
    /// Expression that is computed.
    pub form: ScaledForm,
    /// Element type of `A`, read and written.
    pub a: DType,
    /// Element type of `B`.
    pub b: DType,
    /// Where the factors come from.
    pub scale: Scale,
    /// Placement of the operands.
    pub memory: OperandMemory,
}

/// Vectors a worker from which the loop over separated operands takes one cycle.
const FAST_VECTORS_MIN: u64 = 16;

/// Tile cycles of `ScaledAddSupervisor` and its relatives over `elements`.
///
/// f16 data under f32 factors is [`scaled_add_mixed`].
#[must_use]
pub fn scaled_add_1d(sum: ScaledAdd, elements: u64, spec: &TileSpec) -> Cycles {
    assert_float(sum.a, "a scaled sum");
    assert_float(sum.b, "a scaled sum");
    let width = vector_width(sum.a, spec);
    let vectors = elements / width;
    let left = elements % width;
    let worker = if (sum.a, sum.b) == (DType::F16, DType::F32) {
        widened_worker(per_worker(vectors, spec), left)
    } else if sum.a == DType::F32 && sum.form.scales_both() {
        let tail = 1 + if left > 0 { 5 } else { 0 };
        16 + inner(vectors / u64::from(spec.workers), 6, 3) + tail + 1
    } else {
        same_loop_worker(sum, vectors / u64::from(spec.workers), left)
    };
    multi_vertex(supervisor(sum, left), worker, spec)
}

/// Supervisor cycles: common entry, scaled pointers, exit, and the factors if they are read.
fn supervisor(sum: ScaledAdd, left: u64) -> u64 {
    let entry = 21 + 6 + SUPERVISOR_OVERHEAD + if left == 0 { 7 } else { 13 } + 12;
    let factors = match (sum.scale, sum.form) {
        (Scale::Constant, _) => 0,
        (Scale::Tensor, ScaledForm::Add | ScaledForm::AxMinusBy) => 6,
        (Scale::Tensor, ScaledForm::Subtract) => 6 + 7,
        // Two more pointers to unpack, a cycle each.
        (Scale::Tensor, ScaledForm::AxPlusBy) => 6 + 12 + 2,
    };
    entry + factors
}

/// A loop that runs `vectors` times, its first pass inside `first`.
fn inner(vectors: u64, first: u64, pass: u64) -> u64 {
    match vectors {
        0 => 0,
        n => first + pass * (n - 1),
    }
}

/// Operands of one type, or f32 `A` with f16 `B`.
fn same_loop_worker(sum: ScaledAdd, vectors: u64, left: u64) -> u64 {
    let pass = match sum.memory {
        OperandMemory::SeparateElements if vectors >= FAST_VECTORS_MIN => 1,
        OperandMemory::SeparateElements => 2,
        OperandMemory::Any if sum.a == sum.b => 3,
        OperandMemory::Any => 4,
    };
    let tail = match (sum.a, left) {
        (_, 0) => 0,
        (DType::F32, _) => 8,
        (_, 1) => 5,
        (_, 2) => 12,
        (_, _) => 18,
    };
    15 + inner(vectors, 6, pass) + 2 + 1 + tail + 1
}

/// f16 `A` with f32 `B`.
fn widened_worker(vectors: u64, left: u64) -> u64 {
    let tail = match left {
        0 => 0,
        n => 4 + n / 2 * 5 + n % 2 * 7,
    };
    16 + inner(vectors, 9, 5) + 2 + 1 + tail + 1
}

/// Worker cycles of `ScaledAdd2D` and its relatives over regions of so many elements.
#[must_use]
pub fn scaled_add_2d(sum: ScaledAdd, regions: &[u64], spec: &TileSpec) -> WorkerCycles {
    assert_float(sum.a, "a scaled sum");
    let width = vector_width(sum.a, spec);
    let float_both = sum.a == DType::F32 && sum.form.scales_both();
    let pass = match sum.memory {
        OperandMemory::SeparateElements if !float_both => 2,
        _ => 3,
    };
    let factors = match (sum.scale, sum.form) {
        (Scale::Tensor, ScaledForm::Subtract) => 1 + 2,
        (Scale::Tensor, ScaledForm::AxPlusBy) => 1 + 6,
        (Scale::Tensor, _) => 1,
        (Scale::Constant, ScaledForm::AxPlusBy) => 4,
        (Scale::Constant, _) => 0,
    };
    let region = |&n: &u64| {
        let vectors = n / width;
        let tail = match (sum.a, n % width) {
            (_, 0) => 0,
            (DType::F32, _) => 7,
            (_, left) => 4 + left / 2 * 6 + left % 2 * 7,
        };
        15 + if vectors > 0 { 5 + pass * vectors } else { 0 } + tail
    };
    WorkerCycles(9 + factors + regions.iter().map(region).sum::<u64>())
}

/// Tile cycles of `aXPlusbYSupervisor` (or minus) on f16 data with f32 factors read from
/// tensors, over `elements`. It first checks whether the factors fit f16, and works in f32
/// pairs.
///
/// The source's share of the slowest worker mixes up elements and pairs; here the pairs are
/// dealt out evenly.
#[must_use]
pub fn scaled_add_mixed(memory: OperandMemory, elements: u64, spec: &TileSpec) -> Cycles {
    let placement = match memory {
        OperandMemory::Any => 1,
        OperandMemory::SeparateElements => 7,
    };
    let accuracy_check = 15 * u64::from(spec.workers);
    let left = elements % 2;
    let supervisor = placement + 12 + 10 + accuracy_check + 14 + 30 + if left == 0 { 5 } else { 0 };
    let share = 2 * per_worker(elements / 2, spec) + left;
    multi_vertex(supervisor, 19 + 1 + mixed_core(share), spec)
}

/// PopLibs `aXPlusbYMixedCoreCycleEstimate` for one worker's `elements`.
fn mixed_core(elements: u64) -> u64 {
    let body = match elements {
        0 | 4 => 1,
        1 => 1 + 14,
        2 => 1 + 13,
        3 => 1 + 22,
        n => {
            let passes = ((n - 4) / 2).saturating_sub(1);
            11 + 5 * passes + 4 + n % 2 * 9
        }
    };
    4 + body + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};
    use OperandMemory::{Any, SeparateElements};
    use ScaledForm::{Add, AxPlusBy, Subtract};

    fn sum(form: ScaledForm, [a, b]: [DType; 2], memory: OperandMemory) -> ScaledAdd {
        let scale = Scale::Tensor;
        ScaledAdd {
            form,
            a,
            b,
            scale,
            memory,
        }
    }

    #[test]
    fn one_dimensional() {
        let check = |sum: ScaledAdd, elements, cycles| {
            let got = scaled_add_1d(sum, elements, &gc200());
            assert_eq!(got, Cycles(cycles), "{sum:?} {elements}");
        };
        // 1024 vectors, 170 of them counted: 63 + 6 (15 + 6 + 3 * 169 + 4).
        check(sum(Add, [F16, F16], Any), 4096, 3255);
        check(sum(Add, [F16, F16], SeparateElements), 4096, 1227);
        check(sum(Add, [F32, F32], Any), 4096, 6333);
        check(sum(Add, [F32, F32], SeparateElements), 4096, 2253);
        // Below 16 vectors a worker the fast loop doesn't pay: 15 of them, 2 cycles each.
        check(
            sum(Add, [F16, F16], SeparateElements),
            360,
            63 + 6 * (25 + 2 * 14),
        );
        // Mixed types: 10 vectors a worker, and three elements over.
        check(sum(Add, [F32, F16], Any), 120, 63 + 6 * (25 + 4 * 9));
        check(
            sum(Add, [F16, F32], Any),
            240,
            63 + 6 * (16 + 9 + 5 * 9 + 4),
        );
        check(sum(Add, [F16, F16], Any), 243, 69 + 6 * (25 + 3 * 9 + 18));
        check(sum(Add, [F16, F32], Any), 243, 69 + 6 * (74 + 4 + 12));
        check(sum(Subtract, [F16, F16], Any), 240, 70 + 6 * (25 + 3 * 9));
        check(
            sum(AxPlusBy, [F32, F32], SeparateElements),
            120,
            77 + 6 * (24 + 3 * 9),
        );
        let constant = ScaledAdd {
            scale: Scale::Constant,
            ..sum(Add, [F16, F16], Any)
        };
        check(constant, 240, 57 + 6 * (25 + 3 * 9));
        // No whole vector for anyone.
        check(constant, 3, 63 + 6 * (19 + 18));
    }

    #[test]
    fn two_dimensional() {
        let check = |sum: ScaledAdd, cycles| {
            let got = scaled_add_2d(sum, &[40, 7, 3], &gc200());
            assert_eq!(got, WorkerCycles(cycles), "{sum:?}");
        };
        // Regions of 10 vectors; 1 vector and 3 over; 3 over.
        check(
            sum(Add, [F16, F16], Any),
            10 + 50 + (15 + 8 + 17) + (15 + 17),
        );
        check(
            sum(Add, [F16, F16], SeparateElements),
            10 + 40 + (15 + 7 + 17) + (15 + 17),
        );
        check(
            sum(AxPlusBy, [F32, F32], SeparateElements),
            16 + 80 + 36 + 30,
        );
        check(sum(Subtract, [F16, F16], Any), 12 + 50 + 40 + 32);
    }

    #[test]
    fn mixed_precision() {
        let check = |memory, elements, cycles| {
            let got = scaled_add_mixed(memory, elements, &gc200());
            assert_eq!(got, Cycles(cycles), "{elements}");
        };
        // 40 elements a worker: 17 passes after the first.
        check(Any, 240, 162 + 6 * (20 + 4 + 11 + 85 + 4 + 1));
        check(SeparateElements, 240, 168 + 6 * (20 + 4 + 11 + 85 + 4 + 1));
        check(Any, 1, 157 + 6 * (20 + 4 + 15 + 1));
    }
}

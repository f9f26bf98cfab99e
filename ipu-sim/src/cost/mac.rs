//! What does a matrix product cost without the AMP unit?
//!
//! Three vertices use the multiply-accumulate instructions of the workers. The *horizontal*
//! MAC forms dot products along the channels in; the *vertical* MAC works on several groups
//! side by side, each with one channel in and out; the *outer product* takes one channel in.
//! They do a vector's width of multiplications a cycle at most, so the planner takes them
//! only where channels would fill little of the AMP.
//!
//! Source: PopLibs, `lib/poplin/PerformanceEstimation.hpp`, the estimators of
//! `ConvPartialHorizontalMac`, `ConvPartialVerticalMac` and `OuterProduct`, for kernels of
//! one element and one row of positions.

use super::amp::{AmpTypes, AmpWork, ClearedPartials, zero_partials};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Channels out that the horizontal MAC makes at once: two f16 or one f32.
#[must_use]
pub fn horizontal_out_channels(types: AmpTypes) -> u64 {
    match types {
        AmpTypes::F16F16 => 2,
        AmpTypes::F16F32 | AmpTypes::F32F32 => 1,
    }
}

/// Issue slots of a dot product of `size` elements, of two if partials are f16.
fn dot_product(types: AmpTypes, size: u64, spec: &TileSpec) -> u64 {
    let outputs = horizontal_out_channels(types);
    let vector = spec.vector_width(types.operand().size());
    // The widest load that divides the channels; narrower ones can't load both operands at once.
    let width = vector.min(1 << size.trailing_zeros().min(vector.ilog2()));
    let (per_load, start) = if width < vector { (2, outputs) } else { (1, 0) };
    let base = match types {
        AmpTypes::F16F16 => 11,
        AmpTypes::F16F32 | AmpTypes::F32F32 => 7,
    };
    let saved = u64::from(types.operand() == DType::F16);
    base + start + size / width * per_load - saved
}

/// Tile cycles of the horizontal MAC for one block of channels over `positions`.
#[must_use]
pub fn horizontal_inner(
    types: AmpTypes,
    positions: u64,
    in_channels: u64,
    spec: &TileSpec,
) -> Cycles {
    let workers = u64::from(spec.workers);
    let positions = positions.div_ceil(workers);
    let dot = dot_product(types, in_channels, spec);
    // f16 operands with f32 partials have a codelet of their own for kernels of one element.
    let run = match (types, positions) {
        (_, 0) => 7,
        (AmpTypes::F16F32, n) => 14 + n * (2 + dot),
        (AmpTypes::F16F16 | AmpTypes::F32F32, n) => 19 + n * (7 + dot),
    };
    Cycles(workers * (16 - horizontal_retention(types) + run + 16))
}

/// Cycles that a worker of the horizontal MAC saves after its first call.
fn horizontal_retention(types: AmpTypes) -> u64 {
    match types {
        AmpTypes::F16F32 => 15,
        AmpTypes::F16F16 => 6,
        AmpTypes::F32F32 => 0,
    }
}

/// Cycles saved between calls that clear partials.
fn zeroing_retention(types: AmpTypes) -> u64 {
    match types.partials() {
        DType::F16 => 10,
        DType::F32 | DType::U32 => 9,
    }
}

/// Tile cycles of a whole horizontal MAC over `positions`, given those of a block, its
/// clearing of the partials included.
#[must_use]
pub fn horizontal_outer(
    types: AmpTypes,
    positions: u64,
    work: AmpWork,
    inner: Cycles,
    spec: &TileSpec,
) -> Cycles {
    let overhead = match types {
        AmpTypes::F32F32 => 58,
        AmpTypes::F16F16 => 65,
        AmpTypes::F16F32 => 55,
    };
    let retained = zeroing_retention(types) + horizontal_retention(types);
    let blocks = work.in_groups * (15 + work.out_groups * (10 + inner.0));
    let vertex = overhead + u64::from(spec.workers) * retained + work.groups * (23 + blocks);
    let zeroed = ClearedPartials {
        elements: positions * horizontal_out_channels(types),
        regions: work.out_groups * work.groups,
    };
    Cycles(vertex) + zero_partials(zeroed, DType::F32, spec)
}

/// Tile cycles of the vertical MAC for one channel in of `groups_per_group` groups (4, 8 or
/// 16), over `positions`.
#[must_use]
pub fn vertical_inner(
    types: AmpTypes,
    positions: u64,
    groups_per_group: u64,
    spec: &TileSpec,
) -> Cycles {
    /// Multiplying at one position, the kernel having one element.
    const DOT: u64 = 3;
    let workers = u64::from(spec.workers);
    let positions = positions.div_ceil(workers);
    let worker = match (types.partials(), groups_per_group) {
        (DType::F16, 8) => 13 + positions * (7 + 15 + DOT),
        (DType::F16, 16) => 25 + 2 * positions * (7 + 15 + DOT),
        (DType::F16, _) => 18 + positions * (7 + 3 + DOT),
        (DType::F32 | DType::U32, _) => 19 + positions * (7 + 5 + DOT),
    };
    Cycles(workers * worker)
}

/// Tile cycles of a whole vertical MAC over `positions`, given those of a channel in; every
/// worker has partials of its own, which are cleared and added up.
#[must_use]
pub fn vertical_outer(
    types: AmpTypes,
    positions: u64,
    groups_per_group: u64,
    work: AmpWork,
    inner: Cycles,
    spec: &TileSpec,
) -> Cycles {
    let workers = u64::from(spec.workers);
    let f32_partials = types.partials() != DType::F16;
    let wide = u64::from(f32_partials);
    let zeroing = 4 + positions.div_ceil(if f32_partials { 2 } else { 4 });
    let per_add = if f32_partials { 2 } else { 1 };
    let sums = (7 + 2 * wide + per_add * (workers - 1)) * positions.div_ceil(workers);
    let reducing = 10 - wide + sums / groups_per_group;
    let channels = 32 + work.in_groups * (24 + inner.0);
    Cycles(61 + 14 + 25 + wide + work.groups * (zeroing + channels + reducing))
}

/// Tile cycles of the outer product of `positions` with `groups` groups of
/// `channels_per_group` channels out each.
#[must_use]
pub fn outer_product(
    dtype: DType,
    positions: u64,
    groups: u64,
    channels_per_group: u64,
    spec: &TileSpec,
) -> Cycles {
    let workers = u64::from(spec.workers);
    let width = positions.div_ceil(workers);
    let channels = channels_per_group;
    let per_group = match dtype {
        DType::F16 if channels >= 12 && channels.is_multiple_of(4) => {
            10 + width * (6 + (channels - 12) / 4)
        }
        DType::F16 => 10 + width * (10 + channels * 5 / 2),
        DType::F32 | DType::U32 if channels >= 6 && channels.is_multiple_of(2) => {
            11 + width * (6 + (channels - 6) / 2)
        }
        DType::F32 | DType::U32 => 11 + width * (10 + 2 * channels),
    };
    Cycles(workers * (25 + groups * per_group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;

    const fn work(groups: u64, in_groups: u64, out_groups: u64) -> AmpWork {
        AmpWork {
            groups,
            in_groups,
            out_groups,
        }
    }

    /// Worked by hand from PopLibs' `getDenseDotProductCycles`.
    #[test]
    fn dot_products() {
        let check = |types, size, expect| {
            assert_eq!(
                dot_product(types, size, &gc200()),
                expect,
                "{types:?}, {size}"
            );
        };
        use AmpTypes::{F16F16, F16F32, F32F32};
        // Loads of four f16, or of two f32.
        check(F16F32, 64, 7 + 16 - 1);
        check(F16F16, 64, 11 + 16 - 1);
        check(F32F32, 64, 7 + 32);
        // Two f16 a load: two cycles each, and a later start for every output.
        check(F16F32, 6, 7 + 1 + 3 * 2 - 1);
        check(F16F16, 6, 11 + 2 + 3 * 2 - 1);
        check(F32F32, 3, 7 + 1 + 3 * 2);
    }

    /// 12 positions, two for each worker, of 64 channels in; three groups out.
    #[test]
    fn horizontal() {
        let check = |types, worker: u64, overhead: u64, zeroing: u64| {
            let spec = gc200();
            let inner = horizontal_inner(types, 12, 64, &spec);
            assert_eq!(inner, Cycles(6 * worker), "{types:?}");
            let total = horizontal_outer(types, 12, work(1, 2, 3), inner, &spec);
            let expect = overhead + 23 + 2 * (15 + 3 * (10 + inner.0)) + zeroing;
            assert_eq!(total, Cycles(expect), "{types:?}");
        };
        // Partials: 12 of f32 are one vector a worker, 24 of f16 two by the f32 law.
        let zeroing = |vectors: u64| (vectors + 5) * 6 * 3;
        let (f16, f32) = (zeroing(2), zeroing(1));
        check(
            AmpTypes::F16F32,
            1 + 14 + 2 * (2 + 22) + 16,
            55 + 6 * 24,
            f32,
        );
        check(
            AmpTypes::F16F16,
            10 + 19 + 2 * (7 + 26) + 16,
            65 + 6 * 16,
            f16,
        );
        check(
            AmpTypes::F32F32,
            16 + 19 + 2 * (7 + 39) + 16,
            58 + 6 * 9,
            f32,
        );
    }

    /// 12 positions of three channels in.
    #[test]
    fn vertical() {
        let check = |types, groups_per_group, worker: u64, rest: u64| {
            let spec = gc200();
            let inner = vertical_inner(types, 12, groups_per_group, &spec);
            assert_eq!(inner, Cycles(6 * worker), "{types:?}, {groups_per_group}");
            let total = vertical_outer(types, 12, groups_per_group, work(2, 3, 1), inner, &spec);
            let expect =
                100 + u64::from(types != AmpTypes::F16F16) + 2 * (rest + 32 + 3 * (24 + inner.0));
            assert_eq!(total, Cycles(expect), "{types:?}, {groups_per_group}");
        };
        // Clearing 4 + 3 or 4 + 6; adding up 10 + (12 * 2) / groups or 9 + (19 * 2) / 4.
        check(AmpTypes::F16F16, 4, 18 + 2 * 13, 7 + 10 + 6);
        check(AmpTypes::F16F16, 8, 13 + 2 * 25, 7 + 10 + 3);
        check(AmpTypes::F16F16, 16, 25 + 4 * 25, 7 + 10 + 1);
        check(AmpTypes::F16F32, 4, 19 + 2 * 15, 10 + 9 + 9);
    }

    /// Fast and slow paths, 12 positions and two groups.
    #[test]
    fn outer() {
        let check = |dtype, channels, per_group: u64| {
            let got = outer_product(dtype, 12, 2, channels, &gc200());
            assert_eq!(
                got,
                Cycles(6 * (25 + 2 * per_group)),
                "{dtype:?}, {channels}"
            );
        };
        check(DType::F16, 16, 10 + 2 * (6 + 1));
        check(DType::F16, 4, 10 + 2 * (10 + 10));
        check(DType::F32, 8, 11 + 2 * (6 + 1));
        check(DType::F32, 2, 11 + 2 * (10 + 4));
    }
}

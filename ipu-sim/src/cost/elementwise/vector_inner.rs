//! Binary operations with a vector along the inner dimension: bias, gamma, beta and every
//! other value per channel.
//!
//! Source: PopLibs `BroadcastVectorInner1D` and its in-place form, whose cores are counted
//! instruction by instruction (`vectorInner{Add,Mul,Div}CoreCycles_*`).
//!
//! The source counts the set-up of a multiplying worker twice; here it counts once.
//! Left out: vertices that hold several slices of the vector, and the 2-D form.

use super::Destination;
use super::worker::{assert_float, multi_vertex, per_worker};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// The operations that exist with a vector along the inner dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each name is the operation's own")]
pub enum VectorInnerOp {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// Sizes of one vertex: data `[repeats, length]`, vector `[length]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorInner {
    /// Elements of the vector.
    pub length: u64,
    /// How often the vector repeats along the data of this tile.
    pub repeats: u64,
}

/// Supervisor cycles: set the entry, start the workers, return.
const SUPERVISOR: u64 = 13;
/// Cycles of one `f32div`, which takes 1 or 3 depending on its input.
const DIVIDE: u64 = 3;
/// Longest vector, in elements, whose stride fits the f16 loops that add.
const ADD_LENGTH_MAX: u64 = 2048;
/// Longest vector, in elements, whose stride fits the pipelined f16 loop that multiplies.
const MULTIPLY_LENGTH_MAX: u64 = 2044;

/// Tile cycles of `BroadcastVectorInner1D` (or in place), f16 or f32.
#[must_use]
pub fn vector_inner(
    op: VectorInnerOp,
    dtype: DType,
    destination: Destination,
    sizes: VectorInner,
    spec: &TileSpec,
) -> Cycles {
    assert_float(dtype, "a vector-inner broadcast");
    let length = sizes.length;
    let blocks = per_worker(sizes.repeats, spec);
    let (supervisor, branch) = entry(op, destination);
    let worker = prologue(op, dtype, length)
        + branch
        + match (op, dtype) {
            (VectorInnerOp::Divide, DType::F32) => divide_f32(length, blocks),
            (VectorInnerOp::Divide, _) => divide_f16(length, blocks),
            (_, DType::F32) => core_f32(length, blocks),
            (VectorInnerOp::Multiply, _) => multiply_f16(length, blocks, destination),
            (VectorInnerOp::Add | VectorInnerOp::Subtract, _) => add_f16(length, blocks),
        };
    multi_vertex(SUPERVISOR + supervisor, worker, spec)
}

/// What reaching the shared code costs: supervisor cycles, worker cycles.
fn entry(op: VectorInnerOp, destination: Destination) -> (u64, u64) {
    match (op, destination) {
        (VectorInnerOp::Add, Destination::InPlace)
        | (VectorInnerOp::Multiply, Destination::New) => (0, 2),
        (VectorInnerOp::Add, Destination::New)
        | (VectorInnerOp::Multiply, Destination::InPlace)
        | (VectorInnerOp::Subtract, _) => (6, 3),
        (VectorInnerOp::Divide, Destination::New) => (1 + 4, 0),
        (VectorInnerOp::Divide, Destination::InPlace) => (1 + 2, 0),
    }
}

/// Worker cycles to load the vertex state and find the worker's share.
fn prologue(op: VectorInnerOp, dtype: DType, length: u64) -> u64 {
    match (op, dtype) {
        (VectorInnerOp::Divide, DType::F32) => 19,
        (VectorInnerOp::Divide, _) => 24,
        (_, DType::F32) => 17,
        // An odd vector makes a worker round its share to whole words.
        (_, _) => 19 + 7 * (length % 2),
    }
}

/// Add, subtract and multiply in f32: a strided loop for each element of the vector.
fn core_f32(length: u64, blocks: u64) -> u64 {
    match blocks {
        0 => 2,
        _ => 7 + length * (8 + 2 * blocks),
    }
}

/// Add and subtract in f16: eight, four or one element of the vector at a time.
fn add_f16(length: u64, blocks: u64) -> u64 {
    let scalar = 6 + length * (5 + 9 * blocks);
    if blocks == 0 {
        1
    } else if length > ADD_LENGTH_MAX {
        3 + scalar
    } else if length.is_multiple_of(8) {
        let loops = length / 8;
        5 + 2
            + match blocks {
                1 => 4 + 7 * loops,
                _ => 5 + loops * (15 + 2 * (blocks - 1)),
            }
    } else if blocks < 2 {
        7 + scalar
    } else if length.is_multiple_of(4) {
        9 + 6 + length / 4 * (13 + 2 * (blocks / 2 - 1) + blocks % 2)
    } else {
        9 + scalar
    }
}

/// Multiply in f16: four elements at a time, pipelined where there is room to write.
fn multiply_f16(length: u64, blocks: u64, destination: Destination) -> u64 {
    let by_four = 4 + length / 4 * (7 + 2 * blocks);
    if !length.is_multiple_of(4) {
        3 + 5 + length * (5 + 9 * blocks)
    } else if destination == Destination::InPlace {
        5 + by_four
    } else if length > MULTIPLY_LENGTH_MAX {
        7 + by_four
    } else if blocks < 2 {
        9 + by_four
    } else {
        9 + 4 + length / 4 * (9 + blocks)
    }
}

/// Divide in f32, in pairs where the vector is even.
fn divide_f32(length: u64, blocks: u64) -> u64 {
    let more = blocks.saturating_sub(1);
    if blocks == 0 {
        2
    } else if length.is_multiple_of(2) {
        10 + length / 2 * (5 + 2 * DIVIDE * (more + 1))
    } else {
        9 + length * (6 + DIVIDE + (DIVIDE + 1) * more)
    }
}

/// Divide in f16, through f32.
fn divide_f16(length: u64, blocks: u64) -> u64 {
    let pair = 2 * DIVIDE;
    if blocks == 0 {
        2
    } else if length.is_multiple_of(2) {
        14 + length / 2 * (7 + pair + (2 + pair) * (blocks - 1))
    } else if length == 1 {
        let last = 2 + DIVIDE + 3;
        9 + match blocks {
            1 => 7 + last,
            _ => 10 + pair + (blocks / 2 - 1) * (2 + pair) + 3 + blocks % 2 * last,
        }
    } else {
        let more = length / 2 - 1;
        let even_row = 3 + pair + more * (3 + pair) + 3;
        let odd_row = 5 + pair + 1 + more * (4 + pair) + 3 + pair + 3;
        10 + blocks / 2 * (even_row + odd_row) + blocks % 2 * (even_row + 2 + DIVIDE + 3)
    }
}

#[cfg(test)]
mod tests {
    use super::Destination::{InPlace, New};
    use super::VectorInnerOp::{Add, Divide, Multiply, Subtract};
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};

    /// Hand-worked from the loop counts of the assembly, as PopLibs lists them.
    #[test]
    fn laws() {
        let check = |op, dtype, destination, [length, repeats]: [u64; 2], cycles| {
            let sizes = VectorInner { length, repeats };
            let got = vector_inner(op, dtype, destination, sizes, &gc200());
            let case = (op, dtype, destination, sizes);
            assert_eq!(got, Cycles(cycles), "{case:?}");
        };
        // Bias of 64 channels on 24 rows: 4 blocks a worker, 8 loops of 15 + 6.
        check(
            Add,
            F16,
            InPlace,
            [64, 24],
            13 + 6 * (19 + 2 + 7 + 5 + 8 * 21),
        );
        check(Add, F16, New, [64, 24], 19 + 6 * (19 + 3 + 7 + 5 + 8 * 21));
        check(
            Subtract,
            F16,
            InPlace,
            [64, 6],
            19 + 6 * (19 + 3 + 7 + 4 + 8 * 7),
        );
        // A multiple of four only: 3 loops of 13 + 2 + 0.
        check(Add, F16, InPlace, [12, 24], 13 + 6 * (19 + 2 + 15 + 3 * 15));
        // Odd: element by element, and 7 cycles to round the share.
        check(
            Add,
            F16,
            InPlace,
            [3, 24],
            13 + 6 * (26 + 2 + 9 + 6 + 3 * 41),
        );
        check(Add, F32, InPlace, [64, 24], 13 + 6 * (17 + 2 + 7 + 64 * 16));
        check(
            Multiply,
            F32,
            New,
            [64, 24],
            13 + 6 * (17 + 2 + 7 + 64 * 16),
        );
        check(
            Multiply,
            F16,
            New,
            [64, 24],
            13 + 6 * (19 + 2 + 13 + 16 * 13),
        );
        check(Multiply, F16, New, [64, 6], 13 + 6 * (19 + 2 + 13 + 16 * 9));
        check(
            Multiply,
            F16,
            InPlace,
            [64, 24],
            19 + 6 * (19 + 3 + 9 + 16 * 15),
        );
        check(
            Multiply,
            F16,
            New,
            [4096, 12],
            13 + 6 * (19 + 2 + 11 + 1024 * 11),
        );
        check(
            Divide,
            F32,
            New,
            [64, 24],
            18 + 6 * (19 + 10 + 32 * (11 + 18)),
        );
        check(
            Divide,
            F16,
            InPlace,
            [64, 24],
            16 + 6 * (24 + 14 + 32 * (13 + 24)),
        );
        check(Divide, F16, New, [1, 12], 18 + 6 * (24 + 9 + 10 + 6 + 3));
        check(Divide, F16, New, [3, 12], 18 + 6 * (24 + 10 + 12 + 24));
    }
}

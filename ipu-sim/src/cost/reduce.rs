//! popops reduce vertices: what does reducing many partials to few outputs cost?
//!
//! Source: PopLibs `lib/popops/reduction/CycleEstimationFunctions.cpp`.
//! All are worker vertices; popops spreads a tile's outputs (or rows) over its workers.
//! Where the source passes one output too few (continuous regions) or a stride that was never
//! set (strided), the formula itself is used. Reductions of convolution partials are a
//! different vertex: [`partials`](super::partials).
//! Left out: interleaved memory, which the source assumes only under an environment variable.

pub mod class;

use super::elementwise::worker::{WorkerCycles, assert_float, vector_width};
use crate::numerics::DType;
use crate::spec::TileSpec;

/// How two partials become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReduceOp {
    /// Sum.
    Add,
    /// Sum of squares.
    SquareAdd,
    /// Product.
    Multiply,
    /// Largest.
    Maximum,
    /// Smallest.
    Minimum,
    /// log(exp a + exp b).
    LogAdd,
    /// All true.
    And,
    /// Any true.
    Or,
}

impl ReduceOp {
    /// Whether the operation runs in the accumulators, two vectors wide.
    fn accumulates(self) -> bool {
        matches!(self, Self::Add | Self::SquareAdd)
    }
}

/// Treatment of the outputs' old values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputUpdate {
    /// Overwritten.
    Replace,
    /// The reduction is added to them.
    Update,
}

/// One reduction, without its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// How partials are combined.
    pub op: ReduceOp,
    /// Element type of the partials.
    pub partials: DType,
    /// Element type of the outputs.
    pub out: DType,
    /// Treatment of the outputs' old values.
    pub outputs: OutputUpdate,
}

impl Reduce {
    fn is_update(self) -> u64 {
        u64::from(self.outputs == OutputUpdate::Update)
    }

    /// Elements that the operation takes at once.
    fn op_width(self, spec: &TileSpec) -> u64 {
        let width = vector_width(self.partials, spec);
        if self.op.accumulates() {
            2 * width
        } else {
            width
        }
    }

    /// Cycles of the operation in the assembly loops.
    fn op_cycles(self) -> u64 {
        match (self.op, self.partials) {
            (ReduceOp::LogAdd, DType::F16) => 13,
            (ReduceOp::LogAdd, _) => 23,
            _ => 1,
        }
    }

    #[track_caller]
    fn assert_assembly(self, vertex: &str) {
        assert_float(self.partials, vertex);
        assert!(
            !matches!(self.op, ReduceOp::And | ReduceOp::Or),
            "{vertex} doesn't exist for {:?}",
            self.op
        );
    }
}

/// Sizes of a strided reduction: partials `[n_outer, n_partials, stride]`, of which `n_outputs`
/// columns are reduced over the other two dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StridedSizes {
    /// Columns, that is outputs.
    pub n_outputs: u64,
    /// Rows of one outer step.
    pub n_partials: u64,
    /// Outer steps.
    pub n_outer: u64,
    /// Elements from row to row.
    pub stride: u64,
}

/// Worker cycles of the strided reduce vertex.
#[must_use]
pub fn reduce_strided(reduce: Reduce, sizes: StridedSizes, spec: &TileSpec) -> WorkerCycles {
    reduce.assert_assembly("a strided reduction");
    let reach = reduce
        .op_width(spec)
        .min(vector_width(reduce.partials, spec));
    let columns = gcd(reach, sizes.stride);
    let rows = sizes.n_partials.saturating_sub(1);
    let inner = sizes.n_outer * (3 + reduce.op_cycles() * rows);
    let column = 3 + strided_store(reduce) + inner;
    WorkerCycles(16 + sizes.n_outputs.div_ceil(columns) * column)
}

/// Leaving the inner loop and storing. The source has no entry for products (here as maximum)
/// and sums of squares (here as sums).
fn strided_store(reduce: Reduce) -> u64 {
    let to_half = reduce.out == DType::F16;
    let is_update = reduce.outputs == OutputUpdate::Update;
    let log_add = reduce.op == ReduceOp::LogAdd;
    let adds = reduce.op.accumulates();
    if reduce.partials == DType::F16 {
        1 + match (is_update, log_add, adds) {
            (false, false, true) if !to_half => 6,
            (false, _, _) => 7,
            (true, true, _) if to_half => 22,
            (true, true, _) => 56,
            (true, _, true) if to_half => 9,
            (true, _, true) => 11,
            (true, _, false) => 10,
        }
    } else {
        let leave = if adds { 3 } else { 2 };
        leave
            + match (is_update, log_add) {
                (false, _) => 2,
                (true, true) if to_half => 13,
                (true, true) => 27,
                (true, false) if to_half => 4,
                (true, false) => 5,
            }
    }
}

/// Worker cycles of reducing one contiguous region of `n_partials` to a single output.
#[must_use]
pub fn reduce_single_input(reduce: Reduce, n_partials: u64, spec: &TileSpec) -> WorkerCycles {
    reduce.assert_assembly("a reduction to a scalar");
    let width = reduce.op_width(spec);
    let loads = width / width.min(vector_width(reduce.partials, spec));
    let pass = loads.max(reduce.op_cycles());
    let to_half = if reduce.out == DType::F32 { 0 } else { 5 };
    WorkerCycles(9 + pass * n_partials / width + 5 + n_partials % width + 3 + to_half)
}

/// Worker cycles of reducing `n_outputs` contiguous regions of `n_partials` each.
#[must_use]
pub fn reduce_continuous(
    reduce: Reduce,
    n_outputs: u64,
    n_partials: u64,
    spec: &TileSpec,
) -> WorkerCycles {
    reduce.assert_assembly("a reduction of contiguous regions");
    let width = reduce
        .op_width(spec)
        .min(vector_width(reduce.partials, spec));
    let loops = reduce.op_cycles() * n_outputs * (n_partials / width);
    let odd = if n_partials % 2 == 1 { 2 } else { 0 };
    WorkerCycles(17 + loops + odd + 12 * n_outputs + reduce.is_update())
}

/// One output region of a general reduction: `n_outputs` outputs, each reduced over
/// `n_regions * rows` partials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Contiguous outputs.
    pub n_outputs: u64,
    /// Regions of partials, each contiguous `[rows, n_outputs]`.
    pub n_regions: u64,
    /// Rows of one region of partials.
    pub rows: u64,
}

/// Worker cycles of the general reduce vertex over a worker's output regions.
///
/// Integers, logical operations and log-add take the vertex in C++.
#[must_use]
pub fn reduce_general(reduce: Reduce, regions: &[Region], spec: &TileSpec) -> WorkerCycles {
    let compiled = matches!(reduce.op, ReduceOp::And | ReduceOp::Or | ReduceOp::LogAdd)
        || reduce.partials == DType::U32;
    if compiled {
        let body: u64 = regions.iter().map(|r| compiled_region(reduce, *r)).sum();
        WorkerCycles(31 + body)
    } else {
        let body: u64 = regions
            .iter()
            .map(|r| general_region(reduce, *r, spec))
            .sum();
        WorkerCycles(33 + body)
    }
}

fn compiled_region(reduce: Reduce, region: Region) -> u64 {
    let op = if reduce.op == ReduceOp::LogAdd { 12 } else { 1 };
    let convert = u64::from(reduce.out != reduce.partials);
    let elements = region.rows * region.n_outputs;
    8 + region.n_regions * (22 + (24 + op + convert) * elements)
}

/// Whole vectors of outputs first, then one step for each smaller power of two.
fn general_region(reduce: Reduce, region: Region, spec: &TileSpec) -> u64 {
    let width = reduce.op_width(spec);
    let (whole, left) = (region.n_outputs / width, region.n_outputs % width);
    let tests = u64::from(width.ilog2());
    let accumulates = reduce.op.accumulates();
    let pass_overhead = if accumulates { 2 } else { 0 } + 2 + 3;
    let rows = region.n_regions * region.rows;

    let (vector_entry, part_entry) = if accumulates { (5 + 1, 4) } else { (3 + 1, 2) };
    let vector = |entry: u64, size: u64| entry + store(reduce, size, spec) + region.n_regions * 10;
    let loads = |size: u64| size / size.min(vector_width(reduce.partials, spec));
    let vectors = whole * (vector(vector_entry, width) + rows * (pass_overhead + loads(width)));
    let parts: u64 = (0..tests)
        .map(|bit| 1 << bit)
        .filter(|size| left & size != 0)
        .map(|size| vector(part_entry, size) + rows * (2 + loads(size) + 3))
        .sum();
    24 + 2 * tests + vectors + parts
}

/// Scaling and storing `size` outputs, in the outputs' vectors.
fn store(reduce: Reduce, size: u64, spec: &TileSpec) -> u64 {
    let steps = size.min(vector_width(reduce.out, spec));
    (2 + reduce.is_update()) * steps + u64::from(reduce.op.accumulates())
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32, U32};
    use OutputUpdate::{Replace, Update};

    fn reduce(op: ReduceOp, [partials, out]: [DType; 2], outputs: OutputUpdate) -> Reduce {
        Reduce {
            op,
            partials,
            out,
            outputs,
        }
    }

    const ADD: ReduceOp = ReduceOp::Add;
    const MAX: ReduceOp = ReduceOp::Maximum;

    #[test]
    fn strided() {
        let check = |reduce, n_outer, stride, cycles| {
            let sizes = StridedSizes {
                n_outputs: 64,
                n_partials: 32,
                n_outer,
                stride,
            };
            let got = reduce_strided(reduce, sizes, &gc200());
            assert_eq!(got, WorkerCycles(cycles), "{reduce:?} {sizes:?}");
        };
        // 16 columns of 64 bits: 16 + 16 (3 + 8 + 3 + 31); f32: 16 + 32 (3 + 5 + 3 + 31).
        check(reduce(ADD, [F16, F16], Replace), 1, 64, 736);
        check(reduce(ADD, [F32, F32], Replace), 1, 64, 1360);
        check(reduce(ADD, [F16, F32], Replace), 1, 64, 736 - 16);
        check(
            reduce(ADD, [F16, F32], Update),
            2,
            64,
            16 + 16 * (3 + 12 + 2 * 34),
        );
        check(
            reduce(MAX, [F32, F16], Update),
            1,
            64,
            16 + 32 * (3 + 6 + 34),
        );
        // A stride of 66 leaves pairs only.
        check(reduce(ADD, [F16, F16], Replace), 1, 66, 16 + 32 * 45);
        let log_add = reduce(ReduceOp::LogAdd, [F16, F16], Replace);
        check(log_add, 1, 64, 16 + 16 * (3 + 8 + 3 + 13 * 31));
    }

    #[test]
    fn single_input() {
        let check = |reduce, n_partials, cycles| {
            let got = reduce_single_input(reduce, n_partials, &gc200());
            assert_eq!(got, WorkerCycles(cycles), "{reduce:?} {n_partials}");
        };
        // 9 + 2 * 1024 / 8 + 5 + 3.
        check(reduce(ADD, [F16, F32], Replace), 1024, 273);
        check(reduce(ADD, [F16, F16], Replace), 1024, 278);
        check(reduce(ADD, [F32, F32], Replace), 1024, 529);
        check(reduce(MAX, [F16, F16], Replace), 1023, 22 + 255 + 3);
    }

    #[test]
    fn continuous() {
        let check = |reduce, n_outputs, n_partials, cycles| {
            let got = reduce_continuous(reduce, n_outputs, n_partials, &gc200());
            assert_eq!(
                got,
                WorkerCycles(cycles),
                "{reduce:?} {n_outputs} {n_partials}"
            );
        };
        check(reduce(ADD, [F16, F32], Replace), 10, 64, 17 + 160 + 120);
        check(
            reduce(ADD, [F32, F32], Update),
            10,
            65,
            17 + 320 + 2 + 120 + 1,
        );
    }

    #[test]
    fn general() {
        let check = |reduce, region: [u64; 3], cycles| {
            let [n_outputs, n_regions, rows] = region;
            let regions = [Region {
                n_outputs,
                n_regions,
                rows,
            }];
            let got = reduce_general(reduce, &regions, &gc200());
            assert_eq!(got, WorkerCycles(cycles), "{reduce:?} {region:?}");
        };
        // One accumulator of f16: 33 + 24 + 6, then 6 + 9 + 2 * 10 and 6 rows of 7 + 2.
        check(reduce(ADD, [F16, F16], Replace), [8, 2, 3], 63 + 35 + 6 * 9);
        // A pair is left over: 4 + 5 + 2 * 10 and 6 rows of 5 + 1.
        check(
            reduce(ADD, [F16, F16], Replace),
            [10, 2, 3],
            63 + 89 + 29 + 36,
        );
        // Maxima go by vectors: 33 + 24 + 4, then 4 + 8 + 10 and 3 rows of 5 + 1.
        check(reduce(MAX, [F16, F16], Replace), [4, 1, 3], 61 + 22 + 18);
        check(reduce(MAX, [F16, F16], Update), [4, 1, 3], 61 + 26 + 18);
        // In C++: 31 + 8 + 22 + 25 * 12.
        check(reduce(ADD, [U32, U32], Replace), [4, 1, 3], 361);
        check(reduce(ReduceOp::And, [U32, U32], Replace), [4, 1, 3], 361);
        check(
            reduce(ReduceOp::LogAdd, [F16, F32], Replace),
            [1, 1, 1],
            39 + 22 + 37,
        );
    }

    #[test]
    #[should_panic(expected = "doesn't exist for And")]
    fn logical_reductions_are_general_ones() {
        let _ = reduce_single_input(reduce(ReduceOp::And, [F16, F16], Replace), 1, &gc200());
    }
}

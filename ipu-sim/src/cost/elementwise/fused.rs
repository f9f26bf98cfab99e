//! Fused map expressions: several element-wise operations in one pass over their operands.
//!
//! PopLibs generates the codelet of a `popops::map` expression when it builds the graph
//! (`lib/popops/ExpressionGenerator.cpp`) and has no estimator for it. This law is ours:
//! it adds up what the single operations cost in the tables of
//! [`unary`](super::unary) and [`binary`](super::binary), with one load for each vector of an
//! input and one store for each vector of an output in place of their own, a branch, and the
//! set-up of the in-place binary vertex, which the generated codelet resembles.
//!
//! ```
//! use ipu_sim::cost::elementwise::binary::BinaryOp;
//! use ipu_sim::cost::elementwise::fused::{MapExpression, MapOp};
//! use ipu_sim::cost::elementwise::unary::UnaryOp;
//! use ipu_sim::numerics::DType::{F16, F32};
//!
//! // Adam's second moment: v <- b2 v + (1 - b2) g^2, with v in f32 and g in f16.
//! let second_moment = MapExpression {
//!     compute: F32,
//!     inputs: &[F32, F16],
//!     outputs: &[F32],
//!     ops: &[
//!         (MapOp::Unary(UnaryOp::Square), 1),
//!         (MapOp::Binary(BinaryOp::Multiply), 2),
//!         (MapOp::Binary(BinaryOp::Add), 1),
//!     ],
//! };
//! // Two loads, a conversion, 2 for the square, 1 for each of the others, store and branch.
//! assert_eq!(second_moment.cycles_per_vector(8), 2 + 1 + 2 + 3 + 1 + 1);
//! ```

use super::binary::{BinaryOp, IN_PLACE_PROLOGUE, inner_loop as binary_loop};
use super::unary::{UnaryOp, inner_loop as unary_loop};
use super::worker::{assert_float, multi_vertex, per_worker, vector_width};
use super::{Destination, InnerLoop, SUPERVISOR_OVERHEAD};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Cycles of the loop's branch: a codelet from C++ ends its loop by `brnzdec`.
const BRANCH: u64 = 1;
/// Elements that one instruction converts between f16 and f32 (`f16v2tof32`, `f32v2tof16`).
const CONVERT_WIDTH: u64 = 2;

/// One operation of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapOp {
    /// An operation on one value.
    Unary(UnaryOp),
    /// An operation on two values, one of which may be a constant or a broadcast scalar.
    Binary(BinaryOp),
    /// `condition ? a : b`, element by element.
    Select,
}

/// Operations of a fused map on each element.
///
/// Constants and broadcast scalars stay in registers and are no inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapExpression<'a> {
    /// Element type in which the operations work, f16 or f32.
    pub compute: DType,
    /// Element type of each tensor read.
    pub inputs: &'a [DType],
    /// Element type of each tensor written.
    pub outputs: &'a [DType],
    /// How often each operation occurs.
    pub ops: &'a [(MapOp, u64)],
}

impl MapExpression<'_> {
    /// Worker cycles of one vector of the compute type on a data path of so many bytes.
    #[must_use]
    pub fn cycles_per_vector(&self, data_path: u64) -> u64 {
        let width = data_path / self.compute.size().0;
        let moves: u64 = self
            .inputs
            .iter()
            .chain(self.outputs)
            .map(|&dtype| self.move_cycles(dtype, width, data_path))
            .sum();
        let ops: u64 = self
            .ops
            .iter()
            .map(|&(op, count)| count * self.op_cycles(op, width))
            .sum();
        moves + ops + BRANCH
    }

    /// Loads or stores of `width` elements, and their conversion to or from the compute type.
    fn move_cycles(&self, dtype: DType, width: u64, data_path: u64) -> u64 {
        let accesses = (width * dtype.size().0).div_ceil(data_path);
        let convert = if dtype == self.compute {
            0
        } else {
            width.div_ceil(CONVERT_WIDTH)
        };
        accesses + convert
    }

    /// The table's cycles for `width` elements; of the two destinations, the one that hides
    /// its own store better.
    fn op_cycles(&self, op: MapOp, width: u64) -> u64 {
        let cheaper = |at: &dyn Fn(Destination) -> InnerLoop| {
            let new = vector_cycles(at(Destination::New), width);
            new.min(vector_cycles(at(Destination::InPlace), width))
        };
        match op {
            MapOp::Unary(op) => cheaper(&|to| unary_loop(op, self.compute, to)),
            MapOp::Binary(op) => cheaper(&|to| binary_loop(op, self.compute, to)),
            // A mask and two selections of whole words, as the select vertex without its moves.
            MapOp::Select => width,
        }
    }
}

/// Cycles of `width` elements.
fn vector_cycles(inner: InnerLoop, width: u64) -> u64 {
    match inner {
        InnerLoop::Natural(cycles) => cycles,
        InnerLoop::Unrolled(cycles, step) => (cycles * width).div_ceil(step),
        InnerLoop::Scalar(cycles) => cycles * width,
    }
}

/// Tile cycles of a fused map over `elements` of one contiguous region.
#[must_use]
pub fn map(expression: &MapExpression<'_>, elements: u64, spec: &TileSpec) -> Cycles {
    assert_float(expression.compute, "a fused map");
    let width = vector_width(expression.compute, spec);
    let passes = per_worker(elements, spec).div_ceil(width);
    let body = passes * expression.cycles_per_vector(spec.data_path.0);
    multi_vertex(SUPERVISOR_OVERHEAD, IN_PLACE_PROLOGUE + body, spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::elementwise::binary::binary_1d;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};

    const MULTIPLY: MapOp = MapOp::Binary(BinaryOp::Multiply);
    const ADD: MapOp = MapOp::Binary(BinaryOp::Add);

    #[test]
    fn cycles_per_vector() {
        let check = |compute, inputs: &[DType], outputs: &[DType], ops: &[_], cycles| {
            let expression = MapExpression {
                compute,
                inputs,
                outputs,
                ops,
            };
            assert_eq!(expression.cycles_per_vector(8), cycles, "{expression:?}");
        };
        // m <- b1 m + (1 - b1) g, one type: 2 loads, 3 operations, store, branch.
        check(F16, &[F16; 2], &[F16], &[(MULTIPLY, 2), (ADD, 1)], 7);
        // f32 operands of f16 arithmetic take two loads and two conversions for 4 elements.
        check(F16, &[F32], &[F16], &[(MULTIPLY, 1)], 2 + 2 + 1 + 1 + 1);
        // LAMB's update m / (sqrt(v) + eps) + wd w: 3 loads, 10 + 10 + 3, store, branch.
        let root = MapOp::Unary(UnaryOp::Sqrt);
        let divide = MapOp::Binary(BinaryOp::Divide);
        let lamb = [(root, 1), (divide, 1), (ADD, 2), (MULTIPLY, 1)];
        check(F32, &[F32; 3], &[F32], &lamb, 3 + 23 + 1 + 1);
        // The cheaper destination of tanh; erf-GELU element by element.
        check(
            F16,
            &[F16],
            &[F16],
            &[(MapOp::Unary(UnaryOp::Tanh), 1)],
            1 + 2 + 1 + 1,
        );
        check(
            F16,
            &[F16],
            &[F16],
            &[(MapOp::Unary(UnaryOp::GeluErf), 1)],
            1 + 64 + 1 + 1,
        );
        check(F32, &[F32; 2], &[F32], &[(MapOp::Select, 1)], 2 + 2 + 1 + 1);
    }

    #[test]
    fn a_fused_chain_beats_its_parts() {
        let ops = [(MULTIPLY, 2), (ADD, 1)];
        let fused = MapExpression {
            compute: F16,
            inputs: &[F16; 2],
            outputs: &[F16],
            ops: &ops,
        };
        let spec = gc200();
        let one = binary_1d(BinaryOp::Add, F16, Destination::InPlace, 4096, &spec);
        let got = map(&fused, 4096, &spec);
        assert_eq!(got, Cycles(11 + 6 * (58 + 171 * 7)));
        assert!(one < got && got < one * 3);
    }
}

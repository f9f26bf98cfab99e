//! Vertices whose cost depends on the order in which their operands are stored.
//!
//! A box is stored as nested loops; loops of one step don't matter, so operands are
//! compared by what is left ([`Loop`]s, outermost first). A copy between equal orders
//! moves words; one whose innermost label changes transposes the block that the two
//! innermost loops span, once for every such block. A reduction whose innermost loop is
//! reduced reads regions of partials; otherwise it adds rows.

use smallvec::SmallVec;

use super::{OperandSize, VertexSizes};
use crate::cost::elementwise::worker::WorkerCycles;
use crate::cost::memory;
use crate::cost::memory::transpose::{Transpose, transpose};
use crate::cost::reduce::{
    self, OutputUpdate, Reduce, Region, StridedSizes, reduce_continuous, reduce_general,
    reduce_single_input, reduce_strided,
};
use crate::numerics::DType;
use crate::program::Label;
use crate::spec::TileSpec;
use crate::units::Cycles;
use crate::vertex::ReduceOp;

/// One loop of a stored box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loop {
    pub(super) label: Label,
    pub(super) steps: u64,
}

/// The loops of more than one step, outermost first; neighbours of one label joined.
/// Blocks are whole: their padding is stored and worked on.
pub(super) fn loops(operand: &OperandSize<'_>) -> SmallVec<[Loop; 6]> {
    let outermost = |axis: usize| {
        let mut steps = operand.order.iter();
        let step = steps.find(|step| usize::from(step.axis) == axis);
        step.map_or(1, |step| u64::from(step.block))
    };
    let mut enclosing: SmallVec<[u64; 4]> = operand
        .extents
        .iter()
        .enumerate()
        .map(|(axis, &extent)| u64::from(extent).next_multiple_of(outermost(axis)))
        .collect();
    let mut out: SmallVec<[Loop; 6]> = SmallVec::new();
    for step in operand.order {
        let axis = usize::from(step.axis);
        let block = u64::from(step.block);
        let steps = enclosing[axis] / block;
        enclosing[axis] = block;
        if steps == 1 {
            continue;
        }
        let label = operand.labels[axis];
        match out.last_mut() {
            Some(last) if last.label == label => last.steps *= steps,
            _ => out.push(Loop { label, steps }),
        }
    }
    out
}

/// Copies and rearrangements on one tile.
pub(super) fn copy(sizes: &VertexSizes<'_>, spec: &TileSpec) -> Cycles {
    let (output, input) = (&sizes.output, &sizes.inputs[0]);
    let elements = output.elements();
    let (from, to) = (loops(input), loops(output));
    match (from.last(), to.last()) {
        (Some(from), Some(to)) if from.label != to.label && output.varies_along(from.label) => {
            let matrix = Transpose {
                rows: to.steps,
                columns: from.steps,
                matrices: elements.div_ceil(to.steps * from.steps),
            };
            transpose(output.dtype, matrix, spec)
        }
        _ => memory::copy(output.dtype.size() * elements, spec),
    }
}

/// Reductions of the labels that the output lacks.
///
/// Workers share the outputs; where that leaves workers idle, they may instead share the
/// partials of all outputs and add up their results in a second pass, if that is faster.
pub(super) fn reduce(op: ReduceOp, sizes: &VertexSizes<'_>, spec: &TileSpec) -> Cycles {
    let (input, workers) = (&sizes.inputs[0], u64::from(spec.workers));
    let n_outputs = sizes.output.elements();
    // At least the value itself, where the output has axes that the input lacks.
    let n_partials = (input.elements() / n_outputs).max(1);
    let reduce = Reduce {
        op: match op {
            ReduceOp::Sum => reduce::ReduceOp::Add,
            ReduceOp::SquareSum => reduce::ReduceOp::SquareAdd,
            ReduceOp::Max => reduce::ReduceOp::Maximum,
        },
        partials: input.dtype,
        out: sizes.output.dtype,
        outputs: OutputUpdate::Replace,
    };
    let innermost = loops(input).last().copied();
    let in_rows = innermost.filter(|run| sizes.output.varies_along(run.label));
    let row = in_rows.map(|run| run.steps);
    let by_outputs = one_worker(reduce, row, n_outputs.div_ceil(workers), n_partials, spec);
    let shared = n_partials.div_ceil(workers);
    // Results of the workers lie in rows of all outputs.
    let results = Some(n_outputs).filter(|&n| n > 1);
    let by_partials = one_worker(reduce, row, n_outputs, shared, spec).0
        + one_worker(reduce, results, n_outputs, workers, spec).0;
    WorkerCycles(by_outputs.0.min(by_partials)).on_tile(spec)
}

/// One worker's part: `n_outputs` of `n_partials` each, in rows of `row` outputs or contiguous.
fn one_worker(
    reduce: Reduce,
    row: Option<u64>,
    n_outputs: u64,
    n_partials: u64,
    spec: &TileSpec,
) -> WorkerCycles {
    if reduce.partials == DType::U32 || reduce.out == DType::U32 {
        let region = Region {
            n_outputs,
            n_regions: 1,
            rows: n_partials,
        };
        return reduce_general(reduce, &[region], spec);
    }
    match row {
        Some(stride) => {
            let sizes = StridedSizes {
                n_outputs,
                n_partials,
                n_outer: 1,
                stride,
            };
            reduce_strided(reduce, sizes, spec)
        }
        None if n_outputs == 1 => reduce_single_input(reduce, n_partials, spec),
        None => reduce_continuous(reduce, n_outputs, n_partials, spec),
    }
}

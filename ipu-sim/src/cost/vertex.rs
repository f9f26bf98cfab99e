//! What does one vertex of a program cost on one tile?
//!
//! The laws of the other files speak of PopLibs' codelets; this one says which codelet
//! a [`Vertex`] stands for, given its operands' sizes, element types and storage on the
//! tile. The choices follow what popops, poplin and PopART would put there:
//!
//! | vertex | law |
//! | --- | --- |
//! | `MatMul` | convolution partial of one kernel element, [`super::matmul`] |
//! | `ReducePartials` | `poplin::ReduceAdd`, contiguous if whole loops fit, [`super::partials`] |
//! | `Map` | see `vertex/map.rs` |
//! | `Reduce` | strided, continuous or single-output, by storage, see `vertex/storage.rs` |
//! | `Copy` | local copy, or transpose if the storage order changes, see `vertex/storage.rs` |
//! | `Fill` | `Fill`, one for each worker |
//! | `WorkerSeeds` | `SetSeed`, also for saving and restoring |
//! | `MultiSlice`, `MultiUpdateAdd` | rows that hit the tile as if indices were uniform |
//! | `DynamicSlice`, `DynamicUpdate` | one slice of contiguous elements |
//!
//! Every operand is taken to be contiguous on its tile. Left out: padding of blocks,
//! alignment, and operands of one map that are stored in different orders.

mod map;
mod storage;

use smallvec::SmallVec;

use super::amp::{AmpTypes, AmpWork};
use super::matmul::MatMulVertex;
use super::partials::{ReduceTypes, reduce_add};
use super::slice::{
    DynamicSlice, IndexOrder, MultiSliceKind, UpdateScale, WorkerIndices, dynamic_slice_1d,
    multi_slice, multi_slice_one, multi_update_op,
};
use super::{memory, partials, random};
use crate::layout::{Extents, StorageLoop};
use crate::numerics::DType;
use crate::program::{Label, Labels};
use crate::spec::TileSpec;
use crate::units::Cycles;
use crate::vertex::Vertex;

/// One operand of a vertex on one tile.
#[derive(Clone, Copy, Debug)]
pub struct OperandSize<'a> {
    /// Labels of its axes.
    pub labels: &'a Labels,
    /// Local extents of its axes.
    pub extents: &'a Extents,
    /// Extents of its axes over all tiles.
    pub shape: &'a [u32],
    /// Storage order of its box.
    pub order: &'a [StorageLoop],
    /// Element type.
    pub dtype: DType,
}

/// The operands of a vertex on one tile.
#[derive(Clone, Debug)]
pub struct VertexSizes<'a> {
    /// Operand that the vertex writes.
    pub output: OperandSize<'a>,
    /// Operands that the vertex reads.
    pub inputs: SmallVec<[OperandSize<'a>; 4]>,
    /// The input that is overwritten.
    pub in_place: Option<usize>,
}

impl OperandSize<'_> {
    /// Elements on the tile.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.extents
            .iter()
            .map(|&extent| u64::from(extent))
            .product()
    }

    /// Local extent of a label, if an axis has it.
    #[must_use]
    pub fn extent(&self, label: Label) -> Option<u64> {
        let axis = self.labels.iter().position(|&found| found == label)?;
        Some(u64::from(self.extents[axis]))
    }

    /// Whether it varies along `label`: it has it, or the label has one value only.
    fn varies_along(&self, label: Label) -> bool {
        self.labels.contains(&label)
    }
}

impl VertexSizes<'_> {
    /// Local extent of a label.
    ///
    /// # Panics
    ///
    /// If no operand has it.
    fn extent(&self, label: Label) -> u64 {
        [&self.output]
            .into_iter()
            .chain(&self.inputs)
            .find_map(|operand| operand.extent(label))
            .unwrap_or_else(|| panic!("no operand has {label:?}"))
    }
}

/// Tile cycles of `vertex`, dispatch of its compute set not included.
///
/// # Panics
///
/// If no codelet exists for the element types, or operands are missing ([`crate::verify`]).
#[must_use]
pub fn cycles(vertex: &Vertex, sizes: &VertexSizes<'_>, spec: &TileSpec) -> Cycles {
    let elements = sizes.output.elements();
    if elements == 0 {
        return Cycles::ZERO;
    }
    let dtype = sizes.output.dtype;
    match vertex {
        Vertex::MatMul {
            method,
            groups,
            field,
            input,
            output,
            input_group,
            output_group,
        } => {
            let form = MatMulVertex {
                method: *method,
                types: amp_types(sizes),
                in_channels_per_group: u64::from(*input_group),
                out_channels_per_group: u64::from(*output_group),
            };
            let all_groups: u64 = groups.iter().map(|&group| sizes.extent(group)).product();
            let work = AmpWork {
                groups: all_groups.div_ceil(u64::from(method.groups_at_once())),
                in_groups: sizes.extent(*input).div_ceil(u64::from(*input_group)),
                out_groups: sizes.extent(*output).div_ceil(u64::from(*output_group)),
            };
            form.cycles(sizes.extent(*field), work, spec)
        }
        Vertex::ReducePartials { over } => reduce_partials(*over, sizes, spec),
        Vertex::Map(op) => map::cycles(op, sizes, spec),
        Vertex::Reduce { op, .. } => storage::reduce(*op, sizes, spec),
        Vertex::Copy => storage::copy(sizes, spec),
        Vertex::Assemble => memory::assemble(dtype.size() * elements, spec),
        Vertex::Fill(_) => memory::fill(dtype, elements, spec),
        // No other law is known for the way there and back.
        Vertex::WorkerSeeds(_) => random::set_seed(spec),
        Vertex::MultiSlice { row, .. } => {
            let table = &sizes.inputs[0];
            let indices = sizes.inputs[1].elements();
            let row_elements = elements / indices;
            if indices == 1 {
                return multi_slice_one(MultiSliceKind::Slice, dtype, row_elements, spec);
            }
            // A worker's indices that hit this tile, were they uniform (as in PopLibs' planner).
            let dealt = indices.div_ceil(u64::from(spec.workers));
            let indices = WorkerIndices::dealt_out(indices, hits(dealt, table, *row, 1), spec);
            multi_slice(MultiSliceKind::Slice, dtype, row_elements, indices, spec)
        }
        Vertex::MultiUpdateAdd { row, scale, .. } => {
            let rows = sizes.extent(*row);
            let indices = sizes.inputs[1].elements();
            // Every worker owns a part of the rows and looks at all indices.
            let hits = hits(indices, &sizes.output, *row, u64::from(spec.workers));
            let scale = if *scale == 1.0 {
                UpdateScale::None
            } else {
                UpdateScale::By(dtype)
            };
            multi_update_op(
                dtype,
                scale,
                elements / rows,
                WorkerIndices::scanned(indices, hits),
                IndexOrder::Unsorted,
                spec,
            )
        }
        Vertex::DynamicSlice { .. } => dynamic_slice_1d(dtype, one_slice(elements), spec),
        Vertex::DynamicUpdate { .. } => {
            dynamic_slice_1d(dtype, one_slice(sizes.inputs[0].elements()), spec)
        }
    }
}

fn amp_types(sizes: &VertexSizes<'_>) -> AmpTypes {
    let (operand, partials) = (sizes.inputs[0].dtype, sizes.output.dtype);
    AmpTypes::of(operand, partials)
        .unwrap_or_else(|| panic!("the AMP unit has no {operand:?} with {partials:?} partials"))
}

/// Partial results lie one after the other, the outermost label being theirs.
fn reduce_partials(over: Label, sizes: &VertexSizes<'_>, spec: &TileSpec) -> Cycles {
    let input = &sizes.inputs[0];
    let depth = input
        .extent(over)
        .expect("partial results have their label");
    let types = ReduceTypes {
        partials: input.dtype,
        output: sizes.output.dtype,
    };
    let elements = sizes.output.elements();
    if depth == 1 {
        return partials::planner_cast(elements, types, spec);
    }
    let (form, inputs) = partials::stage_form(elements, depth, types.partials, spec);
    reduce_add(elements, inputs, form, types, spec)
}

/// Of `indices` spread evenly over the whole table, those that one of `owners` on this tile has.
fn hits(indices: u64, table: &OperandSize<'_>, row: Label, owners: u64) -> u64 {
    let axis = table.labels.iter().position(|&label| label == row);
    let axis = axis.expect("a table has rows");
    let here = u64::from(table.extents[axis]).div_ceil(owners);
    (indices * here).div_ceil(u64::from(table.shape[axis]))
}

fn one_slice(region: u64) -> DynamicSlice {
    DynamicSlice {
        region,
        n_slices: 1,
    }
}

#[cfg(test)]
mod tests;

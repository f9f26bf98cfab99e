//! Which of the bytes of a vertex that aren't code belong to which [`Category`].
//!
//! A vertex takes a flat size, its entry address and its fields, and a pointer for each edge
//! ([`MemorySpec`](crate::spec::MemorySpec)). Where the pointer lies depends on the codelet that
//! the vertex stands for:
//!
//! - a codelet that takes an operand as one piece (`Input<Vector>`, `Output<Vector>`) has the
//!   pointer among its own fields;
//! - one that takes it as pieces (`Vector<Input<Vector>>`) has a list of pointers beside it, a
//!   field whose size varies;
//! - copies of what lies on the tile, in the same order, are Poplar's own vertices; where from
//!   and where to is their descriptor.
//!
//! Work lists aren't counted, and so neither are the descriptors of those that are a `VectorList`
//! (all of matrix products but ConvPartial1x1Out's).
//!
//! Sources: PopLibs, lib/poplin/codelets (ConvPartial1x1Out, ConvPartialnx1,
//! ConvPartialHorizontalMac, ConvPartialVerticalMac, ConvPartial1xNSLIC, OuterProduct, ReduceAdd)
//! and lib/popops/codelets (ContinuousReduce, MultiSlice, MultiUpdateAdd, DynamicSlice1D,
//! DynamicUpdateSlice1D, and the element-wise ones); Poplar's storage categories.

use super::Category;
use crate::program::{Program, VertexGroup};
use crate::spec::MemorySpec;
use crate::vertex::{MatMulMethod, Vertex};

/// Bytes of one vertex of a group on one tile, by category.
pub(super) fn state(
    program: &Program,
    group: &VertexGroup,
    memory: &MemorySpec,
) -> [(Category, u64); 3] {
    let edges = 1 + group.inputs.len() as u64;
    let lists = lists(group);
    let described = if is_plain_copy(program, group) {
        edges
    } else {
        0
    };
    let pointer = memory.vertex_state_per_edge.0;
    let own = edges - lists - described;
    [
        (
            Category::VertexInstanceState,
            memory.vertex_state_base.0 + pointer * own,
        ),
        (Category::VertexFieldData, pointer * lists),
        (Category::CopyDescriptor, pointer * described),
    ]
}

/// Edges that the codelet takes as lists of pieces.
fn lists(group: &VertexGroup) -> u64 {
    match &group.vertex {
        Vertex::MatMul { method, .. } => match method {
            // In, weights and out.
            MatMulMethod::Amp { .. }
            | MatMulMethod::AmpNx1 { .. }
            | MatMulMethod::HorizontalMac
            | MatMulMethod::VerticalMac { .. }
            | MatMulMethod::Slic { .. } => 3,
            // Out.
            MatMulMethod::OuterProduct => 1,
        },
        // The partial results.
        Vertex::ReducePartials { .. } => 1,
        Vertex::Map(_)
        | Vertex::Reduce { .. }
        | Vertex::Copy
        | Vertex::Assemble
        | Vertex::Fill(_)
        | Vertex::WorkerSeeds(_)
        | Vertex::MultiSlice { .. }
        | Vertex::MultiUpdateAdd { .. }
        | Vertex::DynamicSlice { .. }
        | Vertex::DynamicUpdate { .. } => 0,
    }
}

/// Whether the vertices copy without changing the order of elements, which transposes do.
fn is_plain_copy(program: &Program, group: &VertexGroup) -> bool {
    let order = |var| &program.layout_of(var).order;
    match (&group.vertex, group.inputs.as_slice()) {
        (Vertex::Copy, [from]) => order(from.var) == order(group.output.var),
        _ => false,
    }
}

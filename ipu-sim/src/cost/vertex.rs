//! stub
use crate::layout::{Extents, StorageLoop};
use crate::numerics::DType;
use crate::program::Labels;
use crate::spec::TileSpec;
use crate::units::Cycles;
use crate::vertex::Vertex;
use smallvec::SmallVec;

/// One operand of a vertex on one tile.
#[derive(Clone, Copy, Debug)]
pub struct OperandSize<'a> {
    /// Labels of its axes.
    pub labels: &'a Labels,
    /// Local extents of its axes.
    pub extents: &'a Extents,
    /// Storage order of its box.
    pub order: &'a [StorageLoop],
    /// Element type.
    pub dtype: DType,
}

/// The operands of a vertex on one tile.
#[derive(Clone, Debug)]
pub struct VertexSizes<'a> {
    /// What it writes.
    pub output: OperandSize<'a>,
    /// What it reads.
    pub inputs: SmallVec<[OperandSize<'a>; 4]>,
    /// The input that is overwritten.
    pub in_place: Option<usize>,
}

/// Cycles
#[must_use]
pub fn cycles(_vertex: &Vertex, sizes: &VertexSizes<'_>, _spec: &TileSpec) -> Cycles {
    Cycles(sizes.output.extents.iter().map(|&e| u64::from(e)).product())
}

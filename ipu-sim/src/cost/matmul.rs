//! What does a matrix product cost on one tile, by any of the codelets that can do it?
//!
//! Every law has two steps: what one block of channels costs over all positions, and what the
//! vertex does around its blocks. The planner keeps the first between plans that share it.

use super::amp::{AmpTypes, AmpVertex, AmpWork, InnerCycles, Nx1Kernel};
use super::mac;
use super::slic::SlicVertex;
use crate::spec::TileSpec;
use crate::units::Cycles;
use crate::vertex::{MatMulMethod, WeightLoad};

/// A codelet with the blocks that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MatMulVertex {
    /// The instructions that do it.
    pub method: MatMulMethod,
    /// Element types.
    pub types: AmpTypes,
    /// Channels in of one block.
    pub in_channels_per_group: u64,
    /// Channels out of one block.
    pub out_channels_per_group: u64,
}

impl MatMulVertex {
    fn amp(&self, units: u32, load: WeightLoad) -> AmpVertex {
        AmpVertex {
            types: self.types,
            units: u64::from(units),
            out_channels_per_group: self.out_channels_per_group,
            load,
        }
    }

    fn slic(&self, groups: u32, chains: u32) -> SlicVertex {
        SlicVertex {
            types: self.types,
            groups: u64::from(groups),
            chains: u64::from(chains),
        }
    }

    /// Cycles of one block of channels over `positions`.
    #[must_use]
    pub fn inner(&self, positions: u64, spec: &TileSpec) -> InnerCycles {
        let cycles = match self.method {
            MatMulMethod::Amp { units, load } => {
                return self.amp(units, load).inner_1x1(positions, spec);
            }
            MatMulMethod::AmpNx1 { units, rows, load } => {
                self.amp(units, load)
                    .inner_nx1(positions, kernel(rows), spec)
            }
            MatMulMethod::HorizontalMac => {
                mac::horizontal_inner(self.types, positions, self.in_channels_per_group, spec)
            }
            MatMulMethod::VerticalMac { groups } => {
                mac::vertical_inner(self.types, positions, u64::from(groups), spec)
            }
            MatMulMethod::OuterProduct => self.outer_product(positions, 1, spec),
            MatMulMethod::Slic { groups, chains } => {
                self.slic(groups, chains).cycles(positions, 1, spec)
            }
        };
        InnerCycles {
            zeroing: cycles,
            adding: cycles,
        }
    }

    fn outer_product(&self, positions: u64, groups: u64, spec: &TileSpec) -> Cycles {
        let dtype = self.types.operand();
        mac::outer_product(dtype, positions, groups, self.out_channels_per_group, spec)
    }

    /// Cycles of a whole vertex over `positions`, given those of a block; `work` counts groups
    /// as the vertex takes them, several at once.
    #[must_use]
    pub fn outer(
        &self,
        positions: u64,
        work: AmpWork,
        inner: InnerCycles,
        spec: &TileSpec,
    ) -> Cycles {
        match self.method {
            MatMulMethod::Amp { units, load } => self.amp(units, load).outer_1x1(work, inner, spec),
            MatMulMethod::AmpNx1 { units, load, .. } => {
                self.amp(units, load)
                    .outer_nx1(positions, work, inner.adding, spec)
            }
            MatMulMethod::HorizontalMac => {
                mac::horizontal_outer(self.types, positions, work, inner.adding, spec)
            }
            MatMulMethod::VerticalMac { groups } => {
                let groups = u64::from(groups);
                mac::vertical_outer(self.types, positions, groups, work, inner.adding, spec)
            }
            MatMulMethod::OuterProduct => {
                self.outer_product(positions, work.groups * work.out_groups, spec)
            }
            MatMulMethod::Slic { groups, chains } => {
                self.slic(groups, chains)
                    .cycles(positions, work.groups, spec)
            }
        }
    }

    /// Cycles of a whole vertex over `positions`.
    #[must_use]
    pub fn cycles(&self, positions: u64, work: AmpWork, spec: &TileSpec) -> Cycles {
        self.outer(positions, work, self.inner(positions, spec), spec)
    }

    /// Cycles that every block of channels adds at least, whatever is around it.
    #[must_use]
    pub fn block_min(&self, inner: InnerCycles, spec: &TileSpec) -> Cycles {
        match self.method {
            MatMulMethod::Amp { units, load } => {
                let amp = self.amp(units, load);
                let passes = self.out_channels_per_group / u64::from(units);
                (inner.zeroing.min(inner.adding) + amp.weight_load(spec)) * passes
            }
            MatMulMethod::AmpNx1 { .. }
            | MatMulMethod::HorizontalMac
            | MatMulMethod::VerticalMac { .. } => inner.adding,
            // What a block costs includes what is spent once.
            MatMulMethod::OuterProduct | MatMulMethod::Slic { .. } => Cycles::ZERO,
        }
    }

    /// Most useful multiplications a cycle that PopLibs' planner takes the codelet to do.
    ///
    /// It overstates what the matrix unit does with f32 operands.
    #[must_use]
    pub fn rate_max(&self, spec: &TileSpec) -> u64 {
        let vector = spec.vector_width(self.types.operand().size());
        match self.method {
            MatMulMethod::Amp { .. } | MatMulMethod::AmpNx1 { .. } => {
                self.types.units(spec).min(self.out_channels_per_group) * vector
            }
            MatMulMethod::HorizontalMac
            | MatMulMethod::VerticalMac { .. }
            | MatMulMethod::OuterProduct => vector,
            MatMulMethod::Slic { .. } => vector.min(self.in_channels_per_group) * 4 * 2,
        }
    }
}

/// The kernel of a product, its one element padded to the rows of a chain.
fn kernel(rows: u32) -> Nx1Kernel {
    Nx1Kernel {
        filter_height: u64::from(rows),
        outer_positions: 1,
        inner_elements: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;

    /// A whole vertex is its blocks and what is around them: never less than the least of
    /// its blocks, and more for more positions, channels and groups.
    #[test]
    fn more_work_takes_longer() {
        let spec = gc200();
        let method = |method, channels_in, channels_out| MatMulVertex {
            method,
            types: AmpTypes::F16F16,
            in_channels_per_group: channels_in,
            out_channels_per_group: channels_out,
        };
        let load = WeightLoad::Bits64;
        let vertices = [
            method(MatMulMethod::Amp { units: 16, load }, 16, 16),
            method(
                MatMulMethod::AmpNx1 {
                    units: 16,
                    rows: 2,
                    load,
                },
                8,
                16,
            ),
            method(MatMulMethod::HorizontalMac, 32, 2),
            method(MatMulMethod::VerticalMac { groups: 4 }, 1, 1),
        ];
        for vertex in vertices {
            let cycles = |positions, groups, in_groups, out_groups| {
                let work = AmpWork {
                    groups,
                    in_groups,
                    out_groups,
                };
                vertex.cycles(positions, work, &spec)
            };
            let one = cycles(12, 1, 1, 1);
            let block = vertex.block_min(vertex.inner(12, &spec), &spec);
            assert!(block <= one, "{vertex:?}");
            assert!(cycles(600, 1, 1, 1) > one, "{vertex:?}");
            assert!(cycles(12, 2, 1, 1) > one, "{vertex:?}");
            assert!(cycles(12, 1, 2, 1) >= one + block, "{vertex:?}");
        }
    }
}

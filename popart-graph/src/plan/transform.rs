//! What does it cost to bring operands and result into the layout of a plan?
//!
//! Source: PopLibs, `lib/poplin/ConvModel.cpp`, the transform estimates. A rearrangement
//! moves a whole tensor between all tiles in use and copies it on the tile; a regrouping
//! only copies.

use ipu_sim::units::{Bytes, BytesPerCycle, Cycles};

use super::Splits;
use super::problem::Problem;

/// Cycles and bytes to rearrange one tensor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transform {
    pub(super) copy: Cycles,
    pub(super) exchange: Cycles,
    pub(super) temporary: Bytes,
}

impl Transform {
    pub(super) fn cycles(self) -> Cycles {
        self.copy + self.exchange
    }
}

impl Problem<'_> {
    /// The rearrangements of input, weights and output.
    pub(super) fn transforms(&self, splits: &Splits) -> [Transform; 3] {
        [
            self.input_transform(splits),
            self.weight_transform(splits),
            self.output_transform(splits),
        ]
    }

    fn input_transform(&self, splits: &Splits) -> Transform {
        let elements = self.padded_groups() * self.field * self.padded_in();
        self.operand_transform(self.rearrange.input, elements, splits)
    }

    fn weight_transform(&self, splits: &Splits) -> Transform {
        let elements = self.padded_groups() * self.padded_in() * self.padded_out();
        self.operand_transform(self.rearrange.weights, elements, splits)
    }

    /// Rearranges an operand of `elements` in all, spread over the tiles in use.
    fn operand_transform(&self, wanted: bool, elements: u64, splits: &Splits) -> Transform {
        if !wanted {
            return Transform::default();
        }
        let size = self.output.size();
        let bytes = Bytes((elements * size.0).div_ceil(splits.tiles()));
        let channels = self.in_channels * self.out_channels;
        let regular = channels.is_multiple_of(self.spec.vector_width(self.operand().size()));
        Transform {
            copy: self.copy(bytes, size, regular),
            exchange: bytes.div_ceil(self.spec.exchange_rate),
            temporary: bytes,
        }
    }

    fn output_transform(&self, splits: &Splits) -> Transform {
        let size = self.output.size();
        let elements = self.padded_groups() * self.field * self.padded_out();
        let bytes = size * elements.div_ceil(splits.tiles());
        let vector = self.spec.vector_width(size);
        let regular = self.out_channels.is_multiple_of(vector);
        if self.rearrange.output {
            Transform {
                copy: self.copy(bytes, size, regular),
                exchange: bytes.div_ceil(self.spec.exchange_rate),
                temporary: bytes,
            }
        } else if self.rearrange.regroup_output {
            let block = size * self.vertex.out_channels_per_group;
            Transform {
                copy: self.copy(bytes, block, regular),
                exchange: Cycles::ZERO,
                temporary: bytes,
            }
        } else {
            Transform::default()
        }
    }

    /// Cycles to copy `bytes` on the tile in contiguous blocks of `block`: one block or one
    /// word a cycle, and 5/4 of that, or 5/3 for irregular channels, by the source's fit to
    /// layers of ResNet-50.
    fn copy(&self, bytes: Bytes, block: Bytes, regular: bool) -> Cycles {
        let rate = block.min(self.spec.data_path);
        let parts = if regular { 4 } else { 3 };
        (bytes * 5).div_ceil(BytesPerCycle(rate.0 * parts))
    }
}

//! One machine's numbers.

use crate::units::{Bytes, BytesPerCycle, Hertz};

/// The numbers of one tile and of the exchange next to it, resolved from a machine description.
#[derive(Clone, Debug, PartialEq)]
pub struct TileSpec {
    /// Tile clock.
    pub clock: Hertz,
    /// Tiles in use on one IPU.
    pub tiles_per_ipu: u32,
    /// SRAM of one tile.
    pub memory: Bytes,
    /// One memory element (bank) of that SRAM.
    pub memory_element: Bytes,
    /// Worker contexts that share the tile's issue slots.
    pub workers: u32,
    /// Width of one load or store.
    pub data_path: Bytes,
    /// Matrix unit.
    pub amp: AmpSpec,
    /// Rate at which a tile receives (and sends) on the exchange.
    pub exchange_rate: BytesPerCycle,
    /// Tiles that share an exchange bus and may receive one stream at double rate.
    pub tiles_per_exchange_bus: u32,
}

/// The matrix (AMP) unit of a tile.
#[derive(Clone, Debug, PartialEq)]
pub struct AmpSpec {
    /// Units with f16 operands and f16 partials.
    pub units_f16_f16: u32,
    /// Units with f16 operands and f32 partials.
    pub units_f16_f32: u32,
    /// Units with f32 operands and f32 partials.
    pub units_f32_f32: u32,
    /// Products chained in one unit.
    pub chain_depth: u32,
    /// Rate at which the supervisor loads coefficients.
    pub coefficient_rate: BytesPerCycle,
}

impl TileSpec {
    /// Elements of `element` bytes in one load: 4 of f16, 2 of f32 on a 64-bit path.
    #[must_use]
    pub fn vector_width(&self, element: Bytes) -> u64 {
        self.data_path.0 / element.0
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Machine numbers for the tests of this crate.

    use super::*;

    /// A GC200 tile.
    pub(crate) fn gc200() -> TileSpec {
        TileSpec {
            clock: Hertz(1.325e9),
            tiles_per_ipu: 1472,
            memory: Bytes(638_976),
            memory_element: Bytes(16_384),
            workers: 6,
            data_path: Bytes(8),
            amp: AmpSpec {
                units_f16_f16: 16,
                units_f16_f32: 8,
                units_f32_f32: 16,
                chain_depth: 4,
                coefficient_rate: BytesPerCycle(8),
            },
            exchange_rate: BytesPerCycle(4),
            tiles_per_exchange_bus: 2,
        }
    }
}

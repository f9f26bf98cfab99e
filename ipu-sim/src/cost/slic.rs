//! What does the SLIC form of a convolution cost on the AMP unit of one tile?
//!
//! SLIC slides a window of four elements over a row. A product has a kernel of one element,
//! which is padded to the window, so three quarters of the work are zeros; the planner of
//! PopLibs tries it all the same for products that belong to no fully connected layer.
//!
//! Source: PopLibs, `lib/poplin/PerformanceEstimation.hpp`, the estimators of
//! `ConvPartial1xNSLIC`, for stride 1, one row of positions and one window.

use super::amp::AmpTypes;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// Elements of the window.
pub const WINDOW: u64 = 4;

/// One form of the vertex; operands are f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlicVertex {
    /// Element types, with f16 operands.
    pub types: AmpTypes,
    /// Groups that one block holds: 1, 2, 4, 8 or 16.
    pub groups: u64,
    /// Chains of the unit in use: 2 or 4.
    pub chains: u64,
}

impl SlicVertex {
    /// Channels in, and as many out, of one group of the block.
    #[must_use]
    pub fn channels(self) -> u64 {
        (WINDOW / self.groups).max(1)
    }

    /// Two chains with f16 partials.
    fn narrow(self) -> bool {
        self.chains == 2 && self.types == AmpTypes::F16F16
    }

    /// Cycles in which the supervisor loads one window of weights.
    fn weight_load(self, spec: &TileSpec) -> u64 {
        let more = u64::from(self.groups > 4);
        match self.groups {
            1 => 18 + 16,
            2 => 9 + 6 + u64::from(spec.workers) * 12 + 6 + 16,
            _ => 9 + 6 + u64::from(spec.workers) * 10 + 6 + 16 + more,
        }
    }

    /// Issue slots of a worker whose row has `positions`.
    fn worker(self, positions: u64, zeroing: bool) -> u64 {
        let narrow = self.narrow();
        let f32_partials = u64::from(self.types == AmpTypes::F16F32);
        let preamble = if narrow { 2 } else { 3 }
            + 2
            + 1
            + 2
            + 4
            + 2
            + 2
            + 1
            + u64::from(narrow)
            + if self.groups > 4 { 4 } else { 0 };
        if positions == 0 {
            return preamble;
        }
        let passes = if self.chains == 4 { 1 } else { 2 };
        let threshold = if narrow { 6 } else { 5 };
        let row = match (positions < threshold, zeroing, positions) {
            (true, true, 1) | (true, false, 1) => 13,
            (true, true, n) => 13 + n,
            (true, false, n) => 17 + n,
            (false, _, n) => 15 + (n - 5) + if narrow && !zeroing { 3 } else { 0 },
        } - f32_partials;
        let item = if narrow { 9 } else { 10 } + u64::from(zeroing) + 3 * f32_partials;
        preamble + item + row * passes
    }

    /// Tile cycles of a whole vertex over `positions`, for `blocks` blocks of groups.
    #[must_use]
    pub fn cycles(self, positions: u64, blocks: u64, spec: &TileSpec) -> Cycles {
        let workers = u64::from(spec.workers);
        let narrow = self.narrow();
        let supervisor = if narrow { 25 } else { 28 };
        let wide_block = if self.groups > 4 { 8 } else { 0 };
        let block = if narrow { 12 } else { 15 } + wide_block;
        let window = self.weight_load(spec) + if narrow { 16 } else { 20 };
        // A kernel of one window: its only pass clears the partials.
        let run = workers * self.worker(positions.div_ceil(workers), true);
        let decisions = if narrow {
            2 + 2 * positions + 2 * workers
        } else {
            0
        };
        Cycles(supervisor + blocks * (block + window + run + decisions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;

    const fn vertex(types: AmpTypes, groups: u64, chains: u64) -> SlicVertex {
        SlicVertex {
            types,
            groups,
            chains,
        }
    }

    /// Worked by hand from the source: 12 positions are two a worker, 60 are ten.
    #[test]
    fn whole_vertices() {
        let check = |form: SlicVertex, positions, expect| {
            let got = form.cycles(positions, 1, &gc200());
            assert_eq!(got, Cycles(expect), "{form:?}, {positions}");
        };
        // Preamble 17, item 11, row 13 + 2; load 18 + 16.
        check(
            vertex(AmpTypes::F16F16, 1, 4),
            12,
            28 + 15 + 34 + 20 + 6 * (17 + 11 + 15),
        );
        // Row 15 + 5.
        check(
            vertex(AmpTypes::F16F16, 1, 4),
            60,
            28 + 15 + 34 + 20 + 6 * (17 + 11 + 20),
        );
        // Two chains: two passes; f16 partials decide for each worker.
        check(
            vertex(AmpTypes::F16F16, 4, 2),
            12,
            25 + 12 + (31 + 6 + 60) + 16 + 6 * (17 + 10 + 2 * 15) + 2 + 24 + 12,
        );
        check(
            vertex(AmpTypes::F16F32, 2, 2),
            12,
            28 + 15 + (31 + 6 + 72) + 20 + 6 * (17 + 14 + 2 * 14),
        );
        // Sixteen groups: 4 more for a worker, 8 for a block, 1 for the load.
        check(
            vertex(AmpTypes::F16F16, 16, 4),
            12,
            28 + 23 + (31 + 6 + 60 + 1) + 20 + 6 * (21 + 11 + 15),
        );
    }

    #[test]
    fn channels_fill_the_window() {
        let channels =
            [1, 2, 4, 8, 16].map(|groups| vertex(AmpTypes::F16F16, groups, 4).channels());
        assert_eq!(channels, [4, 2, 1, 1, 1]);
    }
}

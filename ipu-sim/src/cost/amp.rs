//! What does a matrix product cost on the AMP unit of one tile?
//!
//! Two vertices do it. The *1x1* vertex multiplies blocks of
//! `[positions, channels in] x [channels in, channels out]` whose channels in fill a unit's
//! chain; every matmul of BERT uses it. The *nx1* vertex also walks a kernel and is the
//! fallback when the 1x1 vertex doesn't apply.
//!
//! Source: PopLibs, `lib/poplin/PerformanceEstimation.hpp`, the estimators of
//! `ConvPartial1x1Out` and `ConvPartialnx1`. What surrounds a call (dispatch of the compute
//! set, sync, exchange) is no part of a vertex.
//! Left out: fp8 operands.

use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::{Bytes, BytesPerCycle, Cycles};
use crate::vertex::{MatMulMethod, WeightLoad};

/// Element types that the AMP unit combines: operands, then partials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AmpTypes {
    /// f16 operands, f16 partials.
    F16F16,
    /// f16 operands, f32 partials.
    F16F32,
    /// f32 operands, f32 partials.
    F32F32,
}

impl AmpTypes {
    /// The combination of these types, if the unit has it.
    #[must_use]
    pub fn of(operand: DType, partials: DType) -> Option<Self> {
        match (operand, partials) {
            (DType::F16, DType::F16) => Some(AmpTypes::F16F16),
            (DType::F16, DType::F32) => Some(AmpTypes::F16F32),
            (DType::F32, DType::F32) => Some(AmpTypes::F32F32),
            (DType::F32, DType::F16) | (DType::U32, _) | (_, DType::U32) => None,
        }
    }

    /// Type of both operands.
    #[must_use]
    pub fn operand(self) -> DType {
        match self {
            AmpTypes::F16F16 | AmpTypes::F16F32 => DType::F16,
            AmpTypes::F32F32 => DType::F32,
        }
    }

    /// Type of what the vertex writes.
    #[must_use]
    pub fn partials(self) -> DType {
        match self {
            AmpTypes::F16F16 => DType::F16,
            AmpTypes::F16F32 | AmpTypes::F32F32 => DType::F32,
        }
    }

    /// Units that this machine has for these types.
    #[must_use]
    pub fn units(self, spec: &TileSpec) -> u64 {
        u64::from(match self {
            AmpTypes::F16F16 => spec.amp.units_f16_f16,
            AmpTypes::F16F32 => spec.amp.units_f16_f32,
            AmpTypes::F32F32 => spec.amp.units_f32_f32,
        })
    }

    /// All combinations.
    pub const ALL: [Self; 3] = [Self::F16F16, Self::F16F32, Self::F32F32];

    /// Cycles that a unit takes for each position, once its pipeline is full.
    fn cycles_per_position(self) -> u64 {
        match self {
            AmpTypes::F16F16 | AmpTypes::F16F32 => 4,
            AmpTypes::F32F32 => 8,
        }
    }

    /// Most operations of one tile in a cycle, a multiply-add as two. On a GC200: 128, or 64 into
    /// f32, or 32 of f32.
    #[must_use]
    pub fn peak_flops_per_cycle(self, spec: &TileSpec) -> f64 {
        let per_position = 2 * self.units(spec) * self.weights_per_unit(spec);
        per_position as f64 / self.cycles_per_position() as f64
    }

    /// Channels in that fill one unit's chain: 16 of f16, 8 of f32.
    #[must_use]
    pub fn weights_per_unit(self, spec: &TileSpec) -> u64 {
        u64::from(spec.amp.chain_depth) * spec.vector_width(self.operand().size())
    }
}

impl WeightLoad {
    /// The rate of this path.
    fn rate(self, spec: &TileSpec) -> BytesPerCycle {
        match self {
            Self::Bits64 => spec.amp.coefficient_rate,
            Self::Bits128 => spec.amp.coefficient_rate_interleaved,
        }
    }
}

/// One form of an AMP vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AmpVertex {
    /// Element types.
    pub types: AmpTypes,
    /// Units in use.
    pub units: u64,
    /// Channels out that one group holds, a multiple of `units` or fewer.
    pub out_channels_per_group: u64,
    /// How coefficients get into the units.
    pub load: WeightLoad,
}

/// How much one call of the 1x1 vertex does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmpWork {
    /// Independent products.
    pub groups: u64,
    /// Groups of input channels.
    pub in_groups: u64,
    /// Groups of output channels.
    pub out_groups: u64,
}

/// Tile cycles of one pass over all positions, with the weights of one block in the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerCycles {
    /// The first pass, which starts the partials at zero.
    pub zeroing: Cycles,
    /// Every later pass, which adds to the partials.
    pub adding: Cycles,
}

impl AmpVertex {
    /// The register-saving entry that the source shares between these forms.
    fn common(self) -> bool {
        match self.types {
            AmpTypes::F16F16 => self.units == 16,
            AmpTypes::F16F32 | AmpTypes::F32F32 => true,
        }
    }

    /// Cycles by which workers that keep their set-up between passes are shorter:
    /// in every pass, and once more on entry.
    fn retention(self) -> (u64, u64) {
        match self.types {
            AmpTypes::F16F16 if self.units == 16 => (7, 3),
            AmpTypes::F16F32 => (7, 3),
            AmpTypes::F16F16 | AmpTypes::F32F32 => (0, 0),
        }
    }

    /// Cycles in which the supervisor loads the weights of all units.
    #[must_use]
    pub fn weight_load(self, spec: &TileSpec) -> Cycles {
        self.unit_weights(spec).div_ceil(self.load.rate(spec))
    }

    /// Weights that one load brings in: 32 B for each unit.
    fn unit_weights(self, spec: &TileSpec) -> Bytes {
        spec.data_path * u64::from(spec.amp.chain_depth) * self.units
    }

    /// Loads of the units that one group of output channels takes.
    fn passes_per_group(self) -> u64 {
        self.out_channels_per_group.div_ceil(self.units)
    }

    /// Issue slots of one worker of the 1x1 vertex for its `positions`; 0 without any.
    #[must_use]
    pub fn worker_1x1(self, positions: u64, zeroing: bool) -> u64 {
        if positions == 0 {
            return 0;
        }
        let zr = u64::from(zeroing);
        let cycles = match self.types {
            AmpTypes::F32F32 => {
                let z = if self.units == 16 { 8 } else { 4 };
                match positions {
                    1 => 47 + (2 + z) * zr,
                    2 => 46 + (2 + 2 * z) * zr,
                    n => 46 + (2 + z * n) * zr + (n - 3) * self.types.cycles_per_position(),
                }
            }
            AmpTypes::F16F16 | AmpTypes::F16F32 if self.common() => match positions {
                1 => 33 - zr,
                2 => 42 - zr,
                n => 38 - zr + (n - 3) * self.types.cycles_per_position(),
            },
            AmpTypes::F16F16 | AmpTypes::F16F32 => match positions {
                1 => 39 + 4 * zr,
                2 => 40 + 6 * zr,
                n => 41 + (2 + 2 * n) * zr + (n - 3) * self.types.cycles_per_position(),
            },
        };
        cycles - self.retention().0
    }

    /// Tile cycles of one pass of the 1x1 vertex over `positions` rows, which the workers
    /// share as evenly as whole rows allow.
    #[must_use]
    pub fn inner_1x1(self, positions: u64, spec: &TileSpec) -> InnerCycles {
        let pass = |zeroing| {
            let workers = u64::from(spec.workers);
            let fewest = self.worker_1x1(positions / workers, zeroing);
            let most = self.worker_1x1(positions.div_ceil(workers), zeroing);
            // A worker starts late while the supervisor still sets up the others.
            let (short, long) = (fewest.min(most), fewest.max(most));
            Cycles((workers * long).max(workers * short + 14))
        };
        InnerCycles {
            zeroing: pass(true),
            adding: pass(false),
        }
    }

    /// Tile cycles of a whole 1x1 vertex, given those of its passes.
    #[must_use]
    pub fn outer_1x1(self, work: AmpWork, inner: InnerCycles, spec: &TileSpec) -> Cycles {
        let AmpWork {
            groups,
            in_groups,
            out_groups,
        } = work;
        let common = u64::from(self.common());
        let (retained, retained_in) = self.retention();
        let load = self.weight_load(spec).0;
        let passes = self.passes_per_group();
        let adding = 15 - common + 1 + out_groups * (19 + passes * (6 + load + inner.adding.0));
        let zeroing = 11 + out_groups * (19 - common + passes * (7 + load + inner.zeroing.0));
        let set_up = retained + retained_in * (in_groups * groups - 1);
        Cycles(
            50 + u64::from(spec.workers) * set_up
                + groups * (12 + common + (in_groups - 1) * adding + zeroing),
        )
    }

    /// Tile cycles of a whole 1x1 vertex over `positions` rows.
    #[must_use]
    pub fn cycles_1x1(self, positions: u64, work: AmpWork, spec: &TileSpec) -> Cycles {
        self.outer_1x1(work, self.inner_1x1(positions, spec), spec)
    }
}

/// The kernel that an nx1 vertex walks on one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nx1Kernel {
    /// Kernel rows that the units take at once: weights per unit over channels per group.
    pub filter_height: u64,
    /// Steps along the outermost kernel dimension, `ceil(rows / filter_height)`.
    pub outer_positions: u64,
    /// Elements of the kernel in one such row.
    pub inner_elements: u64,
}

impl AmpVertex {
    /// Issue slots of one worker of the nx1 vertex for runs of `items` positions each.
    #[must_use]
    pub fn worker_nx1(self, items: &[u64]) -> u64 {
        let start = match self.types.partials() {
            DType::F16 => 18,
            DType::F32 | DType::U32 => 17,
        };
        start + items.iter().map(|&n| self.item_nx1(n)).sum::<u64>()
    }

    fn item_nx1(self, positions: u64) -> u64 {
        const PER_ITEM: u64 = 3;
        const RETAINED: u64 = 9;
        let wide = match self.types {
            AmpTypes::F16F16 => self.units == 16,
            AmpTypes::F16F32 => self.units == 8,
            AmpTypes::F32F32 => false,
        };
        let cycles = match self.types {
            AmpTypes::F16F16 | AmpTypes::F16F32 => match positions {
                0 => 17,
                1 => 29,
                2 => 33 + u64::from(wide),
                n => 34 + (n - 3) * self.types.cycles_per_position(),
            },
            AmpTypes::F32F32 => match positions {
                0 => 17,
                1 => 33,
                2 => 44,
                n => 45 + (n - 3) * self.types.cycles_per_position(),
            },
        };
        PER_ITEM + cycles - RETAINED
    }

    /// Tile cycles of a whole nx1 vertex over one row of `positions`, its explicit
    /// zeroing of the partials included.
    #[must_use]
    pub fn cycles_nx1(
        self,
        positions: u64,
        kernel: Nx1Kernel,
        work: AmpWork,
        spec: &TileSpec,
    ) -> Cycles {
        let inner = self.inner_nx1(positions, kernel, spec);
        self.outer_nx1(positions, work, inner, spec)
    }

    /// Tile cycles of a whole nx1 vertex, given those of one block of channels.
    #[must_use]
    pub fn outer_nx1(
        self,
        positions: u64,
        work: AmpWork,
        inner: Cycles,
        spec: &TileSpec,
    ) -> Cycles {
        let zero_set_up = match self.types.partials() {
            DType::F16 => 10,
            DType::F32 | DType::U32 => 9,
        };
        let AmpWork {
            groups,
            in_groups,
            out_groups,
        } = work;
        let workers = u64::from(spec.workers);
        let zero_loop = groups * (17 * out_groups + 6 * (out_groups - 1) + 1) + 6 * (groups - 1);
        let main_loop = groups * (16 + in_groups * (14 + out_groups * (14 + inner.0)));
        let vertex = 109 + workers * (9 + zero_set_up) + zero_loop + 1 + main_loop;
        let zeroed = ClearedPartials {
            elements: positions * self.out_channels_per_group,
            regions: out_groups * groups,
        };
        Cycles(vertex) + zero_partials(zeroed, DType::F32, spec)
    }

    /// Tile cycles of the nx1 vertex for one block of channels.
    #[must_use]
    pub fn inner_nx1(self, positions: u64, kernel: Nx1Kernel, spec: &TileSpec) -> Cycles {
        let workers = u64::from(spec.workers);
        let worker = |n: u64| if n == 0 { 0 } else { self.worker_nx1(&[n]) };
        let fewest = worker(positions / workers);
        let most = worker(positions.div_ceil(workers));
        let passes = self.passes_per_group();
        let Nx1Kernel {
            filter_height,
            outer_positions,
            inner_elements,
        } = kernel;
        let run = (workers * most).max(workers * fewest + 9);
        let address_set_up = match filter_height {
            4 => 60,
            2 => 46,
            1 => 15,
            height => 20 * height,
        };
        // Four rows are loaded from four places, 64 bits at a time whatever the load width.
        let load = match filter_height == u64::from(MatMulMethod::AMP_ROWS_MAX) {
            true => self
                .unit_weights(spec)
                .div_ceil(WeightLoad::Bits64.rate(spec)),
            false => self.weight_load(spec),
        };
        let load = load.0;
        let set_up =
            outer_positions * (14 + inner_elements * (12 + passes * (load + address_set_up + 3)));
        Cycles(set_up + run * passes * outer_positions * inner_elements)
    }
}

/// Partials to clear on one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClearedPartials {
    /// Elements of one region.
    pub elements: u64,
    /// Regions of that size.
    pub regions: u64,
}

/// Tile cycles to clear partials before an nx1 vertex adds to them.
#[must_use]
pub fn zero_partials(zeroed: ClearedPartials, dtype: DType, spec: &TileSpec) -> Cycles {
    let workers = u64::from(spec.workers);
    let vectors = zeroed
        .elements
        .div_ceil(workers)
        .div_ceil(spec.vector_width(dtype.size()));
    // 14 cycles less 9 retained for 32-bit elements, 15 less 10 for f16.
    Cycles((vectors + 5) * workers * zeroed.regions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;

    const FORMS: [AmpVertex; 5] = [
        form(AmpTypes::F16F16, 16, 16),
        form(AmpTypes::F16F32, 8, 8),
        form(AmpTypes::F16F32, 8, 16),
        form(AmpTypes::F32F32, 16, 16),
        form(AmpTypes::F16F16, 8, 8),
    ];

    const fn form(types: AmpTypes, units: u64, out_channels_per_group: u64) -> AmpVertex {
        AmpVertex {
            types,
            units,
            out_channels_per_group,
            load: WeightLoad::Bits64,
        }
    }

    const fn work(groups: u64, in_groups: u64, out_groups: u64) -> AmpWork {
        AmpWork {
            groups,
            in_groups,
            out_groups,
        }
    }

    /// Positions, then groups, groups in and groups out; `[zeroing, adding, total]` cycles
    /// for each of `FORMS`. Evaluated by hand from PopLibs'
    /// `getConvPartial1x1Supervisor{Inner,Outer}LoopCycleEstimate`.
    #[rustfmt::skip]
    const ONE_BY_ONE: [(u64, AmpWork, [[u64; 3]; 5]); 7] = [
        (1, work(1, 1, 1), [
            [150, 156, 355], [150, 156, 323], [150, 156, 512], [342, 282, 505], [258, 234, 389],
        ]),
        (12, work(1, 1, 1), [
            [218, 224, 423], [218, 224, 391], [218, 224, 648], [398, 290, 561], [290, 254, 421],
        ]),
        (64, work(1, 1, 1), [
            [372, 378, 577], [372, 378, 545], [372, 378, 956], [1200, 660, 1363], [582, 438, 713],
        ]),
        (128, work(1, 4, 1), [
            [636, 642, 3133], [636, 642, 3005], [636, 642, 5720],
            [2256, 1188, 6295], [978, 702, 3434],
        ]),
        (128, work(1, 8, 3), [
            [636, 642, 17873], [636, 642, 17105], [636, 642, 33410],
            [2256, 1188, 34031], [978, 702, 19232],
        ]),
        (179, work(1, 16, 4), [
            [828, 834, 59659], [828, 834, 57611], [828, 834, 113_399],
            [3024, 1572, 112_411], [1266, 894, 62669],
        ]),
        (64, work(4, 2, 2), [
            [372, 378, 7798], [372, 378, 7286], [372, 378, 13902],
            [1200, 660, 16510], [582, 438, 9286],
        ]),
    ];

    #[test]
    fn one_by_one() {
        let spec = gc200();
        for (positions, work, expect) in ONE_BY_ONE {
            let got = FORMS.map(|form| {
                let inner = form.inner_1x1(positions, &spec);
                let total = form.cycles_1x1(positions, work, &spec);
                [inner.zeroing.0, inner.adding.0, total.0]
            });
            assert_eq!(got, expect, "{positions} positions, {work:?}");
        }
    }

    /// Evaluated by hand from PopLibs' `getConvPartialnx1InnerLoopCycleEstimate`.
    #[test]
    fn nx1_worker() {
        let check = |positions, expect: [u64; 2]| {
            let got = [FORMS[0], FORMS[1]].map(|form| form.worker_nx1(&[positions]));
            assert_eq!(got, expect, "{positions} positions");
        };
        check(0, [29, 28]);
        check(1, [41, 40]);
        check(2, [46, 45]);
        check(3, [46, 45]);
        check(10, [74, 73]);
        check(22, [122, 121]);
    }

    /// Worked by hand from the same source: 12 positions, so two for each worker
    /// (46 slots, 276 cycles); a 4-row kernel of one column.
    #[test]
    fn nx1_whole() {
        let check = |filter_height, outer_positions, expect| {
            let kernel = Nx1Kernel {
                filter_height,
                outer_positions,
                inner_elements: 1,
            };
            let got = FORMS[0].cycles_nx1(12, kernel, work(1, 1, 1), &gc200());
            assert_eq!(got, Cycles(expect), "{kernel:?}");
        };
        // Outside the block: 109 + 6*(9 + 10) + 18 + 1 + 16 + 14 + 14 = 286, and the
        // zeroing of 192 partials (16 vectors + 5) * 6 = 126. Inside: 14 + 12 + 64 + 285
        // = 375 with the late-start rule (276 + 9), plus set-up 60 + 3 or 15 + 3.
        check(4, 1, 286 + 126 + 375 + 63);
        check(1, 4, 286 + 126 + 4 * (375 + 18));
    }

    /// 32 B for each unit, by 8 or 16 B a cycle: 64 cycles on 16 units and 32 on 8, or half of
    /// that from interleaved memory (PopLibs, `getConvPartial1x1...WeightLoadCycleEstimate`).
    #[test]
    fn weight_loads_by_path() {
        let spec = gc200();
        for (form, expect) in FORMS.into_iter().zip([64, 32, 32, 64, 32]) {
            let by = |load| AmpVertex { load, ..form }.weight_load(&spec).0;
            let got = [by(WeightLoad::Bits64), by(WeightLoad::Bits128)];
            assert_eq!(got, [expect, expect / 2], "{form:?}");
        }
    }

    /// What 128-bit loads save of whole vertices: half of a load for each pass of each block of
    /// channels, and nothing where a kernel of four rows comes from four places.
    #[test]
    fn what_a_path_saves() {
        let spec = gc200();
        let wide = |form| AmpVertex {
            load: WeightLoad::Bits128,
            ..form
        };
        for (positions, work, _) in ONE_BY_ONE {
            for form in FORMS {
                let saved = form.cycles_1x1(positions, work, &spec).0
                    - wide(form).cycles_1x1(positions, work, &spec).0;
                let blocks = work.groups * work.in_groups * work.out_groups;
                let loads = blocks * form.passes_per_group();
                let half = form.units * 32 / 16;
                assert_eq!(saved, loads * half, "{form:?}, {positions}, {work:?}");
            }
        }
        for (filter_height, expect) in [(1, 4 * 32), (2, 2 * 32), (4, 0)] {
            let kernel = Nx1Kernel {
                filter_height,
                outer_positions: 4 / filter_height,
                inner_elements: 1,
            };
            let whole = |form: AmpVertex| form.cycles_nx1(12, kernel, work(1, 1, 1), &spec).0;
            assert_eq!(
                whole(FORMS[0]) - whole(wide(FORMS[0])),
                expect,
                "{kernel:?}"
            );
        }
    }
}

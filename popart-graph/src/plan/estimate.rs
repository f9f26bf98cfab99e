//! What does a plan cost, by the planner's own reckoning?
//!
//! Source: PopLibs, `lib/poplin/ConvModel.cpp` and `ExchangeEstimator.hpp`, to the letter.
//! So these oddities are meant: the exchange before the first reduction is charged even
//! where nothing is reduced; inputs and weights are rearranged at the width of the
//! *output* type; a rearrangement inside a serial loop is charged for the whole tensor in
//! every iteration; a serially split output is divided by its splits once more when it is
//! put back. Sync and the launch of exchanges cost nothing here.

use ipu_sim::cost::amp::{AmpWork, InnerCycles};
use ipu_sim::cost::partials::{
    ReduceStage, ReduceStages, ReduceTypes, conv_reduce_stages, planner_add_in_place, planner_cast,
    planner_slice, reduce_stages,
};
use ipu_sim::cost::slic::WINDOW;
use ipu_sim::numerics::DType;
use ipu_sim::units::{Bytes, BytesPerCycle, Cycles};
use ipu_sim::vertex::MatMulMethod;

use super::problem::{Problem, Reading};
use super::transform::Transform;
use super::{JointPass, Splits, TileWork};

/// Estimated cycles of a plan, by cause. Those of one iteration of the serial loop come
/// first; those spent once, outside the loop, come last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCost {
    /// Iterations of the serial loop.
    pub iterations: u64,
    /// Taking slices of operands.
    pub dynamic_slice: Cycles,
    /// Copies on the tile to rearrange or regroup operands and result.
    pub transform_copy: Cycles,
    /// Exchange to rearrange operands and result.
    pub transform_exchange: Cycles,
    /// Exchange of the input.
    pub input_exchange: Cycles,
    /// Exchange of the coefficients.
    pub weight_exchange: Cycles,
    /// Exchange of partials before the first stage of the reduction.
    pub partials_exchange: Cycles,
    /// Exchange of partials before later stages.
    pub later_partials_exchange: Cycles,
    /// Exchange of zeros that fill the kernel of vertices which want more than one element.
    pub tile_transform: Cycles,
    /// The vertex that multiplies, AMP or another.
    pub amp: Cycles,
    /// Reduction of partials, or the cast that stands in for it.
    pub reduce: Cycles,
    /// Putting back slices of the result.
    pub dynamic_update: Cycles,
    /// Adding to the sum of earlier iterations.
    pub add_in_place: Cycles,
    /// Once: copies to rearrange an input that is broadcast before the loop.
    pub broadcast_copy: Cycles,
    /// Once: exchange to rearrange and broadcast that input.
    pub broadcast_exchange: Cycles,
    /// Once: bringing coefficients into slices.
    pub rearrange_before_slice: Cycles,
    /// Once: the cast of a sum made over iterations.
    pub output_cast: Cycles,
}

impl PlanCost {
    /// Cycles of the whole product.
    #[must_use]
    pub fn total(&self) -> Cycles {
        let once = self.broadcast_copy
            + self.broadcast_exchange
            + self.rearrange_before_slice
            + self.output_cast;
        self.iteration() * self.iterations + once
    }

    /// Cycles of one iteration of the serial loop.
    #[must_use]
    pub fn iteration(&self) -> Cycles {
        self.dynamic_slice
            + self.transform_copy
            + self.transform_exchange
            + self.exchange()
            + self.tile_transform
            + self.amp
            + self.reduce
            + self.dynamic_update
            + self.add_in_place
    }

    /// Cycles of one iteration's exchange of operands and partials.
    #[must_use]
    pub fn exchange(&self) -> Cycles {
        self.input_exchange
            + self.weight_exchange
            + self.partials_exchange
            + self.later_partials_exchange
    }
}

/// Cycles and memory of one plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    pub(super) cost: PlanCost,
    pub(super) temporary: Bytes,
}

/// What a plan must not exceed to be worth estimating.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) cycles: Cycles,
    pub(super) temporary: Bytes,
}

/// Elements that are filled with zeros on the busiest tile.
#[derive(Clone, Copy, Debug, Default)]
struct Padding {
    input: u64,
    weights: u64,
}

/// Elements on the busiest tile in one iteration.
#[derive(Clone, Copy, Debug)]
struct Elements {
    input: u64,
    weights: u64,
    partials: u64,
    /// Results that the tile makes after reduction.
    reduced: u64,
    /// Operands and partials as the vertex sees them.
    bytes: Bytes,
}

impl Problem<'_> {
    /// What the busiest tile does in one iteration.
    pub(super) fn tile_work(&self, splits: &Splits) -> TileWork {
        TileWork {
            groups: self.group_grains.div_ceil(splits.groups),
            field: self.field.div_ceil(self.field_grain).div_ceil(splits.field) * self.field_grain,
            in_groups: self.in_grains.div_ceil(splits.in_channels.total()),
            out_groups: self.out_grains.div_ceil(splits.out_channels.total()),
        }
    }

    /// Cycles of the vertex, given those of its passes over the tile's field.
    pub(super) fn vertex_cycles(&self, work: &TileWork, inner: InnerCycles) -> Cycles {
        let amp_work = AmpWork {
            groups: work.groups,
            in_groups: work.in_groups,
            out_groups: work.out_groups,
        };
        self.vertex.outer(work.field, amp_work, inner, self.spec)
    }

    /// Estimates a plan, or gives up as soon as it surely exceeds `limits`.
    /// `inner` are the cycles of the vertex's passes over the tile's field.
    pub(super) fn estimate(
        &self,
        splits: &Splits,
        inner: InnerCycles,
        limits: &Limits,
    ) -> Option<Estimate> {
        let work = self.tile_work(splits);
        let iterations = splits.iterations();
        let mut cost = PlanCost {
            iterations,
            amp: self.vertex_cycles(&work, inner),
            ..PlanCost::default()
        };
        if cost.amp * iterations > limits.cycles || !self.vertex_suits(&work) {
            return None;
        }
        // PopLibs states this bound for a faster search; it also excludes what beats it.
        let all_tiles = cost.amp.0 * iterations * splits.tiles();
        if all_tiles < self.fewest_tile_cycles() {
            return None;
        }
        let elements = self.elements(&work, splits.in_channels.parallel);
        if elements.bytes > limits.temporary {
            return None;
        }
        let before_loop = splits.broadcast_input_before_loop;
        let input_exchange = self.input_exchange(splits, &elements);
        if before_loop {
            cost.broadcast_exchange = input_exchange;
        } else {
            cost.input_exchange = input_exchange;
        }
        cost.weight_exchange = self.weight_exchange(splits, &elements);
        cost.partials_exchange = self.exchange(elements.partials, self.partials());
        if cost.total() > limits.cycles {
            return None;
        }
        let padding = self.kernel_padding(&work);
        cost.tile_transform = self.padding_exchange(splits, &padding);
        let stages = self.stages(splits.in_channels.parallel);
        self.add_reduction(&mut cost, splits, &elements, &stages);
        self.add_serial_loop(&mut cost, splits, &elements);
        if cost.total() > limits.cycles {
            return None;
        }
        let transforms = self.add_transforms(&mut cost, splits);
        let elements = Elements {
            bytes: elements.bytes + self.operand().size() * (padding.input + padding.weights),
            ..elements
        };
        let temporary = self.temporary(splits, &elements, &transforms, &stages);
        let fits = cost.total() <= limits.cycles && temporary <= limits.temporary;
        fits.then_some(Estimate { cost, temporary })
    }

    pub(super) fn operand(&self) -> DType {
        self.vertex.types.operand()
    }

    fn partials(&self) -> DType {
        self.vertex.types.partials()
    }

    /// Bytes of operands and partials on a tile that does `work`.
    pub(super) fn vertex_bytes(&self, work: &TileWork) -> Bytes {
        self.elements(work, 1).bytes
    }

    fn elements(&self, work: &TileWork, reduce_depth: u64) -> Elements {
        let channels_in = work.in_groups * self.vertex.in_channels_per_group;
        let channels_out = work.out_groups * self.vertex.out_channels_per_group;
        let groups = work.groups * u64::from(self.vertex.method.groups_at_once());
        let input = groups * work.field * channels_in;
        let weights = groups * channels_in * channels_out;
        let partials = groups * work.field * channels_out;
        Elements {
            input,
            weights,
            partials,
            reduced: partials.div_ceil(reduce_depth),
            bytes: self.operand().size() * (input + weights)
                + self.partials().size() * partials
                + self.buffer(work, partials),
        }
    }

    /// What the SLIC vertex needs beside its operands: partials of one block of groups.
    fn buffer(&self, work: &TileWork, partials: u64) -> Bytes {
        match self.vertex.method {
            MatMulMethod::Slic { .. } => {
                let partials = self.partials().size() * partials;
                Bytes(partials.0.div_ceil(work.groups) + 200)
            }
            MatMulMethod::Amp { .. }
            | MatMulMethod::AmpNx1 { .. }
            | MatMulMethod::HorizontalMac
            | MatMulMethod::VerticalMac { .. }
            | MatMulMethod::OuterProduct => Bytes::ZERO,
        }
    }

    /// Whether the vertex can do that work on one tile.
    fn vertex_suits(&self, work: &TileWork) -> bool {
        match self.vertex.method {
            MatMulMethod::Slic { .. } => work.in_groups == 1 && work.out_groups == 1,
            MatMulMethod::VerticalMac { .. } => work.out_groups == 1,
            MatMulMethod::Amp { .. }
            | MatMulMethod::AmpNx1 { .. }
            | MatMulMethod::HorizontalMac
            | MatMulMethod::OuterProduct => true,
        }
    }

    /// Zeros that fill the kernel of vertices which want more than one element.
    fn kernel_padding(&self, work: &TileWork) -> Padding {
        let channels_in = work.in_groups * self.vertex.in_channels_per_group;
        let channels_out = work.out_groups * self.vertex.out_channels_per_group;
        let groups = work.groups * u64::from(self.vertex.method.groups_at_once());
        match self.vertex.method {
            // Rows of kernel and field; the field has one.
            MatMulMethod::AmpNx1 { rows, .. } => {
                let more = u64::from(rows) - 1;
                Padding {
                    input: groups * more * work.field * channels_in,
                    weights: groups * more * channels_in * channels_out,
                }
            }
            // Along the row.
            MatMulMethod::Slic { .. } => {
                let more = WINDOW - 1;
                Padding {
                    input: groups * more * channels_in,
                    weights: groups * more * channels_in * channels_out,
                }
            }
            MatMulMethod::Amp { .. }
            | MatMulMethod::HorizontalMac
            | MatMulMethod::VerticalMac { .. }
            | MatMulMethod::OuterProduct => Padding::default(),
        }
    }

    /// Cycles to receive zeros, as if they came from other tiles.
    fn padding_exchange(&self, splits: &Splits, padding: &Padding) -> Cycles {
        self.exchange(padding.weights, self.operand())
            + (self.operand().size() * padding.input).div_ceil(self.input_rate(splits))
    }

    /// Cycles to receive `elements`.
    fn exchange(&self, elements: u64, dtype: DType) -> Cycles {
        (dtype.size() * elements).div_ceil(self.spec.exchange_rate)
    }

    /// The share of the input that isn't on the tile yet. Tiles of one exchange bus differ
    /// in their channels out only, if those split evenly: then they receive as one, at
    /// double rate. Gradients of a joint plan number their tiles otherwise.
    fn input_exchange(&self, splits: &Splits, elements: &Elements) -> Cycles {
        let over = splits.out_channels.parallel;
        let missing = elements.input - elements.input / over;
        (self.operand().size() * missing).div_ceil(self.input_rate(splits))
    }

    fn input_rate(&self, splits: &Splits) -> BytesPerCycle {
        let over = splits.out_channels.parallel;
        let in_order = matches!(self.joint, None | Some(JointPass::Forward));
        let shared = in_order && over.is_multiple_of(self.spec.tiles_per_exchange_bus.into());
        BytesPerCycle(self.spec.exchange_rate.0 * if shared { 2 } else { 1 })
    }

    /// The share of the coefficients that isn't on the tile yet.
    fn weight_exchange(&self, splits: &Splits, elements: &Elements) -> Cycles {
        let missing = elements.weights - elements.weights / splits.field;
        self.exchange(missing, self.operand())
    }

    fn add_reduction(
        &self,
        cost: &mut PlanCost,
        splits: &Splits,
        elements: &Elements,
        stages: &[ReduceStage],
    ) {
        let depth = splits.in_channels.parallel;
        let types = self.reduce_types();
        let loops_over_inputs = splits.in_channels.serial > 1;
        if depth > 1 {
            cost.reduce = conv_reduce_stages(elements.reduced, depth, stages, types, self.spec);
        } else if types.partials != types.output && !loops_over_inputs {
            cost.reduce = planner_cast(elements.reduced, types, self.spec);
        }
        let mut size = elements.partials;
        for pair in stages.windows(2) {
            size = size.div_ceil(pair[0].depth);
            cost.later_partials_exchange += self.exchange(size, self.partials());
        }
    }

    fn stages(&self, depth: u64) -> ReduceStages {
        match self.reading {
            Reading::PopLibs => reduce_stages(depth),
            #[cfg(test)]
            Reading::Table => super::tests::stages_of_the_table(depth),
        }
    }

    fn reduce_types(&self) -> ReduceTypes {
        ReduceTypes {
            partials: self.partials(),
            output: self.output,
        }
    }

    /// Coefficients of one tile before they are spread, over all iterations.
    fn stored_weights(&self, splits: &Splits) -> u64 {
        (self.padded_groups() * self.padded_in() * self.padded_out()).div_ceil(splits.tiles())
    }

    fn spreads_weights_before_slicing(&self) -> bool {
        self.pass.is_fully_connected() && self.joint.is_none()
    }

    /// Bytes of one tile that hold the coefficients while a serial loop takes slices of them.
    pub(super) fn slices_of_weights(&self, splits: &Splits) -> Bytes {
        match self.spreads_weights_before_slicing() {
            true => self.operand().size() * self.stored_weights(splits),
            false => Bytes::ZERO,
        }
    }

    fn add_serial_loop(&self, cost: &mut PlanCost, splits: &Splits, elements: &Elements) {
        let iterations = splits.iterations();
        if iterations == 1 {
            return;
        }
        let slice = |elements: u64, parts: u64, dtype| {
            planner_slice(elements.div_ceil(parts), dtype, self.spec)
        };
        let stored_weights = self.stored_weights(splits);
        cost.dynamic_slice = slice(stored_weights, iterations, self.operand());
        let (over_in, over_out) = (splits.in_channels.serial, splits.out_channels.serial);
        if over_in > 1 {
            let stored_input =
                (self.padded_groups() * self.field * self.padded_in()).div_ceil(splits.tiles());
            cost.dynamic_slice += slice(stored_input, over_in, self.operand());
            cost.add_in_place = planner_add_in_place(elements.reduced, self.partials(), self.spec);
            cost.output_cast = planner_cast(elements.reduced, self.reduce_types(), self.spec);
        }
        if over_out > 1 {
            let divided_again = match self.reading {
                Reading::PopLibs => over_out,
                #[cfg(test)]
                Reading::Table => 1,
            };
            cost.dynamic_update = slice(elements.reduced, divided_again, self.partials());
        }
        if self.spreads_weights_before_slicing() {
            // One element a cycle, for want of knowing the layout.
            cost.rearrange_before_slice =
                self.exchange(stored_weights, self.operand()) + Cycles(stored_weights);
        }
    }

    /// Charges rearrangements and returns those of input, weights and output; that of an
    /// input which is broadcast before the loop is charged, and weighed, outside the loop.
    fn add_transforms(&self, cost: &mut PlanCost, splits: &Splits) -> [Transform; 3] {
        let transforms = self.transforms(splits);
        let n_outside = match self.reading {
            Reading::PopLibs => usize::from(splits.broadcast_input_before_loop),
            #[cfg(test)]
            Reading::Table => transforms.len(),
        };
        let (outside, inside) = transforms.split_at(n_outside);
        for transform in outside {
            cost.broadcast_copy += transform.copy;
            cost.broadcast_exchange += transform.exchange;
        }
        cost.transform_copy = inside.iter().map(|transform| transform.copy).sum();
        cost.transform_exchange = inside.iter().map(|transform| transform.exchange).sum();
        transforms
    }

    /// Temporary bytes of the busiest tile: what outlives the loop, plus the worst moment
    /// inside it.
    fn temporary(
        &self,
        splits: &Splits,
        elements: &Elements,
        transforms: &[Transform; 3],
        stages: &[ReduceStage],
    ) -> Bytes {
        let [input, weights, output] = transforms.map(|transform| transform.temporary);
        let mut computing = elements.bytes;
        let mut transforming = input.max(weights).max(output) * 2;
        let mut held = Bytes::ZERO;
        if splits.broadcast_input_before_loop {
            let stored = self.operand().size() * elements.input;
            held += input + stored;
            computing -= stored;
            transforming = weights.max(output) * 2;
        }
        let mut rearranging = Bytes::ZERO;
        if splits.iterations() > 1 {
            rearranging = self.slices_of_weights(splits);
            held += rearranging;
        }
        if splits.in_channels.serial > 1 {
            held += self.partials().size() * elements.reduced;
        }
        let reducing = if stages.len() > 1 {
            self.partials().size() * (elements.reduced * splits.in_channels.parallel)
        } else {
            Bytes::ZERO
        };
        held + transforming.max(computing).max(reducing).max(rearranging)
    }
}

#[cfg(test)]
mod tests {
    use ipu_sim::cost::amp::AmpTypes;
    use ipu_sim::cost::matmul::MatMulVertex;
    use ipu_sim::vertex::WeightLoad;

    use super::super::problem::problems;
    use super::super::tests::{gc200, options, shape};
    use super::super::{Pass, Split};
    use super::*;

    const UNLIMITED: Limits = Limits {
        cycles: Cycles(u64::MAX),
        temporary: Bytes(u64::MAX),
    };

    /// `[1, 16, 64] x [1, 64, 12]` with the widest vertex: swapped, so 12 positions and
    /// one group of 16 channels out; 64 channels in are four groups. Cut in two over
    /// the field, and twice in two over channels in, so that four tiles have 6 positions and
    /// one group each in two iterations.
    fn estimate(in_channels: Split) -> Estimate {
        let spec = gc200();
        let options = options(Pass::TrainingFwd, DType::F16, 0.6);
        let problems = problems(&shape([1, 16, 64, 12]), &options, &spec).unwrap();
        let problem = &problems[0];
        let widest = MatMulVertex {
            method: MatMulMethod::Amp {
                units: 16,
                load: WeightLoad::Bits64,
            },
            types: AmpTypes::F16F16,
            in_channels_per_group: 16,
            out_channels_per_group: 16,
        };
        assert_eq!((problem.swap_operands, problem.vertex), (true, widest));
        let splits = Splits {
            groups: 1,
            field: 2,
            in_channels,
            out_channels: Split {
                parallel: 1,
                serial: 1,
            },
            broadcast_input_before_loop: false,
        };
        let inner = widest.inner(6, &spec);
        problem.estimate(&splits, inner, &UNLIMITED).unwrap()
    }

    /// Every part worked by hand.
    #[test]
    fn serial_channels_in() {
        let Estimate { cost, temporary } = estimate(Split {
            parallel: 2,
            serial: 2,
        });
        let expect = PlanCost {
            iterations: 2,
            // 128 of 256 weights, 96 of 192 inputs: 25 + 6 * (63 + 2 * (5, 4)).
            dynamic_slice: Cycles(463 + 451),
            // All 96 inputs are there already; half of 256 weights isn't.
            weight_exchange: Cycles(64),
            partials_exchange: Cycles(96 * 2 / 4),
            // One position a worker: 50 + 42 + 13 + 11 + 18 + 7 + 64 + (6 * 25 + 14).
            amp: Cycles(369),
            // Two partials of 48 results: 33 + 6 * (20 + (2 * 1 + 9) * 1).
            reduce: Cycles(219),
            add_in_place: Cycles(11 + 6 * (58 + 3 * 2)),
            rearrange_before_slice: Cycles(256 * 2 / 4 + 256),
            output_cast: Cycles(6 * (2 + 26)),
            ..PlanCost::default()
        };
        assert_eq!(cost, expect);
        assert_eq!(cost.total(), Cycles(4570));
        // Slices of all weights, the sum so far, and operands with partials.
        assert_eq!(temporary, Bytes(256 * 2 + 48 * 2 + (96 + 256 + 96) * 2));
    }

    #[test]
    fn what_exceeds_a_limit_is_not_estimated() {
        let spec = gc200();
        let options = options(Pass::None, DType::F16, 0.6);
        let problems = problems(&shape([1, 16, 64, 12]), &options, &spec).unwrap();
        let one = Split {
            parallel: 1,
            serial: 1,
        };
        let splits = Splits {
            groups: 1,
            field: 1,
            in_channels: one,
            out_channels: one,
            broadcast_input_before_loop: false,
        };
        let inner = problems[0].vertex.inner(12, &spec);
        let try_within = |cycles, temporary| {
            let limits = Limits {
                cycles: Cycles(cycles),
                temporary: Bytes(temporary),
            };
            problems[0].estimate(&splits, inner, &limits)
        };
        let free = try_within(u64::MAX, u64::MAX).unwrap();
        let (cycles, bytes) = (free.cost.total().0, free.temporary.0);
        assert!(try_within(cycles, bytes).is_some());
        assert!(try_within(cycles - 1, bytes).is_none());
        assert!(try_within(cycles, bytes - 1).is_none());
    }
}

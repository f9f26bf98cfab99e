//! How one matrix product would be cut over the tiles of an IPU.
//!
//! Beside PopLibs' estimate, by which plans are ranked, stands what the simulator makes of
//! each plan: the time and the temporary memory of the program that the product is lowered
//! to, with both operands where the plan wants them before it spreads them.
//!
//! A pass of a trained layer is planned with the other two: apart, or jointly.

use bench_core::error::{Error, LargePart, Result, TooLarge};
use ipu_sim::engine::{self, Activity, Mode};
use ipu_sim::ids::IpuId;
use ipu_sim::numerics::DType;
use ipu_sim::spec::{MachineSpec, TileSpec};
use ipu_sim::units::{Bytes, Cycles};
use ipu_sim::vertex::WeightLoad;
use ipu_sim::weigh;
use popart_graph::lower::product_alone;
use popart_graph::plan::{self, JointPass, MatMulShape, Pass, Plan, PlanOptions};
use schemars::JsonSchema;
use serde::Serialize;

/// Version of the form of `--json`; it rises with every change that breaks a reader.
const SCHEMA: u32 = 2;

/// Largest extent of a dimension: far above any model's, and small enough for every product
/// of extents and cycles to fit 64 bits.
pub const EXTENT_MAX: u64 = 1 << 20;

/// A product to plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// The product.
    pub shape: MatMulShape,
    /// Type of partial sums.
    pub partials: DType,
    /// Share of a tile's memory for temporary data.
    pub proportion: f64,
    /// Pass of the training step that the product belongs to.
    pub pass: Pass,
    /// How coefficients get into the matrix unit.
    pub weight_load: WeightLoad,
    /// Plans to show, runners-up included.
    pub count: usize,
}

/// The plans of a product, the best first.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Plans {
    pub(crate) schema_version: u32,
    pub(crate) groups: u64,
    pub(crate) m: u64,
    pub(crate) k: u64,
    pub(crate) n: u64,
    /// Cycles if every AMP unit of every tile worked all the time.
    pub(crate) ideal_cycles: u64,
    /// Share of a tile's memory that was asked for.
    pub(crate) available_memory_proportion: f64,
    /// Whether that share is no byte, which asks for the smallest plan, not the fastest.
    pub(crate) smallest: bool,
    /// The three passes of the layer, if the product is one of them.
    pub(crate) layer: Option<Layer>,
    /// The one that is used, then the best ones of this product by itself.
    pub(crate) plans: Vec<PlanEntry>,
}

/// A trained layer, planned both ways.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Layer {
    pub(crate) separate: Passes,
    /// None where types or sizes allow no joint plan.
    pub(crate) joint: Option<Passes>,
    /// Whether the joint plan is the one that is used.
    pub(crate) is_joint: bool,
}

/// Estimated cycles of a layer's passes.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Passes {
    pub(crate) fwd: u64,
    pub(crate) bwd: u64,
    pub(crate) wu: u64,
    pub(crate) cycles: u64,
    /// Of the pass that takes most.
    pub(crate) temporary_bytes: u64,
}

/// One plan.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct PlanEntry {
    pub(crate) cycles: u64,
    pub(crate) utilisation: f64,
    pub(crate) tiles: u64,
    pub(crate) temporary_bytes: u64,
    pub(crate) memory_bound_bytes: Option<u64>,
    /// The right operand is the input, the left one the coefficients.
    pub(crate) swapped: bool,
    /// All passes of the layer share the cuts.
    pub(crate) joint: bool,
    pub(crate) groups: u64,
    pub(crate) field: u64,
    pub(crate) in_channels: u64,
    pub(crate) in_channels_serial: u64,
    pub(crate) out_channels: u64,
    pub(crate) out_channels_serial: u64,
    pub(crate) broadcast_input_once: bool,
    pub(crate) in_channels_per_group: u64,
    pub(crate) out_channels_per_group: u64,
    /// The codelet.
    pub(crate) vertex: &'static str,
    /// The codelet's cycles, whichever it is.
    pub(crate) amp: u64,
    pub(crate) exchange: u64,
    pub(crate) reduce: u64,
    pub(crate) transform: u64,
    /// All that follows: what serial iterations and the loop around them add.
    pub(crate) other: u64,
    pub(crate) slices: u64,
    pub(crate) updates: u64,
    pub(crate) sums: u64,
    pub(crate) broadcast_before_loop: u64,
    pub(crate) rearrange_before_loop: u64,
    pub(crate) cast_after_loop: u64,
    /// What the simulator makes of the plan.
    pub(crate) program: Lowered,
}

/// The program that a plan is lowered to.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Lowered {
    pub(crate) cycles: u64,
    /// In vertices, on the slowest tile of each compute set.
    pub(crate) compute: u64,
    pub(crate) exchange: u64,
    /// Dispatch, syncs and latency before vertices run and words move.
    pub(crate) launch: u64,
    /// What lives beside the operands at the fullest moment of any tile, the result included.
    pub(crate) temporary_bytes: u64,
    /// Why the program, with both operands, doesn't fit; none if it does.
    pub(crate) refused: Option<String>,
}

/// Plans the product of `request` on an IPU of `machine`.
///
/// # Errors
///
/// [`plan::PlanError`], by which dimension or number is wrong; [`TooLarge`] if the tiles of an IPU
/// together don't hold the operands and the result, which is found before anything is planned.
pub fn plans(request: &Request, machine: &MachineSpec) -> Result<Plans> {
    let spec = &machine.tile;
    let options = PlanOptions {
        pass: request.pass,
        operand: DType::F16,
        partials: request.partials,
        output: DType::F16,
        available_memory_proportion: request.proportion,
        weight_load: request.weight_load,
    };
    check_size(&request.shape, options.operand, spec)?;
    let mut found = plan::plans(&request.shape, &options, spec, request.count)?;
    let layer = match JointPass::of(request.pass) {
        Some(pass) => {
            let forward = pass.forward_of(&request.shape);
            Some((pass, plan::layer(&forward, &options, spec)?))
        }
        None => None,
    };
    if let Some((pass, layer)) = &layer
        && let (Some(joint), true) = (&layer.joint, layer.is_joint)
    {
        found.insert(0, joint[*pass as usize].clone());
        found.truncate(request.count);
    }
    let MatMulShape { groups, m, k, n } = request.shape;
    let units = match request.partials {
        DType::F16 => spec.amp.units_f16_f16,
        _ => spec.amp.units_f16_f32,
    };
    let products_per_cycle = u64::from(units * spec.amp.chain_depth * spec.tiles_per_ipu);
    let ideal_cycles = (groups * m * k * n).div_ceil(products_per_cycle);
    let rows: Result<Vec<PlanEntry>> = found
        .iter()
        .map(|plan| {
            let program = lowered(&request.shape, &options, plan, machine)?;
            Ok(row(plan, program, ideal_cycles))
        })
        .collect();
    Ok(Plans {
        schema_version: SCHEMA,
        groups,
        m,
        k,
        n,
        ideal_cycles,
        available_memory_proportion: request.proportion,
        smallest: spec.memory.0 as f64 * request.proportion < 1.0,
        layer: layer.map(|(_, layer)| Layer {
            separate: passes(&layer.separate),
            joint: layer.joint.as_ref().map(passes),
            is_joint: layer.is_joint,
        }),
        plans: rows?,
    })
}

/// Refuses a product of which the parts are more than an IPU holds. Its plan and its program would
/// have as many pieces as it has iterations, millions of them.
fn check_size(shape: &MatMulShape, dtype: DType, spec: &TileSpec) -> Result<()> {
    let [groups, m, k, n] = [shape.groups, shape.m, shape.k, shape.n].map(u128::from);
    let elements = groups * (m * k + k * n + m * n);
    let needed = elements * u128::from(dtype.size().0);
    let available = spec.memory * u64::from(spec.tiles_per_ipu);
    match needed > u128::from(available.0) {
        true => Err(Error::TooLarge(TooLarge {
            part: LargePart::Product(shape.to_string()),
            needed,
            available,
        })),
        false => Ok(()),
    }
}

fn passes(plans: &[Plan; 3]) -> Passes {
    let [fwd, bwd, wu] = plans.each_ref().map(|plan| plan.cost.total().0);
    let temporary = plans.iter().map(|plan| plan.temporary).max();
    Passes {
        fwd,
        bwd,
        wu,
        cycles: plan::layer_cycles(plans.each_ref()).0,
        temporary_bytes: temporary.unwrap_or(Bytes::ZERO).0,
    }
}

fn lowered(
    shape: &MatMulShape,
    options: &PlanOptions,
    plan: &Plan,
    machine: &MachineSpec,
) -> Result<Lowered> {
    let program = product_alone(shape, options, plan, &machine.tile);
    let timing = engine::Options {
        mode: Mode::Folded,
        trace_depth: 0,
    };
    let timeline = engine::time(&program, machine, timing)?;
    let weight = weigh::weigh(&program, machine)?;
    let spent = &timeline.ipus[IpuId(0)].tally.spent;
    let on = |activity| spent.on(activity).0;
    let temporary = weight.ipus[IpuId(0)].not_always_live().into_iter().max();
    Ok(Lowered {
        cycles: timeline.total.0,
        compute: on(Activity::Compute),
        exchange: on(Activity::Exchange),
        launch: on(Activity::Dispatch) + on(Activity::Launch),
        temporary_bytes: temporary.unwrap_or(Bytes::ZERO).0,
        refused: weight.verdict().err().map(|error| error.to_string()),
    })
}

fn row(plan: &Plan, program: Lowered, ideal: u64) -> PlanEntry {
    let (cost, splits) = (&plan.cost, &plan.splits);
    let all = |cycles: Cycles| cycles.0 * cost.iterations;
    let cycles = cost.total().0;
    let (amp, exchange) = (all(cost.amp), all(cost.exchange()));
    let reduce = all(cost.reduce);
    let transform = all(cost.transform_copy + cost.transform_exchange + cost.tile_transform);
    PlanEntry {
        cycles,
        utilisation: ideal as f64 / cycles as f64,
        tiles: plan.tiles,
        temporary_bytes: plan.temporary.0,
        memory_bound_bytes: plan.memory_bound.map(|bound| bound.0),
        swapped: plan.swap_operands,
        joint: plan.joint.is_some(),
        groups: splits.groups,
        field: splits.field,
        in_channels: splits.in_channels.parallel,
        in_channels_serial: splits.in_channels.serial,
        out_channels: splits.out_channels.parallel,
        out_channels_serial: splits.out_channels.serial,
        broadcast_input_once: splits.broadcast_input_before_loop,
        in_channels_per_group: plan.vertex.in_channels_per_group,
        out_channels_per_group: plan.vertex.out_channels_per_group,
        vertex: plan.vertex.method.name(),
        amp,
        exchange,
        reduce,
        transform,
        other: cycles - amp - exchange - reduce - transform,
        slices: all(cost.dynamic_slice),
        updates: all(cost.dynamic_update),
        sums: all(cost.add_in_place),
        broadcast_before_loop: (cost.broadcast_copy + cost.broadcast_exchange).0,
        rearrange_before_loop: cost.rearrange_before_slice.0,
        cast_after_loop: cost.output_cast.0,
        program,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipu_sim::spec::MachineSpec;

    fn request() -> Request {
        Request {
            shape: MatMulShape {
                groups: 1,
                m: 1024,
                k: 1024,
                n: 4096,
            },
            partials: DType::F16,
            proportion: 0.6,
            pass: Pass::TrainingFwd,
            weight_load: WeightLoad::Bits64,
            count: 5,
        }
    }

    /// Wide loads want their coefficients in interleaved memory.
    #[test]
    fn what_must_be_interleaved_has_to_fit_there() {
        let mut machine = MachineSpec::shipped("mk2-m2000").unwrap();
        machine.memory.interleaved = Bytes(16 * 1024);
        let refused = |weight_load| {
            let request = Request {
                weight_load,
                ..request()
            };
            let found = plans(&request, &machine).unwrap();
            let said = found.text().contains("It doesn't fit: ");
            let refused = found.plans[0].program.refused.clone();
            assert_eq!(said, refused.is_some());
            refused
        };
        assert_eq!(refused(WeightLoad::Bits64), None);
        let why = refused(WeightLoad::Bits128).unwrap();
        let region = "out of interleaved memory on IPU 0, tile ";
        assert!(why.starts_with(region), "{why}");
        assert!(why.contains("expected at most 16384 B, got "), "{why}");
    }

    /// Both took minutes and all memory before they were refused.
    #[test]
    fn products_larger_than_an_ipu_are_refused_before_they_are_planned() {
        let machine = MachineSpec::shipped("mk2-m2000").unwrap();
        let largest = EXTENT_MAX;
        for ([groups, m, k, n], needed) in [
            ([1, 32_768, 32_768, 32_768], 6_442_450_944),
            ([1, largest, 32, largest], 2_199_157_473_280_u128),
            ([largest; 4], 6_917_529_027_641_081_856),
        ] {
            let shape = MatMulShape { groups, m, k, n };
            let error = plans(&Request { shape, ..request() }, &machine).unwrap_err();
            let more = needed - 940_572_672;
            let expected = format!(
                "out of memory: the operands and the result of `{shape}` take {needed} B at once, \
                 {more} B more than the 940572672 B of an IPU"
            );
            assert_eq!(error.to_string(), expected);
        }
        // What is smaller is planned, whether or not it fits.
        let shape = MatMulShape {
            groups: 1,
            m: 8192,
            k: 8192,
            n: 8192,
        };
        let found = plans(&Request { shape, ..request() }, &machine).unwrap();
        assert!(!found.plans.is_empty());
    }

    /// A layer of few tokens shares one plan, which stands in front of those of the product alone.
    #[test]
    fn a_joint_plan_leads_where_it_is_used() {
        let machine = MachineSpec::shipped("mk2-m2000").unwrap();
        let check = |pass, [m, k, n]: [u64; 3], cycles| {
            let request = Request {
                shape: MatMulShape { groups: 1, m, k, n },
                pass,
                ..request()
            };
            let found = plans(&request, &machine).unwrap();
            let joint: Vec<bool> = found.plans.iter().map(|plan| plan.joint).collect();
            assert_eq!(joint, [true, false, false, false, false]);
            assert_eq!(found.plans[0].cycles, cycles);
            let layer = found.layer.as_ref().unwrap();
            assert!(layer.is_joint);
            assert_eq!(layer.separate.cycles, 6735);
            let passes = layer.joint.as_ref().unwrap();
            assert_eq!(passes.cycles, passes.fwd + passes.bwd + passes.wu);
            assert!(found.text().contains("passes are planned jointly:"));
        };
        check(Pass::TrainingFwd, [8, 1024, 1024], 1899);
        check(Pass::TrainingBwd, [8, 1024, 1024], 2421);
        check(Pass::TrainingWu, [1024, 8, 1024], 1446);
        let alone = Request {
            pass: Pass::None,
            ..request()
        };
        let found = plans(&alone, &machine).unwrap();
        assert_eq!(found.layer, None);
        assert!(!found.text().contains("passes are planned"));
    }

    #[test]
    fn the_best_plan_leads_and_its_parts_add_up() {
        let machine = MachineSpec::shipped("mk2-m2000").unwrap();
        let found = plans(&request(), &machine).unwrap();
        // PopLibs' total for this product.
        assert_eq!(found.plans[0].cycles, 89_516);
        assert_eq!(found.ideal_cycles, 45_591);
        assert_eq!(found.plans.len(), 5);
        assert!(found.plans.is_sorted_by_key(|plan| plan.cycles));
        let best = &found.plans[0];
        assert_eq!(
            [best.field, best.in_channels, best.out_channels],
            [23, 4, 16]
        );
        assert_eq!(
            best.amp + best.exchange + best.reduce,
            59_659 + 24_304 + 5_553
        );
        assert!(found.text().contains("| 89516 "));
        let program = &best.program;
        assert_eq!(program.compute, best.amp + best.reduce);
        assert_eq!(
            program.compute + program.exchange + program.launch,
            program.cycles
        );
    }
}

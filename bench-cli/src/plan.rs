//! `ipu-bench plan`: how one matrix product would be cut over the tiles of an IPU.
//!
//! Beside PopLibs' estimate, by which plans are ranked, stands what the simulator makes of
//! each plan: the time and the temporary memory of the program that the product is lowered
//! to, with both operands where the plan wants them before it spreads them.
//!
//! A pass of a trained layer is planned with the other two: apart, or jointly.

use ipu_sim::engine::{self, Activity, Mode};
use ipu_sim::ids::IpuId;
use ipu_sim::numerics::DType;
use ipu_sim::spec::MachineSpec;
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
    schema_version: u32,
    groups: u64,
    m: u64,
    k: u64,
    n: u64,
    /// Cycles if every AMP unit of every tile worked all the time.
    ideal_cycles: u64,
    /// Share of a tile's memory that was asked for.
    available_memory_proportion: f64,
    /// Whether that share is no byte, which asks for the smallest plan, not the fastest.
    smallest: bool,
    /// The three passes of the layer, if the product is one of them.
    layer: Option<Layer>,
    /// The one that is used, then the best ones of this product by itself.
    plans: Vec<PlanEntry>,
}

/// A trained layer, planned both ways.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
struct Layer {
    separate: Passes,
    /// None where types or sizes allow no joint plan.
    joint: Option<Passes>,
    /// Whether the joint plan is the one that is used.
    is_joint: bool,
}

/// Estimated cycles of a layer's passes.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
struct Passes {
    fwd: u64,
    bwd: u64,
    wu: u64,
    cycles: u64,
    /// Of the pass that takes most.
    temporary_bytes: u64,
}

/// One plan.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
struct PlanEntry {
    cycles: u64,
    utilisation: f64,
    tiles: u64,
    temporary_bytes: u64,
    memory_bound_bytes: Option<u64>,
    /// The right operand is the input, the left one the coefficients.
    swapped: bool,
    /// All passes of the layer share the cuts.
    joint: bool,
    groups: u64,
    field: u64,
    in_channels: u64,
    in_channels_serial: u64,
    out_channels: u64,
    out_channels_serial: u64,
    broadcast_input_once: bool,
    in_channels_per_group: u64,
    out_channels_per_group: u64,
    /// The codelet.
    vertex: &'static str,
    /// The codelet's cycles, whichever it is.
    amp: u64,
    exchange: u64,
    reduce: u64,
    transform: u64,
    /// All that follows: what serial iterations and the loop around them add.
    other: u64,
    slices: u64,
    updates: u64,
    sums: u64,
    broadcast_before_loop: u64,
    rearrange_before_loop: u64,
    cast_after_loop: u64,
    /// What the simulator makes of the plan.
    program: Lowered,
}

/// The program that a plan is lowered to.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
struct Lowered {
    cycles: u64,
    /// In vertices, on the slowest tile of each compute set.
    compute: u64,
    exchange: u64,
    /// Dispatch, syncs and latency before vertices run and words move.
    launch: u64,
    /// What lives beside the operands at the fullest moment of any tile, the result included.
    temporary_bytes: u64,
    /// Why the program, with both operands, doesn't fit; none if it does.
    refused: Option<String>,
}

/// Plans the product of `request` on an IPU of `machine`.
///
/// # Errors
///
/// [`plan::PlanError`], by which dimension or number is wrong.
pub fn plans(request: &Request, machine: &MachineSpec) -> anyhow::Result<Plans> {
    let spec = &machine.tile;
    let options = PlanOptions {
        pass: request.pass,
        operand: DType::F16,
        partials: request.partials,
        output: DType::F16,
        available_memory_proportion: request.proportion,
        weight_load: request.weight_load,
    };
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
    let rows: anyhow::Result<Vec<PlanEntry>> = found
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
) -> anyhow::Result<Lowered> {
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

impl Plans {
    /// The chosen plan with its costs, and the runners-up, with a line on how to read them.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            groups, m, k, n, ..
        } = *self;
        let shape = MatMulShape { groups, m, k, n };
        let chosen = &self.plans[0];
        let bound = match chosen.memory_bound_bytes {
            Some(bytes) => format!("within {bytes} B a tile"),
            None if self.smallest => "for the least memory".into(),
            None => "without a bound on memory".into(),
        };
        let refused = chosen.program.refused.as_ref();
        let refused = refused.map_or(String::new(), |why| format!("It doesn't fit: {why}.\n"));
        let layer = self.layer.as_ref().map_or(String::new(), Layer::text);
        format!(
            "{shape}, ideal {} cycles; chosen {bound}: {}, {}, {}\n\
             {}\n\
             The program's operands lie where the plan wants them, so that nothing is rearranged.\n\
             {refused}\n\
             {layer}The chosen plan and its runners-up:\n\
             {}\n\
             splits: parts of groups, field (x), channels in (i) and out (o) on different tiles; \
             serial: parts one after the other, `once` where the input is broadcast before them; \
             order: `joint` is swapped, too, and its cuts are those of all passes; \
             vertex in/out: the codelet with its channels in and out; amp: its cycles; \
             program: cycles of the program that the plan is lowered to\n",
            self.ideal_cycles,
            chosen.splits(),
            chosen.order(),
            chosen.vertex(),
            chosen.costs(),
            self.table(),
        )
    }

    /// All plans, one a row.
    fn table(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::ASCII_MARKDOWN)
            .set_header([
                "cycles",
                "util",
                "amp",
                "exchange",
                "reduce",
                "transform",
                "other",
                "tiles",
                "memory B",
                "splits",
                "serial",
                "order",
                "vertex in/out",
                "program",
            ]);
        for plan in &self.plans {
            table.add_row([
                plan.cycles.to_string(),
                format!("{:.0} %", 100.0 * plan.utilisation),
                plan.amp.to_string(),
                plan.exchange.to_string(),
                plan.reduce.to_string(),
                plan.transform.to_string(),
                plan.other.to_string(),
                plan.tiles.to_string(),
                plan.temporary_bytes.to_string(),
                plan.splits(),
                plan.serial(),
                plan.order().into(),
                plan.vertex(),
                plan.program.cycles.to_string(),
            ]);
        }
        table
    }
}

impl Layer {
    /// Both ways, and which one is used.
    fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::ASCII_MARKDOWN)
            .set_header(["passes planned", "fwd", "bwd", "wu", "cycles", "memory B"]);
        let apart = Some(&self.separate);
        for (name, passes) in [("apart", apart), ("jointly", self.joint.as_ref())] {
            let numbers = match passes {
                Some(passes) => {
                    let Passes {
                        fwd,
                        bwd,
                        wu,
                        cycles,
                        temporary_bytes,
                    } = *passes;
                    [fwd, bwd, wu, cycles, temporary_bytes].map(|number| number.to_string())
                }
                None => [(); 5].map(|()| "-".into()),
            };
            table.add_row(std::iter::once(name.to_string()).chain(numbers));
        }
        let used = if self.is_joint { "jointly" } else { "apart" };
        format!("The layer's passes are planned {used}:\n{table}\n\n")
    }
}

impl PlanEntry {
    fn splits(&self) -> String {
        let Self {
            groups,
            field,
            in_channels,
            out_channels,
            ..
        } = self;
        format!("g{groups} x{field} i{in_channels} o{out_channels}")
    }

    fn serial(&self) -> String {
        match (self.in_channels_serial, self.out_channels_serial) {
            (1, 1) => "-".into(),
            (parts, 1) => format!("i{parts}"),
            (_, parts) if self.broadcast_input_once => format!("o{parts} once"),
            (_, parts) => format!("o{parts}"),
        }
    }

    /// The codelet with the channels that it takes in and out at once.
    fn vertex(&self) -> String {
        let (channels_in, channels_out) = (self.in_channels_per_group, self.out_channels_per_group);
        format!("{} {channels_in}/{channels_out}", self.vertex)
    }

    fn order(&self) -> &'static str {
        match (self.joint, self.swapped) {
            (true, _) => "joint",
            (false, true) => "swapped",
            (false, false) => "as given",
        }
    }

    /// The estimate by cause, beside the program's time and memory.
    fn costs(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::ASCII_MARKDOWN)
            .set_header(["part", "estimate", "program"]);
        let program = &self.program;
        let vertices =
            self.amp + self.reduce + self.slices + self.updates + self.sums + self.cast_after_loop;
        let exchange = self.exchange + self.broadcast_before_loop;
        let rearranging = self.transform + self.rearrange_before_loop;
        let rows = [
            ("vertices", Some(vertices), Some(program.compute)),
            ("  multiplying", Some(self.amp), None),
            ("  reduction", Some(self.reduce), None),
            ("  slices", Some(self.slices), None),
            ("  updates and sums", Some(self.updates + self.sums), None),
            ("  cast", Some(self.cast_after_loop), None),
            ("exchange", Some(exchange), Some(program.exchange)),
            ("rearrangement", Some(rearranging), None),
            ("launch", None, Some(program.launch)),
            ("cycles", Some(self.cycles), Some(program.cycles)),
            (
                "temporary bytes",
                Some(self.temporary_bytes),
                Some(program.temporary_bytes),
            ),
        ];
        let is_detail = |part: &str| part.starts_with(' ');
        for (part, estimate, program) in rows {
            if is_detail(part) && estimate == Some(0) {
                continue;
            }
            let cell = |number: Option<u64>| number.map_or("-".into(), |number| number.to_string());
            table.add_row([part.to_string(), cell(estimate), cell(program)]);
        }
        table
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

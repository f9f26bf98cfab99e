//! `ipu-bench plan`: how one matrix product would be cut over the tiles of an IPU.

use ipu_sim::numerics::DType;
use ipu_sim::spec::TileSpec;
use popart_graph::plan::{self, MatMulShape, Pass, Plan, PlanOptions};
use serde::Serialize;

/// Version of the form of `--json`; it rises with every change that breaks a reader.
const SCHEMA: u32 = 1;

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
    /// What the product is part of.
    pub pass: Pass,
    /// Plans to show, runners-up included.
    pub count: usize,
}

/// The plans of a product, the best first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plans {
    schema_version: u32,
    groups: u64,
    m: u64,
    k: u64,
    n: u64,
    /// Cycles if every AMP unit of every tile worked all the time.
    ideal_cycles: u64,
    plans: Vec<Row>,
}

/// One plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    cycles: u64,
    utilisation: f64,
    tiles: u64,
    temporary_bytes: u64,
    memory_bound_bytes: Option<u64>,
    /// The right operand is the input, the left one the coefficients.
    swapped: bool,
    groups: u64,
    field: u64,
    in_channels: u64,
    in_channels_serial: u64,
    out_channels: u64,
    out_channels_serial: u64,
    broadcast_input_once: bool,
    in_channels_per_group: u64,
    out_channels_per_group: u64,
    amp: u64,
    exchange: u64,
    reduce: u64,
    transform: u64,
    /// Slices, updates and sums of serial iterations, and what is spent once around them.
    other: u64,
}

/// Plans the product of `request` on tiles of `spec`.
///
/// # Errors
///
/// [`plan::PlanError`], by which dimension or number is wrong.
pub fn plans(request: &Request, spec: &TileSpec) -> Result<Plans, plan::PlanError> {
    let options = PlanOptions {
        pass: request.pass,
        operand: DType::F16,
        partials: request.partials,
        output: DType::F16,
        available_memory_proportion: request.proportion,
    };
    let found = plan::plans(&request.shape, &options, spec, request.count)?;
    let MatMulShape { groups, m, k, n } = request.shape;
    let units = match request.partials {
        DType::F16 => spec.amp.units_f16_f16,
        _ => spec.amp.units_f16_f32,
    };
    let products_per_cycle = u64::from(units * spec.amp.chain_depth * spec.tiles_per_ipu);
    let ideal_cycles = (groups * m * k * n).div_ceil(products_per_cycle);
    Ok(Plans {
        schema_version: SCHEMA,
        groups,
        m,
        k,
        n,
        ideal_cycles,
        plans: found.iter().map(|plan| row(plan, ideal_cycles)).collect(),
    })
}

fn row(plan: &Plan, ideal: u64) -> Row {
    let (cost, splits) = (&plan.cost, &plan.splits);
    let all = |cycles: ipu_sim::units::Cycles| cycles.0 * cost.iterations;
    let cycles = cost.total().0;
    let (amp, exchange) = (all(cost.amp), all(cost.exchange()));
    let reduce = all(cost.reduce);
    let transform = all(cost.transform_copy + cost.transform_exchange);
    Row {
        cycles,
        utilisation: ideal as f64 / cycles as f64,
        tiles: plan.tiles,
        temporary_bytes: plan.temporary.0,
        memory_bound_bytes: plan.memory_bound.map(|bound| bound.0),
        swapped: plan.swap_operands,
        groups: splits.groups,
        field: splits.field,
        in_channels: splits.in_channels.parallel,
        in_channels_serial: splits.in_channels.serial,
        out_channels: splits.out_channels.parallel,
        out_channels_serial: splits.out_channels.serial,
        broadcast_input_once: splits.broadcast_input_before_loop,
        in_channels_per_group: plan.vertex.in_channels_per_group,
        out_channels_per_group: plan.vertex.amp.out_channels_per_group,
        amp,
        exchange,
        reduce,
        transform,
        other: cycles - amp - exchange - reduce - transform,
    }
}

impl Plans {
    /// The plans as a table, with a line on how to read it.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            groups, m, k, n, ..
        } = *self;
        let shape = MatMulShape { groups, m, k, n };
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
            ]);
        for plan in &self.plans {
            let splits = format!(
                "g{} x{} i{} o{}",
                plan.groups, plan.field, plan.in_channels, plan.out_channels
            );
            let serial = match (plan.in_channels_serial, plan.out_channels_serial) {
                (1, 1) => "-".into(),
                (parts, 1) => format!("i{parts}"),
                (_, parts) if plan.broadcast_input_once => format!("o{parts} once"),
                (_, parts) => format!("o{parts}"),
            };
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
                splits,
                serial,
                if plan.swapped { "swapped" } else { "as given" }.into(),
            ]);
        }
        format!(
            "{shape}, ideal {} cycles; the first plan is chosen\n\
             {table}\n\
             splits: parts of groups, field (x), channels in (i) and out (o) on different tiles; \
             serial: parts one after the other, `once` where the input is broadcast before them\n",
            self.ideal_cycles
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipu_sim::spec::MachineSpec;

    #[test]
    fn the_best_plan_leads_and_its_parts_add_up() {
        let request = Request {
            shape: MatMulShape {
                groups: 1,
                m: 1024,
                k: 1024,
                n: 4096,
            },
            partials: DType::F16,
            proportion: 0.6,
            pass: Pass::TrainingFwd,
            count: 5,
        };
        let tile = MachineSpec::shipped("mk2-m2000").unwrap().tile;
        let found = plans(&request, &tile).unwrap();
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
    }
}

//! One matrix product as a program of its own.
//!
//! Both operands are variables that lie at home, where the plan wants them before they are
//! spread, as weights do: so the program is what the plan itself does (slices, exchange,
//! vertices, sums), and what brings an activation home belongs to whoever made it.

use ipu_sim::program::{Program, Role, VarKind};
use ipu_sim::spec::TileSpec;

use super::builder::Builder;
use super::matmul::{Extents, PlannedProduct, Side, product_at_home};
use crate::ir::{OpTag, Parts};
use crate::plan::{MatMulShape, Plan, PlanOptions};
use crate::profile::{Line, LineKind};

/// The program of one product on one IPU of `spec`, laid out by `plan`.
///
/// # Panics
///
/// If the plan isn't one of this product on such an IPU, or an extent exceeds 32 bits.
#[must_use]
pub fn product_alone(
    shape: &MatMulShape,
    options: &PlanOptions,
    plan: &Plan,
    spec: &TileSpec,
) -> Program {
    let extent = |extent: u64| u32::try_from(extent).expect("a tensor's extents fit 32 bits");
    let extents = Extents {
        batch: vec![extent(shape.groups)],
        m: extent(shape.m),
        k: extent(shape.k),
        n: extent(shape.n),
    };
    let planned = PlannedProduct::new(plan, &extents, spec.tiles_per_ipu);
    let mut builder = Builder::new(Program::new(1, 1), Parts::default(), spec);
    let product = Line::around(LineKind::Op(OpTag::MatMul), None);
    builder.source = builder.line("product", product, Role::Work);
    let sides = [(Side::Input, "input"), (Side::Weights, "weights")];
    let [input, weights] = sides.map(|(side, name)| {
        builder.add_var(name, options.operand, planned.home(side), VarKind::Weight)
    });
    product_at_home(
        &mut builder,
        &planned,
        [input, weights],
        options.output,
        "result",
    );
    builder.program.steps = builder.steps;
    builder.program
}

#[cfg(test)]
mod tests {
    use ipu_sim::engine::{Activity, Mode, Options, time};
    use ipu_sim::ids::IpuId;
    use ipu_sim::numerics::DType;
    use ipu_sim::program::Role;
    use ipu_sim::spec::MachineSpec;
    use ipu_sim::units::Cycles;
    use ipu_sim::vertex::WeightLoad;

    use super::*;
    use crate::plan::{Pass, PlanCost, plan};

    /// What a product's program takes, and the estimate.
    struct Timed {
        /// In vertices.
        compute: Cycles,
        /// Of these, what products, sums and slices take.
        by_role: [Cycles; 3],
        exchange: Cycles,
        cost: PlanCost,
    }

    fn timed(shape: [u64; 4], proportion: f64) -> Timed {
        let machine = MachineSpec::shipped("mk2-m2000").unwrap();
        let [groups, m, k, n] = shape;
        let shape = MatMulShape { groups, m, k, n };
        let options = PlanOptions {
            pass: Pass::TrainingFwd,
            operand: DType::F16,
            partials: DType::F16,
            output: DType::F16,
            available_memory_proportion: proportion,
            weight_load: WeightLoad::Bits64,
        };
        let plan = plan(&shape, &options, &machine.tile).unwrap();
        let program = product_alone(&shape, &options, &plan, &machine.tile);
        let options = Options {
            mode: Mode::Folded,
            trace_depth: 0,
        };
        let timeline = time(&program, &machine, options).unwrap();
        let spent = &timeline.ipus[IpuId(0)].tally.spent;
        let (compute, exchange) = (spent.on(Activity::Compute), spent.on(Activity::Exchange));
        assert!(spent.total() > compute + exchange, "launches take time");
        let by_role = [Role::Work, Role::Reduction, Role::Slicing].map(|role| {
            let lines = timeline.sources.iter();
            let lines = lines.filter(|(id, _)| program.source(*id).role == role);
            let spent = lines.map(|(_, times)| times[IpuId(0)].spent.on(Activity::Compute));
            spent.sum()
        });
        Timed {
            compute,
            by_role,
            exchange,
            cost: plan.cost,
        }
    }

    /// The vertices of the program are those of the estimate, but that sums may be cut more
    /// evenly; its exchange is the estimate's within a tenth.
    #[test]
    fn the_program_does_what_the_plan_says() {
        for shape in [
            [1, 1024, 1024, 1024],
            [1, 1024, 1024, 3072],
            [1, 1024, 1024, 4096],
            [1, 1024, 4096, 1024],
            [128, 128, 64, 128],
        ] {
            let Timed {
                compute,
                by_role: [products, sums, slices],
                exchange,
                cost,
            } = timed(shape, 0.6);
            assert_eq!(products + sums + slices, compute, "{shape:?}");
            assert_eq!((products, slices), (cost.amp, Cycles::ZERO), "{shape:?}");
            assert!(sums <= cost.reduce, "{shape:?}: {sums:?}");
            let depth_one = if cost.reduce == Cycles::ZERO {
                cost.partials_exchange
            } else {
                Cycles::ZERO
            };
            let estimated = (cost.exchange() - depth_one).0;
            let range = estimated * 9 / 10..=estimated * 11 / 10;
            assert!(range.contains(&exchange.0), "{shape:?}: {exchange:?}");
        }
    }

    #[test]
    fn evenly_cut_sums_are_exact() {
        let found = timed([1, 1024, 1024, 4096], 0.6);
        assert_eq!(found.by_role, [59_659, 5_553, 0].map(Cycles));
    }

    /// Slices, updates and a start with zeros come on top of what every iteration computes.
    #[test]
    fn a_serial_product_has_slices_and_updates() {
        let Timed {
            compute,
            by_role: [products, sums, slices],
            cost,
            ..
        } = timed([1, 1024, 1024, 4096], 0.2);
        assert_eq!(cost.iterations, 2);
        assert_eq!(products + sums + slices, compute);
        assert_eq!([products, sums], [cost.amp * 2, cost.reduce * 2]);
        let moved = cost.dynamic_slice + cost.dynamic_update;
        assert!(
            slices > moved * 2 && slices < moved * 2 + Cycles(3_000),
            "{slices:?}, {cost:?}"
        );
    }
}

//! Plans of matrix products against totals worked out from PopLibs' planner.
//!
//! The expected totals are those of [`popart_graph::plan::tables`], from an independent
//! evaluation of the planner's sources. In a few rows it is known to read them otherwise than
//! they are written ([`DIFFERENT`](popart_graph::plan::tables::DIFFERENT)); these are compared
//! with it all the same, say so, and may be farther off.

use ipu_sim::numerics::DType;
use ipu_sim::spec::MachineSpec;
use ipu_sim::threads;
use ipu_sim::vertex::WeightLoad;
use popart_graph::plan::{MatMulShape, Pass, PlanOptions, plan, tables};

use super::{Role, Row};
use crate::error::Result;

/// Where the totals come from.
const SOURCE: &str = "PopLibs' planner (lib/poplin), worked out by an independent evaluation for \
                      a GC200";

/// Share of a tile's memory for the products that are not of a published configuration.
const PROPORTION: f64 = 0.6;

/// Cycles that a product planned on its own may be off.
const ALONE_MAX: f64 = 20.0;

/// Relative error of products of a trained layer.
const TRAINED_MAX: f64 = 0.01;

/// Relative error at the published proportions, which that evaluation gives for its own.
const PUBLISHED_MAX: f64 = 0.015;

/// The same in rows that read the planner's sources otherwise.
const DIFFERENT_MAX: f64 = 0.06;

/// A plan that is known.
struct Case {
    pass: Pass,
    partials: DType,
    /// Groups, m, k, n.
    sizes: [u64; 4],
    proportion: f64,
    total: u64,
    tolerance: f64,
}

/// All rows.
///
/// # Errors
///
/// A product that the machine can't plan.
pub(super) fn rows(machine: &MachineSpec) -> Result<Vec<Row>> {
    let cases: Vec<Case> = alone().chain(trained()).chain(published()).collect();
    let rows = threads::map(&cases, |case| row(case, machine));
    rows.into_iter().collect()
}

fn row(case: &Case, machine: &MachineSpec) -> Result<Row> {
    let [groups, m, k, n] = case.sizes;
    let options = PlanOptions {
        pass: case.pass,
        operand: DType::F16,
        partials: case.partials,
        output: DType::F16,
        available_memory_proportion: case.proportion,
        weight_load: WeightLoad::Bits64,
    };
    let plan = plan(&MatMulShape { groups, m, k, n }, &options, &machine.tile)?;
    Ok(Row {
        name: format!("plan {}", name(case)),
        unit: "cycles".into(),
        expected: case.total as f64,
        found: plan.cost.total().0 as f64,
        tolerance: case.tolerance,
        is_range: false,
        role: Role::Law,
        source: SOURCE.into(),
        known: None,
    })
}

/// `fwd 128x[128,64]x[64,128] half 0.25`.
fn name(case: &Case) -> String {
    let [groups, m, k, n] = case.sizes;
    let pass = match case.pass {
        Pass::None => "alone",
        Pass::InferenceFwd => "inference",
        Pass::TrainingFwd => "fwd",
        Pass::TrainingBwd => "bwd",
        Pass::TrainingWu => "wu",
    };
    let partials = match case.partials {
        DType::F16 => "half",
        DType::F32 | DType::U32 => "float",
    };
    let proportion = case.proportion;
    let read = match case.tolerance == DIFFERENT_MAX {
        true => ", read otherwise",
        false => "",
    };
    format!("{pass} {groups}x[{m},{k}]x[{k},{n}] {partials} {proportion}{read}")
}

fn alone() -> impl Iterator<Item = Case> {
    let rows = tables::ALONE.iter();
    rows.map(|&(partials, sizes, [total, ..], ..)| Case {
        pass: Pass::None,
        partials,
        sizes,
        proportion: PROPORTION,
        total,
        tolerance: ALONE_MAX / total as f64,
    })
}

fn trained() -> impl Iterator<Item = Case> {
    tables::TRAINED
        .iter()
        .flat_map(|&(partials, [groups, m, k, n], [fwd, bwd, wu])| {
            let passes = [
                (Pass::TrainingFwd, [groups, m, k, n], fwd),
                (Pass::TrainingBwd, [groups, m, n, k], bwd),
                (Pass::TrainingWu, [groups, k, m, n], wu),
            ];
            passes.map(|(pass, sizes, total)| Case {
                pass,
                partials,
                sizes,
                proportion: PROPORTION,
                total,
                tolerance: TRAINED_MAX,
            })
        })
}

fn published() -> impl Iterator<Item = Case> {
    let rows = tables::PUBLISHED.iter();
    rows.map(|&(proportion, pass, sizes, [total, ..])| {
        let key = (proportion, pass, sizes);
        let mut different = tables::DIFFERENT.iter();
        let is_different = different.any(|other| (other.0, other.1, other.2) == key);
        Case {
            pass,
            partials: DType::F16,
            sizes,
            proportion,
            total,
            tolerance: match is_different {
                true => DIFFERENT_MAX,
                false => PUBLISHED_MAX,
            },
        }
    })
}

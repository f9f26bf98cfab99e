//! How is a matrix product laid out over the tiles of one IPU?
//!
//! PopLibs answers by search: it tries both operand orders, every form of the AMP vertex
//! and every way to split the work over tiles and over time, estimates the cycles of each
//! with a model of vertices, exchange, reduction and rearrangement, and keeps the cheapest
//! that fits a share of tile memory. This module searches the same space with the same
//! estimator, quirks included, because the real planner chose with it. The *time* of a
//! chosen plan comes from the lowered program, not from here.
//!
//! ```
//! use ipu_sim::numerics::DType;
//! use ipu_sim::spec::MachineSpec;
//! use ipu_sim::vertex::WeightLoad;
//! use popart_graph::plan::{MatMulShape, Pass, PlanOptions, plan};
//!
//! let gc200 = MachineSpec::shipped("mk2-m2000")?.tile;
//! // The first feed-forward product of BERT-Large: 1024 tokens, 1024 -> 4096 features.
//! let shape = MatMulShape { groups: 1, m: 1024, k: 1024, n: 4096 };
//! let options = PlanOptions {
//!     pass: Pass::TrainingFwd,
//!     operand: DType::F16,
//!     partials: DType::F16,
//!     output: DType::F16,
//!     available_memory_proportion: 0.6,
//!     weight_load: WeightLoad::Bits64,
//! };
//! let plan = plan(&shape, &options, &gc200)?;
//! assert_eq!(plan.cost.total().0, 89_516);
//! assert_eq!(plan.tiles, 23 * 4 * 16);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: PopLibs, `lib/poplin/{MatMul,ConvPlan,ConvModel,ConvVertexType}.cpp` and
//! `ExchangeEstimator.hpp`.
//!
//! Left out:
//! - joint plans of a layer's three passes other than with square groups of channels
//!   ([`layer`]);
//! - splits over several IPUs, reference plans and hand-pinned plan constraints.

mod problem;

mod estimate;
mod transform;

mod search;

mod joint;

mod cache;

pub mod tables;
#[cfg(test)]
mod tests;

pub use cache::{PlanCache, PlanRequest};
pub use estimate::PlanCost;
pub use joint::{JointPass, Layer, layer, layer_cycles};

use std::fmt;

use ipu_sim::cost::matmul::MatMulVertex;
use ipu_sim::numerics::DType;
use ipu_sim::spec::TileSpec;
use ipu_sim::units::Bytes;
use ipu_sim::vertex::WeightLoad;

use search::Objective;

/// Multiply-adds of the largest product that is planned: a thousand times any model's.
const MULTIPLY_ADDS_MAX: u64 = 1 << 50;

/// A batch of products `[groups, m, k] x [groups, k, n] -> [groups, m, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MatMulShape {
    /// Independent products.
    pub groups: u64,
    /// Rows of the left operand.
    pub m: u64,
    /// Summed dimension.
    pub k: u64,
    /// Columns of the right operand.
    pub n: u64,
}

impl fmt::Display for MatMulShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { groups, m, k, n } = self;
        write!(f, "{groups} x [{m}, {k}] x [{k}, {n}]")
    }
}

/// Pass that a product is part of; the planner charges rearrangements accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    /// A product on its own (`fullyConnectedPass` NONE).
    None,
    /// A fully connected layer that is never trained.
    InferenceFwd,
    /// The forward pass of a trained layer.
    TrainingFwd,
    /// The gradient of a trained layer's input.
    TrainingBwd,
    /// The gradient of a trained layer's weights.
    TrainingWu,
}

impl Pass {
    /// Whether the product belongs to a fully connected layer.
    #[must_use]
    pub fn is_fully_connected(self) -> bool {
        self != Pass::None
    }
}

/// How a product is to be planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanOptions {
    /// Pass that the product is part of.
    pub pass: Pass,
    /// Type of both operands.
    pub operand: DType,
    /// Type of partial sums; raised to `output` where that is wider.
    pub partials: DType,
    /// Type of the result.
    pub output: DType,
    /// Share of a tile's memory that temporary data may take, from 0 up. The planner asks
    /// for more when nothing fits; 0 asks for the least memory instead of the least time.
    pub available_memory_proportion: f64,
    /// How coefficients get into the matrix unit: PopLibs' `use128BitConvUnitLoad`, off by
    /// default. Wide loads want coefficients in interleaved memory.
    pub weight_load: WeightLoad,
}

/// A dimension's splits over tiles and over iterations of a serial loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Split {
    /// Parts on different tiles.
    pub parallel: u64,
    /// Parts one after the other.
    pub serial: u64,
}

impl Split {
    /// All parts.
    #[must_use]
    pub fn total(self) -> u64 {
        self.parallel * self.serial
    }
}

/// How the work is cut. Names are those of a convolution, as the planner sees a product:
/// with swapped operands the field is `n` and channels out are `m`, else the reverse;
/// channels in are `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Splits {
    /// Parts of the groups, on different tiles.
    pub groups: u64,
    /// Parts of the field, on different tiles.
    pub field: u64,
    /// Parts of the channels in.
    pub in_channels: Split,
    /// Parts of the channels out.
    pub out_channels: Split,
    /// Whether inputs are brought to all tiles once, before a serial loop over channels
    /// out, instead of in every iteration.
    pub broadcast_input_before_loop: bool,
}

impl Splits {
    /// Tiles that compute.
    #[must_use]
    pub fn tiles(&self) -> u64 {
        self.groups * self.field * self.in_channels.parallel * self.out_channels.parallel
    }

    /// Iterations of the serial loop.
    #[must_use]
    pub fn iterations(&self) -> u64 {
        self.in_channels.serial * self.out_channels.serial
    }
}

/// Work of the busiest tile in one iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileWork {
    /// Groups of the product, several counting as one if the vertex takes them at once.
    pub groups: u64,
    /// Field positions.
    pub field: u64,
    /// Groups of channels in, each [`MatMulVertex::in_channels_per_group`] wide.
    pub in_groups: u64,
    /// Groups of channels out, each as wide as the vertex writes at once.
    pub out_groups: u64,
}

/// A chosen plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Whether the right operand is the input and the left one the AMP coefficients.
    pub swap_operands: bool,
    /// The vertex that computes partials.
    pub vertex: MatMulVertex,
    /// How the work is cut.
    pub splits: Splits,
    /// Work of the busiest tile in one iteration.
    pub tile_work: TileWork,
    /// Estimated cycles, by cause.
    pub cost: PlanCost,
    /// Estimated temporary memory of the busiest tile.
    pub temporary: Bytes,
    /// Tiles that compute.
    pub tiles: u64,
    /// The memory bound that the plan was found under, wider than asked for when nothing
    /// fitted that; none for an unbounded search.
    pub memory_bound: Option<Bytes>,
    /// Which pass of a plan for all three passes of a layer this is; none for a plan of
    /// its own.
    pub joint: Option<JointPass>,
}

/// Why a product has no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A dimension is zero.
    #[error("matmul {0}: every dimension must be at least 1")]
    EmptyDimension(MatMulShape),
    /// More multiply-adds than can be counted in cycles of 64 bits with room to spare.
    #[error("matmul {0}: at most 2^50 multiply-adds can be planned")]
    TooLarge(MatMulShape),
    /// The matrix unit lacks this combination of types.
    #[error("matmul: no matrix unit for {operand:?} operands with {partials:?} partials")]
    UnsupportedTypes {
        /// Type of the operands.
        operand: DType,
        /// Type of the partials.
        partials: DType,
    },
    /// The memory proportion is no number from 0 to 1.
    #[error("matmul: available memory proportion must be from 0 to 1, got {0}")]
    MemoryProportion(f64),
}

/// Plans one product on one IPU of `spec`, apart from the other passes of its layer;
/// [`layer`] plans all of them, and [`PlanCache`] keeps what is better.
///
/// # Errors
///
/// When a dimension is zero, the memory proportion not from 0 to 1, or the machine
/// has no matrix unit for the types. A product that fits no memory bound still has a plan,
/// found without one, as in PopLibs.
pub fn plan(
    shape: &MatMulShape,
    options: &PlanOptions,
    spec: &TileSpec,
) -> Result<Plan, PlanError> {
    Ok(plans(shape, options, spec, 1)?.remove(0))
}

/// The plan of [`plan`] and its runners-up under the same memory bound, the best first:
/// `count` plans, or as many as there are.
///
/// # Errors
///
/// As [`plan`].
///
/// # Panics
///
/// If `count` is zero.
pub fn plans(
    shape: &MatMulShape,
    options: &PlanOptions,
    spec: &TileSpec,
    count: usize,
) -> Result<Vec<Plan>, PlanError> {
    assert!(count > 0, "no plan was asked for");
    let extents = [shape.groups, shape.m, shape.k, shape.n];
    let product = extents
        .iter()
        .try_fold(1u64, |all, &extent| all.checked_mul(extent));
    if product.is_none_or(|product| product > MULTIPLY_ADDS_MAX) {
        return Err(PlanError::TooLarge(*shape));
    }
    let problems = problem::problems(shape, options, spec)?;
    let proportion = options.available_memory_proportion;
    if !(0.0..=1.0).contains(&proportion) {
        return Err(PlanError::MemoryProportion(proportion));
    }
    let found = objectives(proportion, spec)
        .map(|objective| search::best(&problems, objective, count))
        .find(|plans| !plans.is_empty())
        .expect("one tile alone is a plan, and the last objective has no bound");
    Ok(found)
}

/// What to search for, one after the other until something is found: the fastest plan
/// within the memory share, then within ever twice as much up to twice a tile's memory,
/// then without a bound. A share of nothing asks for the smallest plan.
fn objectives(proportion: f64, spec: &TileSpec) -> impl Iterator<Item = Objective> {
    let share = Bytes((spec.memory.0 as f64 * proportion) as u64);
    let limit = spec.memory * 2;
    let bounds = std::iter::successors(Some(share), move |bound| {
        Some(Bytes(bound.0.saturating_mul(2))).filter(|wider| *wider < limit)
    });
    let bounded = bounds.map(|bound| Objective::Fastest { bound: Some(bound) });
    let smallest = (share == Bytes::ZERO).then_some(Objective::Smallest);
    smallest
        .into_iter()
        .chain(bounded.take_while(move |_| share > Bytes::ZERO))
        .chain([Objective::Fastest { bound: None }])
}

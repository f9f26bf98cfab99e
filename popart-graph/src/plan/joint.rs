//! Do the three passes of a trained layer share one plan?
//!
//! PopLibs plans a fully connected layer's forward product twice: *apart*, each pass with a
//! plan of its own, and *jointly*, with one cut of the work for all three. A joint plan
//! takes the weights as the convolution's input and cuts channels out, which are the
//! layer's tokens, over time only. So every weight is used on exactly one tile, in every
//! pass, and is never exchanged:
//!
//! | pass | product | field | channels in | channels out |
//! | --- | --- | --- | --- | --- |
//! | forward | `[m, k] x [k, n]` | `n` | `k` | `m` |
//! | backward | `[m, n] x [n, k]` | `k` | `n` | `m` |
//! | update | `[k, m] x [m, n]` | `n` | `m` | `k` |
//!
//! `n` and `k` are cut alike in all passes, in whole groups of channels, and a part of one
//! meets a part of the other on the same tile. The price is that every tile works on all
//! tokens.
//!
//! Source: PopLibs, `lib/poplin/ConvPlan.cpp` and `ConvModel.cpp`. Left out: forms whose
//! groups of channels in and out differ, and codelets other than AMP with a full chain,
//! which would change roles between passes.

use ipu_sim::cost::matmul::MatMulVertex;
use ipu_sim::spec::TileSpec;
use ipu_sim::units::{Bytes, Cycles};
use ipu_sim::vertex::MatMulMethod;

use super::estimate::{Estimate, Limits};
use super::problem::{Problem, vertex_forms};
use super::search::{Cut, Objective, cuts, splits};
use super::{MatMulShape, Pass, Plan, PlanError, PlanOptions, Split, Splits, objectives, plan};

/// A pass of a layer whose passes share one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JointPass {
    /// The layer's result.
    Forward,
    /// The gradient of its input (PopLibs' order `FC_BWD_AS_CONV`).
    Backward,
    /// The gradient of its weights (`FC_WU`).
    Update,
}

impl JointPass {
    /// In the order in which they run.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Backward, Self::Update];

    /// Which pass of a trained layer `pass` is, if it is one.
    #[must_use]
    pub fn of(pass: Pass) -> Option<Self> {
        match pass {
            Pass::TrainingFwd => Some(Self::Forward),
            Pass::TrainingBwd => Some(Self::Backward),
            Pass::TrainingWu => Some(Self::Update),
            Pass::None | Pass::InferenceFwd => None,
        }
    }

    /// Pass of this product in the planner's options.
    #[must_use]
    pub fn pass(self) -> Pass {
        match self {
            Self::Forward => Pass::TrainingFwd,
            Self::Backward => Pass::TrainingBwd,
            Self::Update => Pass::TrainingWu,
        }
    }

    /// Product of this pass in the layer whose forward product is `forward`.
    #[must_use]
    pub fn product(self, forward: &MatMulShape) -> MatMulShape {
        let MatMulShape { groups, m, k, n } = *forward;
        let (m, k, n) = match self {
            Self::Forward => (m, k, n),
            Self::Backward => (m, n, k),
            Self::Update => (k, m, n),
        };
        MatMulShape { groups, m, k, n }
    }

    /// The forward product of the layer in which this pass's product is `product`: both
    /// exchanges of roles undo themselves.
    #[must_use]
    pub fn forward_of(self, product: &MatMulShape) -> MatMulShape {
        self.product(product)
    }

    /// This pass's cuts where the forward pass has `forward`.
    fn splits(self, forward: &Splits) -> Splits {
        let Splits {
            field,
            in_channels,
            out_channels,
            ..
        } = *forward;
        let over_tiles = |parallel| Split {
            parallel,
            serial: 1,
        };
        match self {
            Self::Forward => *forward,
            Self::Backward => Splits {
                field: in_channels.parallel,
                in_channels: over_tiles(field),
                ..*forward
            },
            Self::Update => Splits {
                in_channels: out_channels,
                out_channels: in_channels,
                broadcast_input_before_loop: false,
                ..*forward
            },
        }
    }
}

/// A trained layer, planned both ways. Plans are those of [`JointPass::ALL`].
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Each pass by itself.
    pub separate: [Plan; 3],
    /// The best plan for all passes, if any suits the types.
    pub joint: Option<[Plan; 3]>,
    /// Whether the joint plan is the one to use.
    pub is_joint: bool,
}

/// Plans the layer with the forward product `shape` both ways on one IPU of `spec`; the pass
/// of `options` doesn't matter.
///
/// # Errors
///
/// As [`plan`].
pub fn layer(
    shape: &MatMulShape,
    options: &PlanOptions,
    spec: &TileSpec,
) -> Result<Layer, PlanError> {
    let separate = |pass: JointPass| {
        let options = PlanOptions {
            pass: pass.pass(),
            ..*options
        };
        plan(&pass.product(shape), &options, spec)
    };
    let [forward, backward, update] = JointPass::ALL.map(separate);
    let separate = [forward?, backward?, update?];
    let chosen = better_jointly(shape, options, spec, separate.each_ref());
    let is_joint = chosen.is_some();
    let joint = match chosen {
        Some(plans) => Some(plans),
        None => {
            let search = JointSearch::new(shape, options, spec);
            objectives(options.available_memory_proportion, spec)
                .find_map(|objective| search.best(objective, Cycles(u64::MAX)))
        }
    };
    Ok(Layer {
        separate,
        joint,
        is_joint,
    })
}

/// Cycles of all passes together.
#[must_use]
pub fn layer_cycles(plans: [&Plan; 3]) -> Cycles {
    plans.iter().map(|plan| plan.cost.total()).sum()
}

/// The joint plans of a layer unless its `separate` ones take fewer cycles, or fit a memory
/// bound that the joint ones don't fit.
pub(super) fn better_jointly(
    shape: &MatMulShape,
    options: &PlanOptions,
    spec: &TileSpec,
    separate: [&Plan; 3],
) -> Option<[Plan; 3]> {
    let search = JointSearch::new(shape, options, spec);
    let cycles = layer_cycles(separate);
    let bytes = separate.map(|plan| plan.temporary).into_iter().max();
    for objective in objectives(options.available_memory_proportion, spec) {
        let fits = match objective {
            Objective::Fastest { bound: Some(bound) } => separate
                .iter()
                .all(|plan| plan.memory_bound.is_some_and(|found| found <= bound)),
            Objective::Fastest { bound: None } | Objective::Smallest => true,
        };
        let limit = match objective {
            Objective::Fastest { .. } if fits => cycles,
            Objective::Fastest { .. } | Objective::Smallest => Cycles(u64::MAX),
        };
        let joint = search.best(objective, limit).filter(|joint| {
            let weight = joint.iter().map(|plan| plan.temporary).max();
            objective != Objective::Smallest
                || (weight, layer_cycles(joint.each_ref())) <= (bytes, cycles)
        });
        if joint.is_some() || fits {
            return joint;
        }
    }
    None
}

/// The problems of the three passes, for every form of vertex that suits all; none where
/// there can't be a joint plan.
struct JointSearch<'a> {
    forms: Vec<[Problem<'a>; 3]>,
}

/// A cut of the work and what each pass makes of it.
struct Found<'a> {
    problems: &'a [Problem<'a>; 3],
    splits: Splits,
    estimates: [Estimate; 3],
}

impl<'a> JointSearch<'a> {
    fn new(shape: &MatMulShape, options: &PlanOptions, spec: &'a TileSpec) -> Self {
        let forward = PlanOptions {
            pass: Pass::TrainingFwd,
            ..*options
        };
        // Gradients are of the output's type and become operands.
        let forms = match options.operand == options.output {
            true => vertex_forms(shape.k, &forward, spec).unwrap_or_default(),
            false => Vec::new(),
        };
        let problems = |vertex: MatMulVertex| {
            JointPass::ALL.map(|pass| Problem::of_joint(shape, options, spec, vertex, pass))
        };
        Self {
            forms: forms.into_iter().filter(suits).map(problems).collect(),
        }
    }

    /// The best plan of at most `limit` cycles.
    fn best(&self, objective: Objective, limit: Cycles) -> Option<[Plan; 3]> {
        let mut best = Best {
            objective,
            limit,
            found: None,
        };
        for problems in &self.forms {
            try_all(problems, &mut best);
        }
        let Found {
            problems,
            splits,
            estimates,
        } = best.found?;
        Some(JointPass::ALL.map(|pass| {
            let (problem, estimate) = (&problems[pass as usize], &estimates[pass as usize]);
            let splits = pass.splits(&splits);
            Plan {
                swap_operands: true,
                vertex: problem.vertex,
                splits,
                tile_work: problem.tile_work(&splits),
                cost: estimate.cost,
                temporary: estimate.temporary,
                tiles: splits.tiles(),
                memory_bound: objective.bound(),
                joint: Some(pass),
            }
        }))
    }
}

/// The matrix unit with a full chain, and as many channels out of a group as in: then groups
/// stay what they are when channels change roles.
fn suits(vertex: &MatMulVertex) -> bool {
    let square = vertex.in_channels_per_group == vertex.out_channels_per_group;
    match vertex.method {
        MatMulMethod::Amp { units, .. } => {
            square && vertex.in_channels_per_group.is_multiple_of(units.into())
        }
        MatMulMethod::AmpNx1 { .. }
        | MatMulMethod::Slic { .. }
        | MatMulMethod::HorizontalMac
        | MatMulMethod::VerticalMac { .. }
        | MatMulMethod::OuterProduct => false,
    }
}

/// The best joint plan so far.
struct Best<'a> {
    objective: Objective,
    limit: Cycles,
    found: Option<Found<'a>>,
}

impl<'a> Best<'a> {
    /// What a plan must not exceed to be the best.
    fn limits(&self) -> Limits {
        let mut limits = Limits {
            cycles: self.limit,
            temporary: self.objective.bound().unwrap_or(Bytes(u64::MAX)),
        };
        if let Some(found) = &self.found {
            match self.objective {
                Objective::Fastest { .. } => limits.cycles = found.cycles(),
                Objective::Smallest => limits.temporary = found.temporary(),
            }
        }
        limits
    }

    /// Offers a cut of one form; it is left as soon as it can't be the best.
    fn offer(&mut self, problems: &'a [Problem<'a>; 3], splits: Splits) {
        let Some(estimates) = estimates(problems, &splits, self.limits()) else {
            return;
        };
        let offered = Found {
            problems,
            splits,
            estimates,
        };
        let rank = |found: &Found| {
            let (cycles, bytes) = (found.cycles().0, found.temporary().0);
            match self.objective {
                Objective::Fastest { .. } => (cycles, bytes),
                Objective::Smallest => (bytes, cycles),
            }
        };
        if self
            .found
            .as_ref()
            .is_none_or(|best| rank(&offered) < rank(best))
        {
            self.found = Some(offered);
        }
    }
}

/// Estimates of all passes, if they are within `limits` together.
fn estimates(
    problems: &[Problem<'_>; 3],
    splits: &Splits,
    mut limits: Limits,
) -> Option<[Estimate; 3]> {
    let mut estimate = |pass: JointPass| {
        let problem = &problems[pass as usize];
        let splits = pass.splits(splits);
        let field = problem.tile_work(&splits).field;
        let inner = problem.vertex.inner(field, problem.spec);
        let estimate = problem.estimate(&splits, inner, &limits)?;
        limits.cycles = Cycles(limits.cycles.0 - estimate.cost.total().0);
        Some(estimate)
    };
    let forward = estimate(JointPass::Forward)?;
    let backward = estimate(JointPass::Backward)?;
    Some([forward, backward, estimate(JointPass::Update)?])
}

impl Found<'_> {
    fn cycles(&self) -> Cycles {
        self.estimates
            .iter()
            .map(|estimate| estimate.cost.total())
            .sum()
    }

    /// The pass that takes most decides.
    fn temporary(&self) -> Bytes {
        let [forward, backward, update] = self.estimates.each_ref().map(|pass| pass.temporary);
        forward.max(backward).max(update)
    }
}

/// Offers every cut of the forward pass.
fn try_all<'a>(problems: &'a [Problem<'a>; 3], best: &mut Best<'a>) {
    let forward = &problems[0];
    let n_tiles = u64::from(forward.spec.tiles_per_ipu);
    // Iterations over the update's channels in must be equal, so they divide the tokens.
    let tokens = forward.out_channels;
    let serial = splits(forward.out_grains, n_tiles, |serial| {
        tokens.is_multiple_of(serial)
    });
    let over_time: Vec<Split> = serial
        .into_iter()
        .filter(|split| split.parallel == 1)
        .collect();
    let within = |tiles: u64| move |cut: &Cut| cut.parts <= tiles;
    let field_grains = forward.field.div_ceil(forward.field_grain);
    for groups in cuts(forward.group_grains).take_while(within(n_tiles)) {
        let tiles = n_tiles / groups.parts;
        for field in cuts(field_grains).take_while(within(tiles)) {
            let tiles = tiles / field.parts;
            for in_channels in cuts(forward.in_grains).take_while(within(tiles)) {
                for &out_channels in &over_time {
                    let splits = Splits {
                        groups: groups.parts,
                        field: field.parts,
                        in_channels: Split {
                            parallel: in_channels.parts,
                            serial: 1,
                        },
                        out_channels,
                        broadcast_input_before_loop: false,
                    };
                    best.offer(problems, splits);
                    if out_channels.serial > 1 {
                        best.offer(
                            problems,
                            Splits {
                                broadcast_input_before_loop: true,
                                ..splits
                            },
                        );
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ipu_sim::numerics::DType;
    use proptest::prelude::*;

    use super::super::tables;
    use super::super::tests::{gc200, options, shape};
    use super::*;

    fn joint_cycles(layer: &Layer) -> u64 {
        let plans = layer.joint.as_ref().unwrap();
        layer_cycles(plans.each_ref()).0
    }

    /// Half of the table's rows are exact. The others are up to 4.6 % below ours: the table
    /// states its sums, but not how its evaluation searched, and plans for them that keep
    /// the rules of this module don't exist. No reading that we tried explains them all:
    /// not whole memory elements, nor serial splits that don't divide the tokens, nor
    /// updates without the serial split. Apart is far better in every row, ours and theirs.
    #[test]
    fn trained_layers() {
        let mut n_exact = 0;
        for &(partials, sizes, expect) in tables::JOINT {
            let options = options(Pass::TrainingFwd, partials, 0.6);
            let layer = layer(&shape(sizes), &options, &gc200()).unwrap();
            let got = joint_cycles(&layer);
            let range = expect..=expect * 1047 / 1000;
            assert!(range.contains(&got), "{sizes:?}, {partials:?}: {got}");
            assert!(!layer.is_joint, "{sizes:?}, {partials:?}");
            n_exact += u32::from(got == expect);
        }
        assert_eq!(n_exact, 16);
    }

    /// A layer of few tokens, as the pooler's, has weights that aren't worth moving.
    #[test]
    fn few_tokens_are_planned_jointly() {
        let check = |sizes, partials, expect| {
            let options = options(Pass::TrainingFwd, partials, 0.25);
            let layer = layer(&shape(sizes), &options, &gc200()).unwrap();
            let separate = layer_cycles(layer.separate.each_ref()).0;
            let got = (separate, joint_cycles(&layer), layer.is_joint);
            assert_eq!(got, expect, "{sizes:?}, {partials:?}");
        };
        check([1, 8, 1024, 1024], DType::F16, (6735, 5766, true));
        check([1, 8, 1024, 1024], DType::F32, (7151, 8888, false));
        check([1, 8, 1024, 2], DType::F16, (2035, 4328, false));
    }

    /// Gradients must be of the operands' type.
    #[test]
    fn wider_results_are_planned_apart() {
        let options = PlanOptions {
            output: DType::F32,
            ..options(Pass::TrainingFwd, DType::F32, 0.6)
        };
        let layer = layer(&shape([1, 8, 1024, 1024]), &options, &gc200()).unwrap();
        assert_eq!((layer.joint, layer.is_joint), (None, false));
    }

    /// With little memory plans apart take to serial loops as well, and the joint one wins.
    #[test]
    fn short_of_memory() {
        let spec = TileSpec {
            tiles_per_ipu: 64,
            ..gc200()
        };
        let sizes = shape([1, 128, 256, 256]);
        let choose = |proportion| {
            let options = options(Pass::TrainingFwd, DType::F16, proportion);
            layer(&sizes, &options, &spec).unwrap()
        };
        assert!(!choose(0.6).is_joint);
        let tight = choose(0.01);
        assert!(tight.is_joint);
        let [forward, _, update] = tight.joint.unwrap();
        assert_eq!(forward.splits.out_channels.serial, 8);
        assert_eq!(update.splits.in_channels.serial, 8);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// What is chosen never takes more cycles within the same bound, nor a wider bound;
        /// all passes use the same tiles; and the cache has the same for every pass,
        /// whichever was asked for.
        #[test]
        fn the_better_way_is_chosen(
            sizes in (1u64..4, 1u64..100, 1u64..200, 1u64..200),
            n_tiles in 1u32..64,
            proportion in prop::sample::select(vec![0.0, 0.001, 0.01, 0.6]),
            asked in prop::sample::select(JointPass::ALL.to_vec()),
        ) {
            let spec = TileSpec { tiles_per_ipu: n_tiles, ..gc200() };
            let (groups, m, k, n) = sizes;
            let forward = shape([groups, m, k, n]);
            let options = options(Pass::TrainingFwd, DType::F16, proportion);
            let layer = layer(&forward, &options, &spec).unwrap();
            let separate = layer_cycles(layer.separate.each_ref());
            let bound = |plans: &[Plan; 3]| {
                let bounds = plans.each_ref().map(|plan| plan.memory_bound.map_or(u64::MAX, |b| b.0));
                bounds.into_iter().max()
            };
            if let (Some(joint), true) = (&layer.joint, proportion > 0.0) {
                let joint_first = (bound(joint), layer_cycles(joint.each_ref()));
                let better = joint_first <= (bound(&layer.separate), separate);
                prop_assert_eq!(layer.is_joint, better);
                let tiles: BTreeSet<u64> = joint.iter().map(|plan| plan.tiles).collect();
                prop_assert_eq!(tiles.len(), 1);
            }
            let chosen = match (layer.joint, layer.is_joint) {
                (Some(joint), true) => joint,
                _ => layer.separate,
            };
            let cache = super::super::PlanCache::new(spec);
            let request = |pass: JointPass| super::super::PlanRequest {
                shape: pass.product(&forward),
                options: PlanOptions { pass: pass.pass(), ..options },
            };
            cache.fill(&[request(asked)]).unwrap();
            for pass in JointPass::ALL {
                let kept = cache.get(&request(pass)).unwrap();
                prop_assert_eq!(&*kept, &chosen[pass as usize]);
            }
        }
    }
}

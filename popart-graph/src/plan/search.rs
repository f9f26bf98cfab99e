//! Which splits are best?
//!
//! A depth-first walk over the splits of groups, field, channels in and channels out.
//! Every way to cut a dimension is the smallest divisor that gives its quotient (PopLibs
//! constrains the divisor so), which leaves about `2*sqrt(n)` cuts of `n`. A branch is cut
//! off when a lower bound of its cycles exceeds the best plan so far, so the result is
//! that of an exhaustive walk. Equal plans are told apart by temporary bytes, then by
//! which came first.

use ipu_sim::cost::amp::InnerCycles;
use ipu_sim::units::{Bytes, Cycles};

use super::estimate::{Estimate, Limits};
use super::problem::Problem;
use super::{Plan, Split, Splits, TileWork};

/// What makes a plan best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objective {
    /// Fewest cycles, then least memory, within a bound on memory if there is one.
    Fastest { bound: Option<Bytes> },
    /// Least memory, then fewest cycles.
    Smallest,
}

impl Objective {
    /// The most temporary memory that a plan may take.
    pub(super) fn bound(self) -> Option<Bytes> {
        match self {
            Objective::Fastest { bound } => bound,
            Objective::Smallest => None,
        }
    }
}

/// The `count` best plans of all problems, the best first; fewer if fewer fit.
pub(super) fn best(problems: &[Problem], objective: Objective, count: usize) -> Vec<Plan> {
    walk(problems, objective, Pruning::LowerBounds, count)
}

/// Whether branches are cut off; the tests walk without, to prove that it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pruning {
    LowerBounds,
    #[cfg(test)]
    Nothing,
}

pub(super) fn walk(
    problems: &[Problem],
    objective: Objective,
    pruning: Pruning,
    count: usize,
) -> Vec<Plan> {
    let mut best = Best {
        objective,
        pruning,
        count,
        found: Vec::new(),
    };
    for (problem_idx, problem) in problems.iter().enumerate() {
        if best.may_beat(problem) {
            Walk::new(problem).run(problem_idx, &mut best);
        }
    }
    let plan = |found: Found| {
        let problem = &problems[found.problem_idx];
        Plan {
            swap_operands: problem.swap_operands,
            vertex: problem.vertex,
            splits: found.splits,
            tile_work: problem.tile_work(&found.splits),
            cost: found.estimate.cost,
            temporary: found.estimate.temporary,
            tiles: found.splits.tiles(),
            memory_bound: objective.bound(),
            joint: None,
        }
    };
    best.found.into_iter().map(plan).collect()
}

/// The best plans so far.
struct Best {
    objective: Objective,
    pruning: Pruning,
    /// How many to keep.
    count: usize,
    /// The best first.
    found: Vec<Found>,
}

struct Found {
    problem_idx: usize,
    splits: Splits,
    estimate: Estimate,
}

impl Best {
    /// What a plan must not exceed to be better than, or equal to, the last of the best so far.
    fn limits(&self) -> Limits {
        let mut limits = Limits {
            cycles: Cycles(u64::MAX),
            temporary: Bytes(u64::MAX),
        };
        if let Objective::Fastest { bound: Some(bound) } = self.objective {
            limits.temporary = bound;
        }
        let last = self.found.get(self.count - 1);
        if let (Some(found), Pruning::LowerBounds) = (last, self.pruning) {
            match self.objective {
                Objective::Fastest { .. } => limits.cycles = found.estimate.cost.total(),
                Objective::Smallest => limits.temporary = found.estimate.temporary,
            }
        }
        limits
    }

    /// What cuts a branch off that surely exceeds it.
    fn bounds(&self) -> Limits {
        match self.pruning {
            Pruning::LowerBounds => self.limits(),
            #[cfg(test)]
            Pruning::Nothing => Limits {
                cycles: Cycles(u64::MAX),
                temporary: Bytes(u64::MAX),
            },
        }
    }

    /// Whether a problem can have a plan within the limits: a bound on the vertex cycles of
    /// all tiles together leaves out most codelets that do little a cycle.
    fn may_beat(&self, problem: &Problem) -> bool {
        let n_tiles = u64::from(problem.spec.tiles_per_ipu);
        problem.fewest_tile_cycles().div_ceil(n_tiles) <= self.bounds().cycles.0
    }

    fn offer(&mut self, offered: Found) {
        let rank = |found: &Found| {
            let (cycles, bytes) = (found.estimate.cost.total().0, found.estimate.temporary.0);
            match self.objective {
                Objective::Fastest { .. } => (cycles, bytes),
                Objective::Smallest => (bytes, cycles),
            }
        };
        let place = self
            .found
            .partition_point(|held| rank(held) <= rank(&offered));
        if place < self.count {
            self.found.insert(place, offered);
            self.found.truncate(self.count);
        }
    }
}

/// The cuts of one problem.
struct Walk<'a> {
    problem: &'a Problem<'a>,
    n_tiles: u64,
    groups: Vec<Cut>,
    field: Vec<Cut>,
    in_channels: Vec<Split>,
    out_channels: Vec<Split>,
    /// Cycles of the vertex's passes, for every cut of the field.
    inner: Vec<InnerCycles>,
    rearranging: Rearranging,
}

/// The least that rearrangements take, which is with all tiles at work.
#[derive(Clone, Copy, Debug)]
struct Rearranging {
    /// Cycles of the input's, which may be rearranged before the serial loop.
    once: Cycles,
    /// Cycles of the rest, in every iteration.
    each: Cycles,
    /// Temporary bytes without a serial loop.
    temporary: Bytes,
    /// Temporary bytes with one.
    temporary_in_loop: Bytes,
}

impl Rearranging {
    fn of(problem: &Problem<'_>) -> Self {
        let one = Split {
            parallel: 1,
            serial: 1,
        };
        let all_tiles = Splits {
            groups: 1,
            field: u64::from(problem.spec.tiles_per_ipu),
            in_channels: one,
            out_channels: one,
            broadcast_input_before_loop: false,
        };
        let [input, weights, output] = problem.transforms(&all_tiles);
        let inside = weights.temporary.max(output.temporary) * 2;
        let sliced = problem.slices_of_weights(&all_tiles);
        Self {
            once: input.cycles(),
            each: weights.cycles() + output.cycles(),
            temporary: inside.max(input.temporary * 2),
            temporary_in_loop: sliced + sliced.max(inside),
        }
    }

    /// Whether so many iterations can be within the limits beside the vertex's `cycles`.
    fn may_suit(&self, limits: &Limits, cycles: Cycles, iterations: u64) -> bool {
        let temporary = match iterations {
            1 => self.temporary.min(self.temporary_in_loop),
            _ => self.temporary_in_loop,
        };
        cycles + self.once + self.each * iterations <= limits.cycles
            && temporary <= limits.temporary
    }
}

/// One cut of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) parts: u64,
    /// Size of the largest part.
    size: u64,
}

impl<'a> Walk<'a> {
    fn new(problem: &'a Problem<'a>) -> Self {
        let n_tiles = u64::from(problem.spec.tiles_per_ipu);
        let field: Vec<_> = cuts(problem.field)
            .take_while(|cut| cut.parts <= n_tiles)
            .collect();
        let inner = field
            .iter()
            .map(|cut| problem.vertex.inner(cut.size, problem.spec))
            .collect();
        // Iterations over channels in must be equal, so they divide the unpadded channels.
        let divides = |serial: u64| problem.in_channels.is_multiple_of(serial);
        Walk {
            problem,
            n_tiles,
            groups: cuts(problem.group_grains)
                .take_while(|cut| cut.parts <= n_tiles)
                .collect(),
            field,
            in_channels: splits(problem.in_grains, n_tiles, divides),
            out_channels: splits(problem.out_grains, n_tiles, |_| true),
            inner,
            rearranging: Rearranging::of(problem),
        }
    }

    fn run(&self, problem_idx: usize, best: &mut Best) {
        for groups in &self.groups {
            for (field_idx, field) in self.field.iter().enumerate() {
                let tiles = groups.parts * field.parts;
                if tiles > self.n_tiles {
                    break;
                }
                let branch = Branch {
                    groups: *groups,
                    field: *field,
                    inner: self.inner[field_idx],
                    n_tiles: self.n_tiles / tiles,
                };
                self.run_branch(problem_idx, &branch, best);
            }
        }
    }

    /// All plans with one cut of groups and field.
    fn run_branch(&self, problem_idx: usize, branch: &Branch, best: &mut Best) {
        let block = self.block_cycles(branch);
        let (in_grains, out_grains) = (self.problem.in_grains, self.problem.out_grains);
        let fewest_blocks = (in_grains * out_grains).div_ceil(branch.n_tiles);
        if !self
            .rearranging
            .may_suit(&best.bounds(), block * fewest_blocks, 1)
        {
            return;
        }
        for &in_channels in &self.in_channels {
            if in_channels.parallel > branch.n_tiles {
                continue;
            }
            let n_tiles = branch.n_tiles / in_channels.parallel;
            let in_groups = in_grains.div_ceil(in_channels.total());
            let in_blocks = in_channels.serial * in_groups;
            let fewest_blocks = in_blocks * out_grains.div_ceil(n_tiles);
            let smallest = TileWork {
                groups: branch.groups.size,
                field: branch.field.size,
                in_groups,
                out_groups: 1,
            };
            let limits = best.bounds();
            let iterations = in_channels.serial;
            if !self
                .rearranging
                .may_suit(&limits, block * fewest_blocks, iterations)
                || self.problem.vertex_bytes(&smallest) > limits.temporary
            {
                continue;
            }
            for &out_channels in &self.out_channels {
                let one_loop = in_channels.serial == 1 || out_channels.serial == 1;
                if out_channels.parallel > n_tiles || !one_loop {
                    continue;
                }
                let out_blocks = out_channels.serial * out_grains.div_ceil(out_channels.total());
                let iterations = in_channels.serial * out_channels.serial;
                let cycles = block * (in_blocks * out_blocks);
                if !self
                    .rearranging
                    .may_suit(&best.bounds(), cycles, iterations)
                {
                    continue;
                }
                self.try_splits(problem_idx, branch, [in_channels, out_channels], best);
            }
        }
    }

    /// The plans with these splits: inputs broadcast inside a serial loop, or before.
    fn try_splits(
        &self,
        problem_idx: usize,
        branch: &Branch,
        [in_channels, out_channels]: [Split; 2],
        best: &mut Best,
    ) {
        let can_broadcast_before = out_channels.serial > 1;
        for broadcast_input_before_loop in [false, true] {
            if broadcast_input_before_loop && !can_broadcast_before {
                continue;
            }
            let splits = Splits {
                groups: branch.groups.parts,
                field: branch.field.parts,
                in_channels,
                out_channels,
                broadcast_input_before_loop,
            };
            let limits = best.limits();
            if let Some(estimate) = self.problem.estimate(&splits, branch.inner, &limits) {
                best.offer(Found {
                    problem_idx,
                    splits,
                    estimate,
                });
            }
        }
    }

    /// Fewest cycles that one block of channels in and out takes on the tile.
    fn block_cycles(&self, branch: &Branch) -> Cycles {
        let vertex = &self.problem.vertex;
        vertex.block_min(branch.inner, self.problem.spec) * branch.groups.size
    }
}

/// Plans that share their cut of groups and field.
struct Branch {
    groups: Cut,
    field: Cut,
    inner: InnerCycles,
    /// Tiles for every part of both.
    n_tiles: u64,
}

/// Every useful cut of `size`, from one part up: the fewest parts of each largest size.
pub(super) fn cuts(size: u64) -> impl Iterator<Item = Cut> {
    let whole = Cut { parts: 1, size };
    std::iter::successors(Some(whole), move |cut| {
        let parts = size.div_ceil(cut.size.checked_sub(1).filter(|&s| s > 0)?);
        Some(Cut {
            parts,
            size: size.div_ceil(parts),
        })
    })
}

/// Every cut of `size` as parts over tiles times parts over time.
pub(super) fn splits(size: u64, n_tiles: u64, serial_allowed: impl Fn(u64) -> bool) -> Vec<Split> {
    let mut splits = Vec::new();
    for cut in cuts(size) {
        for serial in (1..=cut.parts.min(n_tiles)).filter(|s| cut.parts.is_multiple_of(*s)) {
            let parallel = cut.parts / serial;
            if parallel <= n_tiles && serial_allowed(serial) {
                splits.push(Split { parallel, serial });
            }
        }
    }
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_the_smallest_divisors() {
        let check = |size: u64, expect: &[u64]| {
            let parts: Vec<u64> = cuts(size).map(|cut| cut.parts).collect();
            assert_eq!(parts, expect, "{size}");
            for cut in cuts(size) {
                assert_eq!(cut.size, size.div_ceil(cut.parts));
                assert!(cut.parts == 1 || size.div_ceil(cut.parts - 1) > cut.size);
            }
        };
        check(1, &[1]);
        check(2, &[1, 2]);
        check(16, &[1, 2, 3, 4, 6, 8, 16]);
        check(17, &[1, 2, 3, 4, 5, 6, 9, 17]);
    }

    #[test]
    fn splits_over_time_divide_the_parts() {
        let got = splits(4, 2, |serial| serial != 4);
        let expect = [(1, 1), (2, 1), (1, 2), (2, 2)];
        let expect = expect.map(|(parallel, serial)| Split { parallel, serial });
        assert_eq!(got, expect);
    }
}

//! Memory over time: what lives at every step of an IPU, beside what always lives.
//!
//! Functions are walked where they are first called; a later call of the same function is
//! one point with the function's own maximum on top of what its caller holds. Repeats are
//! walked once. Every point is told apart by kinds of variables; a maximum has the kinds of the
//! moment that it is of.

use std::collections::BTreeMap;

use super::StepName;
use super::fullest::step_name;
use super::kinds::{LiveBytes, LiveKind};
use super::liveness::{Liveness, Routine, RoutineStep};
use super::sizes::Sizes;
use crate::ids::{IdVec, IpuId, TileId};
use crate::program::{FunctionId, Program, VarId};

/// Bytes of variables that live at one step, but not always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePoint {
    /// The step.
    pub step: StepName,
    /// On all tiles of the IPU.
    pub on_ipu: LiveBytes,
    /// On the tile that was asked for.
    pub on_tile: LiveBytes,
}

/// Bytes on the IPU and on one tile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Live {
    ipu: LiveBytes,
    tile: LiveBytes,
}

impl Live {
    fn plus(self, other: Self) -> Self {
        Self {
            ipu: self.ipu.plus(other.ipu),
            tile: self.tile.plus(other.tile),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            ipu: self.ipu.minus(other.ipu),
            tile: self.tile.minus(other.tile),
        }
    }

    /// The fuller moment of the IPU, and that of the tile, each with what is there then.
    fn max(self, other: Self) -> Self {
        Self {
            ipu: self.ipu.max(other.ipu),
            tile: self.tile.max(other.tile),
        }
    }
}

/// The curve of one IPU and one of its tiles, over the steps that concern the IPU.
pub(super) fn curve(
    program: &Program,
    kinds: &IdVec<VarId, LiveKind>,
    liveness: &Liveness,
    sizes: &Sizes,
    (ipu, tile): (IpuId, TileId),
) -> Vec<LivePoint> {
    let mut walk = Walk {
        program,
        kinds,
        liveness,
        sizes,
        ipu,
        tile,
        maxima: BTreeMap::new(),
        points: Vec::new(),
    };
    walk.frame(None, Live::default());
    walk.points
}

struct Walk<'a> {
    program: &'a Program,
    kinds: &'a IdVec<VarId, LiveKind>,
    liveness: &'a Liveness,
    sizes: &'a Sizes,
    ipu: IpuId,
    tile: TileId,
    /// What functions that were walked hold at most.
    maxima: BTreeMap<FunctionId, Live>,
    points: Vec<LivePoint>,
}

impl Walk<'_> {
    /// Walks a frame on top of `held`; what it holds itself at most.
    fn frame(&mut self, function: Option<FunctionId>, held: Live) -> Live {
        let frame = self.liveness.frame(function);
        let (mut begins, mut ends) = self.changes(frame);
        let mut now = Live::default();
        let mut most = Live::default();
        for (at, &step) in frame.steps.iter().enumerate() {
            let at = at as u32;
            now = now.plus(begins.remove(&at).unwrap_or_default());
            let inside = match step {
                RoutineStep::Step(_) => None,
                RoutineStep::Call(id) => Some((id, self.maxima.get(&id).copied())),
            };
            let during = match inside {
                None => now,
                Some((_, Some(maximum))) => now.plus(maximum),
                Some((id, None)) => {
                    let maximum = self.frame(Some(id), held.plus(now));
                    self.maxima.insert(id, maximum);
                    now.plus(maximum)
                }
            };
            most = most.max(during);
            let walked = matches!(inside, Some((_, None)));
            if !walked {
                let live = held.plus(during);
                self.points.push(LivePoint {
                    step: step_name(self.program, function, step),
                    on_ipu: live.ipu,
                    on_tile: live.tile,
                });
            }
            now = now.minus(ends.remove(&at).unwrap_or_default());
        }
        most
    }

    /// What begins and what ends at the steps of a frame.
    fn changes(&self, frame: &Routine) -> (BTreeMap<u32, Live>, BTreeMap<u32, Live>) {
        let (mut begins, mut ends) = (BTreeMap::new(), BTreeMap::new());
        let here = |live: &&super::liveness::Interval| self.program.vars[live.var].ipu == self.ipu;
        for interval in frame.live.iter().filter(here) {
            let tile = self.tile.0 as usize;
            let kind = self.kinds[interval.var];
            let size = Live {
                ipu: LiveBytes::of(kind, self.sizes.on_ipu(self.program, interval.var)),
                tile: LiveBytes::of(kind, self.sizes.on_tile(self.program, interval.var, tile)),
            };
            for (table, at) in [(&mut begins, interval.begin), (&mut ends, interval.end)] {
                let sum: &mut Live = table.entry(at).or_default();
                *sum = sum.plus(size);
            }
        }
        (begins, ends)
    }
}

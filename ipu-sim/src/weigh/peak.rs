//! The fullest moment of every tile.
//!
//! Frames are swept from callees to callers: values are added where they begin and
//! taken off where they end, and a call adds the callee's own peak for its duration.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use smallvec::SmallVec;

use super::kinds::LiveKind;
use super::liveness::{Interval, Liveness, Routine, RoutineStep};
use super::sizes::Sizes;
use crate::ids::{IdVec, IpuId};
use crate::program::{FunctionId, Program, VarId};
use crate::threads;

/// The fullest moment of the tiles of one IPU in one frame.
#[derive(Clone, Debug)]
pub(super) struct Peak {
    /// Bytes at that moment, by tile.
    pub(super) bytes: Vec<u64>,
    /// The step, by tile.
    at: Vec<u32>,
}

/// The peaks of every function on one IPU; `None` where it has nothing there.
pub(super) struct Peaks {
    functions: IdVec<FunctionId, Option<Peak>>,
    /// Of the program itself.
    pub(super) main: Option<Peak>,
}

/// The peaks on one IPU of the variables that `counts` picks there.
fn peaks(
    program: &Program,
    liveness: &Liveness,
    sizes: &Sizes,
    counts: &dyn Fn(VarId) -> bool,
) -> Peaks {
    let mut functions: IdVec<FunctionId, Option<Peak>> =
        program.functions.values().map(|_| None).collect();
    for &id in &liveness.order {
        functions[id] = sweep(program, &liveness.functions[id], sizes, counts, &functions);
    }
    let main = sweep(program, &liveness.main, sizes, counts, &functions);
    Peaks { functions, main }
}

/// The peaks of all IPUs, of the variables that `counts` picks.
pub(super) fn all_peaks(
    program: &Program,
    liveness: &Liveness,
    sizes: &Sizes,
    counts: &(dyn Fn(VarId) -> bool + Sync),
) -> IdVec<IpuId, Peaks> {
    let ipus: Vec<IpuId> = (0..program.n_ipus).map(IpuId).collect();
    let peaks = threads::map(&ipus, |&ipu| {
        let here = |var: VarId| program.vars[var].ipu == ipu && counts(var);
        peaks(program, liveness, sizes, &here)
    });
    peaks.into()
}

/// What changes at one step.
#[derive(Default)]
struct Change<'a> {
    begins: Vec<VarId>,
    ends: Vec<VarId>,
    callee: Option<&'a Peak>,
}

fn sweep(
    program: &Program,
    frame: &Routine,
    sizes: &Sizes,
    counts: &dyn Fn(VarId) -> bool,
    callees: &IdVec<FunctionId, Option<Peak>>,
) -> Option<Peak> {
    let mut changes: BTreeMap<u32, Change<'_>> = BTreeMap::new();
    for interval in frame.live.iter().filter(|live| counts(live.var)) {
        changes
            .entry(interval.begin)
            .or_default()
            .begins
            .push(interval.var);
        changes
            .entry(interval.end)
            .or_default()
            .ends
            .push(interval.var);
    }
    for (at, step) in frame.steps.iter().enumerate() {
        if let RoutineStep::Call(id) = step
            && let Some(peak) = &callees[*id]
        {
            changes.entry(at as u32).or_default().callee = Some(peak);
        }
    }
    if changes.is_empty() {
        return None;
    }
    let mut now = vec![0; sizes.n_tiles()];
    let mut peak = Peak {
        bytes: now.clone(),
        at: vec![0; now.len()],
    };
    for (at, change) in changes {
        for &var in &change.begins {
            sizes.add(program, var, &mut now);
        }
        if let Some(callee) = change.callee {
            let during = now.iter().zip(&callee.bytes).map(|(a, b)| a + b);
            peak.raise(at, during);
        } else if !change.begins.is_empty() {
            peak.raise(at, now.iter().copied());
        }
        for &var in &change.ends {
            sizes.take_off(program, var, &mut now);
        }
    }
    assert!(
        now.iter().all(|&left| left == 0),
        "every value that begins ends"
    );
    Some(peak)
}

impl Peak {
    fn raise(&mut self, at: u32, now: impl Iterator<Item = u64>) {
        for ((peak, step), now) in self.bytes.iter_mut().zip(&mut self.at).zip(now) {
            if now > *peak {
                *peak = now;
                *step = at;
            }
        }
    }
}

/// A step, and those of the functions called there: the frame, and the number in it.
type Path = SmallVec<[(Option<FunctionId>, u32); 4]>;

/// The step at which one tile is fullest: down from the program's own steps into calls.
pub(super) struct Moment<'a> {
    /// The function, none for the program itself, and the step there.
    pub(super) path: Vec<(Option<FunctionId>, RoutineStep)>,
    /// What is live then.
    pub(super) live: Vec<&'a Interval>,
}

impl Peaks {
    /// What every tile holds at its own fullest moment, by kind of variable and by tile: parts of
    /// the bytes of `main`. Tiles that are fullest at the same step are looked at together.
    pub(super) fn by_kind(
        &self,
        program: &Program,
        (ipu, kinds): (IpuId, &IdVec<VarId, LiveKind>),
        liveness: &Liveness,
        sizes: &Sizes,
    ) -> IndexMap<LiveKind, Vec<u64>> {
        let n_tiles = sizes.n_tiles();
        let empty = LiveKind::ALL.map(|kind| (kind, vec![0; n_tiles]));
        let mut parts = IndexMap::from(empty);
        let mut moments: BTreeMap<Path, Vec<usize>> = BTreeMap::new();
        for tile in 0..n_tiles {
            let path = self.path(liveness, tile);
            moments.entry(path).or_default().push(tile);
        }
        for (path, tiles) in moments {
            let live = live_at(liveness, &path).filter(|live| program.vars[live.var].ipu == ipu);
            for live in live {
                let part = &mut parts[&kinds[live.var]];
                for &tile in &tiles {
                    part[tile] += sizes.on_tile(program, live.var, tile);
                }
            }
        }
        if let Some(peak) = &self.main {
            for (tile, &all) in peak.bytes.iter().enumerate() {
                let sum: u64 = parts.values().map(|part| part[tile]).sum();
                assert_eq!(
                    sum, all,
                    "kinds of variables are parts of the fullest moment"
                );
            }
        }
        parts
    }

    /// The steps at which `tile` is fullest, from the program's own down into calls.
    fn path(&self, liveness: &Liveness, tile: usize) -> Path {
        let mut path = Path::new();
        let mut function = None;
        let mut next = self.main.as_ref();
        while let Some(peak) = next.filter(|peak| peak.bytes[tile] > 0) {
            let at = peak.at[tile];
            path.push((function, at));
            (function, next) = match liveness.frame(function).steps[at as usize] {
                RoutineStep::Step(_) => (None, None),
                RoutineStep::Call(id) => (Some(id), self.functions[id].as_ref()),
            };
        }
        path
    }

    /// When `tile` is fullest.
    pub(super) fn moment<'a>(&self, liveness: &'a Liveness, tile: usize) -> Moment<'a> {
        let path = self.path(liveness, tile);
        let steps = path.iter().map(|&(function, at)| {
            let frame = liveness.frame(function);
            (function, frame.steps[at as usize])
        });
        Moment {
            path: steps.collect(),
            live: live_at(liveness, &path).collect(),
        }
    }
}

/// What lives at the steps of a path.
fn live_at<'a>(liveness: &'a Liveness, path: &Path) -> impl Iterator<Item = &'a Interval> {
    path.iter().flat_map(|&(function, at)| {
        let live = liveness.frame(function).live.iter();
        live.filter(move |live| live.begin <= at && at <= live.end)
    })
}

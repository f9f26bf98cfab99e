//! What bounds a cycle of the pipeline, and what another placement would win.
//!
//! All IPUs of a replica meet at the copies that end a pipeline cycle; the one that comes last
//! bounds it, and how long another one waits there is its slack. Estimates of other placements
//! move work between IPUs and leave everything else as it is; they don't look at memory.

use std::collections::BTreeMap;

use ipu_sim::engine::{Join, Timeline, WaitCause};
use ipu_sim::ids::{Id, IdVec, IpuId};
use ipu_sim::program::Program;
use ipu_sim::units::Cycles;
use popart_graph::ir::{Part, PartKind};
use popart_graph::profile::{LineKind, Profile, Section};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IpuCycles, StagePlacement, part};

/// The pipeline cycles in which every stage has work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pipeline {
    /// Number of pipeline cycles in a step in which every stage has work.
    pub cycles: u64,
    /// Mean length of one.
    pub length: Cycles,
    /// Number of pipeline cycles that an IPU bounds, coming last; by IPU.
    pub bounds: Vec<u64>,
    /// Mean cycles in a pipeline cycle that an IPU waits for the last; by IPU.
    pub slack: Vec<Cycles>,
    /// Share of the step that the same work would save, spread evenly over the IPUs: no placement
    /// wins more.
    pub win_if_even: f64,
    /// Part of the encoder that a move takes: whole layers where those are placed, else halves.
    pub movable: Movable,
    /// The encoder layer, or half layer, whose move to another IPU would win most, if one would
    /// win anything.
    pub best_move: Option<LayerMove>,
}

/// The least of the encoder that a placement can move by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Movable {
    /// A layer.
    #[default]
    Layer,
    /// The attention or the feed-forward half of a layer.
    HalfLayer,
}

/// Move of an encoder layer, or half of one, to another IPU; IPUs between the two pass one on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LayerMove {
    /// IPU that gives it away.
    pub from: u32,
    /// IPU that takes it.
    pub to: u32,
    /// Share of the step that it would save.
    pub win: f64,
}

impl Pipeline {
    /// `None` for programs without a pipeline.
    pub(super) fn of(
        (program, profile): (&Program, &Profile),
        timeline: &Timeline,
        placement: &StagePlacement,
        ipus: &[IpuCycles],
    ) -> Option<Self> {
        let main = profile.section(Section::Main)?;
        let mut joins: BTreeMap<IpuId, u64> = BTreeMap::new();
        let ends = |join: &Join| {
            join.section == Some(main)
                && profile.lines[join.source].kind == LineKind::PipelineCopies
        };
        for (join, &times) in timeline.joins.iter().filter(|(join, _)| ends(join)) {
            *joins.entry(join.last).or_default() += times;
        }
        let cycles: u64 = joins.values().sum();
        if cycles == 0 {
            return None;
        }
        let spent = timeline.sections[main].values().map(|spent| spent.total());
        let length = Cycles(spent.max()?.0 / cycles);
        let slack: Vec<Cycles> = ipus
            .iter()
            .map(|ipu| {
                let in_main = timeline.waits.iter().filter(|(wait, _)| {
                    let for_ipu = matches!(wait.on, WaitCause::Ipu(_));
                    wait.ipu == IpuId(ipu.ipu) && wait.section == Some(main) && for_ipu
                });
                Cycles(in_main.map(|(_, waited)| waited.0).sum::<u64>() / cycles)
            })
            .collect();
        let share = |saved: f64| saved * cycles as f64 / timeline.total.0 as f64;
        let total: u64 = slack.iter().map(|slack| slack.0).sum();
        let loads: Vec<u64> = slack.iter().map(|slack| length.0 - slack.0).collect();
        Some(Self {
            bounds: ipus
                .iter()
                .map(|ipu| joins.get(&IpuId(ipu.ipu)).copied().unwrap_or(0))
                .collect(),
            win_if_even: share(total as f64 / slack.len() as f64),
            movable: placement.movable,
            best_move: best_move(
                &loads,
                &movable_parts(program, profile, timeline, placement),
            )
            .map(|found| LayerMove {
                win: share(found.win),
                ..found
            }),
            cycles,
            length,
            slack,
        })
    }
}

/// What each of the parts that a model has several of, as layers are, or each of what is in those,
/// as their halves, takes of every IPU in a micro-batch.
fn movable_parts(
    program: &Program,
    profile: &Profile,
    timeline: &Timeline,
    placement: &StagePlacement,
) -> Vec<IdVec<IpuId, u64>> {
    let parts = profile.parts.iter();
    let is_repeated = |part: &Part| part.kind == PartKind::Repeated;
    let movable = parts.filter(|(_, part)| match placement.movable {
        Movable::Layer => is_repeated(part),
        Movable::HalfLayer => part
            .within
            .is_some_and(|id| is_repeated(&profile.parts[id])),
    });
    let cycles = movable.map(|(id, _)| {
        let causes = part::cycles(program, profile, timeline, id);
        let of_ipus = causes.values();
        of_ipus
            .map(|causes| super::per_micro_batch(causes, placement))
            .collect()
    });
    cycles.collect()
}

/// The best move of one of `layers` between IPUs that are busy for `loads` of a cycle; its win in
/// cycles of one pipeline cycle.
fn best_move(loads: &[u64], layers: &[IdVec<IpuId, u64>]) -> Option<LayerMove> {
    let longest = *loads.iter().max()?;
    let mut best: Option<LayerMove> = None;
    for from in 0..loads.len() {
        let sizes = layers.iter().map(|layer| layer[IpuId::from_index(from)]);
        let Some(layer) = sizes.max() else { continue };
        for to in (0..loads.len()).filter(|&to| to != from) {
            let after = loads.iter().enumerate().map(|(at, &load)| match at {
                _ if at == from => load.saturating_sub(layer),
                _ if at == to => load + layer,
                _ => load,
            });
            let saved = longest.saturating_sub(after.max().unwrap_or(longest));
            let more = best.as_ref().is_none_or(|best| saved as f64 > best.win);
            if saved > 0 && more {
                best = Some(LayerMove {
                    from: from as u32,
                    to: to as u32,
                    win: saved as f64,
                });
            }
        }
    }
    best
}

//! A program reduced to what its time depends on.
//!
//! Every step becomes a [`Leaf`]: the IPUs it joins, the cycles it then takes, and what it moves
//! beyond them. Repeats and calls stay as they are, so a schedule is as short as its program.
//!
//! `link` then turns the steps around.

use smallvec::SmallVec;

use super::timeline::{Activity, Channel, ConstantUsage, ProductFlops};
use crate::collective::{RoundId, Rounds};
use crate::ids::{IdVec, IpuId};
use crate::network::{Network, RouteId};
use crate::program::{FunctionId, SectionId, SourceId, StreamId};
use crate::topology::HostDirection;
use crate::units::{Bytes, Cycles};

/// The ends of a route beyond an IPU, the same for all replicas: an index of [`Schedule::routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndsId(pub(super) u32);

/// Who meets at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// IPUs of a replica.
    Replica,
    /// The same IPUs of all replicas.
    AllReplicas,
}

/// A transfer of one step over one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moving {
    /// The ends of its route.
    pub(super) ends: EndsId,
    /// How much.
    pub(super) bytes: Bytes,
    /// The stream whose buffer it empties (in) or fills (out).
    pub(super) stream: Option<(StreamId, HostDirection)>,
}

/// One step: all its IPUs wait for the last one, spend the same cycles, and wait for what moves.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Leaf {
    /// Where it comes from.
    pub(super) source: SourceId,
    /// Who takes part, in order.
    pub(super) ipus: SmallVec<[IpuId; 2]>,
    /// In which replicas.
    pub(super) scope: Scope,
    /// What it takes before anything moves.
    pub(super) spends: SmallVec<[(Activity, Cycles); 2]>,
    /// What it computes in matrix products.
    pub(super) products: ProductFlops,
    /// What then moves, all at once.
    pub(super) moving: SmallVec<[Moving; 1]>,
    /// What waiting for it counts as.
    pub(super) waiting: Activity,
    /// What it moves, for the tally.
    pub(super) moves: SmallVec<[(Channel, Bytes); 1]>,
    /// Rounds of a collective, and how often each happens.
    pub(super) rounds: Vec<(RoundId, u32)>,
    /// What each of its IPUs pays for by the piece, but for what moves.
    pub(super) usage: ConstantUsage,
}

/// One step of a schedule.
#[expect(clippy::large_enum_variant, reason = "nearly all steps are leaves")]
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Timed {
    /// A step that takes time.
    Leaf(Leaf),
    /// Steps a number of times.
    Repeat {
        /// How often.
        count: u32,
        /// What.
        body: Vec<Timed>,
    },
    /// The steps of a function.
    Call(FunctionId),
    /// What follows belongs to this section.
    Section(SectionId),
}

/// A stream between host and device, with the buffer beside the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    /// Elements that the buffer holds; without any, each is fetched when it is asked for.
    pub(super) depth: u32,
    /// Time for the host to answer.
    pub(super) latency: Cycles,
    /// Between host and buffer; none if the stream is unused.
    pub(super) buffer: Option<Buffer>,
}

/// What passes between a host and a buffer beside the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) ends: EndsId,
    /// One element.
    pub(super) bytes: Bytes,
    pub(super) direction: HostDirection,
    /// Whose gateway holds it.
    pub(super) ipu: IpuId,
}

/// What the time of a program depends on, before it is linked.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    pub(super) n_ipus: u32,
    pub(super) n_sources: usize,
    pub(super) n_sections: usize,
    /// Classes of replicas that may run at different times.
    pub(super) n_classes: u32,
    /// What the host takes to start the run.
    pub(super) start: Cycles,
    pub(super) network: Network,
    /// Links of the machine.
    pub(super) n_bundles: usize,
    /// Those of the longest route.
    pub(super) route_max: usize,
    /// What moves in the rounds of collectives.
    pub(super) rounds: Rounds,
    /// By class of replicas and [`EndsId`]; none where a route has no links.
    pub(super) routes: Vec<Vec<Option<RouteId>>>,
    pub(super) streams: IdVec<StreamId, Stream>,
    pub(super) functions: IdVec<FunctionId, Vec<Timed>>,
    pub(super) steps: Vec<Timed>,
}

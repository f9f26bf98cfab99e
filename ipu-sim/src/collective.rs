//! How do replicas sum and gather tensors, and what goes over which link?
//!
//! Each IPU of a replica holds its part of a tensor and meets the IPUs with the same part in all
//! other replicas. A collective is a list of [`Round`]s: a sync, copies between neighbours on a ring
//! of replicas, and, where sums are made, additions on the tiles. The copies are transfers on the
//! real links, all at once, and meet there as any others do.
//!
//! ```text
//! reduce-scatter   R replicas, fragments of bytes / R; every replica sends R - 1 of them
//!   clockwise          R - 1 rounds:      one fragment to the next
//!   both ways          R - 1 rounds:      half a fragment to either side
//!   meet in the middle R / 2 rounds:      a fragment to either side, in the last to one if R is even
//! all-gather       the same backwards, without additions
//! all-reduce       one after the other
//! ```
//!
//! Across racks the replicas of a rack first reduce and scatter among themselves, then each shard
//! meets its like in the other racks through all gateways at once, and the rack gathers again.
//!
//! Sources: step structure, ring orders and the choice of [`Method`] are those of the collectives
//! that PopLibs held until they moved to GCL (`CollectivesProgram.hpp`, and its thresholds, which
//! were found by experiment on Mk1). That racks are a level of their own is assumed.
//!
//! Left out: quad-directional rings, which need a barley-twist torus; splitting a step on a torus
//! into exchanges of even and odd replicas, which keeps the links as busy and adds a sync; the
//! switch that picks a fragment, some tens of cycles.

mod level;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::cost::sync::sync_global;
use crate::define_ids;
use crate::ids::{IdVec, IpuId, ReplicaId};
use crate::network::flows::ends_together;
use crate::network::{Fold, Latency, Network, RouteId};
use crate::program::CollectiveKind;
use crate::replica::ReplicaPlacement;
use crate::spec::MachineSpec;
use crate::topology::{BundleId, Topology};
use crate::units::{Bytes, Cycles};
use level::{Level, levels};

/// How replicas on a ring pass fragments on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Whole fragments in one direction.
    Clockwise,
    /// Two rings of half fragments, one in each direction.
    BidirectionalPair,
    /// Whole fragments in both directions until they meet.
    MeetInTheMiddle,
}

/// One direction of a collective: sums going together, or shards going apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RingPass {
    /// Every replica ends with its shard of the sum.
    ReduceScatter,
    /// Every replica ends with all shards.
    AllGather,
}

impl RingPass {
    /// Passes around the ring that a collective consists of; none where no replica needs another.
    #[must_use]
    pub fn of(kind: CollectiveKind) -> &'static [Self] {
        match kind {
            CollectiveKind::AllReduce => &[Self::ReduceScatter, Self::AllGather],
            CollectiveKind::ReduceScatter => &[Self::ReduceScatter],
            CollectiveKind::AllGather => &[Self::AllGather],
            CollectiveKind::TakeShard => &[],
        }
    }
}

/// Bytes that each replica sends to its two neighbours on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighbourBytes {
    /// Bytes to the next.
    pub next: Bytes,
    /// Bytes to the one before.
    pub previous: Bytes,
}

/// Equal rounds of a collective, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Number of such rounds.
    pub times: u32,
    /// Bytes that each replica sends in a round.
    pub sends: NeighbourBytes,
    /// Whether what arrives is added.
    pub adds: bool,
}

/// The method for `bytes` on each IPU.
///
/// `closed` says that the last replica is a neighbour of the first, as on a torus.
#[must_use]
pub fn method(
    phase: RingPass,
    bytes: Bytes,
    n_replicas: u32,
    ipus_per_replica: u32,
    closed: bool,
) -> Method {
    if ipus_per_replica > 1 {
        return if closed && n_replicas > 2 {
            Method::MeetInTheMiddle
        } else {
            Method::Clockwise
        };
    }
    let threshold = match n_replicas {
        0..=2 => return Method::Clockwise,
        3..=4 => 622_592,
        5..=8 => 2_490_368,
        9..=16 => 19_922_944,
        _ => return Method::MeetInTheMiddle,
    };
    // A reduce-scatter of twice the bytes has fragments that are worth halving.
    let threshold = match phase {
        RingPass::AllGather => threshold,
        RingPass::ReduceScatter => 2 * threshold,
    };
    if bytes.0 >= threshold {
        Method::BidirectionalPair
    } else {
        Method::MeetInTheMiddle
    }
}

/// The rounds in which `bytes` on each IPU go around a ring of `n_replicas`.
#[must_use]
pub fn rounds(
    phase: RingPass,
    method: Method,
    bytes: Bytes,
    n_replicas: u32,
) -> SmallVec<[Round; 2]> {
    let fragment = bytes.share(u64::from(n_replicas));
    let steps = n_replicas - 1;
    let round = |times, next, previous| Round {
        times,
        sends: NeighbourBytes { next, previous },
        adds: phase == RingPass::ReduceScatter,
    };
    let mut rounds: SmallVec<[Round; 2]> = match method {
        Method::Clockwise => [round(steps, fragment, Bytes::ZERO)].into_iter().collect(),
        Method::BidirectionalPair => {
            let half = fragment.share(2);
            [round(steps, half, fragment - half)].into_iter().collect()
        }
        Method::MeetInTheMiddle => {
            let both = round(steps / 2, fragment, fragment);
            let one = round(steps % 2, fragment, Bytes::ZERO);
            [both, one].into_iter().collect()
        }
    };
    if phase == RingPass::AllGather {
        rounds.reverse();
    }
    rounds.retain(|round| round.times > 0);
    rounds
}

/// Cycles and bytes of a collective.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectiveCost {
    /// Syncs and copies.
    pub links: Cycles,
    /// Cycles of bytes on links, a part of `links`.
    pub copies: Cycles,
    /// Cycles of the latency of first links, a part of `links`, however few bytes there are.
    pub latency: Cycles,
    /// The latency of further links of a route.
    pub latency_hops: Cycles,
    /// How often syncs and copies wait for the latency of a gateway.
    pub gateways: u64,
    /// Additions.
    pub adds: Cycles,
    /// Bytes that one replica sends.
    pub sent: Bytes,
    /// Rounds of the collective: the number of the traffic of each, and how often it happens.
    pub rounds: Vec<(RoundId, u32)>,
}

define_ids! {
    /// Rounds with equal traffic.
    RoundId, "round ";
}

/// The number of a network, and what each of its routes moves in a round.
type RoundTraffic = (usize, Vec<(RouteId, Bytes)>);

/// Transfers in rounds of collectives.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    networks: Vec<Network>,
    /// By round: the network, and what each of its routes moves.
    transfers: IdVec<RoundId, RoundTraffic>,
}

impl Rounds {
    /// Numbers of all rounds.
    pub fn ids(&self) -> impl Iterator<Item = RoundId> {
        self.transfers.ids()
    }

    /// Bytes that links of the machine carry if every round happens so many times, of all replicas
    /// together. A link may be there more than once.
    #[must_use]
    pub fn loads(&self, times: &IdVec<RoundId, u64>) -> Vec<(BundleId, Bytes)> {
        let routes = self.networks.iter().map(|network| &network.routes);
        let mut sums: Vec<IdVec<RouteId, Bytes>> = routes
            .map(|routes| routes.ids().map(|_| Bytes::ZERO).collect())
            .collect();
        for (round, (network, transfers)) in self.transfers.iter() {
            for &(route, bytes) in transfers {
                sums[*network][route] += bytes * times[round];
            }
        }
        let sums = self.networks.iter().zip(sums);
        sums.flat_map(|(network, sums)| {
            let carried = sums.iter().map(|(route, &bytes)| (route, bytes));
            network.loads(&carried.collect::<Vec<_>>())
        })
        .collect()
    }
}

/// One kind of round.
#[derive(Clone, Copy, Debug)]
struct Known {
    copied: Copied,
    id: RoundId,
}

/// Sync and copies of one round.
#[derive(Clone, Copy, Debug)]
struct Copied {
    cycles: Cycles,
    last: Arrival,
    /// How many gateways its sync passes, there and back.
    sync_gateways: u32,
}

/// What arrives last in a round.
#[derive(Clone, Copy, Debug, Default)]
struct Arrival {
    /// When its last byte has left.
    bytes: Cycles,
    /// The latency of its route.
    latency: Latency,
}

/// Collectives of the replicas of one program.
pub struct Collectives<'a> {
    placement: ReplicaPlacement,
    topology: &'a Topology,
    machine: &'a MachineSpec,
    fold: Fold,
    levels: Vec<Level>,
    /// Rounds that are known: level, what the IPUs send.
    known: BTreeMap<(usize, Vec<(IpuId, NeighbourBytes)>), Known>,
    /// What moves in one round.
    transfers: IdVec<RoundId, RoundTraffic>,
    n_traffic: usize,
}

impl<'a> Collectives<'a> {
    /// Replicas as they lie on a machine.
    #[must_use]
    pub fn new(
        placement: ReplicaPlacement,
        topology: &'a Topology,
        machine: &'a MachineSpec,
        fold: Fold,
    ) -> Self {
        Self {
            placement,
            topology,
            machine,
            fold,
            levels: levels(&placement, topology),
            known: BTreeMap::new(),
            transfers: IdVec::new(),
            n_traffic: 0,
        }
    }

    /// Transfers of the rounds that collectives have had so far.
    #[must_use]
    pub fn into_rounds(self) -> Rounds {
        let levels = self.levels.into_iter();
        let mut traffic: Vec<level::Traffic> = levels.flat_map(Level::into_traffic).collect();
        traffic.sort_by_key(|traffic| traffic.number);
        Rounds {
            networks: traffic.into_iter().map(|traffic| traffic.network).collect(),
            transfers: self.transfers,
        }
    }

    /// Time and traffic of a collective of so many bytes on some IPUs of every replica.
    ///
    /// `add` gives the cycles in which an IPU adds up one of so many parts of what it holds. The
    /// IPUs work side by side; each round takes as long as the slowest.
    pub fn take(
        &mut self,
        kind: CollectiveKind,
        bytes: &BTreeMap<IpuId, Bytes>,
        add: &mut dyn FnMut(IpuId, u64) -> Cycles,
    ) -> CollectiveCost {
        let mut taken = CollectiveCost::default();
        for &phase in RingPass::of(kind) {
            let mut left = bytes.clone();
            let mut parts = 1;
            for level in 0..self.levels.len() {
                parts *= u64::from(self.levels[level].n_replicas());
                self.take_level(phase, level, &left, parts, add, &mut taken);
                let n = u64::from(self.levels[level].n_replicas());
                left.values_mut().for_each(|bytes| *bytes = bytes.share(n));
            }
        }
        taken
    }

    fn take_level(
        &mut self,
        phase: RingPass,
        level: usize,
        bytes: &BTreeMap<IpuId, Bytes>,
        parts: u64,
        add: &mut dyn FnMut(IpuId, u64) -> Cycles,
        taken: &mut CollectiveCost,
    ) {
        let (n, closed) = (self.levels[level].n_replicas(), self.levels[level].closed);
        let most = bytes.values().copied().max().unwrap_or(Bytes::ZERO);
        let method = method(phase, most, n, self.placement.ipus_per_replica, closed);
        let by_ipu: Vec<(IpuId, SmallVec<[Round; 2]>)> = bytes
            .iter()
            .map(|(&ipu, &bytes)| (ipu, rounds(phase, method, bytes, n)))
            .collect();
        let Some((_, shape)) = by_ipu.first() else {
            return;
        };
        for (number, round) in shape.iter().enumerate() {
            let sends: Vec<(IpuId, NeighbourBytes)> = by_ipu
                .iter()
                .map(|(ipu, rounds)| (*ipu, rounds[number].sends))
                .collect();
            for (_, sends) in &sends {
                taken.sent += (sends.next + sends.previous) * u64::from(round.times);
            }
            if round.adds {
                // Fragments that arrive from either side are added one after the other.
                let arrivals = 1 + u64::from(
                    method == Method::MeetInTheMiddle && sends[0].1.previous > Bytes::ZERO,
                );
                let slowest = sends.iter().map(|&(ipu, _)| add(ipu, parts)).max();
                taken.adds += slowest.unwrap_or(Cycles::ZERO) * (arrivals * u64::from(round.times));
            }
            let (cycles, Known { copied, id }) = self.repeated(level, sends, round.times);
            let (last, times) = (copied.last, u64::from(round.times));
            taken.links += cycles;
            taken.copies += last.bytes * times;
            taken.latency += last.latency.link * times;
            taken.latency_hops += last.latency.hops * times;
            taken.gateways += u64::from(copied.sync_gateways + last.latency.gateways) * times;
            taken.rounds.push((id, round.times));
        }
    }

    /// So many equal rounds: the cycles of all, and what is known of each.
    fn repeated(
        &mut self,
        level: usize,
        sends: Vec<(IpuId, NeighbourBytes)>,
        times: u32,
    ) -> (Cycles, Known) {
        let key = (level, sends);
        if !self.known.contains_key(&key) {
            let (copied, traffic) = self.round(level, &key.1);
            let id = self.transfers.push(traffic);
            self.known.insert(key.clone(), Known { copied, id });
        }
        let known = self.known[&key];
        let cycles = match self.fold {
            Fold::Alike => known.copied.cycles * u64::from(times),
            Fold::Nothing => (0..times).map(|_| self.round(level, &key.1).0.cycles).sum(),
        };
        (cycles, known)
    }

    /// What one round takes and moves.
    fn round(&mut self, level: usize, sends: &[(IpuId, NeighbourBytes)]) -> (Copied, RoundTraffic) {
        let sides = Sides::of(sends);
        let (placement, topology, machine) = (self.placement, self.topology, self.machine);
        let ring = &self.levels[level].rings[0];
        let ipus: Vec<IpuId> = ring
            .iter()
            .flat_map(|&replica| placement.ipus(replica))
            .collect();
        let sync = sync_global(&ipus, topology, machine);
        let fold = self.fold;
        let number = &mut self.n_traffic;
        let traffic = self.levels[level].traffic(&sides, |rings| {
            *number += 1;
            level::Traffic::new(
                *number - 1,
                rings,
                &sides,
                &placement,
                topology,
                machine.tile.clock,
                fold,
            )
        });
        let transfers: Vec<_> = traffic
            .routes
            .iter()
            .map(|route| {
                let (_, sends) = sends
                    .iter()
                    .find(|(ipu, _)| *ipu == route.ipu)
                    .expect("it sends");
                (
                    route.id,
                    if route.to_next {
                        sends.next
                    } else {
                        sends.previous
                    },
                )
            })
            .collect();
        let ends = ends_together(&traffic.network, &transfers);
        let arrivals = ends.iter().zip(&transfers).map(|(&bytes, (route, _))| {
            let route = &traffic.network.routes[*route];
            Arrival {
                bytes,
                latency: route.latency,
            }
        });
        let last = arrivals.max_by_key(|arrival| arrival.bytes + arrival.latency.total);
        let last = last.unwrap_or_default();
        let copied = Copied {
            cycles: sync + last.bytes + last.latency.total,
            last,
            sync_gateways: 2 * topology.sync_racks(ipus.iter().copied()),
        };
        (copied, (traffic.number, transfers))
    }
}

/// Which IPUs send, and to which sides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sides(Vec<(IpuId, bool, bool)>);

impl Sides {
    fn of(sends: &[(IpuId, NeighbourBytes)]) -> Self {
        // A tensor of no bytes still meets its neighbour.
        let sides = sends.iter().map(|&(ipu, sends)| {
            let both = sends.previous > Bytes::ZERO;
            (ipu, true, both)
        });
        Self(sides.collect())
    }
}

/// Replicas of a ring, in its order.
type RingOrder = Vec<ReplicaId>;

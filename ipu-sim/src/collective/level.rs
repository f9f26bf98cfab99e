//! Rings of replicas, level by level, and the routes of their copies.

use std::collections::BTreeMap;

use super::{RingOrder, Sides};
use crate::ids::{IpuId, ReplicaId};
use crate::network::partition::OwnedRoute;
use crate::network::{Fold, Network, RouteId};
use crate::replica::ReplicaPlacement;
use crate::topology::Topology;
use crate::units::Hertz;

/// Equal rings that work at the same time.
pub(super) struct Level {
    pub(super) rings: Vec<RingOrder>,
    /// Whether the last replica is a neighbour of the first.
    pub(super) closed: bool,
    known: BTreeMap<Sides, Traffic>,
}

impl Level {
    pub(super) fn n_replicas(&self) -> u32 {
        u32::try_from(self.rings[0].len()).expect("as many as there are replicas")
    }

    /// The routes of all its rounds.
    pub(super) fn into_traffic(self) -> impl Iterator<Item = Traffic> {
        self.known.into_values()
    }

    /// The routes of one kind of round, worked out once.
    pub(super) fn traffic(
        &mut self,
        sides: &Sides,
        new: impl FnOnce(&[RingOrder]) -> Traffic,
    ) -> &Traffic {
        let rings = &self.rings;
        self.known
            .entry(sides.clone())
            .or_insert_with(|| new(rings))
    }
}

/// The levels of a placement: rings inside the racks, then rings across them if there are several.
///
/// No level for a single replica. Replicas that don't fill whole racks evenly form one ring.
pub(super) fn levels(placement: &ReplicaPlacement, topology: &Topology) -> Vec<Level> {
    let n_replicas = placement.n_replicas;
    let in_rack = (topology.ipus_per_rack() / placement.ipus_per_replica).clamp(1, n_replicas);
    let in_rack = if n_replicas.is_multiple_of(in_rack) {
        in_rack
    } else {
        n_replicas
    };
    let across = n_replicas / in_rack;
    let members = |first: u32, stride: u32, len: u32| -> Vec<ReplicaId> {
        (0..len).map(|n| ReplicaId(first + n * stride)).collect()
    };
    // A part of a torus is a ladder.
    let fills_rack = in_rack * placement.ipus_per_replica == topology.ipus_per_rack();
    let inside = (0..across).map(|rack| members(rack * in_rack, 1, in_rack));
    let outside = (0..in_rack).map(|first| members(first, in_rack, across));
    let levels = [
        (
            inside.collect::<Vec<_>>(),
            fills_rack && topology.is_torus(),
        ),
        (outside.collect(), across > 2),
    ];
    let used = levels.into_iter().filter(|(rings, _)| rings[0].len() > 1);
    used.map(|(rings, closed)| Level {
        rings: rings
            .iter()
            .map(|ring| ring_order(ring, placement.ipus_per_replica))
            .collect(),
        closed,
        known: BTreeMap::new(),
    })
    .collect()
}

/// Replicas of one IPU go up one rail and down the other (0, 2, 4, 6, 7, 5, 3, 1), so that every
/// step is one hop; larger ones keep their order.
pub(super) fn ring_order(members: &[ReplicaId], ipus_per_replica: u32) -> Vec<ReplicaId> {
    if ipus_per_replica > 1 {
        return members.to_vec();
    }
    let up = members.iter().step_by(2);
    let down = members.iter().skip(1).step_by(2).rev();
    up.chain(down).copied().collect()
}

/// What one IPU sends to one side: on one route, or on several where its replicas lie differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RoundRoute {
    pub(super) id: RouteId,
    pub(super) ipu: IpuId,
    pub(super) to_next: bool,
}

/// The routes of a round.
pub(super) struct Traffic {
    /// Counts the kinds of rounds of a placement.
    pub(super) number: usize,
    pub(super) network: Network,
    pub(super) routes: Vec<RoundRoute>,
}

impl Traffic {
    pub(super) fn new(
        number: usize,
        rings: &[RingOrder],
        sides: &Sides,
        placement: &ReplicaPlacement,
        topology: &Topology,
        clock: Hertz,
        fold: Fold,
    ) -> Self {
        let mut owned = Vec::new();
        let mut senders = Vec::new();
        for ring in rings {
            let next = ring.iter().cycle().skip(1);
            for (&here, &next) in ring.iter().zip(next) {
                for (position, &(ipu, ..)) in sides.0.iter().enumerate() {
                    let both = sides.0[position].2;
                    let hops = [
                        (here, next, true, sides.0[position].1),
                        (next, here, false, both),
                    ];
                    for (from, to, to_next, _) in hops.into_iter().filter(|hop| hop.3) {
                        owned.push(OwnedRoute {
                            label: 2 * u32::try_from(position).expect("few IPUs")
                                + u32::from(to_next),
                            owner: 0,
                            bundles: topology
                                .route(placement.ipu(from, ipu), placement.ipu(to, ipu)),
                        });
                        senders.push((ipu, to_next));
                    }
                }
            }
        }
        let (network, partition) = Network::new(&owned, topology, clock, fold);
        let mut routes: Vec<RoundRoute> = partition
            .routes
            .iter()
            .zip(senders)
            .map(|(&id, (ipu, to_next))| RoundRoute { id, ipu, to_next })
            .collect();
        routes.sort_unstable();
        routes.dedup();
        Self {
            number,
            network,
            routes,
        }
    }
}

//! How long do collectives of replicated tensors take?
//!
//! Each IPU of a replica holds its part of a tensor and meets the IPUs with the same part in all
//! other replicas. They pass fragments around a ring of replicas, in both directions at once: half
//! of the tensor clockwise and half anticlockwise. All IPUs of all replicas do so together, so
//! that the links decide; [`rings`] reads the rate off the routes of one such step.
//!
//! ```text
//! reduce-scatter   R - 1 steps of bytes / R : sync, copy to the neighbours (add: not charged here)
//! all-gather       the same
//! all-reduce       one after the other
//! ```
//!
//! Across racks the replicas of a rack first reduce and scatter among themselves, then each shard
//! meets its like in the other racks through all gateways at once, and the rack gathers again.
//!
//! Sources: step structure and ring orders from the collectives that PopLibs held until they moved
//! to GCL (`CollectivesProgram.hpp`, bidirectional ring pair, interleaved order). GCL's choice
//! among its methods rests on thresholds measured on Mk1 and isn't modelled: on these links the
//! bidirectional ring is never slower than a ring of one direction. That racks are a level of
//! their own is assumed.
//!
//! Left out: meet-in-the-middle and quad-directional rings; slices, copies and additions on the
//! tiles, which a program contains as vertices.

use super::{Flow, busiest_link, longest_latency, sync_global};
use crate::ids::{IpuId, ReplicaId};
use crate::spec::MachineSpec;
use crate::topology::{ReplicaPlacement, Topology};
use crate::units::{Bytes, BytesPerSecond, Cycles, Hertz, SimSeconds};

/// One ring of replicas, or many equal ones that work at the same time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ring {
    /// Replicas around the ring.
    pub n_replicas: u32,
    /// Sync before each step.
    pub sync: Cycles,
    /// Time for the first byte of a step to arrive.
    pub latency: SimSeconds,
    /// Rate from an IPU to each of its two neighbours, while every IPU sends to both.
    pub bandwidth: BytesPerSecond,
}

/// Reduce-scatter of `bytes` on each IPU: every replica ends up with its share of the sum.
///
/// `rings` from the innermost; each works on the share that the one before left.
#[must_use]
pub fn reduce_scatter(bytes: Bytes, rings: &[Ring], clock: Hertz) -> Cycles {
    let mut left = bytes;
    let mut total = Cycles::ZERO;
    for ring in rings {
        total += around(left, ring, clock);
        left = left.share(u64::from(ring.n_replicas));
    }
    total
}

/// All-gather into `bytes` on each IPU: the way of [`reduce_scatter`] backwards.
#[must_use]
pub fn all_gather(bytes: Bytes, rings: &[Ring], clock: Hertz) -> Cycles {
    reduce_scatter(bytes, rings, clock)
}

/// All-reduce of `bytes` on each IPU.
#[must_use]
pub fn all_reduce(bytes: Bytes, rings: &[Ring], clock: Hertz) -> Cycles {
    reduce_scatter(bytes, rings, clock) + all_gather(bytes, rings, clock)
}

/// All steps of one ring: each sends `bytes / R`, one half to either side.
fn around(bytes: Bytes, ring: &Ring, clock: Hertz) -> Cycles {
    assert!(ring.n_replicas > 0, "a ring has replicas");
    let fragment = bytes.share(u64::from(ring.n_replicas)).share(2);
    let data = ring.latency + ring.bandwidth.seconds(fragment);
    let step = ring.sync + clock.cycles(data);
    step * u64::from(ring.n_replicas - 1)
}

/// The rings of a placement: one inside the racks, and one across them if there are several.
///
/// No ring for a single replica. Replicas that don't fill whole racks evenly form one ring.
#[must_use]
pub fn rings(
    placement: &ReplicaPlacement,
    topology: &Topology,
    machine: &MachineSpec,
) -> Vec<Ring> {
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
    let levels = [
        (0..across)
            .map(|rack| members(rack * in_rack, 1, in_rack))
            .collect::<Vec<_>>(),
        (0..in_rack)
            .map(|first| members(first, in_rack, across))
            .collect(),
    ];
    let used = levels.iter().filter(|level| level[0].len() > 1);
    used.map(|level| ring(level, placement, topology, machine))
        .collect()
}

/// The numbers of equal rings, from one step in which every IPU sends to both neighbours.
fn ring(
    members: &[Vec<ReplicaId>],
    placement: &ReplicaPlacement,
    topology: &Topology,
    machine: &MachineSpec,
) -> Ring {
    // Times are proportional to bytes, so any amount gives the rate.
    let probe = Bytes(1 << 30);
    let mut flows = Vec::new();
    for ring in members {
        let order = ring_order(ring, placement.ipus_per_replica);
        let next = order.iter().cycle().skip(1);
        for (replica, next) in order.iter().zip(next) {
            for ipu in (0..placement.ipus_per_replica).map(IpuId) {
                let here = placement.ipu(*replica, ipu);
                let there = placement.ipu(*next, ipu);
                for (from, to) in [(here, there), (there, here)] {
                    flows.push(Flow {
                        from,
                        to,
                        bytes: probe,
                    });
                }
            }
        }
    }
    let n_ipus = placement.n_replicas * placement.ipus_per_replica;
    Ring {
        n_replicas: u32::try_from(members[0].len()).expect("as many as there are replicas"),
        sync: sync_global(n_ipus, machine),
        latency: longest_latency(&flows, topology),
        bandwidth: BytesPerSecond::of(probe, busiest_link(&flows, topology)),
    }
}

/// Replicas of one IPU go up one rail and down the other (0, 2, 4, 6, 7, 5, 3, 1), so that every
/// step is one hop; larger ones keep their order.
fn ring_order(members: &[ReplicaId], ipus_per_replica: u32) -> Vec<ReplicaId> {
    if ipus_per_replica > 1 {
        return members.to_vec();
    }
    let up = members.iter().step_by(2);
    let down = members.iter().skip(1).step_by(2).rev();
    up.chain(down).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::machine;

    const CLOCK: Hertz = Hertz(1e9);

    fn plain_ring(n_replicas: u32) -> Ring {
        Ring {
            n_replicas,
            sync: Cycles(600),
            latency: SimSeconds(100e-9),
            bandwidth: BytesPerSecond(10e9),
        }
    }

    #[test]
    fn collectives_by_hand() {
        // (replicas, bytes, cycles of a reduce-scatter): steps x (600 + 100 + bytes / R / 2 / 10)
        for (n_replicas, bytes, expected) in [
            (1, 80_000, 0),
            (2, 80_000, 700 + 2000),
            (4, 80_000, 3 * (700 + 1000)),
            (16, 80_000, 15 * (700 + 250)),
            // A scalar of 4 bytes: one byte each way is a tenth of a cycle, rounded up.
            (4, 4, 3 * 701),
            (4, 0, 3 * 700),
        ] {
            let rings = [plain_ring(n_replicas)];
            let scatter = reduce_scatter(Bytes(bytes), &rings, CLOCK);
            assert_eq!(scatter, Cycles(expected), "{n_replicas} x {bytes} B");
            assert_eq!(all_gather(Bytes(bytes), &rings, CLOCK), scatter);
            assert_eq!(all_reduce(Bytes(bytes), &rings, CLOCK), scatter * 2);
        }
    }

    #[test]
    fn the_outer_ring_works_on_a_share() {
        // 80,000 B over 4, then the share of 20,000 B over 2: one step of 5,000 B each way.
        let rings = [plain_ring(4), plain_ring(2)];
        let scatter = reduce_scatter(Bytes(80_000), &rings, CLOCK);
        assert_eq!(scatter, Cycles(3 * (700 + 1000) + (700 + 500)));
        assert_eq!(reduce_scatter(Bytes(80_000), &[], CLOCK), Cycles(0));
    }

    /// (machine, replicas, IPUs of each) and for each ring (replicas, hops, GB/s each way).
    #[track_caller]
    fn check(name: &str, replicas: (u32, u32), expected: &[(u32, u32, f64)]) {
        let mut spec = machine(name);
        spec.links.latency = SimSeconds(1.0);
        if let Some(gateway) = &mut spec.gateway {
            gateway.latency = SimSeconds(100.0);
        }
        let topology = Topology::new(&spec);
        let placement = ReplicaPlacement::new(&topology, replicas.0, replicas.1).unwrap();
        let found = rings(&placement, &topology, &spec);
        assert_eq!(found.len(), expected.len(), "{name} {replicas:?}");
        for (ring, (n_replicas, hops, rate)) in found.iter().zip(expected) {
            assert_eq!(ring.n_replicas, *n_replicas, "{name} {replicas:?}");
            assert_eq!(ring.latency, SimSeconds(f64::from(*hops)));
            let found = ring.bandwidth.0 / 1e9;
            assert!((found - rate).abs() < 1e-6, "{name} {replicas:?}: {found}");
        }
    }

    #[test]
    fn rings_share_the_links_of_the_machine() {
        check("mk2-pod16", (1, 16), &[]);
        // Four single IPUs in a square: each side of it carries one flow each way on two links.
        check("mk2-m2000", (4, 1), &[(4, 1, 26.5)]);
        // Torus of 16 replicas on two rungs each: every rail carries two flows each way.
        check("mk2-pod64", (16, 4), &[(16, 2, 13.25)]);
        check("mk2-pod64", (32, 2), &[(32, 1, 26.5)]);
        check("mk2-pod64", (4, 16), &[(4, 8, 26.5 / 8.0)]);
        // Ladder: what closes the ring comes back over the same rails, six rungs at once.
        check("mk2-pod16", (4, 4), &[(4, 6, 26.5 / 4.0)]);
        check("mk2-pod16", (2, 8), &[(2, 4, 26.5 / 8.0)]);
    }

    #[test]
    fn racks_are_a_ring_of_their_own() {
        // Four IPUs of a box each send both ways, which for two racks is the same way:
        // 8 flows on 25 GB/s. Three hops: to the gateway, across (100 s here), to the IPU.
        check(
            "mk2-pod128",
            (32, 4),
            &[(16, 2, 13.25), (2, 100, 25.0 / 8.0)],
        );
        // Four racks: 12.5 GB/s to each neighbour, four flows.
        check(
            "mk2-pod256",
            (64, 4),
            &[(16, 2, 13.25), (4, 100, 12.5 / 4.0)],
        );
        check("mk2-pod128", (2, 64), &[(2, 100, 25.0 / 8.0)]);
        // Not whole racks: a single ring through one gateway.
        let spec = machine("mk2-pod128");
        let topology = Topology::new(&spec);
        let placement = ReplicaPlacement::new(&topology, 20, 4).unwrap();
        assert_eq!(rings(&placement, &topology, &spec).len(), 1);
    }

    #[test]
    fn single_ipus_go_up_one_rail_and_down_the_other() {
        let members: Vec<ReplicaId> = (0..8).map(ReplicaId).collect();
        let order: Vec<u32> = ring_order(&members, 1).iter().map(|r| r.0).collect();
        assert_eq!(order, [0, 2, 4, 6, 7, 5, 3, 1]);
        assert_eq!(ring_order(&members, 2), members);
        check("mk2-pod16", (16, 1), &[(16, 1, 26.5)]);
    }
}

use super::*;
use crate::network::bound::{IpuTransfer, busiest_link};
use crate::spec::fixtures::machine;
use crate::units::{Hertz, SimSeconds};

#[test]
fn methods_by_size_and_wiring() {
    use Method::{BidirectionalPair, Clockwise, MeetInTheMiddle};
    use RingPass::{AllGather, ReduceScatter};
    for (phase, bytes, n_replicas, ipus_per_replica, closed, expected) in [
        // Several IPUs each: the wiring decides.
        (AllGather, 1 << 30, 16, 4, true, MeetInTheMiddle),
        (AllGather, 1 << 30, 4, 4, false, Clockwise),
        (ReduceScatter, 1 << 30, 2, 4, true, Clockwise),
        // One IPU each: size and number decide.
        (AllGather, 1 << 30, 2, 1, false, Clockwise),
        (AllGather, 622_591, 4, 1, false, MeetInTheMiddle),
        (AllGather, 622_592, 4, 1, false, BidirectionalPair),
        (ReduceScatter, 1_245_183, 4, 1, false, MeetInTheMiddle),
        (ReduceScatter, 1_245_184, 4, 1, false, BidirectionalPair),
        (AllGather, 2_490_368, 8, 1, true, BidirectionalPair),
        (ReduceScatter, 39_845_888, 16, 1, true, BidirectionalPair),
        (ReduceScatter, 39_845_887, 16, 1, true, MeetInTheMiddle),
        (AllGather, 1 << 30, 64, 1, true, MeetInTheMiddle),
    ] {
        let found = method(phase, Bytes(bytes), n_replicas, ipus_per_replica, closed);
        assert_eq!(
            found, expected,
            "{phase:?} {bytes} {n_replicas} {ipus_per_replica}"
        );
    }
}

#[test]
fn every_method_sends_all_fragments_but_one() {
    let methods = [
        Method::Clockwise,
        Method::BidirectionalPair,
        Method::MeetInTheMiddle,
    ];
    for method in methods {
        for n_replicas in 2..20 {
            for phase in [RingPass::ReduceScatter, RingPass::AllGather] {
                let rounds = rounds(
                    phase,
                    method,
                    Bytes(240 * u64::from(n_replicas)),
                    n_replicas,
                );
                let sent = rounds.iter().map(|round| {
                    (round.sends.next + round.sends.previous) * u64::from(round.times)
                });
                // (n - 1) / n of the bytes.
                assert_eq!(sent.sum::<Bytes>(), Bytes(240 * u64::from(n_replicas - 1)));
                let steps: u32 = rounds.iter().map(|round| round.times).sum();
                let expected = match method {
                    Method::MeetInTheMiddle => n_replicas / 2,
                    _ => n_replicas - 1,
                };
                assert_eq!(steps, expected, "{method:?} {n_replicas}");
            }
        }
    }
}

/// A collective of `bytes` on each IPU, with a cycle of 1 ns, syncs of 600 and hops of 100 cycles.
fn take(
    name: &str,
    (n_replicas, n_ipus): (u32, u32),
    kind: CollectiveKind,
    bytes: u64,
    fold: Fold,
) -> CollectiveCost {
    let mut spec = machine(name);
    spec.tile.clock = Hertz(1e9);
    spec.links.latency = SimSeconds(100e-9);
    spec.sync.hop = SimSeconds::ZERO;
    let topology = Topology::new(&spec);
    let placement = ReplicaPlacement::new(&topology, n_replicas, n_ipus).unwrap();
    let bytes = (0..n_ipus).map(|ipu| (IpuId(ipu), Bytes(bytes))).collect();
    let mut add = |_: IpuId, parts: u64| Cycles(16_000 / parts);
    Collectives::new(placement, &topology, &spec, fold).take(kind, &bytes, &mut add)
}

#[test]
fn collectives_by_hand() {
    use CollectiveKind::{AllGather, AllReduce, ReduceScatter};
    for (name, replicas, kind, bytes, links, adds) in [
        ("mk2-pod16", (1, 4), AllReduce, 1_000_000, 0, 0),
        // Four IPUs in a square, fragments of 106,000 B at 26.5 B a cycle: to both sides, then to one.
        (
            "mk2-m2000",
            (4, 1),
            ReduceScatter,
            424_000,
            2 * 4700,
            3 * 4000,
        ),
        ("mk2-m2000", (4, 1), AllGather, 424_000, 2 * 4700, 0),
        // Large ones in halves, three times: 530,000 B.
        (
            "mk2-m2000",
            (4, 1),
            ReduceScatter,
            4_240_000,
            3 * 20_700,
            3 * 4000,
        ),
        // A ladder of four replicas of two rungs: up to the next, and all four IPUs of the last
        // back to the first, six hops down two rails of 26.5 B a cycle, two on each.
        (
            "mk2-pod16",
            (4, 4),
            AllGather,
            424_000,
            3 * (600 + 600 + 8000),
            0,
        ),
        // A torus of 16: two hops, fragments of 26,500 B, two on each rail. Eight rounds.
        (
            "mk2-pod64",
            (16, 4),
            AllGather,
            424_000,
            8 * (600 + 200 + 2000),
            0,
        ),
    ] {
        let taken = take(name, replicas, kind, bytes, Fold::Alike);
        assert_eq!(
            (taken.links.0, taken.adds.0),
            (links, adds),
            "{name} {replicas:?} {kind:?}"
        );
        assert_eq!(taken, take(name, replicas, kind, bytes, Fold::Nothing));
    }
}

#[test]
fn an_all_reduce_sends_twice_what_a_reduce_scatter_does() {
    // The closed form of PopLibs' replicated_collectives tool: 2 (n - 1) / n bytes for each byte.
    for (name, n_replicas, n_ipus) in [
        ("mk2-pod16", 4, 4),
        ("mk2-pod64", 16, 4),
        ("mk2-pod64", 64, 1),
        ("mk2-pod256", 64, 4),
        ("mk2-pod128", 20, 4),
    ] {
        let bytes = 64_000 * u64::from(n_replicas);
        let taken = take(
            name,
            (n_replicas, n_ipus),
            CollectiveKind::AllReduce,
            bytes,
            Fold::Alike,
        );
        let closed_form = 2 * u64::from(n_replicas - 1) * 64_000 * u64::from(n_ipus);
        assert_eq!(taken.sent, Bytes(closed_form), "{name}");
        assert_eq!(
            taken,
            take(
                name,
                (n_replicas, n_ipus),
                CollectiveKind::AllReduce,
                bytes,
                Fold::Nothing
            )
        );
    }
}

#[test]
fn racks_are_a_level_of_their_own() {
    let spec = machine("mk2-pod256");
    let topology = Topology::new(&spec);
    let shape = |n_replicas, n_ipus| -> Vec<(usize, u32)> {
        let placement = ReplicaPlacement::new(&topology, n_replicas, n_ipus).unwrap();
        levels(&placement, &topology)
            .iter()
            .map(|level| (level.rings.len(), level.n_replicas()))
            .collect()
    };
    // Four rings of 16 inside the racks, then 16 rings of four across them.
    assert_eq!(shape(64, 4), [(4, 16), (16, 4)]);
    assert_eq!(shape(4, 64), [(1, 4)]);
    assert_eq!(shape(1, 256), []);
    // Not whole racks: a single ring.
    assert_eq!(shape(20, 4), [(1, 20)]);
}

#[test]
fn single_ipus_go_up_one_rail_and_down_the_other() {
    let members: Vec<ReplicaId> = (0..8).map(ReplicaId).collect();
    let order: Vec<u32> = level::ring_order(&members, 1).iter().map(|r| r.0).collect();
    assert_eq!(order, [0, 2, 4, 6, 7, 5, 3, 1]);
    assert_eq!(level::ring_order(&members, 2), members);
}

#[test]
fn a_round_takes_no_less_than_its_busiest_link() {
    // The ladder above, one round: every IPU of every replica to the next.
    let spec = machine("mk2-pod16");
    let topology = Topology::new(&spec);
    let flows: Vec<IpuTransfer> = (0..16u32)
        .map(|ipu| IpuTransfer {
            from: IpuId(ipu),
            to: IpuId((ipu + 4) % 16),
            bytes: Bytes(106_000),
        })
        .collect();
    let least = busiest_link(&flows, &topology).0 * 1e9;
    assert!((least - 8000.0).abs() < 1e-3, "{least}");
}

use proptest::prelude::*;

use super::flows::ends_together;
use super::*;
use crate::ids::IpuId;
use crate::network::bound::{IpuTransfer, busiest_link};
use crate::spec::MachineSpec;
use crate::spec::fixtures::machine;
use crate::units::Bytes;

/// A machine on which a cycle is 1 ns and a link carries 13.25 B in one.
fn plain(name: &str) -> MachineSpec {
    let mut spec = machine(name);
    spec.tile.clock = Hertz(1e9);
    spec
}

/// When each of some copies is through that begin together.
fn ends(name: &str, flows: &[(u32, u32, u64)]) -> Vec<u64> {
    let spec = plain(name);
    let topology = Topology::new(&spec);
    let routes: Vec<OwnedRoute> = (0..)
        .zip(flows)
        .map(|(label, &(from, to, _))| OwnedRoute {
            label,
            owner: 0,
            bundles: topology.route(IpuId(from), IpuId(to)),
        })
        .collect();
    let (network, partition) = Network::new(&routes, &topology, spec.tile.clock, Fold::Nothing);
    let transfers: Vec<(RouteId, Bytes)> = partition
        .routes
        .iter()
        .zip(flows)
        .map(|(&route, flow)| (route, Bytes(flow.2)))
        .collect();
    let ends = ends_together(&network, &transfers);
    let closed_form: Vec<IpuTransfer> = flows
        .iter()
        .map(|&(from, to, bytes)| IpuTransfer {
            from: IpuId(from),
            to: IpuId(to),
            bytes: Bytes(bytes),
        })
        .collect();
    let least = spec
        .tile
        .clock
        .cycles(busiest_link(&closed_form, &topology));
    assert!(
        flows.is_empty() || ends.iter().max() >= Some(&least),
        "{flows:?} beat their busiest link"
    );
    ends.into_iter().map(|end| end.0).collect()
}

#[track_caller]
fn check(name: &str, flows: &[(u32, u32, u64)], expected: &[u64]) {
    assert_eq!(ends(name, flows), expected, "{flows:?}");
}

#[test]
fn copies_by_hand() {
    check("mk2-pod16", &[], &[]);
    check("mk2-pod16", &[(0, 1, 0)], &[0]);
    // One copy: two links, whether over a rung, a rail, or both one after the other.
    check("mk2-pod16", &[(0, 1, 26_500)], &[1000]);
    check("mk2-pod16", &[(0, 2, 26_500)], &[1000]);
    check("mk2-pod16", &[(1, 2, 26_500)], &[1000]);
    // A rung has six links: three copies fit, four share them: 4 x 26,500 / 79.5.
    check("mk2-pod16", &[(0, 1, 26_500); 3], &[1000; 3]);
    check("mk2-pod16", &[(0, 1, 26_500); 4], &[1334; 4]);
    // A rail has two, so two copies take twice as long; the other direction is free.
    check(
        "mk2-pod16",
        &[(0, 2, 26_500), (0, 4, 26_500)],
        &[2000, 2000],
    );
    check(
        "mk2-pod16",
        &[(0, 2, 26_500), (2, 0, 26_500)],
        &[1000, 1000],
    );
    // Copies that don't meet.
    check(
        "mk2-pod16",
        &[(0, 2, 26_500), (1, 3, 53_000)],
        &[1000, 2000],
    );
    // The short one is through when each has had half for 1000 cycles; then the long one speeds up.
    check(
        "mk2-pod16",
        &[(0, 2, 13_250), (0, 2, 39_750)],
        &[1000, 2000],
    );
    // 2 to 4 is full with two copies. What 0 to 2 has left there, nobody else can use.
    check(
        "mk2-pod16",
        &[(0, 4, 26_500), (2, 4, 26_500), (0, 2, 13_250)],
        &[2000, 2000, 1000],
    );
    // Four IPUs of a machine over one gateway: 4 x 25,000 B at 25 B a cycle.
    let racks: Vec<(u32, u32, u64)> = (0..4).map(|n| (n, n + 64, 25_000)).collect();
    check("mk2-pod128", &racks, &[4000; 4]);
}

#[test]
fn a_pipeline_of_four_moves_everything_as_fast_as_one_boundary() {
    // One [1024, 1024] f16 activation forward and one gradient backward at each of three
    // boundaries: 2,097,152 B / 26.5 B a cycle = 79,137.8.
    let bytes = 1024 * 1024 * 2;
    let flows: Vec<(u32, u32, u64)> = (0..3)
        .flat_map(|n| [(n, n + 1, bytes), (n + 1, n, bytes)])
        .collect();
    assert_eq!(ends("mk2-pod16", &flows).into_iter().max(), Some(79_138));
}

/// Routes of replicas of four IPUs, one copy from the first IPU to the last.
fn replicas(topology: &Topology, n_replicas: u32, n_ipus: u32) -> Vec<OwnedRoute> {
    (0..n_replicas)
        .map(|owner| OwnedRoute {
            label: 0,
            owner,
            bundles: topology.route(IpuId(owner * n_ipus), IpuId(owner * n_ipus + n_ipus - 1)),
        })
        .collect()
}

#[test]
fn replicas_that_lie_alike_are_one() {
    let spec = plain("mk2-pod64");
    let topology = Topology::new(&spec);
    let found = |n_replicas, n_ipus| {
        let routes = replicas(&topology, n_replicas, n_ipus);
        let (network, partition) = Network::new(&routes, &topology, spec.tile.clock, Fold::Alike);
        let owners = partition.owners.iter().max().unwrap() + 1;
        (owners, network.routes.len(), network.links.len())
    };
    // A rung and a rail each.
    assert_eq!(found(16, 4), (1, 1, 2));
    assert_eq!(found(1, 4), (1, 1, 2));
    // Three IPUs: 0, 1, 2 share a rail; 3 goes to 5 along the other one, and so on in turns. No
    // two routes meet, and one hop over a rail is like another.
    assert_eq!(found(20, 3), (1, 1, 1));
}

#[test]
fn replicas_that_lie_differently_are_told_apart() {
    let spec = plain("mk2-pod16");
    let topology = Topology::new(&spec);
    // All write to the first replica: the farther ones cross more links.
    let routes: Vec<OwnedRoute> = (1..4)
        .map(|owner| OwnedRoute {
            label: 0,
            owner,
            bundles: topology.route(IpuId(owner * 4), IpuId(0)),
        })
        .collect();
    let (network, partition) = Network::new(&routes, &topology, spec.tile.clock, Fold::Alike);
    assert_eq!(partition.owners, [0, 1, 2, 3]);
    assert_eq!(network.routes.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Copies with equal labels and bytes, as replicas make them, take as long folded as unfolded.
    #[test]
    fn classes_of_copies_take_what_each_of_them_takes(
        pairs in prop::collection::vec((0u32..4, 0u32..4, 1u64..100_000), 1..4),
        (n_ipus, wiring) in (1u32..5, prop::sample::select(vec!["mk2-pod16", "mk2-pod64", "mk2-pod128"])),
    ) {
        let spec = plain(wiring);
        let topology = Topology::new(&spec);
        let n_replicas = spec.n_ipus / n_ipus;
        let routes: Vec<OwnedRoute> = (0..n_replicas)
            .flat_map(|owner| (0..).zip(&pairs).map(move |(label, &(a, b, _))| (owner, label, a, b)))
            .map(|(owner, label, a, b)| OwnedRoute {
                label,
                owner,
                // Each to the next replica, around the whole machine.
                bundles: topology.route(
                    IpuId(owner * n_ipus + a % n_ipus),
                    IpuId((owner + 1) % n_replicas * n_ipus + b % n_ipus),
                ),
            })
            .collect();
        let ends = |fold| {
            let (network, partition) = Network::new(&routes, &topology, spec.tile.clock, fold);
            let mut by_route = std::collections::BTreeMap::new();
            for (owned, &route) in routes.iter().zip(&partition.routes) {
                by_route.insert(route, Bytes(pairs[owned.label as usize].2));
            }
            let transfers: Vec<(RouteId, Bytes)> = by_route.into_iter().collect();
            let ends = ends_together(&network, &transfers);
            let of = |route| ends[transfers.binary_search_by_key(&route, |&(route, _)| route).unwrap()];
            partition.routes.iter().map(|&route| of(route)).collect::<Vec<Cycles>>()
        };
        prop_assert_eq!(ends(Fold::Alike), ends(Fold::Nothing));
    }
}

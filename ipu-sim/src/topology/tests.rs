//! Wiring, routes and placement on the shipped machines.

use super::*;
use crate::ids::Id;
use crate::spec::fixtures::machine;
use crate::spec::shipped;

fn topology(name: &str) -> Topology {
    Topology::new(&machine(name))
}

/// The nodes of a route, written `0 1 3` for IPUs and `g2` for gateways.
#[track_caller]
fn check(topology: &Topology, from: u32, to: u32, expected: &str) {
    let route = topology.route(IpuId(from), IpuId(to));
    let mut nodes = vec![from.to_string()];
    for bundle in route {
        nodes.push(match topology.bundles()[bundle].to {
            Node::Ipu(ipu) => ipu.0.to_string(),
            Node::Gateway(machine) => format!("g{}", machine.0),
            other => panic!("{other:?} lies on no route between IPUs"),
        });
    }
    assert_eq!(nodes.join(" "), expected);
}

#[test]
fn ladder_routes_cross_the_rung_first() {
    let pod16 = topology("mk2-pod16");
    check(&pod16, 0, 0, "0");
    check(&pod16, 0, 1, "0 1");
    check(&pod16, 1, 2, "1 0 2");
    check(&pod16, 0, 7, "0 1 3 5 7");
    check(&pod16, 14, 0, "14 12 10 8 6 4 2 0");
}

#[test]
fn torus_routes_take_the_shorter_way_and_up_in_a_tie() {
    let pod64 = topology("mk2-pod64");
    check(&pod64, 0, 62, "0 62");
    check(&pod64, 61, 2, "61 60 62 0 2");
    let up: Vec<String> = (0..=16).map(|rung| (2 * rung).to_string()).collect();
    check(&pod64, 0, 32, &up.join(" "));
}

/// What a route of `links` IPU-Links and `gateways` gateways left for another takes, in us.
#[test]
fn the_first_link_of_a_way_takes_longer_than_further_ones() {
    let check = |name: &str, from: u32, to: u32, links: u32, gateways: u32| {
        let mut machine = machine(name);
        machine.links.latency = SimSeconds(1e-6);
        machine.links.hop = SimSeconds(1e-8);
        if let Some(gateway) = &mut machine.gateway {
            gateway.latency = SimSeconds(1e-4);
        }
        let topology = Topology::new(&machine);
        let route = topology.route(IpuId(from), IpuId(to));
        let hops = 0.01 * f64::from(links.saturating_sub(1));
        let first = if links > 0 { 1.0 } else { 0.0 };
        let expected = first + hops + 100.0 * f64::from(gateways);
        let found = topology.latency(&route).0 * 1e6;
        assert!((found - expected).abs() < 1e-9, "{from} to {to}: {found}");
        let found = topology.latency_hops(&route).0 * 1e6;
        assert!((found - hops).abs() < 1e-9, "{from} to {to}: {found}");
        assert_eq!(topology.gateways(&route), gateways, "{from} to {to}");
    };
    check("mk2-pod16", 0, 0, 0, 0);
    check("mk2-pod16", 0, 1, 1, 0);
    check("mk2-pod16", 0, 7, 4, 0);
    check("mk2-pod16", 14, 0, 7, 0);
    check("mk2-pod128", 0, 64, 0, 1);
    check("mk2-pod128", 62, 64, 1, 1);
    check("mk2-pod256", 0, 128, 0, 2);
}

#[test]
fn gateways_join_equal_positions_of_racks() {
    let pod128 = topology("mk2-pod128");
    check(&pod128, 0, 64, "0 g0 g16 64");
    check(&pod128, 0, 67, "0 g0 g16 67");
    check(&pod128, 62, 64, "62 g15 g31 126 64");
    check(&pod128, 64, 62, "64 g16 g0 0 62");
    let pod256 = topology("mk2-pod256");
    check(&pod256, 0, 128, "0 g0 g16 g32 128");
    check(&pod256, 0, 192, "0 g0 g48 192");
    let gateways = (
        Node::Gateway(IpuMachineId(0)),
        Node::Gateway(IpuMachineId(48)),
    );
    let bundle = pod256.by_ends[&gateways];
    assert_eq!(pod256.bundles()[bundle].capacity, BytesPerSecond(12.5e9));
}

#[test]
fn ipus_have_a_box_and_a_rack() {
    let pod128 = topology("mk2-pod128");
    assert_eq!(pod128.ipu_machine(IpuId(7)), IpuMachineId(1));
    assert_eq!(pod128.rack(IpuId(63)), RackId(0));
    assert_eq!(pod128.rack(IpuId(64)), RackId(1));
    assert_eq!(
        topology("mk1-server16").ipu_machine(IpuId(7)),
        IpuMachineId(3)
    );
}

#[test]
fn neighbours_have_the_links_of_the_description() {
    let pod64 = topology("mk2-pod64");
    let links = |from, to| pod64.links_between(IpuId(from), IpuId(to));
    assert_eq!(links(0, 1), 6, "rung");
    assert_eq!(links(0, 2), 2, "rail in an IPU-Machine");
    assert_eq!(links(5, 3), 2, "rail between IPU-Machines");
    assert_eq!(links(63, 1), 2, "rail around the torus");
    assert_eq!(links(0, 3), 0, "diagonal");
}

#[test]
fn no_ipu_has_more_links_than_the_chip_and_no_box_more_ports() {
    for name in shipped::machines() {
        let spec = machine(name);
        let topology = Topology::new(&spec);
        let mut leaving = vec![0; spec.n_ipus as usize];
        let n_boxes = spec.n_ipus.div_ceil(spec.ipus_per_machine);
        let mut ports = vec![0; n_boxes as usize];
        for bundle in topology.bundles().values() {
            if let (Node::Ipu(from), Node::Ipu(to)) = (bundle.from, bundle.to) {
                leaving[from.index()] += bundle.links;
                let at = topology.ipu_machine(from);
                if at != topology.ipu_machine(to) {
                    ports[at.index()] += bundle.links;
                }
            }
        }
        let most = leaving.iter().max();
        assert!(most <= Some(&spec.links.links_per_ipu), "{name}");
        assert!(
            ports.iter().max() <= Some(&8),
            "{name}: an IPU-M2000 has 8 ports"
        );
        if spec.wiring == Wiring::Torus {
            assert!(
                leaving.iter().all(|n| *n == 10),
                "{name}: all links are used"
            );
            assert!(ports.iter().all(|n| *n == 8), "{name}: all ports are used");
        }
    }
}

#[test]
fn every_route_arrives_and_is_as_long_as_the_way_back() {
    for name in shipped::machines() {
        let topology = topology(name);
        for from in (0..topology.n_ipus).map(IpuId) {
            for to in (0..topology.n_ipus).map(IpuId) {
                let route = topology.route(from, to);
                let arrival = route.iter().fold(Node::Ipu(from), |at, bundle| {
                    assert_eq!(topology.bundles()[*bundle].from, at);
                    topology.bundles()[*bundle].to
                });
                assert_eq!(arrival, Node::Ipu(to), "{name} {from} {to}");
                let back = topology.route(to, from);
                assert_eq!(route.len(), back.len(), "{name} {from} {to}");
            }
        }
    }
}

/// Breadth-first search, which knows nothing of rungs and rails.
#[test]
fn routes_inside_a_rack_are_shortest() {
    for name in ["mk1-server16", "mk2-m2000", "mk2-pod16", "mk2-pod64"] {
        let topology = topology(name);
        for from in (0..topology.n_ipus).map(IpuId) {
            let mut hops = BTreeMap::from([(Node::Ipu(from), 0)]);
            let mut queue = std::collections::VecDeque::from([Node::Ipu(from)]);
            while let Some(at) = queue.pop_front() {
                let links = topology
                    .bundles()
                    .values()
                    .filter(|bundle| bundle.from == at);
                for bundle in links.filter(|bundle| matches!(bundle.to, Node::Ipu(_))) {
                    let next = hops[&at] + 1;
                    hops.entry(bundle.to).or_insert_with(|| {
                        queue.push_back(bundle.to);
                        next
                    });
                }
            }
            for to in (0..topology.n_ipus).map(IpuId) {
                let route = topology.route(from, to);
                assert_eq!(route.len(), hops[&Node::Ipu(to)], "{name} {from} {to}");
            }
        }
    }
}

#[test]
fn hosts_and_memory_are_reached_through_the_gateway() {
    let check =
        |name: &str, ipu: u32, route: fn(&Topology, IpuId) -> Vec<BundleId>, expected: &[Node]| {
            let topology = topology(name);
            let mut nodes = vec![];
            for bundle in route(&topology, IpuId(ipu)) {
                nodes.push(topology.bundles()[bundle].from);
            }
            assert_eq!(nodes, expected, "{name} {ipu}");
        };
    let (gateway, port) = (Node::Gateway(IpuMachineId(1)), Node::HostPort(HostId(0)));
    check(
        "mk2-pod16",
        6,
        |t, ipu| t.route_buffer(ipu, HostDirection::In),
        &[Node::Host(HostId(0)), port],
    );
    check(
        "mk2-pod16",
        6,
        |t, ipu| t.route_host(ipu, HostDirection::In),
        &[gateway],
    );
    check(
        "mk2-pod16",
        6,
        |t, ipu| t.route_host(ipu, HostDirection::Out),
        &[Node::Ipu(IpuId(6))],
    );
    check(
        "mk2-pod16",
        6,
        |t, ipu| t.route_memory(ipu, HostDirection::In),
        &[gateway, gateway],
    );
    // A card reads the memory of its host itself.
    check(
        "mk1-server16",
        2,
        |t, ipu| t.route_buffer(ipu, HostDirection::In),
        &[],
    );
    check(
        "mk1-server16",
        2,
        |t, ipu| t.route_host(ipu, HostDirection::In),
        &[Node::Host(HostId(0)), port, gateway],
    );
    // The second host of an IPU-POD128 serves the second rack.
    let second = Node::Host(HostId(1));
    let port = Node::HostPort(HostId(1));
    check(
        "mk2-pod128",
        64,
        |t, ipu| t.route_buffer(ipu, HostDirection::In),
        &[second, port],
    );
}

#[test]
fn syncs_go_as_far_as_their_ipus_lie_apart() {
    let hops =
        |name: &str, first: u32, n: u32| topology(name).sync_hops((first..first + n).map(IpuId));
    // A quarter of the IPUs of a ladder, as PopLibs counts; a torus is half as far.
    for (n, expected) in [(1, 0), (2, 0), (4, 1), (8, 2), (16, 4)] {
        assert_eq!(hops("mk2-pod16", 0, n), expected, "{n}");
    }
    assert_eq!(hops("mk2-pod64", 0, 64), 8);
    assert_eq!(hops("mk2-pod64", 62, 2), 0);
    assert_eq!(topology("mk2-pod256").sync_racks((0..256).map(IpuId)), 2);
    assert_eq!(topology("mk2-pod256").sync_racks((0..64).map(IpuId)), 0);
}

#[test]
fn small_machines_have_links_too() {
    let pod = machine("mk2-pod64");
    for n_ipus in [1, 2, 4, 8] {
        let topology = Topology::new(&pod.scaled_down(n_ipus, 8).unwrap());
        let last = n_ipus - 1;
        assert_eq!(topology.route(IpuId(0), IpuId(last)).is_empty(), last == 0);
    }
}

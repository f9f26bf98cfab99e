//! What links carry in a run: no more than they can, and all that was sent.

use std::collections::BTreeMap;

use super::*;
use crate::ids::IdVec;
use crate::spec::fixtures::machine as shipped;
use crate::topology::{Bundle, Node, ReplicaPlacement, Topology};

/// Bytes that entered what `at` picks, and bytes that left it. The port of streaming memory, which
/// serves both directions, is aside.
fn through(timeline: &Timeline, topology: &Topology, at: impl Fn(Node) -> bool) -> [Bytes; 2] {
    let bundles = topology.bundles().iter();
    let bundles = bundles.filter(|(_, bundle)| !is_memory(bundle));
    let [mut entered, mut left] = [Bytes::ZERO; 2];
    for (id, bundle) in bundles {
        let carried = timeline.carried[id];
        entered += if at(bundle.to) { carried } else { Bytes::ZERO };
        left += if at(bundle.from) {
            carried
        } else {
            Bytes::ZERO
        };
    }
    [entered, left]
}

fn is_memory(bundle: &Bundle) -> bool {
    let memory = |node| matches!(node, Node::StreamingMemory(_));
    memory(bundle.from) || memory(bundle.to)
}

/// What hosts may have made ready before the run, and drain after it: the buffers of streams.
fn buffered(program: &Program) -> Bytes {
    let functions = program.functions.values().map(|function| &function.steps);
    let mut pending: Vec<&Step> = functions.flatten().chain(&program.steps).collect();
    let mut buffers: BTreeMap<StreamId, Bytes> = BTreeMap::new();
    while let Some(step) = pending.pop() {
        match step {
            Step::Repeat { body, .. } => pending.extend(body),
            Step::Transfers { transfers, .. } => {
                for transfer in transfers {
                    if let Transfer::HostRead { stream, var }
                    | Transfer::HostWrite { stream, var } = *transfer
                    {
                        let depth = u64::from(program.streams[stream].buffering_depth);
                        let bytes = program.bytes_of(var) * depth;
                        let largest = buffers.entry(stream).or_default();
                        *largest = bytes.max(*largest);
                    }
                }
            }
            _ => {}
        }
    }
    buffers.into_values().sum::<Bytes>() * u64::from(program.n_replicas)
}

/// No link carries more than it can in the time of the run, but for what hosts buffer; what enters a gateway or a port leaves
/// it; hosts and streaming memory give and take what replicas moved, and so do all IPUs together.
#[track_caller]
pub(super) fn check_links(timeline: &Timeline, program: &Program, machine: &MachineSpec) {
    let topology = Topology::new(machine);
    let bundles = || topology.bundles().iter();
    let seconds = machine.tile.clock.seconds(timeline.total).0;
    let buffered = buffered(program);
    for (id, bundle) in bundles() {
        let carried = timeline.carried[id].0 as f64;
        let (from, to) = (bundle.from, bundle.to);
        let host = |node| matches!(node, Node::Host(_) | Node::HostPort(_));
        let ahead = match host(from) || host(to) {
            true => buffered,
            false => Bytes::ZERO,
        };
        let room = bundle.capacity.0 * seconds + ahead.0 as f64;
        assert!(carried <= room, "{from:?} to {to:?}: {carried} of {room} B");
    }
    let all = |channel| timeline.moved.on(channel) * u64::from(program.n_replicas);
    let memory = [all(Channel::RemoteStore), all(Channel::RemoteLoad)];
    let ports = bundles().filter(|(_, bundle)| is_memory(bundle));
    let ports: Bytes = ports.map(|(id, _)| timeline.carried[id]).sum();
    assert_eq!(ports, memory[0] + memory[1]);
    // Without gateways, streaming memory is the host's.
    let of_host = match machine.gateway {
        Some(_) => [Bytes::ZERO; 2],
        None => memory,
    };
    let host = through(timeline, &topology, |node| matches!(node, Node::Host(_)));
    let streams = [all(Channel::HostWrite), all(Channel::HostRead)];
    let expected = [0, 1].map(|way| streams[way] + of_host[way]);
    assert_eq!(host, expected, "hosts");
    for (_, bundle) in bundles() {
        if let Node::HostPort(_) = bundle.to {
            let [entered, left] = through(timeline, &topology, |node| node == bundle.to);
            assert_eq!(entered, left, "{:?}", bundle.to);
        }
    }
    // The slot of a card is where its IPUs' bytes come from, and no gateway.
    let gateway = |node| matches!(node, Node::Gateway(_));
    if machine.gateway.is_some() {
        let [entered, left] = through(timeline, &topology, gateway);
        assert_eq!(entered + memory[1], left + memory[0], "gateways");
    }
    let slot = |node| machine.gateway.is_none() && gateway(node);
    let ipu = |node| matches!(node, Node::Ipu(_)) || slot(node);
    let [entered, left] = through(timeline, &topology, ipu);
    let [to, from] = [0, 1].map(|way| streams[way] + memory[way]);
    assert_eq!(entered + to, left + from, "IPUs");
}

/// An all-reduce of a vector of 128 B on every IPU of every replica.
fn all_reduce(name: &str, n_replicas: u32, n_ipus: u32) -> (Timeline, Program, MachineSpec) {
    let mut fixture = Fixture::new(n_ipus, n_replicas);
    let tensors = fixture
        .even
        .iter()
        .map(|&var| CollectiveTensor { src: var, dst: var });
    let steps = vec![Step::Collective(Collective {
        source: SourceId(0),
        kind: CollectiveKind::AllReduce,
        tensors: tensors.collect(),
    })];
    fixture.program.steps = steps;
    let whole = shipped(name);
    let machine = simplified(whole.scaled_down(whole.n_ipus, 32).unwrap());
    let options = |mode| Options {
        mode,
        trace_depth: 0,
    };
    let timeline = time(&fixture.program, &machine, options(Mode::Folded)).unwrap();
    let unfolded = time(&fixture.program, &machine, options(Mode::Unfolded)).unwrap();
    assert_eq!(timeline, unfolded);
    (timeline, fixture.program, machine)
}

/// 2 (n - 1) / n bytes for each byte, over as many links as there are hops to the next replica.
#[test]
fn collectives_put_on_links_what_the_closed_form_says() {
    #[track_caller]
    fn check(name: &str, n_replicas: u32, n_ipus: u32, hops: u64) {
        let (timeline, program, machine) = all_reduce(name, n_replicas, n_ipus);
        let sent = 2 * 128 / u64::from(n_replicas) * u64::from(n_replicas - 1);
        let each = Bytes(sent * u64::from(n_ipus));
        assert_eq!(timeline.moved.on(Channel::Collective), each);
        let carried: Bytes = timeline.carried.values().copied().sum();
        assert_eq!(carried, each * u64::from(n_replicas) * hops, "{name}");
        check_links(&timeline, &program, &machine);
    }
    // Neighbours on a square, on a ladder of single IPUs, and whole squares of a torus.
    check("mk2-m2000", 4, 1, 1);
    check("mk2-pod16", 16, 1, 1);
    check("mk2-pod64", 16, 4, 2);
    check("mk2-pod64", 32, 2, 1);
}

/// The one ring on a square: all eight of its links in one direction or both, equally.
#[test]
fn a_ring_loads_its_links_alike() {
    let (timeline, _, machine) = all_reduce("mk2-m2000", 4, 1);
    let topology = Topology::new(&machine);
    let loads: Vec<u64> = topology
        .bundles()
        .iter()
        .filter(|(_, bundle)| matches!((bundle.from, bundle.to), (Node::Ipu(_), Node::Ipu(_))))
        .map(|(id, _)| timeline.carried[id].0)
        .collect();
    // Met in the middle, three fragments of 32 B each way of an all-reduce: two to the next and
    // one to the one before, or the other way around.
    assert_eq!(loads.iter().sum::<u64>(), 4 * 192);
    assert_eq!(loads.len(), 8);
    let next: Vec<u64> = loads
        .iter()
        .copied()
        .filter(|&bytes| bytes == 128)
        .collect();
    let previous: Vec<u64> = loads.iter().copied().filter(|&bytes| bytes == 64).collect();
    assert_eq!((next.len(), previous.len()), (4, 4), "{loads:?}");
}

/// A copy crosses every link of its route, in every replica and pass.
#[test]
fn copies_cross_every_link_of_their_routes() {
    let mut fixture = Fixture::new(4, 2);
    let copies = fixture.copies(&[(0, 3), (1, 2)]);
    fixture.program.steps = vec![Step::Repeat {
        count: 50,
        body: vec![copies],
    }];
    let machine = simplified(shipped("mk2-pod16").scaled_down(16, 32).unwrap());
    let options = Options {
        mode: Mode::Folded,
        trace_depth: 0,
    };
    let timeline = time(&fixture.program, &machine, options).unwrap();
    let topology = Topology::new(&machine);
    let placement = ReplicaPlacement::new(&topology, 2, 4).unwrap();
    let mut expected: IdVec<_, Bytes> = topology.bundles().ids().map(|_| Bytes::ZERO).collect();
    for replica in placement.replicas() {
        for (from, to) in [(0, 3), (1, 2)] {
            let ends = [from, to].map(|ipu| placement.ipu(replica, IpuId(ipu)));
            for bundle in topology.route(ends[0], ends[1]) {
                expected[bundle] += Bytes(128 * 50);
            }
        }
    }
    assert_eq!(timeline.carried, expected);
    check_links(&timeline, &fixture.program, &machine);
}

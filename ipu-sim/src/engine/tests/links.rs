//! What links carry in a run: no more than they can, and all that was sent.

use std::collections::BTreeMap;

use super::*;
use crate::ids::IdVec;
use crate::replica::ReplicaPlacement;
use crate::spec::fixtures::machine as shipped;
use crate::topology::{Node, Topology};

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

/// No link carries more than it can in the time of the run, but for what hosts buffer. (That no
/// byte is lost or made, [`conserve`] has checked already.)
#[track_caller]
pub(super) fn check_links(timeline: &Timeline, program: &Program, machine: &MachineSpec) {
    let topology = Topology::new(machine);
    let seconds = machine.tile.clock.seconds(timeline.total).0;
    let buffered = buffered(program);
    for (id, bundle) in topology.bundles().iter() {
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

/// What a step transfers for several IPUs goes each its own way, all at once: two IPUs of different
/// IPU-Machines take as long as one.
#[test]
fn a_host_transfer_of_several_ipus_goes_to_each() {
    let machine = simplified(shipped("mk2-pod16").scaled_down(16, 32).unwrap());
    let topology = Topology::new(&machine);
    let run = |ipus: &[usize]| {
        let mut fixture = Fixture::new(8, 1);
        let reads = ipus
            .iter()
            .flat_map(|&ipu| match &fixture.read(ipu, false) {
                Step::Transfers { transfers, .. } => transfers.clone(),
                _ => unreachable!("a read is a transfer"),
            });
        let reads = reads.collect();
        fixture.program.steps = vec![fixture.transfers(reads)];
        let options = |mode| Options {
            mode,
            trace_depth: 0,
        };
        let timeline = time(&fixture.program, &machine, options(Mode::Folded)).unwrap();
        let unfolded = time(&fixture.program, &machine, options(Mode::Unfolded)).unwrap();
        assert_eq!(timeline, unfolded);
        let bundles = topology.bundles().iter();
        let used = bundles.filter(|(id, _)| timeline.carried[*id] > Bytes::ZERO);
        let to = used.map(|(id, bundle)| (bundle.to, timeline.carried[id].0));
        (timeline.total, to.collect::<BTreeMap<_, _>>())
    };
    let gateway = |n| Node::Gateway(crate::topology::IpuMachineId(n));
    let (host, ipu) = (crate::topology::HostId(0), |n| Node::Ipu(IpuId(n)));
    let (alone, carried) = run(&[4]);
    let expected = [
        (Node::HostPort(host), 128),
        (gateway(1), 128),
        (ipu(4), 128),
    ];
    assert_eq!(carried, expected.into());
    let (both, carried) = run(&[4, 0]);
    let mut expected = vec![
        (Node::HostPort(host), 256),
        (gateway(0), 128),
        (gateway(1), 128),
    ];
    expected.extend([(ipu(0), 128), (ipu(4), 128)]);
    assert_eq!(carried, expected.into_iter().collect());
    assert_eq!(both, alone);
    // Two of one IPU-Machine share its adapter.
    let (shared, _) = run(&[4, 5]);
    assert_eq!(shared, alone + Cycles(128));
}

/// Each IPU of a card has half of the slot's lanes: two read as long as one.
#[test]
fn the_ipus_of_a_card_read_at_their_own_rate() {
    let machine = shipped("mk1-server16");
    let cycles = |ipus: &[usize]| {
        let mut fixture = Fixture::new(2, 1);
        let layout = Layout::row_major(vec![AxisSplit::cut(1 << 24, &[Cut::even(1024)])]);
        let layout = fixture.program.add_layout(layout);
        for var in fixture.program.vars.values_mut() {
            var.layout = layout;
        }
        let mut reads: Vec<Step> = ipus.iter().map(|&ipu| fixture.read(ipu, false)).collect();
        fixture.program.steps.append(&mut reads);
        let options = Options {
            mode: Mode::Folded,
            trace_depth: 0,
        };
        let total = time(&fixture.program, &machine, options).unwrap().total;
        let fixed = machine.tile.clock.cycles(machine.host.latency) * 2;
        machine.tile.clock.seconds(total - fixed).0
    };
    let bytes = f64::from(2 << 24);
    let rates = [cycles(&[0]), cycles(&[0, 1])].map(|seconds| bytes / seconds / 1e9);
    // In GB/s; the wait for the host aside.
    assert!((rates[0] - 16.0).abs() < 0.2, "{rates:?}");
    assert!((rates[1] - 16.0).abs() < 0.2, "{rates:?}");
}

/// All IPUs of a replica meet for streaming memory, which takes as long as they lie apart.
#[test]
fn transfers_with_streaming_memory_sync_by_distance() {
    let machine = shipped("mk2-pod64");
    let cycles = |n_ipus: u32| {
        let mut fixture = Fixture::new(n_ipus, 1);
        let buffer = fixture.program.remote_buffers.push(RemoteBuffer {
            name: "moments".into(),
            bytes: Bytes(128),
        });
        let var = fixture.even[0];
        let load = fixture.transfers(vec![Transfer::RemoteLoad { buffer, var }]);
        fixture.program.steps = vec![load];
        let options = Options {
            mode: Mode::Folded,
            trace_depth: 0,
        };
        time(&fixture.program, &machine, options).unwrap().total
    };
    let hops = |n: u32| {
        machine
            .tile
            .clock
            .cycles(SimSeconds(2.0 * f64::from(n) * 15e-9))
    };
    let near = cycles(1);
    // Half the rungs between the most distant two, there and back.
    for (n_ipus, expected) in [(2, 0), (4, 1), (16, 4), (64, 8)] {
        assert_eq!(cycles(n_ipus) - near, hops(expected), "{n_ipus} IPUs");
    }
}

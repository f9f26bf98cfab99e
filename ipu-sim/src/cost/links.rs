//! How long do transfers beyond one IPU take?
//!
//! First laws: capacity and latency, with the contention among the flows of one transfer, none
//! with anything else that runs at the time. An inter-IPU copy follows PopLibs' method for its
//! IPUModel (`lib/poplibs_test/Util.cpp`): the most loaded bundle of links decides, plus one
//! global sync. Rates of links, host and streaming memory are bytes a second and don't scale with
//! the tile clock; every law ends in whole cycles of that clock.
//!
//! Left out: packet headers (the usable link rate was measured with them), exchange between tiles
//! and link ports inside the IPUs, limits of the host itself, DDR refresh and page misses.

pub mod rings;

use crate::ids::{IdVec, IpuId};
use crate::spec::MachineSpec;
use crate::topology::{BundleId, Topology};
use crate::units::{Bytes, BytesPerSecond, Cycles, SimSeconds};

/// Bytes from one IPU to another, both by their numbers in the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source.
    pub from: IpuId,
    /// Destination.
    pub to: IpuId,
    /// Amount.
    pub bytes: Bytes,
}

/// Bytes that each of several IPUs of one IPU-Machine moves at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedTransfer {
    /// What one IPU moves.
    pub bytes_per_ipu: Bytes,
    /// IPUs of the IPU-Machine that do so together, at least 1.
    pub n_ipus: u32,
}

/// A sync of `n_ipus` IPUs before they exchange; nothing for a single IPU.
///
/// The documented sync of neighbours, plus one hop each way for every two further rungs, as
/// PopLibs counts hops: `1 + (n_ipus / 2) / 2`.
#[must_use]
pub fn sync_global(n_ipus: u32, machine: &MachineSpec) -> Cycles {
    if n_ipus <= 1 {
        return Cycles::ZERO;
    }
    let extra_hops = n_ipus / 2 / 2;
    let both_ways = SimSeconds(2.0 * f64::from(extra_hops) * machine.sync.hop.0);
    machine.sync.global + machine.tile.clock.cycles(both_ways)
}

/// An inter-IPU copy: a sync of `n_ipus_synced` IPUs, then all flows at once.
///
/// Nothing at all without flows. A flow of no bytes still costs its latency.
#[must_use]
pub fn inter_ipu_copy(
    flows: &[Flow],
    n_ipus_synced: u32,
    topology: &Topology,
    machine: &MachineSpec,
) -> Cycles {
    if flows.is_empty() {
        return Cycles::ZERO;
    }
    let data = longest_latency(flows, topology) + busiest_link(flows, topology);
    sync_global(n_ipus_synced, machine) + machine.tile.clock.cycles(data)
}

/// Host stream copy: the latency floor, then bytes at the IPU-Machine's rate, shared evenly.
///
/// One direction; the other one works at the same time.
#[must_use]
pub fn host_stream(transfer: SharedTransfer, machine: &MachineSpec) -> Cycles {
    let host = &machine.host;
    shared(transfer, host.latency, host.machine_bandwidth, machine)
}

/// Load or store of streaming memory: latency, then bytes at the IPU-Machine's rate, shared evenly.
///
/// Loads and stores share one rate: give their sum where they overlap.
#[must_use]
pub fn remote_transfer(transfer: SharedTransfer, machine: &MachineSpec) -> Cycles {
    let memory = &machine.streaming_memory;
    shared(transfer, memory.latency, memory.bandwidth, machine)
}

fn shared(
    transfer: SharedTransfer,
    latency: SimSeconds,
    bandwidth: BytesPerSecond,
    machine: &MachineSpec,
) -> Cycles {
    let most = machine.ipus_per_machine;
    assert!(
        (1..=most).contains(&transfer.n_ipus),
        "1 to {most} IPUs share an IPU-Machine, got {}",
        transfer.n_ipus
    );
    let data = bandwidth
        .shared_by(transfer.n_ipus)
        .seconds(transfer.bytes_per_ipu);
    machine.tile.clock.cycles(latency + data)
}

/// When the last first byte arrives.
fn longest_latency(flows: &[Flow], topology: &Topology) -> SimSeconds {
    let latencies = flows
        .iter()
        .map(|flow| topology.latency(&topology.route(flow.from, flow.to)));
    latencies.fold(SimSeconds::ZERO, SimSeconds::max)
}

/// How long the most loaded bundle is busy, or the slowest flow on its narrowest bundle.
///
/// Bundles work in both directions at once, each direction being a bundle of its own.
fn busiest_link(flows: &[Flow], topology: &Topology) -> SimSeconds {
    let bundles = topology.bundles();
    let mut loads: IdVec<BundleId, Bytes> = bundles.ids().map(|_| Bytes::ZERO).collect();
    let mut longest = SimSeconds::ZERO;
    for flow in flows {
        for bundle in topology.route(flow.from, flow.to) {
            loads[bundle] += flow.bytes;
            let alone = bundles[bundle].capacity_per_flow.seconds(flow.bytes);
            longest = longest.max(alone);
        }
    }
    let busy = loads
        .iter()
        .map(|(bundle, load)| bundles[bundle].capacity.seconds(*load));
    busy.fold(longest, SimSeconds::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::machine;

    /// A machine on which a cycle is 1 ns, a link carries 13.25 GB/s and nothing else costs time.
    fn plain(name: &str) -> MachineSpec {
        let mut spec = machine(name);
        spec.tile.clock = crate::units::Hertz(1e9);
        spec.links.latency = SimSeconds::ZERO;
        spec.sync.global = Cycles::ZERO;
        spec.sync.hop = SimSeconds::ZERO;
        spec
    }

    fn flow(from: u32, to: u32, bytes: u64) -> Flow {
        Flow {
            from: IpuId(from),
            to: IpuId(to),
            bytes: Bytes(bytes),
        }
    }

    /// Cycles of 1 ns; two links of 13.25 GB/s move 26.5 bytes in one.
    #[track_caller]
    fn check(name: &str, flows: &[Flow], expected: u64) {
        let spec = plain(name);
        let topology = Topology::new(&spec);
        assert_eq!(
            inter_ipu_copy(flows, 4, &topology, &spec),
            Cycles(expected),
            "{flows:?}"
        );
    }

    #[test]
    fn copies_by_hand() {
        check("mk2-pod16", &[], 0);
        // One flow: two links, whether over a rung, a rail, or both one after the other.
        check("mk2-pod16", &[flow(0, 1, 26_500)], 1000);
        check("mk2-pod16", &[flow(0, 2, 26_500)], 1000);
        check("mk2-pod16", &[flow(1, 2, 26_500)], 1000);
        // A rung has six links: three flows fit, a fourth doesn't: 4 x 26,500 / 79.5.
        let over_rung = |n| vec![flow(0, 1, 26_500); n];
        check("mk2-pod16", &over_rung(3), 1000);
        check("mk2-pod16", &over_rung(4), 1334);
        // A rail has two, so two flows take twice as long; the other direction is free.
        check("mk2-pod16", &[flow(0, 2, 26_500), flow(0, 4, 26_500)], 2000);
        check("mk2-pod16", &[flow(0, 2, 26_500), flow(2, 0, 26_500)], 1000);
        // The larger of two flows that don't meet.
        check("mk2-pod16", &[flow(0, 2, 26_500), flow(1, 3, 53_000)], 2000);
        // Four IPUs of a machine over one gateway: 4 x 25,000 B at 25 GB/s.
        let racks: Vec<Flow> = (0..4).map(|n| flow(n, n + 64, 25_000)).collect();
        let mut spec = plain("mk2-pod128");
        spec.gateway.as_mut().unwrap().latency = SimSeconds::ZERO;
        let copy = inter_ipu_copy(&racks, 128, &Topology::new(&spec), &spec);
        assert_eq!(copy, Cycles(4000));
    }

    #[test]
    fn a_pipeline_of_four_moves_everything_as_fast_as_one_boundary() {
        // One [1024, 1024] f16 activation forward and one gradient backward at each of three
        // boundaries: 2,097,152 B / 26.5 B a cycle = 79,137.8.
        let bytes = 1024 * 1024 * 2;
        let flows: Vec<Flow> = (0..3)
            .flat_map(|n| [flow(n, n + 1, bytes), flow(n + 1, n, bytes)])
            .collect();
        check("mk2-pod16", &flows, 79_138);
    }

    #[test]
    fn syncs_by_hand() {
        // 600 cycles, and 30 ns at 1.325 GHz = 39.75 cycles for each two rungs.
        let spec = machine("mk2-pod64");
        for (n_ipus, expected) in [(1, 0), (2, 600), (4, 640), (16, 759), (64, 1236)] {
            assert_eq!(sync_global(n_ipus, &spec), Cycles(expected), "{n_ipus}");
        }
    }

    #[test]
    fn a_copy_syncs_and_crosses_every_link() {
        let mut spec = plain("mk2-pod16");
        spec.links.latency = SimSeconds(100e-9);
        spec.sync.global = Cycles(600);
        // Three hops of 100 cycles beside the data.
        let copy = inter_ipu_copy(&[flow(1, 4, 26_500)], 2, &Topology::new(&spec), &spec);
        assert_eq!(copy, Cycles(600 + 300 + 1000));
    }

    #[test]
    fn shared_transfers_by_hand() {
        // Host: 15 us and 12.5 B a cycle; streaming memory: 10 us and 20 B a cycle.
        let spec = plain("mk2-pod16");
        for (bytes, n_ipus, host, remote) in [
            (0, 1, 15_000, 10_000),
            (100_000, 1, 23_000, 15_000),
            (100_000, 4, 47_000, 30_000),
        ] {
            let transfer = SharedTransfer {
                bytes_per_ipu: Bytes(bytes),
                n_ipus,
            };
            assert_eq!(host_stream(transfer, &spec), Cycles(host), "{transfer:?}");
            assert_eq!(remote_transfer(transfer, &spec), Cycles(remote));
        }
    }

    #[test]
    fn seconds_beyond_the_chip_do_not_depend_on_its_clock() {
        let fast = plain("mk2-pod16");
        let mut slow = fast.clone();
        slow.tile.clock = crate::units::Hertz(0.5e9);
        let flows = [flow(0, 1, 26_500)];
        let transfer = SharedTransfer {
            bytes_per_ipu: Bytes(100_000),
            n_ipus: 2,
        };
        let times = |spec: &MachineSpec| {
            let copy = inter_ipu_copy(&flows, 2, &Topology::new(spec), spec);
            [
                copy,
                host_stream(transfer, spec),
                remote_transfer(transfer, spec),
            ]
        };
        let halved = times(&fast).map(|cycles| Cycles(cycles.0 / 2));
        assert_eq!(times(&slow), halved);
    }
}

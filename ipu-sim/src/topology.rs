//! Which links join the IPUs, gateways, hosts and memories of a machine?
//!
//! The IPUs of a rack form a ladder: IPUs `2k` and `2k + 1` are rung `k`, even IPUs lie on one rail
//! and odd ones on the other, and a torus leads both rails from the last rung back to the first.
//! An IPU-Machine holds consecutive rungs. Racks form a ring; each IPU-Machine reaches the one at
//! the same position of a neighbouring rack through its gateway.
//!
//! ```text
//!        rung 0   rung 1   rung 2   rung 3
//! rail      0 ------ 2 ------ 4 ------ 6 ---  (torus: back to 0)
//!           |        |        |        |
//! rail      1 ------ 3 ------ 5 ------ 7 ---  (torus: back to 1)
//!         '-- IPU-Machine --' '-- IPU-Machine --'
//! ```
//!
//! Sources: the ladder is that of PopLibs (`lib/poplibs_test/Util.cpp`), the torus the IPU-POD64
//! data sheet's. That an IPU-POD128 pairs IPU-Machines of equal position, and that more racks form
//! a ring with half of the gateway ports each way, is assumed.
//!
//! Hosts and streaming memory hang on the gateways. A host reaches its IPU-Machines through one port;
//! each IPU-Machine has a network adapter of its own, and each of its IPUs a PCIe link to the gateway.
//! Cards without gateways sit in slots of their host, each IPU with its lanes of the slot, and the
//! host's memory is then the streaming memory.
//!
//! ```text
//! host ── its port ──┬── gateway ──┬── IPU
//!                    │      │      ├── IPU        one streaming memory for each gateway,
//!                    │   memory    └── ..         for loads and stores together
//!                    └── gateway ── ..
//! ```
//!
//! Left out: the barley-twist and sliding-window link configurations, and the diagonal use of
//! spare links inside an IPU-Machine.

mod chain;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::define_ids;
use crate::ids::{IdVec, IpuId};
use crate::spec::{GatewaySpec, LinkSpec, MachineSpec, Wiring};
use crate::units::{BytesPerSecond, SimSeconds};
use chain::Chain;
pub use routes::HostDirection;

define_ids! {
    /// An IPU-Machine: a box of IPUs with one gateway and one streaming memory.
    IpuMachineId, "IPU-Machine ";
    /// A rack: IPU-Machines joined by IPU-Links.
    RackId, "rack ";
    /// Parallel links from one node to a neighbour.
    BundleId, "bundle ";
    /// A host server.
    HostId, "host ";
}

/// Something at the end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// An IPU, by its number in the whole machine.
    Ipu(IpuId),
    /// The gateway of an IPU-Machine, or the slot of a card that has none.
    Gateway(IpuMachineId),
    /// Streaming memory of an IPU-Machine.
    StreamingMemory(IpuMachineId),
    /// Where a host meets the network of its IPU-Machines.
    HostPort(HostId),
    /// A host server.
    Host(HostId),
}

/// Parallel links from one node to a neighbour: one direction of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// Where bytes enter.
    pub from: Node,
    /// Node that bytes leave the links at.
    pub to: Node,
    /// Links side by side.
    pub links: u32,
    /// Rate of all links together.
    pub capacity: BytesPerSecond,
    /// The part of it that bytes of one source for one destination can use.
    pub capacity_per_flow: BytesPerSecond,
    /// Time to cross.
    pub latency: SimSeconds,
}

impl Bundle {
    /// Whether these are IPU-Links.
    fn is_link(&self) -> bool {
        matches!((self.from, self.to), (Node::Ipu(_), Node::Ipu(_)))
    }
}

/// The IPUs of a machine and the links between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// IPUs of the whole machine.
    pub n_ipus: u32,
    ipus_per_machine: u32,
    /// IPUs of one rack of this machine, which may be smaller than a full rack.
    ipus_per_rack: u32,
    n_racks: u32,
    wiring: Wiring,
    /// Time of every further link of a route.
    hop: SimSeconds,
    /// Whether IPUs reach beyond their rack, hosts and memory through gateways.
    has_gateways: bool,
    machines_per_host: u32,
    bundles: IdVec<BundleId, Bundle>,
    by_ends: BTreeMap<(Node, Node), BundleId>,
}

impl Topology {
    /// The links of a machine.
    #[must_use]
    pub fn new(machine: &MachineSpec) -> Self {
        let mut topology = Self {
            n_ipus: machine.n_ipus,
            ipus_per_machine: machine.ipus_per_machine,
            ipus_per_rack: machine.n_ipus.min(machine.ipus_per_rack),
            n_racks: machine.n_racks(),
            wiring: machine.wiring,
            hop: machine.links.hop,
            has_gateways: machine.gateway.is_some(),
            machines_per_host: machine.n_machines().div_ceil(machine.host.n_hosts),
            bundles: IdVec::new(),
            by_ends: BTreeMap::new(),
        };
        for rack in (0..topology.n_racks).map(RackId) {
            topology.join_rack(rack, &machine.links);
        }
        if let Some(gateway) = &machine.gateway {
            topology.join_gateways(gateway);
        }
        topology.join_hosts(machine);
        topology
    }

    /// Whether hosts and streaming memory lie behind gateways, instead of cards in slots.
    #[must_use]
    pub fn has_gateways(&self) -> bool {
        self.has_gateways
    }

    /// Parallel links by id.
    #[must_use]
    pub fn bundles(&self) -> &IdVec<BundleId, Bundle> {
        &self.bundles
    }

    /// The IPU-Machine that holds `ipu`.
    #[must_use]
    pub fn ipu_machine(&self, ipu: IpuId) -> IpuMachineId {
        IpuMachineId(ipu.0 / self.ipus_per_machine)
    }

    /// The rack that holds `ipu`.
    #[must_use]
    pub fn rack(&self, ipu: IpuId) -> RackId {
        RackId(ipu.0 / self.ipus_per_rack)
    }

    /// IPUs of one rack of this machine.
    #[must_use]
    pub fn ipus_per_rack(&self) -> u32 {
        self.ipus_per_rack
    }

    /// Whether the rails of a whole rack are closed.
    #[must_use]
    pub fn is_torus(&self) -> bool {
        self.rungs().closed
    }

    /// Links from an IPU to a neighbour in its rack; 0 if they aren't neighbours.
    #[must_use]
    pub fn links_between(&self, from: IpuId, to: IpuId) -> u32 {
        let ends = (Node::Ipu(from), Node::Ipu(to));
        let bundle = self.by_ends.get(&ends);
        bundle.map_or(0, |bundle| self.bundles[*bundle].links)
    }

    fn racks(&self) -> Chain {
        Chain {
            len: self.n_racks,
            closed: self.n_racks > 2,
        }
    }

    fn rungs(&self) -> Chain {
        let len = self.ipus_per_rack.div_ceil(2);
        Chain {
            len,
            // Two rungs are neighbours already; a second way round would be the same one.
            closed: self.wiring == Wiring::Torus && len > 2,
        }
    }

    fn join_rack(&mut self, rack: RackId, links: &LinkSpec) {
        let first = rack.0 * self.ipus_per_rack;
        let rungs = self.rungs();
        for rung in 0..rungs.len {
            let ipu = |rung: u32, side: u32| Node::Ipu(IpuId(first + 2 * rung + side));
            if self.ipus_per_rack > 1 {
                self.join(ipu(rung, 0), ipu(rung, 1), links.links_per_rung, links);
            }
            if let Some(next) = rungs.next(rung) {
                for side in 0..2 {
                    let ends = (ipu(rung, side), ipu(next, side));
                    self.join(ends.0, ends.1, links.links_per_rail, links);
                }
            }
        }
    }

    fn join_hosts(&mut self, machine: &MachineSpec) {
        let (host, memory) = (&machine.host, &machine.streaming_memory);
        for ipu in (0..self.n_ipus).map(IpuId) {
            let ends = (Node::Ipu(ipu), Node::Gateway(self.ipu_machine(ipu)));
            let rate = host.ipu_bandwidth;
            self.join_both_ways(ends, 1, rate, rate, SimSeconds::ZERO);
        }
        for number in 0..machine.n_machines() {
            let gateway = Node::Gateway(IpuMachineId(number));
            let ends = (gateway, Node::StreamingMemory(IpuMachineId(number)));
            // One port for both directions.
            let port = self.bundles.push(Bundle {
                from: ends.0,
                to: ends.1,
                links: 1,
                capacity: memory.bandwidth,
                capacity_per_flow: memory.bandwidth,
                latency: SimSeconds::ZERO,
            });
            self.by_ends.insert(ends, port);
            self.by_ends.insert((ends.1, ends.0), port);
            let adapter = (
                gateway,
                Node::HostPort(HostId(number / self.machines_per_host)),
            );
            let rate = host.machine_bandwidth;
            self.join_both_ways(adapter, 1, rate, rate, SimSeconds::ZERO);
        }
        let n_used = machine.n_machines().div_ceil(self.machines_per_host);
        for id in (0..n_used).map(HostId) {
            let rate = host.server_bandwidth;
            self.join_both_ways(
                (Node::HostPort(id), Node::Host(id)),
                1,
                rate,
                rate,
                SimSeconds::ZERO,
            );
        }
    }

    fn join_gateways(&mut self, gateway: &GatewaySpec) {
        let racks = self.racks();
        let ports = if racks.closed {
            (gateway.ports_per_machine / 2).max(1)
        } else {
            gateway.ports_per_machine
        };
        for ipu in (0..self.n_ipus).step_by(self.ipus_per_machine as usize) {
            if let Some(next) = racks.next(self.rack(IpuId(ipu)).0) {
                let peer = next * self.ipus_per_rack + ipu % self.ipus_per_rack;
                let here = Node::Gateway(self.ipu_machine(IpuId(ipu)));
                let there = Node::Gateway(self.ipu_machine(IpuId(peer)));
                let capacity = gateway.port.side_by_side(ports);
                self.join_both_ways((here, there), ports, capacity, capacity, gateway.latency);
            }
        }
    }

    fn join(&mut self, one: Node, other: Node, n_links: u32, links: &LinkSpec) {
        let capacity = links.usable.side_by_side(n_links);
        let per_flow = links.usable.side_by_side(n_links.min(links.links_per_flow));
        self.join_both_ways((one, other), n_links, capacity, per_flow, links.latency);
    }

    fn join_both_ways(
        &mut self,
        ends: (Node, Node),
        links: u32,
        capacity: BytesPerSecond,
        capacity_per_flow: BytesPerSecond,
        latency: SimSeconds,
    ) {
        for (from, to) in [ends, (ends.1, ends.0)] {
            let bundle = self.bundles.push(Bundle {
                from,
                to,
                links,
                capacity,
                capacity_per_flow,
                latency,
            });
            let before = self.by_ends.insert((from, to), bundle);
            assert_eq!(before, None, "two nodes are joined once");
        }
    }
}

//! Which way do bytes take from one IPU to another, and over how many links?
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
//! Sources: the ladder and its routes are those of PopLibs (`lib/poplibs_test/Util.cpp`): cross the
//! rung first if the sides differ, then go straight. The torus is the IPU-POD64 data sheet's. That
//! an IPU-POD128 pairs IPU-Machines of equal position, and that more racks form a ring with half
//! of the gateway ports each way, is assumed.
//!
//! Hosts and streaming memory hang on the gateways. A host reaches its IPU-Machines through one port;
//! each IPU-Machine has a network adapter of its own, and each of its IPUs a PCIe way to the gateway.
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

use std::collections::BTreeMap;

use crate::define_ids;
use crate::error::{Error, Result};
use crate::ids::{Id, IdVec, IpuId, ReplicaId};
use crate::spec::{GatewaySpec, LinkSpec, MachineSpec, Wiring};
use crate::units::{BytesPerSecond, SimSeconds};

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
    /// Where they leave.
    pub to: Node,
    /// Links side by side.
    pub links: u32,
    /// What they carry together.
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
    /// Time of every further link of a way.
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

    /// The bundles that bytes cross from one IPU to another, in order; none from an IPU to itself.
    ///
    /// Always the same, and no other way is shorter inside a rack. Where both ways around a torus
    /// are equally long, bytes go up.
    ///
    /// # Panics
    ///
    /// If the machine has no such IPU.
    #[must_use]
    pub fn route(&self, from: IpuId, to: IpuId) -> Vec<BundleId> {
        assert!(
            from.0 < self.n_ipus && to.0 < self.n_ipus,
            "{from} and {to} are among {} IPUs",
            self.n_ipus
        );
        let mut nodes = vec![Node::Ipu(from)];
        let mut at = from;
        if self.rack(from) != self.rack(to) {
            at = self.cross_racks(from, to, &mut nodes);
        }
        self.cross_rack(at, to, &mut nodes);
        self.along(&nodes)
    }

    /// What data crosses on its way between the host and the gateway of `ipu`, where it is
    /// buffered; nothing on machines without gateways, whose cards read their host's memory.
    #[must_use]
    pub fn route_buffer(&self, ipu: IpuId, way: HostWay) -> Vec<BundleId> {
        if !self.has_gateways {
            return Vec::new();
        }
        self.along(&way.ordered(self.to_host(ipu)))
    }

    /// What data crosses between its buffer and `ipu`.
    #[must_use]
    pub fn route_host(&self, ipu: IpuId, way: HostWay) -> Vec<BundleId> {
        let mut nodes = vec![Node::Ipu(ipu)];
        if self.has_gateways {
            nodes.push(Node::Gateway(self.ipu_machine(ipu)));
        } else {
            nodes.extend(self.to_host(ipu));
        }
        self.along(&way.ordered(nodes))
    }

    /// What data crosses between the streaming memory of its IPU-Machine and `ipu`.
    #[must_use]
    pub fn route_memory(&self, ipu: IpuId, way: HostWay) -> Vec<BundleId> {
        let machine = self.ipu_machine(ipu);
        let memory = Node::StreamingMemory(machine);
        let mut nodes = vec![Node::Gateway(machine), memory];
        if self.has_gateways {
            nodes.insert(0, Node::Ipu(ipu));
            return self.along(&way.ordered(nodes));
        }
        // The host's memory is reached over the slot.
        let mut route = self.along(&way.ordered(nodes));
        route.extend(self.route_host(ipu, way));
        route
    }

    /// From the gateway or slot of `ipu` to its host.
    fn to_host(&self, ipu: IpuId) -> Vec<Node> {
        let machine = self.ipu_machine(ipu);
        let host = HostId(machine.0 / self.machines_per_host);
        vec![
            Node::Gateway(machine),
            Node::HostPort(host),
            Node::Host(host),
        ]
    }

    fn along(&self, nodes: &[Node]) -> Vec<BundleId> {
        let hops = nodes.windows(2);
        hops.map(|ends| self.by_ends[&(ends[0], ends[1])]).collect()
    }

    /// Hops that a sync of `ipus` has to go beyond neighbours, each way: half the rungs between the
    /// most distant two of a rack, rounded up.
    ///
    /// PopLibs counts `IPUs / 4` for its IPUModel, which is the same for a whole ladder.
    #[must_use]
    pub fn sync_hops(&self, ipus: impl IntoIterator<Item = IpuId>) -> u32 {
        let mut by_rack: BTreeMap<RackId, Vec<u32>> = BTreeMap::new();
        for ipu in ipus {
            let rung = ipu.0 % self.ipus_per_rack / 2;
            by_rack.entry(self.rack(ipu)).or_default().push(rung);
        }
        let spans = by_rack.values_mut().map(|rungs| {
            rungs.sort_unstable();
            rungs.dedup();
            self.rungs().span(rungs)
        });
        spans.max().unwrap_or(0).div_ceil(2)
    }

    /// Gateway links that a sync of `ipus` has to cross, each way.
    #[must_use]
    pub fn sync_racks(&self, ipus: impl IntoIterator<Item = IpuId>) -> u32 {
        let mut racks: Vec<u32> = ipus.into_iter().map(|ipu| self.rack(ipu).0).collect();
        racks.sort_unstable();
        racks.dedup();
        self.racks().span(&racks)
    }

    /// Time for the first byte to go along `route`: from tile to tile over one link, so that of
    /// several links every further one takes a hop.
    #[must_use]
    pub fn latency(&self, route: &[BundleId]) -> SimSeconds {
        let bundles = route.iter().map(|bundle| &self.bundles[*bundle]);
        let others = bundles.filter(|bundle| !bundle.is_link());
        let links = self.latency_link(route) + self.latency_hops(route);
        others.fold(links, |sum, bundle| sum + bundle.latency)
    }

    /// Of that, the time of the first link.
    #[must_use]
    pub fn latency_link(&self, route: &[BundleId]) -> SimSeconds {
        let mut bundles = route.iter().map(|bundle| &self.bundles[*bundle]);
        let first = bundles.find(|bundle| bundle.is_link());
        first.map_or(SimSeconds::ZERO, |bundle| bundle.latency)
    }

    /// Of that, the time of links after the first.
    #[must_use]
    pub fn latency_hops(&self, route: &[BundleId]) -> SimSeconds {
        let links = route.iter().filter(|id| self.bundles[**id].is_link());
        SimSeconds(links.count().saturating_sub(1) as f64 * self.hop.0)
    }

    /// How many gateways `route` leaves for another one.
    #[must_use]
    pub fn gateways(&self, route: &[BundleId]) -> u32 {
        let is_gateway = |node: Node| matches!(node, Node::Gateway(_));
        let bundles = route.iter().map(|bundle| &self.bundles[*bundle]);
        bundles
            .filter(|bundle| is_gateway(bundle.from) && is_gateway(bundle.to))
            .count() as u32
    }

    /// Adds gateways from the IPU-Machine of `from` to that of equal position in the rack of `to`,
    /// and the IPU of arrival, which is returned: `to` itself where that gateway serves it.
    fn cross_racks(&self, from: IpuId, to: IpuId, nodes: &mut Vec<Node>) -> IpuId {
        let row = self.racks();
        let position = from.0 % self.ipus_per_rack;
        for rack in row.path(self.rack(from).0, self.rack(to).0) {
            let peer = IpuId(rack * self.ipus_per_rack + position);
            nodes.push(Node::Gateway(self.ipu_machine(peer)));
        }
        let peer = IpuId(self.rack(to).0 * self.ipus_per_rack + position);
        let same_machine = self.ipu_machine(peer) == self.ipu_machine(to);
        let arrival = if same_machine { to } else { peer };
        nodes.push(Node::Ipu(arrival));
        arrival
    }

    /// Adds the IPUs after `from` up to `to` in the same rack: the rung first, then the rail.
    fn cross_rack(&self, from: IpuId, to: IpuId, nodes: &mut Vec<Node>) {
        let first = self.rack(from).0 * self.ipus_per_rack;
        let (from, to) = (from.0 - first, to.0 - first);
        let side = to % 2;
        if from % 2 != side {
            nodes.push(Node::Ipu(IpuId(first + from / 2 * 2 + side)));
        }
        let rungs = self.rungs().path(from / 2, to / 2);
        nodes.extend(
            rungs
                .skip(1)
                .map(|rung| Node::Ipu(IpuId(first + 2 * rung + side))),
        );
    }

    fn racks(&self) -> Row {
        Row {
            len: self.n_racks,
            closed: self.n_racks > 2,
        }
    }

    fn rungs(&self) -> Row {
        let len = self.ipus_per_rack.div_ceil(2);
        Row {
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

/// Which way data goes between an IPU and what lies behind its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostWay {
    /// To the IPU.
    In,
    /// From the IPU.
    Out,
}

impl HostWay {
    /// Nodes from the IPU outwards, in the order in which data passes them.
    fn ordered(self, mut outwards: Vec<Node>) -> Vec<Node> {
        if self == Self::In {
            outwards.reverse();
        }
        outwards
    }
}

/// Positions in a row, the last of which may lead back to the first.
#[derive(Clone, Copy)]
struct Row {
    len: u32,
    closed: bool,
}

impl Row {
    /// The position above `at`.
    fn next(self, at: u32) -> Option<u32> {
        if at + 1 < self.len {
            Some(at + 1)
        } else {
            self.closed.then_some(0)
        }
    }

    /// Steps between the two most distant of some positions.
    fn span(self, positions: &[u32]) -> u32 {
        let pairs = positions
            .iter()
            .flat_map(|&a| positions.iter().map(move |&b| (a, b)));
        let steps = pairs.map(|(a, b)| {
            let apart = a.abs_diff(b);
            if self.closed {
                apart.min(self.len - apart)
            } else {
                apart
            }
        });
        steps.max().unwrap_or(0)
    }

    /// All positions from `from` to `to`, both included, on the shorter way, and up in a tie.
    fn path(self, from: u32, to: u32) -> impl Iterator<Item = u32> {
        let up = (to + self.len - from) % self.len;
        let down = (from + self.len - to) % self.len;
        let goes_up = if self.closed { up <= down } else { from <= to };
        let (steps, step) = if goes_up {
            (up, 1)
        } else {
            (down, self.len - 1)
        };
        (0..=steps).map(move |n| (from + n * step) % self.len)
    }
}

/// Where the replicas of a program lie: each on consecutive IPUs, one after the other.
///
/// A replica's own IPUs are numbered from 0, as in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaPlacement {
    /// Replicas.
    pub n_replicas: u32,
    /// IPUs of each.
    pub ipus_per_replica: u32,
}

impl ReplicaPlacement {
    /// Lays replicas out on a machine.
    ///
    /// # Errors
    ///
    /// [`Error::ReplicasDontFit`] if the machine has fewer IPUs, [`Error::NoReplicas`] if either
    /// number is 0.
    pub fn new(topology: &Topology, n_replicas: u32, ipus_per_replica: u32) -> Result<Self> {
        if n_replicas == 0 || ipus_per_replica == 0 {
            return Err(Error::NoReplicas);
        }
        let needed = u64::from(n_replicas) * u64::from(ipus_per_replica);
        if needed > u64::from(topology.n_ipus) {
            return Err(Error::ReplicasDontFit {
                n_replicas,
                ipus_per_replica,
                n_ipus: topology.n_ipus,
            });
        }
        Ok(Self {
            n_replicas,
            ipus_per_replica,
        })
    }

    /// The IPU of the machine that is `ipu` of `replica`.
    #[must_use]
    pub fn ipu(&self, replica: ReplicaId, ipu: IpuId) -> IpuId {
        assert!(
            replica.0 < self.n_replicas && ipu.0 < self.ipus_per_replica,
            "{replica} has no {ipu}"
        );
        IpuId(replica.0 * self.ipus_per_replica + ipu.0)
    }

    /// All IPUs of a replica, by their numbers in the machine.
    pub fn ipus(&self, replica: ReplicaId) -> impl Iterator<Item = IpuId> + use<> {
        let (placement, n) = (*self, self.ipus_per_replica);
        (0..n).map(move |ipu| placement.ipu(replica, IpuId(ipu)))
    }

    /// The replica that runs on an IPU of the machine, if one does.
    #[must_use]
    pub fn replica(&self, ipu: IpuId) -> Option<ReplicaId> {
        let replica = ipu.0 / self.ipus_per_replica;
        (replica < self.n_replicas).then_some(ReplicaId(replica))
    }

    /// All replicas.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.n_replicas as usize).map(ReplicaId::from_index)
    }
}

#[cfg(test)]
mod tests;

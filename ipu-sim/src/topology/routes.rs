//! Which links do bytes cross from one place of a machine to another, and how long does that take?
//!
//! Inside a rack they cross the rung first if the sides differ, then go straight (PopLibs,
//! `lib/poplibs_test/Util.cpp`); between racks they go through gateways of equal position.

use std::collections::BTreeMap;

use super::{BundleId, HostId, Node, RackId, Topology};
use crate::ids::IpuId;
use crate::units::SimSeconds;

/// The direction of data between an IPU and what lies behind its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostDirection {
    /// To the IPU.
    In,
    /// From the IPU.
    Out,
}

impl HostDirection {
    /// Nodes from the IPU outwards, in the order in which data passes them.
    fn ordered(self, mut outwards: Vec<Node>) -> Vec<Node> {
        if self == Self::In {
            outwards.reverse();
        }
        outwards
    }
}

impl Topology {
    /// The bundles that bytes cross from one IPU to another, in order; none from an IPU to itself.
    ///
    /// Always the same, and no other route is shorter inside a rack. Where both routes around a torus
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

    /// Links between the host and the gateway of `ipu`, where data is
    /// buffered; nothing on machines without gateways, whose cards read their host's memory.
    #[must_use]
    pub fn route_buffer(&self, ipu: IpuId, direction: HostDirection) -> Vec<BundleId> {
        if !self.has_gateways {
            return Vec::new();
        }
        self.along(&direction.ordered(self.to_host(ipu)))
    }

    /// Links between the buffer of a stream and `ipu`.
    #[must_use]
    pub fn route_host(&self, ipu: IpuId, direction: HostDirection) -> Vec<BundleId> {
        let mut nodes = vec![Node::Ipu(ipu)];
        if self.has_gateways {
            nodes.push(Node::Gateway(self.ipu_machine(ipu)));
        } else {
            nodes.extend(self.to_host(ipu));
        }
        self.along(&direction.ordered(nodes))
    }

    /// Links between the streaming memory of its IPU-Machine and `ipu`.
    #[must_use]
    pub fn route_memory(&self, ipu: IpuId, direction: HostDirection) -> Vec<BundleId> {
        let machine = self.ipu_machine(ipu);
        let memory = Node::StreamingMemory(machine);
        let mut nodes = vec![Node::Gateway(machine), memory];
        if self.has_gateways {
            nodes.insert(0, Node::Ipu(ipu));
            return self.along(&direction.ordered(nodes));
        }
        // The host's memory is reached over the slot.
        let mut route = self.along(&direction.ordered(nodes));
        route.extend(self.route_host(ipu, direction));
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

    /// Time of the first link of `route`, a part of [`Self::latency`].
    #[must_use]
    pub fn latency_link(&self, route: &[BundleId]) -> SimSeconds {
        let mut bundles = route.iter().map(|bundle| &self.bundles[*bundle]);
        let first = bundles.find(|bundle| bundle.is_link());
        first.map_or(SimSeconds::ZERO, |bundle| bundle.latency)
    }

    /// Time of links after the first, a part of [`Self::latency`].
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
}

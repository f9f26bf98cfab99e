//! How long do IPUs take to meet, and how long must transfers between them take at least?
//!
//! Transfers themselves are resolved by events ([`crate::network`]); [`busiest_link`] is the closed
//! form by which PopLibs costs them for its IPUModel (`lib/poplibs_test/Util.cpp`): the most loaded
//! bundle of links decides. It is the least that any sharing of links can take, and tests hold the
//! events to it.
//!
//! Rates beyond the chip are bytes a second and don't scale with the tile clock.

use crate::ids::{IdVec, IpuId};
use crate::spec::MachineSpec;
use crate::topology::{BundleId, Topology};
use crate::units::{Bytes, Cycles, SimSeconds};

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

/// A sync of `ipus` before they exchange; nothing for a single IPU.
///
/// The documented sync of neighbours, plus what distance adds there and back: hops along the rails,
/// as PopLibs counts them, and gateways between racks.
#[must_use]
pub fn sync_global(ipus: &[IpuId], topology: &Topology, machine: &MachineSpec) -> Cycles {
    if ipus.len() <= 1 {
        return Cycles::ZERO;
    }
    let hops = topology.sync_hops(ipus.iter().copied());
    let racks = topology.sync_racks(ipus.iter().copied());
    let gateway = machine
        .gateway
        .as_ref()
        .map_or(0.0, |gateway| gateway.latency.0);
    let one_way = f64::from(hops) * machine.sync.hop.0 + f64::from(racks) * gateway;
    machine.sync.global + machine.tile.clock.cycles(SimSeconds(2.0 * one_way))
}

/// How long the most loaded bundle is busy, or the slowest flow on its narrowest bundle.
///
/// Bundles work in both directions at once, each direction being a bundle of its own.
#[must_use]
pub fn busiest_link(flows: &[Flow], topology: &Topology) -> SimSeconds {
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

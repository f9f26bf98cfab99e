//! How long do IPUs take to meet?
//!
//! Source: the documented sync of neighbouring IPUs, plus distance as PopLibs counts it for its
//! IPUModel (`lib/poplibs_test/Util.cpp`). Left out: the sync of tiles inside an IPU, which is part
//! of an exchange ([`crate::exchange`]).

use crate::ids::IpuId;
use crate::spec::MachineSpec;
use crate::topology::Topology;
use crate::units::{Cycles, SimSeconds};

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

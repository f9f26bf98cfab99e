//! How long do transfers between IPUs take at least?
//!
//! [`busiest_link`] is the closed form by which PopLibs costs them for its IPUModel
//! (`lib/poplibs_test/Util.cpp`): the most loaded bundle of links decides. It is the least that any
//! sharing of links can take, and tests hold the network to it.
//!
//! Rates beyond the chip are bytes a second and don't scale with the tile clock.

use crate::ids::{IdVec, IpuId};
use crate::topology::{BundleId, Topology};
use crate::units::{Bytes, SimSeconds};

/// Bytes from one IPU to another, both by their numbers in the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpuTransfer {
    /// Source.
    pub(crate) from: IpuId,
    /// Destination.
    pub(crate) to: IpuId,
    /// Amount.
    pub(crate) bytes: Bytes,
}

/// How long the most loaded bundle is busy, or the slowest transfer on its narrowest bundle.
///
/// Bundles work in both directions at once, each direction being a bundle of its own.
pub(crate) fn busiest_link(transfers: &[IpuTransfer], topology: &Topology) -> SimSeconds {
    let bundles = topology.bundles();
    let mut loads: IdVec<BundleId, Bytes> = bundles.ids().map(|_| Bytes::ZERO).collect();
    let mut longest = SimSeconds::ZERO;
    for transfer in transfers {
        for bundle in topology.route(transfer.from, transfer.to) {
            loads[bundle] += transfer.bytes;
            let alone = bundles[bundle].capacity_per_flow.seconds(transfer.bytes);
            longest = longest.max(alone);
        }
    }
    let busy = loads
        .iter()
        .map(|(bundle, load)| bundles[bundle].capacity.seconds(*load));
    busy.fold(longest, SimSeconds::max)
}

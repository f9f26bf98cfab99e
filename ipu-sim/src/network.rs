//! Links that transfers share, reduced to those that differ.
//!
//! A *route* is what a transfer crosses from one end to another: its links, and what a single transfer
//! can use of them. All replicas have the same routes, on links of their own or on shared ones. Where
//! replicas see the same surroundings, one of them stands for all: a link then carries a transfer
//! of the one replica as often as it carries that of any.
//!
//! ```text
//! every route of every replica ──partition──▶ classes of routes and links
//!                                                  │
//! transfers as they begin and end ──flows──▶ rates and ends, in whole cycles
//! ```
//!
//! [`partition`] finds the classes, [`flows`] shares the capacity of links among what moves.
//! With [`Fold::Nothing`] every route and link is a class of its own, and every replica is there.

pub mod flows;
pub mod partition;

#[cfg(test)]
pub(crate) mod bound;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::define_ids;
use crate::ids::{Id, IdVec};
use crate::topology::{BundleId, Topology};
use crate::units::{Bytes, Cycles, Hertz};
use flows::Rate;
use partition::{OwnedRoute, Partition};

define_ids! {
    /// A route that transfers take, or many that are alike.
    RouteId, "route ";
    /// A link in one direction, or many that are alike.
    LinkId, "link ";
}

/// Whether things that are alike are simulated once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fold {
    /// One stands for all.
    Alike,
    /// Each for itself.
    Nothing,
}

/// Cycles of the first byte on a route, and the constants of the machine that they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Cycles of the whole route.
    pub total: Cycles,
    /// Cycles of the first link.
    pub link: Cycles,
    /// Cycles of links after the first.
    pub hops: Cycles,
    /// How many gateways it leaves for another one.
    pub gateways: u32,
}

impl Latency {
    fn new(route: &[BundleId], topology: &Topology, clock: Hertz) -> Self {
        Self {
            total: clock.cycles(topology.latency(route)),
            link: clock.cycles(topology.latency_link(route)),
            hops: clock.cycles(topology.latency_hops(route)),
            gateways: topology.gateways(route),
        }
    }
}

/// A route that transfers take, or one of many that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The most that one transfer gets.
    pub limit: Rate,
    /// Time for the first byte to arrive.
    pub latency: Latency,
    /// The links it crosses, each class once.
    pub links: SmallVec<[LinkId; 4]>,
}

/// A link, or one of many that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Rate of the link.
    pub capacity: Rate,
    /// How many transfers of each route that crosses it meet here, by ascending route.
    pub crossings: Vec<(RouteId, u32)>,
    /// The links of the machine that it stands for.
    pub bundles: Vec<BundleId>,
}

impl Link {
    /// How often one transfer on `route` crosses this link, in all replicas together.
    #[must_use]
    pub fn crossings_of(&self, route: RouteId) -> u64 {
        let found = self
            .crossings
            .binary_search_by_key(&route, |&(route, _)| route);
        found.map_or(0, |position| u64::from(self.crossings[position].1))
    }
}

/// Routes and the links they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Classes of owned.
    pub routes: IdVec<RouteId, Route>,
    /// Classes of links.
    pub links: IdVec<LinkId, Link>,
}

impl Network {
    /// Bytes that every link of the machine carries of some transfers, by ascending link.
    ///
    /// Each transfer is that of one route of its class, as all the others of the class make it too.
    #[must_use]
    pub fn loads(&self, transfers: &[(RouteId, Bytes)]) -> Vec<(BundleId, Bytes)> {
        let mut loads: BTreeMap<BundleId, Bytes> = BTreeMap::new();
        for &(route, bytes) in transfers {
            for &link in &self.routes[route].links {
                let link = &self.links[link];
                for &bundle in &link.bundles {
                    *loads.entry(bundle).or_default() += bytes * link.crossings_of(route);
                }
            }
        }
        loads.into_iter().collect()
    }

    /// The network of the routes of all owners, and the class of each of them.
    ///
    /// Also the class of each owner: routes of owners of one class that have the same label are in
    /// one class.
    #[must_use]
    pub fn new(
        owned: &[OwnedRoute],
        topology: &Topology,
        clock: Hertz,
        fold: Fold,
    ) -> (Self, Partition) {
        let partition = match fold {
            Fold::Alike => Partition::coarsest(owned, topology),
            Fold::Nothing => Partition::discrete(owned),
        };
        let bundles = topology.bundles();
        let mut network = Self::default();
        let n_routes = partition.routes.iter().map(|route| route.index() + 1).max();
        let mut first_of_class = vec![usize::MAX; n_routes.unwrap_or(0)];
        for (number, route) in partition.routes.iter().enumerate().rev() {
            first_of_class[route.index()] = number;
        }
        for &number in &first_of_class {
            let crossed = owned[number].bundles.iter();
            let mut links: SmallVec<[LinkId; 4]> = crossed
                .clone()
                .map(|bundle| partition.links[bundle])
                .collect();
            links.sort_unstable();
            links.dedup();
            let limits = crossed.map(|&bundle| Rate::of(bundles[bundle].capacity_per_flow, clock));
            network.routes.push(Route {
                limit: limits.min().unwrap_or(Rate::MAX),
                latency: Latency::new(&owned[number].bundles, topology, clock),
                links,
            });
        }
        let n_links = partition.links.values().map(|link| link.index() + 1).max();
        for _ in 0..n_links.unwrap_or(0) {
            network.links.push(Link {
                capacity: Rate::MAX,
                crossings: Vec::new(),
                bundles: Vec::new(),
            });
        }
        for (&bundle, &link) in &partition.links {
            let link = &mut network.links[link];
            link.capacity = Rate::of(bundles[bundle].capacity, clock);
            link.bundles.push(bundle);
        }
        // All links of a class are crossed alike, so that the first tells of the others.
        for (owner, &route) in owned.iter().zip(&partition.routes) {
            for bundle in &owner.bundles {
                let link = &mut network.links[partition.links[bundle]];
                if link.bundles[0] == *bundle {
                    match link
                        .crossings
                        .binary_search_by_key(&route, |&(route, _)| route)
                    {
                        Ok(position) => link.crossings[position].1 += 1,
                        Err(position) => link.crossings.insert(position, (route, 1)),
                    }
                }
            }
        }
        (network, partition)
    }
}

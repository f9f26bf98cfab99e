//! Which replicas, classes and links can't be told apart?
//!
//! The classes are those of colour refinement: things of one class have equally many neighbours of
//! every other class. A link of one class thus carries as many transfers of each class as any other
//! link of that class, so that whatever shares links fairly gives equal rates to a class; and a
//! replica meets, on each of its routes, what any replica of its class meets. That makes one stand
//! for all, to the cycle, and no replica that lies differently is taken for another.

use std::collections::BTreeMap;

use super::{LinkId, RouteId};
use crate::ids::Id;
use crate::topology::{BundleId, Topology};

/// A route that a transfer of one owner takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRoute {
    /// Routes with different labels are never alike.
    pub label: u32,
    /// Number of the owner of the transfer, from 0.
    pub owner: u32,
    /// The links it crosses, in order.
    pub bundles: Vec<BundleId>,
}

/// Classes of routes, links and owners, each numbered in the order of their first members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Class of each route.
    pub routes: Vec<RouteId>,
    /// Class of each link that any route crosses.
    pub links: BTreeMap<BundleId, LinkId>,
    /// Class of each owner.
    pub owners: Vec<u32>,
}

impl Partition {
    /// Everything in a class of its own.
    #[must_use]
    pub fn discrete(routes: &[OwnedRoute]) -> Self {
        let used = used_bundles(routes);
        Self {
            routes: (0..routes.len()).map(RouteId::from_index).collect(),
            links: used
                .into_iter()
                .enumerate()
                .map(|(n, bundle)| (bundle, LinkId::from_index(n)))
                .collect(),
            owners: (0..n_owners(routes)).collect(),
        }
    }

    /// The fewest classes whose members can't be told apart.
    #[must_use]
    pub fn coarsest(routes: &[OwnedRoute], topology: &Topology) -> Self {
        let used = used_bundles(routes);
        let bundles = topology.bundles();
        let position: BTreeMap<BundleId, usize> = used
            .iter()
            .enumerate()
            .map(|(n, &bundle)| (bundle, n))
            .collect();
        let crossed: Vec<Vec<usize>> = routes
            .iter()
            .map(|route| {
                route
                    .bundles
                    .iter()
                    .map(|bundle| position[bundle])
                    .collect()
            })
            .collect();
        let mut colours = Colours {
            routes: numbered(routes.iter().map(|route| route.label)),
            links: numbered(used.iter().map(|&bundle| {
                let bundle = &bundles[bundle];
                let rates = [
                    bundle.capacity.0,
                    bundle.capacity_per_flow.0,
                    bundle.latency.0,
                ];
                rates.map(f64::to_bits)
            })),
            owners: vec![0; n_owners(routes) as usize],
        };
        loop {
            let finer = colours.refined(routes, &crossed);
            if finer.count() == colours.count() {
                break;
            }
            colours = finer;
        }
        Self {
            routes: colours.routes.into_iter().map(RouteId).collect(),
            links: used
                .into_iter()
                .zip(colours.links.into_iter().map(LinkId))
                .collect(),
            owners: colours.owners,
        }
    }
}

fn used_bundles(routes: &[OwnedRoute]) -> Vec<BundleId> {
    let mut used: Vec<BundleId> = routes
        .iter()
        .flat_map(|route| route.bundles.iter().copied())
        .collect();
    used.sort_unstable();
    used.dedup();
    used
}

fn n_owners(routes: &[OwnedRoute]) -> u32 {
    routes
        .iter()
        .map(|route| route.owner + 1)
        .max()
        .unwrap_or(0)
}

/// A class for each route, link and owner.
struct Colours {
    routes: Vec<u32>,
    links: Vec<u32>,
    owners: Vec<u32>,
}

impl Colours {
    /// How many classes there are; refining never merges any.
    fn count(&self) -> usize {
        let distinct = |colours: &[u32]| colours.iter().max().map_or(0, |&most| most as usize + 1);
        distinct(&self.routes) + distinct(&self.links) + distinct(&self.owners)
    }

    /// Tells apart what has different neighbours.
    fn refined(&self, routes: &[OwnedRoute], crossed: &[Vec<usize>]) -> Self {
        let mut at_link: Vec<Vec<u32>> = vec![Vec::new(); self.links.len()];
        let mut of_owner: Vec<Vec<u32>> = vec![Vec::new(); self.owners.len()];
        for ((route, crossed), &colour) in routes.iter().zip(crossed).zip(&self.routes) {
            of_owner[route.owner as usize].push(colour);
            for &link in crossed {
                at_link[link].push(colour);
            }
        }
        for neighbours in at_link.iter_mut().chain(&mut of_owner) {
            neighbours.sort_unstable();
        }
        let of_route =
            routes
                .iter()
                .zip(crossed)
                .zip(&self.routes)
                .map(|((route, crossed), &colour)| {
                    let links: Vec<u32> = crossed.iter().map(|&link| self.links[link]).collect();
                    (colour, self.owners[route.owner as usize], links)
                });
        Self {
            routes: numbered(of_route),
            links: numbered(self.links.iter().zip(at_link)),
            owners: numbered(self.owners.iter().zip(of_owner)),
        }
    }
}

/// Numbers for keys, equal ones for equal keys, in the order of their first appearance.
fn numbered<K: Ord>(keys: impl Iterator<Item = K>) -> Vec<u32> {
    let mut known = BTreeMap::new();
    keys.map(|key| {
        let next = u32::try_from(known.len()).expect("fewer than 2^32 classes");
        *known.entry(key).or_insert(next)
    })
    .collect()
}

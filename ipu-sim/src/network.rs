//! Links that transfers share, reduced to those that differ.
//!
//! A *lane* is the way from one end to another: the links it crosses and what a single transfer can
//! use of them. All replicas have the same lanes, on links of their own or on shared ones. Where
//! replicas see the same surroundings, one of them stands for all: a link then carries a transfer
//! of the one replica as often as it carries that of any.
//!
//! ```text
//! every route of every replica ──partition──▶ classes of lanes and links
//!                                                  │
//! transfers as they begin and end ──flows──▶ rates and ends, in whole cycles
//! ```
//!
//! [`partition`] finds the classes, [`flows`] shares the capacity of links among what moves.
//! With [`Fold::Nothing`] every lane and link is a class of its own, and every replica is there.

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
use partition::{Partition, Way};

define_ids! {
    /// A way that transfers take, or many that are alike.
    LaneId, "lane ";
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

/// What the first byte of a way takes, and what that is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// All of it.
    pub total: Cycles,
    /// Of that, the first link.
    pub link: Cycles,
    /// Of that, links after the first.
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

/// A way for transfers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
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
    /// What it carries.
    pub capacity: Rate,
    /// How many transfers of each lane that crosses it meet here, by ascending lane.
    pub crossings: Vec<(LaneId, u32)>,
    /// The links of the machine that it stands for.
    pub bundles: Vec<BundleId>,
}

impl Link {
    /// How often one transfer on `lane` crosses this link, in all replicas together.
    #[must_use]
    pub fn crossings_of(&self, lane: LaneId) -> u64 {
        let found = self
            .crossings
            .binary_search_by_key(&lane, |&(lane, _)| lane);
        found.map_or(0, |position| u64::from(self.crossings[position].1))
    }
}

/// Lanes and the links they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Classes of ways.
    pub lanes: IdVec<LaneId, Lane>,
    /// Classes of links.
    pub links: IdVec<LinkId, Link>,
}

impl Network {
    /// What every link of the machine carries of some transfers, by ascending link.
    ///
    /// Each transfer is that of one way of its lane, as all the others of the lane make it too.
    #[must_use]
    pub fn loads(&self, transfers: &[(LaneId, Bytes)]) -> Vec<(BundleId, Bytes)> {
        let mut loads: BTreeMap<BundleId, Bytes> = BTreeMap::new();
        for &(lane, bytes) in transfers {
            for &link in &self.lanes[lane].links {
                let link = &self.links[link];
                for &bundle in &link.bundles {
                    *loads.entry(bundle).or_default() += bytes * link.crossings_of(lane);
                }
            }
        }
        loads.into_iter().collect()
    }

    /// The network of `ways`, and the lane of each of them.
    ///
    /// Also the class of each owner: ways of owners of one class that have the same label are on
    /// one lane.
    #[must_use]
    pub fn new(ways: &[Way], topology: &Topology, clock: Hertz, fold: Fold) -> (Self, Partition) {
        let partition = match fold {
            Fold::Alike => Partition::coarsest(ways, topology),
            Fold::Nothing => Partition::discrete(ways),
        };
        let bundles = topology.bundles();
        let mut network = Self::default();
        let n_lanes = partition.lanes.iter().map(|lane| lane.index() + 1).max();
        let mut first_way = vec![usize::MAX; n_lanes.unwrap_or(0)];
        for (number, lane) in partition.lanes.iter().enumerate().rev() {
            first_way[lane.index()] = number;
        }
        for &number in &first_way {
            let route = ways[number].route.iter();
            let mut links: SmallVec<[LinkId; 4]> = route
                .clone()
                .map(|bundle| partition.links[bundle])
                .collect();
            links.sort_unstable();
            links.dedup();
            let limits = route.map(|&bundle| Rate::of(bundles[bundle].capacity_per_flow, clock));
            network.lanes.push(Lane {
                limit: limits.min().unwrap_or(Rate::MAX),
                latency: Latency::new(&ways[number].route, topology, clock),
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
        for (way, &lane) in ways.iter().zip(&partition.lanes) {
            for bundle in &way.route {
                let link = &mut network.links[partition.links[bundle]];
                if link.bundles[0] == *bundle {
                    match link
                        .crossings
                        .binary_search_by_key(&lane, |&(lane, _)| lane)
                    {
                        Ok(position) => link.crossings[position].1 += 1,
                        Err(position) => link.crossings.insert(position, (lane, 1)),
                    }
                }
            }
        }
        (network, partition)
    }
}

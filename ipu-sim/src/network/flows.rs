//! How fast do transfers move that meet on links, and when are they through?
//!
//! Rates are max-min fair: all transfers speed up together until a link is full or a transfer is
//! at its own limit; those stay where they are and the others go on. Whenever a transfer begins or
//! ends, those that hang together with it over links get new rates; in between rates are constant.
//! Links send small packets and take their senders in turn, which is what this stands for.
//!
//! Amounts and rates are whole multiples of a tiny quantum, so that time is whole cycles, sums are
//! exact, and a moment later or earlier changes nothing: repeats can be folded to the cycle.
//! A transfer that ends within a cycle ends with it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Link, LinkId, Network, RouteId};
use crate::ids::IdVec;
use crate::units::{Bytes, BytesPerSecond, Cycles, Hertz};

/// Quanta of a byte: a power of two, so small that rounding rates down costs nothing visible.
const QUANTA_PER_BYTE: u64 = 1 << 32;

/// Quanta a cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// No limit.
    pub const MAX: Self = Self(u64::MAX >> 16);

    /// A rate beyond the chip, seen from a clock; rounded down to quanta, but never to nothing.
    #[must_use]
    pub fn of(rate: BytesPerSecond, clock: Hertz) -> Self {
        let quanta = rate.0 / clock.0 * QUANTA_PER_BYTE as f64;
        Self((quanta as u64).clamp(1, Self::MAX.0))
    }

    /// Cycles in which a transfer of `bytes` at this rate is through.
    #[must_use]
    pub fn cycles(self, bytes: Bytes) -> Cycles {
        cycles(quanta(bytes), self)
    }
}

fn quanta(bytes: Bytes) -> u128 {
    u128::from(bytes.0) * u128::from(QUANTA_PER_BYTE)
}

fn cycles(quanta: u128, rate: Rate) -> Cycles {
    let cycles = quanta.div_ceil(u128::from(rate.0));
    Cycles(u64::try_from(cycles).unwrap_or(u64::MAX >> 8))
}

/// A transfer that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Route of the transfer.
    pub route: RouteId,
    /// All that it moves.
    pub bytes: Bytes,
    /// Quanta that are left at `since`.
    left: u128,
    /// What it moves at since then.
    rate: Rate,
    /// When its rate was last set.
    since: Cycles,
    /// Which of all rates that transfers were given its own is, so that an end that was foretold
    /// at another one, or for an earlier transfer of the same key, is known to be stale.
    pub stamp: u64,
}

impl Flow {
    /// Cycle at which the transfer is through, if nothing begins or ends before.
    #[must_use]
    pub fn end(&self) -> Cycles {
        self.since + cycles(self.left, self.rate)
    }

    /// What decides how it goes on: its rate, and what is left at `now`.
    pub(crate) fn state(&self, now: Cycles) -> [i128; 2] {
        let to_go = i128::from(self.since.0) - i128::from(now.0);
        let left = i128::try_from(self.left).expect("less than 2^127 quanta");
        [
            left + i128::from(self.rate.0) * to_go,
            i128::from(self.rate.0),
        ]
    }
}

/// All transfers that move at a time, by a key of the caller's.
#[derive(Clone, Debug)]
pub struct Flows<'a, K> {
    network: &'a Network,
    moving: BTreeMap<K, Flow>,
    on_link: IdVec<LinkId, BTreeSet<K>>,
    /// Bytes that entered each route, and those that left it.
    tally: IdVec<RouteId, [Bytes; 2]>,
    /// Rates given so far.
    stamps: u64,
}

impl<'a, K: Copy + Ord> Flows<'a, K> {
    /// Nothing moves yet.
    #[must_use]
    pub fn new(network: &'a Network) -> Self {
        Self {
            network,
            moving: BTreeMap::new(),
            on_link: network.links.ids().map(|_| BTreeSet::new()).collect(),
            tally: network.routes.ids().map(|_| [Bytes::ZERO; 2]).collect(),
            stamps: 0,
        }
    }

    /// A transfer that moves.
    #[must_use]
    pub fn get(&self, key: K) -> Option<&Flow> {
        self.moving.get(&key)
    }

    /// All that moves.
    pub fn iter(&self) -> impl Iterator<Item = (K, &Flow)> {
        self.moving.iter().map(|(&key, flow)| (key, flow))
    }

    /// A transfer begins; which transfers have new ends.
    ///
    /// # Panics
    ///
    /// If one of this key moves already.
    pub fn begin(&mut self, key: K, route: RouteId, bytes: Bytes, now: Cycles) -> Vec<K> {
        let flow = Flow {
            route,
            bytes,
            left: quanta(bytes),
            rate: Rate(0),
            since: now,
            stamp: self.stamps,
        };
        let before = self.moving.insert(key, flow);
        assert!(before.is_none(), "a transfer begins once");
        self.tally[route][0] += bytes;
        for &link in &self.network.routes[route].links {
            self.on_link[link].insert(key);
        }
        self.share_again(route, Some(key), now)
    }

    /// A transfer is through; which others have new ends.
    ///
    /// # Panics
    ///
    /// If none of this key moves, or if some of it is left.
    pub fn end(&mut self, key: K, now: Cycles) -> Vec<K> {
        let flow = self.moving.remove(&key).expect("what ends has begun");
        assert!(flow.end() <= now, "all bytes that were sent arrive");
        let route = flow.route;
        self.tally[route][1] += flow.bytes;
        for &link in &self.network.routes[route].links {
            self.on_link[link].remove(&key);
        }
        self.share_again(route, None, now)
    }

    /// Moves what `chosen` picks to a later time, with nothing else changed.
    pub(crate) fn shift(&mut self, by: Cycles, chosen: impl Fn(K) -> bool) {
        for (_, flow) in self.moving.iter_mut().filter(|(key, _)| chosen(**key)) {
            flow.since += by;
        }
    }

    /// Checks that every byte that entered a route left it, but for what still moves.
    pub(crate) fn check_conserved(&self) {
        let mut missing: IdVec<RouteId, Bytes> = self
            .tally
            .values()
            .map(|[sent, received]| *sent - *received)
            .collect();
        for flow in self.moving.values() {
            missing[flow.route] -= flow.bytes;
        }
        assert!(
            missing.values().all(|&bytes| bytes == Bytes::ZERO),
            "bytes sent are bytes received"
        );
    }

    /// New rates for all that hang together with `route`; those whose ends have changed.
    fn share_again(&mut self, route: RouteId, alone: Option<K>, now: Cycles) -> Vec<K> {
        let mut keys: BTreeSet<K> = alone.into_iter().collect();
        let mut links: BTreeSet<LinkId> =
            self.network.routes[route].links.iter().copied().collect();
        let mut todo: Vec<LinkId> = links.iter().copied().collect();
        while let Some(link) = todo.pop() {
            for &key in &self.on_link[link] {
                if keys.insert(key) {
                    let further = &self.network.routes[self.moving[&key].route].links;
                    todo.extend(further.iter().copied().filter(|&link| links.insert(link)));
                }
            }
        }
        let keys: Vec<K> = keys.into_iter().collect();
        let routes: Vec<RouteId> = keys.iter().map(|key| self.moving[key].route).collect();
        let rates = share(self.network, &routes, &links);
        let mut changed = Vec::new();
        for (key, rate) in keys.into_iter().zip(rates) {
            let flow = self.moving.get_mut(&key).expect("listed above");
            if flow.rate != rate {
                assert!(flow.since <= now, "time never goes back");
                let moved = u128::from((now - flow.since).0) * u128::from(flow.rate.0);
                flow.left = flow.left.saturating_sub(moved);
                flow.since = now;
                flow.rate = rate;
                self.stamps += 1;
                flow.stamp = self.stamps;
                changed.push(key);
            }
        }
        changed
    }
}

/// Max-min fair rates of transfers on `routes`, one for each, which cross no other links.
fn share(network: &Network, routes: &[RouteId], links: &BTreeSet<LinkId>) -> Vec<Rate> {
    struct Load<'a> {
        link: &'a Link,
        left: u64,
        crossings: u64,
    }
    let mut loads: BTreeMap<LinkId, Load<'_>> = BTreeMap::new();
    for &id in links {
        let link = &network.links[id];
        let crossings = routes.iter().map(|&route| link.crossings_of(route)).sum();
        let load = Load {
            link,
            left: link.capacity.0,
            crossings,
        };
        loads.insert(id, load);
    }
    let mut rates = vec![None; routes.len()];
    let mut open = routes.len();
    while open > 0 {
        let full = loads.values().filter(|load| load.crossings > 0);
        let fair = full.map(|load| load.left / load.crossings).min();
        let waiting = routes.iter().zip(&rates).filter(|(_, rate)| rate.is_none());
        let limit = waiting
            .map(|(&route, _)| network.routes[route].limit.0)
            .min();
        let rate = fair.unwrap_or(u64::MAX).min(limit.expect("some are open"));
        let at_limit = |route: RouteId| network.routes[route].limit.0 <= rate;
        let on_full = |route: RouteId| {
            let mut links = network.routes[route].links.iter().map(|link| &loads[link]);
            links.any(|load| load.left / load.crossings <= rate)
        };
        let chosen: Vec<usize> = (0..routes.len())
            .filter(|&n| rates[n].is_none() && (at_limit(routes[n]) || on_full(routes[n])))
            .collect();
        for &number in &chosen {
            // A link that is asked for more than a quantum a cycle by each gives each at least one.
            rates[number] = Some(Rate(rate.max(1)));
            for link in &network.routes[routes[number]].links {
                let load = loads.get_mut(link).expect("all links are listed");
                let crossings = load.link.crossings_of(routes[number]);
                assert!(
                    rate * crossings <= load.left,
                    "no link carries more than its capacity"
                );
                load.left -= rate * crossings;
                load.crossings -= crossings;
            }
        }
        open -= chosen.len();
    }
    rates
        .into_iter()
        .map(|rate| rate.expect("all have one"))
        .collect()
}

/// Transfers that all begin at once, until each is through: when that is, in their order.
///
/// Ends are counted from the begin, and don't include the latency of the route.
#[must_use]
pub fn ends_together(network: &Network, transfers: &[(RouteId, Bytes)]) -> Vec<Cycles> {
    let mut flows = Flows::new(network);
    for (number, &(route, bytes)) in transfers.iter().enumerate() {
        flows.begin(number, route, bytes, Cycles::ZERO);
    }
    let mut ends = vec![Cycles::ZERO; transfers.len()];
    while let Some((key, end)) = flows
        .iter()
        .map(|(key, flow)| (key, flow.end()))
        .min_by_key(|&(key, end)| (end, key))
    {
        ends[key] = end;
        flows.end(key, end);
    }
    flows.check_conserved();
    ends
}

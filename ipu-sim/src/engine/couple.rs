//! Who can make whom wait inside a repeat?
//!
//! Actors that meet at a step wait for each other, and so do those whose transfers cross the same
//! link or pass the same buffer of a stream. What hangs together is one group; groups of a repeat run through it independently.

use super::linked::{Group, Item, Linked, Repeat};
use crate::ids::{Id, IpuId};

/// Joins actors and what they share: a union-find forest over actors, then links, then buffers.
#[derive(Clone, Debug)]
struct Coupling {
    parent: Vec<usize>,
    used: Vec<bool>,
}

impl Coupling {
    fn new(n_nodes: usize) -> Self {
        Self {
            parent: (0..n_nodes).collect(),
            used: vec![false; n_nodes],
        }
    }

    fn root(&self, mut node: usize) -> usize {
        while self.parent[node] != node {
            node = self.parent[node];
        }
        node
    }

    fn join(&mut self, nodes: impl IntoIterator<Item = usize>) {
        let mut first = None;
        for node in nodes {
            self.used[node] = true;
            let (a, b) = (self.root(*first.get_or_insert(node)), self.root(node));
            // The smaller number is the root, so that every group has an actor as its root.
            self.parent[a.max(b)] = a.min(b);
        }
    }

    fn join_all(&mut self, other: &Self) {
        for node in (0..other.used.len()).filter(|&node| other.used[node]) {
            self.join([other.root(node), node]);
        }
    }
}

/// Finds the groups of repeats.
pub(super) struct Coupler {
    n_actors: usize,
    /// By block: what its steps join. A block's callees and repeats come before it.
    blocks: Vec<Coupling>,
    /// By link, then by buffer: actors that use it anywhere.
    users: Vec<Vec<bool>>,
}

impl Coupler {
    pub(super) fn new(linked: &Linked) -> Self {
        let n_actors = linked.n_actors();
        let schedule = &linked.schedule;
        let n_buffers = schedule.n_classes as usize * schedule.streams.len();
        let n_shared = schedule.network.links.len() + n_buffers;
        let mut coupler = Self {
            n_actors,
            blocks: Vec::with_capacity(linked.blocks.len()),
            users: vec![vec![false; n_actors]; n_shared],
        };
        for lists in &linked.blocks {
            let mut coupling = Coupling::new(n_actors + n_shared);
            let items = (0..)
                .zip(lists)
                .flat_map(|(ipu, list)| list.iter().map(move |item| (ipu, item)));
            for (ipu, (_, item)) in items {
                match *item {
                    Item::Leaf(leaf) => coupler.leaf(linked, leaf, &mut coupling),
                    Item::Repeat(repeat) => {
                        let block = linked.repeats[repeat as usize].block;
                        coupling.join_all(&coupler.blocks[block as usize]);
                    }
                    Item::Call(_, block) => coupling.join_all(&coupler.blocks[block as usize]),
                    Item::Section(_) => {
                        for class in 0..schedule.n_classes as usize {
                            coupling.join([linked.actor(class, IpuId(ipu))]);
                        }
                    }
                }
            }
            coupler.blocks.push(coupling);
        }
        coupler
    }

    fn leaf(&mut self, linked: &Linked, leaf: u32, coupling: &mut Coupling) {
        let leaf = &linked.leaves[leaf as usize];
        for class in 0..linked.schedule.n_classes as usize {
            let actors = linked.meet(leaf, class);
            coupling.join(actors.iter().copied());
            let schedule = &linked.schedule;
            let n_links = schedule.network.links.len();
            let mut shared = Vec::new();
            for moving in &leaf.moving {
                let mut all_ends = vec![moving.ends];
                if let Some((stream, _)) = moving.stream {
                    shared.push(n_links + class * schedule.streams.len() + stream.index());
                    all_ends.extend(schedule.streams[stream].buffer.map(|buffer| buffer.ends));
                }
                let routes = all_ends
                    .into_iter()
                    .filter_map(|ends| linked.route(class, ends));
                let links = routes.flat_map(|route| &schedule.network.routes[route].links);
                shared.extend(links.map(|link| link.index()));
            }
            for shared in shared {
                coupling.join([actors[0], self.n_actors + shared]);
                self.users[shared][actors[0]] = true;
            }
        }
    }

    pub(super) fn groups(&self, repeats: &mut [Repeat]) {
        for repeat in repeats {
            let coupling = &self.blocks[repeat.block as usize];
            repeat.group_of = vec![None; self.n_actors];
            for actor in (0..self.n_actors).filter(|&actor| coupling.used[actor]) {
                let root = coupling.root(actor);
                if root == actor {
                    repeat.groups.push(Group {
                        actors: Vec::new(),
                        exclusive: true,
                    });
                    repeat.group_of[actor] = Some(repeat.groups.len() as u32 - 1);
                }
                let group = repeat.group_of[root].expect("a root is its group's first");
                repeat.group_of[actor] = Some(group);
                repeat.groups[group as usize].actors.push(actor);
            }
            for shared in (0..self.users.len()).filter(|n| coupling.used[self.n_actors + n]) {
                let group = repeat.group_of[coupling.root(self.n_actors + shared)];
                let group = group.expect("an actor uses it");
                let mut users = self.users[shared].iter().zip(&repeat.group_of);
                if users.any(|(&uses, &of)| uses && of != Some(group)) {
                    repeat.groups[group as usize].exclusive = false;
                }
            }
        }
    }
}

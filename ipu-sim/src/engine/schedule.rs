//! A program reduced to what its time depends on.
//!
//! Every step becomes a [`Leaf`]: the IPUs it joins, the cycles it then takes, and what it moves
//! beyond them. Repeats and calls stay as they are, so a schedule is as short as its program.
//!
//! [`Schedule::link`] turns the steps around: every IPU gets its own list of what concerns it, and
//! every repeat the groups of actors (IPUs of replicas) that can make each other wait inside it.

use smallvec::SmallVec;

use super::couple::Coupler;
use super::timeline::{Activity, Channel, ConstantUsage, ProductFlops};
use crate::collective::{RoundId, Rounds};
use crate::ids::{IdVec, IpuId};
use crate::network::{Network, RouteId};
use crate::program::{FunctionId, SectionId, SourceId, StreamId};
use crate::topology::HostDirection;
use crate::units::{Bytes, Cycles};

/// The ends of a route beyond an IPU, the same for all replicas: an index of [`Schedule::routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndsId(pub(super) u32);

/// Who meets at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// IPUs of a replica.
    Replica,
    /// The same IPUs of all replicas.
    AllReplicas,
}

/// A transfer of one step over one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moving {
    /// The ends of its route.
    pub(super) ends: EndsId,
    /// How much.
    pub(super) bytes: Bytes,
    /// The stream whose buffer it empties (in) or fills (out).
    pub(super) stream: Option<(StreamId, HostDirection)>,
}

/// One step: all its IPUs wait for the last one, spend the same cycles, and wait for what moves.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Leaf {
    /// Where it comes from.
    pub(super) source: SourceId,
    /// Who takes part, in order.
    pub(super) ipus: SmallVec<[IpuId; 2]>,
    /// In which replicas.
    pub(super) scope: Scope,
    /// What it takes before anything moves.
    pub(super) spends: SmallVec<[(Activity, Cycles); 2]>,
    /// What it computes in matrix products.
    pub(super) products: ProductFlops,
    /// What then moves, all at once.
    pub(super) moving: SmallVec<[Moving; 1]>,
    /// What waiting for it counts as.
    pub(super) waiting: Activity,
    /// What it moves, for the tally.
    pub(super) moves: SmallVec<[(Channel, Bytes); 1]>,
    /// Rounds of a collective, and how often each happens.
    pub(super) rounds: Vec<(RoundId, u32)>,
    /// What each of its IPUs pays for by the piece, but for what moves.
    pub(super) usage: ConstantUsage,
}

/// One step of a schedule.
#[expect(clippy::large_enum_variant, reason = "nearly all steps are leaves")]
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Timed {
    /// A step that takes time.
    Leaf(Leaf),
    /// Steps a number of times.
    Repeat {
        /// How often.
        count: u32,
        /// What.
        body: Vec<Timed>,
    },
    /// The steps of a function.
    Call(FunctionId),
    /// What follows belongs to this section.
    Section(SectionId),
}

/// A stream between host and device, with the buffer beside the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    /// Elements that the buffer holds; without any, each is fetched when it is asked for.
    pub(super) depth: u32,
    /// Time for the host to answer.
    pub(super) latency: Cycles,
    /// Between host and buffer; none if the stream is unused.
    pub(super) buffer: Option<Buffer>,
}

/// What passes between a host and a buffer beside the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) ends: EndsId,
    /// One element.
    pub(super) bytes: Bytes,
    pub(super) direction: HostDirection,
    /// Whose gateway holds it.
    pub(super) ipu: IpuId,
}

/// What the time of a program depends on, before it is linked.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    pub(super) n_ipus: u32,
    pub(super) n_sources: usize,
    pub(super) n_sections: usize,
    /// Classes of replicas that may run at different times.
    pub(super) n_classes: u32,
    /// What the host takes to start the run.
    pub(super) start: Cycles,
    pub(super) network: Network,
    /// Links of the machine.
    pub(super) n_bundles: usize,
    /// Those of the longest route.
    pub(super) route_max: usize,
    /// What moves in the rounds of collectives.
    pub(super) rounds: Rounds,
    /// By class of replicas and [`EndsId`]; none where a route has no links.
    pub(super) routes: Vec<Vec<Option<RouteId>>>,
    pub(super) streams: IdVec<StreamId, Stream>,
    pub(super) functions: IdVec<FunctionId, Vec<Timed>>,
    pub(super) steps: Vec<Timed>,
}

/// Index of a list of items for each IPU.
pub(super) type BlockId = u32;

/// What an IPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A step: index of [`Linked::leaves`].
    Leaf(u32),
    /// A repeat: index of [`Linked::repeats`].
    Repeat(u32),
    /// A function.
    Call(FunctionId, BlockId),
    /// What follows belongs to a section; every IPU comes to know.
    Section(SectionId),
}

/// A repeat.
#[derive(Clone, Debug)]
pub(super) struct Repeat {
    pub(super) count: u32,
    pub(super) block: BlockId,
    /// The group of each actor that takes part.
    pub(super) group_of: Vec<Option<u32>>,
    pub(super) groups: Vec<Group>,
}

/// Actors that can make each other wait inside a repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// In order; the first one leads.
    pub(super) actors: Vec<usize>,
    /// Whether no actor outside uses any of its links or streams anywhere in the program.
    pub(super) exclusive: bool,
}

/// A schedule as the actors walk it. An actor is an IPU of a class of replicas, numbered
/// `class * n_ipus + ipu`.
#[derive(Clone, Debug)]
pub(super) struct Linked {
    pub(super) schedule: Schedule,
    pub(super) leaves: Vec<Leaf>,
    pub(super) repeats: Vec<Repeat>,
    /// By block and IPU: items with their position in the program.
    pub(super) blocks: Vec<Vec<Vec<(u32, Item)>>>,
    pub(super) main: BlockId,
    pub(super) n_functions: usize,
}

impl Linked {
    pub(super) fn n_actors(&self) -> usize {
        (self.schedule.n_classes * self.schedule.n_ipus) as usize
    }

    /// Class and IPU of an actor.
    pub(super) fn place(&self, actor: usize) -> (usize, IpuId) {
        let n = self.schedule.n_ipus as usize;
        (actor / n, IpuId((actor % n) as u32))
    }

    pub(super) fn actor(&self, class: usize, ipu: IpuId) -> usize {
        class * self.schedule.n_ipus as usize + ipu.0 as usize
    }

    /// Everyone who meets at a leaf, if `class` comes to it.
    pub(super) fn meet(&self, leaf: &Leaf, class: usize) -> SmallVec<[usize; 4]> {
        let classes = match leaf.scope {
            Scope::Replica => class..class + 1,
            Scope::AllReplicas => 0..self.schedule.n_classes as usize,
        };
        classes
            .flat_map(|class| leaf.ipus.iter().map(move |&ipu| (class, ipu)))
            .map(|(class, ipu)| self.actor(class, ipu))
            .collect()
    }

    /// The route between two ends; none if it has no links.
    pub(super) fn route(&self, class: usize, ends: EndsId) -> Option<RouteId> {
        self.schedule.routes[class][ends.0 as usize]
    }
}

impl Schedule {
    /// Turns the steps around.
    ///
    /// # Panics
    ///
    /// If a function calls itself ([`crate::verify`]).
    pub(super) fn link(mut self) -> Linked {
        let functions = std::mem::take(&mut self.functions);
        let steps = std::mem::take(&mut self.steps);
        let mut linker = Linker {
            linked: Linked {
                schedule: self,
                leaves: Vec::new(),
                repeats: Vec::new(),
                blocks: Vec::new(),
                main: 0,
                n_functions: functions.len(),
            },
            of_function: functions.ids().map(|_| None).collect(),
            functions,
            depth: 0,
        };
        linker.linked.main = linker.block(steps);
        let mut linked = linker.linked;
        Coupler::new(&linked).groups(&mut linked.repeats);
        linked
    }
}

struct Linker {
    linked: Linked,
    functions: IdVec<FunctionId, Vec<Timed>>,
    of_function: IdVec<FunctionId, Option<BlockId>>,
    depth: usize,
}

impl Linker {
    fn block(&mut self, steps: Vec<Timed>) -> BlockId {
        let n_ipus = self.linked.schedule.n_ipus as usize;
        let mut lists = vec![Vec::new(); n_ipus];
        for (number, step) in (0..).zip(steps) {
            let (item, inner) = match step {
                Timed::Leaf(leaf) => {
                    let item = Item::Leaf(self.linked.leaves.len() as u32);
                    for &ipu in &leaf.ipus {
                        lists[ipu.0 as usize].push((number, item));
                    }
                    self.linked.leaves.push(leaf);
                    continue;
                }
                Timed::Repeat { count, body } => {
                    if count == 0 {
                        continue;
                    }
                    let block = self.block(body);
                    self.linked.repeats.push(Repeat {
                        count,
                        block,
                        group_of: Vec::new(),
                        groups: Vec::new(),
                    });
                    (Item::Repeat(self.linked.repeats.len() as u32 - 1), block)
                }
                Timed::Call(function) => {
                    let block = self.function(function);
                    (Item::Call(function, block), block)
                }
                Timed::Section(section) => {
                    for list in &mut lists {
                        list.push((number, Item::Section(section)));
                    }
                    continue;
                }
            };
            let inside = &self.linked.blocks[inner as usize];
            for (list, _) in lists
                .iter_mut()
                .zip(inside)
                .filter(|(_, inside)| !inside.is_empty())
            {
                list.push((number, item));
            }
        }
        self.linked.blocks.push(lists);
        self.linked.blocks.len() as BlockId - 1
    }

    fn function(&mut self, id: FunctionId) -> BlockId {
        if let Some(block) = self.of_function[id] {
            return block;
        }
        self.depth += 1;
        assert!(self.depth <= self.functions.len(), "{id} calls itself");
        let steps = self.functions[id].clone();
        let block = self.block(steps);
        self.of_function[id] = Some(block);
        self.depth -= 1;
        block
    }
}

//! A schedule as it is walked: every IPU has its own list of what concerns it.
//!
//! Those who walk are actors: an actor is an IPU of a class of replicas, numbered
//! `class * n_ipus + ipu`. Every repeat has the groups of actors that can make each other wait
//! inside it.

use smallvec::SmallVec;

use super::schedule::{EndsId, Leaf, Schedule, Scope};
use crate::ids::IpuId;
use crate::network::RouteId;
use crate::program::{FunctionId, SectionId};

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

/// A schedule as the actors walk it.
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

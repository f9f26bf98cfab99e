//! What a call takes where it concerns nobody else, worked out once.
//!
//! The steps of an IPU that meet no other and move nothing beyond it take the same cycles whenever
//! they are called. So what a call of such a list does to clock and ledger is a sum over its items,
//! in which a repeat counts as often as it is passed and a callee as its own sum, whatever number
//! of calls that stands for: functions that each call the next one twice cost as many sums as
//! there are functions. What steps are counted for depends on the section that a call begins in,
//! and on nothing else.
//!
//! Left out: calls that join IPUs or use links. What they take depends on who else is there.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::engine::linked::{BlockId, Item, Linked};
use crate::engine::schedule::{Leaf, Scope};
use crate::engine::timeline::{ActivityCycles, CallTime, ConstantUsage, SourceTime, Tally};
use crate::ids::IpuId;
use crate::program::{FunctionId, SectionId, SourceId};

/// What a list of items of one IPU does.
#[derive(Clone, Debug, Default)]
pub(super) struct Effect {
    pub(super) tally: Tally,
    pub(super) usage: ConstantUsage,
    pub(super) sources: BTreeMap<SourceId, SourceTime>,
    pub(super) sections: BTreeMap<SectionId, ActivityCycles>,
    pub(super) functions: BTreeMap<FunctionId, CallTime>,
    /// The section that the IPU is in afterwards.
    pub(super) section: Option<SectionId>,
}

impl Effect {
    /// Adds what happens `times` times.
    fn add(&mut self, other: &Self, times: u64) {
        self.tally.add(&other.tally, times);
        self.usage.add(&other.usage, times);
        for (&source, time) in &other.sources {
            let sum = self.sources.entry(source).or_default();
            sum.spent.add_times(&time.spent, times);
            sum.steps += time.steps * times;
        }
        for (&section, spent) in &other.sections {
            let sum = self.sections.entry(section).or_default();
            sum.add_times(spent, times);
        }
        for (&function, called) in &other.functions {
            let sum = self.functions.entry(function).or_default();
            sum.tally.add(&called.tally, times);
            sum.calls += called.calls * times;
        }
        self.section = other.section;
    }

    fn add_leaf(&mut self, leaf: &Leaf) {
        let source = self.sources.entry(leaf.source).or_default();
        source.steps += 1;
        for &(activity, cycles) in &leaf.spends {
            self.tally.spent.add(activity, cycles);
            source.spent.add(activity, cycles);
            if let Some(section) = self.section {
                let section = self.sections.entry(section).or_default();
                section.add(activity, cycles);
            }
        }
        self.tally.products.add(&leaf.products, 1);
        self.usage.add(&leaf.usage, 1);
    }
}

/// What an [`Effect`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// One pass of the list of a block.
    List(BlockId),
    /// All passes of a repeat, by its number.
    Passes(u32),
}

/// Which lists concern one IPU alone, and what those do that an IPU came to.
pub(super) struct LocalCalls {
    /// By block and IPU.
    is_local: Vec<Vec<bool>>,
    /// By the section that the work begins in, too.
    effects: BTreeMap<(Work, IpuId, Option<SectionId>), Rc<Effect>>,
}

impl LocalCalls {
    pub(super) fn new(linked: &Linked) -> Self {
        let mut is_local: Vec<Vec<bool>> = Vec::with_capacity(linked.blocks.len());
        // Callees and bodies stand before the blocks that they are in.
        for lists in &linked.blocks {
            let inside = |block: BlockId, ipu: usize| is_local[block as usize][ipu];
            let local = lists.iter().enumerate().map(|(ipu, list)| {
                list.iter().all(|&(_, item)| match item {
                    Item::Leaf(leaf) => concerns_one(&linked.leaves[leaf as usize]),
                    Item::Repeat(repeat) => inside(linked.repeats[repeat as usize].block, ipu),
                    Item::Call(_, block) => inside(block, ipu),
                    Item::Section(_) => true,
                })
            });
            let local = local.collect();
            is_local.push(local);
        }
        Self {
            is_local,
            effects: BTreeMap::new(),
        }
    }

    /// What the list of a callee does that an IPU comes to in `section`, if it concerns that IPU
    /// alone.
    pub(super) fn call(
        &mut self,
        linked: &Linked,
        (block, ipu): (BlockId, IpuId),
        section: Option<SectionId>,
    ) -> Option<Rc<Effect>> {
        let local = self.is_local[block as usize][ipu.0 as usize];
        local.then(|| self.effect(linked, (Work::List(block), ipu), section))
    }

    /// What all passes of a repeat do, as [`Self::call`].
    pub(super) fn repeat(
        &mut self,
        linked: &Linked,
        (repeat, ipu): (u32, IpuId),
        section: Option<SectionId>,
    ) -> Option<Rc<Effect>> {
        let block = linked.repeats[repeat as usize].block;
        let local = self.is_local[block as usize][ipu.0 as usize];
        local.then(|| self.effect(linked, (Work::Passes(repeat), ipu), section))
    }

    /// What some work does, worked out the first time.
    fn effect(
        &mut self,
        linked: &Linked,
        (work, ipu): (Work, IpuId),
        section: Option<SectionId>,
    ) -> Rc<Effect> {
        if let Some(known) = self.effects.get(&(work, ipu, section)) {
            return Rc::clone(known);
        }
        let effect = Rc::new(match work {
            Work::List(block) => self.list(linked, (block, ipu), section),
            Work::Passes(repeat) => self.passes(linked, (repeat, ipu), section),
        });
        let known = Rc::clone(&effect);
        self.effects.insert((work, ipu, section), known);
        effect
    }

    fn passes(
        &mut self,
        linked: &Linked,
        (number, ipu): (u32, IpuId),
        section: Option<SectionId>,
    ) -> Effect {
        let repeat = &linked.repeats[number as usize];
        // All passes but the first begin in the section that a pass ends in.
        let pass = Work::List(repeat.block);
        let first = self.effect(linked, (pass, ipu), section);
        let next = self.effect(linked, (pass, ipu), first.section);
        let mut sum = Effect::clone(&first);
        sum.add(&next, u64::from(repeat.count) - 1);
        sum
    }

    fn list(
        &mut self,
        linked: &Linked,
        (block, ipu): (BlockId, IpuId),
        section: Option<SectionId>,
    ) -> Effect {
        let mut sum = Effect {
            section,
            ..Effect::default()
        };
        for &(_, item) in &linked.blocks[block as usize][ipu.0 as usize] {
            match item {
                Item::Leaf(leaf) => sum.add_leaf(&linked.leaves[leaf as usize]),
                Item::Section(section) => sum.section = Some(section),
                Item::Call(function, block) => {
                    let called = self.effect(linked, (Work::List(block), ipu), sum.section);
                    sum.add(&called, 1);
                    let calls = sum.functions.entry(function).or_default();
                    calls.calls += 1;
                    calls.tally.add(&called.tally, 1);
                }
                Item::Repeat(repeat) => {
                    let passes = self.effect(linked, (Work::Passes(repeat), ipu), sum.section);
                    sum.add(&passes, 1);
                }
            }
        }
        sum
    }
}

/// Whether a step waits for nobody and moves nothing.
fn concerns_one(leaf: &Leaf) -> bool {
    let alone = leaf.ipus.len() == 1 && leaf.scope == Scope::Replica;
    alone && leaf.moving.is_empty() && leaf.moves.is_empty() && leaf.rounds.is_empty()
}

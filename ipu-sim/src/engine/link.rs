//! How do the steps of a schedule become a list for every IPU?
//!
//! Step by step: what joins several IPUs goes into the list of each. Repeats and functions become
//! lists of their own, functions once however often they are called.

use super::couple::Coupler;
use super::linked::{BlockId, Item, Linked, Repeat};
use super::schedule::{Schedule, Timed};
use crate::ids::IdVec;
use crate::program::FunctionId;

/// Turns the steps of a schedule around.
///
/// # Panics
///
/// If a function calls itself ([`crate::verify`]).
pub(super) fn link(mut schedule: Schedule) -> Linked {
    let functions = std::mem::take(&mut schedule.functions);
    let steps = std::mem::take(&mut schedule.steps);
    let mut linker = Linker {
        linked: Linked {
            schedule,
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

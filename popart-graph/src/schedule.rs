//! In which order operations run.
//!
//! Stages follow each other, and in each stage forward before backward before the copies
//! that leave it; the weight update is last, one IPU after the other (PopART's schedule
//! `Serial` of the accumulate-outer fragment; [`overlap_updates`] is another) and in it one
//! weight after the other. Where stages update weights themselves, that comes between their
//! backward pass and their copies (`delayVarUpdates`), and hyper-parameters are made ready
//! before everything else. Within
//! such a slot the order of the arena is kept, which is the order in which the model and its
//! gradients were written down, with these exceptions:
//!
//! - an operation waits for what it reads, which is then made at the last moment: restores,
//!   loads and other operations that passes have added later stand before their first use;
//! - an *eager* operation, one that frees memory or keeps a value safe, runs as soon as it
//!   can: adding a gradient to its accumulator (PopART's `AccumulatePriorityPattern`), a
//!   stash, a store, zeroing, gathering shards, a result that leaves an outlined call;
//! - a variable's new value is written after every other reader of the variable, and a
//!   tensor is zeroed after every other reader of it, so that both can happen in place;
//! - a restore that only recomputed operations need stands before the first operation of its
//!   stage that reads what they compute again.
//!
//! Left out: a search for the order with the least live memory, and when recomputed
//! operations run again, which the lowering finds.

mod error;
mod overlap;

use std::collections::{BTreeMap, BTreeSet};

use ipu_sim::ids::{IdVec, IpuId};
use smallvec::SmallVec;

pub use self::error::ScheduleError;
pub use self::overlap::overlap_updates;
use crate::ir::{Graph, Op, OpId, OpKind, Phase, Recompute, StageId, TensorId};

/// An order of all operations of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Every operation once, each after what it waits for.
    pub order: Vec<OpId>,
}

/// Orders the operations of a well-formed graph, in time that grows with its size.
///
/// # Errors
/// The graph has a cycle, or an operation needs both a variable's new value and the old one,
/// so that the variable can't be updated in place.
pub fn schedule(graph: &Graph) -> Result<Schedule, ScheduleError> {
    graph.topological_order()?;
    let waits = waits(graph);
    let slots = slots(graph, &waits);
    let mut emitter = Emitter::new(graph, &waits, &slots);
    let mut ops: Vec<OpId> = graph.ops.ids().collect();
    ops.sort_by_key(|&op| (slots[op], turn(graph, &waits, &slots, op), op));
    for op in ops {
        emitter.emit_with_what_it_waits_for(op)?;
    }
    let order = emitter.order;
    assert!(
        order.is_sorted_by_key(|&op| slots[op].place()),
        "in a well-formed graph values flow to later stages and phases"
    );
    Ok(Schedule { order })
}

/// When an operation of a slot is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// Eager, and ready when the slot begins.
    Eager,
    InOrder,
    /// Only runs for the sake of what reads it.
    Lazy,
}

fn turn(graph: &Graph, waits: &Waits, slots: &IdVec<OpId, ScheduleSlot>, op: OpId) -> Turn {
    let ready = || waits[op].iter().all(|&needed| slots[needed] != slots[op]);
    match graph.ops[op].kind {
        OpKind::Restore { .. } | OpKind::RemoteLoad | OpKind::LocalSlice { .. } => Turn::Lazy,
        _ if is_eager(graph, op) && ready() => Turn::Eager,
        _ => Turn::InOrder,
    }
}

fn is_eager(graph: &Graph, op: OpId) -> bool {
    let op = &graph.ops[op];
    op.phase == Phase::Accumulate
        || matches!(
            op.kind,
            OpKind::Stash { .. }
                | OpKind::RemoteStore
                | OpKind::Zero
                | OpKind::AllGather { .. }
                | OpKind::CallOutput
        )
}

/// The operations that each operation waits for.
pub(crate) type Waits = IdVec<OpId, SmallVec<[OpId; 4]>>;

/// What each operation reads, and what must have read before it writes.
pub(crate) fn waits(graph: &Graph) -> Waits {
    let producers = graph.producers();
    let consumers = graph.consumers();
    let mut waits: Waits = graph
        .ops
        .values()
        .map(|op| op.inputs.iter().filter_map(|&id| producers[id]).collect())
        .collect();
    for &(variable, value) in &graph.updates {
        if let Some(writer) = producers[value] {
            wait_for_readers(graph, &mut waits, writer, &consumers[variable]);
        }
    }
    for (id, op) in graph.ops.iter() {
        match op.kind {
            OpKind::Zero => wait_for_readers(graph, &mut waits, id, &consumers[op.inputs[0]]),
            OpKind::Restore { .. } => {
                for reader in readers_of_recomputed(graph, id, &producers, &consumers) {
                    waits[reader].push(id);
                }
            }
            _ => {}
        }
    }
    waits
}

/// Lets `writer` wait for the other readers of what it overwrites. Readers of other phases
/// run earlier anyway.
fn wait_for_readers(graph: &Graph, waits: &mut Waits, writer: OpId, readers: &[OpId]) {
    let phase = graph.ops[writer].phase;
    for &reader in readers {
        if reader != writer && graph.ops[reader].phase == phase {
            waits[writer].push(reader);
        }
    }
}

/// The operations of a restore's stage that read what is recomputed from the restored tensor.
fn readers_of_recomputed(
    graph: &Graph,
    restore: OpId,
    producers: &IdVec<TensorId, Option<OpId>>,
    consumers: &IdVec<TensorId, SmallVec<[OpId; 4]>>,
) -> Vec<OpId> {
    let stage = graph.ops[restore].stage;
    let Some(stash) = producers[graph.ops[restore].inputs[0]] else {
        return Vec::new();
    };
    let mut readers = Vec::new();
    let mut seen = BTreeSet::new();
    let mut pending: Vec<TensorId> = graph.ops[stash].inputs.to_vec();
    while let Some(tensor) = pending.pop() {
        for &reader in &consumers[tensor] {
            let op = &graph.ops[reader];
            if op.stage == stage {
                readers.push(reader);
            } else if op.recompute == Recompute::Recompute && seen.insert(reader) {
                pending.extend(&op.outputs);
            }
        }
    }
    readers.retain(|&reader| reader != restore);
    readers
}

/// Slot of the schedule. The order of fields is the order of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ScheduleSlot {
    /// Of a pipeline whose stages update weights: its hyper-parameters.
    Hyper,
    /// Of a micro-batch; where stages update weights, with a set of operations that hang
    /// together.
    Micro {
        stage: Option<StageId>,
        turn: u8,
        chain: Option<OpId>,
    },
    /// Of the weight update: a set of operations that hang together.
    Update { ipu: Option<IpuId>, chain: OpId },
}

impl ScheduleSlot {
    /// Where in the schedule it is, chains aside: one may wait for another.
    fn place(self) -> (u8, Option<StageId>, u8) {
        match self {
            Self::Hyper => (0, None, 0),
            Self::Micro { stage, turn, .. } => (1, stage, turn),
            Self::Update { .. } => (2, None, 0),
        }
    }
}

fn slots(graph: &Graph, waits: &Waits) -> IdVec<OpId, ScheduleSlot> {
    let chains = chains(graph, waits);
    let in_stages = graph.updates_in_stages();
    graph
        .ops
        .iter()
        .map(|(id, op)| {
            let leaves = op.stage.is_some() && matches!(op.kind, OpKind::IpuCopy { .. });
            let micro = |turn, chain| ScheduleSlot::Micro {
                stage: op.stage,
                turn,
                chain,
            };
            match op.phase {
                Phase::Update if op.stage.is_some() => micro(2, Some(chains[id])),
                Phase::Update if in_stages => ScheduleSlot::Hyper,
                Phase::Update => ScheduleSlot::Update {
                    ipu: op.ipu,
                    chain: chains[id],
                },
                _ if leaves => micro(3, None),
                Phase::Forward => micro(0, None),
                Phase::Backward | Phase::Accumulate => micro(1, None),
            }
        })
        .collect()
}

/// For each operation of the weight update, the first one that hangs together with it on its
/// IPU. What several weights share, as the learning rate, ties nothing together.
fn chains(graph: &Graph, waits: &Waits) -> IdVec<OpId, OpId> {
    let mut first: IdVec<OpId, OpId> = graph.ops.ids().collect();
    for (id, needed) in waits.iter() {
        for &other in needed {
            let (op, other_op) = (&graph.ops[id], &graph.ops[other]);
            let tied = op.phase == Phase::Update
                && other_op.phase == Phase::Update
                && op.stage == other_op.stage
                && (op.ipu == other_op.ipu || spans(op) || spans(other_op))
                && !matches!(op.kind, OpKind::IpuCopy { .. });
            if tied {
                let (a, b) = (root(&mut first, id), root(&mut first, other));
                first[a.max(b)] = a.min(b);
            }
        }
    }
    graph.ops.ids().map(|id| root(&mut first, id)).collect()
}

/// Whether an operation is of several IPUs.
fn spans(op: &Op) -> bool {
    matches!(&op.kind, OpKind::Multi { ipus, .. } if ipus.iter().any(|&ipu| Some(ipu) != op.ipu))
}

/// The root of a union-find tree, halving the path to it.
fn root(parent: &mut IdVec<OpId, OpId>, mut id: OpId) -> OpId {
    while parent[id] != id {
        parent[id] = parent[parent[id]];
        id = parent[id];
    }
    id
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// On the way to be emitted, with what it waits for before it.
    Open,
    Emitted,
}

/// Emits operations, each after what it waits for and eager ones as soon as possible.
struct Emitter<'g> {
    graph: &'g Graph,
    waits: &'g Waits,
    slots: &'g IdVec<OpId, ScheduleSlot>,
    /// Eager operations by what they wait for.
    eager: IdVec<OpId, SmallVec<[OpId; 2]>>,
    /// What eager operations still wait for.
    missing: BTreeMap<OpId, usize>,
    state: IdVec<OpId, State>,
    order: Vec<OpId>,
}

impl<'g> Emitter<'g> {
    fn new(graph: &'g Graph, waits: &'g Waits, slots: &'g IdVec<OpId, ScheduleSlot>) -> Self {
        let mut eager: IdVec<OpId, SmallVec<[OpId; 2]>> =
            IdVec::from(vec![SmallVec::new(); graph.ops.len()]);
        let mut missing = BTreeMap::new();
        for id in graph.ops.ids().filter(|&id| is_eager(graph, id)) {
            missing.insert(id, waits[id].len());
            for &needed in &waits[id] {
                eager[needed].push(id);
            }
        }
        Self {
            graph,
            waits,
            slots,
            eager,
            missing,
            state: IdVec::from(vec![State::Waiting; graph.ops.len()]),
            order: Vec::with_capacity(graph.ops.len()),
        }
    }

    fn emit_with_what_it_waits_for(&mut self, op: OpId) -> Result<(), ScheduleError> {
        // Operations that are open, each with how many of its waits are done.
        let mut open: Vec<(OpId, usize)> = Vec::new();
        self.open(op, &mut open)?;
        while let Some((op, done)) = open.last_mut() {
            let op = *op;
            match self.waits[op].get(*done) {
                Some(&needed) => {
                    *done += 1;
                    self.open(needed, &mut open)?;
                }
                None => {
                    open.pop();
                    self.emit(op);
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, op: OpId, open: &mut Vec<(OpId, usize)>) -> Result<(), ScheduleError> {
        match self.state[op] {
            State::Emitted => Ok(()),
            State::Waiting => {
                self.state[op] = State::Open;
                open.push((op, 0));
                Ok(())
            }
            State::Open => Err(self.read_after_write(op, open)),
        }
    }

    fn emit(&mut self, op: OpId) {
        let mut ready = vec![op];
        while let Some(op) = ready.pop() {
            if std::mem::replace(&mut self.state[op], State::Emitted) == State::Emitted {
                continue;
            }
            self.order.push(op);
            for &eager in self.eager[op].iter().rev() {
                let missing = self.missing.get_mut(&eager).expect("it is eager");
                *missing -= 1;
                // In an earlier slot it would be too soon.
                if *missing == 0 && self.slots[eager] == self.slots[op] {
                    ready.push(eager);
                }
            }
        }
    }

    /// The reader of a variable that closes the circle which begins with `op`.
    fn read_after_write(&self, op: OpId, open: &[(OpId, usize)]) -> ScheduleError {
        let start = open
            .iter()
            .position(|&(other, _)| other == op)
            .expect("an open operation is on the list");
        let circle: Vec<OpId> = open[start..].iter().map(|&(op, _)| op).collect();
        let overwritten = circle.iter().enumerate().find_map(|(position, &writer)| {
            let reader = circle[(position + 1) % circle.len()];
            let tensor = self.overwritten(writer);
            let reads = |tensor: &TensorId| self.graph.ops[reader].inputs.contains(tensor);
            tensor.filter(reads).map(|tensor| (reader, tensor))
        });
        let (reader, tensor) = overwritten.expect("the graph itself has no cycle");
        ScheduleError::ReadAfterWrite {
            op: reader,
            name: self.graph.ops[reader].name.clone(),
            tensor,
        }
    }

    /// What an operation writes in place, if that is more than its results.
    fn overwritten(&self, op: OpId) -> Option<TensorId> {
        let operation = &self.graph.ops[op];
        if operation.kind == OpKind::Zero {
            return Some(operation.inputs[0]);
        }
        self.graph
            .updates
            .iter()
            .find(|(_, value)| operation.outputs.contains(value))
            .map(|&(variable, _)| variable)
    }
}

#[cfg(test)]
mod tests;

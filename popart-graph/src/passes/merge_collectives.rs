//! Collectives that are alike become one.
//!
//! **Assumes** a placed graph with its copies and stashes. **Guarantees** that no two collectives
//! are left that do the same (kind, shards, element type) at the same point of a training step
//! (phase, stage, and how many collectives come before) without needing one another: they are one
//! [`OpKind::Multi`], also those of different IPUs. So replicas meet once instead of once for
//! every weight, with as many bytes as before.
//! **Leaves alone** what no collective is, `local_slice`, which moves nothing between replicas,
//! and every tensor: what was the result of one operation is now one of another. Running it twice
//! changes nothing more.
//!
//! ```text
//! before
//! variable %0: f16[4] = zeros "Accum___a"
//! variable %1: f16[2] = zeros "Accum___b"
//! stream %2: f16[4] "a"
//! stream %3: f16[2] "b"
//! %4: f16[4] = accumulate(%0, %2) {factor: 1.0} @ipu0 acc "a"
//! %5: f16[2] = accumulate(%1, %3) {factor: 1.0} @ipu1 acc "b"
//! %6: f16[4] = all_reduce(%4) @ipu0 upd "a"
//! %7: f16[2] = all_reduce(%5) @ipu1 upd "b"
//! %8: f32[] = square_sum(%7) @ipu1 upd "b"
//! %9: f32[] = all_reduce(%8) @ipu1 upd "b"
//! inputs %2, %3
//! outputs %6, %9
//! after
//! part0 = "Merged"
//! variable %0: f16[4] = zeros "Accum___a"
//! variable %1: f16[2] = zeros "Accum___b"
//! stream %2: f16[4] "a"
//! stream %3: f16[2] "b"
//! %4: f16[4] = accumulate(%0, %2) {factor: 1.0} @ipu0 acc "a"
//! %5: f16[2] = accumulate(%1, %3) {factor: 1.0} @ipu1 acc "b"
//! %6 "a": f16[4], %7 "b": f16[2] = multi_all_reduce(%4, %5) {ipus: [0,1]} @ipu0 part0 upd "Merged"
//! %8: f32[] = square_sum(%7) @ipu1 upd "b"
//! %9: f32[] = all_reduce(%8) @ipu1 upd "b"
//! inputs %2, %3
//! outputs %6, %9
//! ```
//!
//! PopART does this with all of `ReplicatedCollectivesSettings` on (`willow/src/transforms/
//! mergecollectives.cpp`; `prepareScheduleForMergingCollectives` brings what matches together,
//! the other three merge it); all are off unless somebody asks for them. Here the schedule is
//! made later, so that one pass does both.
//!
//! **The price is memory.** All operands of a merged collective live until it runs, all its
//! results from then on: between the parts of a weight update the shards and directions of *all*
//! weights wait for the slowest. Results in accumulators and weights are in place and cost
//! nothing.
//!
//! **Why no circle can come of it.** The level of an operation is the largest number of
//! collectives on a way to it, counting what it reads and, as the schedule does, what must have
//! read before it overwrites. A way never goes to a lower level, and goes to a higher one behind
//! every collective; so nothing that follows a merged collective is of its level, and nothing of
//! its level, all members among it, can be needed by another member.

use indexmap::IndexMap;
use ipu_sim::ids::{IdVec, IpuId};
use ipu_sim::numerics::DType;

use crate::ir::{Graph, MultiKind, Op, OpId, OpKind, Part, Phase, Recompute, Shape, StageId};
use crate::schedule::waits;

/// Merged collectives, and the part that they are: they belong to all parts of the model.
const NAME: &str = "Merged";

/// Makes one collective of those that are alike and don't need each other.
#[must_use]
pub fn merge_collectives(mut graph: Graph) -> Graph {
    let levels = levels(&graph);
    let mut alike: IndexMap<Key, Vec<OpId>> = IndexMap::new();
    for (id, op) in graph.ops.iter() {
        if let (Some(kind), Some(level)) = (Kind::of(&op.kind), levels[id]) {
            let key = Key {
                kind,
                dtype: graph.tensors[op.inputs[0]].dtype,
                phase: op.phase,
                stage: op.stage,
                recompute: op.recompute,
                level,
            };
            alike.entry(key).or_default().push(id);
        }
    }
    let mut gone: IdVec<OpId, bool> = IdVec::from(vec![false; graph.ops.len()]);
    for members in alike.values().filter(|members| members.len() > 1) {
        let part = graph.parts.add(Part::single(NAME));
        let merged = Op {
            name: NAME.to_owned(),
            part: Some(part),
            ..merged(&graph, members)
        };
        for &member in &members[1..] {
            // Its results have another source now.
            graph.ops[member].outputs.clear();
            gone[member] = true;
        }
        graph.ops[members[0]] = merged;
    }
    graph.retain_ops(|id, _| !gone[id]);
    graph
}

/// What members of a merged collective have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    dtype: DType,
    phase: Phase,
    stage: Option<StageId>,
    recompute: Recompute,
    level: u32,
}

/// A collective without its shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    AllReduce,
    ReduceScatter { shards: u32 },
    AllGather { shards: u32 },
}

impl Kind {
    /// `None` for what can't be merged.
    fn of(kind: &OpKind) -> Option<Self> {
        match *kind {
            OpKind::AllReduce => Some(Self::AllReduce),
            OpKind::ReduceScatter { shards } => Some(Self::ReduceScatter { shards }),
            OpKind::AllGather { shards, .. } => Some(Self::AllGather { shards }),
            _ => None,
        }
    }
}

/// The members as one operation, where the first is.
fn merged(graph: &Graph, members: &[OpId]) -> Op {
    let ops = || members.iter().map(|&member| &graph.ops[member]);
    let first = &graph.ops[members[0]];
    let shape = |op: &Op| -> Option<Shape> {
        match &op.kind {
            OpKind::AllGather { shape, .. } => Some(shape.clone()),
            _ => None,
        }
    };
    let kind = match Kind::of(&first.kind).expect("members are collectives") {
        Kind::AllReduce => MultiKind::AllReduce,
        Kind::ReduceScatter { shards } => MultiKind::ReduceScatter { shards },
        Kind::AllGather { shards } => MultiKind::AllGather {
            shards,
            shapes: ops().filter_map(shape).collect(),
        },
    };
    Op {
        kind: OpKind::Multi {
            kind,
            ipus: ops().map(|op| op.ipu.unwrap_or(IpuId(0))).collect(),
        },
        inputs: ops().flat_map(|op| op.inputs.iter().copied()).collect(),
        outputs: ops().flat_map(|op| op.outputs.iter().copied()).collect(),
        ..first.clone()
    }
}

/// The most collectives on a way to each operation; `None` behind a circle, which the schedule
/// will refuse.
fn levels(graph: &Graph) -> IdVec<OpId, Option<u32>> {
    let waits = waits(graph);
    let mut followers: IdVec<OpId, Vec<OpId>> = IdVec::from(vec![Vec::new(); graph.ops.len()]);
    for (id, needed) in waits.iter() {
        for &other in needed {
            followers[other].push(id);
        }
    }
    let mut missing: IdVec<OpId, usize> = waits.values().map(|needed| needed.len()).collect();
    let mut highest: IdVec<OpId, u32> = IdVec::from(vec![0; graph.ops.len()]);
    let mut levels: IdVec<OpId, Option<u32>> = IdVec::from(vec![None; graph.ops.len()]);
    let mut ready: Vec<OpId> = missing
        .iter()
        .filter(|&(_, &count)| count == 0)
        .map(|(id, _)| id)
        .collect();
    while let Some(id) = ready.pop() {
        levels[id] = Some(highest[id]);
        let kind = &graph.ops[id].kind;
        let is_collective = Kind::of(kind).is_some() || matches!(kind, OpKind::Multi { .. });
        let behind = highest[id] + u32::from(is_collective);
        for &follower in &followers[id] {
            highest[follower] = highest[follower].max(behind);
            missing[follower] -= 1;
            if missing[follower] == 0 {
                ready.push(follower);
            }
        }
    }
    levels
}

#[cfg(test)]
mod tests;

//! Weight updates of different IPUs side by side.
//!
//! PopART's schedule `OverlapMemoryOptimized` of the accumulate-outer fragment
//! (`accumulateouterfragmentparallelizer.cpp`): chains of operations that hang together are
//! paired across IPUs if they load the same from streaming memory, so that their loads happen
//! at once and what follows runs side by side. Chains without loads stay where they are, as do
//! those of IPUs that are left out. What chains of several IPUs share, as the norm of all
//! gradients, comes before all of them.
//!
//! ```text
//! IPU 1   load m  reduce  update  store            load m    load m    reduce    reduce  ..
//! IPU 2                    load m  reduce  ..  ->  (IPU 1)   (IPU 2)   (IPU 1)   (IPU 2)
//! ```
//!
//! Updates that are in the stages of a pipeline stay there.
//!
//! Operation by operation in turn is enough: steps of one IPU don't wait for those of another,
//! and lowering joins loads, stores and collectives that stand side by side.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use ipu_sim::ids::{IdVec, IpuId};

use super::{Schedule, chains, waits};
use crate::ir::{Graph, OpId, OpKind, Phase};

/// Puts alike chains of the weight update on different IPUs in step with each other, but for
/// those of the IPUs `excluded`.
#[must_use]
pub fn overlap_updates(graph: &Graph, schedule: Schedule, excluded: &[IpuId]) -> Schedule {
    if graph.updates_in_stages() {
        return schedule;
    }
    let waits = waits(graph);
    let roots = chains(graph, &waits);
    let is_update = |op: &OpId| graph.ops[*op].phase == Phase::Update;
    let (update, mut order): (Vec<OpId>, Vec<OpId>) =
        schedule.order.into_iter().partition(is_update);
    // Copies of what is there before the update, as the learning rate, come first.
    let reads_update = |op: &OpId| waits[*op].iter().any(is_update);
    let is_early =
        |op: &OpId| matches!(graph.ops[*op].kind, OpKind::IpuCopy { .. }) && !reads_update(op);
    let (early, rest): (Vec<OpId>, Vec<OpId>) = update.into_iter().partition(is_early);
    let mut early_set: BTreeSet<OpId> = early.iter().copied().collect();
    order.extend(early);
    // So does what a copy takes to chains of other IPUs, as the norm of all gradients, and what
    // that is made of: those chains begin before it and end behind it.
    let mut shared: Vec<OpId> = rest
        .iter()
        .copied()
        .filter(|&op| matches!(graph.ops[op].kind, OpKind::IpuCopy { .. }))
        .collect();
    while let Some(op) = shared.pop() {
        if is_update(&op) && early_set.insert(op) {
            shared.extend(waits[op].iter().copied());
        }
    }
    let (shared, rest): (Vec<OpId>, Vec<OpId>) =
        rest.into_iter().partition(|op| early_set.contains(op));
    order.extend(shared);

    let mut by_chain: IndexMap<OpId, Vec<OpId>> = IndexMap::new();
    for op in rest {
        by_chain.entry(roots[op]).or_default().push(op);
    }
    // A chain that reads another one's results mustn't move in front of it.
    let stands_alone = |chain: &[OpId]| {
        let mut needed = chain.iter().flat_map(|&op| &waits[op]);
        needed.all(|other| !is_update(other) || is_inside(&roots, chain, *other, &early_set))
    };
    let mut alike: BTreeMap<Vec<String>, BTreeMap<IpuId, Vec<usize>>> = BTreeMap::new();
    for (number, chain) in by_chain.values().enumerate() {
        let Some(ipu) = graph.ops[chain[0]].ipu else {
            continue;
        };
        let loads = |op: &OpId| matches!(graph.ops[*op].kind, OpKind::RemoteLoad);
        if chain.iter().any(loads) && !excluded.contains(&ipu) && stands_alone(chain) {
            let of_ipus = alike.entry(signature(graph, chain)).or_default();
            of_ipus.entry(ipu).or_default().push(number);
        }
    }
    let bundles = bundles(&alike, by_chain.len());
    for (number, chain) in by_chain.values().enumerate() {
        match &bundles[number] {
            Some(members) if members[0] == number => {
                for position in 0..chain.len() {
                    order.extend(members.iter().map(|&member| by_chain[member][position]));
                }
            }
            // It went with the first of its bundle.
            Some(_) => {}
            None => order.extend(chain),
        }
    }
    Schedule { order }
}

fn is_inside(roots: &IdVec<OpId, OpId>, chain: &[OpId], op: OpId, early: &BTreeSet<OpId>) -> bool {
    roots[op] == roots[chain[0]] || early.contains(&op)
}

/// What chains have in common that can go in step: their operations, and what they load.
fn signature(graph: &Graph, chain: &[OpId]) -> Vec<String> {
    let words = chain.iter().map(|&op| {
        let op = &graph.ops[op];
        match op.kind {
            OpKind::RemoteLoad => format!("load {}", graph.tensors[op.outputs[0]].ty()),
            _ => op.kind.name().to_owned(),
        }
    });
    words.collect()
}

/// For each chain the bundle it belongs to: the first of every IPU with the first of the
/// others, and so on.
fn bundles(
    alike: &BTreeMap<Vec<String>, BTreeMap<IpuId, Vec<usize>>>,
    n_chains: usize,
) -> Vec<Option<Vec<usize>>> {
    let mut bundles = vec![None; n_chains];
    for of_ipus in alike.values() {
        let most = of_ipus.values().map(Vec::len).max().unwrap_or(0);
        for turn in 0..most {
            let members = of_ipus.values().filter_map(|chains| chains.get(turn));
            let mut members: Vec<usize> = members.copied().collect();
            members.sort_unstable();
            for &member in &members {
                bundles[member] = Some(members.clone());
            }
        }
    }
    bundles
}

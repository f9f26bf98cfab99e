//! Equal pieces of a micro-batch share their code, at the price of copies.
//!
//! **Assumes** a placed graph with its stashes. **Guarantees** that where pieces of one stage
//! and phase are alike in all but the tensors they work on (layers of an encoder, mostly), each
//! is as a call of one function: it reads copies of what it takes from outside, and the rest
//! reads copies of what it hands out ([`OpKind::CallInput`], [`OpKind::CallOutput`]). As with
//! PopART's `JustInTime`, an input is copied just before its first use and a result as soon as
//! it is there. Pieces that are alike up to their tensors share their code in the weighed
//! program anyway ([`ipu_sim::program::Program::outlined`]).
//! **Leaves alone** the weight update; constants, which are part of the code; accumulators,
//! which change in place; what the host reads; and how views (`reshape`, `transpose`, `slice`)
//! are made of a tensor: a piece is handed the whole, and sees it as it likes. Running it
//! twice changes nothing more.
//!
//! ```text
//! before
//! variable %0: f32[8,8] = zeros "w0"
//! variable %1: f32[8,8] = zeros "w1"
//! stream %2: f32[8,8] "x"
//! %3: f32[8,8] = matmul(%2, %0) {pass: inference_fwd, proportion: 0.6, partials: half} @ipu0 fwd "layer0"
//! %4: f32[8,8] = matmul(%3, %1) {pass: inference_fwd, proportion: 0.6, partials: half} @ipu0 fwd "layer1"
//! %5: f32[8,8] = tanh(%4) @ipu0 fwd "end"
//! inputs %2
//! outputs %5
//! after
//! variable %0: f32[8,8] = zeros "w0"
//! variable %1: f32[8,8] = zeros "w1"
//! stream %2: f32[8,8] "x"
//! %6: f32[8,8] = call_input(%2) @ipu0 fwd "layer0"
//! %7: f32[8,8] = call_input(%0) @ipu0 fwd "layer0"
//! %3: f32[8,8] = matmul(%6, %7) {pass: inference_fwd, proportion: 0.6, partials: half} @ipu0 fwd "layer0"
//! %8: f32[8,8] = call_output(%3) @ipu0 fwd "layer0"
//! %9: f32[8,8] = call_input(%8) @ipu0 fwd "layer1"
//! %10: f32[8,8] = call_input(%1) @ipu0 fwd "layer1"
//! %4: f32[8,8] = matmul(%9, %10) {pass: inference_fwd, proportion: 0.6, partials: half} @ipu0 fwd "layer1"
//! %11: f32[8,8] = call_output(%4) @ipu0 fwd "layer1"
//! %5: f32[8,8] = tanh(%11) @ipu0 fwd "end"
//! inputs %2
//! outputs %5
//! ```
//!
//! What is worth it is PopART's rule (`willow/src/transforms/subgraphoutline.cpp`): the value of
//! a piece is the sum over its operations of their value (1000 for those with much code, else
//! 0.1) times the root of the bytes they read, less the root of the bytes of every tensor that
//! crosses its border; it has to exceed [`THRESHOLD`]. Of pieces that overlap, those whose calls
//! save most are taken. PopART also outlines pieces of pieces; here every operation is in one
//! piece at most. Nor is there a counterpart of its `enableOutliningCopyCostPruning`, on by default,
//! which drops pieces whose copies would cost too much: the bytes that cross a border are all that
//! counts against a piece.

mod error;
mod repeats;
mod rewrite;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use indexmap::IndexMap;
use ipu_sim::ids::{IdVec, IpuId};
use smallvec::SmallVec;

pub use self::error::OutlineError;

use self::repeats::{Repeat, repeats};
use crate::ir::{
    Cycle, Graph, Op, OpId, OpKind, Phase, Recompute, Scope, StageId, TensorId, TensorKind,
    TensorType,
};
use crate::schedule::schedule;

/// The value from which on a piece is worth a function (BERT application, `outlineThreshold` of
/// its pipelines).
pub const THRESHOLD: f64 = 10.0;

/// Value of an operation with much code, such as a matrix product or a norm (PopART,
/// `Op::getHighSubgraphValue`).
const VALUE_HIGH: f64 = 1000.0;

/// Value of any other operation (PopART, `Op::getLowSubgraphValue`).
const VALUE_LOW: f64 = 0.1;

/// Puts copies around pieces that are alike.
///
/// # Errors
/// The graph can't be scheduled.
pub fn outline(graph: Graph) -> Result<Graph, OutlineError> {
    let is_outlined = |op: &Op| matches!(op.kind, OpKind::CallInput | OpKind::CallOutput);
    if graph.ops.values().any(is_outlined) {
        return Ok(graph);
    }
    let order = schedule(&graph)?.order;
    let seen = Seen::of(&graph)?;
    let members = members(&graph, &seen, &order);
    let calls = calls(&graph, &seen, &members);
    Ok(rewrite::rewrite(graph, &seen, &order, &calls)?)
}

/// A graph seen without its views: every operand is a tensor that an operation makes, and the
/// way from it.
struct Seen {
    /// The tensor that a tensor is a view of, or itself.
    root: IdVec<TensorId, TensorId>,
    /// The view that gives a tensor, and of what.
    view: IdVec<TensorId, Option<(OpId, TensorId)>>,
    producers: IdVec<TensorId, Option<OpId>>,
    /// Operations that read a tensor through views, if they aren't views themselves.
    readers: IdVec<TensorId, SmallVec<[OpId; 4]>>,
    /// Tensors that have to stay what they are: the host reads them or variables take them.
    fixed: BTreeSet<TensorId>,
}

impl Seen {
    fn of(graph: &Graph) -> Result<Self, Cycle> {
        let mut root: IdVec<TensorId, TensorId> = graph.tensors.ids().collect();
        let mut view = IdVec::from(vec![None; graph.tensors.len()]);
        // A restore gives back the stashed tensor itself, so it has to be one that operations
        // read, not a view that each makes for itself.
        let stashes = graph.ops.values();
        let stashes = stashes.filter(|op| matches!(op.kind, OpKind::Stash { .. }));
        let stashed: BTreeSet<TensorId> = stashes.map(|op| op.inputs[0]).collect();
        for id in graph.topological_order()? {
            let op = &graph.ops[id];
            let output = op.outputs[0];
            if is_view(&op.kind) && !stashed.contains(&output) {
                root[output] = root[op.inputs[0]];
                view[output] = Some((id, op.inputs[0]));
            }
        }
        let mut readers = IdVec::from(vec![SmallVec::new(); graph.tensors.len()]);
        for (id, op) in graph.ops.iter() {
            if view[op.outputs[0]].is_none() {
                for &input in &op.inputs {
                    readers[root[input]].push(id);
                }
            }
        }
        let updated = graph.updates.iter().map(|&(_, value)| value);
        let fixed = graph.outputs.iter().copied().chain(updated);
        let fixed = fixed.map(|tensor| root[tensor]).collect();
        Ok(Self {
            root,
            view,
            producers: graph.producers(),
            readers,
            fixed,
        })
    }

    /// Whether an operation only sees its operand in another way.
    fn is_view(&self, op: &Op) -> bool {
        self.view[op.outputs[0]].is_some()
    }

    /// The views between a tensor and its root, the one that gives the tensor first.
    fn views(&self, tensor: TensorId) -> impl Iterator<Item = (OpId, TensorId)> + '_ {
        std::iter::successors(self.view[tensor], |&(_, of)| self.view[of])
    }
}

/// Whether a result is its operand, seen in another way.
fn is_view(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Identity
            | OpKind::Detach
            | OpKind::Reshape { .. }
            | OpKind::Transpose { .. }
            | OpKind::Slice { .. }
    )
}

/// Region that no piece of code reaches out of: PopART's boundaries, and its pipeline stages.
type OutlineRegion = (Option<IpuId>, Option<StageId>, Phase, Recompute);

/// The operations that pieces are made of, in order, by region.
fn members(graph: &Graph, seen: &Seen, order: &[OpId]) -> Vec<(OutlineRegion, OpId)> {
    let is_member = |&&id: &&OpId| {
        let op = &graph.ops[id];
        let computes = matches!(op.phase, Phase::Forward | Phase::Backward);
        let moves = matches!(
            op.kind,
            OpKind::IpuCopy { .. }
                | OpKind::Stash { .. }
                | OpKind::Restore { .. }
                | OpKind::RemoteLoad
                | OpKind::RemoteStore
        );
        let stays = op.outputs.iter().any(|output| seen.fixed.contains(output));
        computes && !moves && !stays && !seen.is_view(op)
    };
    let members = order.iter().filter(is_member).map(|&id| {
        let op = &graph.ops[id];
        ((op.ipu, op.stage, op.phase, op.recompute), id)
    });
    members.collect()
}

/// What has to be equal for two operations of a region to have the same code.
#[derive(Clone, Debug, PartialEq)]
struct Class {
    kind: OpKind,
    /// Of every operand, the type of its root and the views of it.
    operands: Vec<(TensorType, Vec<OpKind>)>,
    /// Of every result, its type and how it is added to accumulators.
    results: Vec<(TensorType, Vec<OpKind>)>,
}

impl Class {
    fn of(graph: &Graph, seen: &Seen, op: &Op) -> Self {
        let kinds = |ops: &[OpId]| ops.iter().map(|&op| graph.ops[op].kind.clone()).collect();
        let operands = op.inputs.iter().map(|&input| {
            let root = graph.tensors[seen.root[input]].ty();
            let views: Vec<OpId> = seen.views(input).map(|(view, _)| view).collect();
            (root, kinds(&views))
        });
        let results = op.outputs.iter().map(|&output| {
            let readers = seen.readers[output].iter().copied();
            let sums: Vec<OpId> = readers.filter(|&reader| adds_up(graph, reader)).collect();
            (graph.tensors[output].ty(), kinds(&sums))
        });
        let mut kind = op.kind.clone();
        // Which dropout it is, is an argument.
        if let OpKind::Dropout { id, .. } = &mut kind {
            *id = 0;
        }
        Self {
            kind,
            operands: operands.collect(),
            results: results.collect(),
        }
    }

    /// Of the operation, of the views of its operands, and of what its results are added to.
    fn hash_of_attributes(&self) -> u64 {
        let views = self.operands.iter().flat_map(|(_, views)| views);
        let sums = self.results.iter().flat_map(|(_, sums)| sums);
        let mut hash = DefaultHasher::new();
        for kind in std::iter::once(&self.kind).chain(views).chain(sums) {
            format!("{kind:?}").hash(&mut hash);
        }
        hash.finish()
    }
}

/// Whether an operation adds a gradient to its accumulator, in place.
fn adds_up(graph: &Graph, op: OpId) -> bool {
    graph.ops[op].phase == Phase::Accumulate
}

/// What all operations of a class have in common and can be looked up. The number is a hash of
/// their attributes, which hold floats and so have no order or hash of their own.
type Bucket = (OutlineRegion, Vec<TensorType>, u64);

/// The classes that were met, with their numbers.
#[derive(Default)]
struct Classes {
    buckets: IndexMap<Bucket, Vec<(Class, u32)>>,
    next: u32,
}

impl Classes {
    /// A number that no class has.
    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// The number of a class.
    fn number(&mut self, region: OutlineRegion, class: Class) -> u32 {
        let operands = class.operands.iter().map(|(root, _)| root.clone());
        let bucket = (region, operands.collect(), class.hash_of_attributes());
        let alike = self.buckets.entry(bucket).or_default();
        if let Some(&(_, number)) = alike.iter().find(|(other, _)| *other == class) {
            return number;
        }
        let number = self.next;
        self.next += 1;
        alike.push((class, number));
        number
    }
}

/// For every member its class, and between members of different regions a number that occurs
/// nowhere else.
fn classified(
    graph: &Graph,
    seen: &Seen,
    members: &[(OutlineRegion, OpId)],
) -> Vec<(u32, Option<OpId>)> {
    let mut classes = Classes::default();
    let mut sequence = Vec::new();
    let mut last = None;
    for &(region, id) in members {
        if last.is_some_and(|last| last != region) {
            sequence.push((classes.fresh(), None));
        }
        last = Some(region);
        let class = Class::of(graph, seen, &graph.ops[id]);
        sequence.push((classes.number(region, class), Some(id)));
    }
    sequence
}

/// The piece that each operation belongs to; pieces are numbered.
type Calls = IdVec<OpId, Option<u32>>;

/// Chooses the pieces that become calls.
fn calls(graph: &Graph, seen: &Seen, members: &[(OutlineRegion, OpId)]) -> Calls {
    let sequence = classified(graph, seen, members);
    let numbers: Vec<u32> = sequence.iter().map(|&(number, _)| number).collect();
    let ops = |repeat: &Repeat, start: usize| -> Vec<OpId> {
        let piece = &sequence[start..start + repeat.len];
        piece.iter().filter_map(|&(_, op)| op).collect()
    };
    let mut candidates: Vec<(f64, Repeat)> = repeats(&numbers)
        .into_iter()
        .filter_map(|repeat| {
            let value = value(graph, seen, &ops(&repeat, repeat.starts[0]));
            let calls = repeat.starts.len();
            (value > THRESHOLD).then(|| ((calls - 1) as f64 * value, repeat))
        })
        .collect();
    // Stable: of equals the longest, and the first, stays first.
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut calls: Calls = IdVec::from(vec![None; graph.ops.len()]);
    let mut next = 0;
    for (_, repeat) in candidates {
        let is_free = |start: &&usize| {
            let piece = &sequence[**start..**start + repeat.len];
            piece
                .iter()
                .all(|&(_, op)| op.is_none_or(|op| calls[op].is_none()))
        };
        let free: Vec<usize> = repeat.starts.iter().filter(is_free).copied().collect();
        let pieces = free.into_iter().map(|start| ops(&repeat, start));
        for piece in alike(graph, seen, pieces) {
            for op in piece {
                calls[op] = Some(next);
            }
            next += 1;
        }
    }
    calls
}

/// Of pieces whose operations are of the same classes, the most that are also wired alike; none
/// if there is only one.
fn alike(graph: &Graph, seen: &Seen, pieces: impl Iterator<Item = Vec<OpId>>) -> Vec<Vec<OpId>> {
    let mut by_wiring: BTreeMap<Vec<Wire>, Vec<Vec<OpId>>> = BTreeMap::new();
    for piece in pieces {
        let wiring = wiring(graph, seen, &piece);
        by_wiring.entry(wiring).or_default().push(piece);
    }
    let most = by_wiring.into_values().max_by_key(Vec::len);
    most.filter(|pieces| pieces.len() > 1).unwrap_or_default()
}

/// Where an operand of a piece comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wire {
    /// A result of an operation of the piece: which operation, which result.
    Inside(usize, usize),
    /// The n-th tensor from outside.
    Outside(usize),
    /// A constant: part of the code.
    Constant(TensorId),
}

fn wiring(graph: &Graph, seen: &Seen, piece: &[OpId]) -> Vec<Wire> {
    let mut wires: BTreeMap<TensorId, Wire> = BTreeMap::new();
    let mut outside = 0;
    let mut wiring = Vec::new();
    for (place, &op) in piece.iter().enumerate() {
        for &input in &graph.ops[op].inputs {
            let root = seen.root[input];
            let wire = wires.entry(root).or_insert_with(|| {
                if matches!(graph.tensors[root].kind, TensorKind::Constant(_)) {
                    return Wire::Constant(root);
                }
                outside += 1;
                Wire::Outside(outside - 1)
            });
            wiring.push(*wire);
        }
        for (result, &output) in graph.ops[op].outputs.iter().enumerate() {
            wires.insert(output, Wire::Inside(place, result));
        }
    }
    wiring
}

/// PopART's value of having the code of a piece once only.
fn value(graph: &Graph, seen: &Seen, piece: &[OpId]) -> f64 {
    let root_of_bytes = |tensor: TensorId| (graph.tensors[tensor].bytes().0 as f64).sqrt();
    let inside: BTreeSet<OpId> = piece.iter().copied().collect();
    let mut crossing = BTreeSet::new();
    let mut value = 0.0;
    for &id in piece {
        let op = &graph.ops[id];
        let bytes: u64 = op
            .inputs
            .iter()
            .map(|&input| graph.tensors[input].bytes().0)
            .sum();
        value += value_of(&op.kind) * (bytes as f64).sqrt();
        let from_outside = op.inputs.iter().map(|&input| seen.root[input]);
        crossing.extend(from_outside.filter(|&root| {
            let made_inside = seen.producers[root].is_some_and(|op| inside.contains(&op));
            !made_inside && !matches!(graph.tensors[root].kind, TensorKind::Constant(_))
        }));
        crossing.extend(op.outputs.iter().copied().filter(|&output| {
            let mut readers = seen.readers[output].iter();
            readers.any(|reader| !inside.contains(reader) && !adds_up(graph, *reader))
        }));
    }
    value - crossing.into_iter().map(root_of_bytes).sum::<f64>()
}

/// PopART's value of an operation (`getSubgraphValue`).
fn value_of(kind: &OpKind) -> f64 {
    match kind {
        OpKind::MatMul { .. } | OpKind::LayerNorm { .. } | OpKind::LayerNormGrad => VALUE_HIGH,
        _ => VALUE_LOW,
    }
}

#[cfg(test)]
mod tests;

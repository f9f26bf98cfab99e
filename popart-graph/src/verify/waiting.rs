//! Does every stage of a pipeline see its own micro-batch?
//!
//! Stage `s` works on micro-batch `c - s` in cycle `c`, so what stage `s` left in memory is of a
//! later micro-batch when stage `t > s` runs. [`waiting`] follows each value to the stages that
//! run its readers and finds those that read it there although nothing brought it back. It
//! shares nothing with the pass that puts stashes in.

use std::collections::BTreeSet;

use ipu_sim::ids::IdVec;

use super::Violation;
use crate::ir::{Graph, OpId, OpKind, Phase, Recompute, StageId, TensorId, TensorKind};

pub(super) fn waiting(graph: &Graph, order: &[OpId]) -> Result<(), Violation> {
    let pipeline = Stages::of(graph, order);
    for (id, op) in graph.ops.iter() {
        for &stage in &pipeline.runs[id] {
            let stale = |&&tensor: &&TensorId| !pipeline.is_there(id, tensor, stage);
            if let Some(&tensor) = op.inputs.iter().find(stale) {
                return Err(Violation::OtherMicroBatch {
                    op: id,
                    name: op.name.clone(),
                    tensor,
                    stage,
                });
            }
        }
    }
    Ok(())
}

struct Stages<'a> {
    graph: &'a Graph,
    producers: IdVec<TensorId, Option<OpId>>,
    /// The stages that run each operation: its own and, where it is recomputed, those of whoever
    /// reads its result.
    runs: IdVec<OpId, BTreeSet<StageId>>,
    /// Stages in which a tensor's own place is written again.
    restored: IdVec<TensorId, BTreeSet<StageId>>,
    /// The stage that a stream is sent to.
    received: IdVec<TensorId, Option<StageId>>,
    /// Streams that are the same for all micro-batches of a run.
    of_a_run: IdVec<TensorId, bool>,
}

impl<'a> Stages<'a> {
    fn of(graph: &'a Graph, order: &[OpId]) -> Self {
        let producers = graph.producers();
        let mut runs: IdVec<OpId, BTreeSet<StageId>> = graph
            .ops
            .values()
            .map(|op| op.stage.into_iter().collect())
            .collect();
        let mut restored = IdVec::from(vec![BTreeSet::new(); graph.tensors.len()]);
        let mut received = IdVec::from(vec![None; graph.tensors.len()]);
        for &id in order.iter().rev() {
            let op = &graph.ops[id];
            if let (OpKind::Restore { .. }, Some(stage)) = (&op.kind, op.stage)
                && let Some(stash) = producers[op.inputs[0]]
                && let Some(&kept) = graph.ops[stash].inputs.first()
            {
                restored[kept].insert(stage);
            }
            let own: Vec<StageId> = runs[id].iter().copied().collect();
            for &input in &op.inputs {
                let first = received[input].into_iter().chain(op.stage).min();
                received[input] = first;
                if let Some(producer) = producers[input]
                    && graph.ops[producer].recompute == Recompute::Recompute
                {
                    runs[producer].extend(&own);
                }
            }
        }
        Self {
            graph,
            producers,
            runs,
            restored,
            received,
            of_a_run: graph.hyper_parameters(),
        }
    }

    /// Whether `tensor` is of the micro-batch that `stage` works on when it runs `reader`.
    fn is_there(&self, reader: OpId, tensor: TensorId, stage: StageId) -> bool {
        let Some(producer) = self.producers[tensor] else {
            let is_stream = self.graph.tensors[tensor].kind == TensorKind::Stream;
            return !is_stream
                || self.of_a_run[tensor]
                || self.received[tensor] == Some(stage)
                || self.reads_restored(reader, tensor, stage);
        };
        let op = &self.graph.ops[producer];
        let Some(made) = op.stage else { return true };
        match (&op.kind, op.phase) {
            // Of all micro-batches so far.
            (_, Phase::Update | Phase::Accumulate) => true,
            // Written at the end of a cycle.
            (OpKind::IpuCopy { .. }, _) if stage.0 == made.0 + 1 => true,
            // A ring keeps what the stages between the two will have put in.
            (OpKind::Stash { slots }, _) => stage.0 - made.0 < *slots,
            _ => self.runs[producer].contains(&stage) || self.reads_restored(reader, tensor, stage),
        }
    }

    /// A restore runs before what is recomputed; other readers name the restored value.
    fn reads_restored(&self, reader: OpId, tensor: TensorId, stage: StageId) -> bool {
        self.graph.ops[reader].recompute == Recompute::Recompute
            && self.restored[tensor].contains(&stage)
    }
}

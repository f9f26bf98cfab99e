//! Forward operations that run again before the gradients that need them.
//!
//! A run of recomputed operations between two that are kept is a *segment*: a function
//! that its forward stage calls, and that a backward stage calls again just before the
//! first operation that reads one of its results. Tensors that a segment starts from are
//! restored first; the stage of the loss, which has its own backward pass, has them still.

use std::collections::{BTreeMap, BTreeSet};

use ipu_sim::program::{Function, FunctionId, Step};

use super::ctx::Ctx;
use super::ops::lower_and_commit;
use crate::ir::{Graph, OpId, OpKind, Phase, Recompute, StageId, TensorId};

/// Operations that are lowered into one function.
#[derive(Clone, Debug, Default)]
struct Segment {
    ops: Vec<OpId>,
    function: Option<FunctionId>,
}

/// All segments of a graph.
pub(super) struct Segments {
    segments: Vec<Segment>,
    of_op: BTreeMap<OpId, usize>,
    /// The operation that restores a tensor in a later stage.
    restore_of: BTreeMap<(TensorId, StageId), OpId>,
    producers: BTreeMap<TensorId, OpId>,
}

impl Segments {
    pub(super) fn of(graph: &Graph, order: &[OpId]) -> Self {
        let mut this = Self {
            segments: Vec::new(),
            of_op: BTreeMap::new(),
            restore_of: BTreeMap::new(),
            producers: BTreeMap::new(),
        };
        let mut open: Option<(StageId, usize)> = None;
        for &id in order {
            let op = &graph.ops[id];
            for &output in &op.outputs {
                this.producers.insert(output, id);
            }
            if matches!(op.kind, OpKind::Restore { .. })
                && let (Some(stashed), Some(stage)) = (
                    stashed_tensor(graph, &this.producers, op.inputs[0]),
                    op.stage,
                )
            {
                this.restore_of.insert((stashed, stage), id);
            }
            match (is_recomputed(graph, id), op.stage) {
                (true, Some(stage)) => {
                    let segment = match open {
                        Some((open_stage, segment)) if open_stage == stage => segment,
                        _ => {
                            this.segments.push(Segment::default());
                            this.segments.len() - 1
                        }
                    };
                    open = Some((stage, segment));
                    this.segments[segment].ops.push(id);
                    this.of_op.insert(id, segment);
                }
                // Stashing what was computed doesn't end a run.
                _ if matches!(op.kind, OpKind::Stash { .. }) => {}
                _ => open = None,
            }
        }
        this.split_off_shared(graph);
        this
    }

    /// Puts operations that other segments read from, with what they need, into segments of
    /// their own, so that running them again doesn't bring back everything beside them.
    fn split_off_shared(&mut self, graph: &Graph) {
        let consumers = graph.consumers();
        for segment in 0..self.segments.len() {
            let ops = self.segments[segment].ops.clone();
            let read_elsewhere = |id: &OpId| {
                let outputs = graph.ops[*id].outputs.iter();
                outputs
                    .flat_map(|&output| &consumers[output])
                    .any(|reader| {
                        self.of_op
                            .get(reader)
                            .is_some_and(|&other| other != segment)
                    })
            };
            let mut shared: BTreeSet<OpId> = ops.iter().copied().filter(read_elsewhere).collect();
            for &id in ops.iter().rev() {
                if shared.contains(&id) {
                    let inputs = graph.ops[id].inputs.iter();
                    let producers = inputs.filter_map(|input| self.producers.get(input));
                    let inside = producers.filter(|op| self.of_op.get(op) == Some(&segment));
                    shared.extend(inside.copied().collect::<Vec<_>>());
                }
            }
            if shared.is_empty() || shared.len() == ops.len() {
                continue;
            }
            let (apart, rest) = ops.into_iter().partition(|id| shared.contains(id));
            self.segments[segment].ops = rest;
            self.segments.push(Segment {
                ops: apart,
                function: None,
            });
            let own = self.segments.len() - 1;
            self.of_op.extend(shared.into_iter().map(|id| (id, own)));
        }
    }

    /// The steps of a stage; its segments become functions, those of earlier stages are called.
    pub(super) fn lower_stage(
        &mut self,
        ctx: &mut Ctx<'_>,
        stage: StageId,
        ops: &[OpId],
    ) -> Vec<Step> {
        let outside = std::mem::take(&mut ctx.builder.steps);
        let mut again = Again {
            stage,
            segments: BTreeSet::new(),
            restored: BTreeSet::new(),
        };
        for &id in ops {
            if let Some(&segment) = self.of_op.get(&id) {
                self.lower_segment(ctx, segment);
                continue;
            }
            if again.restored.contains(&id) {
                continue;
            }
            let op = &ctx.graph.ops[id];
            if op.phase != Phase::Forward {
                for input in op.inputs.clone() {
                    self.run_again(ctx, input, &mut again);
                }
            }
            if matches!(ctx.graph.ops[id].kind, OpKind::Restore { .. }) {
                again.restored.insert(id);
            }
            lower_and_commit(ctx, id);
        }
        std::mem::replace(&mut ctx.builder.steps, outside)
    }

    /// Lowers a segment, after those it reads from, unless that was done already.
    fn lower_segment(&mut self, ctx: &mut Ctx<'_>, segment: usize) {
        if self.segments[segment].function.is_some() {
            return;
        }
        let ops = self.segments[segment].ops.clone();
        for &id in &ops {
            for input in &ctx.graph.ops[id].inputs {
                let producer = self.producers.get(input).and_then(|op| self.of_op.get(op));
                if let Some(&other) = producer.filter(|&&other| other != segment) {
                    self.lower_segment(ctx, other);
                }
            }
        }
        let outside = std::mem::take(&mut ctx.builder.steps);
        for &id in &ops {
            lower_and_commit(ctx, id);
        }
        let steps = std::mem::replace(&mut ctx.builder.steps, outside);
        let first = &ctx.graph.ops[self.segments[segment].ops[0]];
        let function = ctx.builder.program.functions.push(Function {
            name: format!("recomputed from {}", first.name),
            steps,
        });
        self.segments[segment].function = Some(function);
        ctx.builder.steps.push(Step::Call(function));
    }

    /// Makes a tensor of the forward pass present again, with all it is computed from. In the stage of
    /// the loss it is of the same stage (PopART re-runs what operations behind the loss read, too).
    fn run_again(&self, ctx: &mut Ctx<'_>, tensor: TensorId, again: &mut Again) {
        if let Some(&restore) = self.restore_of.get(&(tensor, again.stage)) {
            if again.restored.insert(restore) {
                lower_and_commit(ctx, restore);
            }
            return;
        }
        let Some(producer) = self.producers.get(&tensor) else {
            return;
        };
        let Some(&segment) = self.of_op.get(producer) else {
            return;
        };
        if !again.segments.insert(segment) {
            return;
        }
        for &id in &self.segments[segment].ops {
            for &input in &ctx.graph.ops[id].inputs {
                let inside = self.producers.get(&input).and_then(|op| self.of_op.get(op));
                if inside != Some(&segment) {
                    self.run_again(ctx, input, again);
                }
            }
        }
        let function = self.segments[segment]
            .function
            .expect("forward stages are lowered before backward ones");
        ctx.builder.steps.push(Step::Call(function));
    }
}

/// What a backward stage has made present again so far.
struct Again {
    stage: StageId,
    segments: BTreeSet<usize>,
    restored: BTreeSet<OpId>,
}

fn is_recomputed(graph: &Graph, id: OpId) -> bool {
    let op = &graph.ops[id];
    op.phase == Phase::Forward && op.recompute == Recompute::Recompute
}

/// The tensor that a stash keeps, from the stash's result.
fn stashed_tensor(
    graph: &Graph,
    producers: &BTreeMap<TensorId, OpId>,
    result: TensorId,
) -> Option<TensorId> {
    let stash = &graph.ops[*producers.get(&result)?];
    matches!(stash.kind, OpKind::Stash { .. }).then(|| stash.inputs[0])
}

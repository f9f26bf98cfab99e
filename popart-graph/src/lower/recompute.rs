//! Forward operations that run again before the gradients that need them.
//!
//! A run of recomputed operations between two that are kept is a *segment*: a function
//! that its forward stage calls, and that a backward stage calls again just before the
//! first operation that reads one of its results. Tensors that a segment starts from are
//! restored first.

use std::collections::{BTreeMap, BTreeSet};

use ipu_sim::program::{Function, FunctionId, Step};

use super::lower_and_commit;
use super::ops::Ctx;
use crate::error::Result;
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
        this
    }

    /// The steps of a stage; its segments become functions, those of earlier stages are called.
    pub(super) fn lower_stage(
        &mut self,
        ctx: &mut Ctx<'_>,
        stage: StageId,
        ops: &[OpId],
    ) -> Result<Vec<Step>> {
        let outside = std::mem::take(&mut ctx.builder.steps);
        let mut again = Again {
            stage,
            segments: BTreeSet::new(),
            restored: BTreeSet::new(),
        };
        let mut lowered = BTreeSet::new();
        for &id in ops {
            if lowered.contains(&id) {
                continue;
            }
            if let Some(&segment) = self.of_op.get(&id) {
                self.lower_segment(ctx, segment)?;
                lowered.extend(self.segments[segment].ops.iter().copied());
                continue;
            }
            if again.restored.contains(&id) {
                continue;
            }
            let op = &ctx.graph.ops[id];
            if op.phase != Phase::Forward {
                for input in op.inputs.clone() {
                    self.run_again(ctx, input, &mut again)?;
                }
            }
            if matches!(ctx.graph.ops[id].kind, OpKind::Restore { .. }) {
                again.restored.insert(id);
            }
            lower_and_commit(ctx, id)?;
        }
        Ok(std::mem::replace(&mut ctx.builder.steps, outside))
    }

    fn lower_segment(&mut self, ctx: &mut Ctx<'_>, segment: usize) -> Result<()> {
        let outside = std::mem::take(&mut ctx.builder.steps);
        for &id in &self.segments[segment].ops {
            lower_and_commit(ctx, id)?;
        }
        let steps = std::mem::replace(&mut ctx.builder.steps, outside);
        let first = &ctx.graph.ops[self.segments[segment].ops[0]];
        let function = ctx.builder.program.functions.push(Function {
            name: format!("recomputed from {}", first.name),
            steps,
        });
        self.segments[segment].function = Some(function);
        ctx.builder.steps.push(Step::Call(function));
        Ok(())
    }

    /// Makes a tensor of an earlier stage present again, with all it is computed from.
    fn run_again(&self, ctx: &mut Ctx<'_>, tensor: TensorId, again: &mut Again) -> Result<()> {
        if let Some(&restore) = self.restore_of.get(&(tensor, again.stage)) {
            if again.restored.insert(restore) {
                lower_and_commit(ctx, restore)?;
            }
            return Ok(());
        }
        let Some(producer) = self.producers.get(&tensor) else {
            return Ok(());
        };
        let Some(&segment) = self.of_op.get(producer) else {
            return Ok(());
        };
        if ctx.graph.ops[*producer].stage == Some(again.stage) || !again.segments.insert(segment) {
            return Ok(());
        }
        for &id in &self.segments[segment].ops {
            for &input in &ctx.graph.ops[id].inputs {
                let inside = self.producers.get(&input).and_then(|op| self.of_op.get(op));
                if inside != Some(&segment) {
                    self.run_again(ctx, input, again)?;
                }
            }
        }
        let function = self.segments[segment]
            .function
            .expect("forward stages are lowered before backward ones");
        ctx.builder.steps.push(Step::Call(function));
        Ok(())
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

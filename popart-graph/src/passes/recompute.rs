//! Which forward results are computed again for the backward pass.
//!
//! **Assumes** a placed graph with copies between IPUs, before stashes.
//! **Guarantees** that forward operations are recomputed, but for
//! - copies between IPUs,
//! - producers of checkpoints,
//! - producers of what the host reads, which a second run would overwrite too early,
//! - producers of what a later forward stage on the same IPU reads, which runs nothing again,
//! - operations of stages that are to keep everything, and
//! - operations of the loss stage after its last checkpoint, which would run twice in a
//!   row for nothing.
//!
//! **Leaves alone** all but the flag. Running it twice changes nothing more.
//!
//! But for whole stages this is PopART's mode `Pipeline`: on each stage, what arrives there and what the user
//! has marked is kept, everything else is computed again
//! (`willow/src/transforms/pipeline.cpp`). As there, no operation is cloned: it runs a
//! second time and writes the same tensors.
//!
//! ```text
//! before
//! stream %0: f32[] "x"
//! %1: f32[] = tanh(%0) @ipu0 stage0 fwd "layer 0"
//! %2: f32[] = tanh(%1) @ipu0 stage0 fwd "layer 1"
//! %3: f32[] = ipu_copy(%2) {to: ipu1} @ipu0 stage0 fwd "copy"
//! %4: f32[] = tanh(%3) @ipu1 stage1 fwd "loss"
//! inputs %0
//! outputs %4
//! after
//! stream %0: f32[] "x"
//! %1: f32[] = tanh(%0) @ipu0 stage0 fwd "layer 0"
//! %2: f32[] = tanh(%1) @ipu0 stage0 fwd recompute "layer 1"
//! %3: f32[] = ipu_copy(%2) {to: ipu1} @ipu0 stage0 fwd "copy"
//! %4: f32[] = tanh(%3) @ipu1 stage1 fwd "loss"
//! inputs %0
//! outputs %4
//! ```

use std::collections::BTreeSet;

use crate::ir::{Cycle, Graph, OpId, OpKind, Phase, Recompute, StageId, TensorId};

/// Why what is computed again can't be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecomputeError {
    /// A checkpoint that no operation computes.
    #[error("{tensor} `{name}` is not the result of an operation")]
    NotComputed {
        /// The checkpoint.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// Operations wait for each other.
    #[error(transparent)]
    Cycle(#[from] Cycle),
}

/// Options of recomputation: results and stages that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecomputeOptions {
    /// Results that the user wants kept: their operations run once.
    pub checkpoints: Vec<TensorId>,
    /// Forward stages that keep everything.
    pub whole_stages: Vec<StageId>,
    /// The stage of the loss; `None` without a pipeline.
    pub loss_stage: Option<StageId>,
}

/// Sets for every forward operation whether its results are computed again.
///
/// # Errors
/// A checkpoint is not the result of an operation.
pub fn recompute(mut graph: Graph, options: &RecomputeOptions) -> Result<Graph, RecomputeError> {
    let producers = graph.producers();
    let mut kept: BTreeSet<OpId> = BTreeSet::new();
    for &tensor in &options.checkpoints {
        kept.insert(
            producers[tensor].ok_or_else(|| RecomputeError::NotComputed {
                tensor,
                name: graph.tensors[tensor].name.clone(),
            })?,
        );
    }
    let before_checkpoint = before_last_checkpoint(&graph, &kept, options.loss_stage)?;
    kept.extend(graph.outputs.iter().filter_map(|&output| producers[output]));
    kept.extend(read_by_later_forward_stages(&graph));
    for (id, op) in (0..).map(OpId).zip(graph.ops.values_mut()) {
        let once = op.phase != Phase::Forward
            || kept.contains(&id)
            || matches!(op.kind, OpKind::IpuCopy { .. })
            || op
                .stage
                .is_some_and(|stage| options.whole_stages.contains(&stage))
            || (op.stage == options.loss_stage && !before_checkpoint.contains(&id));
        op.recompute = if once {
            Recompute::Checkpoint
        } else {
            Recompute::Recompute
        };
    }
    Ok(graph)
}

/// Forward operations whose results a later forward stage reads on the same IPU.
fn read_by_later_forward_stages(graph: &Graph) -> Vec<OpId> {
    let consumers = graph.consumers();
    let forward = graph
        .ops
        .iter()
        .filter(|(_, op)| op.phase == Phase::Forward);
    let read_later = forward.filter(|(_, op)| {
        let mut readers = op.outputs.iter().flat_map(|&output| &consumers[output]);
        readers.any(|&reader| {
            let reader = &graph.ops[reader];
            reader.phase == Phase::Forward && reader.ipu == op.ipu && reader.stage != op.stage
        })
    });
    read_later.map(|(id, _)| id).collect()
}

/// Forward operations of the loss stage that only matter to what follows through one of the
/// `kept`.
fn before_last_checkpoint(
    graph: &Graph,
    kept: &BTreeSet<OpId>,
    loss_stage: Option<StageId>,
) -> Result<BTreeSet<OpId>, Cycle> {
    let consumers = graph.consumers();
    let mut before = BTreeSet::new();
    for id in graph.topological_order()?.into_iter().rev() {
        let op = &graph.ops[id];
        if op.phase != Phase::Forward || op.stage != loss_stage || kept.contains(&id) {
            continue;
        }
        let mut forward = op
            .outputs
            .iter()
            .flat_map(|&output| &consumers[output])
            .filter(|&&reader| graph.ops[reader].phase == Phase::Forward)
            .peekable();
        let leads_to_checkpoint = |reader: &OpId| kept.contains(reader) || before.contains(reader);
        if forward.peek().is_some() && forward.all(leads_to_checkpoint) {
            before.insert(id);
        }
    }
    Ok(before)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::testing::check_header;
    use crate::text::{parse, print};

    #[track_caller]
    fn check(text: &str, checkpoints: &[u32], loss_stage: u32, expected: &Expect) {
        let options = RecomputeOptions {
            checkpoints: checkpoints.iter().copied().map(TensorId).collect(),
            whole_stages: Vec::new(),
            loss_stage: Some(StageId(loss_stage)),
        };
        let got = match recompute(parse(text).unwrap(), &options) {
            Err(error) => error.to_string(),
            Ok(graph) => {
                assert_eq!(recompute(graph.clone(), &options).unwrap(), graph);
                print(&graph)
            }
        };
        expected.assert_eq(&got);
    }

    const TWO_STAGES: &str = r#"stream %0: f32[] "x"
%1: f32[] = tanh(%0) @ipu0 stage0 fwd "layer 0"
%2: f32[] = tanh(%1) @ipu0 stage0 fwd "layer 1"
%3 "b": f32[] = ipu_copy(%2) {to: ipu1} @ipu0 stage0 fwd "copy"
%4: f32[] = tanh(%3) @ipu1 stage1 fwd "layer 2"
%5: f32[] = tanh(%4) @ipu1 stage1 fwd "layer 3"
%6: f32[] = add(%5, %5) @ipu1 stage1 fwd "loss"
%7: f32[] = tanh_grad(%5, %6) @ipu1 stage1 bwd "layer 3"
inputs %0
outputs %6
"#;

    #[test]
    fn the_header_shows_it() {
        check_header(include_str!("recompute.rs"), |graph| {
            let options = RecomputeOptions {
                checkpoints: vec![TensorId(1)],
                whole_stages: Vec::new(),
                loss_stage: Some(StageId(1)),
            };
            recompute(graph, &options).unwrap()
        });
    }

    #[test]
    fn checkpoints_and_the_end_of_the_loss_stage_are_kept() {
        check(
            TWO_STAGES,
            &[1, 4],
            1,
            &expect![[r#"
                stream %0: f32[] "x"
                %1: f32[] = tanh(%0) @ipu0 stage0 fwd "layer 0"
                %2: f32[] = tanh(%1) @ipu0 stage0 fwd recompute "layer 1"
                %3 "b": f32[] = ipu_copy(%2) {to: ipu1} @ipu0 stage0 fwd "copy"
                %4: f32[] = tanh(%3) @ipu1 stage1 fwd "layer 2"
                %5: f32[] = tanh(%4) @ipu1 stage1 fwd "layer 3"
                %6: f32[] = add(%5, %5) @ipu1 stage1 fwd "loss"
                %7: f32[] = tanh_grad(%5, %6) @ipu1 stage1 bwd "layer 3"
                inputs %0
                outputs %6
            "#]],
        );
    }

    #[test]
    fn before_the_last_checkpoint_the_loss_stage_recomputes() {
        check(
            TWO_STAGES,
            &[5],
            1,
            &expect![[r#"
                stream %0: f32[] "x"
                %1: f32[] = tanh(%0) @ipu0 stage0 fwd recompute "layer 0"
                %2: f32[] = tanh(%1) @ipu0 stage0 fwd recompute "layer 1"
                %3 "b": f32[] = ipu_copy(%2) {to: ipu1} @ipu0 stage0 fwd "copy"
                %4: f32[] = tanh(%3) @ipu1 stage1 fwd recompute "layer 2"
                %5: f32[] = tanh(%4) @ipu1 stage1 fwd "layer 3"
                %6: f32[] = add(%5, %5) @ipu1 stage1 fwd "loss"
                %7: f32[] = tanh_grad(%5, %6) @ipu1 stage1 bwd "layer 3"
                inputs %0
                outputs %6
            "#]],
        );
    }

    #[test]
    fn a_stage_may_keep_everything() {
        let options = RecomputeOptions {
            checkpoints: Vec::new(),
            whole_stages: vec![StageId(0)],
            loss_stage: Some(StageId(1)),
        };
        let graph = parse(TWO_STAGES).unwrap();
        assert_eq!(recompute(graph.clone(), &options).unwrap(), graph);
    }

    #[test]
    fn checkpoints_are_results() {
        check(
            TWO_STAGES,
            &[0],
            1,
            &expect!["%0 `x` is not the result of an operation"],
        );
    }
}

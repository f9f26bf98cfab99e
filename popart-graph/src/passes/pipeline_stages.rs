//! Which stage runs when, and where: the rules of a pipeline.
//!
//! **Assumes** a placed forward graph. Its operations have stages, or none has one, and
//! then each IPU is a stage.
//! **Guarantees** stages numbered from 0 without a gap, each on one IPU and neighbours on
//! different ones, values flowing only to later stages, and enough micro-batches to fill
//! the pipeline.
//! **Leaves alone** everything but the stage of operations. Running it twice changes
//! nothing more.
//!
//! Forward stages `0..=l` are mirrored by backward stages: the gradient of stage `s` is
//! in stage `2 l - s`, so the stage of the loss has both directions and there are
//! `2 l + 1` stages (PopART, `willow/src/transforms/pipeline.cpp`). Left out are PopART's
//! stages that share a slot although they are not neighbours.
//!
//! ```text
//! before
//! stream %0: f32[] "x"
//! %1: f32[] = tanh(%0) @ipu0 fwd "a"
//! %2: f32[] = tanh(%1) @ipu1 fwd "b"
//! %3: f32[] = tanh(%2) @ipu1 fwd "loss"
//! inputs %0
//! outputs %3
//! after
//! stream %0: f32[] "x"
//! %1: f32[] = tanh(%0) @ipu0 stage0 fwd "a"
//! %2: f32[] = tanh(%1) @ipu1 stage1 fwd "b"
//! %3: f32[] = tanh(%2) @ipu1 stage1 fwd "loss"
//! inputs %0
//! outputs %3
//! ```

mod depth;
mod error;

use ipu_sim::ids::{Id, IdVec, IpuId};

pub use self::depth::PipelineDepth;
pub use self::error::PipelineError;

use crate::ir::{Graph, OpId, Phase, StageId, TensorId};
use crate::verify::Violation;

/// Options of a pipeline: its loss, if it trains, and its micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipelineStages {
    /// The final loss; `None` for inference.
    pub loss: Option<TensorId>,
    /// Micro-batches that pass through between filling and flushing.
    pub depth: PipelineDepth,
}

/// The stages of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Where each stage runs, forward and backward.
    pub stages: IdVec<StageId, IpuId>,
    /// The last forward stage: in training, that of the loss.
    pub loss_stage: StageId,
    /// The stage that each of the model's is part of: neighbours on one IPU are one.
    pub merged: IdVec<StageId, StageId>,
}

impl Pipeline {
    /// The stage of the gradients of a forward stage.
    ///
    /// # Panics
    /// If `stage` is after the stage of the loss.
    #[must_use]
    pub fn backward(&self, stage: StageId) -> StageId {
        StageId(2 * self.loss_stage.0 - stage.0)
    }

    /// The stages that `whole` ones of the model are, which must agree with all others that are
    /// one stage with them.
    ///
    /// # Errors
    /// The model hasn't such a stage, or a neighbour that is one with it isn't among them.
    pub fn whole_stages(&self, whole: &[StageId]) -> Result<Vec<StageId>, PipelineError> {
        let is_whole = |stage: StageId| whole.contains(&stage);
        for &stage in whole {
            if stage.index() >= self.merged.len() {
                return Err(PipelineError::NoSuchStage { stage });
            }
            let together = |&other: &StageId| self.merged[other] == self.merged[stage];
            let mut neighbours = self.merged.ids().filter(together);
            if let Some(other) = neighbours.find(|&other| !is_whole(other)) {
                return Err(PipelineError::MixedRecomputation {
                    whole: stage,
                    other,
                    ipu: self.stages[self.merged[stage]],
                });
            }
        }
        Ok(whole.iter().map(|&stage| self.merged[stage]).collect())
    }
}

/// Checks and numbers the stages of a forward graph.
///
/// # Errors
/// An operation without an IPU, or without a stage where others have one; a stage on two
/// IPUs or without operations; all on one IPU; a value for an earlier stage; an operation
/// after the stage of the loss; fewer micro-batches than stages.
pub fn pipeline_stages(
    mut graph: Graph,
    options: &PipelineStages,
) -> Result<(Graph, Pipeline), PipelineError> {
    infer_stages(&mut graph)?;
    let mut stages = places(&graph)?;
    let merged = merge_neighbours(&mut graph, &mut stages);
    if stages.len() < 2 {
        return Err(PipelineError::OnOneIpu);
    }
    values_flow_on(&graph)?;
    let loss_stage = match options.loss {
        Some(loss) => loss_stage(&graph, loss)?,
        None => StageId::from_index(stages.len() - 1),
    };
    if options.loss.is_some() && stages.len() == loss_stage.index() + 1 {
        for stage in (0..loss_stage.0).rev() {
            stages.push(stages[StageId(stage)]);
        }
    }
    if (options.depth.micro_batches() as usize) < stages.len() {
        return Err(PipelineError::Depth {
            stages: stages.len(),
            depth: options.depth,
        });
    }
    let pipeline = Pipeline {
        stages,
        loss_stage,
        merged,
    };
    Ok((graph, pipeline))
}

/// Where no operation has a stage, its IPU is its stage.
fn infer_stages(graph: &mut Graph) -> Result<(), Violation> {
    every_operation_is_placed(graph)?;
    if graph.ops.values().all(|op| op.stage.is_none()) {
        for op in graph.ops.values_mut() {
            op.stage = op.ipu.map(|ipu| StageId(ipu.0));
        }
    }
    Ok(())
}

/// An operation without an IPU is an error.
pub(super) fn every_operation_is_placed(graph: &Graph) -> Result<(), Violation> {
    match graph.ops.iter().find(|(_, op)| op.ipu.is_none()) {
        Some((op, operation)) => {
            let name = operation.name.clone();
            Err(Violation::NotPlaced { op, name })
        }
        None => Ok(()),
    }
}

/// The IPU of each stage.
fn places(graph: &Graph) -> Result<IdVec<StageId, IpuId>, Violation> {
    let mut places: IdVec<StageId, Option<IpuId>> = IdVec::new();
    for (op, operation) in graph.ops.iter() {
        let name = || operation.name.clone();
        let got = operation.ipu.expect("every operation is placed");
        let Some(stage) = operation.stage else {
            return Err(Violation::NoStage { op, name: name() });
        };
        while places.len() <= stage.index() {
            places.push(None);
        }
        let expected = *places[stage].get_or_insert(got);
        if expected != got {
            return Err(Violation::StageIpu {
                op,
                name: name(),
                stage,
                expected,
                got,
            });
        }
    }
    places
        .iter()
        .map(|(stage, place)| place.ok_or_else(|| Violation::StageGap { stage }))
        .collect()
}

/// Makes one stage of neighbours on the same IPU; gives the new stage of each.
fn merge_neighbours(
    graph: &mut Graph,
    stages: &mut IdVec<StageId, IpuId>,
) -> IdVec<StageId, StageId> {
    let mut merged: IdVec<StageId, IpuId> = IdVec::new();
    let mut new_stage: IdVec<StageId, StageId> = IdVec::new();
    for &ipu in stages.values() {
        if merged.values().last() != Some(&ipu) {
            merged.push(ipu);
        }
        new_stage.push(StageId::from_index(merged.len() - 1));
    }
    for op in graph.ops.values_mut() {
        op.stage = op.stage.map(|stage| new_stage[stage]);
    }
    *stages = merged;
    new_stage
}

fn values_flow_on(graph: &Graph) -> Result<(), Violation> {
    let producers = graph.producers();
    let stage = |op: OpId| graph.ops[op].stage.expect("every operation has a stage");
    for (op, operation) in graph.ops.iter() {
        let from = operation.inputs.iter().filter_map(|&id| producers[id]);
        if let Some(producer) = from.map(stage).max()
            && producer > stage(op)
        {
            return Err(Violation::StageOrder {
                op,
                name: operation.name.clone(),
                consumer: stage(op),
                producer,
            });
        }
    }
    Ok(())
}

/// The stage of the loss, with no forward operation after it.
fn loss_stage(graph: &Graph, loss: TensorId) -> Result<StageId, PipelineError> {
    let producer = graph.ops.iter().find(|(_, op)| op.outputs.contains(&loss));
    let loss_stage =
        producer
            .and_then(|(_, op)| op.stage)
            .ok_or_else(|| PipelineError::LossNotComputed {
                tensor: loss,
                name: graph.tensors[loss].name.clone(),
            })?;
    let forward = graph
        .ops
        .iter()
        .filter(|(_, op)| op.phase == Phase::Forward);
    for (op, operation) in forward {
        let stage = operation.stage.expect("every operation has a stage");
        if stage > loss_stage {
            return Err(PipelineError::AfterLoss {
                op,
                name: operation.name.clone(),
                stage,
                loss_stage,
            });
        }
    }
    Ok(loss_stage)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::testing::check_header;
    use crate::text::{parse, print};

    /// A chain of operations at `(ipu, stage)`, the last one a scalar loss.
    fn chain(places: &[(u32, Option<u32>)]) -> (Graph, TensorId) {
        let mut text = String::from("stream %0: f32[] \"x\"\ninputs %0\n");
        for (position, (ipu, stage)) in places.iter().enumerate() {
            let stage = stage.map_or(String::new(), |stage| format!(" stage{stage}"));
            text += &format!(
                "%{}: f32[] = tanh(%{position}) @ipu{ipu}{stage} fwd \"{position}\"\n",
                position + 1
            );
        }
        let loss = TensorId::from_index(places.len());
        (parse(&text).unwrap(), loss)
    }

    #[track_caller]
    fn check(places: &[(u32, Option<u32>)], micro_batches: u32, expected: &Expect) {
        let (graph, loss) = chain(places);
        let options = PipelineStages {
            loss: Some(loss),
            depth: PipelineDepth::Accumulation(micro_batches),
        };
        let got = match pipeline_stages(graph, &options) {
            Err(error) => error.to_string(),
            Ok((graph, pipeline)) => {
                let again = pipeline_stages(graph.clone(), &options).unwrap();
                assert_eq!(again, (graph, pipeline.clone()));
                let ipus: Vec<u32> = pipeline.stages.values().map(|ipu| ipu.0).collect();
                format!("{ipus:?}, loss in {}", pipeline.loss_stage)
            }
        };
        expected.assert_eq(&got);
    }

    #[test]
    fn the_header_shows_it() {
        check_header(include_str!("pipeline_stages.rs"), |graph| {
            let options = PipelineStages {
                loss: Some(TensorId(3)),
                depth: PipelineDepth::Accumulation(3),
            };
            pipeline_stages(graph, &options).unwrap().0
        });
    }

    #[test]
    fn neighbours_on_one_ipu_merge() {
        let (graph, loss) = chain(&[(0, Some(0)), (1, Some(1)), (1, Some(2)), (0, Some(3))]);
        let options = PipelineStages {
            loss: Some(loss),
            depth: PipelineDepth::Accumulation(5),
        };
        let (graph, pipeline) = pipeline_stages(graph, &options).unwrap();
        let whole = |stages: &[u32]| {
            let stages: Vec<StageId> = stages.iter().map(|&stage| StageId(stage)).collect();
            pipeline
                .whole_stages(&stages)
                .map_err(|error| error.to_string())
        };
        assert_eq!(whole(&[3]), Ok(vec![StageId(2)]));
        assert_eq!(whole(&[1, 2]), Ok(vec![StageId(1); 2]));
        let mixed =
            "stage2 computes nothing again and stage1 does, but both are one stage of IPU 1";
        assert_eq!(whole(&[2]), Err(mixed.into()));
        let none = "stage4 is to compute nothing again, but there is no such stage";
        assert_eq!(whole(&[4]), Err(none.into()));
        expect![[r#"
            stream %0: f32[] "x"
            %1: f32[] = tanh(%0) @ipu0 stage0 fwd "0"
            %2: f32[] = tanh(%1) @ipu1 stage1 fwd "1"
            %3: f32[] = tanh(%2) @ipu1 stage1 fwd "2"
            %4: f32[] = tanh(%3) @ipu0 stage2 fwd "3"
            inputs %0
        "#]]
        .assert_eq(&print(&graph));
    }

    #[test]
    fn backward_stages_mirror_forward_ones() {
        // BERT-Large on four IPUs, heads on the first; PopART counts 9 stages.
        let large = [0, 1, 2, 3, 0].map(|ipu| (ipu, None::<u32>));
        let staged: Vec<_> = (0..)
            .zip(large)
            .map(|(stage, (ipu, _))| (ipu, Some(stage)))
            .collect();
        check(
            &staged,
            2048,
            &expect!["[0, 1, 2, 3, 0, 3, 2, 1, 0], loss in stage4"],
        );
        check(
            &[(0, None), (1, None)],
            3,
            &expect!["[0, 1, 0], loss in stage1"],
        );
        check(
            &staged,
            8,
            &expect!["a pipeline of 9 stages needs as many micro-batches, got 8"],
        );
    }

    #[test]
    fn inference_has_only_forward_stages() {
        let (graph, _) = chain(&[(0, None), (1, None)]);
        let options = PipelineStages {
            loss: None,
            depth: PipelineDepth::MicroBatches(2),
        };
        let (_, pipeline) = pipeline_stages(graph, &options).unwrap();
        assert_eq!(pipeline.stages, IdVec::from(vec![IpuId(0), IpuId(1)]));
    }

    #[test]
    fn broken_rules_are_named() {
        check(
            &[(0, Some(0)), (1, None)],
            9,
            &expect!["malformed graph: op 1 `1` has no stage, others do"],
        );
        check(
            &[(0, Some(0)), (1, Some(2))],
            9,
            &expect!["malformed graph: stage1 is empty, later ones are not"],
        );
        check(
            &[(0, Some(0)), (1, Some(0))],
            9,
            &expect!["malformed graph: op 1 `1` puts stage0 on IPU 1, others are on IPU 0"],
        );
        check(
            &[(0, None), (1, None), (0, None)],
            9,
            &expect!["malformed graph: op 2 `2` in stage0 reads a result of stage1"],
        );
        check(
            &[(0, Some(0)), (0, Some(1))],
            9,
            &expect!["a pipeline needs stages on at least two IPUs"],
        );
    }

    #[test]
    fn nothing_follows_the_loss() {
        let (graph, _) = chain(&[(0, None), (1, None)]);
        let options = PipelineStages {
            loss: Some(TensorId(1)),
            depth: PipelineDepth::Accumulation(9),
        };
        expect!["op 1 `1` is in stage1, after the loss in stage0"]
            .assert_eq(&pipeline_stages(graph, &options).unwrap_err().to_string());
    }
}

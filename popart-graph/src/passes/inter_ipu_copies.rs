//! Which values travel between IPUs, and along which way.
//!
//! **Assumes** a placed graph; with a pipeline, stages that [`super::pipeline_stages()`] has
//! numbered.
//! **Guarantees** that operations read only what is on their IPU ([`Form::Placed`]). In a
//! pipeline a value moves on by one stage a cycle, so a copy from stage `a` to stage `b`
//! becomes a chain that lands on the IPU of every stage between (PopART,
//! `willow/src/transforms/interipucopy.cpp` and `contiguateipucopies.cpp`). Copies to several
//! stages share one chain. A stream is sent to the IPU of its lowest stage and copied on
//! from there. What is needed later on the same IPU isn't copied: see [`super::stash()`].
//! **Leaves alone** constants, which are on every IPU, and variables, which must be read on
//! one. In the weight update there are no stages: copies go straight to where they are
//! needed. So do those of hyper-parameters, as the learning rate, also where weights are updated
//! in stages (PopART, `isOptimizerTensor`). Running it twice changes nothing more.
//!
//! ```text
//! before
//! stream %0: f32[2] "x"
//! %1: f32[2] = tanh(%0) @ipu0 stage0 fwd "a"
//! %2: f32[2] = tanh(%1) @ipu1 stage1 fwd "b"
//! %3: f32[2] = add(%1, %2) @ipu2 stage2 fwd "c"
//! inputs %0
//! outputs %3
//! after
//! stream %0: f32[2] "x"
//! %1: f32[2] = tanh(%0) @ipu0 stage0 fwd "a"
//! %4: f32[2] = ipu_copy(%1) {to: ipu1} @ipu0 stage0 fwd "a"
//! %2: f32[2] = tanh(%4) @ipu1 stage1 fwd "b"
//! %5: f32[2] = ipu_copy(%4) {to: ipu2} @ipu1 stage1 fwd "a"
//! %6: f32[2] = ipu_copy(%2) {to: ipu2} @ipu1 stage1 fwd "b"
//! %3: f32[2] = add(%5, %6) @ipu2 stage2 fwd "c"
//! inputs %0
//! outputs %3
//! ```
//!
//! [`Form::Placed`]: crate::verify::Form::Placed

use std::collections::BTreeMap;

use ipu_sim::ids::IpuId;

use super::pipeline_stages::Pipeline;
use crate::infer::InferError;
use crate::ir::{
    Graph, OpId, OpKind, Phase, Purpose, Recompute, Scope, StageId, TensorId, TensorKind,
};

/// Why values can't be copied between IPUs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CopyError {
    /// A variable that operations on two IPUs read.
    #[error("variable {tensor} `{name}` is read on {first} and on {second}")]
    VariableOnTwoIpus {
        /// The variable.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// One IPU.
        first: IpuId,
        /// Another.
        second: IpuId,
    },
    /// A copy that was to be added.
    #[error(transparent)]
    Infer(#[from] InferError),
}

/// End of a copy: where and when a value is, or is needed.
#[derive(Clone, Copy, Debug)]
struct CopyEnd {
    ipu: IpuId,
    stage: Option<StageId>,
    phase: Phase,
}

/// Puts a copy wherever a value is read on another IPU than it is on.
///
/// # Errors
/// A variable is read on two IPUs.
///
/// # Panics
/// If an operation isn't placed, or a value flows to an earlier stage.
pub fn inter_ipu_copies(mut graph: Graph, pipeline: Option<&Pipeline>) -> Result<Graph, CopyError> {
    let producers = graph.producers();
    let consumers = graph.consumers();
    let hyper_parameters = graph.hyper_parameters();
    for tensor in graph.tensors.ids() {
        let readers: Vec<(OpId, CopyEnd)> = consumers[tensor]
            .iter()
            .map(|&op| (op, copy_end(&graph, op)))
            .collect();
        let Some(lowest) = readers
            .iter()
            .map(|&(_, end)| end)
            .min_by_key(|end| (end.stage.is_none(), end.stage, end.phase, end.ipu))
        else {
            continue;
        };
        let home = match (&graph.tensors[tensor].kind, producers[tensor]) {
            (TensorKind::Constant(_), _) => continue,
            (TensorKind::Variable { .. }, _) => {
                on_one_ipu(&graph, tensor, &readers)?;
                continue;
            }
            (_, Some(op)) if matches!(graph.ops[op].kind, OpKind::IpuCopy { .. }) => continue,
            (_, Some(op)) => copy_end(&graph, op),
            (_, None) if hyper_parameters[tensor] => CopyEnd {
                ipu: lowest_ipu(&readers),
                stage: None,
                phase: Phase::Update,
            },
            (_, None) => lowest,
        };
        let (staged, direct): (Vec<_>, Vec<_>) = readers
            .into_iter()
            .filter(|(_, reader)| reader.ipu != home.ipu)
            .partition(|(_, reader)| reader.stage.is_some() && !hyper_parameters[tensor]);
        copy_straight(&mut graph, tensor, home, &direct)?;
        if let Some(pipeline) = pipeline {
            copy_along_stages(&mut graph, tensor, home, &staged, pipeline)?;
        } else {
            assert!(staged.is_empty(), "without a pipeline there are no stages");
        }
    }
    Ok(graph)
}

fn copy_end(graph: &Graph, op: OpId) -> CopyEnd {
    let op = &graph.ops[op];
    CopyEnd {
        ipu: op.ipu.expect("every operation is placed"),
        stage: op.stage,
        phase: op.phase,
    }
}

fn lowest_ipu(readers: &[(OpId, CopyEnd)]) -> IpuId {
    let ipus = readers.iter().map(|(_, reader)| reader.ipu);
    ipus.min().expect("it has readers")
}

fn on_one_ipu(
    graph: &Graph,
    tensor: TensorId,
    readers: &[(OpId, CopyEnd)],
) -> Result<(), CopyError> {
    let first = readers[0].1.ipu;
    match readers.iter().find(|(_, reader)| reader.ipu != first) {
        Some((_, other)) => Err(CopyError::VariableOnTwoIpus {
            tensor,
            name: graph.tensors[tensor].name.clone(),
            first,
            second: other.ipu,
        }),
        None => Ok(()),
    }
}

/// One copy to each IPU.
fn copy_straight(
    graph: &mut Graph,
    tensor: TensorId,
    home: CopyEnd,
    readers: &[(OpId, CopyEnd)],
) -> Result<(), InferError> {
    let mut copies: BTreeMap<IpuId, TensorId> = BTreeMap::new();
    for &(op, reader) in readers {
        let copied = match copies.get(&reader.ipu) {
            Some(&copied) => copied,
            None => {
                // With stages, only the weight update is here, and a copy for it is part of it.
                let phase = if home.stage.is_some() {
                    reader.phase
                } else {
                    home.phase
                };
                let from = CopyEnd {
                    stage: None,
                    phase,
                    ..home
                };
                add_copy(graph, tensor, tensor, from, reader.ipu)?
            }
        };
        copies.insert(reader.ipu, copied);
        redirect(graph, op, tensor, copied);
    }
    Ok(())
}

/// A chain of copies, one for each stage up to the last IPU's lowest.
fn copy_along_stages(
    graph: &mut Graph,
    tensor: TensorId,
    home: CopyEnd,
    readers: &[(OpId, CopyEnd)],
    pipeline: &Pipeline,
) -> Result<(), InferError> {
    let mut arrival: BTreeMap<IpuId, StageId> = BTreeMap::new();
    for (_, reader) in readers {
        let stage = reader.stage.expect("these have stages");
        let lowest = arrival.entry(reader.ipu).or_insert(stage);
        *lowest = stage.min(*lowest);
    }
    let (Some(start), Some(&last)) = (home.stage, arrival.values().max()) else {
        return Ok(());
    };
    assert!(
        arrival.values().all(|&stage| stage > start),
        "values flow to later stages"
    );
    let mut landed: BTreeMap<StageId, TensorId> = BTreeMap::new();
    let mut value = tensor;
    for stage in start.0..last.0 {
        let (stage, next) = (StageId(stage), StageId(stage + 1));
        let phase = if stage > pipeline.loss_stage {
            Phase::Backward
        } else {
            home.phase
        };
        let from = CopyEnd {
            ipu: pipeline.stages[stage],
            stage: Some(stage),
            phase,
        };
        value = add_copy(graph, tensor, value, from, pipeline.stages[next])?;
        landed.insert(next, value);
    }
    for &(op, reader) in readers {
        redirect(graph, op, tensor, landed[&arrival[&reader.ipu]]);
    }
    Ok(())
}

/// A copy of `value`, with the name and part of the tensor that it began as.
fn add_copy(
    graph: &mut Graph,
    tensor: TensorId,
    value: TensorId,
    from: CopyEnd,
    to: IpuId,
) -> Result<TensorId, InferError> {
    let scope = Scope {
        name: graph.tensors[tensor].name.clone(),
        ipu: Some(from.ipu),
        stage: from.stage,
        part: graph.tensors[tensor].part,
        phase: from.phase,
        recompute: Recompute::Checkpoint,
        purpose: Purpose::General,
    };
    graph.add(OpKind::IpuCopy { to }, &[value], &scope)
}

/// Lets an operation read something else.
fn redirect(graph: &mut Graph, op: OpId, from: TensorId, to: TensorId) {
    for input in &mut graph.ops[op].inputs {
        if *input == from {
            *input = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use ipu_sim::ids::IdVec;

    use super::*;
    use crate::testing::check_header;
    use crate::text::{parse, print};
    use crate::verify::{Form, verify};

    fn pipeline(stages: &[u32], loss_stage: u32) -> Pipeline {
        Pipeline {
            stages: stages.iter().copied().map(IpuId).collect::<IdVec<_, _>>(),
            loss_stage: StageId(loss_stage),
            merged: stages
                .iter()
                .zip(0..)
                .map(|(_, stage)| StageId(stage))
                .collect(),
        }
    }

    #[track_caller]
    fn check(text: &str, pipeline: Option<&Pipeline>, expected: &Expect) {
        let graph = parse(text).unwrap();
        let got = match inter_ipu_copies(graph, pipeline) {
            Err(error) => error.to_string(),
            Ok(graph) => {
                verify(&graph, Form::Placed).unwrap();
                assert_eq!(inter_ipu_copies(graph.clone(), pipeline).unwrap(), graph);
                print(&graph)
            }
        };
        expected.assert_eq(&got);
    }

    #[test]
    fn the_header_shows_it() {
        check_header(include_str!("inter_ipu_copies.rs"), |graph| {
            inter_ipu_copies(graph, Some(&pipeline(&[0, 1, 2], 2))).unwrap()
        });
    }

    #[test]
    fn a_value_advances_one_stage_at_a_time() {
        let text = r#"stream %0: f32[2] "x"
%1: f32[2] = tanh(%0) @ipu0 stage0 fwd "a"
%2: f32[2] = tanh(%1) @ipu1 stage1 fwd "b"
%3: f32[2] = add(%1, %2) @ipu2 stage2 fwd "c"
%4: f32[2] = add(%1, %3) @ipu0 stage3 fwd "d"
inputs %0
outputs %4
"#;
        // `a` reaches the third IPU by way of the second, and isn't copied to its own.
        check(
            text,
            Some(&pipeline(&[0, 1, 2, 0], 3)),
            &expect![[r#"
                stream %0: f32[2] "x"
                %1: f32[2] = tanh(%0) @ipu0 stage0 fwd "a"
                %5: f32[2] = ipu_copy(%1) {to: ipu1} @ipu0 stage0 fwd "a"
                %2: f32[2] = tanh(%5) @ipu1 stage1 fwd "b"
                %6: f32[2] = ipu_copy(%5) {to: ipu2} @ipu1 stage1 fwd "a"
                %7: f32[2] = ipu_copy(%2) {to: ipu2} @ipu1 stage1 fwd "b"
                %3: f32[2] = add(%6, %7) @ipu2 stage2 fwd "c"
                %8: f32[2] = ipu_copy(%3) {to: ipu0} @ipu2 stage2 fwd "c"
                %4: f32[2] = add(%1, %8) @ipu0 stage3 fwd "d"
                inputs %0
                outputs %4
            "#]],
        );
    }

    #[test]
    fn a_stream_enters_at_its_lowest_stage() {
        let text = r#"stream %0: f32[2] "x"
stream %1: f32[] "rate"
%2: f32[2] = tanh(%0) @ipu0 stage0 fwd "a"
%3: f32[2] = tanh(%0) @ipu1 stage1 fwd "b"
%4: f32[2] = tanh(%0) @ipu0 stage2 bwd "c"
%5: f32[] = neg(%1) @ipu0 upd "d"
%6: f32[] = neg(%1) @ipu1 upd "e"
inputs %0, %1
outputs %2, %3, %4, %5, %6
"#;
        check(
            text,
            Some(&pipeline(&[0, 1, 0], 1)),
            &expect![[r#"
                stream %0: f32[2] "x"
                stream %1: f32[] "rate"
                %2: f32[2] = tanh(%0) @ipu0 stage0 fwd "a"
                %7: f32[2] = ipu_copy(%0) {to: ipu1} @ipu0 stage0 fwd "x"
                %3: f32[2] = tanh(%7) @ipu1 stage1 fwd "b"
                %4: f32[2] = tanh(%0) @ipu0 stage2 bwd "c"
                %5: f32[] = neg(%1) @ipu0 upd "d"
                %8: f32[] = ipu_copy(%1) {to: ipu1} @ipu0 upd "rate"
                %6: f32[] = neg(%8) @ipu1 upd "e"
                inputs %0, %1
                outputs %2, %3, %4, %5, %6
            "#]],
        );
    }

    #[test]
    fn without_a_pipeline_copies_go_straight() {
        let text = r#"stream %0: f32[2] "x"
%1: f32[2] = tanh(%0) @ipu0 fwd "a"
%2: f32[2] = tanh(%1) @ipu2 fwd "b"
%3: f32[2] = tanh_grad(%1, %2) @ipu2 bwd "b"
inputs %0
outputs %3
"#;
        check(
            text,
            None,
            &expect![[r#"
                stream %0: f32[2] "x"
                %1: f32[2] = tanh(%0) @ipu0 fwd "a"
                %4: f32[2] = ipu_copy(%1) {to: ipu2} @ipu0 fwd "a"
                %2: f32[2] = tanh(%4) @ipu2 fwd "b"
                %3: f32[2] = tanh_grad(%4, %2) @ipu2 bwd "b"
                inputs %0
                outputs %3
            "#]],
        );
    }

    #[test]
    fn a_variable_is_read_on_one_ipu() {
        let text = r#"variable %0: f32[2] = zeros "w"
%1: f32[2] = tanh(%0) @ipu0 fwd "a"
%2: f32[2] = tanh(%0) @ipu1 fwd "b"
outputs %1, %2
"#;
        check(
            text,
            None,
            &expect!["variable %0 `w` is read on IPU 0 and on IPU 1"],
        );
    }
}

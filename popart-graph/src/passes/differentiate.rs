//! The gradients of all weights, each stage's gradients in the stage that mirrors it.
//!
//! **Assumes** a forward graph; with a pipeline, stages that [`super::pipeline_stages()`] has
//! numbered.
//! **Guarantees** a gradient for each weight, on the weight's IPU, and values that flow only
//! to later stages.
//! **Leaves alone** forward operations. Running it twice adds the gradients twice.
//!
//! The rules are in [`crate::grad`]. Added here: the parts of a gradient are summed where the
//! last of them is made, not where the sum is needed, so that one value travels between IPUs
//! instead of several.
//!
//! ```text
//! before
//! variable %0: f32[] = zeros "w"
//! stream %1: f32[] "x"
//! %2: f32[] = mul(%1, %0) @ipu0 stage0 fwd "layer"
//! %3: f32[] = tanh(%2) @ipu1 stage1 fwd "loss"
//! inputs %1
//! outputs %3
//! after
//! variable %0: f32[] = zeros "w"
//! stream %1: f32[] "x"
//! constant %4: f32[] = splat(8.0) "loss_scale"
//! %2: f32[] = mul(%1, %0) @ipu0 stage0 fwd "layer"
//! %3: f32[] = tanh(%2) @ipu1 stage1 fwd "loss"
//! %5: f32[] = tanh_grad(%3, %4) @ipu1 stage1 bwd "loss"
//! %6: f32[] = mul(%5, %1) @ipu0 stage2 bwd "layer"
//! inputs %1
//! outputs %3
//! ```

use indexmap::IndexMap;
use ipu_sim::ids::{IdVec, IpuId};

use crate::grad::{GradError, backward};
use crate::ir::{BinaryFn, Graph, Op, OpId, OpKind, Phase, StageId, TensorId, TensorKind};

/// Loss to differentiate, and the variables to differentiate it by.
#[derive(Clone, Debug, PartialEq)]
pub struct Differentiate {
    /// The final loss, a scalar.
    pub loss: TensorId,
    /// Multiplies the loss, so that small gradients don't vanish in `f16`.
    pub loss_scale: f64,
    /// The variables to train.
    pub weights: Vec<TensorId>,
}

/// The tensor that holds each variable's gradient.
pub type Gradients = IndexMap<TensorId, TensorId>;

/// Adds the operations of the backward pass.
///
/// # Errors
/// Those of [`backward`]: no scalar loss, a weight that it doesn't depend on, or an operation
/// without a gradient.
pub fn differentiate(
    mut graph: Graph,
    options: &Differentiate,
) -> Result<(Graph, Gradients), GradError> {
    let gradients = backward(
        &mut graph,
        options.loss,
        options.loss_scale,
        &options.weights,
    )?;
    let producers = graph.producers();
    for id in graph.topological_order()? {
        let op = &graph.ops[id];
        if op.phase == Phase::Backward
            && op.kind == OpKind::Binary(BinaryFn::Add)
            && let Some((stage, ipu)) = last_part(&graph, op, &producers)
        {
            graph.ops[id].stage = stage;
            graph.ops[id].ipu = ipu;
        }
    }
    Ok((graph, gradients))
}

/// Where the last part of a sum of gradients is made. `None` if parts are not gradients, or,
/// without stages, are made on several IPUs.
fn last_part(
    graph: &Graph,
    sum: &Op,
    producers: &IdVec<TensorId, Option<OpId>>,
) -> Option<(Option<StageId>, Option<IpuId>)> {
    let part = |&tensor: &TensorId| {
        let op = &graph.ops[producers[tensor]?];
        (op.phase == Phase::Backward).then_some((op.stage, op.ipu))
    };
    // Constants are everywhere.
    let is_made = |id: &&TensorId| !matches!(graph.tensors[**id].kind, TensorKind::Constant(_));
    let made = sum.inputs.iter().filter(is_made);
    let places: Vec<_> = made.map(part).collect::<Option<_>>()?;
    let last = places.iter().copied().max()?;
    let one_place = places.iter().all(|place| *place == last);
    (one_place || last.0.is_some()).then_some(last)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::check_header;
    use crate::text::{parse, print};
    use crate::verify::{Form, verify};

    #[test]
    fn the_header_shows_it() {
        check_header(include_str!("differentiate.rs"), |graph| {
            let options = Differentiate {
                loss: TensorId(3),
                loss_scale: 8.0,
                weights: vec![TensorId(0)],
            };
            differentiate(graph, &options).unwrap().0
        });
    }

    #[test]
    fn gradients_of_one_weight_meet_in_the_last_stage() {
        // `early` is differentiated first, because it was written down last.
        let graph = parse(
            r#"variable %0: f32[] = zeros "w"
stream %1: f32[] "x"
%2: f32[] = mul(%1, %0) @ipu0 stage2 fwd "late"
%3: f32[] = mul(%1, %0) @ipu0 stage0 fwd "early"
%4: f32[] = tanh(%3) @ipu1 stage1 fwd "middle"
%5: f32[] = add(%4, %2) @ipu0 stage2 fwd "loss"
inputs %1
outputs %5
"#,
        )
        .unwrap();
        let options = Differentiate {
            loss: TensorId(5),
            loss_scale: 8.0,
            weights: vec![TensorId(0)],
        };
        let (graph, gradients) = differentiate(graph, &options).unwrap();
        verify(&graph, Form::Logical).unwrap();
        expect![[r#"
            variable %0: f32[] = zeros "w"
            stream %1: f32[] "x"
            constant %6: f32[] = splat(8.0) "loss_scale"
            %2: f32[] = mul(%1, %0) @ipu0 stage2 fwd "late"
            %3: f32[] = mul(%1, %0) @ipu0 stage0 fwd "early"
            %4: f32[] = tanh(%3) @ipu1 stage1 fwd "middle"
            %5: f32[] = add(%4, %2) @ipu0 stage2 fwd "loss"
            %7: f32[] = tanh_grad(%4, %6) @ipu1 stage3 bwd "middle"
            %8: f32[] = mul(%7, %1) @ipu0 stage4 bwd "early"
            %9: f32[] = mul(%6, %1) @ipu0 stage2 bwd "late"
            %10: f32[] = add(%8, %9) @ipu0 stage4 bwd "late"
            inputs %1
            outputs %5
        "#]]
        .assert_eq(&print(&graph));
        assert_eq!(gradients.len(), 1);
    }

    #[test]
    fn parts_are_summed_before_they_travel() {
        // Both readers of `a` are in another stage: one gradient comes back, not two.
        let graph = parse(
            r#"variable %0: f32[] = zeros "w"
%1: f32[] = tanh(%0) @ipu0 stage0 fwd "a"
%2: f32[] = tanh(%1) @ipu1 stage1 fwd "b"
%3: f32[] = add(%1, %2) @ipu1 stage1 fwd "loss"
outputs %3
"#,
        )
        .unwrap();
        let options = Differentiate {
            loss: TensorId(3),
            loss_scale: 1.0,
            weights: vec![TensorId(0)],
        };
        let (graph, _) = differentiate(graph, &options).unwrap();
        verify(&graph, Form::Logical).unwrap();
        expect![[r#"
            variable %0: f32[] = zeros "w"
            constant %4: f32[] = splat(1.0) "loss_scale"
            %1: f32[] = tanh(%0) @ipu0 stage0 fwd "a"
            %2: f32[] = tanh(%1) @ipu1 stage1 fwd "b"
            %3: f32[] = add(%1, %2) @ipu1 stage1 fwd "loss"
            %5: f32[] = tanh_grad(%2, %4) @ipu1 stage1 bwd "b"
            %6: f32[] = add(%4, %5) @ipu1 stage1 bwd "a"
            %7: f32[] = tanh_grad(%1, %6) @ipu0 stage2 bwd "a"
            outputs %3
        "#]]
        .assert_eq(&print(&graph));
    }
}

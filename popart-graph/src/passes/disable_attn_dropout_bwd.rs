//! The gradient of a dropout behind a softmax passes through unchanged.
//!
//! **Assumes** a graph with gradients, before accumulation.
//! **Guarantees** that no dropout is left between the gradient of a matrix product and that of a
//! softmax, where attention has one: it is an identity, which costs nothing.
//! **Leaves alone** every other dropout, the forward ones and what is computed of them again among
//! them. Running it twice changes nothing more.
//!
//! This is PopART's pattern `DisableAttnDropoutBwdPattern`, with which the application of revision
//! 96fef3f trained SQuAD, and later releases do where asked to. It saves a pass over all scores and
//! doesn't keep the numbers: gradients of scores that were dropped are no longer zero, and those of
//! the others are too small by the probability of being kept. So it only runs where it is asked for.
//!
//! ```text
//! before
//! stream %0: f16[2,2] "scores"
//! stream %1: u32[2] "seed"
//! stream %2: f16[2,2] "values"
//! stream %3: f16[2,2] "gradient"
//! %4: f16[2,2] = softmax(%0) @ipu0 fwd "softmax"
//! %5: f16[2,2] = dropout(%4, %1) {probability: 0.1, id: 1} @ipu0 fwd "dropout"
//! %6: f16[2,2] = matmul(%5, %2) {pass: none, proportion: 0.6, partials: half} @ipu0 fwd "product"
//! %7: f16[2,2] = matmul(%3, %2) {pass: none, proportion: 0.6, partials: half} @ipu0 bwd "product"
//! %8: f16[2,2] = dropout(%7, %1) {probability: 0.1, id: 1} @ipu0 bwd "dropout"
//! %9: f16[2,2] = softmax_grad(%4, %8) @ipu0 bwd "softmax"
//! inputs %0, %1, %2, %3
//! outputs %6, %9
//! after
//! stream %0: f16[2,2] "scores"
//! stream %1: u32[2] "seed"
//! stream %2: f16[2,2] "values"
//! stream %3: f16[2,2] "gradient"
//! %4: f16[2,2] = softmax(%0) @ipu0 fwd "softmax"
//! %5: f16[2,2] = dropout(%4, %1) {probability: 0.1, id: 1} @ipu0 fwd "dropout"
//! %6: f16[2,2] = matmul(%5, %2) {pass: none, proportion: 0.6, partials: half} @ipu0 fwd "product"
//! %7: f16[2,2] = matmul(%3, %2) {pass: none, proportion: 0.6, partials: half} @ipu0 bwd "product"
//! %8: f16[2,2] = identity(%7) @ipu0 bwd "dropout"
//! %9: f16[2,2] = softmax_grad(%4, %8) @ipu0 bwd "softmax"
//! inputs %0, %1, %2, %3
//! outputs %6, %9
//! ```

use crate::ir::{Graph, Op, OpId, OpKind, Phase};

/// Makes every gradient of a dropout between a product and a softmax an identity.
#[must_use]
pub fn disable_attn_dropout_bwd(mut graph: Graph) -> Graph {
    let (producers, consumers) = (graph.producers(), graph.consumers());
    let is_backward = |op: &Op| op.phase == Phase::Backward;
    let stands_between = |op: &Op| {
        let product = producers[op.inputs[0]].map(|id| &graph.ops[id]);
        let of_product =
            product.is_some_and(|op| is_backward(op) && matches!(op.kind, OpKind::MatMul { .. }));
        let mut readers = consumers[op.outputs[0]].iter().map(|&id| &graph.ops[id]);
        let only_softmax = readers.len() > 0 && readers.all(|op| op.kind == OpKind::SoftmaxGrad);
        of_product && only_softmax
    };
    let found: Vec<OpId> = graph
        .ops
        .iter()
        .filter(|(_, op)| is_backward(op) && matches!(op.kind, OpKind::Dropout { .. }))
        .filter(|(_, op)| stands_between(op))
        .map(|(id, _)| id)
        .collect();
    for id in found {
        let op = &mut graph.ops[id];
        op.kind = OpKind::Identity;
        op.inputs.truncate(1);
    }
    graph
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::check_header;
    use crate::text::{parse, print};

    #[test]
    fn the_header_shows_it() {
        let source = include_str!("disable_attn_dropout_bwd.rs");
        check_header(source, disable_attn_dropout_bwd);
        check_header(source, |graph| {
            disable_attn_dropout_bwd(disable_attn_dropout_bwd(graph))
        });
    }

    /// Each softmax's own.
    #[test]
    fn every_one_between_a_product_and_a_softmax_becomes_an_identity() {
        let text = r#"stream %0: f16[2,2] "x"
stream %1: u32[2] "seed"
%2: f16[2,2] = matmul(%0, %0) {pass: none, proportion: 0.6, partials: half} @ipu0 stage0 bwd "layer 1"
%3: f16[2,2] = dropout(%2, %1) {probability: 0.1, id: 2} @ipu0 stage0 bwd "layer 1"
%4: f16[2,2] = softmax_grad(%0, %3) @ipu0 stage0 bwd "layer 1"
%5: f16[2,2] = matmul(%4, %0) {pass: none, proportion: 0.6, partials: half} @ipu0 stage0 bwd "layer 0"
%6: f16[2,2] = dropout(%5, %1) {probability: 0.1, id: 1} @ipu0 stage0 bwd "layer 0"
%7: f16[2,2] = softmax_grad(%0, %6) @ipu0 stage0 bwd "layer 0"
inputs %0, %1
outputs %7
"#;
        let got = disable_attn_dropout_bwd(parse(text).unwrap());
        expect![[r#"
            stream %0: f16[2,2] "x"
            stream %1: u32[2] "seed"
            %2: f16[2,2] = matmul(%0, %0) {pass: none, proportion: 0.6, partials: half} @ipu0 stage0 bwd "layer 1"
            %3: f16[2,2] = identity(%2) @ipu0 stage0 bwd "layer 1"
            %4: f16[2,2] = softmax_grad(%0, %3) @ipu0 stage0 bwd "layer 1"
            %5: f16[2,2] = matmul(%4, %0) {pass: none, proportion: 0.6, partials: half} @ipu0 stage0 bwd "layer 0"
            %6: f16[2,2] = identity(%5) @ipu0 stage0 bwd "layer 0"
            %7: f16[2,2] = softmax_grad(%0, %6) @ipu0 stage0 bwd "layer 0"
            inputs %0, %1
            outputs %7
        "#]].assert_eq(&print(&got));
    }

    /// One behind a sum, one before another gradient, one whose result is read twice, and one of the
    /// forward pass.
    #[test]
    fn other_dropouts_stay() {
        let text = r#"stream %0: f16[2,2] "x"
stream %1: u32[2] "seed"
%2: f16[2,2] = matmul(%0, %0) {pass: none, proportion: 0.6, partials: half} @ipu0 fwd "product"
%3: f16[2,2] = dropout(%2, %1) {probability: 0.1, id: 1} @ipu0 fwd "forward"
%4: f16[2,2] = matmul(%3, %0) {pass: none, proportion: 0.6, partials: half} @ipu0 bwd "product"
%5: f16[2,2] = add(%4, %4) @ipu0 bwd "sum"
%6: f16[2,2] = dropout(%5, %1) {probability: 0.1, id: 2} @ipu0 bwd "behind a sum"
%7: f16[2,2] = softmax_grad(%0, %6) @ipu0 bwd "softmax"
%8: f16[2,2] = dropout(%4, %1) {probability: 0.1, id: 3} @ipu0 bwd "before a sum"
%9: f16[2,2] = add(%8, %7) @ipu0 bwd "sum"
%10: f16[2,2] = dropout(%4, %1) {probability: 0.1, id: 4} @ipu0 bwd "read twice"
%11: f16[2,2] = softmax_grad(%0, %10) @ipu0 bwd "softmax"
%12: f16[2,2] = add(%10, %11) @ipu0 bwd "sum"
inputs %0, %1
outputs %9, %12
"#;
        let graph = parse(text).unwrap();
        assert_eq!(disable_attn_dropout_bwd(graph.clone()), graph);
    }
}

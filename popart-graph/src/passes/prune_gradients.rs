//! Gradients that nothing needs go.
//!
//! **Assumes** a graph with all its weight updates. **Guarantees** that an output or an
//! update depends on every operation after the forward pass. **Leaves alone** forward
//! operations, so that the ids of forward tensors stay what they were when the model was
//! built; ids of later ones change, their numbers in text do not. Running it twice changes nothing
//! more.
//!
//! ```text
//! before
//! stream %0: f32[2] "x"
//! variable %1: f32[2] = zeros "w"
//! %2: f32[2] = neg(%0) fwd "no one reads this"
//! %3: f32[2] = neg(%2) bwd "nor this"
//! %4: f32[2] = add(%1, %0) upd "new"
//! inputs %0
//! update %1 = %4
//! after
//! stream %0: f32[2] "x"
//! variable %1: f32[2] = zeros "w"
//! %2: f32[2] = neg(%0) fwd "no one reads this"
//! %4: f32[2] = add(%1, %0) upd "new"
//! inputs %0
//! update %1 = %4
//! ```

use ipu_sim::ids::IdVec;

use crate::ir::{Graph, OpId, Phase, TensorId};

/// Removes operations of the backward pass and the weight update that have no use.
#[must_use]
pub fn prune_gradients(mut graph: Graph) -> Graph {
    let producers = graph.producers();
    let mut needed: IdVec<OpId, bool> = IdVec::from(vec![false; graph.ops.len()]);
    let mut pending: Vec<TensorId> = graph.outputs.clone();
    pending.extend(graph.updates.iter().map(|&(_, value)| value));
    while let Some(tensor) = pending.pop() {
        if let Some(op) = producers[tensor]
            && !std::mem::replace(&mut needed[op], true)
        {
            pending.extend(&graph.ops[op].inputs);
        }
    }
    graph.retain_ops(|id, op| op.phase == Phase::Forward || needed[id]);
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
        check_header(include_str!("prune_gradients.rs"), prune_gradients);
    }

    #[test]
    fn forward_operations_and_used_gradients_stay() {
        let graph = parse(
            r#"stream %0: f32[2] "x"
variable %1: f32[2] = zeros "w"
%2: f32[2] = neg(%0) fwd "no one reads this"
%3: f32[2] = neg(%2) bwd "nor this"
%4: f32[2] = add(%1, %0) upd "new"
inputs %0
update %1 = %4
"#,
        )
        .unwrap();
        let pruned = prune_gradients(graph);
        expect![[r#"
            stream %0: f32[2] "x"
            variable %1: f32[2] = zeros "w"
            %2: f32[2] = neg(%0) fwd "no one reads this"
            %4: f32[2] = add(%1, %0) upd "new"
            inputs %0
            update %1 = %4
        "#]]
        .assert_eq(&print(&pruned));
        assert_eq!(prune_gradients(pruned.clone()), pruned);
    }
}

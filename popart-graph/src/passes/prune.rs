//! What nothing needs goes: gradients, and forward results that only they had read.
//!
//! **Assumes** a graph with all its weight updates. **Guarantees** that an output or an
//! update depends on every operation. The sum of the losses goes, for example: training begins at
//! it, but no gradient needs its value. **Leaves alone** the tensors of forward operations that
//! go, so that the ids of forward tensors stay what they were when the model was built; ids of
//! later ones change, their numbers in text do not. Running it twice changes nothing more.
//!
//! ```text
//! before
//! stream %0: f32[2] "x"
//! variable %1: f32[2] = zeros "w"
//! %2: f32[2] = neg(%0) fwd "no gradient reads this"
//! %3: f32[2] = neg(%2) bwd "nothing reads this"
//! %4: f32[2] = add(%1, %0) upd "new"
//! inputs %0
//! update %1 = %4
//! after
//! stream %0: f32[2] "x"
//! variable %1: f32[2] = zeros "w"
//! activation %2: f32[2] "no gradient reads this"
//! %4: f32[2] = add(%1, %0) upd "new"
//! inputs %0
//! update %1 = %4
//! ```

use ipu_sim::ids::IdVec;

use crate::ir::{Graph, NewIds, Op, OpId, Phase, TensorId};

/// Removes operations that have no use; gives the new ids of tensors with the graph.
#[must_use]
pub fn prune(mut graph: Graph) -> (Graph, NewIds) {
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
    let stays = |id: OpId, op: &Op| op.phase == Phase::Forward || needed[id];
    let useless: Vec<bool> = graph
        .ops
        .iter()
        .filter(|&(id, op)| stays(id, op))
        .map(|(id, _)| !needed[id])
        .collect();
    let new_ids = graph.retain_ops(stays);
    // Only now, and without their results: those keep their ids.
    graph.ops = std::mem::take(&mut graph.ops)
        .values()
        .zip(useless)
        .filter(|(_, useless)| !useless)
        .map(|(op, _)| op.clone())
        .collect();
    (graph, new_ids)
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
        check_header(include_str!("prune.rs"), |graph| prune(graph).0);
    }

    #[test]
    fn forward_tensors_keep_their_ids() {
        let graph = parse(
            r#"stream %0: f32[2] "x"
variable %1: f32[2] = zeros "w"
%2: f32[2] = neg(%0) fwd "no one reads this"
%3: f32[2] = add(%0, %1) fwd "y"
%4: f32[2] = neg(%2) bwd "nor this"
%5: f32[2] = add(%1, %3) upd "new"
inputs %0
outputs %3
update %1 = %5
"#,
        )
        .unwrap();
        let output = graph.outputs[0];
        let (pruned, new_ids) = prune(graph);
        assert_eq!(new_ids[output], Some(output));
        let gone = new_ids.values().filter(|id| id.is_none());
        assert_eq!(gone.count(), 1);
        verify(&pruned, Form::Logical).unwrap();
        assert_eq!(pruned.outputs, [output]);
        expect![[r#"
            stream %0: f32[2] "x"
            variable %1: f32[2] = zeros "w"
            activation %2: f32[2] "no one reads this"
            %3: f32[2] = add(%0, %1) fwd "y"
            %5: f32[2] = add(%1, %3) upd "new"
            inputs %0
            outputs %3
            update %1 = %5
        "#]]
        .assert_eq(&print(&pruned));
        assert_eq!(parse(&print(&pruned)).unwrap(), pruned);
        assert_eq!(prune(pruned.clone()).0, pruned);
    }
}

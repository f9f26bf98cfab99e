//! Optimiser state in streaming memory.
//!
//! **Assumes** a weight update with moments, sharded or not. **Guarantees** that every moment
//! of two elements or more is loaded just for the update of its weight and stored afterwards
//! (PopART, `minElementsForOffChip`). **Leaves alone** everything else. Running it twice
//! changes nothing more.
//!
//! ```text
//! before
//! stream %0: f32[2] "g"
//! variable %1: f32[2] = zeros "Accl1___w"
//! %2: f32[2] = adam_moment(%1, %0) {beta: 0.5, square: false} @ipu0 upd "w"
//! inputs %0
//! update %1 = %2
//! after
//! stream %0: f32[2] "g"
//! variable %1: f32[2] = zeros "Accl1___w"
//! %3: f32[2] = remote_load(%1) @ipu0 upd "Accl1___w"
//! %2: f32[2] = adam_moment(%3, %0) {beta: 0.5, square: false} @ipu0 upd "w"
//! %4: f32[2] = remote_store(%2) @ipu0 upd "Accl1___w"
//! inputs %0
//! update %1 = %4
//! ```

use ipu_sim::units::Elements;

use crate::infer::InferError;
use crate::ir::{Graph, OpId, OpKind, TensorKind};

/// Elements from which on a tensor is kept off the chip (PopART, `TensorLocationSettings`).
pub const ELEMENTS_OFF_CHIP_MIN: Elements = Elements(2);

/// Puts loads before, and stores after, the change of every moment.
///
/// # Errors
/// None on a well-formed graph.
pub fn offload_optimizer_state(mut graph: Graph) -> Result<Graph, InferError> {
    let moments: Vec<OpId> = graph
        .ops
        .iter()
        .filter(|(_, op)| matches!(op.kind, OpKind::AdamMoment { .. }))
        .filter(|(_, op)| {
            let state = &graph.tensors[op.inputs[0]];
            matches!(state.kind, TensorKind::Variable { .. })
                && state.shape.elements() >= ELEMENTS_OFF_CHIP_MIN
        })
        .map(|(id, _)| id)
        .collect();
    let positions = graph.update_positions();
    for op in moments {
        let (variable, value) = (graph.ops[op].inputs[0], graph.ops[op].outputs[0]);
        let mut scope = graph.ops[op].scope();
        scope.name.clone_from(&graph.tensors[variable].name);
        scope.part = graph.tensors[variable].part;
        let loaded = graph.add(OpKind::RemoteLoad, &[variable], &scope)?;
        graph.ops[op].inputs[0] = loaded;
        let stored = graph.add(OpKind::RemoteStore, &[value], &scope)?;
        let position = positions.get(&variable);
        graph.updates[*position.expect("moments are updated")].1 = stored;
    }
    Ok(graph)
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
        check_header(include_str!("offload_optimizer_state.rs"), |graph| {
            offload_optimizer_state(graph).unwrap()
        });
    }

    #[test]
    fn moments_are_loaded_and_stored() {
        let graph = parse(
            r#"stream %0: f32[2] "g"
stream %1: f32[] "h"
variable %2: f32[2] = zeros "Accl1___w"
variable %3: f32[] = zeros "Accl1___scalar"
%4: f32[2] = adam_moment(%2, %0) {beta: 0.5, square: false} @ipu0 upd "w"
%5: f32[] = adam_moment(%3, %1) {beta: 0.5, square: false} @ipu0 upd "scalar"
inputs %0, %1
update %2 = %4
update %3 = %5
"#,
        )
        .unwrap();
        let graph = offload_optimizer_state(graph).unwrap();
        verify(&graph, Form::Placed).unwrap();
        assert_eq!(offload_optimizer_state(graph.clone()).unwrap(), graph);
        expect![[r#"
            stream %0: f32[2] "g"
            stream %1: f32[] "h"
            variable %2: f32[2] = zeros "Accl1___w"
            variable %3: f32[] = zeros "Accl1___scalar"
            %6: f32[2] = remote_load(%2) @ipu0 upd "Accl1___w"
            %4: f32[2] = adam_moment(%6, %0) {beta: 0.5, square: false} @ipu0 upd "w"
            %5: f32[] = adam_moment(%3, %1) {beta: 0.5, square: false} @ipu0 upd "scalar"
            %7: f32[2] = remote_store(%4) @ipu0 upd "Accl1___w"
            inputs %0, %1
            update %2 = %7
            update %3 = %5
        "#]]
        .assert_eq(&print(&graph));
    }
}

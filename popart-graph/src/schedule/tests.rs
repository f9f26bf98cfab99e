use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::ir::TensorKind;
use crate::testing::graphs;
use crate::text::parse;

#[track_caller]
fn check(text: &str, expected: &Expect) {
    let graph = parse(text).unwrap();
    let got = match schedule(&graph) {
        Err(error) => error.to_string(),
        Ok(Schedule { order }) => {
            let names: Vec<&str> = order
                .iter()
                .map(|&op| graph.ops[op].name.as_str())
                .collect();
            names.join(" ")
        }
    };
    expected.assert_eq(&got);
}

#[test]
fn stages_then_directions_then_copies() {
    check(
        r#"stream %0: f32[4] "x"
%5: f32[4] = neg(%4) @ipu0 stage2 bwd "back-0"
%4: f32[4] = ipu_copy(%3) {to: ipu0} @ipu1 stage1 bwd "copy-1"
%3: f32[4] = neg(%6) @ipu1 stage1 bwd "back-1"
%2: f32[4] = ipu_copy(%1) {to: ipu1} @ipu0 stage0 fwd "copy-0"
%1: f32[4] = neg(%0) @ipu0 stage0 fwd "front-0"
%7: f32[4] = neg(%0) @ipu0 stage0 fwd "aside"
%6: f32[4] = neg(%2) @ipu1 stage1 fwd "front-1"
inputs %0
"#,
        &expect!["front-0 aside copy-0 front-1 back-1 copy-1 back-0"],
    );
}

#[test]
fn gradients_are_added_at_once() {
    check(
        r#"stream %0: f32[4] "x"
variable %1: f32[4] = zeros "sum"
%2: f32[4] = neg(%0) bwd "gradient"
%3: f32[4] = neg(%2) bwd "next"
%4: f32[4] = neg(%3) bwd "last"
%5: f32[4] = accumulate(%1, %2) {factor: 1.0} acc "add"
inputs %0
update %1 = %5
"#,
        &expect!["gradient add next last"],
    );
}

#[test]
fn restores_stand_before_what_is_computed_again() {
    // `back-b` reads `b`, which is computed again from `a`.
    check(
        r#"stream %0: f32[4] "x"
%1: f32[4] = neg(%0) @ipu0 stage0 fwd "a"
%2: f32[4] = neg(%1) @ipu0 stage0 fwd recompute "b"
%3: f32[4] = ipu_copy(%2) {to: ipu1} @ipu0 stage0 fwd "copy"
%4: f32[4] = neg(%3) @ipu1 stage1 bwd "loss"
%5: f32[4] = ipu_copy(%4) {to: ipu0} @ipu1 stage1 bwd "copy"
%6: f32[4] = neg(%5) @ipu0 stage2 bwd "back-c"
%7: f32[4] = neg_grad(%2, %6) @ipu0 stage2 bwd "back-b"
%8: f32[4] = stash(%1) {slots: 3} @ipu0 stage0 fwd "stash"
%9: f32[4] = restore(%8) {slots: 3} @ipu0 stage2 bwd "restore"
inputs %0
"#,
        &expect!["a stash b copy loss copy back-c restore back-b"],
    );
}

#[test]
fn weights_are_updated_one_after_the_other() {
    // Loads and shards that a pass has added at the end come when they are needed.
    check(
        r#"stream %0: f32[4] "g"
variable %1: f32[4] = zeros "m"
variable %2: f32[4] = zeros "n"
%3: f32[4] = neg(%0) upd "g1"
%4: f32[4] = adam_moment(%9, %3) {beta: 0.5, square: false} upd "m1"
%5: f32[4] = neg(%4) upd "x1"
%6: f32[4] = neg(%0) upd "g2"
%7: f32[4] = adam_moment(%10, %6) {beta: 0.5, square: false} upd "m2"
%8: f32[4] = neg(%7) upd "x2"
%9: f32[4] = remote_load(%1) upd "load1"
%10: f32[4] = remote_load(%2) upd "load2"
%11: f32[4] = remote_store(%4) upd "store1"
%12: f32[4] = remote_store(%7) upd "store2"
inputs %0
update %1 = %11
update %2 = %12
"#,
        &expect!["g1 load1 m1 store1 x1 g2 load2 m2 store2 x2"],
    );
}

const TWO_IPUS: &str = r#"stream %0: f32[4] "g"
stream %1: f32[4] "h"
variable %2: f32[4] = zeros "m"
variable %3: f32[4] = zeros "n"
variable %4: f32[4] = zeros "o"
%5: f32[4] = remote_load(%2) @ipu0 upd "load-0"
%6: f32[4] = adam_moment(%5, %0) {beta: 0.5, square: false} @ipu0 upd "moment-0"
%7: f32[4] = remote_load(%3) @ipu0 upd "load-0b"
%8: f32[4] = adam_moment(%7, %0) {beta: 0.5, square: false} @ipu0 upd "moment-0b"
%9: f32[4] = ipu_copy(%0) {to: ipu1} @ipu0 upd "rate"
%10: f32[4] = remote_load(%4) @ipu1 upd "load-1"
%11: f32[4] = adam_moment(%10, %9) {beta: 0.5, square: false} @ipu1 upd "moment-1"
inputs %0, %1
update %2 = %6
update %3 = %8
update %4 = %11
"#;

#[test]
fn stages_update_weights_before_they_end() {
    let text = r#"stream %0: f32[4] "x"
stream %1: f32[] "rate"
variable %2: f32[4] = zeros "w"
variable %3: f32[4] = zeros "v"
%10: f32[4] = sgd_update(%2, %6, %4) {scale: 1.0, weight_decay: 0.0} @ipu1 stage1 upd "update-w"
%11: f32[4] = sgd_update(%3, %9, %1) {scale: 1.0, weight_decay: 0.0} @ipu0 stage2 upd "update-v"
%4: f32[] = ipu_copy(%1) {to: ipu1} @ipu0 upd "copy-rate"
%5: f32[4] = neg(%0) @ipu0 stage0 fwd "front-0"
%12: f32[4] = ipu_copy(%5) {to: ipu1} @ipu0 stage0 fwd "copy-0"
%13: f32[4] = mul(%12, %2) @ipu1 stage1 fwd "front-1"
%6: f32[4] = neg(%13) @ipu1 stage1 bwd "gradient-1"
%8: f32[4] = ipu_copy(%7) {to: ipu0} @ipu1 stage1 bwd "copy-1"
%7: f32[4] = mul(%6, %2) @ipu1 stage1 bwd "back-1"
%9: f32[4] = mul(%8, %3) @ipu0 stage2 bwd "gradient-0"
inputs %0, %1
update %2 = %10
update %3 = %11
"#;
    check(
        text,
        &expect![
            "copy-rate front-0 copy-0 front-1 gradient-1 back-1 update-w copy-1 gradient-0 update-v"
        ],
    );
    // There is nothing that other IPUs could do at the same time.
    let graph = parse(text).unwrap();
    let order = schedule(&graph).unwrap();
    assert_eq!(overlap_updates(&graph, order.clone(), &[]), order);
}

#[test]
fn alike_updates_of_two_ipus_go_in_step() {
    #[track_caller]
    fn check(excluded: &[u32], expected: &str) {
        let graph = parse(TWO_IPUS).unwrap();
        let excluded: Vec<IpuId> = excluded.iter().copied().map(IpuId).collect();
        let order = overlap_updates(&graph, schedule(&graph).unwrap(), &excluded).order;
        let names: Vec<&str> = order
            .iter()
            .map(|&op| graph.ops[op].name.as_str())
            .collect();
        assert_eq!(names.join(" "), expected);
    }
    check(
        &[],
        "rate load-0 load-1 moment-0 moment-1 load-0b moment-0b",
    );
    check(
        &[0],
        "rate load-0 moment-0 load-0b moment-0b load-1 moment-1",
    );
}

#[test]
fn old_values_are_read_before_new_ones_are_written() {
    check(
        r#"variable %0: f32[4] = zeros "w"
stream %1: f32[] "rate"
%2: f32[4] = adam_update(%0, %0, %1) upd "write"
%3: f32[] = square_sum(%0) upd "read"
%4: f32[4] = zero(%5) upd "zero"
%5: f32[4] = neg(%0) upd "other"
%6: f32[4] = neg(%5) upd "reader"
inputs %1
outputs %3, %4, %6
update %0 = %2
"#,
        &expect!["read other write reader zero"],
    );
    check(
        r#"variable %0: f32[] = zeros "w"
%1: f32[] = neg(%0) upd "write"
%2: f32[] = add(%0, %1) upd "difference"
outputs %2
update %0 = %1
"#,
        &expect!["op 1 `difference` reads %0 after its new value is written"],
    );
}

proptest! {
    #[test]
    fn every_operation_runs_once_after_what_it_reads(graph in graphs()) {
        let Schedule { order } = schedule(&graph).unwrap();
        let mut ready: BTreeSet<TensorId> = graph
            .tensors
            .iter()
            .filter(|(_, tensor)| tensor.kind != TensorKind::Activation)
            .map(|(id, _)| id)
            .collect();
        for &op in &order {
            let op = &graph.ops[op];
            prop_assert!(op.inputs.iter().all(|input| ready.contains(input)));
            ready.extend(&op.outputs);
        }
        let all: BTreeSet<OpId> = order.iter().copied().collect();
        prop_assert_eq!((all.len(), order.len()), (graph.ops.len(), graph.ops.len()));
    }
}

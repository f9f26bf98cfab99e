use super::*;
use crate::ir::PartId;
use crate::text::parse;

/// A placed graph of two stages: forward on IPU 0, a copy, forward on IPU 1, an
/// accumulator on IPU 1 and its reset in the weight update.
const GOOD: &str = r#"stream %0: f16[2] "x"
variable %1: f16[2] = zeros "w"
variable %2: f16[2] = zeros "accumulator"
constant %3: f16[] = splat(2.0) "two"
%4: f16[2] = mul(%0, %3) @ipu0 stage0 fwd "a"
%5: f16[2] = ipu_copy(%4) {to: ipu1} @ipu0 stage0 fwd "b"
%6: f16[2] = add(%5, %1) @ipu1 stage1 fwd "c"
%7: f16[2] = mul(%6, %3) @ipu1 stage1 bwd "d"
%8: f16[2] = accumulate(%2, %7) {factor: 1.0} @ipu1 stage1 acc "e"
%9: f16[2] = zero(%8) @ipu1 upd "f"
inputs %0
outputs %6
update %2 = %9
"#;

/// What the verifier says after `old` has become `new`.
#[track_caller]
fn check(old: &str, new: &str, message: &str) {
    assert_eq!(GOOD.matches(old).count(), 1, "`{old}` is found once");
    let graph = parse(&GOOD.replace(old, new)).unwrap();
    let error = verify(&graph, Form::Placed).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_good_graph_passes() {
    verify(&parse(GOOD).unwrap(), Form::Placed).unwrap();
}

#[test]
fn ids_and_sources() {
    let mut graph = parse(GOOD).unwrap();
    graph.outputs[0] = TensorId(99);
    assert!(matches!(
        verify(&graph, Form::Logical),
        Err(VerifyError::Malformed(Violation::UnknownTensor {
            tensor: TensorId(99)
        }))
    ));
    check(
        "variable %1: f16[2] = zeros \"w\"",
        "activation %1: f16[2] \"w\"",
        "malformed graph: %1 `w` has no producer",
    );
    let mut graph = parse(GOOD).unwrap();
    graph.ops[OpId(4)].part = Some(PartId(0));
    assert!(matches!(
        verify(&graph, Form::Logical),
        Err(VerifyError::Malformed(Violation::UnknownPart {
            part: PartId(0)
        }))
    ));
    let mut graph = parse(GOOD).unwrap();
    graph.ops[OpId(4)].outputs[0] = TensorId(6);
    assert!(matches!(
        verify(&graph, Form::Logical),
        Err(VerifyError::Malformed(Violation::TwoSources {
            tensor: TensorId(6),
            ..
        }))
    ));
    check(
        "inputs %0\n",
        "",
        "malformed graph: %0 `x` is 0 times among the inputs, expected 1",
    );
    check(
        "inputs %0\n",
        "inputs %0, %1\n",
        "malformed graph: %1 `w` is 1 times among the inputs, expected 0",
    );
}

#[test]
fn updates_and_values() {
    check(
        "update %2 = %9",
        "update %8 = %9",
        "malformed graph: the update of %8 `e` is not of a variable",
    );
    check(
        "update %2 = %9",
        "update %2 = %9\nupdate %2 = %8",
        "malformed graph: variable %2 `accumulator` is updated twice",
    );
    check(
        "update %2 = %9",
        "update %2 = %3",
        "malformed graph: the update of %2 `accumulator` by %3 changes its type or shape",
    );
    check(
        "variable %1: f16[2] = zeros \"w\"",
        "variable %1: u32[2] = splat(0.5) \"w\"",
        "malformed graph: %1 `w` starts from a value that its type can't hold",
    );
}

#[test]
fn types_and_order() {
    check(
        "%4: f16[2] =",
        "%4: f16[3] =",
        "malformed graph: result 0 of op 0 `a` has type f16[3], expected f16[2]",
    );
    check(
        "%9: f16[2] = zero",
        "%9: f16[2], %10: f16[2] = zero",
        "malformed graph: op 5 `f` has 2 results, expected 1",
    );
    check(
        "mul(%6, %3)",
        "mul(%6, %1, %3)",
        "mul `d`: wrong number of operands, expected 2, got 3",
    );
    check(
        "mul(%0, %3)",
        "mul(%6, %3)",
        "malformed graph: op 0 `a` depends on itself",
    );
    check(
        "stage1 fwd \"c\"",
        "stage1 upd \"c\"",
        "malformed graph: op 3 `d` in phase bwd reads a result of phase upd",
    );
    check(
        "@ipu1 stage1 fwd",
        "@ipu1 stage2 fwd",
        "malformed graph: op 3 `d` in stage1 reads a result of stage2",
    );
}

#[test]
fn placement() {
    check(
        "@ipu1 upd \"f\"",
        "upd \"f\"",
        "malformed graph: op 5 `f` is not placed",
    );
    check(
        "add(%5, %1)",
        "add(%4, %1)",
        "malformed graph: op 2 `c` on IPU 1 reads %4, which is on IPU 0",
    );
    check(
        "mul(%0, %3)",
        "mul(%1, %3)",
        "malformed graph: op 2 `c` on IPU 1 reads %1, which is on IPU 0",
    );
    check(
        "{to: ipu1}",
        "{to: ipu0}",
        "malformed graph: op 1 `b` copies within IPU 0",
    );
    check(
        "update %2 = %9",
        "update %2 = %4",
        "malformed graph: variable %2 `accumulator` on IPU 1 is updated from IPU 0",
    );
    check(
        "@ipu0 stage0 fwd \"a\"",
        "@ipu0 fwd \"a\"",
        "malformed graph: op 0 `a` has no stage, others do",
    );
    check(
        "@ipu1 upd \"f\"\n",
        "@ipu1 upd \"f\"\n%10: f16[2] = neg(%7) @ipu1 stage1 upd \"g\"\n",
        "malformed graph: op 5 `f` updates weights outside of stages, others do so in theirs",
    );
    check(
        "@ipu1 upd",
        "@ipu1 stage3 upd",
        "malformed graph: stage2 is empty, later ones are not",
    );
    let graph = parse(&GOOD.replace("stage1", "stage0")).unwrap();
    let error = verify(&graph, Form::Placed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed graph: op 2 `c` puts stage0 on IPU 1, others are on IPU 0"
    );
    verify(&graph, Form::Logical).unwrap();
}

/// A pipeline of three stages, in which `a` is computed again for its gradient.
const PIPELINE: &str = r#"stream %0: f32[4] "x"
%1: f32[4] = neg(%0) @ipu0 stage0 fwd "kept"
%2: f32[4] = tanh(%1) @ipu0 stage0 fwd recompute "a"
%3: f32[4] = ipu_copy(%2) {to: ipu1} @ipu0 stage0 fwd "a"
%4: f32[4] = neg(%3) @ipu1 stage1 bwd "loss"
%5: f32[4] = ipu_copy(%4) {to: ipu0} @ipu1 stage1 bwd "dy"
%6: f32[4] = stash(%1) {slots: 3} @ipu0 stage0 fwd "Stashed___kept"
%7: f32[4] = restore(%6) {slots: 3} @ipu0 stage2 bwd "Restored___kept"
%8: f32[4] = mul(%7, %5) @ipu0 stage2 bwd "b"
%9: f32[4] = tanh_grad(%2, %8) @ipu0 stage2 bwd "a"
inputs %0
outputs %9
"#;

#[track_caller]
fn check_pipeline(from: &str, to: &str, expected: &str) {
    let text = PIPELINE.replacen(from, to, 1);
    let graph = parse(&text).unwrap();
    verify(&graph, Form::Placed).unwrap();
    let error = verify(&graph, Form::Pipelined).unwrap_err().to_string();
    assert_eq!(error, format!("malformed graph: {expected}"));
}

#[test]
fn stages_see_their_own_micro_batch() {
    verify(&parse(PIPELINE).unwrap(), Form::Pipelined).unwrap();
    // The value itself instead of the restored one.
    check_pipeline(
        "mul(%7, %5)",
        "mul(%1, %5)",
        "op 7 `b` reads %1 in stage2, where it is of another micro-batch",
    );
    // Recomputation starts from what nothing brought back.
    check_pipeline(
        "tanh(%1)",
        "tanh(%0)",
        "op 1 `a` reads %0 in stage2, where it is of another micro-batch",
    );
    // What isn't recomputed is gone.
    check_pipeline(
        "fwd recompute \"a\"",
        "fwd \"a\"",
        "op 8 `a` reads %2 in stage2, where it is of another micro-batch",
    );
    // Two micro-batches are between the stages.
    check_pipeline(
        "{slots: 3} @ipu0 stage0",
        "{slots: 2} @ipu0 stage0",
        "op 6 `Restored___kept` reads %6 in stage2, where it is of another micro-batch",
    );
}

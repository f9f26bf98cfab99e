use smallvec::smallvec;

use super::*;
use crate::ir::{BinaryFn, MatMulPass, Reduction};
use crate::testing::{every_kind, matmul, types};

/// `inferred` is the types of the results, or the message.
#[track_caller]
fn check(kind: OpKind, operands: &str, inferred: &str) {
    let got = match infer(&kind, "op", &types(operands)) {
        Ok(results) => {
            let results: Vec<String> = results.iter().map(TensorType::to_string).collect();
            results.join(" ")
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(got, inferred);
}

const ADD: OpKind = OpKind::Binary(BinaryFn::Add);

fn nll() -> OpKind {
    OpKind::NllLoss {
        reduction: Some(Reduction::Mean),
        ignore_index: None,
    }
}

#[test]
fn results_follow_from_operands() {
    let product = || matmul(MatMulPass::None);
    check(product(), "f16[2,3] f16[3,5]", "f16[2,5]");
    check(product(), "f32[7,2,3] f32[7,3,5]", "f32[7,2,5]");
    check(ADD, "f32[4,1,3] f32[2,1]", "f32[4,2,3]");
    check(OpKind::Cast { to: DType::U32 }, "f32[2]", "u32[2]");
    check(
        OpKind::Transpose {
            perm: smallvec![1, 2, 0],
        },
        "u32[2,3,4]",
        "u32[3,4,2]",
    );
    check(OpKind::Concat { axis: 0 }, "f16[2,3] f16[1,3]", "f16[3,3]");
    check(
        OpKind::ReduceSum {
            axes: smallvec![0, 1],
            keep_dims: false,
        },
        "f16[2,3]",
        "f16[]",
    );
    check(
        OpKind::LayerNorm { epsilon: 0.001 },
        "f16[2,3] f16[3] f16[3]",
        "f16[2,3] f32[2] f32[2]",
    );
    check(
        OpKind::SequenceMask {
            sequence_length: 8,
            mask_tokens: Some(2),
            dtype: DType::F16,
        },
        "u32[5,1] u32[5,1]",
        "f16[5,1,1,8]",
    );
    check(nll(), "f16[4,9] u32[4]", "f32[]");
    let of_each = OpKind::NllLoss {
        reduction: None,
        ignore_index: None,
    };
    check(of_each, "f16[4,9] u32[4]", "f32[4]");
    let operands = "u32[5,8] f16[5,2,8,8]";
    check(OpKind::AttentionMask, operands, "f16[5,1,8,8]");
    let accuracy = OpKind::Accuracy {
        ignore_index: None,
        weighted: true,
    };
    check(accuracy, "f16[4,9] u32[4] u32[4]", "f32[2]");
    let updater = |weight_decay| OpKind::AdamUpdater {
        epsilon: 1e-6,
        weight_decay,
        bias_correction: None,
    };
    check(updater(None), "f32[4] f32[4]", "f32[4]");
    check(updater(Some(0.01)), "f32[4] f32[4] f16[4]", "f16[4]");
    // PopART's example: 30 elements over 4 replicas are 8 each.
    check(OpKind::ReduceScatter { shards: 4 }, "f16[30]", "f16[8]");
    let shape = Shape::from([5, 6]);
    check(OpKind::AllGather { shards: 4, shape }, "f16[8]", "f16[5,6]");
}

#[test]
fn what_does_not_fit_is_named() {
    let product = || matmul(MatMulPass::None);
    check(
        product(),
        "f16[2,64] f16[48,5]",
        "matmul `op`: inner dimensions differ, expected 64, got 48",
    );
    check(
        product(),
        "f16[3,2,4] f16[5,4,2]",
        "matmul `op`: batch dimensions differ, expected 3, got 5",
    );
    check(
        product(),
        "f16[2,3] f16[7,3,5]",
        "matmul `op`: operand 1 has the wrong rank, expected 2, got 3",
    );
    check(
        product(),
        "f16[3] f16[3]",
        "matmul `op`: operand 0 has the wrong rank, expected 2, got 1",
    );
    check(
        product(),
        "f16[2,3] f32[3,4]",
        "matmul `op`: operand 1 has the wrong type, expected f16, got f32",
    );
    check(
        ADD,
        "u32[2] u32[2]",
        "add `op`: operand 0 has the wrong type, expected a float, got u32",
    );
    check(
        ADD,
        "f16[2] f16[3]",
        "add `op`: shapes [2] and [3] don't broadcast",
    );
    check(
        ADD,
        "f16[2]",
        "add `op`: wrong number of operands, expected 2, got 1",
    );
    check(
        OpKind::Reshape {
            shape: Shape::from([7]),
        },
        "f16[2,3]",
        "reshape `op`: numbers of elements differ, expected 6, got 7",
    );
    check(
        OpKind::Concat { axis: 2 },
        "f16[2,3] f16[2,3]",
        "concat `op`: axis 2 is outside rank 2",
    );
    check(
        OpKind::Concat { axis: 0 },
        "f16[2,3] f16[2,4]",
        "concat `op`: operand 1 has the wrong shape, expected [2,3], got [2,4]",
    );
    check(
        OpKind::Concat { axis: 0 },
        "",
        "concat `op`: wrong number of operands, expected 1, got 0",
    );
    check(
        nll(),
        "f16[4,9] u32[5]",
        "nll_loss `op`: numbers of samples and labels differ, expected 4, got 5",
    );
    check(
        OpKind::AttentionMask,
        "u32[2,8] f16[2,4,8,7]",
        "attention_mask `op`: operand 1 has the wrong shape, expected [2,4,8,8], got [2,4,8,7]",
    );
    check(
        OpKind::Accuracy {
            ignore_index: None,
            weighted: true,
        },
        "f16[4,9] u32[4] u32[5]",
        "accuracy `op`: operand 2 has the wrong shape, expected [4], got [5]",
    );
}

#[test]
fn attributes_out_of_range_are_named() {
    check(
        OpKind::Slice {
            axis: 1,
            begin: 2,
            end: 4,
        },
        "f16[2,3]",
        "slice `op`: range 2..4 is outside 0..3",
    );
    check(
        OpKind::Transpose {
            perm: smallvec![0, 0],
        },
        "f16[2,3]",
        "transpose `op`: perm is out of range, expected each axis once, got 0",
    );
    check(
        OpKind::ReduceSum {
            axes: smallvec![1, 0],
            keep_dims: true,
        },
        "f16[2,3]",
        "reduce_sum `op`: axes is out of range, expected increasing axes, got 0",
    );
    check(
        OpKind::Dropout {
            probability: 1.0,
            id: 0,
        },
        "f16[2] u32[2]",
        "dropout `op`: probability is out of range, expected at least 0 and below 1, got 1",
    );
    check(
        OpKind::OneHot {
            depth: 2,
            dtype: DType::U32,
        },
        "u32[3]",
        "one_hot `op`: the result has the wrong type, expected a float, got u32",
    );
    check(
        OpKind::Stash { slots: 0 },
        "f16[2]",
        "stash `op`: slots is out of range, expected at least 1, got 0",
    );
    check(
        OpKind::Pad {
            axis: 0,
            before: u32::MAX,
            after: 0,
        },
        "f16[2]",
        "pad `op`: before is out of range, expected sizes below 2^32, got 4294967297",
    );
    check(
        OpKind::Scale {
            factor: f64::INFINITY,
        },
        "f16[2]",
        "scale `op`: factor is out of range, expected a finite number, got inf",
    );
}

#[test]
fn every_kind_refuses_one_operand_too_few() {
    for (kind, operands) in every_kind() {
        infer(&kind, "op", &operands).unwrap();
        if !matches!(kind, OpKind::Concat { .. }) {
            let fewer = &operands[..operands.len() - 1];
            assert!(infer(&kind, "op", fewer).is_err(), "{kind:?}");
        }
    }
}

#[test]
fn kinds_of_several_operands_refuse_another_type_of_any() {
    let several = every_kind()
        .into_iter()
        .filter(|(_, operands)| operands.len() > 1);
    for (kind, operands) in several {
        for position in 0..operands.len() {
            let mut changed = operands.clone();
            changed[position].dtype = match operands[position].dtype {
                DType::U32 => DType::F32,
                DType::F16 | DType::F32 => DType::U32,
            };
            assert!(infer(&kind, "op", &changed).is_err(), "{kind:?}");
        }
    }
}

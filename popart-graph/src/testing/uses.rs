//! One valid use, at least, of every kind of operation.

use ipu_sim::ids::IpuId;
use ipu_sim::numerics::DType;
use smallvec::smallvec;

use super::{matmul, types};
use crate::ir::{
    BiasCorrection, BinaryFn, MatMulPass, MemoryProportion, MultiKind, OpKind, Partials, Piece,
    Reduction, Shape, TensorType, UnaryFn,
};

/// A valid use of every kind.
pub(crate) fn every_kind() -> Vec<(OpKind, Vec<TensorType>)> {
    let mut uses: Vec<(OpKind, &str)> = Vec::new();
    for &pass in MatMulPass::ALL {
        uses.push((matmul(pass), "f16[2,3,4] f16[2,4,5]"));
        uses.push((piece(pass, Piece::Addend), "f16[3,4] f16[4,5]"));
    }
    for &function in BinaryFn::ALL {
        uses.push((OpKind::Binary(function), "f32[2,3] f32[3]"));
    }
    for &function in UnaryFn::ALL {
        uses.push((OpKind::Unary(function), "f32[2,3]"));
        uses.push((OpKind::UnaryGrad(function), "f32[2,3] f32[2,3]"));
    }
    uses.extend(plain_kinds());
    uses.extend(row_kinds());
    uses.extend(update_kinds());
    uses.extend(movement_kinds());
    uses.into_iter()
        .map(|(kind, operands)| (kind, types(operands)))
        .collect()
}

fn plain_kinds() -> Vec<(OpKind, &'static str)> {
    vec![
        (OpKind::Scale { factor: -0.125 }, "f16[4]"),
        (OpKind::Cast { to: DType::F16 }, "f32[2,2]"),
        (OpKind::Identity, "u32[3]"),
        (OpKind::Detach, "f16[3]"),
        (
            OpKind::Reshape {
                shape: Shape::from([3, 2]),
            },
            "f16[2,3]",
        ),
        (
            OpKind::Reshape {
                shape: Shape::scalar(),
            },
            "f16[1]",
        ),
        (
            OpKind::Transpose {
                perm: smallvec![2, 0, 1],
            },
            "f16[2,3,4]",
        ),
        (
            OpKind::Slice {
                axis: 1,
                begin: 1,
                end: 3,
            },
            "f16[2,3]",
        ),
        (OpKind::Concat { axis: 1 }, "f16[2,3] f16[2,1] f16[2,2]"),
        (
            OpKind::Pad {
                axis: 0,
                before: 1,
                after: 2,
            },
            "f16[2,3]",
        ),
        (
            OpKind::Broadcast {
                shape: Shape::from([2, 3]),
            },
            "f16[1,3]",
        ),
        (
            OpKind::ReduceSum {
                axes: smallvec![0, 2],
                keep_dims: false,
            },
            "f32[2,3,4]",
        ),
        (
            OpKind::ReduceSum {
                axes: smallvec![1],
                keep_dims: true,
            },
            "f32[2,3,4]",
        ),
        (OpKind::Softmax, "f16[2,3]"),
        (OpKind::SoftmaxGrad, "f16[2,3] f16[2,3]"),
        (
            OpKind::LayerNorm { epsilon: 1e-7 },
            "f16[2,4] f16[4] f16[4]",
        ),
        (
            OpKind::LayerNormGrad,
            "f16[2,4] f16[4] f32[2] f32[2] f16[2,4]",
        ),
        (
            OpKind::Dropout {
                probability: 0.1,
                id: 7,
            },
            "f16[4,4] u32[2]",
        ),
    ]
}

fn row_kinds() -> Vec<(OpKind, &'static str)> {
    let reduction = Reduction::Mean;
    vec![
        (OpKind::Gather { first_row: 1 }, "f16[4,2] u32[3]"),
        (
            OpKind::GatherGrad {
                first_row: 1,
                rows: 4,
            },
            "f16[3,2] u32[3]",
        ),
        (
            OpKind::OneHot {
                depth: 2,
                dtype: DType::F16,
            },
            "u32[3]",
        ),
        (
            OpKind::SequenceMask {
                sequence_length: 8,
                mask_tokens: Some(3),
                dtype: DType::F16,
            },
            "u32[2,1] u32[2,1]",
        ),
        (
            OpKind::SequenceMask {
                sequence_length: 8,
                mask_tokens: None,
                dtype: DType::F32,
            },
            "u32[2,1]",
        ),
        (OpKind::AttentionMask, "u32[2,3] f16[2,4,3,3]"),
        (
            OpKind::NllLoss {
                reduction: Some(reduction),
                ignore_index: Some(0),
            },
            "f16[2,3] u32[2]",
        ),
        (
            OpKind::NllLoss {
                reduction: None,
                ignore_index: None,
            },
            "f16[2,3] u32[2]",
        ),
        (
            OpKind::NllSoftmaxGrad {
                reduction: Some(Reduction::Sum),
                ignore_index: None,
            },
            "f16[2,3] u32[2] f32[]",
        ),
        (
            OpKind::NllSoftmaxGrad {
                reduction: None,
                ignore_index: Some(0),
            },
            "f16[2,3] u32[2] f32[2]",
        ),
        (
            OpKind::Accuracy {
                ignore_index: Some(0),
                weighted: false,
            },
            "f32[2,3] u32[2]",
        ),
        (
            OpKind::Accuracy {
                ignore_index: None,
                weighted: true,
            },
            "f32[2,3] u32[2] u32[2]",
        ),
    ]
}

fn update_kinds() -> Vec<(OpKind, &'static str)> {
    vec![
        (OpKind::Accumulate { factor: 1.0 }, "f32[4] f16[4]"),
        (
            OpKind::SparseAccumulate {
                first_row: 0,
                factor: 0.5,
            },
            "f16[4,2] f16[3,2] u32[3]",
        ),
        (OpKind::Zero, "f16[4]"),
        (
            OpKind::AdamMoment {
                beta: 0.999,
                square: true,
            },
            "f32[4] f16[4]",
        ),
        (
            OpKind::AdamUpdater {
                epsilon: 1e-6,
                weight_decay: Some(0.01),
                bias_correction: Some(BiasCorrection {
                    beta1: 0.9,
                    beta2: 0.999,
                }),
            },
            "f32[4] f32[4] f16[4] f32[]",
        ),
        (
            OpKind::AdamUpdater {
                epsilon: 1e-6,
                weight_decay: None,
                bias_correction: None,
            },
            "f32[4] f32[4]",
        ),
        (OpKind::SquareSum, "f16[4]"),
        (OpKind::AdamUpdate, "f16[4] f32[4] f32[]"),
        (
            OpKind::LambUpdate {
                max_weight_norm: 65504.0,
            },
            "f16[4] f16[4] f32[] f32[] f32[]",
        ),
        (
            OpKind::SgdUpdate {
                scale: 0.5,
                weight_decay: 0.01,
            },
            "f16[4] f16[4] f32[]",
        ),
        (
            OpKind::SgdMomentum {
                momentum: 0.984375,
                weight_decay: 0.0,
            },
            "f16[4] f16[4]",
        ),
    ]
}

fn movement_kinds() -> Vec<(OpKind, &'static str)> {
    vec![
        (OpKind::IpuCopy { to: IpuId(3) }, "f16[2,3]"),
        (OpKind::Stash { slots: 9 }, "f16[2,3]"),
        (OpKind::Restore { slots: 9 }, "f16[2,3]"),
        (OpKind::AllReduce, "f16[2,3]"),
        (OpKind::ReduceScatter { shards: 2 }, "f16[5]"),
        (
            OpKind::AllGather {
                shards: 2,
                shape: Shape::from([5]),
            },
            "f16[3]",
        ),
        (OpKind::LocalSlice { shards: 2 }, "f16[5]"),
        (multi(MultiKind::AllReduce), "f16[2,3] f16[]"),
        (
            multi(MultiKind::ReduceScatter { shards: 2 }),
            "f16[5] f16[2,3]",
        ),
        (
            multi(MultiKind::AllGather {
                shards: 2,
                shapes: vec![Shape::from([5]), Shape::scalar()],
            }),
            "f16[3] f16[1]",
        ),
        (OpKind::RemoteLoad, "f32[4]"),
        (OpKind::RemoteStore, "f32[4]"),
        (OpKind::CallInput, "f16[4]"),
        (OpKind::CallOutput, "u32[4]"),
    ]
}

/// A collective of two operands on as many IPUs.
fn multi(kind: MultiKind) -> OpKind {
    let ipus = [0, 2].into_iter().map(IpuId).collect();
    OpKind::Multi { kind, ipus }
}

/// A product with float partials that is a piece of a larger one.
fn piece(pass: MatMulPass, piece: Piece) -> OpKind {
    OpKind::MatMul {
        pass,
        available_memory_proportion: MemoryProportion::new(0.25).unwrap(),
        partials: Partials::Float,
        piece,
    }
}

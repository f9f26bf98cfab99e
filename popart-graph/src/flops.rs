//! Work of every operation.
//!
//! Two counts, never added up silently. Matrix products count a multiply-add as
//! two, which is what published FLOPs of models mean. All else is counted as
//! arithmetic on elements, a root, exponential or other function as one. Moving
//! values (views, gathers, copies between IPUs) is no work; time is another
//! question, which only the lowered program answers.

use std::iter::Sum;
use std::ops::Add;

use ipu_sim::units::Flops;
use smallvec::SmallVec;

use crate::ir::{BinaryFn, Graph, MultiKind, OpId, OpKind, TensorType, UnaryFn};

/// Floating-point operations of one run on one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// In matrix products.
    pub matmul_flops: Flops,
    /// In everything else.
    pub other_flops: Flops,
}

impl Add for Work {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            matmul_flops: self.matmul_flops + other.matmul_flops,
            other_flops: self.other_flops + other.other_flops,
        }
    }
}

impl Sum for Work {
    fn sum<It: Iterator<Item = Self>>(items: It) -> Self {
        items.fold(Self::default(), Add::add)
    }
}

/// The work of all operations of a graph, each run once.
#[must_use]
pub fn of_graph(graph: &Graph) -> Work {
    graph.ops.ids().map(|op| of_op(graph, op)).sum()
}

/// The work of one operation of a well-formed graph.
#[must_use]
pub fn of_op(graph: &Graph, op: OpId) -> Work {
    let op = &graph.ops[op];
    let types = |ids: &[_]| -> SmallVec<[TensorType; 4]> {
        ids.iter().map(|&id| graph.tensors[id].ty()).collect()
    };
    work(&op.kind, &types(&op.inputs), &types(&op.outputs))
}

/// The work of `kind` from operands of types `inputs` to results of types `outputs`.
///
/// # Panics
/// If the types are not those of [`crate::infer`].
#[must_use]
pub fn work(kind: &OpKind, inputs: &[TensorType], outputs: &[TensorType]) -> Work {
    let of_operand = |flops: u64| other(&inputs[0], flops);
    let of_result = |flops: u64| other(&outputs[0], flops);
    match kind {
        OpKind::MatMul { .. } => {
            let inner = *inputs[0].shape.dims().last().expect("rank 2 or more");
            Work {
                matmul_flops: Flops(outputs[0].shape.elements().0) * (2 * u64::from(inner)),
                other_flops: Flops::ZERO,
            }
        }
        OpKind::Binary(function) => match function {
            BinaryFn::Add | BinaryFn::Sub | BinaryFn::Mul | BinaryFn::Div | BinaryFn::Max => {
                of_result(1)
            }
        },
        OpKind::Scale { .. } => of_result(1),
        OpKind::Unary(function) => of_result(function_flops(*function)),
        OpKind::UnaryGrad(function) => of_result(gradient_flops(*function)),
        // Each element is added to a sum.
        OpKind::ReduceSum { .. } => of_operand(1),
        // Maximum, subtract, exponential, sum, divide.
        OpKind::Softmax => of_result(5),
        // Product, sum, subtract, product.
        OpKind::SoftmaxGrad => of_result(4),
        // Sum and sum of squares (3), then subtract, three products and sums (4).
        OpKind::LayerNorm { .. } => of_result(7),
        // Normalised value (2), gradients of gamma and beta (3), product with gamma
        // (1), the two means (3), the combination (5).
        OpKind::LayerNormGrad => of_result(14),
        OpKind::Dropout { .. } => of_result(1),
        // Each row of the gradient is added to its row.
        OpKind::GatherGrad { .. } => of_operand(1),
        OpKind::SparseAccumulate { .. } => other(&inputs[1], 2),
        // For each sample: logarithm and sum.
        OpKind::NllLoss { .. } => other(&inputs[1], 2),
        // Subtract and scale.
        OpKind::NllSoftmaxGrad { .. } => of_result(2),
        // Subtract, absolute value, tanh, scale.
        OpKind::AttentionMask => of_result(4),
        // A comparison for each class.
        OpKind::Accuracy { .. } => of_operand(1),
        // Scale and add.
        OpKind::Accumulate { .. } => of_result(2),
        OpKind::AdamMoment { square, .. } => of_result(if *square { 4 } else { 3 }),
        // Root, add, divide; two corrections; decay and add.
        OpKind::AdamUpdater {
            weight_decay,
            bias_correction,
            ..
        } => of_result(
            3 + if bias_correction.is_some() { 2 } else { 0 }
                + if weight_decay.is_some() { 2 } else { 0 },
        ),
        OpKind::SquareSum => of_operand(2),
        OpKind::AdamUpdate | OpKind::LambUpdate { .. } => of_result(2),
        OpKind::SgdUpdate { .. } | OpKind::SgdMomentum { .. } => of_result(3),
        OpKind::AllReduce | OpKind::ReduceScatter { .. } => of_result(1),
        OpKind::Multi { kind, .. } => {
            let adds = match kind {
                MultiKind::AllReduce | MultiKind::ReduceScatter { .. } => 1,
                MultiKind::AllGather { .. } => 0,
            };
            let flops = outputs.iter().map(|ty| other(ty, adds).other_flops.0);
            Work {
                matmul_flops: Flops::ZERO,
                other_flops: Flops(flops.sum()),
            }
        }
        OpKind::Cast { .. }
        | OpKind::Identity
        | OpKind::Detach
        | OpKind::Reshape { .. }
        | OpKind::Transpose { .. }
        | OpKind::Slice { .. }
        | OpKind::Concat { .. }
        | OpKind::Pad { .. }
        | OpKind::Broadcast { .. }
        | OpKind::Gather { .. }
        | OpKind::OneHot { .. }
        | OpKind::SequenceMask { .. }
        | OpKind::Zero
        | OpKind::IpuCopy { .. }
        | OpKind::Stash { .. }
        | OpKind::Restore { .. }
        | OpKind::CallInput
        | OpKind::CallOutput
        | OpKind::AllGather { .. }
        | OpKind::LocalSlice { .. }
        | OpKind::RemoteLoad
        | OpKind::RemoteStore => Work::default(),
    }
}

fn other(ty: &TensorType, flops: u64) -> Work {
    Work {
        matmul_flops: Flops::ZERO,
        other_flops: Flops(ty.shape.elements().0) * flops,
    }
}

fn function_flops(function: UnaryFn) -> u64 {
    match function {
        // Cube (2), two products, two sums, tanh, product with x / 2 (2).
        UnaryFn::Gelu => 9,
        // Scale, erf, sum, product with x / 2 (2).
        UnaryFn::GeluErf => 5,
        // Negate, exponential, sum, divide.
        UnaryFn::Sigmoid => 4,
        // Root, divide.
        UnaryFn::Rsqrt => 2,
        UnaryFn::Tanh
        | UnaryFn::Relu
        | UnaryFn::Exp
        | UnaryFn::Log
        | UnaryFn::Sqrt
        | UnaryFn::Square
        | UnaryFn::Reciprocal
        | UnaryFn::Neg
        | UnaryFn::Abs => 1,
    }
}

fn gradient_flops(function: UnaryFn) -> u64 {
    match function {
        // As forward up to tanh (7), its derivative (2), the inner one (3), products
        // and sum (5), product with dy.
        UnaryFn::Gelu => 18,
        // Scale, erf, sum, half; density (4); product, sum, product with dy.
        UnaryFn::GeluErf => 11,
        // Square or product, subtract, product with dy.
        UnaryFn::Tanh | UnaryFn::Sigmoid => 3,
        // Root and two products, or two products and a divide.
        UnaryFn::Sqrt | UnaryFn::Reciprocal => 3,
        UnaryFn::Rsqrt => 4,
        UnaryFn::Exp | UnaryFn::Square | UnaryFn::Abs => 2,
        UnaryFn::Relu | UnaryFn::Log | UnaryFn::Neg => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::infer;
    use crate::ir::{MatMulPass, Reduction};
    use crate::testing::{matmul, types};

    #[track_caller]
    fn check(kind: OpKind, operands: &str, matmul_flops: u64, other_flops: u64) {
        let operands = types(operands);
        let results = infer(&kind, "op", &operands).unwrap();
        let expected = Work {
            matmul_flops: Flops(matmul_flops),
            other_flops: Flops(other_flops),
        };
        assert_eq!(work(&kind, &operands, &results), expected);
    }

    #[test]
    fn known_operations() {
        let product = || matmul(MatMulPass::None);
        check(product(), "f16[2,3] f16[3,5]", 2 * 2 * 3 * 5, 0);
        check(product(), "f16[7,2,3] f16[7,3,5]", 7 * 2 * 2 * 3 * 5, 0);
        check(OpKind::Binary(BinaryFn::Add), "f16[4,1] f16[3]", 0, 12);
        check(OpKind::Identity, "f16[4]", 0, 0);
        check(OpKind::SquareSum, "f16[4]", 0, 8);
        let loss = OpKind::NllLoss {
            reduction: Some(Reduction::Sum),
            ignore_index: None,
        };
        check(loss, "f16[5,9] u32[5]", 0, 10);
    }

    /// One encoder layer of BERT-large on one sequence of 128, by the closed form
    /// `24 s h^2 + 4 s^2 h`.
    #[test]
    fn an_encoder_layer_has_its_textbook_work() {
        let (s, h) = (128_u64, 1024_u64);
        let products = [
            "f16[128,1024] f16[1024,3072]",
            "f16[1,16,128,64] f16[1,16,64,128]",
            "f16[1,16,128,128] f16[1,16,128,64]",
            "f16[128,1024] f16[1024,1024]",
            "f16[128,1024] f16[1024,4096]",
            "f16[128,4096] f16[4096,1024]",
        ];
        let kind = matmul(MatMulPass::None);
        let total: Work = products
            .iter()
            .map(|operands| {
                let operands = types(operands);
                let results = infer(&kind, "op", &operands).unwrap();
                work(&kind, &operands, &results)
            })
            .sum();
        assert_eq!(total.matmul_flops, Flops(24 * s * h * h + 4 * s * s * h));
    }
}

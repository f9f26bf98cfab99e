//! Products with a weight, whole or in pieces that follow each other.
//!
//! Wide linear layers need much memory while they run; in square pieces they need that of one
//! piece, and every piece is a weight of its own to gradients, accumulators and optimisers
//! (PopART, `serializematmuls.cpp`; `applications/popart/bert/bert_model.py`,
//! `split_linear_layers`). Where a model in `f16` has partial sums in `f32`, so have the sums of
//! pieces, here and in gradients (`keep_precision`).

use popart_graph::ir::{OpKind, Piece, TensorId};

use crate::builder::{Builder, Component, NORMAL, Result};
use crate::interface::SerialisedWeight;

/// How a weight `[rows, columns]` is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// Not at all.
    Whole,
    /// Into so many by columns, whose results lie side by side.
    OutputChannels(u32),
    /// Into so many by rows, whose results are added.
    ReducingDim(u32),
}

/// A weight of an encoder layer and the names of it and of its product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear<'n> {
    /// Of the product.
    pub(crate) name: &'n str,
    /// Of the weight.
    pub(crate) weight: &'n str,
    /// Rows and columns of the weight.
    pub(crate) shape: [u32; 2],
    /// How it is cut.
    pub(crate) pieces: Pieces,
}

/// `x` times a new weight.
pub(crate) fn linear(
    builder: &mut Builder,
    component: Component,
    x: TensorId,
    linear: Linear,
) -> Result<TensorId> {
    let weights = weights(builder, component, linear);
    products(builder, component, x, linear, &weights)
}

/// The weight, or its pieces.
fn weights(builder: &mut Builder, component: Component, linear: Linear) -> Vec<TensorId> {
    let [rows, columns] = linear.shape;
    let (n, shape, axis) = match linear.pieces {
        Pieces::Whole => {
            return vec![builder.weight(component, linear.weight, linear.shape, NORMAL)];
        }
        Pieces::OutputChannels(n) => (n, [rows, columns / n], 1),
        Pieces::ReducingDim(n) => (n, [rows / n, columns], 0),
    };
    let name = |piece: u32| format!("{}/split{piece}", linear.weight);
    let slices: Vec<TensorId> = (0..n)
        .map(|piece| builder.weight(component, &name(piece), shape, NORMAL))
        .collect();
    builder.serialised.push(SerialisedWeight {
        name: component.path(linear.weight),
        slices: slices.clone(),
        axis,
        joint_norm: true,
    });
    slices
}

/// `x` times the weight that `weights` are the pieces of.
pub(crate) fn products(
    builder: &mut Builder,
    component: Component,
    x: TensorId,
    linear: Linear,
    weights: &[TensorId],
) -> Result<TensorId> {
    let name = linear.name;
    if let &[weight] = weights {
        return builder.encoder_matmul(component, name, [x, weight]);
    }
    if let Pieces::ReducingDim(n) = linear.pieces {
        let rows = linear.shape[0] / n;
        let mut sum = None;
        for (piece, &weight) in (0..).zip(weights) {
            let slice = OpKind::Slice {
                axis: 1,
                begin: piece * rows,
                end: (piece + 1) * rows,
            };
            let x = builder.op(component, &format!("{name}/Slice"), slice, &[x])?;
            let y = builder.encoder_piece(component, name, [x, weight], Piece::Addend)?;
            sum = Some(match sum {
                None => y,
                Some(sum) => builder.add(component, &format!("{name}/Sum"), [sum, y])?,
            });
        }
        let sum = sum.expect("a weight has at least one piece");
        let to = builder.config.dtype;
        if builder.graph.tensors[sum].dtype == to {
            return Ok(sum);
        }
        return builder.op(
            component,
            &format!("{name}/Cast"),
            OpKind::Cast { to },
            &[sum],
        );
    }
    let parts = weights
        .iter()
        .map(|&weight| builder.encoder_piece(component, name, [x, weight], Piece::Columns))
        .collect::<Result<Vec<_>>>()?;
    let concat = OpKind::Concat { axis: 1 };
    builder.op(component, &format!("{name}/Concat"), concat, &parts)
}

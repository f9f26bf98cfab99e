//! The second half of an encoder layer: two products with an activation between.
//!
//! Source: `applications/popart/bert/bert_model.py`, `feed_forward`.

use popart_graph::ir::{Init, TensorId};

use crate::builder::{Builder, NORMAL, Part};
use crate::error::Result;
use crate::placement::Block;

/// `[B S, H] -> [B S, H]`, the residual sum and its norm included.
pub(crate) fn feed_forward(builder: &mut Builder, layer: u32, x: TensorId) -> Result<TensorId> {
    let part = Part {
        block: Block::FeedForward(layer),
        name: &format!("Layer{layer}/FF"),
    };
    let (outer, inner) = (builder.config.hidden_size, builder.config.ff_size);
    let weight = builder.weight(part, "1/W", [outer, inner], NORMAL);
    let bias = builder.weight(part, "1/B", [inner], Init::Zeros);
    let y = builder.encoder_matmul(part, "1", [x, weight])?;
    let y = builder.add(part, "1/Add", [y, bias])?;
    let y = builder.activation(part, y)?;
    let weight = builder.weight(part, "2/W", [inner, outer], NORMAL);
    let bias = builder.weight(part, "2/B", [outer], Init::Zeros);
    let y = builder.encoder_matmul(part, "2", [y, weight])?;
    let y = builder.add(part, "2/Add", [y, bias])?;
    builder.add_and_norm(part, x, y)
}

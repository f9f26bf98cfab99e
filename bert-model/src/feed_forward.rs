//! The second half of an encoder layer: two products with an activation between.
//!
//! Source: `applications/popart/bert/bert_model.py`, `feed_forward`.

use popart_graph::ir::{Init, TensorId};

use crate::builder::{Builder, Component, Result};
use crate::linear::{Linear, Pieces, linear};
use crate::placement::Block;

/// `[B S, H] -> [B S, H]`, the residual sum and its norm included.
pub(crate) fn feed_forward(builder: &mut Builder, layer: u32, x: TensorId) -> Result<TensorId> {
    let name = format!("Layer{layer}/FF");
    let component = Component::new(Block::FeedForward(layer), &name);
    let (outer, inner) = (builder.config.hidden_size, builder.config.ff_size);
    let n_pieces = inner / outer;
    let pieces = |cut: fn(u32) -> Pieces| match builder.config.split_linear_layers {
        true if n_pieces > 1 => cut(n_pieces),
        _ => Pieces::Whole,
    };
    let up = Linear {
        name: "1",
        weight: "1/W",
        shape: [outer, inner],
        pieces: pieces(Pieces::OutputChannels),
    };
    let down = Linear {
        name: "2",
        weight: "2/W",
        shape: [inner, outer],
        pieces: pieces(Pieces::ReducingDim),
    };
    let y = linear(builder, component, x, up)?;
    let bias = builder.weight(component, "1/B", [inner], Init::Zeros);
    let y = builder.add(component, "1/Add", [y, bias])?;
    let y = builder.activation(component, y)?;
    let y = linear(builder, component, y, down)?;
    let bias = builder.weight(component, "2/B", [outer], Init::Zeros);
    let y = builder.add(component, "2/Add", [y, bias])?;
    builder.add_and_norm(component, x, y)
}

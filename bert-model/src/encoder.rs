//! One encoder layer: its two halves, and whether their outputs are kept.

use popart_graph::ir::TensorId;

use crate::attention::attention;
use crate::builder::{Builder, Result};
use crate::feed_forward::feed_forward;

/// `[B S, H] -> [B S, H]`.
pub(crate) fn layer(builder: &mut Builder, layer: u32, x: TensorId) -> Result<TensorId> {
    let x = attention(builder, layer, x)?;
    if builder.task.trains() && builder.placement.keeps_attention(layer) {
        builder.checkpoints.push(x);
    }
    let x = feed_forward(builder, layer, x)?;
    if builder.task.trains() && builder.placement.keeps_output(layer) {
        builder.checkpoints.push(x);
    }
    Ok(x)
}

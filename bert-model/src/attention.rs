//! The first half of an encoder layer: self-attention.
//!
//! Vaswani et al., "Attention Is All You Need", 2017, with the operations and
//! names of `applications/popart/bert/bert_model.py`, `attention`. Softmax is over
//! scores `[B, A, S, S]`; positions that may not be attended to have -1000 added. In packs of
//! sequences, those of another sequence have up to -10,000 added (operation `AttentionMask`).

use ipu_sim::ids::Id;
use popart_graph::ir::{Init, OpKind, Purpose, TensorId};

use crate::builder::{Builder, Component, NORMAL, Result};
use crate::config::{Dropout, SequenceFormat, Task};
use crate::interface::Input;
use crate::linear::{self, Linear, Pieces};
use crate::parts::Unit;
use crate::placement::Block;

/// `[B S, H] -> [B S, H]`, the residual sum and its norm included.
pub(crate) fn attention(builder: &mut Builder, layer: u32, x: TensorId) -> Result<TensorId> {
    let name = format!("Layer{layer}/Attention");
    let component = Component::new(Block::Attention(layer), &name);
    let width = builder.config.hidden_size;
    // Before all that is the layer's own: layers that are alike are then alike throughout.
    let mask = match builder.config.sequence_format {
        SequenceFormat::Single => Some(mask(builder, component)?),
        SequenceFormat::Packed { .. } => None,
    };
    let qkv = queries_keys_values(builder, component, x)?;
    let z = heads(builder, component, qkv, mask)?;
    let weight = builder.weight(component, "Out", [width, width], NORMAL);
    let mut z = builder.encoder_matmul(component, "Out", [z, weight])?;
    if builder.config.attention_bias {
        let bias = builder.weight(component, "Out_Bias", [width], Init::Zeros);
        z = builder.add(component, "Out_Bias", [z, bias])?;
    }
    builder.add_and_norm(component, x, z)
}

/// Queries, keys and values side by side, `[B S, 3 H]`.
fn queries_keys_values(
    builder: &mut Builder,
    component: Component,
    x: TensorId,
) -> Result<TensorId> {
    let width = builder.config.hidden_size;
    let joint = Linear {
        name: "QKV",
        weight: "QKV",
        shape: [width, 3 * width],
        pieces: match builder.config.split_linear_layers {
            true => Pieces::OutputChannels(3),
            false => Pieces::Whole,
        },
    };
    let qkv = if builder.config.split_qkv {
        let weights =
            ["Q", "K", "V"].map(|name| builder.weight(component, name, [width, width], NORMAL));
        // Pieces of the concatenation are the weights that it was made of.
        if builder.config.split_linear_layers {
            linear::products(builder, component, x, joint, &weights)?
        } else {
            let weight = builder.op(
                component,
                "QKV_Concat",
                OpKind::Concat { axis: 1 },
                &weights,
            )?;
            builder.encoder_matmul(component, "QKV", [x, weight])?
        }
    } else {
        linear::linear(builder, component, x, joint)?
    };
    if !builder.config.attention_bias {
        return Ok(qkv);
    }
    let bias = match builder.config.split_qkv {
        true => {
            let biases = ["Q_Bias", "K_Bias", "V_Bias"]
                .map(|name| builder.weight(component, name, [width], Init::Zeros));
            builder.op(
                component,
                "QKV_Bias_Concat",
                OpKind::Concat { axis: 0 },
                &biases,
            )?
        }
        false => builder.weight(component, "QKV_Bias", [3 * width], Init::Zeros),
    };
    builder.add(component, "QKV_Bias", [qkv, bias])
}

/// What the heads attend to, put together again: `[B S, 3 H] -> [B S, H]`. Without a mask, one is
/// made of the numbers of sequences, anew in each layer.
fn heads(
    builder: &mut Builder,
    component: Component,
    qkv: TensorId,
    mask: Option<TensorId>,
) -> Result<TensorId> {
    let q = head(builder, component, qkv, Operand::Queries)?;
    let k = head(builder, component, qkv, Operand::Keys)?;
    let v = head(builder, component, qkv, Operand::Values)?;

    let component = Component {
        name: &component.path("Z"),
        purpose: Purpose::Scores,
        ..component
    };
    let scores = builder.encoder_matmul(component, "QK", [q, k])?;
    let factor = 1.0 / f64::from(builder.config.head_size()).sqrt();
    let scores = builder.op(component, "Scale", OpKind::Scale { factor }, &[scores])?;
    let mask = match mask {
        Some(mask) => mask,
        None => {
            let numbers = builder.tensor_of(Input::SequenceNumbers);
            let operands = [numbers, scores];
            builder.op(component, "AttentionMask", OpKind::AttentionMask, &operands)?
        }
    };
    let scores = builder.add(component, "ApplyMask", [scores, mask])?;
    let mut weights = builder.op(component, "Softmax", OpKind::Softmax, &[scores])?;
    if builder.config.dropout == Dropout::HiddenAndAttention {
        weights = builder.dropout(component, weights)?;
    }
    let z = builder.encoder_matmul(component, "AV", [weights, v])?;

    let perm = [0, 2, 1, 3].into_iter().collect();
    let z = builder.op(component, "Transpose", OpKind::Transpose { perm }, &[z])?;
    let shape = [builder.config.rows(), builder.config.hidden_size];
    builder.reshape(component, "Reshape", z, shape)
}

/// A third of the product of input and weights.
#[derive(Clone, Copy)]
enum Operand {
    Queries,
    Keys,
    Values,
}

/// One third of `[B S, 3 H]` by heads: `[B, A, S, H/A]`, keys `[B, A, H/A, S]`.
fn head(
    builder: &mut Builder,
    component: Component,
    qkv: TensorId,
    operand: Operand,
) -> Result<TensorId> {
    let (third, name, perm) = match operand {
        Operand::Queries => (0, "Q", [0, 2, 1, 3]),
        Operand::Keys => (1, "K", [0, 2, 3, 1]),
        Operand::Values => (2, "V", [0, 2, 1, 3]),
    };
    let config = builder.config;
    let width = config.hidden_size;
    let slice = OpKind::Slice {
        axis: 1,
        begin: third * width,
        end: (third + 1) * width,
    };
    let x = builder.op(component, &format!("QKV_Split/{name}"), slice, &[qkv])?;
    let shape = [
        config.micro_batch,
        config.sequence_length,
        config.attention_heads,
        config.head_size(),
    ];
    let x = builder.reshape(component, &format!("{name}/Reshape"), x, shape)?;
    let perm = perm.into_iter().collect();
    let transpose = OpKind::Transpose { perm };
    builder.op(component, &format!("{name}/Transpose"), transpose, &[x])
}

/// The mask `[B, 1, 1, S]`, made once on every IPU, or in a pipeline in every stage, for another
/// stage of the IPU is at another micro-batch.
fn mask(builder: &mut Builder, component: Component) -> Result<TensorId> {
    let ipu = builder.placement.ipu(component.block);
    let stage = builder.pipeline_stage(component.block);
    if let Some(&mask) = builder.masks.get(&(ipu, stage)) {
        return Ok(mask);
    }
    let name = match builder.masks.keys().any(|&(other, _)| other == ipu) {
        true => format!("Mask/{}/{}", ipu.index(), builder.masks.len()),
        false => format!("Mask/{}", ipu.index()),
    };
    let kind = OpKind::SequenceMask {
        sequence_length: builder.config.sequence_length,
        mask_tokens: match builder.task {
            Task::Pretraining(_) => Some(builder.config.mask_tokens),
            Task::Squad(_) => None,
        },
        dtype: builder.config.dtype,
    };
    let indices = builder.mask_indices.clone();
    let component = Component {
        name: &name,
        unit: Unit::Mask,
        ..component
    };
    let mask = builder.op(component, "SequenceMask", kind, &indices)?;
    let mask = builder.detach(component, "Detach", mask)?;
    builder.masks.insert((ipu, stage), mask);
    Ok(mask)
}

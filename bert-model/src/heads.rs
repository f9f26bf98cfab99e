//! From the last hidden state to logits, losses and accuracies.
//!
//! Pre-training: the words that were masked, through the tied word table, and
//! whether one sentence follows the other. SQuAD: where an answer starts and ends.
//! Source: `applications/popart/bert/bert_model.py`, `nsp_head`,
//! `lm_prediction_head`, `projection` and `squad_projection`, and
//! `applications/popart/bert/bert.py` for losses and accuracies.

use ipu_sim::numerics::DType;
use popart_graph::ir::{
    BinaryFn, Init, MatMulPass, MemoryProportion, OpKind, Piece, Purpose, Reduction, Shape,
    TensorId, UnaryFn,
};

use crate::builder::{Builder, Component, NORMAL, Result};
use crate::config::SequenceFormat;
use crate::interface::{Input, Output};
use crate::placement::Block;

const NSP: Component = Component::new(Block::NextSentence, "NSP");

const CLS: Component = Component::new(Block::Cls, "CLS");

const MLM: Component = Component::new(Block::Mlm, "MLM");

const SQUAD: Component = Component::new(Block::Squad, "Squad");

/// The label that marks a place without a masked word.
const NO_WORD: u32 = 0;

/// The heads of pre-training, and when training the sum of their losses.
pub(crate) fn pretraining(builder: &mut Builder, x: TensorId) -> Result<Option<TensorId>> {
    let next_sentence = match builder.config.next_sentence {
        true => Some(next_sentence_logits(builder, x)?),
        false => None,
    };
    let transformed = transform(builder, x)?;
    let words = word_logits(builder, transformed)?;
    if let SequenceFormat::Packed { .. } = builder.config.sequence_format {
        return packed_scores(builder, words, next_sentence);
    }

    let mlm_loss = Score {
        logits: words,
        labels: builder.tensor_of(Input::MaskLabels),
        ignore_index: Some(NO_WORD),
        loss: Some(Output::MlmLoss)
            .filter(|_| builder.task.trains() || builder.config.inference_loss),
        accuracy: Output::MlmAccuracy,
    }
    .build(builder, MLM)?;
    let Some(next_sentence) = next_sentence else {
        return Ok(mlm_loss.filter(|_| builder.task.trains()));
    };
    let nsp_loss = Score {
        logits: next_sentence,
        labels: builder.tensor_of(Input::NspLabels),
        ignore_index: None,
        loss: Some(Output::NspLoss).filter(|_| builder.task.trains()),
        accuracy: Output::NspAccuracy,
    }
    .build(builder, NSP)?;
    total_loss(builder, mlm_loss, nsp_loss)
}

/// Losses and accuracies of packs: sums over all sequences, whatever the reduction
/// (`applications/popart/bert/bert.py`, from v2.3 on).
fn packed_scores(
    builder: &mut Builder,
    words: TensorId,
    next_sentence: Option<TensorId>,
) -> Result<Option<TensorId>> {
    let [mlm, nsp] = [MLM, NSP].map(|component| Component {
        purpose: Purpose::Loss,
        ..component
    });
    let labels = flat(builder, mlm, "Labels", Input::MaskLabels)?;
    let weights = flat(builder, mlm, "Weights", Input::MaskWeights)?;
    let p = builder.op(mlm, "Softmax", OpKind::Softmax, &[words])?;
    let nll = OpKind::NllLoss {
        reduction: Some(Reduction::Sum),
        ignore_index: Some(NO_WORD),
    };
    let mlm_loss = builder.op(mlm, "Loss", nll, &[p, labels])?;
    builder.output(mlm, Output::MlmLoss, mlm_loss)?;
    let accuracy = OpKind::Accuracy {
        ignore_index: None,
        weighted: true,
    };
    let right = builder.op(mlm, "Accuracy", accuracy.clone(), &[p, labels, weights])?;
    builder.output(mlm, Output::MlmAccuracy, right)?;

    let Some(next_sentence) = next_sentence else {
        return Ok(Some(mlm_loss));
    };
    let labels = flat(builder, nsp, "Labels", Input::NspLabels)?;
    let weights = flat(builder, nsp, "Weights", Input::NspWeights)?;
    let p = builder.op(nsp, "Softmax", OpKind::Softmax, &[next_sentence])?;
    let nll = OpKind::NllLoss {
        reduction: None,
        ignore_index: None,
    };
    let losses = builder.op(nsp, "Loss", nll, &[p, labels])?;
    let cast = OpKind::Cast { to: DType::F32 };
    let factors = builder.op(nsp, "Loss/Weights", cast, &[weights])?;
    let weighted = OpKind::Binary(BinaryFn::Mul);
    let losses = builder.op(nsp, "Loss/Weighted", weighted, &[losses, factors])?;
    let sum = OpKind::ReduceSum {
        axes: [0].into_iter().collect(),
        keep_dims: false,
    };
    let nsp_loss = builder.op(nsp, "Loss/Sum", sum, &[losses])?;
    builder.output(nsp, Output::NspLoss, nsp_loss)?;
    let right = builder.op(nsp, "Accuracy", accuracy, &[p, labels, weights])?;
    builder.output(nsp, Output::NspAccuracy, right)?;
    total_loss(builder, Some(mlm_loss), Some(nsp_loss))
}

/// A stream of the host, of any shape, as one row.
fn flat(builder: &mut Builder, component: Component, name: &str, input: Input) -> Result<TensorId> {
    let stream = builder.tensor_of(input);
    let elements = builder.graph.tensors[stream].shape.dims().iter().product();
    builder.reshape(component, name, stream, Shape::from([elements]))
}

/// The head for answers, and when training the sum of its losses.
pub(crate) fn squad(builder: &mut Builder, x: TensorId) -> Result<Option<TensorId>> {
    let width = builder.config.hidden_size;
    let weight = builder.weight(SQUAD, "SquadW", [width, 2], NORMAL);
    let bias = builder.weight(SQUAD, "SquadB", [2], Init::Zeros);
    let x = builder.matmul(SQUAD, "Gemm", [x, weight])?;
    let logits = builder.add(SQUAD, "Gemm/Add", [x, bias])?;
    let trains = builder.task.trains();
    if !trains && builder.config.squad_single_output {
        builder.output(SQUAD, Output::SquadLogits, logits)?;
        return Ok(None);
    }
    let start = answer_logits(builder, logits, 0)?;
    let end = answer_logits(builder, logits, 1)?;
    if !trains {
        builder.output(SQUAD, Output::StartLogits, start)?;
        builder.output(SQUAD, Output::EndLogits, end)?;
        return Ok(None);
    }
    let start_loss = Score {
        logits: start,
        labels: builder.tensor_of(Input::StartLabels),
        ignore_index: None,
        loss: Some(Output::StartLoss),
        accuracy: Output::StartAccuracy,
    }
    .build(
        builder,
        Component {
            name: "Squad/Start",
            ..SQUAD
        },
    )?;
    let end_loss = Score {
        logits: end,
        labels: builder.tensor_of(Input::EndLabels),
        ignore_index: None,
        loss: Some(Output::EndLoss),
        accuracy: Output::EndAccuracy,
    }
    .build(
        builder,
        Component {
            name: "Squad/End",
            ..SQUAD
        },
    )?;
    total_loss(builder, start_loss, end_loss)
}

/// One column of the answer logits, `[B S, 2] -> [B, S]`.
fn answer_logits(builder: &mut Builder, logits: TensorId, column: u32) -> Result<TensorId> {
    let name = match column {
        0 => "Squad/Start",
        _ => "Squad/End",
    };
    let component = Component { name, ..SQUAD };
    let slice = OpKind::Slice {
        axis: 1,
        begin: column,
        end: column + 1,
    };
    let x = builder.op(component, "Slice", slice, &[logits])?;
    let shape = [builder.config.micro_batch, builder.config.sequence_length];
    builder.reshape(component, "Reshape", x, shape)
}

/// Logits `[B, 2]` from the hidden state of `[CLS]`, at position `M`; of packs `[B K, 2]`, from the
/// last `K` positions.
fn next_sentence_logits(builder: &mut Builder, x: TensorId) -> Result<TensorId> {
    let width = builder.config.hidden_size;
    let places = match builder.config.sequence_format {
        SequenceFormat::Single => builder.config.mask_tokens..builder.config.mask_tokens + 1,
        SequenceFormat::Packed { sequences } => {
            let length = builder.config.sequence_length;
            length - sequences..length
        }
    };
    let pooled = positions(builder, NSP, x, places)?;
    let weight = builder.weight(NSP, "PoolW", [width, width], NORMAL);
    let bias = builder.weight(NSP, "PoolB", [width], Init::Zeros);
    let pooled = builder.matmul(NSP, "Pool", [pooled, weight])?;
    let pooled = builder.add(NSP, "Pool/Add", [pooled, bias])?;
    let pooled = builder.op(NSP, "Pool/Tanh", OpKind::Unary(UnaryFn::Tanh), &[pooled])?;
    let weight = builder.weight(NSP, "NspW", [width, 2], NORMAL);
    let bias = builder.weight(NSP, "NspB", [2], Init::Zeros);
    let logits = builder.matmul(NSP, "Nsp", [pooled, weight])?;
    builder.add(NSP, "Nsp/Add", [logits, bias])
}

/// The same positions of every sequence: `[B S, H] -> [B n, H]`.
fn positions(
    builder: &mut Builder,
    component: Component,
    x: TensorId,
    range: std::ops::Range<u32>,
) -> Result<TensorId> {
    let config = builder.config;
    let shape = [
        config.micro_batch,
        config.sequence_length,
        config.hidden_size,
    ];
    let x = builder.reshape(component, "Sequences", x, shape)?;
    let slice = OpKind::Slice {
        axis: 1,
        begin: range.start,
        end: range.end,
    };
    let n = range.end - range.start;
    let x = builder.op(component, "Slice", slice, &[x])?;
    builder.reshape(
        component,
        "Rows",
        x,
        [config.micro_batch * n, config.hidden_size],
    )
}

/// The transform before the vocabulary, of all positions: `[B S, H] -> [B S, H]`.
fn transform(builder: &mut Builder, x: TensorId) -> Result<TensorId> {
    if !builder.config.cls_layer {
        return builder.op(CLS, "Identity", OpKind::Identity, &[x]);
    }
    let width = builder.config.hidden_size;
    let weight = builder.weight(CLS, "LMPredictionW", [width, width], NORMAL);
    let bias = builder.weight(CLS, "LMPredictionB", [width], Init::Zeros);
    let x = builder.matmul(CLS, "LMPrediction", [x, weight])?;
    let x = builder.add(CLS, "LMPrediction/Add", [x, bias])?;
    let x = builder.activation(CLS, x)?;
    builder.norm(CLS, x)
}

/// Logits of the masked words, the first `M` positions, of packs `M + K - 1`: `[B S, H] -> [B M, V]`,
/// through the word table, one slice of the vocabulary after the other.
fn word_logits(builder: &mut Builder, x: TensorId) -> Result<TensorId> {
    let x = positions(builder, MLM, x, 0..builder.config.label_slots())?;
    keep_for_logits(builder, x);
    // One layout must serve product and look-up, so the plan stands alone.
    let table = builder.word_table.clone();
    let piece = match table.len() {
        1 => Piece::Whole,
        _ => Piece::Columns,
    };
    let kind = builder.piece_kind(MemoryProportion::POPLIBS_DEFAULT, MatMulPass::None, piece);
    let slices = table
        .iter()
        .map(|&slice| builder.op(MLM, "Projection", kind.clone(), &[x, slice]))
        .collect::<Result<Vec<_>>>()?;
    let logits = match slices.as_slice() {
        &[logits] => logits,
        slices => builder.op(MLM, "Concat", OpKind::Concat { axis: 1 }, slices)?,
    };
    keep_for_logits(builder, logits);
    if !builder.config.projection_bias {
        return Ok(logits);
    }
    let bias = builder.weight(
        MLM,
        "ProjectionB",
        [builder.config.vocab_length],
        Init::Zeros,
    );
    let logits = builder.add(MLM, "ProjectionB", [logits, bias])?;
    keep_for_logits(builder, logits);
    Ok(logits)
}

/// Keeps a step on the way to the logits of masked words where the placement says so.
fn keep_for_logits(builder: &mut Builder, x: TensorId) {
    if builder.task.trains() && builder.placement.keeps_logits() {
        builder.checkpoints.push(x);
    }
}

/// Logits `[n, c]` beside their labels, `n` in all.
struct Score {
    logits: TensorId,
    labels: TensorId,
    /// The label of samples that don't count.
    ignore_index: Option<u32>,
    /// The loss to compute, if one is asked for.
    loss: Option<Output>,
    accuracy: Output,
}

impl Score {
    /// Adds loss and accuracy to the results; gives the loss. What is reported is a mean, also of
    /// a loss that is a sum.
    fn build(self, builder: &mut Builder, component: Component) -> Result<Option<TensorId>> {
        let component = Component {
            purpose: Purpose::Loss,
            ..component
        };
        let labels_shape = &builder.graph.tensors[self.labels].shape;
        let labels = match labels_shape.dims() {
            [_] => self.labels,
            dims => {
                let shape = Shape::from([dims.iter().product()]);
                builder.reshape(component, "Labels", self.labels, shape)?
            }
        };
        let ignore_index = self.ignore_index;
        // The largest probability is where the largest logit is.
        let mut scores = self.logits;
        let mut loss = None;
        if let Some(output) = self.loss {
            scores = builder.op(component, "Softmax", OpKind::Softmax, &[scores])?;
            let nll = OpKind::NllLoss {
                reduction: Some(builder.config.reduction),
                ignore_index,
            };
            let value = builder.op(component, "Loss", nll, &[scores, labels])?;
            loss = Some((output, value));
        }
        let accuracy = OpKind::Accuracy {
            ignore_index,
            weighted: false,
        };
        let accuracy = builder.op(component, "Accuracy", accuracy, &[scores, labels])?;
        if let Some((output, loss)) = loss {
            let reported = match builder.config.reduction {
                Reduction::Mean => loss,
                Reduction::Sum => mean(builder, component, loss, accuracy)?,
            };
            builder.output(component, output, reported)?;
        }
        builder.output(component, self.accuracy, accuracy)?;
        Ok(loss.map(|(_, loss)| loss))
    }
}

/// A sum over the labels that count, divided by their number, which is beside the right ones in
/// `accuracy` (`applications/popart/bert/bert.py`).
fn mean(
    builder: &mut Builder,
    component: Component,
    sum: TensorId,
    accuracy: TensorId,
) -> Result<TensorId> {
    let attempted = OpKind::Slice {
        axis: 0,
        begin: 1,
        end: 2,
    };
    let attempted = builder.op(component, "Attempted", attempted, &[accuracy])?;
    let attempted = builder.reshape(component, "Attempted/Number", attempted, Shape::scalar())?;
    let div = OpKind::Binary(BinaryFn::Div);
    builder.op(component, "Loss/Mean", div, &[sum, attempted])
}

/// The sum of two losses when training.
fn total_loss(
    builder: &mut Builder,
    first: Option<TensorId>,
    second: Option<TensorId>,
) -> Result<Option<TensorId>> {
    let (Some(first), Some(second)) = (first, second) else {
        return Ok(None);
    };
    let component = Component {
        purpose: Purpose::Loss,
        ..Component::new(Block::Loss, "Loss")
    };
    builder.add(component, "Sum", [first, second]).map(Some)
}

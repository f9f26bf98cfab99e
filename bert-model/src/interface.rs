//! What do the tensors of a model's graph mean to those who use it?
//!
//! The host knows a stream by its [`Input`] and a result by its [`Output`]; an optimiser knows
//! a weight by its [`WeightInfo`]. Names are those of the published application
//! (`applications/popart/bert`). Left out: what a model computes, which its graph says.

use popart_graph::ir::{StageId, TensorId};

use crate::config::SequenceFormat;

/// Meaning of a stream that the host sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// Word ids `[B S]`.
    Indices,
    /// Position ids `[B S]`.
    Positions,
    /// Segment ids `[B S]`, 0 or 1.
    Segments,
    /// First unused one of the leading positions for masked words, `[B, 1]`.
    MaskTokensIndex,
    /// First unused position of the rest of the sequence, `[B, 1]`.
    SequenceIndex,
    /// Number of the sequence that each position of a pack belongs to, `[B, S]`; 0 where there is
    /// none.
    SequenceNumbers,
    /// Ids of the masked words, `[B, M]`, of packs `[B, M + K - 1]`; 0 where there is none.
    MaskLabels,
    /// Number of the sequence that each label of a pack belongs to, `[B, M + K - 1]`; 0 where
    /// there is no label.
    MaskWeights,
    /// Next-sentence labels, 0 or 1: `[B]`, of packs `[B, K]`.
    NspLabels,
    /// Whether a next-sentence label of a pack counts, `[B, K]`: 1 or 0.
    NspWeights,
    /// First unused position of a SQuAD sequence, `[B, 1]`.
    SequencePadIndex,
    /// Position of the answer's first word, `[B]`.
    StartLabels,
    /// Position of the answer's last word, `[B]`.
    EndLabels,
    /// Seed of the dropout masks, `[2]`.
    Seed,
}

impl Input {
    /// Name of the stream on the device, as in the published application, whose streams of packs
    /// have the names of the fields of their records.
    #[must_use]
    pub fn name(self, format: SequenceFormat) -> &'static str {
        let is_packed = format != SequenceFormat::Single;
        match self {
            Input::Indices if is_packed => "input_ids",
            Input::Positions if is_packed => "position_ids",
            Input::Segments if is_packed => "segment_ids",
            Input::MaskLabels if is_packed => "masked_lm_ids",
            Input::Indices => "indices",
            Input::Positions => "positions",
            Input::Segments => "segments",
            Input::MaskTokensIndex => "mask_tokens_mask_idx",
            Input::SequenceIndex => "sequence_mask_idx",
            Input::SequenceNumbers => "input_mask",
            Input::MaskLabels => "mask_labels",
            Input::MaskWeights => "masked_lm_weights",
            Input::NspLabels => "nsp_labels",
            Input::NspWeights => "nsp_weights",
            Input::SequencePadIndex => "seq_pad_idx",
            Input::StartLabels => "start_labels",
            Input::EndLabels => "end_labels",
            Input::Seed => "seed",
        }
    }
}

/// Meaning of a result that the host reads: losses are `[] f32`, accuracies `[2] f32` (correct,
/// counted). Losses of packs are sums over what counts, of which the host makes means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Output {
    /// Loss on masked words.
    MlmLoss,
    /// Masked words that were right.
    MlmAccuracy,
    /// Next-sentence loss.
    NspLoss,
    /// Next-sentence answers that were right.
    NspAccuracy,
    /// Loss on where answers start.
    StartLoss,
    /// Starts that were right.
    StartAccuracy,
    /// Loss on where answers end.
    EndLoss,
    /// Ends that were right.
    EndAccuracy,
    /// Logits of start and end, `[B S, 2]`.
    SquadLogits,
    /// Logits of the start, `[B, S]`.
    StartLogits,
    /// Logits of the end, `[B, S]`.
    EndLogits,
}

/// A stream and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputInfo {
    /// The stream.
    pub tensor: TensorId,
    /// Meaning of its elements.
    pub input: Input,
}

/// A result and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputInfo {
    /// The result.
    pub tensor: TensorId,
    /// Meaning of its elements.
    pub output: Output,
}

/// A weight, as an optimiser sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightInfo {
    /// The variable.
    pub tensor: TensorId,
    /// Whether weight decay applies to it.
    pub decays: bool,
    /// The last forward stage that reads it.
    pub stage: StageId,
}

/// A weight that is stored as several variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialisedWeight {
    /// Name of the whole weight.
    pub name: String,
    /// Slices of the weight, in order.
    pub slices: Vec<TensorId>,
    /// The axis along which they are put together.
    pub axis: u32,
    /// Whether LAMB takes one norm over all slices: they are pieces of one product
    /// (PopART, `LambSerialisedWeight`), not tables of their own.
    pub joint_norm: bool,
}

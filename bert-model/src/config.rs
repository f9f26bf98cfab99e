//! Which BERT: sizes and options; `config/rules.rs` has the rules that they keep.
//!
//! The fields are those of `BertConfig` in the published PopART application
//! (`applications/popart/bert/bert_model.py`) that shape the graph; where they
//! run is in [`crate::placement`], how they are trained in [`crate::optim`].
//! Left out: phased execution, and embeddings on the host.

use ipu_sim::numerics::DType;
use popart_graph::ir::{Partials, Reduction};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod rules;

pub use rules::{
    ConfigError, EXTENT_MAX, Field, LAYERS_MAX, PIECES_MAX, Rule, Size, VOCAB_STEPS_MAX, Value,
};

/// Task of the model, and whether the model learns it or only runs it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Masked words and next sentence.
    Pretraining(Mode),
    /// Where in a text an answer starts and ends.
    Squad(Mode),
}

impl Task {
    /// Whether it learns.
    #[must_use]
    pub fn mode(self) -> Mode {
        match self {
            Task::Pretraining(mode) | Task::Squad(mode) => mode,
        }
    }

    /// Whether there is a loss to train on.
    #[must_use]
    pub fn trains(self) -> bool {
        self.mode() == Mode::Training
    }
}

/// Whether a model learns.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Dropout, losses, and weights that change.
    Training,
    /// Results only.
    Inference,
}

/// The function between the two products of a feed-forward layer, and in the
/// transform before the projection on the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Activation {
    /// The tanh form that PopLibs computes.
    Gelu,
    /// The erf form of models trained elsewhere.
    GeluErf,
    /// `x / (1 + exp(-1.702 x))`.
    SigmoidGelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0) - leak max(-x, 0)`.
    LeakyRelu {
        /// Slope of the negative side.
        leak: f64,
    },
}

/// Which dropouts there are when training; inference has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dropout {
    /// None at all.
    Off,
    /// Behind the embedding, the attention output and the feed-forward layer.
    Hidden,
    /// There, and on the attention probabilities.
    HiddenAndAttention,
}

/// How a row of pre-training data holds sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SequenceFormat {
    /// One, which ends where the row says.
    Single,
    /// A pack of several, each position with the number of its sequence.
    Packed {
        /// Sequences of a pack at the most, `K`; at least one.
        sequences: u32,
    },
}

/// The sizes and options of one BERT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Rows of data in one run of the graph on one replica, `B`: sequences, or packs of them.
    pub micro_batch: u32,
    /// Positions of a sequence, `S`.
    pub sequence_length: u32,
    /// How rows of `S` positions hold sequences.
    pub sequence_format: SequenceFormat,
    /// Rows of the position table, at least `S`.
    pub max_positional_length: u32,
    /// Masked words of a sequence at the most, `M`. A single sequence has them at its leading
    /// positions, with `[CLS]` at position `M`; a pack has those of all its sequences there.
    pub mask_tokens: u32,
    /// Rows of the word table, `V`.
    pub vocab_length: u32,
    /// Width of the model, `H`.
    pub hidden_size: u32,
    /// Width inside a feed-forward layer, `F`.
    pub ff_size: u32,
    /// Attention heads, `A`, which divide `H`.
    pub attention_heads: u32,
    /// Encoder layers, `L`.
    pub num_layers: u32,
    /// Whether the products of attention have biases.
    pub attention_bias: bool,
    /// Whether queries, keys and values have a weight each rather than one of `[H, 3H]`.
    pub split_qkv: bool,
    /// Whether the wide products of a layer are done in pieces of about `[H, H]`, one after the
    /// other; needs an inner width of `H` or a multiple of it.
    pub split_linear_layers: bool,
    /// Whether pre-training transforms hidden states before the projection on
    /// the vocabulary.
    pub cls_layer: bool,
    /// Whether pre-training also predicts if one sentence follows the other.
    pub next_sentence: bool,
    /// Whether the projection on the vocabulary has a bias.
    pub projection_bias: bool,
    /// Whether looking words up trains the word table.
    pub update_embedding_dict: bool,
    /// Slices of the word table, which divide `V`.
    pub vocab_steps: u32,
    /// Function between the products of a feed-forward layer.
    pub activation: Activation,
    /// Operations in training that drop elements.
    pub dropout: Dropout,
    /// Probability that a dropout drops an element, the attention's included.
    pub dropout_probability: f64,
    /// Number that is added to variances.
    pub layer_norm_epsilon: f64,
    /// Element type of weights and activations, a float.
    pub dtype: DType,
    /// Whether `f16` products have `f16` partial sums.
    pub half_partials: bool,
    /// Whether the plans of a product and its gradients share layouts (PopART,
    /// `enableFullyConnectedPass`).
    pub fully_connected_pass: bool,
    /// How losses combine samples (`gradient_reduction_type`); those of packs are sums anyway.
    pub reduction: Reduction,
    /// Whether SQuAD inference gives start and end as one tensor `[B S, 2]`.
    pub squad_single_output: bool,
    /// Whether pre-training inference also gives the loss on masked words
    /// (`inference_lm_perplexity`).
    pub inference_loss: bool,
}

impl BertConfig {
    /// BERT-Base (Devlin et al., 2019) with the application's defaults for all
    /// that is not a size.
    #[must_use]
    pub fn base() -> Self {
        Self {
            micro_batch: 1,
            sequence_length: 128,
            sequence_format: SequenceFormat::Single,
            max_positional_length: 512,
            mask_tokens: 20,
            vocab_length: 30_400,
            hidden_size: 768,
            ff_size: 4 * 768,
            attention_heads: 12,
            num_layers: 12,
            attention_bias: false,
            split_qkv: false,
            split_linear_layers: false,
            cls_layer: true,
            next_sentence: true,
            projection_bias: false,
            update_embedding_dict: true,
            vocab_steps: 1,
            activation: Activation::Gelu,
            dropout: Dropout::HiddenAndAttention,
            dropout_probability: 0.1,
            layer_norm_epsilon: 1e-3,
            dtype: DType::F16,
            half_partials: false,
            fully_connected_pass: true,
            reduction: Reduction::Sum,
            squad_single_output: true,
            inference_loss: false,
        }
    }

    /// BERT-Large (Devlin et al., 2019), else as [`BertConfig::base`].
    #[must_use]
    pub fn large() -> Self {
        Self {
            hidden_size: 1024,
            ff_size: 4 * 1024,
            attention_heads: 16,
            num_layers: 24,
            ..Self::base()
        }
    }

    /// A model of a few hundred weights in `f32`, for tests that compute it.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            micro_batch: 2,
            sequence_length: 8,
            max_positional_length: 10,
            mask_tokens: 3,
            vocab_length: 12,
            hidden_size: 4,
            ff_size: 16,
            attention_heads: 2,
            num_layers: 2,
            dtype: DType::F32,
            ..Self::base()
        }
    }

    /// Width of one attention head, `H / A`.
    #[must_use]
    pub fn head_size(&self) -> u32 {
        self.hidden_size / self.attention_heads
    }

    /// Rows of an activation, `B S`.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.micro_batch * self.sequence_length
    }

    /// Leading positions of a row that masked words are predicted at: `M`, of a pack `M + K - 1`.
    #[must_use]
    pub fn label_slots(&self) -> u32 {
        match self.sequence_format {
            SequenceFormat::Single => self.mask_tokens,
            SequenceFormat::Packed { sequences } => self.mask_tokens + (sequences - 1),
        }
    }

    /// Sequences of a row at the most: 1, of a pack `K`.
    #[must_use]
    pub fn sequences_per_row(&self) -> u32 {
        match self.sequence_format {
            SequenceFormat::Single => 1,
            SequenceFormat::Packed { sequences } => sequences,
        }
    }

    /// The type of the partial sums of matrix products.
    #[must_use]
    pub fn partials(&self) -> Partials {
        match (self.dtype, self.half_partials) {
            (DType::F16, true) => Partials::Half,
            _ => Partials::Float,
        }
    }
}

//! Which BERT: sizes, options and their rules.
//!
//! The fields are those of `BertConfig` in the published PopART application
//! (`applications/popart/bert/bert_model.py`) that shape the graph; where they
//! run is in [`crate::placement`], how they are trained in [`crate::optim`].
//! Left out: phased execution, packed sequences, and embeddings on the host.

use ipu_sim::numerics::DType;
use popart_graph::ir::{Partials, Reduction};

use crate::error::{Error, Result};

/// Largest size of a model that is accepted.
pub const EXTENT_MAX: u32 = 1 << 28;

/// What the model is for, and whether it learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Dropout, losses, and weights that change.
    Training,
    /// Results only.
    Inference,
}

/// The function between the two products of a feed-forward layer, and in the
/// transform before the projection on the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropout {
    /// None at all.
    Off,
    /// Behind the embedding, the attention output and the feed-forward layer.
    Hidden,
    /// There, and on the attention probabilities.
    HiddenAndAttention,
}

/// The sizes and options of one BERT.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Sequences in one run of the graph on one replica, `B`.
    pub micro_batch: u32,
    /// Positions of a sequence, `S`.
    pub sequence_length: u32,
    /// Rows of the position table, at least `S`.
    pub max_positional_length: u32,
    /// Leading positions that hold the masked words of pre-training, `M`; `[CLS]`
    /// is at position `M`.
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
    /// Whether the projection on the vocabulary has a bias.
    pub projection_bias: bool,
    /// Whether looking words up trains the word table.
    pub update_embedding_dict: bool,
    /// Slices of the word table, which divide `V`.
    pub vocab_steps: u32,
    /// Between the products of a feed-forward layer.
    pub activation: Activation,
    /// Which dropouts there are in training.
    pub dropout: Dropout,
    /// Of every dropout, the attention's included.
    pub dropout_probability: f64,
    /// Added to variances.
    pub layer_norm_epsilon: f64,
    /// Of weights and activations, a float.
    pub dtype: DType,
    /// Whether `f16` products have `f16` partial sums.
    pub half_partials: bool,
    /// Whether the plans of a product and its gradients share layouts (PopART,
    /// `enableFullyConnectedPass`).
    pub fully_connected_pass: bool,
    /// How losses combine samples (`gradient_reduction_type`).
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

    /// The type of the partial sums of matrix products.
    #[must_use]
    pub fn partials(&self) -> Partials {
        match (self.dtype, self.half_partials) {
            (DType::F16, true) => Partials::Half,
            _ => Partials::Float,
        }
    }

    /// Checks every rule that the fields' documentation gives.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self, task: Task) -> Result<()> {
        self.validate_sizes()?;
        if !self.hidden_size.is_multiple_of(self.attention_heads) {
            return Err(Error::Heads {
                hidden_size: self.hidden_size,
                attention_heads: self.attention_heads,
            });
        }
        if !self.vocab_length.is_multiple_of(self.vocab_steps) {
            return Err(Error::VocabSteps {
                vocab_length: self.vocab_length,
                vocab_steps: self.vocab_steps,
            });
        }
        if self.split_linear_layers && !self.ff_size.is_multiple_of(self.hidden_size) {
            return Err(Error::LinearPieces {
                hidden_size: self.hidden_size,
                ff_size: self.ff_size,
            });
        }
        if self.max_positional_length < self.sequence_length {
            return Err(Error::PositionTable {
                sequence_length: self.sequence_length,
                max_positional_length: self.max_positional_length,
            });
        }
        if matches!(task, Task::Pretraining(_)) {
            at_least_one("mask_tokens", self.mask_tokens)?;
            if self.mask_tokens >= self.sequence_length {
                return Err(Error::MaskTokens {
                    sequence_length: self.sequence_length,
                    mask_tokens: self.mask_tokens,
                });
            }
        }
        self.validate_numbers()
    }

    fn validate_sizes(&self) -> Result<()> {
        at_least_one("micro_batch", self.micro_batch)?;
        at_least_one("sequence_length", self.sequence_length)?;
        at_least_one("vocab_length", self.vocab_length)?;
        at_least_one("vocab_steps", self.vocab_steps)?;
        at_least_one("hidden_size", self.hidden_size)?;
        at_least_one("ff_size", self.ff_size)?;
        at_least_one("attention_heads", self.attention_heads)?;
        at_least_one("num_layers", self.num_layers)?;
        // Extents leave room for the padding of blocks and for three side by side.
        for (field, extent) in [
            ("micro_batch", self.micro_batch),
            ("sequence_length", self.sequence_length),
            ("max_positional_length", self.max_positional_length),
            ("vocab_length", self.vocab_length),
            ("hidden_size", self.hidden_size),
            ("ff_size", self.ff_size),
        ] {
            let value = f64::from(extent);
            in_range(extent <= EXTENT_MAX, (field, "at most 2^28", value))?;
        }
        let rows = u64::from(self.micro_batch) * u64::from(self.sequence_length);
        fits("micro_batch * sequence_length", rows)?;
        fits("3 * hidden_size", 3 * u64::from(self.hidden_size))
    }

    fn validate_numbers(&self) -> Result<()> {
        if self.dtype == DType::U32 {
            return Err(Error::NotFloat);
        }
        let probability = self.dropout_probability;
        in_range(
            (0.0..1.0).contains(&probability),
            ("dropout_probability", "at least 0 and below 1", probability),
        )?;
        let epsilon = self.layer_norm_epsilon;
        in_range(
            epsilon > 0.0 && epsilon.is_finite(),
            ("layer_norm_epsilon", "above 0", epsilon),
        )?;
        match self.activation {
            Activation::LeakyRelu { leak } => in_range(leak.is_finite(), ("leak", "finite", leak)),
            Activation::Gelu | Activation::GeluErf | Activation::SigmoidGelu | Activation::Relu => {
                Ok(())
            }
        }
    }
}

fn at_least_one(field: &'static str, value: u32) -> Result<()> {
    match value {
        0 => Err(Error::Zero { field }),
        _ => Ok(()),
    }
}

fn fits(product: &'static str, value: u64) -> Result<()> {
    match u32::try_from(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::TooLarge { product, value }),
    }
}

fn in_range(holds: bool, (field, range, value): (&'static str, &'static str, f64)) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(Error::Range {
            field,
            range,
            value,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRETRAINING: Task = Task::Pretraining(Mode::Training);
    const SQUAD: Task = Task::Squad(Mode::Inference);

    #[test]
    fn the_named_models_are_valid() {
        for config in [BertConfig::base(), BertConfig::large(), BertConfig::tiny()] {
            assert_eq!(config.validate(PRETRAINING), Ok(()));
            assert_eq!(config.validate(SQUAD), Ok(()));
        }
    }

    #[test]
    fn broken_rules_are_named() {
        #[track_caller]
        fn check(task: Task, change: impl FnOnce(&mut BertConfig), expected: &str) {
            let mut config = BertConfig::base();
            change(&mut config);
            assert_eq!(config.validate(task).unwrap_err().to_string(), expected);
        }
        check(
            SQUAD,
            |c| c.num_layers = 0,
            "`num_layers` must be at least 1",
        );
        check(
            SQUAD,
            |c| c.attention_heads = 7,
            "attention heads must divide the hidden size 768, got 7",
        );
        check(
            SQUAD,
            |c| c.vocab_steps = 7,
            "vocabulary steps must divide the vocabulary of 30400, got 7",
        );
        check(
            SQUAD,
            |c| (c.split_linear_layers, c.ff_size) = (true, 1000),
            "split linear layers need a feed-forward width of a multiple of 768, got 1000",
        );
        check(
            PRETRAINING,
            |c| c.mask_tokens = 128,
            "mask tokens must be fewer than the 128 positions of a sequence, got 128",
        );
        check(
            SQUAD,
            |c| c.sequence_length = 513,
            "the position table must have at least 513 rows, got 512",
        );
        check(
            SQUAD,
            |c| c.micro_batch = 1 << 25,
            "`micro_batch * sequence_length` must be below 2^32, got 4294967296",
        );
        check(
            SQUAD,
            |c| c.dropout_probability = 1.0,
            "`dropout_probability` must be at least 0 and below 1, got 1",
        );
        check(
            SQUAD,
            |c| c.layer_norm_epsilon = f64::NAN,
            "`layer_norm_epsilon` must be above 0, got NaN",
        );
        check(
            SQUAD,
            |c| c.dtype = DType::U32,
            "the element type must be a float",
        );
    }

    #[test]
    fn masked_words_matter_to_pretraining_only() {
        let config = BertConfig {
            mask_tokens: 500,
            ..BertConfig::base()
        };
        assert_eq!(config.validate(SQUAD), Ok(()));
    }
}

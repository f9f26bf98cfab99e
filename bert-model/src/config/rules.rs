//! What must hold for the numbers of a configuration?
//!
//! This is the only place that says so. A broken rule is a [`ConfigError`]: a [`Field`], its
//! value and the [`Rule`], so that whoever took the value from an option or a file can complain
//! in its own words. The rules follow from the shapes that the published application builds
//! (`applications/popart/bert/bert_model.py`). Left out: what fits a machine, which a compiled
//! program shows.

use std::fmt;

use ipu_sim::numerics::DType;

use super::{Activation, BertConfig, Mode, SequenceFormat, Task};

/// Largest size of a model that is accepted.
pub const EXTENT_MAX: u32 = 1 << 28;

/// Largest number of pieces of the word table: published runs have up to 5. The graph has operations
/// for every piece, and to compile them takes seconds for so many and minutes for some thousand.
pub const VOCAB_STEPS_MAX: u32 = 256;

/// Largest number of encoder layers: over twenty times the 24 of BERT-Large. The graph has some
/// hundred operations for each, and to compile a thousand takes minutes.
pub const LAYERS_MAX: u32 = 512;

/// Largest number of pieces that a split linear layer is done in: published models have four. The
/// graph has operations for every piece of every layer.
pub const PIECES_MAX: u32 = 16;

// Weights of queries, keys and values lie side by side, and blocks are padded.
const _: () = assert!(EXTENT_MAX.checked_mul(4).is_some());

/// A number of [`BertConfig`] that has a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// [`BertConfig::micro_batch`].
    MicroBatch,
    /// [`BertConfig::sequence_length`].
    SequenceLength,
    /// [`BertConfig::max_positional_length`].
    MaxPositionalLength,
    /// [`BertConfig::mask_tokens`].
    MaskTokens,
    /// [`SequenceFormat::Packed::sequences`].
    SequencesPerPack,
    /// [`BertConfig::vocab_length`].
    VocabLength,
    /// [`BertConfig::vocab_steps`].
    VocabSteps,
    /// [`BertConfig::hidden_size`].
    HiddenSize,
    /// [`BertConfig::ff_size`].
    FfSize,
    /// [`BertConfig::attention_heads`].
    AttentionHeads,
    /// [`BertConfig::num_layers`].
    NumLayers,
    /// [`Activation::LeakyRelu::leak`].
    Leak,
    /// [`BertConfig::dropout_probability`].
    DropoutProbability,
    /// [`BertConfig::layer_norm_epsilon`].
    LayerNormEpsilon,
    /// [`BertConfig::dtype`].
    Dtype,
}

/// The name of the field.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::MicroBatch => "micro_batch",
            Field::SequenceLength => "sequence_length",
            Field::MaxPositionalLength => "max_positional_length",
            Field::MaskTokens => "mask_tokens",
            Field::SequencesPerPack => "sequences",
            Field::VocabLength => "vocab_length",
            Field::VocabSteps => "vocab_steps",
            Field::HiddenSize => "hidden_size",
            Field::FfSize => "ff_size",
            Field::AttentionHeads => "attention_heads",
            Field::NumLayers => "num_layers",
            Field::Leak => "leak",
            Field::DropoutProbability => "dropout_probability",
            Field::LayerNormEpsilon => "layer_norm_epsilon",
            Field::Dtype => "dtype",
        })
    }
}

/// A size of a configuration, by its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Field that holds the size.
    pub field: Field,
    /// Value of the field.
    pub value: u32,
}

impl Size {
    fn must(self, rule: Rule, holds: bool) -> Result<(), ConfigError> {
        check(self.field, Value::Size(self.value), rule, holds)
    }
}

/// `hidden_size` 768.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.value)
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Of a size.
    Size(u32),
    /// Of any other number.
    Number(f64),
    /// Of the element type.
    Dtype(DType),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Size(value) => value.fmt(f),
            Value::Number(value) => value.fmt(f),
            Value::Dtype(dtype) => write!(f, "{dtype:?}"),
        }
    }
}

/// Rule that the value of a field must obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// This or more.
    AtLeast(u32),
    /// This or less.
    AtMost(u32),
    /// Another size or less.
    NoMoreThan(Size),
    /// Less than another size.
    Below(Size),
    /// A multiple of another size.
    MultipleOf(Size),
    /// A divisor of another size.
    DivisorOf(Size),
    /// So small that the product with another size fits 32 bits.
    ProductFits(Size),
    /// From 0 to below 1.
    Probability,
    /// Above 0, and finite.
    Positive,
    /// Any number but an infinite one.
    Finite,
    /// A type of floating-point numbers.
    Float,
    /// There only when pre-training trains.
    OnlyPretraining,
}

/// `a multiple of ...`, as it follows "must be".
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::AtLeast(least) => write!(f, "at least {least}"),
            Rule::AtMost(most) => write!(f, "at most {most}"),
            Rule::NoMoreThan(size) => write!(f, "at most {size}"),
            Rule::Below(size) => write!(f, "below {size}"),
            Rule::MultipleOf(size) => write!(f, "a multiple of {size}"),
            Rule::DivisorOf(size) => write!(f, "a divisor of {size}"),
            Rule::ProductFits(size) => write!(f, "below 2^32 when multiplied with {size}"),
            Rule::Probability => f.write_str("at least 0 and below 1"),
            Rule::Positive => f.write_str("above 0"),
            Rule::Finite => f.write_str("finite"),
            Rule::Float => f.write_str("a floating-point type"),
            Rule::OnlyPretraining => f.write_str("left out unless pre-training trains"),
        }
    }
}

/// A rule of a configuration that doesn't hold.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("`{field}` must be {rule}, got {value}")]
pub struct ConfigError {
    /// Field that would have to change.
    pub field: Field,
    /// Rule that the field must obey.
    pub rule: Rule,
    /// Value that the field has.
    pub value: Value,
}

fn check(field: Field, value: Value, rule: Rule, holds: bool) -> Result<(), ConfigError> {
    match holds {
        true => Ok(()),
        false => Err(ConfigError { field, rule, value }),
    }
}

impl BertConfig {
    /// Checks every rule of a model for `task`.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self, task: Task) -> Result<(), ConfigError> {
        let size = |field, value| Size { field, value };
        let micro_batch = size(Field::MicroBatch, self.micro_batch);
        let sequence = size(Field::SequenceLength, self.sequence_length);
        let positions = size(Field::MaxPositionalLength, self.max_positional_length);
        let vocabulary = size(Field::VocabLength, self.vocab_length);
        let steps = size(Field::VocabSteps, self.vocab_steps);
        let hidden = size(Field::HiddenSize, self.hidden_size);
        let ff = size(Field::FfSize, self.ff_size);
        let heads = size(Field::AttentionHeads, self.attention_heads);
        let layers = size(Field::NumLayers, self.num_layers);

        let extents = [micro_batch, sequence, positions, vocabulary, hidden, ff];
        for size in extents.into_iter().chain([steps, heads, layers]) {
            size.must(Rule::AtLeast(1), size.value >= 1)?;
        }
        for size in extents {
            size.must(Rule::AtMost(EXTENT_MAX), size.value <= EXTENT_MAX)?;
        }
        for (size, most) in [(steps, VOCAB_STEPS_MAX), (layers, LAYERS_MAX)] {
            size.must(Rule::AtMost(most), size.value <= most)?;
        }
        let rows = micro_batch.value.checked_mul(sequence.value);
        micro_batch.must(Rule::ProductFits(sequence), rows.is_some())?;

        let of_heads = hidden.value.is_multiple_of(heads.value);
        hidden.must(Rule::MultipleOf(heads), of_heads)?;
        let has_rows = sequence.value <= positions.value;
        sequence.must(Rule::NoMoreThan(positions), has_rows)?;
        if matches!(task, Task::Pretraining(_)) {
            // `[CLS]` stands behind the masked words.
            let masked = size(Field::MaskTokens, self.mask_tokens);
            masked.must(Rule::AtLeast(1), masked.value >= 1)?;
            masked.must(Rule::Below(sequence), masked.value < sequence.value)?;
        }
        if let SequenceFormat::Packed { sequences } = self.sequence_format {
            let packed = size(Field::SequencesPerPack, sequences);
            let trains = task == Task::Pretraining(Mode::Training);
            packed.must(Rule::OnlyPretraining, trains)?;
            packed.must(Rule::AtLeast(1), sequences >= 1)?;
            // All label slots are positions, and so are all `[CLS]`.
            let most = self.sequence_length - self.mask_tokens + 1;
            packed.must(Rule::AtMost(most), sequences <= most)?;
        }
        let divides = vocabulary.value.is_multiple_of(steps.value);
        steps.must(Rule::DivisorOf(vocabulary), divides)?;
        if self.split_linear_layers {
            let of_pieces = ff.value.is_multiple_of(hidden.value);
            ff.must(Rule::MultipleOf(hidden), of_pieces)?;
            let most = hidden.value.saturating_mul(PIECES_MAX);
            ff.must(Rule::AtMost(most), ff.value <= most)?;
        }
        self.validate_numbers()
    }

    fn validate_numbers(&self) -> Result<(), ConfigError> {
        let number = |field, value, rule, holds| check(field, Value::Number(value), rule, holds);
        let dropout = self.dropout_probability;
        let is_probability = (0.0..1.0).contains(&dropout);
        number(
            Field::DropoutProbability,
            dropout,
            Rule::Probability,
            is_probability,
        )?;
        let epsilon = self.layer_norm_epsilon;
        let is_positive = epsilon > 0.0 && epsilon.is_finite();
        number(
            Field::LayerNormEpsilon,
            epsilon,
            Rule::Positive,
            is_positive,
        )?;
        if let Activation::LeakyRelu { leak } = self.activation {
            number(Field::Leak, leak, Rule::Finite, leak.is_finite())?;
        }
        let is_float = self.dtype != DType::U32;
        check(
            Field::Dtype,
            Value::Dtype(self.dtype),
            Rule::Float,
            is_float,
        )
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

    #[track_caller]
    fn check_broken(change: impl FnOnce(&mut BertConfig), expected: &str) {
        let mut config = BertConfig::base();
        change(&mut config);
        let error = config.validate(PRETRAINING).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn sizes_of_zero_and_beyond_the_largest_are_refused() {
        type Change = fn(&mut BertConfig, u32);
        let extents: [(&str, Change); 6] = [
            ("micro_batch", |c, n| c.micro_batch = n),
            ("sequence_length", |c, n| c.sequence_length = n),
            ("max_positional_length", |c, n| c.max_positional_length = n),
            ("vocab_length", |c, n| c.vocab_length = n),
            ("hidden_size", |c, n| c.hidden_size = n),
            ("ff_size", |c, n| c.ff_size = n),
        ];
        for (name, change) in extents {
            let zero = format!("`{name}` must be at least 1, got 0");
            check_broken(|config| change(config, 0), &zero);
            let large = format!("`{name}` must be at most 268435456, got 268435457");
            check_broken(|config| change(config, EXTENT_MAX + 1), &large);
        }
        let counts: [(&str, Change); 4] = [
            ("vocab_steps", |c, n| c.vocab_steps = n),
            ("attention_heads", |c, n| c.attention_heads = n),
            ("num_layers", |c, n| c.num_layers = n),
            ("mask_tokens", |c, n| c.mask_tokens = n),
        ];
        for (name, change) in counts {
            let zero = format!("`{name}` must be at least 1, got 0");
            check_broken(|config| change(config, 0), &zero);
        }
        check_broken(
            |c| c.num_layers = LAYERS_MAX + 1,
            "`num_layers` must be at most 512, got 513",
        );
        check_broken(
            |c| (c.split_linear_layers, c.ff_size) = (true, 17 * 768),
            "`ff_size` must be at most 12288, got 13056",
        );
        check_broken(
            |c| c.vocab_steps = 30_400,
            "`vocab_steps` must be at most 256, got 30400",
        );
        check_broken(
            |c| c.micro_batch = 1 << 25,
            "`micro_batch` must be below 2^32 when multiplied with `sequence_length` 128, \
             got 33554432",
        );
    }

    #[test]
    fn sizes_that_do_not_go_together_are_refused() {
        check_broken(
            |c| c.attention_heads = 7,
            "`hidden_size` must be a multiple of `attention_heads` 7, got 768",
        );
        check_broken(
            |c| c.sequence_length = 513,
            "`sequence_length` must be at most `max_positional_length` 512, got 513",
        );
        check_broken(
            |c| c.mask_tokens = 128,
            "`mask_tokens` must be below `sequence_length` 128, got 128",
        );
        check_broken(
            |c| c.vocab_steps = 7,
            "`vocab_steps` must be a divisor of `vocab_length` 30400, got 7",
        );
        check_broken(
            |c| (c.split_linear_layers, c.ff_size) = (true, 1000),
            "`ff_size` must be a multiple of `hidden_size` 768, got 1000",
        );
    }

    #[test]
    fn packs_are_of_as_many_sequences_as_have_room() {
        let packed = |sequences| SequenceFormat::Packed { sequences };
        let most = BertConfig {
            sequence_format: packed(109),
            ..BertConfig::base()
        };
        assert_eq!(most.validate(PRETRAINING), Ok(()));
        assert_eq!(most.label_slots(), 128);
        check_broken(
            |c| c.sequence_format = packed(0),
            "`sequences` must be at least 1, got 0",
        );
        check_broken(
            |c| c.sequence_format = packed(110),
            "`sequences` must be at most 109, got 110",
        );
        for task in [SQUAD, Task::Pretraining(Mode::Inference)] {
            let error = most.validate(task).unwrap_err().to_string();
            let expected = "`sequences` must be left out unless pre-training trains, got 109";
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (bad, shown) in [(1.0, "1"), (-0.1, "-0.1"), (f64::NAN, "NaN")] {
            let expected =
                format!("`dropout_probability` must be at least 0 and below 1, got {shown}");
            check_broken(|c| c.dropout_probability = bad, &expected);
        }
        for (bad, shown) in [(0.0, "0"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
            let expected = format!("`layer_norm_epsilon` must be above 0, got {shown}");
            check_broken(|c| c.layer_norm_epsilon = bad, &expected);
        }
        check_broken(
            |c| {
                c.activation = Activation::LeakyRelu {
                    leak: f64::INFINITY,
                }
            },
            "`leak` must be finite, got inf",
        );
        check_broken(
            |c| c.dtype = DType::U32,
            "`dtype` must be a floating-point type, got U32",
        );
    }

    #[test]
    fn masked_words_matter_to_pretraining_only() {
        for mask_tokens in [0, 500] {
            let config = BertConfig {
                mask_tokens,
                ..BertConfig::base()
            };
            assert_eq!(config.validate(SQUAD), Ok(()));
        }
    }

    #[test]
    fn a_broken_rule_tells_its_facts() {
        let config = BertConfig {
            vocab_steps: 7,
            ..BertConfig::base()
        };
        let vocabulary = Size {
            field: Field::VocabLength,
            value: 30_400,
        };
        let error = ConfigError {
            field: Field::VocabSteps,
            rule: Rule::DivisorOf(vocabulary),
            value: Value::Size(7),
        };
        assert_eq!(config.validate(PRETRAINING), Err(error));
    }
}

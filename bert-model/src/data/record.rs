//! What does a file of pre-training records feed a model with?
//!
//! How a record lies in a file says [`RecordLayout`], of packs [`PackLayout`].
//!
//! Left out: choosing which records of a file make a step (shuffling, copies, epochs).

use std::ops::Range;

use super::MicroBatch;
use super::error::DataError;
use super::layout::{Field, RecordLayout};
use super::pack::{PackField, PackForm, PackLayout};
use super::rows;
use crate::config::{BertConfig, SequenceFormat};
use crate::interface::Input;
use crate::model::BertModel;

/// What the application's loader puts in place of a word id outside the vocabulary; in
/// Google's vocabularies it is `[UNK]`.
const UNKNOWN_WORD: u32 = 100;
/// What it puts in place of a label outside the vocabulary; such a label isn't counted.
const NO_LABEL: u32 = 0;

/// Form of the rows of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowLayout {
    Record(RecordLayout),
    Pack(PackLayout),
}

impl RowLayout {
    /// The form that a model of this configuration reads.
    fn of(config: &BertConfig) -> Self {
        let (sequence_length, mask_tokens) = (config.sequence_length, config.mask_tokens);
        match config.sequence_format {
            SequenceFormat::Single => Self::Record(RecordLayout {
                sequence_length,
                mask_tokens,
            }),
            SequenceFormat::Packed { sequences } => Self::Pack(PackLayout {
                sequence_length,
                mask_tokens,
                sequences,
                form: PackForm::Slices,
            }),
        }
    }

    fn values(self) -> usize {
        match self {
            Self::Record(layout) => layout.values(),
            Self::Pack(layout) => layout.values(),
        }
    }

    fn rows_in(self, bytes: u64) -> Result<u64, DataError> {
        match self {
            Self::Record(layout) => layout.records_in(bytes),
            Self::Pack(layout) => layout.packs_in(bytes),
        }
    }

    /// Where a row holds what feeds an input, if it does.
    fn field(self, input: Input) -> Option<Range<usize>> {
        match self {
            Self::Record(layout) => field_of(input).map(|field| layout.field(field)),
            Self::Pack(layout) => layout.field(pack_field_of(input)?),
        }
    }
}

/// Rows of a data set, all of one form: records or packs, as the model reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    layout: RowLayout,
    /// Row after row.
    values: Vec<u32>,
}

impl Records {
    /// The records in the bytes of a file, for a model of this configuration.
    ///
    /// # Errors
    ///
    /// [`DataError::RecordLength`] if the bytes end within a record.
    pub fn from_bytes(bytes: &[u8], config: &BertConfig) -> Result<Self, DataError> {
        let layout = RowLayout::of(config);
        layout.rows_in(bytes.len() as u64)?;
        let values = rows::read(bytes);
        Ok(Self { layout, values })
    }

    /// How many records there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.len() / self.layout.values()
    }

    /// The micro-batch that starts with record `first`, for every stream of `model`, which was
    /// built from `config`; none if fewer records than a micro-batch are left.
    ///
    /// Words and labels outside the vocabulary are replaced as the application does.
    ///
    /// # Panics
    ///
    /// If the model has streams that no pre-training record feeds.
    #[must_use]
    pub fn micro_batch(
        &self,
        model: &BertModel,
        config: &BertConfig,
        first: usize,
        seed: [u32; 2],
    ) -> Option<MicroBatch> {
        let length = self.layout.values();
        let end = first.checked_add(config.micro_batch as usize)?;
        let rows = first.checked_mul(length)?..end.checked_mul(length)?;
        let rows = self.values.get(rows)?;
        let values = |input: Input| {
            let Some(field) = self.layout.field(input) else {
                assert_eq!(input, Input::Seed, "no pre-training record feeds it");
                return seed.to_vec();
            };
            let fields = rows.chunks_exact(length).map(|row| &row[field.clone()]);
            fields
                .flatten()
                .map(|&value| within_vocabulary(self.layout, input, value, config.vocab_length))
                .collect()
        };
        let streams = model.inputs.iter();
        let batch = streams.map(|info| (info.tensor, values(info.input)));
        Some(batch.collect())
    }
}

/// What of a record feeds an input, if it does.
fn field_of(input: Input) -> Option<Field> {
    match input {
        Input::Indices => Some(Field::Words),
        Input::Positions => Some(Field::Positions),
        Input::Segments => Some(Field::Segments),
        Input::MaskTokensIndex => Some(Field::Masked),
        Input::SequenceIndex => Some(Field::End),
        Input::MaskLabels => Some(Field::Labels),
        Input::NspLabels => Some(Field::RandomNext),
        Input::SequenceNumbers
        | Input::MaskWeights
        | Input::NspWeights
        | Input::SequencePadIndex
        | Input::StartLabels
        | Input::EndLabels
        | Input::Seed => None,
    }
}

/// What of a pack feeds an input, if it does.
pub(super) fn pack_field_of(input: Input) -> Option<PackField> {
    match input {
        Input::Indices => Some(PackField::Words),
        Input::SequenceNumbers => Some(PackField::Numbers),
        Input::Segments => Some(PackField::Segments),
        Input::Positions => Some(PackField::Positions),
        Input::MaskLabels => Some(PackField::Labels),
        Input::MaskWeights => Some(PackField::LabelNumbers),
        Input::NspLabels => Some(PackField::RandomNext),
        Input::NspWeights => Some(PackField::NextWeights),
        Input::MaskTokensIndex
        | Input::SequenceIndex
        | Input::SequencePadIndex
        | Input::StartLabels
        | Input::EndLabels
        | Input::Seed => None,
    }
}

/// The application's loader looks at the words and at the sixth item of a row. In packs that is
/// what labels weigh, so that their labels stay as they are.
fn within_vocabulary(layout: RowLayout, input: Input, value: u32, vocab_length: u32) -> u32 {
    let sixth = match layout {
        RowLayout::Record(_) => Input::MaskLabels,
        RowLayout::Pack(_) => Input::MaskWeights,
    };
    match input {
        Input::Indices if value >= vocab_length => UNKNOWN_WORD,
        _ if input == sixth && value >= vocab_length => NO_LABEL,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, Task};
    use crate::data::generated;
    use crate::init::generator;
    use crate::model::build;
    use crate::placement::tests::on_one_ipu;

    /// The inputs in the order of a record.
    const FIELDS: [Input; 7] = [
        Input::Indices,
        Input::Positions,
        Input::Segments,
        Input::MaskTokensIndex,
        Input::SequenceIndex,
        Input::MaskLabels,
        Input::NspLabels,
    ];

    fn model(config: &BertConfig) -> BertModel {
        let task = Task::Pretraining(Mode::Training);
        build(config, &on_one_ipu(config.num_layers, task), task).unwrap()
    }

    fn get(model: &BertModel, batch: &MicroBatch, input: Input) -> Vec<u32> {
        let tensor = model.input(input).unwrap();
        let (_, values) = batch.iter().find(|(id, _)| *id == tensor).unwrap();
        values.clone()
    }

    /// A micro-batch as the bytes of a file, value by value.
    fn bytes_of(model: &BertModel, config: &BertConfig, batch: &MicroBatch) -> Vec<u8> {
        let samples = config.micro_batch as usize;
        let mut bytes = Vec::new();
        for sample in 0..samples {
            for input in FIELDS {
                let values = get(model, batch, input);
                let each = values.len() / samples;
                for value in &values[sample * each..(sample + 1) * each] {
                    bytes.extend(value.to_le_bytes());
                }
            }
        }
        bytes
    }

    #[test]
    fn what_is_written_as_records_is_read_back() {
        let config = BertConfig::tiny();
        let model = model(&config);
        let task = Task::Pretraining(Mode::Training);
        let mut generator = generator(5, "records");
        let batches = [(); 3].map(|()| generated(&model, &config, task, &mut generator));
        let mut bytes = vec![0]; // so that the records don't start at a multiple of 4
        for batch in &batches {
            bytes.extend(bytes_of(&model, &config, batch));
        }
        let records = Records::from_bytes(&bytes[1..], &config).unwrap();
        let each = config.micro_batch as usize;
        assert_eq!(records.count(), 3 * each);
        for (number, batch) in batches.iter().enumerate() {
            let read = records
                .micro_batch(&model, &config, number * each, [8, 9])
                .unwrap();
            for input in FIELDS {
                assert_eq!(get(&model, &read, input), get(&model, batch, input));
            }
            if let Some(seed) = model.input(Input::Seed) {
                assert!(read.contains(&(seed, vec![8, 9])));
            }
        }
        let past_the_end = 2 * each + 1;
        assert_eq!(
            records.micro_batch(&model, &config, past_the_end, [0, 0]),
            None
        );
    }

    /// Packs of a file feed every stream that generated ones do, in the order of their fields.
    #[test]
    fn packs_are_read_back() {
        let config = BertConfig {
            sequence_format: SequenceFormat::Packed { sequences: 3 },
            sequence_length: 12,
            max_positional_length: 12,
            ..BertConfig::tiny()
        };
        let model = model(&config);
        let task = Task::Pretraining(Mode::Training);
        let batch = generated(&model, &config, task, &mut generator(5, "packs"));
        let mut bytes = Vec::new();
        for sample in 0..config.micro_batch as usize {
            // The streams are in the order of a pack, and the seed is last.
            for info in model.inputs.iter().filter(|info| info.input != Input::Seed) {
                let values = get(&model, &batch, info.input);
                let each = values.len() / config.micro_batch as usize;
                let values = &values[sample * each..(sample + 1) * each];
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        let records = Records::from_bytes(&bytes, &config).unwrap();
        assert_eq!(records.count(), config.micro_batch as usize);
        let read = records.micro_batch(&model, &config, 0, [8, 9]).unwrap();
        for info in model.inputs.iter().filter(|info| info.input != Input::Seed) {
            let input = info.input;
            assert_eq!(get(&model, &read, input), get(&model, &batch, input));
        }
    }

    #[test]
    fn bytes_of_half_a_record_are_refused() {
        let config = BertConfig {
            sequence_length: 128,
            mask_tokens: 20,
            ..BertConfig::tiny()
        };
        let error = Records::from_bytes(&[0; 1630], &config).unwrap_err();
        let (record_bytes, got) = (1628, 1630);
        assert_eq!(error, DataError::RecordLength { record_bytes, got });
        assert_eq!(Records::from_bytes(&[], &config).unwrap().count(), 0);
    }

    #[test]
    fn words_outside_the_vocabulary_are_replaced() {
        let layout = |sequence_format| {
            RowLayout::of(&BertConfig {
                sequence_format,
                ..BertConfig::base()
            })
        };
        let single = layout(SequenceFormat::Single);
        let packed = layout(SequenceFormat::Packed { sequences: 3 });
        for (input, expected) in [
            (Input::Indices, 100),
            (Input::MaskLabels, 1000),
            (Input::MaskWeights, 0),
        ] {
            assert_eq!(within_vocabulary(packed, input, 1000, 1000), expected);
        }
        let check = |input, value, expected| {
            assert_eq!(within_vocabulary(single, input, value, 1000), expected);
        };
        check(Input::Indices, 999, 999);
        check(Input::Indices, 1000, 100);
        check(Input::MaskLabels, 999, 999);
        check(Input::MaskLabels, 1000, 0);
        check(Input::Positions, 1000, 1000);
    }
}

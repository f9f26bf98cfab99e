//! Random micro-batches that keep the rules of real ones.
//!
//! Values are uniform over what a record of the published data set may hold
//! (`applications/popart/bert/bert_data`): a sequence starts with up to `M` masked
//! words at the first positions, `[CLS]` is at position `M`, and what lies behind
//! the sequence is padding. Unlike the application's generated data, no label is
//! outside its classes and no sequence is empty. Packs are of one to `K` sequences, each with a
//! next-sentence label that counts, where the application's have numbers without an order and no
//! such label.

use popart_graph::ir::TensorId;
use rand_xoshiro::rand_core::Rng;

use super::layout::Token;
use super::pack::{Pack, PackForm, PackLayout, Sequence};
use super::random::draw;
use super::record::pack_field_of;
use crate::config::{BertConfig, SequenceFormat, Task};
use crate::interface::Input;
use crate::model::BertModel;

/// Values of all streams of a model, row-major.
pub type MicroBatch = Vec<(TensorId, Vec<u32>)>;

/// One micro-batch for every stream of `model`, which was built from `config`.
#[must_use]
pub fn generated(
    model: &BertModel,
    config: &BertConfig,
    task: Task,
    generator: &mut impl Rng,
) -> MicroBatch {
    let of_rows: Box<dyn Fn(Input) -> Vec<u32>> = match config.sequence_format {
        SequenceFormat::Single => {
            let samples: Vec<Sample> = (0..config.micro_batch)
                .map(|_| Sample::draw(config, task, generator))
                .collect();
            Box::new(move |input| {
                let each = samples.iter().map(|sample| sample.values(input));
                each.collect::<Vec<_>>().concat()
            })
        }
        SequenceFormat::Packed { sequences } => {
            let packs: Vec<Pack> = (0..config.micro_batch)
                .map(|_| draw_pack(config, sequences, generator))
                .collect();
            Box::new(move |input| {
                let field = pack_field_of(input);
                let field = field.expect("a model of packs reads packs");
                let each = packs.iter().map(|pack| pack.get(field));
                each.collect::<Vec<_>>().concat()
            })
        }
    };
    let seed = [draw(generator, 0..=u32::MAX), draw(generator, 0..=u32::MAX)];
    let values = |input: Input| match input {
        Input::Seed => seed.to_vec(),
        _ => of_rows(input),
    };
    let streams = model.inputs.iter();
    streams
        .map(|info| (info.tensor, values(info.input)))
        .collect()
}

/// A pack of up to `most` sequences.
fn draw_pack(config: &BertConfig, most: u32, generator: &mut impl Rng) -> Pack {
    let layout = PackLayout {
        sequence_length: config.sequence_length,
        mask_tokens: config.mask_tokens,
        sequences: most,
        form: PackForm::Slices,
    };
    let count = draw(generator, 1..=most.min(config.sequence_length));
    let (mut words_left, mut slots_left) = (config.sequence_length, layout.label_slots());
    let sequences = (0..count).rev().map(|later| {
        // A word at the least for each of those that come later.
        let length = draw(generator, 1..=words_left - later);
        words_left -= length;
        let masked_most = config.mask_tokens.min(length - 1).min(slots_left);
        let masked = draw(generator, 0..=masked_most);
        slots_left -= masked;
        draw_sequence(config, length, masked, generator)
    });
    let sequences: Vec<Sequence> = sequences.collect();
    Pack::of(layout, &sequences).expect("as much was drawn as there is room for")
}

/// A sequence of so many words, the last of them masked.
fn draw_sequence(
    config: &BertConfig,
    length: u32,
    masked: u32,
    generator: &mut impl Rng,
) -> Sequence {
    let last = config.vocab_length - 1;
    let tokens = (0..length).map(|position| {
        let word = draw(generator, 0..=last);
        // Label 0 says that there is none.
        let label = draw(generator, last.min(1)..=last);
        Token {
            position,
            word,
            segment: draw(generator, 0..=1),
            label: (position >= length - masked).then_some(label),
        }
    });
    Sequence {
        tokens: tokens.collect(),
        random_next: draw(generator, 0..=1),
    }
}

/// One sequence with its labels.
struct Sample {
    indices: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<u32>,
    /// Masked words, and where real positions end.
    mask_tokens_index: u32,
    sequence_index: u32,
    mask_labels: Vec<u32>,
    nsp_label: u32,
    answer: (u32, u32),
}

impl Sample {
    fn draw(config: &BertConfig, task: Task, generator: &mut impl Rng) -> Self {
        let length = config.sequence_length;
        let words = 0..=config.vocab_length - 1;
        let masked_max = match task {
            Task::Pretraining(_) => config.mask_tokens,
            Task::Squad(_) => 0,
        };
        let masked = draw(generator, 0..=masked_max);
        // `[CLS]` at the least.
        let end = draw(generator, masked_max + 1..=length);
        let is_real = |slot: u32| (slot < masked || slot >= masked_max) && slot < end;

        let mut sample = Self {
            indices: vec![],
            positions: vec![],
            segments: vec![],
            mask_tokens_index: masked,
            sequence_index: end,
            mask_labels: vec![],
            nsp_label: draw(generator, 0..=1),
            answer: (0, 0),
        };
        let padding_position = length.min(config.max_positional_length - 1);
        for slot in 0..length {
            let word = draw(generator, words.clone());
            let segment = draw(generator, 0..=1);
            let position = match task {
                Task::Pretraining(_) => draw(generator, 0..=length - 1),
                Task::Squad(_) => slot,
            };
            let real = is_real(slot);
            sample.indices.push(if real { word } else { 0 });
            sample.segments.push(if real { segment } else { 0 });
            sample
                .positions
                .push(if real { position } else { padding_position });
        }
        for slot in 0..masked_max {
            let label = draw(generator, words.clone());
            sample
                .mask_labels
                .push(if slot < masked { label } else { 0 });
        }
        let start = draw(generator, 0..=end - 1);
        sample.answer = (start, draw(generator, start..=end - 1));
        sample
    }

    fn values(&self, input: Input) -> Vec<u32> {
        match input {
            Input::Indices => self.indices.clone(),
            Input::Positions => self.positions.clone(),
            Input::Segments => self.segments.clone(),
            Input::MaskTokensIndex => vec![self.mask_tokens_index],
            Input::SequenceIndex | Input::SequencePadIndex => vec![self.sequence_index],
            Input::MaskLabels => self.mask_labels.clone(),
            Input::NspLabels => vec![self.nsp_label],
            Input::StartLabels => vec![self.answer.0],
            Input::EndLabels => vec![self.answer.1],
            Input::SequenceNumbers | Input::MaskWeights | Input::NspWeights | Input::Seed => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::init::generator;
    use crate::model::build;
    use crate::placement::tests::on_one_ipu;

    /// Checks `rule` on each of a hundred samples, given by a look-up of its values.
    #[track_caller]
    fn check(task: Task, rule: impl Fn(&BertConfig, &dyn Fn(Input) -> Vec<u32>)) {
        let config = BertConfig::tiny();
        let placement = on_one_ipu(config.num_layers, task);
        let model = build(&config, &placement, task).unwrap();
        let mut generator = generator(7, "test");
        for _ in 0..50 {
            let batch = generated(&model, &config, task, &mut generator);
            for (tensor, values) in &batch {
                let expected = model.graph.tensors[*tensor].shape.elements().0;
                assert_eq!(values.len() as u64, expected);
            }
            for sample in 0..config.micro_batch as usize {
                rule(&config, &|input| {
                    let tensor = model.input(input).unwrap();
                    let (_, values) = batch.iter().find(|(id, _)| *id == tensor).unwrap();
                    let each = values.len() / config.micro_batch as usize;
                    values[sample * each..(sample + 1) * each].to_vec()
                });
            }
        }
    }

    #[test]
    fn pretraining_samples_keep_the_rules_of_records() {
        check(Task::Pretraining(Mode::Training), |config, get| {
            let masked = get(Input::MaskTokensIndex)[0];
            let end = get(Input::SequenceIndex)[0];
            assert!(masked <= config.mask_tokens);
            assert!(end > config.mask_tokens && end <= config.sequence_length);
            assert!(
                get(Input::Indices)
                    .iter()
                    .all(|&word| word < config.vocab_length)
            );
            let table = config.max_positional_length;
            assert!(
                get(Input::Positions)
                    .iter()
                    .all(|&position| position < table)
            );
            assert!(get(Input::Segments).iter().all(|&segment| segment <= 1));
            assert!(get(Input::NspLabels)[0] <= 1);
            let labels = get(Input::MaskLabels);
            assert!(labels.iter().all(|&word| word < config.vocab_length));
            assert!(labels[masked as usize..].iter().all(|&label| label == 0));
            assert!(
                get(Input::Indices)[end as usize..]
                    .iter()
                    .all(|&word| word == 0)
            );
        });
    }

    #[test]
    fn answers_lie_within_their_sequence() {
        check(Task::Squad(Mode::Training), |config, get| {
            let end = get(Input::SequencePadIndex)[0];
            let (from, to) = (get(Input::StartLabels)[0], get(Input::EndLabels)[0]);
            assert!(from <= to && to < end && end <= config.sequence_length);
            let positions = get(Input::Positions);
            let padding = config.sequence_length;
            for (slot, &position) in (0..).zip(&positions) {
                assert_eq!(position, if slot < end { slot } else { padding });
            }
        });
    }
}

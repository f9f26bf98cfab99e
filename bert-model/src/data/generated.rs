//! Random micro-batches that keep the rules of real ones.
//!
//! Values are uniform over what a record of the published data set may hold
//! (`applications/popart/bert/bert_data`): a sequence starts with up to `M` masked
//! words at the first positions, `[CLS]` is at position `M`, and what lies behind
//! the sequence is padding. Unlike the application's generated data, no label is
//! outside its classes and no sequence is empty.

use popart_graph::ir::TensorId;
use rand_xoshiro::rand_core::Rng;

use super::random::draw;
use crate::config::{BertConfig, Task};
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
    let samples: Vec<Sample> = (0..config.micro_batch)
        .map(|_| Sample::draw(config, task, generator))
        .collect();
    let seed = [draw(generator, 0..=u32::MAX), draw(generator, 0..=u32::MAX)];
    let values = |input: Input| match input {
        Input::Seed => seed.to_vec(),
        _ => samples
            .iter()
            .flat_map(|sample| sample.values(input))
            .collect(),
    };
    let streams = model.inputs.iter();
    streams
        .map(|info| (info.tensor, values(info.input)))
        .collect()
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
            Input::Seed => vec![],
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

//! How many weights a model has, and how much work a sequence is.

use ipu_sim::units::{Elements, Flops};

use crate::config::{BertConfig, Task};

/// Weights of a model: elements of all its variables.
#[must_use]
pub fn parameters(config: &BertConfig, task: Task) -> Elements {
    let n = u64::from;
    let (h, f, v) = (
        n(config.hidden_size),
        n(config.ff_size),
        n(config.vocab_length),
    );
    let norm = 2 * h;
    let embedding = v * h + n(config.max_positional_length) * h + 2 * h + norm;
    let attention_biases = match config.attention_bias {
        true => 4 * h,
        false => 0,
    };
    let layer = 4 * h * h + attention_biases + 2 * h * f + f + h + 2 * norm;
    let heads = match task {
        Task::Squad(_) => 2 * h + 2,
        Task::Pretraining(_) => {
            let transform = match config.cls_layer {
                true => h * h + h + norm,
                false => 0,
            };
            let projection_bias = match config.projection_bias {
                true => v,
                false => 0,
            };
            let next_sentence = match config.next_sentence {
                true => h * h + h + 2 * h + 2,
                false => 0,
            };
            next_sentence + transform + projection_bias
        }
    };
    Elements(embedding + n(config.num_layers) * layer + heads)
}

/// Work in matrix products of one row of data (a sequence, or a pack of several), forward. A multiply-add is two;
/// element-wise work and look-ups don't count.
#[must_use]
pub fn flops_forward(config: &BertConfig, task: Task) -> Flops {
    let n = u64::from;
    let (h, f, s) = (
        n(config.hidden_size),
        n(config.ff_size),
        n(config.sequence_length),
    );
    let layer = 8 * s * h * h + 4 * s * s * h + 4 * s * h * f;
    let segments = 4 * s * h;
    let heads = match task {
        Task::Squad(_) => 4 * s * h,
        Task::Pretraining(_) => {
            let transform = match config.cls_layer {
                true => 2 * s * h * h,
                false => 0,
            };
            let projection = 2 * n(config.label_slots()) * h * n(config.vocab_length);
            let next_sentence = match config.next_sentence {
                true => (2 * h * h + 4 * h) * n(config.sequences_per_row()),
                false => 0,
            };
            next_sentence + transform + projection
        }
    };
    Flops(n(config.num_layers) * layer + segments + heads)
}

/// Work in matrix products of one row of data, forward and backward: every product
/// has two gradients of its size. What is computed again doesn't count.
#[must_use]
pub fn flops_training(config: &BertConfig, task: Task) -> Flops {
    flops_forward(config, task) * 3
}

#[cfg(test)]
mod tests {
    use popart_graph::flops;
    use popart_graph::ir::TensorKind;

    use super::*;
    use crate::config::{Mode, SequenceFormat};
    use crate::model::build;
    use crate::placement::tests::on_one_ipu;

    const PRETRAINING: Task = Task::Pretraining(Mode::Training);
    const SQUAD: Task = Task::Squad(Mode::Training);

    /// `config` with another sequence length, micro-batch and so on.
    fn sized(config: BertConfig, sequence_length: u32, mask_tokens: u32) -> BertConfig {
        BertConfig {
            sequence_length,
            mask_tokens,
            micro_batch: 2,
            ..config
        }
    }

    /// Closed forms equal the graph's own count.
    #[track_caller]
    fn check(config: &BertConfig, task: Task) {
        let model = build(config, &on_one_ipu(config.num_layers, task), task).unwrap();
        let variables = model.graph.tensors.values();
        let elements = variables
            .filter(|tensor| matches!(tensor.kind, TensorKind::Variable { .. }))
            .map(|tensor| tensor.shape.elements())
            .sum();
        assert_eq!(parameters(config, task), elements);
        let listed = model.weights.iter();
        let listed: Elements = listed
            .map(|weight| model.graph.tensors[weight.tensor].shape.elements())
            .sum();
        assert_eq!(elements, listed);
        let work = flops::of_graph(&model.graph).matmul_flops;
        let expected = flops_forward(config, task) * u64::from(config.micro_batch);
        assert_eq!(work, expected);
    }

    #[test]
    fn closed_forms_equal_the_graph() {
        let with_all = BertConfig {
            attention_bias: true,
            projection_bias: true,
            vocab_steps: 4,
            ff_size: 12,
            ..BertConfig::tiny()
        };
        let without = BertConfig {
            split_qkv: true,
            cls_layer: false,
            next_sentence: false,
            ..BertConfig::tiny()
        };
        let packed = BertConfig {
            sequence_format: SequenceFormat::Packed { sequences: 3 },
            ..BertConfig::tiny()
        };
        check(&packed, PRETRAINING);
        for config in [BertConfig::base(), BertConfig::large(), with_all, without] {
            for mode in [Mode::Training, Mode::Inference] {
                check(&config, Task::Pretraining(mode));
                check(&config, Task::Squad(mode));
            }
        }
    }

    #[test]
    fn published_sizes_have_these_many_weights() {
        for (config, task, expected) in [
            (BertConfig::large(), PRETRAINING, 335_972_354),
            (BertConfig::base(), PRETRAINING, 109_945_346),
            (BertConfig::large(), SQUAD, 333_871_106),
        ] {
            assert_eq!(parameters(&config, task), Elements(expected));
        }
        let one_layer_less = BertConfig {
            num_layers: 23,
            ..BertConfig::large()
        };
        let layer = parameters(&BertConfig::large(), SQUAD) - parameters(&one_layer_less, SQUAD);
        assert_eq!(layer, Elements(12_592_128));
    }

    #[test]
    fn published_sizes_take_this_much_work() {
        for (config, task, forward, training) in [
            (
                sized(BertConfig::large(), 128, 20),
                PRETRAINING,
                80.436,
                241.31,
            ),
            (
                sized(BertConfig::large(), 384, 56),
                PRETRAINING,
                250.719,
                752.16,
            ),
            (
                sized(BertConfig::base(), 128, 20),
                PRETRAINING,
                23.434,
                70.30,
            ),
            (
                sized(BertConfig::base(), 384, 56),
                PRETRAINING,
                73.736,
                221.21,
            ),
            (sized(BertConfig::base(), 384, 56), SQUAD, 70.668, 212.00),
            (sized(BertConfig::large(), 384, 56), SQUAD, 246.427, 739.28),
        ] {
            let giga = |flops: Flops| flops.0 as f64 / 1e9;
            let got = giga(flops_forward(&config, task));
            assert!(
                (got - forward).abs() <= 0.000_501,
                "forward {got}, not {forward}"
            );
            let got = giga(flops_training(&config, task));
            assert!(
                (got - training).abs() <= 0.005_01,
                "training {got}, not {training}"
            );
        }
    }
}

//! Tiny models, computed twice: by evaluating the graph, and by the plain loops
//! of `reference`, which know the model only from its papers and weight names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod reference;

use std::collections::BTreeMap;

use bert_model::config::{Activation, BertConfig, Dropout, Mode, SequenceFormat, Task};
use bert_model::data::{MicroBatch, generated};
use bert_model::init::{generator, initial_values};
use bert_model::interface::{Input, Output};
use bert_model::model::{BertModel, build};
use bert_model::placement::{
    Block, EncoderMemory, EncoderPlacement, Execution, LayersPerIpu, Placement, PlacementOptions,
    Recomputation, SquadHead,
};
use ipu_sim::numerics::DType;
use popart_graph::eval::{EvalOptions, Inputs, PerReplica, Value, Values, eval};
use popart_graph::grad::backward;
use popart_graph::ir::{Reduction, TensorId};
use popart_graph::verify::{Form, verify};
use rand_xoshiro::rand_core::Rng;
use reference::{Reference, Sample};

const PRETRAINING: Task = Task::Pretraining(Mode::Training);
const SQUAD: Task = Task::Squad(Mode::Training);

fn placement(config: &BertConfig, task: Task) -> Placement {
    let options = PlacementOptions {
        encoder: EncoderPlacement::Layers(LayersPerIpu {
            encoder_start_ipu: 2,
            layers_per_ipu: vec![1],
        }),
        memory: EncoderMemory::PerIpu(vec![0.25]),
        squad_head: SquadHead::FirstIpu,
        recomputation: Recomputation::FromEveryLayer,
        execution: Execution::Pipelined,
    };
    Placement::from_options(&options, config.num_layers, task).unwrap()
}

/// A model with random weights, large enough for every part to matter, and a batch.
struct Case {
    config: BertConfig,
    task: Task,
    model: BertModel,
    weights: Vec<(TensorId, Vec<f64>)>,
    batch: MicroBatch,
}

impl Case {
    fn new(config: &BertConfig, task: Task) -> Self {
        let model = build(config, &placement(config, task), task).unwrap();
        verify(&model.graph, Form::Logical).unwrap();
        let mut noise = generator(5, "noise");
        let weights = initial_values(&model.graph, 1)
            .unwrap()
            .into_iter()
            .map(|(tensor, values)| {
                let around = |start: f32| f64::from(start) + uniform(&mut noise) - 0.5;
                (tensor, values.into_iter().map(around).collect())
            })
            .collect();
        let batch = generated(&model, config, task, &mut generator(3, "data"));
        Self {
            config: config.clone(),
            task,
            model,
            weights,
            batch,
        }
    }

    fn inputs(&self) -> Inputs {
        let weights = self.weights.iter().cloned();
        let weights = weights.map(|(id, values)| (id, Value::Float(values)));
        let batch = self.batch.iter().cloned();
        let batch = batch.map(|(id, values)| (id, Value::Int(values)));
        let all = weights.chain(batch);
        all.map(|(id, value)| (id, PerReplica::Same(value)))
            .collect()
    }

    fn values(&self) -> Values {
        evaluate(&self.model, &self.inputs())
    }

    fn result(&self, values: &Values, output: Output) -> Vec<f64> {
        let tensor = self.model.output(output).unwrap();
        floats(&values[tensor]).to_vec()
    }

    fn stream(&self, input: Input) -> Vec<u32> {
        let Some(tensor) = self.model.input(input) else {
            return vec![];
        };
        let (_, values) = self.batch.iter().find(|(id, _)| *id == tensor).unwrap();
        values.clone()
    }

    /// The same case for the plain loops.
    fn reference(&self) -> Reference {
        let named = |(id, values): &(TensorId, Vec<f64>)| {
            (self.model.graph.tensors[*id].name.clone(), values.clone())
        };
        let weights: BTreeMap<_, _> = self.weights.iter().map(named).collect();
        let sample = Sample {
            indices: self.stream(Input::Indices),
            positions: self.stream(Input::Positions),
            segments: self.stream(Input::Segments),
            mask_tokens_index: self.stream(Input::MaskTokensIndex),
            sequence_end: match self.task {
                Task::Pretraining(_) => self.stream(Input::SequenceIndex),
                Task::Squad(_) => self.stream(Input::SequencePadIndex),
            },
            numbers: self.stream(Input::SequenceNumbers),
            seed: self.stream(Input::Seed),
        };
        Reference::new(&self.config, weights, sample)
    }
}

fn uniform(generator: &mut impl Rng) -> f64 {
    (generator.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

fn evaluate(model: &BertModel, inputs: &Inputs) -> Values {
    let options = EvalOptions {
        round_to_dtype: false,
        replicas: 1,
    };
    eval(&model.graph, inputs, options).unwrap()
}

fn floats(value: &PerReplica) -> &[f64] {
    match value {
        PerReplica::Same(value) => value.as_floats(),
        PerReplica::Each(values) => values[0].as_floats(),
    }
}

#[track_caller]
fn assert_close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        let tolerance = 1e-9 * (1.0 + expected.abs());
        assert!((got - expected).abs() < tolerance, "{got}, not {expected}");
    }
}

/// Variants that together take every branch of the layers.
fn variants() -> Vec<BertConfig> {
    let tiny = BertConfig::tiny();
    vec![
        tiny.clone(),
        BertConfig {
            attention_bias: true,
            projection_bias: true,
            vocab_steps: 3,
            dropout: Dropout::Off,
            activation: Activation::SigmoidGelu,
            reduction: Reduction::Mean,
            ..tiny.clone()
        },
        BertConfig {
            attention_bias: true,
            split_qkv: true,
            cls_layer: false,
            vocab_steps: 2,
            dropout: Dropout::Hidden,
            dropout_probability: 0.3,
            activation: Activation::LeakyRelu { leak: 0.1 },
            ..tiny.clone()
        },
        BertConfig {
            split_linear_layers: true,
            ..tiny.clone()
        },
        BertConfig {
            split_linear_layers: true,
            split_qkv: true,
            ..tiny.clone()
        },
        BertConfig {
            update_embedding_dict: false,
            activation: Activation::Relu,
            dropout_probability: 0.0,
            ..tiny.clone()
        },
        BertConfig {
            activation: Activation::GeluErf,
            dtype: DType::F16,
            half_partials: true,
            ff_size: 6,
            ..tiny
        },
    ]
}

#[test]
fn pretraining_equals_plain_loops() {
    for config in variants() {
        let case = Case::new(&config, PRETRAINING);
        let values = case.values();
        let mut reference = case.reference();
        let hidden = reference.encoder();
        let words = reference.words(&hidden);
        let sentence = reference.next_sentence(&hidden);
        let mlm = reference.score(&words, &case.stream(Input::MaskLabels), Some(0));
        let nsp = reference.score(&sentence, &case.stream(Input::NspLabels), None);
        assert_close(&case.result(&values, Output::MlmLoss), &[mlm.mean]);
        assert_close(&case.result(&values, Output::NspLoss), &[nsp.mean]);
        assert_close(&case.result(&values, Output::MlmAccuracy), &mlm.accuracy);
        assert_close(&case.result(&values, Output::NspAccuracy), &nsp.accuracy);
        let total = floats(&values[case.model.loss.unwrap()]);
        assert_close(total, &[mlm.loss + nsp.loss]);
    }
}

/// Packs of up to three sequences.
fn packed() -> BertConfig {
    BertConfig {
        sequence_format: SequenceFormat::Packed { sequences: 3 },
        sequence_length: 12,
        max_positional_length: 12,
        micro_batch: 3,
        ..BertConfig::tiny()
    }
}

/// Losses of packs are sums over all their sequences, whatever the reduction.
#[test]
fn packs_equal_plain_loops() {
    for reduction in [Reduction::Sum, Reduction::Mean] {
        let config = BertConfig {
            reduction,
            ..packed()
        };
        let case = Case::new(&config, PRETRAINING);
        let numbers = case.stream(Input::SequenceNumbers);
        let several = numbers.chunks(12).any(|row| row.contains(&2));
        assert!(several && numbers.contains(&0), "{numbers:?}");
        let values = case.values();
        let mut reference = case.reference();
        let hidden = reference.encoder();
        let words = reference.words(&hidden);
        let mlm = reference.score(&words, &case.stream(Input::MaskLabels), Some(0));
        let labels = case.stream(Input::NspLabels);
        let weights = case.stream(Input::NspWeights);
        let rows = reference.next_sentence(&hidden).into_iter();
        let used = rows
            .zip(labels)
            .zip(weights)
            .filter(|(_, weight)| *weight == 1);
        let (rows, labels): (Vec<_>, Vec<_>) = used.map(|(pair, _)| pair).unzip();
        let nsp = reference.score(&rows, &labels, None);
        let sums = [&mlm, &nsp].map(|scored| scored.mean * scored.accuracy[1]);
        assert!(sums.iter().all(|&sum| sum > 0.0));
        assert_close(&case.result(&values, Output::MlmLoss), &sums[..1]);
        assert_close(&case.result(&values, Output::NspLoss), &sums[1..]);
        assert_close(&case.result(&values, Output::MlmAccuracy), &mlm.accuracy);
        assert_close(&case.result(&values, Output::NspAccuracy), &nsp.accuracy);
        let total = floats(&values[case.model.loss.unwrap()]);
        assert_close(total, &[sums[0] + sums[1]]);
    }
}

#[test]
fn squad_equals_plain_loops() {
    for config in variants() {
        let case = Case::new(&config, SQUAD);
        let values = case.values();
        let mut reference = case.reference();
        let hidden = reference.encoder();
        let logits = reference.answers(&hidden);
        let [start, end] = [Input::StartLabels, Input::EndLabels].map(|input| case.stream(input));
        let start = reference.score(&logits[0], &start, None);
        let end = reference.score(&logits[1], &end, None);
        assert_close(&case.result(&values, Output::StartLoss), &[start.mean]);
        assert_close(&case.result(&values, Output::EndLoss), &[end.mean]);
        assert_close(
            &case.result(&values, Output::StartAccuracy),
            &start.accuracy,
        );
        let total = floats(&values[case.model.loss.unwrap()]);
        assert_close(total, &[start.loss + end.loss]);
    }
}

#[test]
fn inference_has_no_dropout_and_gives_what_was_asked_for() {
    let task = Task::Squad(Mode::Inference);
    for config in variants() {
        let case = Case::new(&config, task);
        assert_eq!(
            (case.model.input(Input::Seed), case.model.loss),
            (None, None)
        );
        let two_outputs = BertConfig {
            squad_single_output: false,
            ..config.clone()
        };
        let separate = Case::new(&two_outputs, task);
        let mut reference = case.reference();
        let hidden = reference.encoder();
        let [start, end] = reference.answers(&hidden).map(|logits| logits.concat());
        let interleaved: Vec<f64> = start.iter().zip(&end).flat_map(|(&s, &e)| [s, e]).collect();
        assert_close(
            &case.result(&case.values(), Output::SquadLogits),
            &interleaved,
        );
        let values = separate.values();
        assert_close(&separate.result(&values, Output::StartLogits), &start);
        assert_close(&separate.result(&values, Output::EndLogits), &end);
    }
    let config = BertConfig {
        inference_loss: true,
        ..BertConfig::tiny()
    };
    let case = Case::new(&config, Task::Pretraining(Mode::Inference));
    let mut reference = case.reference();
    let hidden = reference.encoder();
    let words = reference.words(&hidden);
    let mlm = reference.score(&words, &case.stream(Input::MaskLabels), Some(0));
    assert_close(&case.result(&case.values(), Output::MlmLoss), &[mlm.mean]);
    assert_close(
        &case.result(&case.values(), Output::MlmAccuracy),
        &mlm.accuracy,
    );
    assert_eq!(case.model.output(Output::NspLoss), None);
}

/// A model without a next-sentence head learns words only, from records without its labels.
#[test]
fn without_next_sentences_there_are_words_only() {
    let config = BertConfig {
        next_sentence: false,
        ..BertConfig::tiny()
    };
    let case = Case::new(&config, PRETRAINING);
    let mut reference = case.reference();
    let hidden = reference.encoder();
    let words = reference.words(&hidden);
    let mlm = reference.score(&words, &case.stream(Input::MaskLabels), Some(0));
    assert_close(&case.result(&case.values(), Output::MlmLoss), &[mlm.mean]);
    let model = &case.model;
    assert!(model.loss.is_some());
    for absent in [Output::NspLoss, Output::NspAccuracy] {
        assert_eq!(model.output(absent), None);
    }
    assert_eq!(model.input(Input::NspLabels), None);
    let names = model
        .weights
        .iter()
        .map(|weight| &model.graph.tensors[weight.tensor].name);
    assert!(!names.into_iter().any(|name| name.starts_with("NSP")));
    assert!(!model.parts.contains_key(&Block::NextSentence));
}

#[test]
fn every_weight_learns_along_its_gradient() {
    for (task, config) in [
        (PRETRAINING, BertConfig::tiny()),
        (SQUAD, BertConfig::tiny()),
        (PRETRAINING, packed()),
    ] {
        let mut case = Case::new(&config, task);
        let loss = case.model.loss.unwrap();
        let weights: Vec<TensorId> = case.model.weights.iter().map(|w| w.tensor).collect();
        let gradients = backward(&mut case.model.graph, loss, 1.0, &weights).unwrap();
        verify(&case.model.graph, Form::Logical).unwrap();
        let values = case.values();
        for weight in 0..case.weights.len() {
            let (tensor, start) = case.weights[weight].clone();
            let mut noise = generator(9, "direction");
            let direction: Vec<f64> = start.iter().map(|_| uniform(&mut noise) - 0.5).collect();
            let mut loss_at = |step: f64| {
                let moved = start.iter().zip(&direction).map(|(w, d)| w + step * d);
                case.weights[weight].1 = moved.collect();
                floats(&case.values()[loss])[0]
            };
            let step = 1e-5;
            let measured = (loss_at(step) - loss_at(-step)) / (2.0 * step);
            case.weights[weight].1 = start;
            let gradient = floats(&values[gradients[&tensor]]);
            let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let name = &case.model.graph.tensors[tensor].name;
            let tolerance = 1e-6 * (1.0 + expected.abs());
            assert!(
                (measured - expected).abs() < tolerance,
                "{name}: {measured}, not {expected}"
            );
        }
    }
}

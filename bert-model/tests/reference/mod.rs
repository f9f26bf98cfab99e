//! BERT in plain loops over `f64`, independent of graphs: Devlin et al., "BERT",
//! 2019, and Vaswani et al., "Attention Is All You Need", 2017, post-norm.

use std::collections::BTreeMap;

use bert_model::config::{Activation, BertConfig, Dropout, SequenceFormat};
use ipu_sim::numerics::{DType, dropout_keep};
use popart_graph::ir::Reduction;

/// Rows of a matrix.
pub(crate) type Rows = Vec<Vec<f64>>;

/// What the host sends, sequences one after the other.
pub(crate) struct Sample {
    pub(crate) indices: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) segments: Vec<u32>,
    /// Empty without masked words, and of packs.
    pub(crate) mask_tokens_index: Vec<u32>,
    /// Empty of packs.
    pub(crate) sequence_end: Vec<u32>,
    /// The sequence that each position belongs to; of packs only.
    pub(crate) numbers: Vec<u32>,
    /// Empty without dropout.
    pub(crate) seed: Vec<u32>,
}

/// Loss, and how many were right of how many.
pub(crate) struct Scored {
    /// What training minimises.
    pub(crate) loss: f64,
    /// What is reported, whatever the reduction.
    pub(crate) mean: f64,
    pub(crate) accuracy: [f64; 2],
}

/// A model with its weights and one micro-batch.
pub(crate) struct Reference {
    config: BertConfig,
    weights: BTreeMap<String, Vec<f64>>,
    sample: Sample,
    next_dropout: u32,
}

impl Reference {
    pub(crate) fn new(
        config: &BertConfig,
        weights: BTreeMap<String, Vec<f64>>,
        sample: Sample,
    ) -> Self {
        Self {
            config: config.clone(),
            weights,
            sample,
            next_dropout: 0,
        }
    }

    /// A weight as rows of the given width.
    fn table(&self, name: &str, width: usize) -> Rows {
        if let Some(flat) = self.weights.get(name) {
            return flat.chunks(width).map(<[f64]>::to_vec).collect();
        }
        // In pieces: of rows where the product reduces, else of columns.
        let pieces = (0..).map(|piece| self.weights.get(&format!("{name}/split{piece}")));
        let pieces: Vec<&Vec<f64>> = pieces.map_while(|piece| piece).collect();
        assert!(!pieces.is_empty(), "no weight `{name}`");
        if name.ends_with("2/W") {
            let rows = pieces.into_iter().flat_map(|piece| piece.chunks(width));
            return rows.map(<[f64]>::to_vec).collect();
        }
        let part = width / pieces.len();
        (0..pieces[0].len() / part)
            .map(|row| {
                let columns = pieces.iter().map(|piece| &piece[row * part..][..part]);
                columns.collect::<Vec<_>>().concat()
            })
            .collect()
    }

    /// A bias, or zeros if the model has none of that name.
    fn bias(&self, name: &str, width: usize) -> Vec<f64> {
        let found = self.weights.get(name).cloned();
        found.unwrap_or_else(|| vec![0.0; width])
    }

    fn width(&self) -> usize {
        self.config.hidden_size as usize
    }

    /// The vectors of all words, `V` rows of `H`, however they are stored.
    fn word_table(&self) -> Rows {
        let steps = self.config.vocab_steps as usize;
        let rows = self.config.vocab_length as usize / steps;
        let predicts_words =
            [&self.sample.mask_tokens_index, &self.sample.numbers].map(|part| !part.is_empty());
        let is_transposed = predicts_words.contains(&true);
        let mut table = Rows::new();
        for slice in 0..steps {
            let name = match steps {
                1 => "Embedding/Embedding_Dict".to_owned(),
                _ => format!("Embedding/Embedding_Dict/split{slice}"),
            };
            table.extend(match is_transposed {
                true => transposed(&self.table(&name, rows)),
                false => self.table(&name, self.width()),
            });
        }
        table
    }

    /// The last hidden state, a row for every position of every sequence.
    pub(crate) fn encoder(&mut self) -> Rows {
        let words = self.word_table();
        let positions = self.table("Embedding/Positional_Dict", self.width());
        let segments = self.table("Embedding/Segment_Dict", self.width());
        let mut x = Rows::new();
        for row in 0..self.sample.indices.len() {
            let word = &words[self.sample.indices[row] as usize];
            let position = &positions[self.sample.positions[row] as usize];
            let segment = &segments[self.sample.segments[row] as usize];
            x.push(
                (0..self.width())
                    .map(|i| word[i] + position[i] + segment[i])
                    .collect(),
            );
        }
        self.norm(&mut x, "Embedding");
        self.dropout(&mut x);
        for layer in 0..self.config.num_layers {
            x = self.attention(x, &format!("Layer{layer}/Attention"));
            x = self.feed_forward(x, &format!("Layer{layer}/FF"));
        }
        x
    }

    fn attention(&mut self, x: Rows, name: &str) -> Rows {
        let width = self.width();
        let [q, k, v] = ["Q", "K", "V"].map(|which| self.project(&x, name, which));
        let sequence = self.config.sequence_length as usize;
        let head = width / self.config.attention_heads as usize;
        // Probabilities `[B, A, S, S]`, flat in rows of `S`.
        let mut probabilities = Rows::new();
        for sample in 0..self.config.micro_batch as usize {
            for columns in (0..width).step_by(head).map(|start| start..start + head) {
                for from in 0..sequence {
                    let query = &q[sample * sequence + from][columns.clone()];
                    let mut scores: Vec<f64> = (0..sequence)
                        .map(|to| {
                            let key = &k[sample * sequence + to][columns.clone()];
                            let masked = if self.attends(sample, from, to) {
                                0.0
                            } else {
                                -1000.0
                            };
                            dot(query, key) / (head as f64).sqrt() + masked
                        })
                        .collect();
                    softmax(&mut scores);
                    probabilities.push(scores);
                }
            }
        }
        if self.config.dropout == Dropout::HiddenAndAttention {
            self.dropout(&mut probabilities);
        }
        let heads = self.config.attention_heads as usize;
        let mut z = vec![vec![0.0; width]; x.len()];
        for (row, weights) in probabilities.iter().enumerate() {
            let (from, block) = (row % sequence, row / sequence);
            let (sample, head_index) = (block / heads, block % heads);
            for column in head_index * head..(head_index + 1) * head {
                z[sample * sequence + from][column] = (0..sequence)
                    .map(|to| weights[to] * v[sample * sequence + to][column])
                    .sum();
            }
        }
        let out = self.table(&format!("{name}/Out"), width);
        let bias = self.bias(&format!("{name}/Out_Bias"), width);
        self.residual(x, affine(&z, &out, &bias), name)
    }

    /// Queries, keys or values, from a weight of their own or a third of a joint one.
    fn project(&self, x: &Rows, name: &str, which: &str) -> Rows {
        let width = self.width();
        if self.config.split_qkv {
            let weight = self.table(&format!("{name}/{which}"), width);
            return affine(
                x,
                &weight,
                &self.bias(&format!("{name}/{which}_Bias"), width),
            );
        }
        let weight = self.table(&format!("{name}/QKV"), 3 * width);
        let bias = self.bias(&format!("{name}/QKV_Bias"), 3 * width);
        let third = "QKV".find(which).unwrap() * width..;
        let all = affine(x, &weight, &bias);
        let cut = |row: Vec<f64>| row[third.clone()][..width].to_vec();
        all.into_iter().map(cut).collect()
    }

    /// Whether a position holds a word rather than padding; in a pack, one of the same sequence.
    fn attends(&self, sample: usize, from: usize, position: usize) -> bool {
        if !self.sample.numbers.is_empty() {
            let row = sample * self.config.sequence_length as usize;
            return self.sample.numbers[row + from] == self.sample.numbers[row + position];
        }
        let position = u32::try_from(position).unwrap();
        let is_word = match self.sample.mask_tokens_index.get(sample) {
            Some(&masked) => position < masked || position >= self.config.mask_tokens,
            None => true,
        };
        is_word && position < self.sample.sequence_end[sample]
    }

    fn feed_forward(&mut self, x: Rows, name: &str) -> Rows {
        let (width, inner) = (self.width(), self.config.ff_size as usize);
        let weight = self.table(&format!("{name}/1/W"), inner);
        let mut y = affine(&x, &weight, &self.bias(&format!("{name}/1/B"), inner));
        self.activate(&mut y);
        let weight = self.table(&format!("{name}/2/W"), width);
        let y = affine(&y, &weight, &self.bias(&format!("{name}/2/B"), width));
        self.residual(x, y, name)
    }

    fn residual(&mut self, x: Rows, mut y: Rows, name: &str) -> Rows {
        self.dropout(&mut y);
        for (y, x) in y.iter_mut().flatten().zip(x.iter().flatten()) {
            *y += x;
        }
        self.norm(&mut y, name);
        y
    }

    fn norm(&self, x: &mut Rows, name: &str) {
        let gamma = self.bias(&format!("{name}/Gamma"), self.width());
        let beta = self.bias(&format!("{name}/Beta"), self.width());
        for row in x {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let deviation = (variance + self.config.layer_norm_epsilon).sqrt();
            for (i, v) in row.iter_mut().enumerate() {
                *v = (*v - mean) / deviation * gamma[i] + beta[i];
            }
        }
    }

    /// One dropout after the other has the next id.
    fn dropout(&mut self, x: &mut Rows) {
        let &[high, low] = self.sample.seed.as_slice() else {
            return;
        };
        let p = self.config.dropout_probability;
        for (index, v) in (0..).zip(x.iter_mut().flatten()) {
            *v = match dropout_keep([high, low], self.next_dropout, index, p) {
                true => *v / (1.0 - p),
                false => 0.0,
            };
        }
        self.next_dropout += 1;
    }

    fn activate(&self, x: &mut Rows) {
        let function = |v: f64| match self.config.activation {
            Activation::Gelu => {
                let slope = (2.0 / std::f64::consts::PI).sqrt();
                0.5 * v * (1.0 + (slope * (v + 0.044_715 * v.powi(3))).tanh())
            }
            Activation::GeluErf => 0.5 * v * (1.0 + erf(v / 2.0_f64.sqrt())),
            Activation::SigmoidGelu => v / (1.0 + (-1.702 * v).exp()),
            Activation::Relu => v.max(0.0),
            Activation::LeakyRelu { leak } => {
                if v > 0.0 {
                    v
                } else {
                    leak * v
                }
            }
        };
        for v in x.iter_mut().flatten() {
            *v = function(*v);
        }
    }

    /// Logits of masked words, `B M` rows of `V`.
    pub(crate) fn words(&self, hidden: &Rows) -> Rows {
        let mut x = hidden.clone();
        if self.config.cls_layer {
            let weight = self.table("CLS/LMPredictionW", self.width());
            x = affine(&x, &weight, &self.bias("CLS/LMPredictionB", self.width()));
            self.activate(&mut x);
            self.norm(&mut x, "CLS");
        }
        let masked = self.config.label_slots() as usize;
        let sequences = x.chunks(self.config.sequence_length as usize);
        let rows: Rows = sequences.flat_map(|rows| rows[..masked].to_vec()).collect();
        let bias = self.bias("MLM/ProjectionB", self.config.vocab_length as usize);
        affine(&rows, &transposed(&self.word_table()), &bias)
    }

    /// Next-sentence logits, `B` rows of 2; of packs `B K`, the last sequence first.
    pub(crate) fn next_sentence(&self, hidden: &Rows) -> Rows {
        let length = self.config.sequence_length as usize;
        let places = match self.config.sequence_format {
            SequenceFormat::Single => {
                let position = self.config.mask_tokens as usize;
                position..position + 1
            }
            SequenceFormat::Packed { sequences } => length - sequences as usize..length,
        };
        let sequences = hidden.chunks(length);
        let first: Rows = sequences
            .flat_map(|rows| rows[places.clone()].to_vec())
            .collect();
        let weight = self.table("NSP/PoolW", self.width());
        let mut pooled = affine(&first, &weight, &self.bias("NSP/PoolB", self.width()));
        pooled.iter_mut().flatten().for_each(|v| *v = v.tanh());
        affine(
            &pooled,
            &self.table("NSP/NspW", 2),
            &self.bias("NSP/NspB", 2),
        )
    }

    /// Start and end logits, `B` rows of `S` each.
    pub(crate) fn answers(&self, hidden: &Rows) -> [Rows; 2] {
        let logits = affine(
            hidden,
            &self.table("Squad/SquadW", 2),
            &self.bias("Squad/SquadB", 2),
        );
        let sequence = self.config.sequence_length as usize;
        [0, 1].map(|column| {
            let column: Vec<f64> = logits.iter().map(|row| row[column]).collect();
            column.chunks(sequence).map(<[f64]>::to_vec).collect()
        })
    }

    /// Loss and accuracy of logits against labels.
    pub(crate) fn score(&self, logits: &Rows, labels: &[u32], ignored: Option<u32>) -> Scored {
        // The smallest probability in a logarithm, by element type.
        let least: f64 = match self.config.dtype {
            DType::F16 => 6.104e-5,
            DType::F32 | DType::U32 => 1e-7,
        };
        let mut scored = Scored {
            loss: 0.0,
            mean: 0.0,
            accuracy: [0.0, 0.0],
        };
        for (row, &label) in logits.iter().zip(labels) {
            if ignored == Some(label) {
                continue;
            }
            let mut probabilities = row.clone();
            softmax(&mut probabilities);
            let right = probabilities[label as usize];
            scored.loss -= right.max(least).ln();
            scored.accuracy[0] += f64::from(u8::from(probabilities.iter().all(|&p| p <= right)));
            scored.accuracy[1] += 1.0;
        }
        scored.mean = scored.loss / scored.accuracy[1].max(1.0);
        if self.config.reduction == Reduction::Mean {
            scored.loss = scored.mean;
        }
        scored
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn transposed(rows: &Rows) -> Rows {
    let columns = 0..rows[0].len();
    columns
        .map(|c| rows.iter().map(|row| row[c]).collect())
        .collect()
}

/// `x w + bias`.
fn affine(x: &Rows, w: &Rows, bias: &[f64]) -> Rows {
    let columns = transposed(w);
    let row = |row: &Vec<f64>| {
        let products = columns.iter().map(|column| dot(row, column));
        products
            .zip(bias)
            .map(|(product, bias)| product + bias)
            .collect()
    };
    x.iter().map(row).collect()
}

fn softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|v| *v = (*v - largest).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

/// The error function by its Maclaurin series, for moderate arguments.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}

//! Operations on rows: softmax, normalisation, dropout, lookups, masks.

use ipu_sim::numerics::dropout_keep;

use super::Local;
use super::value::{Value, floats};
use crate::ir::{MASKED_PAIR_SCORE, MASKED_SCORE};

/// The length of a row: the last axis, 1 for a scalar.
fn row_length(x: Local<'_>) -> usize {
    x.dims().last().map_or(1, |&size| size as usize).max(1)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let length = values.len() as f64;
    values.sum::<f64>() / length
}

pub(super) fn softmax(x: Local<'_>) -> Value {
    let mut result = x.floats().to_vec();
    for row in result.chunks_mut(row_length(x)) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for x in row.iter_mut() {
            *x = libm::exp(*x - largest);
        }
        let sum: f64 = row.iter().sum();
        for x in row.iter_mut() {
            *x /= sum;
        }
    }
    floats(result)
}

pub(super) fn softmax_grad(y: Local<'_>, dy: Local<'_>) -> Value {
    let length = row_length(y);
    let mut result = dy.floats().to_vec();
    for (row, y) in result.chunks_mut(length).zip(y.floats().chunks(length)) {
        let sum: f64 = row.iter().zip(y).map(|(dy, y)| dy * y).sum();
        for (dy, y) in row.iter_mut().zip(y) {
            *dy = y * (*dy - sum);
        }
    }
    floats(result)
}

pub(super) fn layer_norm(
    x: Local<'_>,
    gamma: Local<'_>,
    beta: Local<'_>,
    epsilon: f64,
) -> Vec<Value> {
    let mut result = Vec::with_capacity(x.value.len());
    let (mut means, mut inverses) = (Vec::new(), Vec::new());
    for row in x.floats().chunks(row_length(x)) {
        let centre = mean(row.iter().copied());
        let variance = mean(row.iter().map(|x| (x - centre) * (x - centre)));
        let inverse = 1.0 / (variance + epsilon).sqrt();
        let parameters = gamma.floats().iter().zip(beta.floats());
        result.extend(
            row.iter()
                .zip(parameters)
                .map(|(x, (gamma, beta))| (x - centre) * inverse * gamma + beta),
        );
        means.push(centre);
        inverses.push(inverse);
    }
    vec![floats(result), floats(means), floats(inverses)]
}

pub(super) fn layer_norm_grad(
    x: Local<'_>,
    gamma: Local<'_>,
    means: Local<'_>,
    inverses: Local<'_>,
    dy: Local<'_>,
) -> Vec<Value> {
    let length = row_length(x);
    let mut dx = Vec::with_capacity(x.value.len());
    let mut dgamma = vec![0.0; length];
    let mut dbeta = vec![0.0; length];
    let rows = x.floats().chunks(length).zip(dy.floats().chunks(length));
    let statistics = means.floats().iter().zip(inverses.floats());
    for ((x, dy), (centre, inverse)) in rows.zip(statistics) {
        let normal: Vec<f64> = x.iter().map(|x| (x - centre) * inverse).collect();
        let scaled: Vec<f64> = dy
            .iter()
            .zip(gamma.floats())
            .map(|(dy, gamma)| dy * gamma)
            .collect();
        let mean_scaled = mean(scaled.iter().copied());
        let mean_product = mean(scaled.iter().zip(&normal).map(|(dy, x)| dy * x));
        dx.extend(
            scaled
                .iter()
                .zip(&normal)
                .map(|(dy, x)| inverse * (dy - mean_scaled - x * mean_product)),
        );
        for (column, dy) in dy.iter().enumerate() {
            dgamma[column] += dy * normal[column];
            dbeta[column] += dy;
        }
    }
    vec![floats(dx), floats(dgamma), floats(dbeta)]
}

pub(super) fn dropout(x: Local<'_>, seed: Local<'_>, probability: f64, id: u32) -> Value {
    let seed = [seed.ints()[0], seed.ints()[1]];
    let scale = 1.0 / (1.0 - probability);
    let masked = (0_u64..).zip(x.floats()).map(|(index, &x)| {
        if dropout_keep(seed, id, index, probability) {
            x * scale
        } else {
            0.0
        }
    });
    floats(masked.collect())
}

/// The row of a table that starts at `first_row`, if the table has it.
fn row_of(index: u32, first_row: u32, rows: usize) -> Option<usize> {
    let row = index.checked_sub(first_row)? as usize;
    (row < rows).then_some(row)
}

pub(super) fn gather(table: Local<'_>, indices: Local<'_>, first_row: u32) -> Value {
    let [rows, columns] = [table.dims()[0], table.dims()[1]].map(|size| size as usize);
    let mut result = Vec::with_capacity(indices.value.len() * columns);
    for &index in indices.ints() {
        match row_of(index, first_row, rows) {
            Some(row) => result.extend(&table.floats()[row * columns..][..columns]),
            None => result.resize(result.len() + columns, 0.0),
        }
    }
    floats(result)
}

/// Adds `factor` times each row of `dy` to the row of `sums` that its index names.
pub(super) fn scatter_add(
    sums: &mut [f64],
    dy: Local<'_>,
    indices: Local<'_>,
    first_row: u32,
    factor: f64,
) {
    let columns = row_length(dy);
    let rows = sums.len() / columns;
    for (&index, dy) in indices.ints().iter().zip(dy.floats().chunks(columns)) {
        if let Some(row) = row_of(index, first_row, rows) {
            for (sum, dy) in sums[row * columns..][..columns].iter_mut().zip(dy) {
                *sum += factor * dy;
            }
        }
    }
}

pub(super) fn one_hot(indices: Local<'_>, depth: u32) -> Value {
    let rows = indices
        .ints()
        .iter()
        .flat_map(|&index| (0..depth).map(move |class| f64::from(u8::from(class == index))));
    floats(rows.collect())
}

/// `[b, 1, s, s]` of numbers `[b, s]`.
pub(super) fn attention_mask(numbers: Local<'_>) -> Value {
    let positions = numbers.dims()[1] as usize;
    let mut mask = Vec::with_capacity(numbers.value.len() * positions);
    for row in numbers.ints().chunks_exact(positions) {
        for &of_query in row {
            mask.extend(row.iter().map(|&of_key| {
                let apart = f64::from(of_query.abs_diff(of_key));
                MASKED_PAIR_SCORE * libm::tanh(apart)
            }));
        }
    }
    floats(mask)
}

pub(super) fn sequence_mask(
    operands: &[Local<'_>],
    sequence_length: u32,
    mask_tokens: Option<u32>,
) -> Value {
    let (sequence, masked) = match (operands, mask_tokens) {
        ([tokens, sequence], Some(count)) => (sequence, Some((tokens.ints(), count))),
        ([sequence, ..], _) => (sequence, None),
        ([], _) => unreachable!("one operand or two"),
    };
    let rows = sequence
        .ints()
        .iter()
        .enumerate()
        .flat_map(|(sample, &end)| {
            (0..sequence_length).map(move |position| {
                let is_token = masked
                    .is_none_or(|(tokens, count)| position < tokens[sample] || position >= count);
                if is_token && position < end {
                    0.0
                } else {
                    MASKED_SCORE
                }
            })
        });
    floats(rows.collect())
}

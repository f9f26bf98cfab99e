//! Losses and what is reported beside them.

use super::Local;
use super::error::{EvalError, Result};
use super::value::{Value, floats};
use crate::ir::{OpLabel, Reduction, nll_smallest_probability};

/// Each sample's probabilities and label, `None` where it doesn't count.
type Samples<'a> = Vec<(&'a [f64], Option<usize>)>;

fn samples<'a>(
    probabilities: Local<'a>,
    labels: Local<'_>,
    ignore_index: Option<u32>,
    label_of: &dyn Fn() -> OpLabel,
) -> Result<Samples<'a>> {
    let classes = probabilities.dims()[1] as usize;
    let labels = labels.ints().iter().enumerate();
    labels
        .map(|(sample, &label)| {
            let row = &probabilities.floats()[sample * classes..][..classes];
            if ignore_index == Some(label) {
                return Ok((row, None));
            }
            if label as usize >= classes {
                return Err(EvalError::Label {
                    op: label_of(),
                    sample,
                    label,
                    classes,
                });
            }
            Ok((row, Some(label as usize)))
        })
        .collect()
}

fn counted(samples: &Samples<'_>) -> usize {
    samples.iter().filter(|(_, label)| label.is_some()).count()
}

/// What the reduction multiplies the sum by.
fn weight(reduction: Reduction, samples: &Samples<'_>) -> f64 {
    match reduction {
        Reduction::Sum => 1.0,
        Reduction::Mean => 1.0 / counted(samples).max(1) as f64,
    }
}

pub(super) fn nll(
    probabilities: Local<'_>,
    labels: Local<'_>,
    reduction: Option<Reduction>,
    ignore_index: Option<u32>,
    label: &dyn Fn() -> OpLabel,
) -> Result<Value> {
    let smallest = nll_smallest_probability(probabilities.ty.dtype);
    let samples = samples(probabilities, labels, ignore_index, label)?;
    let losses = samples
        .iter()
        .map(|(row, label)| label.map_or(0.0, |label| -libm::log(row[label].max(smallest))));
    Ok(floats(match reduction {
        None => losses.collect(),
        Some(reduction) => vec![losses.sum::<f64>() * weight(reduction, &samples)],
    }))
}

pub(super) fn nll_softmax_grad(
    probabilities: Local<'_>,
    labels: Local<'_>,
    dloss: Local<'_>,
    reduction: Option<Reduction>,
    ignore_index: Option<u32>,
    label: &dyn Fn() -> OpLabel,
) -> Result<Value> {
    let samples = samples(probabilities, labels, ignore_index, label)?;
    let scales = match reduction {
        None => dloss.floats().to_vec(),
        Some(reduction) => vec![dloss.number() * weight(reduction, &samples); samples.len()],
    };
    let mut result = Vec::with_capacity(probabilities.value.len());
    for ((row, label), scale) in samples.into_iter().zip(scales) {
        match label {
            Some(label) => result.extend(
                row.iter()
                    .enumerate()
                    .map(|(class, p)| scale * (p - f64::from(u8::from(class == label)))),
            ),
            None => result.resize(result.len() + row.len(), 0.0),
        }
    }
    Ok(floats(result))
}

pub(super) fn accuracy(
    probabilities: Local<'_>,
    labels: Local<'_>,
    weights: Option<Local<'_>>,
    ignore_index: Option<u32>,
    label: &dyn Fn() -> OpLabel,
) -> Result<Value> {
    let mut samples = samples(probabilities, labels, ignore_index, label)?;
    if let Some(weights) = weights {
        for ((_, label), &weight) in samples.iter_mut().zip(weights.ints()) {
            *label = label.filter(|_| weight != 0);
        }
    }
    let is_first_largest = |row: &[f64], label: usize| {
        let before = row[..label].iter().all(|&p| p < row[label]);
        before && row[label..].iter().all(|&p| p <= row[label])
    };
    let correct = samples
        .iter()
        .filter(|(row, label)| label.is_some_and(|label| is_first_largest(row, label)))
        .count();
    Ok(floats(vec![correct as f64, counted(&samples) as f64]))
}

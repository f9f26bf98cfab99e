//! Optimiser steps.

use super::value::{Value, floats};
use super::{Local, elementwise};
use crate::ir::BiasCorrection;

pub(super) fn adam_moment(
    moment: Local<'_>,
    gradient: Local<'_>,
    beta: f64,
    square: bool,
) -> Value {
    elementwise::zip(moment, gradient, |moment, gradient| {
        let term = if square {
            gradient * gradient
        } else {
            gradient
        };
        beta * moment + (1.0 - beta) * term
    })
}

/// Operands `m, v [, w] [, step]`.
pub(super) fn adam_updater(
    operands: &[Local<'_>],
    epsilon: f64,
    weight_decay: Option<f64>,
    bias_correction: Option<BiasCorrection>,
) -> Value {
    let (first_scale, second_scale) = match (bias_correction, operands.last()) {
        (Some(BiasCorrection { beta1, beta2 }), Some(step)) => (
            1.0 / (1.0 - libm::pow(beta1, step.number())),
            1.0 / (1.0 - libm::pow(beta2, step.number())),
        ),
        _ => (1.0, 1.0),
    };
    let moments = operands[0].floats().iter().zip(operands[1].floats());
    let mut result: Vec<f64> = moments
        .map(|(m, v)| m * first_scale / ((v * second_scale).sqrt() + epsilon))
        .collect();
    if let Some(decay) = weight_decay {
        for (x, w) in result.iter_mut().zip(operands[2].floats()) {
            *x += decay * w;
        }
    }
    floats(result)
}

/// Operands `w, x, |w|^2, |x|^2, lr`.
pub(super) fn lamb_update(operands: &[Local<'_>], max_weight_norm: f64) -> Value {
    let (weight, update) = (operands[2].number(), operands[3].number());
    let ratio = if weight == 0.0 || update == 0.0 || max_weight_norm == 0.0 {
        1.0
    } else {
        weight.sqrt().min(max_weight_norm) / update.sqrt()
    };
    let rate = operands[4].number() * ratio;
    elementwise::zip(operands[0], operands[1], |w, x| w - rate * x)
}

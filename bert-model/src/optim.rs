//! From an optimiser's options to the numbers of each weight.
//!
//! Source: `applications/popart/bert/bert_optimizer` and `utils/` of the published
//! application. Left out: schedules, and the update itself, which a pass builds.

mod hyper;

pub use hyper::{
    Correction, EPSILON_DEFAULT, HyperParameters, MAX_WEIGHT_NORM_DEFAULT, OptimizerKind,
    OptimizerOptions, StageScaling, hyper_parameters,
};

/// Whether weight decay applies to a weight of that name: biases and the weights
/// of norms are spared.
#[must_use]
pub fn decays(name: &str) -> bool {
    !["B", "Beta", "Gamma", "Bias"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

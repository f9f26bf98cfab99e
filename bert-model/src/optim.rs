//! From an optimiser's options to the update of each weight.
//!
//! Source: `applications/popart/bert/bert_optimizer` and `utils/` of the published
//! application. Left out: schedules, and the update itself, which a pass builds.

mod weight_updates;

pub use weight_updates::{
    GradientSums, OptimizerKind, OptimizerOptions, StageScaling, weight_updates,
};

/// Whether weight decay applies to a weight of that name: biases and the weights
/// of norms are spared.
#[must_use]
pub fn decays(name: &str) -> bool {
    !["B", "Beta", "Gamma", "Bias"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

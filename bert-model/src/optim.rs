//! From an optimiser's options to the update of each weight.
//!
//! Source: `applications/popart/bert/bert_optimizer` and `utils/` of the published
//! application. Left out: schedules, and the update itself, which a pass builds.

mod weight_updates;

pub use weight_updates::{
    GradientSums, LambNorms, OptimizerKind, OptimizerOptions, StageScaling, weight_updates,
};

/// Whether a weight of that name is added to what it meets: a bias, or the shift of a norm.
#[must_use]
pub fn is_added(name: &str) -> bool {
    ["B", "Beta", "Bias"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

/// Whether weight decay applies to a weight of that name: biases and the weights
/// of norms are spared.
#[must_use]
pub fn decays(name: &str) -> bool {
    !is_added(name) && !name.ends_with("Gamma")
}

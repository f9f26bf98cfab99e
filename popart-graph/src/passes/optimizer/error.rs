//! What can be wrong with an update of weights?

use crate::infer::InferError;

/// Why weights can't be updated so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptimizerError {
    /// A loss scale that isn't positive.
    #[error("loss_scale is out of range, expected above 0, got {got}")]
    LossScale {
        /// The loss scale.
        got: f64,
    },
    /// No micro-batch in a weight update.
    #[error("accumulation is out of range, expected at least 1, got 0")]
    NoMicroBatch,
    /// No replica.
    #[error("replicas is out of range, expected at least 1, got 0")]
    NoReplica,
    /// An operation that was to be added.
    #[error(transparent)]
    Infer(#[from] InferError),
}

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
    /// A limit on the norm of gradients that isn't positive.
    #[error("clip_norm is out of range, expected above 0, got {got}")]
    ClipNorm {
        /// The limit.
        got: f64,
    },
    /// Gradients to be clipped by their norm where no moments are made of them.
    #[error("gradients are clipped by their norm for Adam and LAMB only")]
    ClippedWithoutMoments,
    /// Gradients to be clipped by a norm that isn't known yet when the first of them is used.
    #[error(
        "the norm of all gradients isn't known before the first weights change: a pipeline that \
         clips gradients must accumulate them"
    )]
    ClippedInStages,
    /// An operation that was to be added.
    #[error(transparent)]
    Infer(#[from] InferError),
}

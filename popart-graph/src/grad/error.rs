//! Why has a loss no gradients?

use crate::infer::InferError;
use crate::ir::{Cycle, OpLabel, TensorId, TensorType};

/// The result of differentiating.
pub(super) type Result<T> = std::result::Result<T, GradError>;

/// Why a graph can't be differentiated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GradError {
    /// A gradient through an operation that has none.
    #[error("{op}: no gradient is defined")]
    NoGradient {
        /// Where.
        op: OpLabel,
    },
    /// A loss that is not one float.
    #[error("loss {tensor} `{name}` has type {got}, expected one float")]
    LossNotScalar {
        /// The loss.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// Its type.
        got: TensorType,
    },
    /// A gradient of something that the loss doesn't depend on.
    #[error("the loss doesn't depend on {tensor} `{name}`")]
    Independent {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// Operations wait for each other.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// An operation that was to be added.
    #[error(transparent)]
    Infer(#[from] InferError),
}

//! What can go wrong where a graph is made longer or walked through?

use super::OpId;
use crate::infer::InferError;

/// Operations that wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed graph: {op} `{name}` depends on itself")]
pub struct Cycle {
    /// One of them.
    pub op: OpId,
    /// Scope path of that operation.
    pub name: String,
}

/// Why operations can't be added to a graph, or not be put in order.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// Operations wait for each other.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// An operation that was to be added.
    #[error(transparent)]
    Infer(#[from] InferError),
}

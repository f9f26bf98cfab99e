//! Why has a graph no values?

use crate::ir::{Cycle, OpLabel, TensorId};

/// The result of an evaluation.
pub(super) type Result<T> = std::result::Result<T, EvalError>;

/// Why a graph can't be evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// A tensor without a value to evaluate the graph with.
    #[error("no value for {tensor} `{name}`")]
    ValueMissing {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// A value that doesn't fit its tensor.
    #[error(
        "the value of {tensor} `{name}` doesn't fit, expected {expected} elements of {dtype}, \
         got {got} of {got_dtype}"
    )]
    ValueSize {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// Elements it has.
        expected: usize,
        /// Its element type.
        dtype: &'static str,
        /// Elements of the value.
        got: usize,
        /// What the value's elements are.
        got_dtype: &'static str,
    },
    /// Values for another number of replicas.
    #[error(
        "{tensor} `{name}` has values for the wrong number of replicas, expected {expected}, \
         got {got}"
    )]
    ValueReplicas {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// Replicas evaluated.
        expected: u32,
        /// Replicas with a value.
        got: usize,
    },
    /// Shards that can't be dealt out to the replicas.
    #[error("{op}: {shards} shards don't divide {replicas} replicas")]
    Shards {
        /// Where.
        op: OpLabel,
        /// Shards of the tensor.
        shards: u32,
        /// Replicas evaluated.
        replicas: u32,
    },
    /// A label that no class has.
    #[error("{op}: label {label} of sample {sample} is outside {classes} classes")]
    Label {
        /// Where.
        op: OpLabel,
        /// Position of the sample.
        sample: usize,
        /// Its label.
        label: u32,
        /// Classes there are.
        classes: usize,
    },
    /// Operations wait for each other.
    #[error(transparent)]
    Cycle(#[from] Cycle),
}

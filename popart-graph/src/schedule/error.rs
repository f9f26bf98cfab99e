//! Why can operations not be put in order?

use crate::ir::{Cycle, OpId, TensorId};

/// Why a graph has no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// A variable whose new value is written before an operation has read the old one.
    #[error("{op} `{name}` reads {tensor} after its new value is written")]
    ReadAfterWrite {
        /// The reader.
        op: OpId,
        /// Its scope path.
        name: String,
        /// The variable.
        tensor: TensorId,
    },
    /// Operations wait for each other.
    #[error(transparent)]
    Cycle(#[from] Cycle),
}

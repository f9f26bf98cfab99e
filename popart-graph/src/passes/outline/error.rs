//! Why can code not be shared?

use crate::infer::InferError;
use crate::ir::Cycle;
use crate::schedule::ScheduleError;

/// Why a graph can't be outlined.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OutlineError {
    /// Operations have no order.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Operations wait for each other.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// A copy that was to be added.
    #[error(transparent)]
    Infer(#[from] InferError),
}

//! Everything that this crate refuses, as one type for whoever calls several of its parts.
//!
//! Each part has an error of its own and knows only those below it; this union stands at the door,
//! and nothing in the crate returns it. Faults of the crate's own code are assertions.

use crate::device::DeviceError;
use crate::execute::ExecuteError;
use crate::replica::ReplicaError;
use crate::spec::error::SpecError;
use crate::verify::VerifyError;
use crate::weigh::{OutOfMemory, OutOfStreamingMemory};

/// Error of any part of this crate: of a user, a file or a simulated machine.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The description of a machine.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The number of replicas.
    #[error(transparent)]
    Replicas(#[from] ReplicaError),
    /// A program.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The memory of a tile.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The memory beside an IPU-Machine.
    #[error(transparent)]
    OutOfStreamingMemory(#[from] OutOfStreamingMemory),
    /// The values of a program.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A device, or what runs there.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

//! What can go wrong when a device is attached, loaded, run or read?
//!
//! What the driver finds, and what it hears from the floors below: [`crate::verify`],
//! [`crate::weigh`] and [`crate::execute`].

use std::io;
use std::time::Duration;

use super::failure::{ErrorClass, Fault, Recovery};
use super::inventory::DeviceId;
use super::ports::LockFailure;
use crate::execute::ExecuteError;
use crate::ids::IpuId;
use crate::replica::ReplicaError;
use crate::verify::{BadProgram, VerifyError};
use crate::weigh::{OutOfMemory, OutOfStreamingMemory};

/// The result of everything that a driver does.
pub(super) type Result<T> = std::result::Result<T, DeviceError>;

/// Why a device couldn't be attached, loaded, run or read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// The machine has fewer devices.
    #[error("expected one of {n_devices} devices, got {device}")]
    NoSuchDevice {
        /// The device asked for.
        device: DeviceId,
        /// Devices there are, numbered from 0.
        n_devices: usize,
    },
    /// The machine has no groups of this size.
    #[error("`{machine}` has no device of {n_ipus} IPUs, expected a power of two up to {most}")]
    NoSuchGroup {
        /// IPUs asked for.
        n_ipus: u32,
        /// The machine.
        machine: String,
        /// IPUs of its largest device.
        most: u32,
    },
    /// A device has an IPU that is attached already.
    #[error("failed to acquire {device}: {ipu} is attached already (after {waited:?})")]
    DeviceBusy {
        /// The device asked for.
        device: DeviceId,
        /// The first of its IPUs that isn't free.
        ipu: IpuId,
        /// Host time spent on waiting for it.
        waited: Duration,
    },
    /// All devices of a size have IPUs that are attached already.
    #[error("failed to acquire a device of {n_ipus} IPUs: none is free (after {waited:?})")]
    NoFreeDevice {
        /// IPUs asked for.
        n_ipus: u32,
        /// Host time spent on waiting for one.
        waited: Duration,
    },
    /// The locks that keep other processes off a device don't work.
    #[error("failed to lock {device}")]
    LockFailed {
        /// The device asked for.
        device: DeviceId,
        /// What the locks say.
        source: LockFailure,
    },
    /// The host has no thread left for a device.
    #[error(
        "failed to start a thread for {device}: {kind}; end other processes of this user, or raise \
         the limit of processes (`ulimit -u`)"
    )]
    NoDeviceThread {
        /// The device asked for.
        device: DeviceId,
        /// What the system says.
        kind: io::ErrorKind,
    },
    /// A device that is attached offline can't do anything.
    #[error("{device} is offline: programs can be loaded there, but not run")]
    Offline {
        /// The device.
        device: DeviceId,
    },
    /// An IPU of another device keeps the machine from being recovered as a whole.
    #[error("the machine can't be reset: {ipu} is attached")]
    PartitionInUse {
        /// The first such IPU.
        ipu: IpuId,
    },
    /// A program uses a stream to which the host has connected nothing.
    #[error("stream `{stream}` is not connected")]
    StreamNotConnected {
        /// The stream.
        stream: String,
    },
    /// A run came to no sync with the host for too long.
    #[error("{device} didn't sync with the host within {timeout:?} (host time)")]
    HostSyncTimeout {
        /// The device.
        device: DeviceId,
        /// The longest time that was allowed.
        timeout: Duration,
    },
    /// A stream's host side panicked in the middle of a run.
    #[error("the host left a run of {device} before its end")]
    HostLeft {
        /// The device.
        device: DeviceId,
    },
    /// Something happened to the machine.
    #[error("{device}: {fault}, {}", recovery(*class))]
    Hardware {
        /// The device.
        device: DeviceId,
        /// What happened.
        fault: Fault,
        /// Whether and how it can be brought back.
        class: ErrorClass,
    },
    /// The simulator of a device has a bug.
    #[error("{device} failed: {panic}")]
    DeviceFailed {
        /// The device.
        device: DeviceId,
        /// The words of its panic, which are all that a panic leaves.
        panic: String,
    },
    /// The machine has no room for the replicas of a program.
    #[error(transparent)]
    Replicas(#[from] ReplicaError),
    /// A program breaks a rule of [`crate::verify`].
    #[error(transparent)]
    BadProgram(Box<BadProgram>),
    /// An executable for another number of IPUs than the device has.
    #[error("`{executable}`: expected a device of {expected} IPUs, got one of {got}")]
    WrongIpuCount {
        /// The executable.
        executable: String,
        /// IPUs of the smallest device with room for all replicas.
        expected: u64,
        /// IPUs of the device.
        got: u32,
    },
    /// An executable for a larger chip.
    #[error("`{executable}`: expected at most {available} tiles on an IPU, got {needed}")]
    TooManyTiles {
        /// The executable.
        executable: String,
        /// Tiles of an IPU of the machine.
        available: u32,
        /// Tiles that the program uses on one IPU.
        needed: u32,
    },
    /// An executable takes more memory than a tile has.
    #[error(transparent)]
    OutOfMemory(Box<OutOfMemory>),
    /// An executable takes more streaming memory than an IPU-Machine has.
    #[error(transparent)]
    OutOfStreamingMemory(#[from] OutOfStreamingMemory),
    /// An executable has no variable, stream, buffer or replica of this number.
    #[error("expected a {what} below {count}, got {number}")]
    NoSuchId {
        /// What was asked for.
        what: &'static str,
        /// Its number.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// A name that none or several variables or streams have.
    #[error("expected one {what} of the name `{name}`, got {found}")]
    NotOne {
        /// What was asked for.
        what: &'static str,
        /// Its name.
        name: String,
        /// How many have it.
        found: usize,
    },
    /// The values of a program went wrong.
    #[error(transparent)]
    Execute(Box<ExecuteError>),
}

impl DeviceError {
    /// The class that Poplar or PopART would give this error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoSuchDevice { .. }
            | Self::NoSuchGroup { .. }
            | Self::Replicas(_)
            | Self::BadProgram(_)
            | Self::WrongIpuCount { .. }
            | Self::TooManyTiles { .. } => ErrorClass::Setup,
            Self::OutOfMemory(_) | Self::OutOfStreamingMemory(_) => ErrorClass::Memory,
            Self::DeviceBusy { .. }
            | Self::NoFreeDevice { .. }
            | Self::PartitionInUse { .. }
            | Self::LockFailed { .. }
            | Self::NoDeviceThread { .. }
            | Self::Offline { .. } => ErrorClass::Acquisition,
            // No source says what a host-sync time-out counts as. On a healthy machine only a
            // program that takes too long can be its cause.
            Self::NoSuchId { .. }
            | Self::NotOne { .. }
            | Self::StreamNotConnected { .. }
            | Self::Execute(_)
            | Self::HostSyncTimeout { .. }
            | Self::HostLeft { .. } => ErrorClass::Application,
            Self::Hardware { class, .. } => *class,
            // A bug of the simulator: no recovery action is known to help.
            Self::DeviceFailed { .. } => ErrorClass::Unknown,
        }
    }
}

/// What to do about an error of this class, for a message.
fn recovery(class: ErrorClass) -> String {
    match class.recovery() {
        Recovery::Nothing => "nothing to recover".to_owned(),
        Recovery::Action(action) => format!("recovery action {action}"),
        Recovery::Impossible => "no recovery action".to_owned(),
    }
}

impl From<VerifyError> for DeviceError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Replicas(error) => Self::Replicas(error),
            VerifyError::BadProgram(error) => Self::BadProgram(error),
        }
    }
}

impl From<OutOfMemory> for DeviceError {
    fn from(error: OutOfMemory) -> Self {
        Self::OutOfMemory(Box::new(error))
    }
}

impl From<ExecuteError> for DeviceError {
    fn from(error: ExecuteError) -> Self {
        Self::Execute(Box::new(error))
    }
}

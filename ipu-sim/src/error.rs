//! What can go wrong by the fault of a user, a file or a simulated machine.
//!
//! Faults of this crate's own code are assertions, not variants.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::device::{DeviceId, ErrorClass, Fault, Recovery};
use crate::execute::ExecuteError;
use crate::ids::IpuId;
use crate::spec::quantity::Dimension;
use crate::spec::suggest::did_you_mean;
use crate::units::Bytes;
use crate::verify::BadProgram;
use crate::weigh::OutOfMemory;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything this crate refuses, with the facts of each case.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A machine description says something that can't be.
    #[error("{place}: {fault}")]
    Description {
        /// Where in which file.
        place: Place,
        /// What is wrong there.
        fault: Box<DescriptionFault>,
    },
    /// A constant of a machine was to be changed to what can't be.
    #[error("{fault}")]
    Constant {
        /// What is wrong.
        fault: Box<DescriptionFault>,
    },
    /// A machine description, with its bases, leaves something out.
    #[error("the machine description doesn't give `{key}`")]
    DescriptionIncomplete {
        /// The absent key.
        key: &'static str,
    },
    /// No machine of this name is shipped.
    #[error("no machine `{name}` is shipped, expected one of {}", shipped.join(", "))]
    UnknownMachine {
        /// The name asked for.
        name: String,
        /// The names there are.
        shipped: Vec<&'static str>,
    },
    /// More replicas than the machine has room for.
    #[error(
        "{n_replicas} replicas of {ipus_per_replica} IPUs don't fit, expected at most {n_ipus} \
         IPUs, got {}",
        u64::from(*n_replicas) * u64::from(*ipus_per_replica)
    )]
    ReplicasDontFit {
        /// Replicas wanted.
        n_replicas: u32,
        /// IPUs of each.
        ipus_per_replica: u32,
        /// IPUs of the machine.
        n_ipus: u32,
    },
    /// A replica, or a machine, of nothing.
    #[error("expected at least one replica of at least one IPU")]
    NoReplicas,
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
    #[error("failed to lock {device}: {message}")]
    LockFailed {
        /// The device asked for.
        device: DeviceId,
        /// What the system says.
        message: String,
    },
    /// The host has no thread left for a device.
    #[error("failed to start {device}: {kind}")]
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
    #[error("{device} failed: {message}")]
    DeviceFailed {
        /// The device.
        device: DeviceId,
        /// The message of its panic.
        message: String,
    },
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
    #[error(
        "out of streaming memory beside IPU-Machine {ipu_machine}: expected at most {available}, \
         got {needed}"
    )]
    OutOfStreamingMemory {
        /// The first one of the device that overflows.
        ipu_machine: u32,
        /// Its streaming memory.
        available: Bytes,
        /// Bytes of the buffers of all replicas that lie there.
        needed: Bytes,
    },
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

/// What to do about an error of this class, for a message.
fn recovery(class: ErrorClass) -> String {
    match class.recovery() {
        Recovery::Nothing => "nothing to recover".to_owned(),
        Recovery::Action(action) => format!("recovery action {action}"),
        Recovery::Impossible => "no recovery action".to_owned(),
    }
}

impl From<OutOfMemory> for Error {
    fn from(error: OutOfMemory) -> Self {
        Self::OutOfMemory(Box::new(error))
    }
}

impl From<Box<BadProgram>> for Error {
    fn from(error: Box<BadProgram>) -> Self {
        Self::BadProgram(error)
    }
}

impl From<ExecuteError> for Error {
    fn from(error: ExecuteError) -> Self {
        Self::Execute(Box::new(error))
    }
}

/// A position in a machine description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shipped base it lies in; none in the description itself.
    pub base: Option<String>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(base) = &self.base {
            write!(f, "base `{base}`, ")?;
        }
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// What is wrong at one place of a machine description.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DescriptionFault {
    /// Not TOML, or not of the form of a description.
    #[error("{message}")]
    Form {
        /// What the TOML reader says.
        message: String,
    },
    /// A constant nobody reads.
    #[error(
        "unknown constant `{key}`{}, expected one of {}",
        did_you_mean(meant.as_deref()), expected.join(", ")
    )]
    UnknownConstant {
        /// Its full key.
        key: String,
        /// The constant that was probably meant.
        meant: Option<String>,
        /// The keys of that section.
        expected: Vec<String>,
    },
    /// A base that isn't shipped.
    #[error(
        "unknown base `{base}`{}, expected one of {}",
        did_you_mean(*meant), expected.join(", ")
    )]
    UnknownBase {
        /// The base named.
        base: String,
        /// The base that was probably meant.
        meant: Option<&'static str>,
        /// The bases there are.
        expected: Vec<&'static str>,
    },
    /// Not a number with a unit, where one was expected.
    #[error("`{key}`: expected {}, got `{found}`", expected.example())]
    NotAQuantity {
        /// The constant.
        key: &'static str,
        /// What it measures.
        expected: Dimension,
        /// What stands there.
        found: String,
    },
    /// A unit of something else, or of nothing.
    #[error("`{key}`: expected a unit of {}, got `{unit}`", expected.unit_names())]
    WrongUnit {
        /// The constant.
        key: &'static str,
        /// What it measures.
        expected: Dimension,
        /// The unit given.
        unit: String,
    },
    /// Zero, where the machine couldn't work with it.
    #[error("`{key}`: expected more than zero")]
    Zero {
        /// The constant.
        key: &'static str,
    },
    /// A fraction of something indivisible.
    #[error("`{key}`: expected a whole number of {}, got `{found}`", expected.base_unit())]
    NotWhole {
        /// The constant.
        key: &'static str,
        /// What it measures.
        expected: Dimension,
        /// What stands there.
        found: String,
    },
    /// More than any machine has, or than this program can count.
    #[error("`{key}`: expected at most {most}, got `{found}`")]
    TooLarge {
        /// The constant.
        key: &'static str,
        /// The largest value that is accepted.
        most: &'static str,
        /// What stands there.
        found: String,
    },
    /// Less than any machine has.
    #[error("`{key}`: expected at least {least}, got `{found}`")]
    TooSmall {
        /// The constant.
        key: &'static str,
        /// The smallest value that is accepted.
        least: &'static str,
        /// What stands there.
        found: String,
    },
    /// The value lies outside the constant's own range.
    #[error("`{key}`: expected a value from `{low}` to `{high}`, its own range, got `{found}`")]
    OutsideRange {
        /// The constant.
        key: &'static str,
        /// Lower end of the range.
        low: String,
        /// Upper end of the range.
        high: String,
        /// The value.
        found: String,
    },
    /// A range of a constant that is no number.
    #[error("`{key}`: expected no range, since a word is no number")]
    RangeOfWords {
        /// The constant.
        key: &'static str,
    },
    /// Not one of the words that have a meaning here.
    #[error("`{key}`: expected one of {}, got `{found}`", expected.join(", "))]
    UnknownWord {
        /// The constant.
        key: &'static str,
        /// The words there are.
        expected: Vec<&'static str>,
        /// What stands there.
        found: String,
    },
    /// Two constants contradict each other: not a multiple.
    #[error("`{key}`: expected a multiple of {of} ({of_what}), got {value}")]
    NotAMultiple {
        /// The constant.
        key: &'static str,
        /// What it should be a multiple of.
        of: u64,
        /// What that is.
        of_what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A range whose ends are the wrong way round.
    #[error("`{key}`: expected a range with its lower end first, got `{low}` to `{high}`")]
    ReversedRange {
        /// The constant.
        key: &'static str,
        /// The end written first.
        low: String,
        /// The other.
        high: String,
    },
    /// A source that says nothing.
    #[error("`{key}`: expected where the value is from, such as \"what if\", got an empty source")]
    EmptySource {
        /// The constant.
        key: &'static str,
    },
    /// Two constants contradict each other: one exceeds the other.
    #[error("`{key}`: expected at most {most} ({most_what}), got {value}")]
    MoreThan {
        /// The constant.
        key: &'static str,
        /// Its upper bound.
        most: u64,
        /// What that is.
        most_what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Two constants contradict each other: they should be equal.
    #[error("`{key}`: expected {expected} ({expected_what}), got {value}")]
    Unequal {
        /// The constant.
        key: &'static str,
        /// What it should be.
        expected: u64,
        /// What that is.
        expected_what: &'static str,
        /// Its value.
        value: u64,
    },
}

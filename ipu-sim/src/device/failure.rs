//! What goes wrong on a device, and what brings it back.
//!
//! Classes and recovery actions are those of Poplar (Poplar API reference, "Exceptions"; Model
//! Runtime, "Error handling"), which every framework above it passes on under names of its own:
//!
//! | class | cause | what then |
//! | --- | --- | --- |
//! | [`ErrorClass::Setup`] | a program or a machine that can't be | nothing has started |
//! | [`ErrorClass::Memory`] | a program that doesn't fit | nothing has started |
//! | [`ErrorClass::Acquisition`] | a device that others have | nothing has started |
//! | [`ErrorClass::Application`] | the program, or the way it is used | reset the IPUs |
//! | [`ErrorClass::Recoverable`] | the hardware, for the moment | the action that it names |
//! | [`ErrorClass::Unrecoverable`] | the hardware, for good | take it out of service |
//! | [`ErrorClass::Unknown`] | nobody knows | call somebody |
//!
//! A healthy machine shows the first four only: programs cause them. The others come from the
//! machine itself, through the port [`Hardware`].

use std::fmt;

use super::inventory::DeviceId;
use crate::error::Error;
use crate::ids::{IpuId, TileId};
use crate::spec::MachineSpec;

/// How to bring a device back. A later one does all that an earlier one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecoveryAction {
    /// Resets the IPUs of the device and loads their memory again; nobody else notices.
    IpuReset,
    /// Trains the IPU-Links of a machine that is no pod again.
    LinkReset,
    /// The same for the partition of a pod.
    PartitionReset,
    /// Power off, power on.
    FullReset,
}

impl RecoveryAction {
    /// As Poplar and its Python bindings call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IpuReset => "IPU_RESET",
            Self::LinkReset => "LINK_RESET",
            Self::PartitionReset => "PARTITION_RESET",
            Self::FullReset => "FULL_RESET",
        }
    }

    /// Whether it concerns all IPUs of the machine, so that nobody else may be attached.
    #[must_use]
    pub fn is_for_all(self) -> bool {
        self > Self::IpuReset
    }
}

impl fmt::Display for RecoveryAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose fault an error is, and what helps: the classes of Poplar's exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// What was asked for can't be built.
    Setup,
    /// It could be built, but takes more memory than there is.
    Memory,
    /// There is no such device to be had.
    Acquisition,
    /// The program is wrong, or wrongly used.
    Application,
    /// The hardware failed and is likely to work again after this.
    Recoverable(RecoveryAction),
    /// The hardware failed and will fail again.
    Unrecoverable,
    /// Something failed that nobody has an explanation for.
    Unknown,
}

impl ErrorClass {
    /// The exception of Poplar, or of PopART where Poplar has no part in it.
    #[must_use]
    pub fn poplar_name(self) -> &'static str {
        match self {
            Self::Setup => "poplar_error",
            Self::Memory => "graph_memory_allocation_error",
            Self::Acquisition => "popart::error",
            Self::Application => "application_runtime_error",
            Self::Recoverable(_) => "recoverable_runtime_error",
            Self::Unrecoverable => "unrecoverable_runtime_error",
            Self::Unknown => "unknown_runtime_error",
        }
    }

    /// The exception of PopART's Python bindings.
    #[must_use]
    pub fn python_name(self) -> &'static str {
        match self {
            Self::Setup | Self::Memory => "poplar_exception",
            Self::Acquisition => "popart_exception",
            Self::Application => "poplar_application_runtime_error",
            Self::Recoverable(_) => "poplar_recoverable_runtime_error",
            Self::Unrecoverable => "poplar_unrecoverable_runtime_error",
            Self::Unknown => "poplar_unknown_runtime_error",
        }
    }

    /// What a run that ends with such an error needs before the next one.
    #[must_use]
    pub fn recovery(self) -> Recovery {
        match self {
            Self::Setup | Self::Memory | Self::Acquisition => Recovery::Nothing,
            Self::Application => Recovery::Action(RecoveryAction::IpuReset),
            Self::Recoverable(action) => Recovery::Action(action),
            Self::Unrecoverable | Self::Unknown => Recovery::Impossible,
        }
    }
}

/// What a device needs after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing: it never started.
    Nothing,
    /// This, or more.
    Action(RecoveryAction),
    /// There is none that the driver could carry out.
    Impossible,
}

/// What a device answers to.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Everything.
    Ready,
    /// It stands where a run failed. Values and counters can be read unless it needs a power
    /// cycle; all else gets `cause` again until `action`, or one that does more, is carried out.
    Stopped {
        /// What stopped it.
        cause: Error,
        /// What brings it back.
        action: RecoveryAction,
    },
    /// Nothing any more but being detached; everything gets `cause`.
    OutOfService {
        /// What took it out of service.
        cause: Error,
    },
}

impl Condition {
    /// After a run that ended with `error`.
    pub(super) fn after(error: &Error) -> Self {
        let cause = error.clone();
        match error.class().recovery() {
            Recovery::Nothing => Self::Ready,
            Recovery::Action(action) => Self::Stopped { cause, action },
            Recovery::Impossible => Self::OutOfService { cause },
        }
    }

    /// Refuses what starts something.
    pub(super) fn check_ready(&self) -> Result<(), Error> {
        match self {
            Self::Ready => Ok(()),
            Self::Stopped { cause, .. } | Self::OutOfService { cause } => Err(cause.clone()),
        }
    }

    /// Refuses what only looks.
    pub(super) fn check_readable(&self) -> Result<(), Error> {
        match self {
            Self::Stopped { action, .. } if *action < RecoveryAction::FullReset => Ok(()),
            other => other.check_ready(),
        }
    }

    /// Refuses an action that isn't enough.
    pub(super) fn check_action(&self, taken: RecoveryAction) -> Result<(), Error> {
        match self {
            Self::Stopped { action, .. } if *action <= taken => Ok(()),
            other => other.check_ready(),
        }
    }
}

/// What befalls a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A word of a tile's memory doesn't have the parity it was stored with.
    Parity {
        /// The IPU, numbered in the machine.
        ipu: IpuId,
        /// The tile.
        tile: TileId,
    },
    /// The links between two IPUs lost their training.
    LinkDown {
        /// One IPU, numbered in the machine.
        one: IpuId,
        /// The other.
        other: IpuId,
    },
    /// An IPU answers nothing, not even a reset.
    Hung {
        /// The IPU, numbered in the machine.
        ipu: IpuId,
    },
    /// The host has lost the way to an IPU: the server in its IPU-Machine doesn't answer.
    Unreachable {
        /// The IPU, numbered in the machine.
        ipu: IpuId,
    },
    /// An IPU reports an error that isn't in any list.
    Unexplained {
        /// The IPU, numbered in the machine.
        ipu: IpuId,
        /// What it reports.
        code: u32,
    },
}

impl Fault {
    /// The class of the error that it raises on `machine`.
    ///
    /// Parity and links: Poplar API reference, "Exceptions" (reload memory; retrain links, of the
    /// partition in a pod). Unreachable: graphcore/poptorch, issue 14. Hung: assumed.
    #[must_use]
    pub fn class(self, machine: &MachineSpec) -> ErrorClass {
        match self {
            Self::Parity { .. } => ErrorClass::Recoverable(RecoveryAction::IpuReset),
            // IPU-Machines, which pods are made of, are what has gateways.
            Self::LinkDown { .. } if machine.gateway.is_some() => {
                ErrorClass::Recoverable(RecoveryAction::PartitionReset)
            }
            Self::LinkDown { .. } => ErrorClass::Recoverable(RecoveryAction::LinkReset),
            Self::Hung { .. } => ErrorClass::Recoverable(RecoveryAction::FullReset),
            Self::Unreachable { .. } => ErrorClass::Unrecoverable,
            Self::Unexplained { .. } => ErrorClass::Unknown,
        }
    }

    /// The error that it raises on a device of `machine`.
    pub(super) fn error(self, device: DeviceId, machine: &MachineSpec) -> Error {
        Error::Hardware {
            device,
            fault: self,
            class: self.class(machine),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parity { ipu, tile } => write!(f, "parity error on {ipu}, {tile}"),
            Self::LinkDown { one, other } => {
                write!(f, "the IPU-Links between {one} and {other} are down")
            }
            Self::Hung { ipu } => write!(f, "{ipu} doesn't answer"),
            Self::Unreachable { ipu } => write!(f, "{ipu} can't be reached"),
            Self::Unexplained { ipu, code } => {
                write!(f, "{ipu} reports the unknown error {code:#x}")
            }
        }
    }
}

/// The health of a machine, as its driver notices it.
///
/// It is asked about the IPUs of a device whenever that is loaded or recovered, and during a run
/// before every step.
pub trait Hardware: Send + Sync {
    /// What is wrong with these IPUs (numbers in the machine) or the links between them.
    fn fault(&self, ipus: &[IpuId]) -> Option<Fault>;

    /// Hears that `action` has been carried out on these IPUs.
    fn recovered(&self, ipus: &[IpuId], action: RecoveryAction);
}

/// A machine to which nothing ever happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Healthy;

impl Hardware for Healthy {
    fn fault(&self, _: &[IpuId]) -> Option<Fault> {
        None
    }

    fn recovered(&self, _: &[IpuId], _: RecoveryAction) {}
}

impl Error {
    /// The class that Poplar or PopART would give this error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Description { .. }
            | Self::Constant { .. }
            | Self::DescriptionIncomplete { .. }
            | Self::UnknownMachine { .. }
            | Self::ReplicasDontFit { .. }
            | Self::NoReplicas
            | Self::NoSuchDevice { .. }
            | Self::NoSuchGroup { .. }
            | Self::BadProgram(_)
            | Self::WrongIpuCount { .. }
            | Self::TooManyTiles { .. } => ErrorClass::Setup,
            Self::OutOfMemory(_) | Self::OutOfStreamingMemory { .. } => ErrorClass::Memory,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::machine;

    const IPU: IpuId = IpuId(3);

    #[test]
    fn faults_have_the_classes_of_their_machine() {
        use RecoveryAction::{FullReset, IpuReset, LinkReset, PartitionReset};
        let tile = TileId(7);
        let other = IpuId(4);
        for (fault, server, pod, text) in [
            (
                Fault::Parity { ipu: IPU, tile },
                ErrorClass::Recoverable(IpuReset),
                ErrorClass::Recoverable(IpuReset),
                "parity error on IPU 3, tile 7",
            ),
            (
                Fault::LinkDown { one: IPU, other },
                ErrorClass::Recoverable(LinkReset),
                ErrorClass::Recoverable(PartitionReset),
                "the IPU-Links between IPU 3 and IPU 4 are down",
            ),
            (
                Fault::Hung { ipu: IPU },
                ErrorClass::Recoverable(FullReset),
                ErrorClass::Recoverable(FullReset),
                "IPU 3 doesn't answer",
            ),
            (
                Fault::Unreachable { ipu: IPU },
                ErrorClass::Unrecoverable,
                ErrorClass::Unrecoverable,
                "IPU 3 can't be reached",
            ),
            (
                Fault::Unexplained { ipu: IPU, code: 65 },
                ErrorClass::Unknown,
                ErrorClass::Unknown,
                "IPU 3 reports the unknown error 0x41",
            ),
        ] {
            assert_eq!(fault.class(&machine("mk1-server16")), server, "{fault}");
            assert_eq!(fault.class(&machine("bow-pod16")), pod, "{fault}");
            assert_eq!(fault.to_string(), text);
        }
    }

    #[test]
    fn a_stronger_action_is_enough_and_a_weaker_one_is_not() {
        use RecoveryAction::{FullReset, IpuReset, LinkReset, PartitionReset};
        let actions = [IpuReset, LinkReset, PartitionReset, FullReset];
        for (needed, &action) in actions.iter().enumerate() {
            let cause = Error::NoReplicas;
            let condition = Condition::Stopped { cause, action };
            for (taken, &given) in actions.iter().enumerate() {
                assert_eq!(condition.check_action(given).is_ok(), taken >= needed);
            }
            assert_eq!(condition.check_readable().is_ok(), action != FullReset);
            assert_eq!(action.is_for_all(), action != IpuReset);
        }
    }
}

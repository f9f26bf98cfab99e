//! What goes wrong on a machine, and what brings a device back?
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
    /// Name of the action in Poplar and its Python bindings.
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

/// Class of an error, as of Poplar's exceptions: whose fault it is, and what helps.
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

    /// Recovery that a run which ends with such an error needs before the next one.
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

/// Recovery that a device needs after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing: it never started.
    Nothing,
    /// This, or more.
    Action(RecoveryAction),
    /// There is none that the driver could carry out.
    Impossible,
}

/// Accident of a machine.
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
pub struct HealthyHardware;

impl Hardware for HealthyHardware {
    fn fault(&self, _: &[IpuId]) -> Option<Fault> {
        None
    }

    fn recovered(&self, _: &[IpuId], _: RecoveryAction) {}
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
}

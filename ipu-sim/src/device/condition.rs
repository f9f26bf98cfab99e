//! What does a device answer to, after what went wrong on it?

use super::error::DeviceError;
use super::failure::{Recovery, RecoveryAction};

/// State of a device, which says what requests it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Everything.
    Ready,
    /// It stands where a run failed. Values and counters can be read unless it needs a power
    /// cycle; all else gets `cause` again until `action`, or one that does more, is carried out.
    Stopped {
        /// What stopped it.
        cause: DeviceError,
        /// What brings it back.
        action: RecoveryAction,
    },
    /// Nothing any more but being detached; everything gets `cause`.
    OutOfService {
        /// What took it out of service.
        cause: DeviceError,
    },
}

impl Condition {
    /// After a run that ended with `error`.
    pub(super) fn after(error: &DeviceError) -> Self {
        let cause = error.clone();
        match error.class().recovery() {
            Recovery::Nothing => Self::Ready,
            Recovery::Action(action) => Self::Stopped { cause, action },
            Recovery::Impossible => Self::OutOfService { cause },
        }
    }

    /// Refuses what starts something.
    pub(super) fn check_ready(&self) -> Result<(), DeviceError> {
        match self {
            Self::Ready => Ok(()),
            Self::Stopped { cause, .. } | Self::OutOfService { cause } => Err(cause.clone()),
        }
    }

    /// Refuses what only looks.
    pub(super) fn check_readable(&self) -> Result<(), DeviceError> {
        match self {
            Self::Stopped { action, .. } if *action < RecoveryAction::FullReset => Ok(()),
            other => other.check_ready(),
        }
    }

    /// Refuses an action that isn't enough.
    pub(super) fn check_action(&self, taken: RecoveryAction) -> Result<(), DeviceError> {
        match self {
            Self::Stopped { action, .. } if *action <= taken => Ok(()),
            other => other.check_ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceId;

    #[test]
    fn a_stronger_action_is_enough_and_a_weaker_one_is_not() {
        use RecoveryAction::{FullReset, IpuReset, LinkReset, PartitionReset};
        let actions = [IpuReset, LinkReset, PartitionReset, FullReset];
        for (needed, &action) in actions.iter().enumerate() {
            let cause = DeviceError::HostLeft {
                device: DeviceId(0),
            };
            let condition = Condition::Stopped { cause, action };
            for (taken, &given) in actions.iter().enumerate() {
                assert_eq!(condition.check_action(given).is_ok(), taken >= needed);
            }
            assert_eq!(condition.check_readable().is_ok(), action != FullReset);
            assert_eq!(action.is_for_all(), action != IpuReset);
        }
    }
}

//! A device that is attached and has nothing loaded; how it is loaded is in `loaded`.

use std::fmt;
use std::sync::Arc;

use super::condition::Condition;
use super::error::{DeviceError, Result};
use super::failure::RecoveryAction;
use super::inventory::Device;
use super::lease::Lease;
use super::thread::DeviceThread;
use crate::spec::MachineSpec;

/// An attached device. Dropping it detaches it.
///
/// It has no way to run anything:
///
/// ```compile_fail,E0599
/// use ipu_sim::device::{AttachedDevice, Mode};
///
/// fn run_unloaded(mut attached: AttachedDevice) {
///     attached.run(Mode::Time);
/// }
/// ```
pub struct AttachedDevice {
    device: Device,
    machine: Arc<MachineSpec>,
    /// None offline.
    link: Option<OnlineDevice>,
    /// What it answers to.
    pub(super) condition: Condition,
}

/// The way to a device. The thread ends before others get the IPUs.
pub(super) struct OnlineDevice {
    pub(super) thread: DeviceThread,
    pub(super) lease: Lease,
}

impl AttachedDevice {
    /// Starts the device.
    pub(super) fn online(machine: Arc<MachineSpec>, lease: Lease) -> Result<Self> {
        Ok(Self {
            device: lease.device,
            machine,
            link: Some(OnlineDevice {
                thread: DeviceThread::start(lease.device.id)?,
                lease,
            }),
            condition: Condition::Ready,
        })
    }

    /// Holds no IPU.
    pub(super) fn offline(device: Device, machine: Arc<MachineSpec>) -> Self {
        Self {
            device,
            machine,
            link: None,
            condition: Condition::Ready,
        }
    }

    /// The way to the device; none offline.
    pub(super) fn link(&self) -> Option<&OnlineDevice> {
        self.link.as_ref()
    }

    /// The device that is attached.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The machine that it is part of.
    #[must_use]
    pub fn machine(&self) -> &Arc<MachineSpec> {
        &self.machine
    }

    /// State of the device, which says what requests it answers.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Carries out a recovery action. Other devices don't notice a reset of these IPUs; all else
    /// is for the whole machine, so nobody else may be attached there.
    ///
    /// # Errors
    ///
    /// What stopped the device if the action isn't enough; [`DeviceError::PartitionInUse`];
    /// [`DeviceError::Hardware`] if something is wrong with the machine all the same;
    /// [`DeviceError::Offline`].
    pub fn recover(&mut self, action: RecoveryAction) -> Result<()> {
        self.condition.check_action(action)?;
        let link = self.link.as_ref().ok_or(DeviceError::Offline {
            device: self.device.id,
        })?;
        let outcome = link.lease.recover(action);
        match &outcome {
            Ok(()) => self.condition = Condition::Ready,
            // Nothing has been done, so nothing has changed.
            Err(DeviceError::PartitionInUse { .. } | DeviceError::LockFailed { .. }) => {}
            Err(error) => self.condition = Condition::after(error),
        }
        outcome
    }

    /// Lets others attach the device, as dropping does.
    pub fn detach(self) {}
}

impl fmt::Debug for AttachedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachedDevice")
            .field("device", &self.device)
            .field("is_offline", &self.link.is_none())
            .field("condition", &self.condition)
            .finish_non_exhaustive()
    }
}

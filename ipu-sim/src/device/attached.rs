//! A device that is attached and has nothing loaded.

use std::fmt;
use std::sync::Arc;

use super::executable::{Executable, fit};
use super::inventory::Device;
use super::loaded::Loaded;
use super::manager::Lease;
use super::thread::DeviceThread;
use crate::error::Result;
use crate::spec::MachineSpec;

/// An attached device. Dropping it detaches it.
///
/// It has no way to run anything:
///
/// ```compile_fail,E0599
/// use ipu_sim::device::{Attached, Mode};
///
/// fn run_unloaded(mut attached: Attached) {
///     attached.run(Mode::Time);
/// }
/// ```
pub struct Attached {
    device: Device,
    machine: Arc<MachineSpec>,
    /// None offline.
    link: Option<Link>,
}

/// The way to a device. The thread ends before others get the IPUs.
pub(super) struct Link {
    pub(super) thread: DeviceThread,
    _lease: Lease,
}

impl Attached {
    /// Starts the device.
    pub(super) fn online(machine: Arc<MachineSpec>, lease: Lease) -> Result<Self> {
        Ok(Self {
            device: lease.device,
            machine,
            link: Some(Link {
                thread: DeviceThread::start(lease.device.id)?,
                _lease: lease,
            }),
        })
    }

    /// Holds no IPU.
    pub(super) fn offline(device: Device, machine: Arc<MachineSpec>) -> Self {
        Self {
            device,
            machine,
            link: None,
        }
    }

    /// The way to the device; none offline.
    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// What is attached.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The machine that it is part of.
    #[must_use]
    pub fn machine(&self) -> &Arc<MachineSpec> {
        &self.machine
    }

    /// Loads an executable. A refusal detaches the device.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::WrongIpuCount`] unless the device is the smallest group that has
    /// room for all replicas, [`crate::error::Error::TooManyTiles`] for a program of a larger
    /// chip, [`crate::error::Error::OutOfMemory`] with the fullest tile and its largest variables,
    /// [`crate::error::Error::OutOfStreamingMemory`], [`crate::error::Error::NoReplicas`] for a
    /// program of nothing, [`crate::error::Error::DeviceFailed`].
    pub fn load(self, executable: Executable) -> Result<Loaded> {
        let weight = fit(&executable, self.device, &self.machine)?;
        Loaded::new(self, executable, weight)
    }

    /// Lets others attach the device, as dropping does.
    pub fn detach(self) {}
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("device", &self.device)
            .field("is_offline", &self.link.is_none())
            .finish_non_exhaustive()
    }
}

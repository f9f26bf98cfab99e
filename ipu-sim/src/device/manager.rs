//! How a device is found and attached: enumerating, trying, waiting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::attached::AttachedDevice;
use super::error::{DeviceError, Result};
use super::inventory::{Device, DeviceId, devices};
use super::lease::{Lease, Shared};
use super::ports::{LockRefusal, Ports};
use super::sync::Mutex;
use crate::spec::MachineSpec;

/// Host time between two attempts to attach on demand (PopLibs, `TestDevice`).
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// How a device is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// At once or not at all.
    Always,
    /// As soon as it is free.
    OnDemand {
        /// Host time after which to give up.
        timeout: Duration,
    },
    /// Never: executables are loaded only to see whether they fit.
    Offline,
}

/// The devices of a machine. Clones manage the same devices.
#[derive(Clone)]
pub struct DeviceManager {
    shared: Arc<Shared>,
}

impl DeviceManager {
    /// Manages the devices of `machine`, in the world of `ports`.
    #[must_use]
    pub fn new(machine: MachineSpec, ports: Ports) -> Self {
        Self {
            shared: Arc::new(Shared {
                devices: devices(machine.n_ipus),
                machine: Arc::new(machine),
                attached: Mutex::default(),
                ports,
            }),
        }
    }

    /// All devices, by id: single IPUs, then groups of 2, 4, 8, ...
    #[must_use]
    pub fn enumerate(&self) -> &[Device] {
        &self.shared.devices
    }

    /// Attaches a device, so that nobody else can attach any of its IPUs.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoSuchDevice`]; [`DeviceError::DeviceBusy`] if one of its IPUs is attached,
    /// and stays so until the time-out of [`Connection::OnDemand`]; [`DeviceError::LockFailed`];
    /// [`DeviceError::NoDeviceThread`].
    pub fn attach(&self, id: DeviceId, connection: Connection) -> Result<AttachedDevice> {
        let device = self.shared.devices.get(id.0 as usize);
        let device = device.ok_or(DeviceError::NoSuchDevice {
            device: id,
            n_devices: self.shared.devices.len(),
        })?;
        self.attach_one_of(&[*device], connection)
    }

    /// Attaches the first free device of `n_ipus` IPUs.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoSuchGroup`]; [`DeviceError::NoFreeDevice`] if all are attached, and stay so
    /// until the time-out of [`Connection::OnDemand`]; otherwise as [`Self::attach`].
    pub fn attach_any(&self, n_ipus: u32, connection: Connection) -> Result<AttachedDevice> {
        let all = self.shared.devices.iter().copied();
        let devices: Vec<Device> = all.filter(|device| device.n_ipus == n_ipus).collect();
        if devices.is_empty() {
            return Err(DeviceError::NoSuchGroup {
                n_ipus,
                machine: self.shared.machine.name.clone(),
                most: self.shared.devices.last().map_or(0, |last| last.n_ipus),
            });
        }
        let attached = self.attach_one_of(&devices, connection);
        attached.map_err(|error| match error {
            DeviceError::DeviceBusy { waited, .. } => DeviceError::NoFreeDevice { n_ipus, waited },
            other => other,
        })
    }

    fn attach_one_of(&self, devices: &[Device], connection: Connection) -> Result<AttachedDevice> {
        let timeout = match connection {
            Connection::Always => Duration::ZERO,
            Connection::OnDemand { timeout } => timeout,
            Connection::Offline => {
                let machine = Arc::clone(&self.shared.machine);
                return Ok(AttachedDevice::offline(devices[0], machine));
            }
        };
        let lease = self.lease_one_of(devices, timeout)?;
        AttachedDevice::online(Arc::clone(&self.shared.machine), lease)
    }

    /// Tries all devices again and again until one is free or the time is over.
    fn lease_one_of(&self, devices: &[Device], timeout: Duration) -> Result<Lease> {
        let clock = &self.shared.ports.clock;
        let (mut last, mut waited) = (clock.now(), Duration::ZERO);
        loop {
            let mut busy = None;
            for &device in devices {
                match Lease::take(&self.shared, device) {
                    Ok(lease) => return Ok(lease),
                    Err(LockRefusal::Busy { ipu }) => busy = Some((device.id, ipu)),
                    Err(LockRefusal::Failed(source)) => {
                        let device = device.id;
                        return Err(DeviceError::LockFailed { device, source });
                    }
                }
            }
            let (device, ipu) = busy.expect("there is a device to try");
            // A clock that goes back has waited for nothing, and counts from there.
            let now = clock.now();
            waited = waited.saturating_add(now.saturating_sub(last));
            last = now;
            if waited >= timeout {
                return Err(DeviceError::DeviceBusy {
                    device,
                    ipu,
                    waited,
                });
            }
            clock.sleep(RETRY_PERIOD.min(timeout - waited));
        }
    }
}

impl fmt::Debug for DeviceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceManager")
            .field("machine", &self.shared.machine.name)
            .field("attached", &*self.shared.attached.lock())
            .finish_non_exhaustive()
    }
}

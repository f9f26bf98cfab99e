//! Who has which IPUs: enumerating, attaching, waiting, releasing.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::attached::AttachedDevice;
use super::error::{DeviceError, Result};
use super::failure::RecoveryAction;
use super::inventory::{Device, DeviceId, devices};
use super::ports::{LockGuard, LockRefusal, Ports};
use super::sync::Mutex;
use crate::ids::IpuId;
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

struct Shared {
    machine: Arc<MachineSpec>,
    devices: Vec<Device>,
    attached: Mutex<BTreeSet<IpuId>>,
    ports: Ports,
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
    /// [`DeviceError::NoSuchDevice`]; [`DeviceError::DeviceBusy`] if one of its IPUs is attached, and stays
    /// so until the time-out of [`Connection::OnDemand`]; [`DeviceError::LockFailed`];
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
    /// [`DeviceError::NoSuchGroup`]; [`DeviceError::NoFreeDevice`] if all are attached, and stay so until the
    /// time-out of [`Connection::OnDemand`]; otherwise as [`Self::attach`].
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
        let begin = clock.now();
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
            let waited = clock.now().saturating_sub(begin);
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

/// The right to use the IPUs of a device, until it is dropped.
pub(super) struct Lease {
    /// What may be used.
    pub(super) device: Device,
    shared: Arc<Shared>,
    hold: Hold,
}

impl Lease {
    fn take(shared: &Arc<Shared>, device: Device) -> std::result::Result<Self, LockRefusal> {
        let hold = Hold::take(shared, device.ipus().collect())?;
        Ok(Self {
            device,
            shared: Arc::clone(shared),
            hold,
        })
    }

    /// The world outside.
    pub(super) fn ports(&self) -> &Ports {
        &self.shared.ports
    }

    /// What is wrong with the device.
    pub(super) fn check_hardware(&self) -> Result<()> {
        match self.ports().hardware.fault(&self.hold.ipus) {
            Some(fault) => Err(DeviceError::Hardware {
                device: self.device.id,
                fault,
                class: fault.class(&self.shared.machine),
            }),
            None => Ok(()),
        }
    }

    /// Carries out a recovery action: on this device, or on the whole machine while nobody else
    /// is attached there.
    pub(super) fn recover(&self, action: RecoveryAction) -> Result<()> {
        let hardware = &self.ports().hardware;
        if action.is_for_all() {
            let all = (0..self.shared.machine.n_ipus).map(IpuId);
            let (own, others): (Vec<IpuId>, Vec<IpuId>) =
                all.partition(|ipu| self.hold.ipus.contains(ipu));
            let others = Hold::take(&self.shared, others).map_err(|refusal| match refusal {
                LockRefusal::Busy { ipu } => DeviceError::PartitionInUse { ipu },
                LockRefusal::Failed(source) => DeviceError::LockFailed {
                    device: self.device.id,
                    source,
                },
            })?;
            hardware.recovered(&[own, others.ipus.clone()].concat(), action);
        } else {
            hardware.recovered(&self.hold.ipus, action);
        }
        self.check_hardware()
    }
}

/// IPUs that nobody else can attach, in this process or another, until it is dropped.
struct Hold {
    ipus: Vec<IpuId>,
    shared: Arc<Shared>,
    guard: Option<LockGuard>,
}

impl Hold {
    fn take(shared: &Arc<Shared>, ipus: Vec<IpuId>) -> std::result::Result<Self, LockRefusal> {
        let mut attached = shared.attached.lock();
        if let Some(&ipu) = ipus.iter().find(|ipu| attached.contains(ipu)) {
            return Err(LockRefusal::Busy { ipu });
        }
        let guard = shared.ports.locks.try_lock(&ipus)?;
        attached.extend(&ipus);
        Ok(Self {
            ipus,
            shared: Arc::clone(shared),
            guard: Some(guard),
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut attached = self.shared.attached.lock();
        // Others must not find the IPUs free here while they are still locked there.
        drop(self.guard.take());
        attached.retain(|ipu| !self.ipus.contains(ipu));
    }
}

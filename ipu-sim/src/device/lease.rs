//! Who may use which IPUs: taken together or not at all, until they are given back.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::{DeviceError, Result};
use super::failure::RecoveryAction;
use super::inventory::Device;
use super::ports::{LockGuard, LockRefusal, Ports};
use super::sync::Mutex;
use crate::ids::IpuId;
use crate::spec::MachineSpec;

/// What all managers and leases of a machine have in common.
pub(super) struct Shared {
    pub(super) machine: Arc<MachineSpec>,
    pub(super) devices: Vec<Device>,
    pub(super) attached: Mutex<BTreeSet<IpuId>>,
    pub(super) ports: Ports,
}

/// The right to use the IPUs of a device, until it is dropped.
pub(super) struct Lease {
    /// What may be used.
    pub(super) device: Device,
    shared: Arc<Shared>,
    hold: Hold,
}

impl Lease {
    /// Takes the IPUs of `device`, if nobody has any of them.
    pub(super) fn take(
        shared: &Arc<Shared>,
        device: Device,
    ) -> std::result::Result<Self, LockRefusal> {
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
///
/// They count as attached from the moment that their locks are asked for. So nothing of ours is
/// locked while a port is called, which may look at the manager, or attach something itself.
struct Hold {
    ipus: Vec<IpuId>,
    shared: Arc<Shared>,
    /// None until the locks are taken.
    guard: Option<LockGuard>,
}

impl Hold {
    fn take(shared: &Arc<Shared>, ipus: Vec<IpuId>) -> std::result::Result<Self, LockRefusal> {
        let mut hold = Self::reserve(shared, ipus)?;
        hold.guard = Some(shared.ports.locks.try_lock(&hold.ipus)?);
        Ok(hold)
    }

    /// Keeps others in this process off the IPUs.
    fn reserve(shared: &Arc<Shared>, ipus: Vec<IpuId>) -> std::result::Result<Self, LockRefusal> {
        let mut attached = shared.attached.lock();
        if let Some(&ipu) = ipus.iter().find(|ipu| attached.contains(ipu)) {
            return Err(LockRefusal::Busy { ipu });
        }
        attached.extend(&ipus);
        Ok(Self {
            ipus,
            shared: Arc::clone(shared),
            guard: None,
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Others must not find the IPUs free here while they are still locked there.
        drop(self.guard.take());
        let mut attached = self.shared.attached.lock();
        attached.retain(|ipu| !self.ipus.contains(ipu));
    }
}

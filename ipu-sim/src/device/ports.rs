//! What the driver needs of the world outside: who else is attached, the host's time, and what
//! befalls the machine.
//!
//! This crate opens no file and reads no clock. Who uses the driver hands all of it in;
//! [`Ports::alone`] serves where there is one process, no real time and no accident.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::failure::{Hardware, HealthyHardware};
use super::sync::Mutex;
use crate::ids::IpuId;

/// The world outside.
#[derive(Clone)]
pub struct Ports {
    /// Locks that tell who else is attached.
    pub locks: Arc<dyn AttachLocks>,
    /// The host's time.
    pub clock: Arc<dyn Clock>,
    /// Accidents of the machine.
    pub hardware: Arc<dyn Hardware>,
}

impl Ports {
    /// A machine that nobody else uses and to which nothing happens, without real time.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            locks: Arc::new(NoLocks),
            clock: Arc::new(ManualClock::default()),
            hardware: Arc::new(HealthyHardware),
        }
    }
}

/// Keeps IPUs locked until it is dropped.
pub type LockGuard = Box<dyn Send>;

/// Why IPUs could not be locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockRefusal {
    /// Somebody else has one of them.
    Busy {
        /// The first such IPU.
        ipu: IpuId,
    },
    /// The locks themselves don't work.
    Failed(LockFailure),
}

/// Why the locks don't work: the error of whoever provides them. Two are equal if they are the
/// same one.
#[derive(Clone, Debug)]
pub struct LockFailure(Arc<dyn Error + Send + Sync>);

impl LockFailure {
    /// Carries an error of the world outside.
    #[must_use]
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl PartialEq for LockFailure {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LockFailure {}

impl fmt::Display for LockFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for LockFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Locks on the IPUs of one machine that all its users share, other processes included.
///
/// The driver knows who is attached through the same [`super::DeviceManager`]; these locks
/// are asked only about IPUs that are free there, and which count as attached meanwhile. A lock
/// may look at its manager, and attach other IPUs.
pub trait AttachLocks: Send + Sync {
    /// Locks all of `ipus` (numbers in the machine) or none, without waiting.
    ///
    /// # Errors
    ///
    /// [`LockRefusal::Busy`] if somebody else has one of them.
    fn try_lock(&self, ipus: &[IpuId]) -> Result<LockGuard, LockRefusal>;
}

/// No locks: the machine belongs to one [`super::DeviceManager`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLocks;

impl AttachLocks for NoLocks {
    fn try_lock(&self, _: &[IpuId]) -> Result<LockGuard, LockRefusal> {
        Ok(Box::new(()))
    }
}

/// The host's time, as [`Duration`] because it never mixes with simulated time.
pub trait Clock: Send + Sync {
    /// Time since some moment that stays the same. Where it goes back all the same, the driver
    /// counts from there.
    fn now(&self) -> Duration;

    /// Returns when [`Self::now`] has advanced by `pause`.
    fn sleep(&self, pause: Duration);
}

/// A clock that only moves when it is told to, and at once when somebody sleeps.
#[derive(Debug, Default)]
pub struct ManualClock(Mutex<Duration>);

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        *now = now.saturating_add(by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.0.lock()
    }

    fn sleep(&self, pause: Duration) {
        self.advance(pause);
    }
}

//! Who gets which IPUs, and when.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use ipu_sim::device::{
    AttachLocks, AttachedDevice, Clock, Connection, DeviceError, DeviceId, DeviceManager,
    LockFailure, LockGuard, LockRefusal, ManualClock, Mode, NoLocks,
};
use ipu_sim::ids::IpuId;
use ipu_sim::units::Bytes;

use crate::programs::{executable, manager, manager_with, squares};

const fn on_demand(seconds: u64) -> Connection {
    Connection::OnDemand {
        timeout: Duration::from_secs(seconds),
    }
}

#[test]
fn overlapping_groups_exclude_each_other() {
    // Devices 0 to 3 are IPUs, 4 and 5 are pairs, 6 is all four.
    let check = |held: u32, wanted: u32, busy: Option<u32>| {
        let manager = manager();
        let held = manager.attach(DeviceId(held), Connection::Always).unwrap();
        let second = manager.attach(DeviceId(wanted), Connection::Always);
        let expected = busy.map(|ipu| DeviceError::DeviceBusy {
            device: DeviceId(wanted),
            ipu: IpuId(ipu),
            waited: Duration::ZERO,
        });
        assert_eq!(second.err(), expected);
        held.detach();
        manager
            .attach(DeviceId(wanted), Connection::Always)
            .unwrap();
    };
    check(0, 0, Some(0));
    check(0, 1, None);
    check(1, 4, Some(1));
    check(1, 5, None);
    check(4, 1, Some(1));
    check(4, 5, None);
    check(5, 6, Some(2));
    check(6, 3, Some(3));
}

#[test]
fn devices_that_arent_there_are_refused() {
    let manager = manager();
    let error = manager
        .attach(DeviceId(7), Connection::Offline)
        .unwrap_err();
    assert_eq!(error.to_string(), "expected one of 7 devices, got device 7");
    let error = manager.attach_any(3, Connection::Always).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`mk2-pod16-4x32` has no device of 3 IPUs, expected a power of two up to 4"
    );
}

#[test]
fn any_free_device_will_do_until_none_is_left() {
    let manager = manager();
    let taken = manager.attach(DeviceId(1), Connection::Always).unwrap();
    let pair = manager.attach_any(2, Connection::Always).unwrap();
    assert_eq!(pair.device().first_ipu, IpuId(2));
    let error = manager.attach_any(2, on_demand(2)).unwrap_err();
    let expected = "failed to acquire a device of 2 IPUs: none is free (after 2s)";
    assert_eq!(error.to_string(), expected);
    drop(taken);
    let pair = manager.attach_any(2, on_demand(2)).unwrap();
    assert_eq!(pair.device().first_ipu, IpuId(0));
}

#[test]
fn of_many_threads_one_gets_the_device() {
    let manager = manager();
    let all_tried = Barrier::new(8);
    let winners = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..8 {
            let (manager, all_tried, winners) = (&manager, &all_tried, &winners);
            scope.spawn(move || {
                // All four IPUs, or two, or one of them: each has IPU 0.
                let device = DeviceId([6, 4, 0][number % 3]);
                let attached = manager.attach(device, Connection::Always);
                all_tried.wait();
                winners.fetch_add(usize::from(attached.is_ok()), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(winners.into_inner(), 1);
    manager.attach(DeviceId(6), Connection::Always).unwrap();
}

#[test]
fn on_demand_gives_up_when_its_time_is_over() {
    let clock = Arc::new(ManualClock::default());
    let manager = manager_with(NoLocks, clock.clone());
    clock.advance(Duration::from_secs(100));
    let _held = manager.attach(DeviceId(2), Connection::Always).unwrap();
    let timeout = Duration::from_millis(3500);
    let wait = Connection::OnDemand { timeout };
    let error = manager.attach(DeviceId(5), wait).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to acquire device 5: IPU 2 is attached already (after 3.5s)"
    );
    assert_eq!(clock.now(), Duration::from_millis(103_500));
}

/// A clock on which another thread detaches its device while somebody sleeps for the third time.
struct Rendezvous {
    time: ManualClock,
    sleeps: AtomicUsize,
    held: Mutex<Option<mpsc::Sender<()>>>,
    freed: Mutex<mpsc::Receiver<()>>,
}

impl Clock for Rendezvous {
    fn now(&self) -> Duration {
        self.time.now()
    }

    fn sleep(&self, pause: Duration) {
        self.time.sleep(pause);
        if self.sleeps.fetch_add(1, Ordering::Relaxed) == 2 {
            drop(self.held.lock().unwrap().take());
            self.freed.lock().unwrap().recv().unwrap();
        }
    }
}

#[test]
fn on_demand_gets_the_device_once_another_thread_detaches_it() {
    let (hold, released) = mpsc::channel();
    let (free, freed) = mpsc::channel();
    let clock = Arc::new(Rendezvous {
        time: ManualClock::default(),
        sleeps: AtomicUsize::new(0),
        held: Mutex::new(Some(hold)),
        freed: Mutex::new(freed),
    });
    let manager = manager_with(NoLocks, clock.clone());
    let other = manager.attach(DeviceId(6), Connection::Always).unwrap();
    let holder = thread::spawn(move || {
        released.recv().unwrap_err();
        other.detach();
        free.send(()).unwrap();
    });
    manager.attach(DeviceId(0), on_demand(60)).unwrap();
    assert_eq!(clock.now(), Duration::from_secs(3));
    holder.join().unwrap();
}

/// Locks of another process, which has some IPUs for the first `refusals` attempts.
#[derive(Clone)]
struct OtherProcess {
    refusals: Arc<AtomicUsize>,
    refusal: LockRefusal,
    locked: Arc<Mutex<Vec<IpuId>>>,
}

impl OtherProcess {
    fn new(refusals: usize, refusal: LockRefusal) -> Self {
        Self {
            refusals: Arc::new(AtomicUsize::new(refusals)),
            refusal,
            locked: Arc::default(),
        }
    }
}

struct Unlock(Arc<Mutex<Vec<IpuId>>>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.lock().unwrap().clear();
    }
}

impl AttachLocks for OtherProcess {
    fn try_lock(&self, ipus: &[IpuId]) -> Result<LockGuard, LockRefusal> {
        if self.refusals.load(Ordering::Relaxed) > 0 {
            self.refusals.fetch_sub(1, Ordering::Relaxed);
            return Err(self.refusal.clone());
        }
        self.locked.lock().unwrap().extend(ipus);
        Ok(Box::new(Unlock(Arc::clone(&self.locked))))
    }
}

#[test]
fn other_processes_keep_and_release_their_ipus() {
    let locks = OtherProcess::new(2, LockRefusal::Busy { ipu: IpuId(3) });
    let locked = Arc::clone(&locks.locked);
    let clock = Arc::new(ManualClock::default());
    let manager = manager_with(locks, clock.clone());
    let error = manager.attach(DeviceId(5), Connection::Always).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to acquire device 5: IPU 3 is attached already (after 0ns)"
    );
    let attached = manager.attach(DeviceId(5), on_demand(9)).unwrap();
    assert_eq!(clock.now(), Duration::from_secs(1));
    assert_eq!(*locked.lock().unwrap(), [IpuId(2), IpuId(3)]);
    drop(attached);
    assert!(locked.lock().unwrap().is_empty());
}

#[test]
fn locks_that_dont_work_are_not_waited_for() {
    let failure = LockFailure::new(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
    let locks = OtherProcess::new(1, LockRefusal::Failed(failure.clone()));
    let clock = Arc::new(ManualClock::default());
    let manager = manager_with(locks, clock.clone());
    let error = manager.attach(DeviceId(0), on_demand(9)).unwrap_err();
    assert_eq!(error.to_string(), "failed to lock device 0");
    let source = error.source().unwrap().to_string();
    assert_eq!(source, "read-only filesystem or storage medium");
    let expected = DeviceError::LockFailed {
        device: DeviceId(0),
        source: failure,
    };
    assert_eq!(error, expected);
    assert_eq!(clock.now(), Duration::ZERO);
}

#[test]
fn offline_takes_nothing_from_anybody() {
    let manager = manager();
    let _held = manager.attach(DeviceId(6), Connection::Always).unwrap();
    let offline = manager.attach(DeviceId(0), Connection::Offline).unwrap();
    let mut loaded = offline.load(executable(squares(1).program)).unwrap();
    assert!(loaded.weight().ipus[IpuId(0)].max() > Bytes::ZERO);
    let error = loaded.run(Mode::Time).unwrap_err();
    assert_eq!(
        error.to_string(),
        "device 0 is offline: programs can be loaded there, but not run"
    );
    assert_eq!(loaded.counters().unwrap_err(), error);
}

#[test]
fn any_order_of_dropping_frees_the_ipus() {
    let manager = manager();
    let all = |connection| manager.attach(DeviceId(6), connection);
    drop(all(Connection::Always).unwrap());

    let program = squares(4).program;
    let loaded = all(Connection::Always).unwrap().load(executable(program));
    let loaded = loaded.unwrap();
    all(Connection::Always).unwrap_err();
    let attached: AttachedDevice = loaded.unload();
    all(Connection::Always).unwrap_err();
    let loaded = attached.load(executable(squares(4).program)).unwrap();
    thread::spawn(move || drop(loaded)).join().unwrap();
    let last = all(Connection::Always).unwrap();
    drop(manager);
    drop(last);
}

/// Locks that look at their manager, and attach IPU 3 as well, while they are asked for another.
#[derive(Default, Clone)]
struct Curious {
    manager: Arc<Mutex<Option<DeviceManager>>>,
    /// What became of attaching the same device, and another one.
    seen: Arc<Mutex<Vec<bool>>>,
}

struct Looks(DeviceManager);

impl Drop for Looks {
    fn drop(&mut self) {
        assert!(format!("{:?}", self.0).contains("IpuId"));
    }
}

impl AttachLocks for Curious {
    fn try_lock(&self, ipus: &[IpuId]) -> Result<LockGuard, LockRefusal> {
        let manager = self.manager.lock().unwrap().take();
        let Some(manager) = manager else {
            return Ok(Box::new(()));
        };
        assert!(!manager.enumerate().is_empty());
        let attach = |id| manager.attach(DeviceId(id), Connection::Always).is_ok();
        let seen = [attach(ipus[0].0), attach(3)];
        self.seen.lock().unwrap().extend(seen);
        Ok(Box::new(Looks(manager)))
    }
}

#[test]
fn locks_may_look_at_their_manager() {
    let locks = Curious::default();
    let manager = manager_with(locks.clone(), Arc::new(ManualClock::default()));
    *locks.manager.lock().unwrap() = Some(manager.clone());
    let attached = manager.attach(DeviceId(0), Connection::Always).unwrap();
    assert_eq!(*locks.seen.lock().unwrap(), [false, true]);
    drop(attached);
    manager.attach(DeviceId(6), Connection::Always).unwrap();
}

/// A clock that somebody sets back by an hour at the second look.
struct SetBack(AtomicUsize);

impl Clock for SetBack {
    fn now(&self) -> Duration {
        let looks = self.0.fetch_add(1, Ordering::Relaxed) as u64;
        Duration::from_secs(if looks < 2 { 3600 } else { looks })
    }

    fn sleep(&self, _: Duration) {}
}

#[test]
fn waiting_ends_though_a_clock_goes_back() {
    let manager = manager_with(NoLocks, Arc::new(SetBack(AtomicUsize::new(0))));
    let _held = manager.attach(DeviceId(0), Connection::Always).unwrap();
    let error = manager.attach(DeviceId(0), on_demand(9)).unwrap_err();
    assert!(matches!(error, DeviceError::DeviceBusy { waited, .. } if waited.as_secs() == 9));
}

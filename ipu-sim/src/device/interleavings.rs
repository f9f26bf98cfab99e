//! The driver's threads, taking turns in many orders.
//!
//! Here the primitives of `sync` are shuttle's: a test runs again and again, each time with
//! another order in which threads get their turn wherever they lock, send, receive or end. What a
//! test asserts holds in all orders that were tried, and a deadlock in any of them is a failure.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::mpsc;
use shuttle::{Config, Runner, thread};

use super::error::DeviceError;
use super::sync::Mutex;
use super::*;
use crate::engine;
use crate::execute::{FloatControl, StreamError};
use crate::ids::{IpuId, ReplicaId};
use crate::layout::{AxisSplit, Layout};
use crate::numerics::DType;
use crate::program::*;
use crate::spec::MachineSpec;
use crate::spec::fixtures::small;
use crate::vertex::{MapOp, UnaryFn, Vertex};

static MACHINE: LazyLock<MachineSpec> = LazyLock::new(small);

const FIRST: ReplicaId = ReplicaId(0);

/// Runs a test in random orders, and in orders in which threads are kept waiting for long.
fn in_many_orders(test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let mut config = Config::new();
        // What executes a program takes more than shuttle's 32 KiB.
        config.stack_size = 1 << 20;
        let test = Arc::clone(&test);
        Runner::new(scheduler, config).run(move || test());
    };
    run(Box::new(RandomScheduler::new_from_seed(2024, 150)));
    run(Box::new(PctScheduler::new_from_seed(2024, 3, 150)));
}

/// Locks that several managers share as processes do, which give an IPU to one at a time.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<BTreeSet<IpuId>>>);

struct Unlock(Shared, Vec<IpuId>);

impl Drop for Unlock {
    fn drop(&mut self) {
        let mut locked = self.0.0.lock();
        for ipu in &self.1 {
            assert!(locked.remove(ipu), "{ipu} was unlocked by somebody else");
        }
    }
}

impl AttachLocks for Shared {
    fn try_lock(&self, ipus: &[IpuId]) -> Result<LockGuard, LockRefusal> {
        let mut locked = self.0.lock();
        if let Some(&ipu) = ipus.iter().find(|ipu| locked.contains(ipu)) {
            return Err(LockRefusal::Busy { ipu });
        }
        locked.extend(ipus);
        Ok(Box::new(Unlock(self.clone(), ipus.to_vec())))
    }
}

/// Looks whether the IPUs of a device that is at work are locked.
impl Hardware for Shared {
    fn fault(&self, ipus: &[IpuId]) -> Option<Fault> {
        let locked = self.0.lock();
        let free = ipus.iter().find(|ipu| !locked.contains(ipu));
        assert_eq!(free, None, "a device is at work on an IPU that is free");
        None
    }

    fn recovered(&self, _: &[IpuId], _: RecoveryAction) {}
}

/// A manager of four IPUs: devices 0 to 3 are IPUs, 4 and 5 are pairs, 6 is all of them.
fn manager(locks: &Shared) -> DeviceManager {
    let ports = Ports {
        locks: Arc::new(locks.clone()),
        hardware: Arc::new(locks.clone()),
        ..Ports::alone()
    };
    DeviceManager::new(MACHINE.clone(), ports)
}

/// `x` squared `count` times, after each of which the host gets it.
fn squares(count: u32) -> (Executable, VarId, StreamId) {
    let mut program = Program::new(1, 1);
    let layout = program.add_layout(Layout::row_major(vec![AxisSplit::whole(2)]));
    let x = program.vars.push(Variable {
        name: "x".to_owned(),
        dtype: DType::F32,
        ipu: IpuId(0),
        layout,
        kind: VarKind::Weight,
    });
    let stream = program.streams.push(Stream {
        name: "out".to_owned(),
        prefetch: false,
        buffering_depth: 1,
    });
    let source = program.add_source("x", "square");
    let square = Step::Compute(ComputeSet {
        source,
        ipu: IpuId(0),
        vertices: vec![VertexGroup {
            vertex: Vertex::Map(MapOp::Unary(UnaryFn::Square)),
            output: Operand::new(x, &[0]),
            inputs: [Operand::new(x, &[0])].into_iter().collect(),
        }],
    });
    let write = Step::Transfers {
        source,
        transfers: vec![Transfer::HostWrite { stream, var: x }],
    };
    program.steps = vec![Step::Repeat {
        count,
        body: vec![square, write],
    }];
    let executable = Executable {
        name: "squares".to_owned(),
        program: Arc::new(program),
        timing: engine::Options {
            mode: engine::Mode::Folded,
            trace_depth: 0,
        },
        float_control: FloatControl::default(),
        host_sync_timeout: None,
    };
    (executable, x, stream)
}

/// [`squares`] on device `id`, with the host's end of its stream.
fn load(manager: &DeviceManager, id: u32, count: u32) -> (LoadedDevice, VarId, StreamQueue) {
    let (executable, x, stream) = squares(count);
    let attached = manager.attach(DeviceId(id), Connection::Always).unwrap();
    let mut device = attached.load(executable).unwrap();
    let queue = StreamQueue::default();
    device.connect(stream, queue.clone()).unwrap();
    device.write(FIRST, x, &[2.0, 3.0]).unwrap();
    (device, x, queue)
}

/// Two threads want devices that share an IPU; `managers` are those they ask.
fn exactly_one_gets(managers: [DeviceManager; 2], ids: [u32; 2]) {
    let (sender, attached) = mpsc::channel();
    let threads: Vec<_> = managers
        .iter()
        .zip(ids)
        .map(|(manager, id)| {
            let (manager, sender) = (manager.clone(), sender.clone());
            thread::spawn(move || {
                let outcome = manager.attach(DeviceId(id), Connection::Always);
                sender.send(outcome).unwrap();
            })
        })
        .collect();
    let outcomes = [attached.recv().unwrap(), attached.recv().unwrap()];
    let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(winners, 1);
    drop(outcomes);
    for thread in threads {
        thread.join().unwrap();
    }
    for manager in &managers {
        drop(manager.attach(DeviceId(6), Connection::Always).unwrap());
    }
}

#[test]
fn of_two_threads_one_gets_an_overlapping_group() {
    for ids in [[6, 6], [6, 1], [4, 0], [5, 6]] {
        in_many_orders(move || {
            // No lock but the manager's own.
            let manager = DeviceManager::new(MACHINE.clone(), Ports::alone());
            exactly_one_gets([manager.clone(), manager], ids);
        });
    }
}

#[test]
fn of_two_processes_one_gets_an_overlapping_group() {
    for ids in [[6, 6], [4, 0]] {
        in_many_orders(move || {
            let locks = Shared::default();
            exactly_one_gets([manager(&locks), manager(&locks)], ids);
        });
    }
}

/// Small enough for all the orders there are, up to a limit.
#[test]
fn attaching_and_detaching_in_every_order() {
    let orders = Runner::new(DfsScheduler::new(Some(20_000), false), Config::new()).run(|| {
        let manager = manager(&Shared::default());
        let other = manager.clone();
        let thread = thread::spawn(move || {
            drop(other.attach(DeviceId(0), Connection::Always));
        });
        drop(manager.attach(DeviceId(4), Connection::Always));
        thread.join().unwrap();
        manager.attach(DeviceId(6), Connection::Always).unwrap();
    });
    assert!(orders > 100, "{orders}");
}

#[test]
fn whoever_waits_gets_a_device_that_is_detached_or_gives_up_in_time() {
    in_many_orders(|| {
        let locks = Shared::default();
        let manager = manager(&locks);
        let held = manager.attach(DeviceId(4), Connection::Always).unwrap();
        let holder = thread::spawn(move || held.detach());
        let timeout = Duration::from_secs(3);
        let outcome = manager.attach(DeviceId(0), Connection::OnDemand { timeout });
        match outcome {
            Ok(attached) => drop(attached),
            Err(DeviceError::DeviceBusy { ipu, waited, .. }) => {
                assert_eq!((ipu, waited), (IpuId(0), timeout));
            }
            Err(other) => panic!("{other}"),
        }
        holder.join().unwrap();
        assert!(locks.0.lock().is_empty());
    });
}

#[test]
fn a_device_runs_for_one_thread_after_the_other() {
    in_many_orders(|| {
        let manager = manager(&Shared::default());
        let threads: Vec<_> = (0..2)
            .map(|id| {
                let manager = manager.clone();
                thread::spawn(move || {
                    let (mut device, x, queue) = load(&manager, id, 2);
                    device.run(Mode::TimeAndExecute).unwrap();
                    for expected in [[4.0, 9.0], [16.0, 81.0]] {
                        assert_eq!(queue.pop(FIRST), Some(expected.to_vec()));
                    }
                    assert_eq!(device.read(FIRST, x), Ok(vec![16.0, 81.0]));
                    assert_eq!(device.counters().unwrap().runs, 1);
                    let again = device.unload().load(squares(1).0).unwrap();
                    assert_eq!(again.counters(), Ok(Counters::default()));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        manager.attach(DeviceId(6), Connection::Always).unwrap();
    });
}

#[test]
fn a_device_dropped_while_it_runs_stops_and_is_free() {
    /// Leaves the run at its second element.
    struct Leaves(u32);
    impl HostStream for Leaves {
        fn write(&mut self, _: ReplicaId, _: Vec<f64>) -> Result<(), StreamError> {
            if self.0 == 0 {
                resume_unwind(Box::new("enough"));
            }
            self.0 -= 1;
            Ok(())
        }
    }
    let left_in_the_middle = |recovers: bool| {
        let locks = Shared::default();
        let manager = manager(&locks);
        let (mut device, x, _) = load(&manager, 0, 1000);
        let out = device.stream("out").unwrap();
        device.connect(out, Leaves(1)).unwrap();
        let other = manager.clone();
        let waiting = thread::spawn(move || {
            let timeout = Duration::from_secs(2);
            drop(other.attach(DeviceId(4), Connection::OnDemand { timeout }));
        });
        let left = catch_unwind(AssertUnwindSafe(|| device.run(Mode::TimeAndExecute)));
        assert!(left.is_err());
        if recovers {
            let refusal = device.write(FIRST, x, &[0.0; 2]).unwrap_err();
            let id = DeviceId(0);
            assert_eq!(refusal, DeviceError::HostLeft { device: id });
            device.reset().unwrap();
            device.write(FIRST, x, &[1.0; 2]).unwrap();
        }
        drop(device);
        waiting.join().unwrap();
        assert!(locks.0.lock().is_empty());
        manager.attach(DeviceId(6), Connection::Always).unwrap();
    };
    in_many_orders(move || left_in_the_middle(false));
    in_many_orders(move || left_in_the_middle(true));
}

//! What stops a device, what it still answers, and what brings it back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipu_sim::device::{
    Clock, Condition, Connection, Counters, DeviceError, DeviceId, DeviceManager, ErrorClass,
    Fault, Hardware, HostStream, LoadedDevice, ManualClock, Mode, Ports, RecoveryAction,
};
use ipu_sim::execute::StreamError;
use ipu_sim::ids::{IpuId, ReplicaId, TileId};
use ipu_sim::program::{Program, Step, VarId, VarKind};
use ipu_sim::spec::MachineSpec;

use crate::programs::{attach, executable, machine, spread, square, squares, var};
use crate::run::{Running, count, running_on, squared};

const FIRST: ReplicaId = ReplicaId(0);

/// Hardware that has faults until an action mends them.
#[derive(Default)]
struct Frail {
    faults: Mutex<Vec<(Fault, RecoveryAction)>>,
    /// Every action carried out, and on how many IPUs.
    actions: Mutex<Vec<(usize, RecoveryAction)>>,
}

impl Frail {
    fn suffer(&self, fault: Fault, mended_by: RecoveryAction) {
        self.faults.lock().unwrap().push((fault, mended_by));
    }
}

impl Hardware for Frail {
    fn fault(&self, ipus: &[IpuId]) -> Option<Fault> {
        let concerns = |fault: &Fault| match fault {
            Fault::LinkDown { one, other } => ipus.contains(one) && ipus.contains(other),
            Fault::Parity { ipu, .. }
            | Fault::Hung { ipu }
            | Fault::Unreachable { ipu }
            | Fault::Unexplained { ipu, .. } => ipus.contains(ipu),
        };
        let faults = self.faults.lock().unwrap();
        let found = faults.iter().find(|(fault, _)| concerns(fault));
        found.map(|(fault, _)| *fault)
    }

    fn recovered(&self, ipus: &[IpuId], action: RecoveryAction) {
        self.actions.lock().unwrap().push((ipus.len(), action));
        let mut faults = self.faults.lock().unwrap();
        faults.retain(|(_, mended_by)| *mended_by > action);
    }
}

fn frail(machine: MachineSpec) -> (Arc<Frail>, DeviceManager) {
    let hardware = Arc::new(Frail::default());
    let ports = Ports {
        hardware: Arc::clone(&hardware) as Arc<dyn Hardware>,
        ..Ports::alone()
    };
    (hardware, DeviceManager::new(machine, ports))
}

/// [`squares`] in two replicas on the first two IPUs, run once.
fn run_once(manager: &DeviceManager) -> Running {
    let mut run = running_on(manager.attach_any(2, Connection::Always).unwrap(), 2);
    push_both(&run);
    run.device.run(Mode::TimeAndExecute).unwrap();
    run
}

fn push_both(run: &Running) {
    for replica in 0..2 {
        run.inputs.push(ReplicaId(replica), count(1));
    }
}

fn stopped(device: &LoadedDevice) -> (DeviceError, RecoveryAction) {
    match device.condition() {
        Condition::Stopped { cause, action } => (cause.clone(), *action),
        other => panic!("expected a stopped device, got {other:?}"),
    }
}

/// It was run once and then stopped; its values, and all that it still answers.
fn check_stopped(run: &mut Running, error: &DeviceError, action: RecoveryAction) {
    let Running { device, output, .. } = run;
    assert_eq!(stopped(device), (error.clone(), action));
    assert_eq!(device.run(Mode::Time).as_ref(), Err(error));
    assert_eq!(device.write(FIRST, *output, &count(0)).as_ref(), Err(error));
    let looks = action != RecoveryAction::FullReset;
    assert_eq!(device.counters().is_ok(), looks);
    assert_eq!(device.read(FIRST, *output).is_ok(), looks);
}

#[test]
fn faults_stop_a_device_until_the_action_of_their_class() {
    use RecoveryAction::{FullReset, IpuReset, LinkReset, PartitionReset};
    let ipu = IpuId(1);
    let parity = Fault::Parity {
        ipu,
        tile: TileId(5),
    };
    let link = Fault::LinkDown {
        one: IpuId(0),
        other: ipu,
    };
    let server = MachineSpec::shipped("mk1-server16").unwrap();
    for (machine, fault, action, text) in [
        (
            machine(),
            parity,
            IpuReset,
            "parity error on IPU 1, tile 5, recovery action IPU_RESET",
        ),
        (
            machine(),
            link,
            PartitionReset,
            "the IPU-Links between IPU 0 and IPU 1 are down, recovery action PARTITION_RESET",
        ),
        (
            server.scaled_down(4, 32).unwrap(),
            link,
            LinkReset,
            "the IPU-Links between IPU 0 and IPU 1 are down, recovery action LINK_RESET",
        ),
        (
            machine(),
            Fault::Hung { ipu },
            FullReset,
            "IPU 1 doesn't answer, recovery action FULL_RESET",
        ),
    ] {
        let n_ipus = machine.n_ipus as usize;
        let (hardware, manager) = frail(machine);
        let mut run = run_once(&manager);
        hardware.suffer(fault, action);
        push_both(&run);
        let error = run.device.run(Mode::TimeAndExecute).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Recoverable(action));
        assert!(error.to_string().ends_with(text), "{error}");
        check_stopped(&mut run, &error, action);

        // Less doesn't help, and isn't tried.
        let before = hardware.actions.lock().unwrap().len();
        for weaker in [IpuReset, LinkReset, PartitionReset] {
            if weaker < action {
                assert_eq!(run.device.recover(weaker).as_ref(), Err(&error));
            }
        }
        run.device.recover(action).unwrap();
        let concerned = if action == IpuReset { 2 } else { n_ipus };
        let actions = hardware.actions.lock().unwrap()[before..].to_vec();
        assert_eq!(actions, [(concerned, action)]);

        assert_eq!(*run.device.condition(), Condition::Ready);
        assert_eq!(run.device.counters(), Ok(Counters::default()));
        run.device.read(FIRST, run.output).unwrap_err();
        // The elements that the failed run didn't take are still the host's.
        run.device.run(Mode::TimeAndExecute).unwrap();
        assert_eq!(run.device.read(FIRST, run.output), Ok(squared(&count(1))));
    }
}

#[test]
fn a_link_lost_in_the_middle_of_a_run_ends_it_at_the_next_step() {
    /// The last element that comes through.
    struct Last(Arc<Frail>, Fault);
    impl HostStream for Last {
        fn read(&mut self, _: ReplicaId) -> Result<Vec<f64>, StreamError> {
            self.0.suffer(self.1, RecoveryAction::PartitionReset);
            Ok(count(5))
        }
    }
    let (hardware, manager) = frail(machine());
    let mut run = run_once(&manager);
    while run.outputs.pop(FIRST).is_some() {}
    let link = Fault::LinkDown {
        one: IpuId(0),
        other: IpuId(1),
    };
    let to_device = run.device.stream("to device").unwrap();
    let last = Last(Arc::clone(&hardware), link);
    run.device.connect(to_device, last).unwrap();
    let error = run.device.run(Mode::TimeAndExecute).unwrap_err();
    check_stopped(&mut run, &error, RecoveryAction::PartitionReset);
    assert_eq!(run.outputs.pop(FIRST), None);
    // The input has arrived, the output is still that of the run before.
    assert_eq!(run.device.read(FIRST, run.input), Ok(count(5)));
    assert_eq!(run.device.read(FIRST, run.output), Ok(squared(&count(1))));
    assert_eq!(run.device.counters().unwrap().runs, 1);
}

#[test]
fn what_no_action_helps_against_takes_a_device_out_of_service() {
    for (fault, class) in [
        (
            Fault::Unreachable { ipu: IpuId(0) },
            ErrorClass::Unrecoverable,
        ),
        (
            Fault::Unexplained {
                ipu: IpuId(0),
                code: 7,
            },
            ErrorClass::Unknown,
        ),
    ] {
        let (hardware, manager) = frail(machine());
        let mut run = run_once(&manager);
        hardware.suffer(fault, RecoveryAction::FullReset);
        let error = run.device.run(Mode::Time).unwrap_err();
        assert_eq!(error.class(), class);
        assert!(error.to_string().ends_with(", no recovery action"));
        let cause = error.clone();
        assert_eq!(*run.device.condition(), Condition::OutOfService { cause });
        for outcome in [
            run.device.run(Mode::Time).map(drop),
            run.device.recover(RecoveryAction::FullReset),
            run.device.counters().map(drop),
            run.device.read(FIRST, run.output).map(drop),
        ] {
            assert_eq!(outcome.as_ref(), Err(&error));
        }
        let attached = run.device.unload();
        let loaded = attached.load(executable(squares(2).program));
        assert_eq!(loaded.map(drop), Err(error));
        // Whoever comes next finds the same, and the others nothing.
        let again = manager.attach(DeviceId(0), Connection::Always).unwrap();
        again.load(executable(squares(1).program)).unwrap_err();
        let other = manager.attach(DeviceId(2), Connection::Always).unwrap();
        other.load(executable(squares(1).program)).unwrap();
    }
}

#[test]
fn a_machine_is_reset_as_a_whole_only_when_nobody_else_is_there() {
    let (hardware, manager) = frail(machine());
    let mut run = run_once(&manager);
    let neighbour = manager.attach(DeviceId(3), Connection::Always).unwrap();
    let link = Fault::LinkDown {
        one: IpuId(0),
        other: IpuId(1),
    };
    hardware.suffer(link, RecoveryAction::PartitionReset);
    let error = run.device.run(Mode::Time).unwrap_err();
    let refusal = run.device.recover(RecoveryAction::PartitionReset);
    let refusal = refusal.unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the machine can't be reset: IPU 3 is attached"
    );
    assert_eq!(refusal.class(), ErrorClass::Acquisition);
    assert_eq!(stopped(&run.device).0, error);
    neighbour.detach();
    run.device.recover(RecoveryAction::PartitionReset).unwrap();
    run.device.run(Mode::Time).unwrap();
    // The IPUs of the others are free again.
    manager.attach(DeviceId(3), Connection::Always).unwrap();
}

#[test]
fn an_action_that_doesnt_mend_the_fault_says_so() {
    let (hardware, manager) = frail(machine());
    let mut run = run_once(&manager);
    let tile = TileId(0);
    let ipu = IpuId(0);
    hardware.suffer(Fault::Parity { ipu, tile }, RecoveryAction::FullReset);
    let error = run.device.run(Mode::Time).unwrap_err();
    assert_eq!(run.device.reset(), Err(error.clone()));
    assert_eq!(stopped(&run.device), (error, RecoveryAction::IpuReset));
    run.device.recover(RecoveryAction::FullReset).unwrap();
    run.device.run(Mode::Time).unwrap();
}

#[test]
fn an_error_of_the_program_stops_the_device_where_it_happened() {
    let mut program = Program::new(1, 1);
    let x = var(&mut program, "x", VarKind::Weight, spread(4, 1));
    let y = var(&mut program, "y", VarKind::Weight, spread(4, 1));
    let z = var(&mut program, "z", VarKind::Weight, spread(4, 1));
    let source = program.add_source("x", "test");
    program.steps = vec![square(source, x, y), square(source, z, z)];
    let mut device = attach(1).load(executable(program)).unwrap();
    device.write(FIRST, x, &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let error = device.run(Mode::TimeAndExecute).unwrap_err();
    let text = "`z` on tile 0 is read before it is written";
    assert_eq!(error.to_string(), text);
    assert_eq!(error.class(), ErrorClass::Application);
    assert_eq!(stopped(&device), (error, RecoveryAction::IpuReset));
    // For whoever looks for the reason.
    assert_eq!(device.read(FIRST, y), Ok(vec![1.0, 4.0, 9.0, 16.0]));
    device.reset().unwrap();
    for var in [x, z] {
        device.write(FIRST, var, &[1.0; 4]).unwrap();
    }
    device.run(Mode::TimeAndExecute).unwrap();
}

#[test]
fn unloading_and_loading_resets_as_well() {
    let mut run = running_on(attach(1), 1);
    run.device.run(Mode::TimeAndExecute).unwrap_err();
    let attached = run.device.unload();
    assert!(matches!(attached.condition(), Condition::Stopped { .. }));
    let mut again = running_on(attached, 1);
    again.inputs.push(FIRST, count(1));
    again.device.run(Mode::TimeAndExecute).unwrap();
}

#[test]
fn a_host_that_panics_leaves_a_device_that_a_reset_brings_back() {
    struct Faulty;
    impl HostStream for Faulty {
        fn read(&mut self, _: ReplicaId) -> Result<Vec<f64>, StreamError> {
            panic!("the host has no data");
        }
    }
    let mut run = running_on(attach(1), 1);
    let to_device = run.device.stream("to device").unwrap();
    run.device.connect(to_device, Faulty).unwrap();
    let caught = catch_unwind(AssertUnwindSafe(|| run.device.run(Mode::TimeAndExecute)));
    assert!(caught.is_err());
    let (error, action) = stopped(&run.device);
    assert_eq!(
        error.to_string(),
        "the host left a run of device 0 before its end"
    );
    assert_eq!(action, RecoveryAction::IpuReset);
    run.device.reset().unwrap();
    run.inputs.push(FIRST, count(2));
    run.device.connect(to_device, run.inputs.clone()).unwrap();
    run.device.run(Mode::TimeAndExecute).unwrap();
    assert_eq!(run.outputs.pop(FIRST), Some(squared(&count(2))));
}

/// A clock that goes on by a second whenever somebody looks.
#[derive(Default)]
struct Ticking(ManualClock);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        self.0.advance(Duration::from_secs(1));
        self.0.now()
    }

    fn sleep(&self, pause: Duration) {
        self.0.sleep(pause);
    }
}

/// `x` squared `count` times; with `sync`, the host gets it each time.
fn squares_for_long(count: u32, sync: bool) -> (Program, VarId) {
    let mut with_streams = squares(1);
    let program = &mut with_streams.program;
    let x = var(program, "x", VarKind::Weight, spread(1, 1));
    let source = program.add_source("x", "test");
    let write = program.steps.pop().unwrap();
    let mut body = vec![square(source, x, x)];
    body.extend(sync.then_some(write));
    program.steps.push(Step::Repeat { count, body });
    (with_streams.program, x)
}

#[test]
fn a_run_that_comes_to_no_sync_with_the_host_times_out() {
    let timeout = Duration::from_secs(100);
    let check = |sync: bool, timeout: Option<Duration>, hangs: bool| {
        let ports = Ports {
            clock: Arc::new(Ticking::default()),
            ..Ports::alone()
        };
        let manager = DeviceManager::new(machine(), ports);
        let attached = manager.attach(DeviceId(1), Connection::Always).unwrap();
        let (program, x) = squares_for_long(150, sync);
        let mut to_load = executable(program);
        to_load.host_sync_timeout = timeout;
        let mut device = attached.load(to_load).unwrap();
        for name in ["to device", "from device"] {
            let queue = ipu_sim::device::StreamQueue::default();
            queue.push(FIRST, count(0));
            let stream = device.stream(name).unwrap();
            device.connect(stream, queue).unwrap();
        }
        device.write(FIRST, x, &[1.0]).unwrap();
        let outcome = device.run(Mode::TimeAndExecute);
        assert_eq!(outcome.is_err(), hangs, "{sync} {timeout:?}");
        let Err(error) = outcome else {
            return;
        };
        assert_eq!(
            error.to_string(),
            "device 1 didn't sync with the host within 100s (host time)"
        );
        assert_eq!(error.class(), ErrorClass::Application);
        assert_eq!(stopped(&device), (error, RecoveryAction::IpuReset));
        // Its IPUs are free at once: nothing goes on running there.
        drop(device);
        manager.attach(DeviceId(1), Connection::Always).unwrap();
    };
    check(false, Some(timeout), true);
    check(true, Some(timeout), false);
    check(false, None, false);
    check(false, Some(timeout * 2), false);
}

#[test]
fn a_host_that_leaves_a_run_without_end_stops_it() {
    struct Leaves;
    impl HostStream for Leaves {
        fn read(&mut self, _: ReplicaId) -> Result<Vec<f64>, StreamError> {
            Ok(count(1))
        }
        fn write(&mut self, _: ReplicaId, _: Vec<f64>) -> Result<(), StreamError> {
            std::panic::resume_unwind(Box::new("enough"));
        }
    }
    let mut program = squares(1).program;
    let x = var(&mut program, "x", VarKind::Weight, spread(1, 1));
    let source = program.add_source("x", "test");
    program.steps.push(Step::Repeat {
        count: u32::MAX,
        body: vec![square(source, x, x)],
    });
    let mut device = attach(1).load(executable(program)).unwrap();
    for name in ["to device", "from device"] {
        let stream = device.stream(name).unwrap();
        device.connect(stream, Leaves).unwrap();
    }
    device.write(FIRST, x, &[1.0]).unwrap();
    let caught = catch_unwind(AssertUnwindSafe(|| device.run(Mode::TimeAndExecute)));
    assert!(caught.is_err());
    // Ends when the device has stopped.
    drop(device);
}

/// A clock that goes back by a second whenever somebody looks.
struct Backwards(Mutex<Duration>);

impl Clock for Backwards {
    fn now(&self) -> Duration {
        let mut now = self.0.lock().unwrap();
        *now -= Duration::from_secs(1);
        *now
    }

    fn sleep(&self, _: Duration) {}
}

#[test]
fn a_clock_that_goes_back_stops_nothing() {
    let ports = Ports {
        clock: Arc::new(Backwards(Mutex::new(Duration::from_secs(1 << 20)))),
        ..Ports::alone()
    };
    let manager = DeviceManager::new(machine(), ports);
    let mut run = run_once(&manager);
    assert_eq!(*run.device.condition(), Condition::Ready);
    push_both(&run);
    run.device.run(Mode::TimeAndExecute).unwrap();
}

/// Working out the time of a run is watched like the run itself.
#[test]
fn a_run_whose_time_takes_too_long_to_work_out_times_out() {
    let ports = Ports {
        clock: Arc::new(Ticking::default()),
        ..Ports::alone()
    };
    let manager = DeviceManager::new(machine(), ports);
    let check = |timeout: Option<Duration>, hangs: bool| {
        let attached = manager.attach(DeviceId(1), Connection::Always).unwrap();
        let mut to_load = executable(squares_for_long(1_000_000, false).0);
        to_load.timing.mode = ipu_sim::engine::Mode::Unfolded;
        to_load.host_sync_timeout = timeout;
        let mut device = attached.load(to_load).unwrap();
        match device.run(Mode::Time) {
            Ok(_) => assert!(!hangs),
            Err(error) => {
                assert!(hangs);
                assert!(matches!(error, DeviceError::HostSyncTimeout { .. }));
                assert_eq!(stopped(&device), (error, RecoveryAction::IpuReset));
            }
        }
    };
    check(Some(Duration::from_secs(100)), true);
    check(None, false);
}

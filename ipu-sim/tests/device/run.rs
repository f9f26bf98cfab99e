//! Running, and what can be seen of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipu_sim::device::{
    AttachedDevice, Condition, Connection, Counters, DeviceManager, Fault, Hardware, LoadedDevice,
    Mode, Ports, RecoveryAction, StreamQueue,
};
use ipu_sim::engine::{self, Channel};
use ipu_sim::ids::{IpuId, ReplicaId};
use ipu_sim::numerics::DType;
use ipu_sim::program::{Program, RemoteBuffer, RemoteBufferId, StreamId, VarId, VarKind};
use ipu_sim::units::{Bytes, Cycles};

use crate::programs::{Squares, attach, executable, machine, spread, square, squares, var};

const FIRST: ReplicaId = ReplicaId(0);

/// [`squares`] on a device, with queues at its streams.
pub(crate) struct Running {
    pub(crate) device: LoadedDevice,
    pub(crate) inputs: StreamQueue,
    pub(crate) outputs: StreamQueue,
    pub(crate) input: VarId,
    pub(crate) output: VarId,
}

fn running(n_replicas: u32) -> Running {
    running_on(attach(n_replicas), n_replicas)
}

pub(crate) fn running_on(attached: AttachedDevice, n_replicas: u32) -> Running {
    let Squares {
        program,
        input,
        output,
        to_device,
        from_device,
    } = squares(n_replicas);
    let mut device = attached.load(executable(program)).unwrap();
    let (inputs, outputs) = (StreamQueue::default(), StreamQueue::default());
    device.connect(to_device, inputs.clone()).unwrap();
    device.connect(from_device, outputs.clone()).unwrap();
    Running {
        device,
        inputs,
        outputs,
        input,
        output,
    }
}

pub(crate) fn count(from: u32) -> Vec<f64> {
    (from..from + 6).map(f64::from).collect()
}

pub(crate) fn squared(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| value * value).collect()
}

#[test]
fn values_go_through_the_device_and_back_for_every_replica() {
    let mut run = running(2);
    for (replica, first) in [(0, 1), (1, 10), (0, 20), (1, 30)] {
        run.inputs.push(ReplicaId(replica), count(first));
    }
    for starts in [[1, 10], [20, 30]] {
        let timeline = run.device.run(Mode::TimeAndExecute).unwrap();
        assert_eq!(timeline.moved.on(Channel::HostRead), Bytes(12));
        for (replica, first) in (0..).map(ReplicaId).zip(starts) {
            let expected = squared(&count(first));
            assert_eq!(run.outputs.pop(replica), Some(expected.clone()));
            assert_eq!(run.device.read(replica, run.output), Ok(expected));
            assert_eq!(run.device.read(replica, run.input), Ok(count(first)));
        }
    }
}

#[test]
fn a_run_takes_the_time_of_its_program_with_or_without_values() {
    let mut run = running(1);
    let program = squares(1).program;
    let options = executable(program.clone()).timing;
    let expected = engine::time(&program, &machine(), options).unwrap();
    assert!(expected.total > Cycles::ZERO);
    assert_eq!(*run.device.run(Mode::Time).unwrap(), expected);
    run.inputs.push(FIRST, count(1));
    assert_eq!(*run.device.run(Mode::TimeAndExecute).unwrap(), expected);
    assert_eq!(run.outputs.pop(FIRST).map(|values| values.len()), Some(6));
}

#[test]
fn counters_count_runs_until_a_reset() {
    let mut run = running(1);
    assert_eq!(run.device.counters(), Ok(Counters::default()));
    let total = run.device.run(Mode::Time).unwrap().total;
    run.device.run(Mode::Time).unwrap();
    // No input: the run fails and isn't counted, and the counters can still be read.
    run.device.run(Mode::TimeAndExecute).unwrap_err();
    let expected = Counters {
        runs: 2,
        cycles: total * 2,
        cycles_last: Some(total),
    };
    assert_eq!(run.device.counters(), Ok(expected));

    run.device.reset().unwrap();
    assert_eq!(run.device.counters(), Ok(Counters::default()));
    run.inputs.push(FIRST, count(1));
    run.device.run(Mode::TimeAndExecute).unwrap();
    run.device.reset().unwrap();
    assert_eq!(run.device.counters(), Ok(Counters::default()));
    let error = run.device.read(FIRST, run.output).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`output` on tile 0 is read before it is written"
    );
    // Streams are still connected.
    run.inputs.push(FIRST, count(5));
    run.device.run(Mode::TimeAndExecute).unwrap();
    assert_eq!(run.device.read(FIRST, run.input), Ok(count(5)));
}

#[test]
fn a_device_is_unloaded_and_loaded_again() {
    let mut run = running(1);
    run.device.run(Mode::Time).unwrap();
    let attached = run.device.unload();
    let again = attached.load(executable(squares(1).program)).unwrap();
    assert_eq!(again.counters(), Ok(Counters::default()));
}

#[test]
fn variables_are_written_and_read_by_name() {
    let mut program = Program::new(1, 1);
    let x = var(&mut program, "x", VarKind::Weight, spread(5, 2));
    let y = var(&mut program, "y", VarKind::Weight, spread(5, 2));
    var(&mut program, "twice", VarKind::Weight, spread(5, 2));
    var(&mut program, "twice", VarKind::Weight, spread(5, 2));
    let source = program.add_source("x", "test");
    program.steps = vec![square(source, x, y)];
    let mut device = attach(1).load(executable(program)).unwrap();
    assert_eq!(device.variable("x"), Ok(x));
    device.write(FIRST, x, &[1.0, 0.1, 3.0, 4.0, -5.0]).unwrap();
    device.run(Mode::TimeAndExecute).unwrap();
    // Rounded to half precision when it is written, and squared when it is stored.
    let tenth = DType::F16.round(0.1);
    let hundredth = DType::F16.round(tenth * tenth);
    assert_eq!(
        device.read(FIRST, y),
        Ok(vec![1.0, hundredth, 9.0, 16.0, 25.0])
    );

    for (error, expected) in [
        (
            device.variable("z").unwrap_err(),
            "expected one variable of the name `z`, got 0",
        ),
        (
            device.variable("twice").unwrap_err(),
            "expected one variable of the name `twice`, got 2",
        ),
        (
            device.stream("x").unwrap_err(),
            "expected one stream of the name `x`, got 0",
        ),
        (
            device.write(FIRST, x, &[1.0]).unwrap_err(),
            "`x`: expected 5 values, got 1",
        ),
        (
            device.read(ReplicaId(1), x).unwrap_err(),
            "expected a replica below 1, got 1",
        ),
        (
            device.read(FIRST, VarId(4)).unwrap_err(),
            "expected a variable below 4, got 4",
        ),
        (
            device
                .connect(StreamId(0), StreamQueue::default())
                .unwrap_err(),
            "expected a stream below 0, got 0",
        ),
    ] {
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn streaming_memory_is_written_and_read_as_a_variable_stores_it() {
    let mut program = Program::new(1, 2);
    // Two tiles, 4 and 3 elements: the second one is padded.
    let x = var(&mut program, "x", VarKind::Weight, spread(7, 2));
    let longer = var(&mut program, "longer", VarKind::Weight, spread(20, 2));
    for (name, bytes) in [("fits", 16), ("small", 4)] {
        program.remote_buffers.push(RemoteBuffer {
            name: name.to_owned(),
            bytes: Bytes(bytes),
        });
    }
    let [fits, small] = [0, 1].map(RemoteBufferId);
    let mut device = attach(2).load(executable(program)).unwrap();
    let values: Vec<f64> = (0..7).map(f64::from).collect();
    let second = ReplicaId(1);
    device.write_remote(second, fits, x, &values).unwrap();
    assert_eq!(device.read_remote(second, fits, x), Ok(values.clone()));
    for (error, expected) in [
        (
            device.read_remote(FIRST, fits, x).unwrap_err(),
            "buffer `fits` of replica 0 is loaded before it is stored",
        ),
        (
            device.write_remote(FIRST, small, x, &values).unwrap_err(),
            "buffer `small`: expected room for 14 B of `x`, got 4 B",
        ),
        (
            device.read_remote(FIRST, RemoteBufferId(2), x).unwrap_err(),
            "expected a remote buffer below 2, got 2",
        ),
    ] {
        assert_eq!(error.to_string(), expected);
    }
    let error = device.read_remote(second, fits, longer).unwrap_err();
    assert!(error.to_string().starts_with("buffer `fits`: expected 20"));
}

#[test]
fn streams_without_a_host_keep_a_run_from_starting() {
    let Squares {
        program,
        to_device,
        from_device,
        ..
    } = squares(1);
    let mut device = attach(1).load(executable(program)).unwrap();
    let check = |device: &mut LoadedDevice, expected: &str| {
        let error = device.run(Mode::TimeAndExecute).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(*device.condition(), Condition::Ready);
    };
    check(&mut device, "stream `to device` is not connected");
    let inputs = StreamQueue::default();
    device.connect(to_device, inputs.clone()).unwrap();
    check(&mut device, "stream `from device` is not connected");
    // Time needs no values.
    device.run(Mode::Time).unwrap();
    device.connect(from_device, StreamQueue::default()).unwrap();
    inputs.push(FIRST, count(0));
    device.run(Mode::TimeAndExecute).unwrap();
    assert_eq!(device.stream("to device"), Ok(to_device));
}

/// Hardware that panics when it is told to.
#[derive(Default)]
struct Buggy {
    panics: AtomicBool,
}

impl Hardware for Buggy {
    fn fault(&self, _: &[IpuId]) -> Option<Fault> {
        assert!(!self.panics.load(Ordering::Relaxed), "a bug");
        None
    }

    fn recovered(&self, _: &[IpuId], _: RecoveryAction) {}
}

#[test]
fn a_device_that_panics_says_so_to_everybody() {
    // Programs that would make it panic aren't loaded, so that the bug is in a port.
    let buggy = Arc::new(Buggy::default());
    let ports = Ports {
        hardware: Arc::clone(&buggy) as Arc<dyn Hardware>,
        ..Ports::alone()
    };
    let manager = DeviceManager::new(machine(), ports);
    let attached = manager.attach_any(1, Connection::Always).unwrap();
    let program = squares(1).program;
    let x = VarId(0);
    let mut device = attached.load(executable(program)).unwrap();
    buggy.panics.store(true, Ordering::Relaxed);
    let error = device.run(Mode::Time).unwrap_err();
    assert_eq!(error.to_string(), "device 0 failed: a bug");
    assert_eq!(device.read(FIRST, x).unwrap_err(), error);
    assert_eq!(device.run(Mode::Time).unwrap_err(), error);
    let attached = device.unload();
    let again = attached.load(executable(squares(1).program));
    assert_eq!(again.unwrap_err(), error);
}

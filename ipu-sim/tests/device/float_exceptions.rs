//! A result that is an exception, on a device that has them and on one that hasn't.

use ipu_sim::device::{Condition, Counters, ErrorClass, LoadedDevice, Mode, RecoveryAction};
use ipu_sim::execute::{FloatControl, StochasticRounding};
use ipu_sim::ids::ReplicaId;
use ipu_sim::program::{Program, VarId, VarKind};

use crate::programs::{attach, executable, machine, spread, square, var};

const FIRST: ReplicaId = ReplicaId(0);

/// Squares of three numbers on three tiles.
fn squares(control: FloatControl) -> (LoadedDevice, [VarId; 2]) {
    let mut program = Program::new(1, 1);
    let from = var(&mut program, "from", VarKind::Weight, spread(3, 3));
    let to = var(&mut program, "to", VarKind::Weight, spread(3, 3));
    let source = program.add_source("squares", "test");
    program.steps = vec![square(source, from, to)];
    let mut executable = executable(program);
    executable.float_control = control;
    (attach(1).load(executable).unwrap(), [from, to])
}

#[test]
fn overflow_is_no_number_or_a_tile_exception() {
    let large = [1.0, 300.0, 2.0];
    let (mut device, [from, to]) = squares(FloatControl::default());
    device.write(FIRST, from, &large).unwrap();
    device.run(Mode::TimeAndExecute).unwrap();
    let got = device.read(FIRST, to).unwrap();
    assert!(got[0] == 1.0 && got[1].is_nan() && got[2] == 4.0, "{got:?}");

    let (mut device, [from, to]) = squares(FloatControl {
        exceptions: true,
        ..FloatControl::default()
    });
    device.write(FIRST, from, &large).unwrap();
    let error = device.run(Mode::TimeAndExecute).unwrap_err();
    assert_eq!(error.to_string(), "`squares`: overflow in `to` on tile 1");
    assert_eq!(error.class(), ErrorClass::Application);
    // It stands still with what it had computed, until it is reset.
    assert!(device.read(FIRST, from).is_ok());
    assert_eq!(device.run(Mode::TimeAndExecute).as_ref(), Err(&error));
    device.recover(RecoveryAction::IpuReset).unwrap();
    assert_eq!(*device.condition(), Condition::Ready);
    assert_eq!(device.counters(), Ok(Counters::default()));
    device.write(FIRST, from, &[1.0, 100.0, 2.0]).unwrap();
    device.run(Mode::TimeAndExecute).unwrap();
    assert_eq!(device.read(FIRST, to).unwrap(), [1.0, 10_000.0, 4.0]);
}

/// 1.5 + 1/1024 squared lies a little more than half of the way between two f16.
#[test]
fn rounding_follows_the_seed_and_time_does_not() {
    let outcome = |seed| {
        let workers = machine().tile.workers;
        let (mut device, [from, to]) = squares(FloatControl {
            exceptions: true,
            stochastic_rounding: Some(StochasticRounding { seed, workers }),
        });
        device.write(FIRST, from, &[1.5 + 1.0 / 1024.0; 3]).unwrap();
        let cycles = device.run(Mode::TimeAndExecute).unwrap().total;
        let first = device.read(FIRST, to).unwrap();
        // Generators go on from run to run, and begin anew after a reset.
        device.run(Mode::TimeAndExecute).unwrap();
        let second = device.read(FIRST, to).unwrap();
        device.reset().unwrap();
        device.write(FIRST, from, &[1.5 + 1.0 / 1024.0; 3]).unwrap();
        device.run(Mode::TimeAndExecute).unwrap();
        assert_eq!(device.read(FIRST, to).unwrap(), first);
        (cycles, first, second)
    };
    let outcomes: Vec<_> = (0..20).map(outcome).collect();
    assert_eq!(outcome(0), outcomes[0]);
    let exact = (1.5_f64 + 1.0 / 1024.0).powi(2);
    let spacing = 2.0 / 1024.0;
    for (cycles, first, second) in &outcomes {
        assert_eq!(cycles, &outcomes[0].0);
        let near = |value: &f64| (value - exact).abs() < spacing;
        assert!(
            first.iter().chain(second).all(near),
            "{first:?}, {second:?}"
        );
    }
    assert!(outcomes.iter().any(|(_, first, second)| first != second));
    assert!(outcomes.iter().any(|(_, first, _)| *first != outcomes[0].1));
}

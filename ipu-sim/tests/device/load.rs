//! What a device refuses to load.

use ipu_sim::device::Connection;
use ipu_sim::device::DeviceError;
use ipu_sim::ids::{IpuId, TileId};
use ipu_sim::program::{Program, VarKind};
use ipu_sim::units::Bytes;

use crate::programs::{buffered, executable, machine, manager, spread, var};

/// The refusal of a program by a device of `n_ipus` IPUs, which is then free again.
fn refusal(n_ipus: u32, program: Program) -> DeviceError {
    let manager = manager();
    let attached = manager.attach_any(n_ipus, Connection::Always).unwrap();
    let error = attached.load(executable(program)).unwrap_err();
    manager.attach_any(4, Connection::Always).unwrap();
    error
}

fn check(n_ipus: u32, program: Program, expected: &str) {
    assert_eq!(refusal(n_ipus, program).to_string(), expected);
}

#[test]
fn out_of_tile_memory() {
    let mut program = Program::new(1, 1);
    // 640 KiB on each of two tiles that have 624 KiB.
    let large = var(
        &mut program,
        "large",
        VarKind::Weight,
        spread(2 * 640 * 512, 2),
    );
    let DeviceError::OutOfMemory(error) = refusal(1, program) else {
        panic!("it doesn't fit");
    };
    assert_eq!((error.ipu, error.tile), (IpuId(0), TileId(0)));
    assert_eq!(error.available, machine().tile.memory);
    assert!(error.needed > Bytes(640 * 1024));
    assert_eq!(error.largest[0].var, large);
    assert_eq!(error.largest[0].bytes, Bytes(640 * 1024));
    assert!(error.to_string().contains("`large` 655360 B"), "{error}");
}

#[test]
fn out_of_streaming_memory() {
    let capacity = machine().streaming_memory.capacity;
    let half = Bytes(capacity.0 / 2);
    let more = half + Bytes(1);
    // Four IPUs are one IPU-Machine, so two replicas share its memory.
    check(
        2,
        buffered(1, 2, more),
        &format!(
            "out of streaming memory beside IPU-Machine 0: expected at most {capacity}, got {}",
            more * 2
        ),
    );
    let attached = manager().attach_any(2, Connection::Always).unwrap();
    attached.load(executable(buffered(1, 2, half))).unwrap();
}

#[test]
fn another_number_of_ipus_or_tiles() {
    let none = Bytes::ZERO;
    check(
        4,
        buffered(1, 2, none),
        "`test`: expected a device of 2 IPUs, got one of 4",
    );
    check(
        2,
        buffered(3, 1, none),
        "`test`: expected a device of 4 IPUs, got one of 2",
    );
    check(
        1,
        buffered(1, 0, none),
        "expected at least one replica of at least one IPU",
    );
    let mut wide = Program::new(1, 1);
    var(&mut wide, "wide", VarKind::Weight, spread(64, 64));
    check(
        1,
        wide,
        "`test`: expected at most 32 tiles on an IPU, got 64",
    );
    // Three IPUs need a device of four.
    let attached = manager().attach_any(4, Connection::Always).unwrap();
    attached.load(executable(buffered(3, 1, none))).unwrap();
}

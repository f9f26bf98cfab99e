//! A program that everything stands in, changed by each six bytes: verified, weighed, timed and
//! executed without a panic, or refused in words.
#![no_main]

use std::time::Duration;

use ipu_sim::device::{DeviceError, ErrorClass};
use ipu_sim::engine::time;
use libfuzzer_sys::fuzz_target;

#[path = "../../ipu-sim/tests/verify/changes.rs"]
mod changes;
#[path = "../../ipu-sim/tests/verify/good.rs"]
mod good;

use changes::{Change, NUMBERS, run};

/// Changes of one program at the most: more are all refused.
const CHANGES_MAX: usize = 8;

/// How long a program may run: repeats inside each other may have 2^62 passes.
const TIMEOUT: Duration = Duration::from_secs(2);

fuzz_target!(|bytes: &[u8]| {
    let mut program = good::good();
    let (changes, _) = bytes.as_chunks::<6>();
    for &[kind, a, b, c, d, to] in changes.iter().take(CHANGES_MAX) {
        let change = Change {
            kind: kind % 22,
            which: u16::from_le_bytes([a, b]).into(),
            part: u16::from_le_bytes([c, d]).into(),
            to: NUMBERS
                .get(usize::from(to))
                .copied()
                .unwrap_or(u32::from(to)),
        };
        change.apply(&mut program);
    }
    let ended = run(&program, TIMEOUT);
    // Timed without a device, it would take as long.
    if let Err(DeviceError::HostSyncTimeout { .. }) = ended {
        return;
    }
    if let Err(error) = ended {
        let class = error.class();
        let expected = [
            ErrorClass::Setup,
            ErrorClass::Memory,
            ErrorClass::Application,
        ];
        assert!(expected.contains(&class), "{error}");
    }
    if let Err(error) = time(&program, &good::machine(), good::options()) {
        let error = DeviceError::from(error);
        assert_eq!(error.class(), ErrorClass::Setup, "{error}");
    }
});

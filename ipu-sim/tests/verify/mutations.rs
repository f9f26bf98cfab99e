//! Random changes of a good program: it runs, or what is wrong is said in words. It never panics.

use std::time::Duration;

use ipu_sim::device::{DeviceError, ErrorClass};
use ipu_sim::engine::time;
use proptest::prelude::*;

use crate::changes::{Change, NUMBERS, run};
use crate::good::{good, machine, options};

/// How long a changed program may run: as long as anyone wants to wait for it.
const TIMEOUT: Duration = Duration::from_secs(5);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let number = prop::sample::select(NUMBERS.as_slice());
    let one = (0u8..22, any::<usize>(), any::<usize>(), number);
    let one = one.prop_map(|(kind, which, part, to)| Change {
        kind,
        which,
        part,
        to,
    });
    prop::collection::vec(one, 1..4)
}

#[test]
fn the_good_program_runs() {
    assert_eq!(run(&good(), TIMEOUT), Ok(()));
}

/// Repeats inside each other whose passes never become alike are walked one by one: nobody waits for
/// five hundred thousand million of them.
#[test]
fn a_program_without_an_end_has_a_time_out() {
    let mut program = good();
    for (which, part, to) in [(0x84, 0x0700, 1 << 31), (0x850e, 0xf7ff, 223)] {
        let kind = 12;
        let change = Change {
            kind,
            which,
            part,
            to,
        };
        change.apply(&mut program);
    }
    let timeout = Duration::from_millis(200);
    let error = run(&program, timeout).unwrap_err();
    assert!(
        matches!(error, DeviceError::HostSyncTimeout { .. }),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn changed_programs_run_or_are_refused_in_words(changes in changes()) {
        let mut program = good();
        for change in changes {
            change.apply(&mut program);
        }
        let ended = run(&program, TIMEOUT);
        // Timed without a device, it would take as long.
        if let Err(DeviceError::HostSyncTimeout { .. }) = ended {
            return Ok(());
        }
        if let Err(error) = ended {
            let class = error.class();
            // What only values decide is the program's fault at run time.
            let expected = [ErrorClass::Setup, ErrorClass::Memory, ErrorClass::Application];
            prop_assert!(expected.contains(&class), "{error}");
        }
        if let Err(error) = time(&program, &machine(), options()) {
            let error = DeviceError::from(error);
            prop_assert_eq!(error.class(), ErrorClass::Setup, "{}", error);
        }
    }
}

//! Random changes of a good program: it runs, or what is wrong is said in words. It never panics.

use ipu_sim::device::{DeviceError, ErrorClass};
use ipu_sim::engine::time;
use proptest::prelude::*;

use crate::changes::{Change, NUMBERS, run};
use crate::good::{good, machine, options};

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
    assert_eq!(run(&good()), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn changed_programs_run_or_are_refused_in_words(changes in changes()) {
        let mut program = good();
        for change in changes {
            change.apply(&mut program);
        }
        if let Err(error) = run(&program) {
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

//! The description of a machine: read without a panic, and what can be read reads the same again.
#![no_main]

use ipu_sim::spec::MachineSpec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(machine) = MachineSpec::from_toml(text) {
        assert_eq!(MachineSpec::from_toml(&machine.to_toml()), Ok(machine));
    }
});

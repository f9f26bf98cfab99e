//! Which machines come with the simulator?
//!
//! The files of `configs/systems/` are part of the program, so that a machine is found by its
//! name wherever the program runs, and so that a user's file may build on one.

macro_rules! machine {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../../configs/systems/", $name, ".toml")),
        )
    };
}

/// Whole machines: name (also the file's) and description.
const MACHINES: &[(&str, &str)] = &[
    machine!("mk1-server16"),
    machine!("mk2-m2000"),
    machine!("mk2-pod16"),
    machine!("mk2-pod64"),
    machine!("mk2-pod128"),
    machine!("mk2-pod256"),
    machine!("bow-pod16"),
    machine!("bow-pod64"),
    machine!("bow-pod128"),
    machine!("bow-pod256"),
];

/// Parts that several machines share and that are no machine by themselves.
const PARTS: &[(&str, &str)] = &[
    machine!("parts/ipu"),
    machine!("parts/gc2"),
    machine!("parts/gc200"),
    machine!("parts/bow"),
];

/// The names of the shipped machines, in the order in which to list them.
#[must_use]
pub fn machines() -> Vec<&'static str> {
    MACHINES.iter().map(|(name, _)| *name).collect()
}

/// The description of a shipped machine.
#[must_use]
pub fn description(machine: &str) -> Option<&'static str> {
    lookup(MACHINES, machine)
}

/// Everything that a description may name as a base.
pub(super) fn bases() -> Vec<&'static str> {
    let all = MACHINES.iter().chain(PARTS);
    all.map(|(name, _)| *name).collect()
}

/// A shipped machine or part.
pub(super) fn find(base: &str) -> Option<&'static str> {
    lookup(MACHINES, base).or_else(|| lookup(PARTS, base))
}

fn lookup(files: &[(&str, &'static str)], wanted: &str) -> Option<&'static str> {
    let found = files.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, text)| *text)
}

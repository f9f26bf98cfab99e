//! Number formats and random masks of the machine.

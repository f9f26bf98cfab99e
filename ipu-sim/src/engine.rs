//! How long a program takes on a machine, and where the time goes.
//!
//! Every IPU has a clock. A compute set takes its slowest tile's vertices and a
//! dispatch; an exchange takes a sync, a route latency and its busiest tile's words;
//! both move one clock. Copies between IPUs and collectives let the IPUs they name wait
//! for each other. Transfers take turns on the lines of an IPU-Machine.
//!
//! ```text
//! Program ──costs──▶ Schedule ──walk──▶ Timeline
//!          each distinct step     clocks; repeats
//!          costed once            folded, exactly
//! ```
//!
//! Costs come from [`crate::cost`] and [`crate::exchange`]. One replica is timed and
//! stands for all: they run the same steps at the same time.
//!
//! Left out: calls and loops (tens of cycles), additions inside collectives, and
//! transfers of one step to the host and from it at the same time, which are taken one
//! after the other.

mod compute;
mod costs;
mod schedule;
pub(crate) mod tiles;
mod timeline;
pub(crate) mod traffic;
mod walk;

#[cfg(test)]
mod tests;

pub use timeline::{
    Activity, Awaited, Called, Channel, IpuTime, Join, Moved, SourceTime, Spent, StreamTime, Tally,
    Timeline, Wait,
};

use crate::error::Result;
use crate::program::Program;
use crate::spec::MachineSpec;

/// How repeats are walked; the result is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Until the clocks recur; the rest is multiplied.
    Folded,
    /// Pass by pass.
    Unfolded,
}

/// How a program is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Options {
    /// How repeats are walked.
    pub mode: Mode,
    /// Levels of steps that the trace shows: 1 for the program's own, 2 with the first
    /// pass through its repeats, and so on; 0 for no trace.
    pub trace_depth: u32,
}

/// Times `program` on `machine`.
///
/// # Errors
///
/// [`crate::error::Error::ReplicasDontFit`] if the machine has too few IPUs,
/// [`crate::error::Error::NoReplicas`] if the program has none.
///
/// # Panics
///
/// If the program is not well formed: a function that calls itself, a vertex without
/// its inputs, a layout beyond the tiles of the IPU. Programs are made by the compiler.
pub fn time(program: &Program, machine: &MachineSpec, options: Options) -> Result<Timeline> {
    let schedule = costs::schedule(program, machine)?;
    Ok(walk::walk(&schedule, options.mode, options.trace_depth))
}

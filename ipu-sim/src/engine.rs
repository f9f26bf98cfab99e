//! How long a program takes on a machine, and where the time goes.
//!
//! Every IPU has a clock. A compute set takes its slowest tile's vertices and a
//! dispatch; an exchange takes a sync, the route to the farthest tile and its words;
//! both move one clock. Copies between IPUs and collectives let the IPUs they name wait
//! for each other. What moves beyond an IPU shares links with all else that moves at
//! that time, and events resolve who is through when.
//!
//! ```text
//! Program ──costs──▶ Schedule ──link──▶ lists of the IPUs ──walk──▶ Timeline
//!          each distinct step                            clocks and events;
//!          costed once                                   folded, exactly
//! ```
//!
//! Costs come from [`crate::cost`], [`crate::exchange`] and [`crate::collective`]. Replicas that
//! can't be told apart are timed once, and their traffic is counted on the links they share.
//!
//! Left out: calls and loops (tens of cycles).

mod compute;
mod conserve;
mod costs;
mod countable;
mod couple;
mod events;
mod link;
mod linked;
mod schedule;
pub(crate) mod tiles;
mod timeline;
pub(crate) mod traffic;
mod walk;

#[cfg(test)]
mod tests;

pub use timeline::{
    Activity, ActivityCycles, CallTime, Channel, ChannelBytes, ConstantUsage, IpuTime, Join,
    ProductFlops, SourceTime, StreamTime, Tally, Timeline, Wait, WaitCause,
};

use crate::network::Fold;
use crate::program::Program;
use crate::spec::MachineSpec;
use crate::topology::Topology;
use crate::verify::VerifyError;

/// How repeats and replicas are walked; the result is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Repeats until the state recurs, and one of the replicas that are alike.
    Folded,
    /// Pass by pass, replica by replica.
    Unfolded,
}

/// How a program is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Options {
    /// How repeats and replicas are walked.
    pub mode: Mode,
    /// Levels of steps that the trace shows: 1 for the program's own, 2 with the first
    /// pass through its repeats, and so on; 0 for no trace.
    pub trace_depth: u32,
}

/// Times `program` on `machine`.
///
/// # Errors
///
/// [`VerifyError::Replicas`] if the machine has too few IPUs or the program has no replicas,
/// [`VerifyError::BadProgram`] if it breaks a rule of [`crate::verify`], or takes 2^62 cycles and
/// more.
pub fn time(
    program: &Program,
    machine: &MachineSpec,
    options: Options,
) -> Result<Timeline, VerifyError> {
    program.verify(machine)?;
    let goes_on = &mut || true;
    let timeline = time_verified(program, machine, options, goes_on)?;
    Ok(timeline.expect("nobody stops it"))
}

/// As [`time`], of a program that keeps the rules of [`crate::verify`]; nothing if `goes_on`, which
/// is asked now and then, says no.
pub(crate) fn time_verified(
    program: &Program,
    machine: &MachineSpec,
    options: Options,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Timeline>, VerifyError> {
    let fold = match options.mode {
        Mode::Folded => Fold::Alike,
        Mode::Unfolded => Fold::Nothing,
    };
    let topology = Topology::new(machine);
    let schedule = costs::schedule(program, machine, &topology, fold)?;
    countable::check(&schedule, program, machine, &topology)?;
    if !goes_on() {
        return Ok(None);
    }
    let linked = link::link(schedule);
    let timeline = walk::walk(&linked, options.mode, options.trace_depth, goes_on);
    if let Some(timeline) = &timeline {
        conserve::check(timeline, program, &topology);
    }
    Ok(timeline)
}

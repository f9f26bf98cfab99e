//! Does a run end before the simulator loses count?
//!
//! Clocks, bytes, calls and their sums are 64 bits wide, and repeats multiply. What a run takes at most is
//! known without walking it: every step one after the other, and every byte of every replica alone
//! on each link of the longest route, at the rate of the slowest one.

use super::schedule::{Leaf, Schedule, Timed};
use crate::ids::IdVec;
use crate::program::{FunctionId, Program};
use crate::spec::MachineSpec;
use crate::topology::Topology;
use crate::verify::{BadProgram, Location, Violation};

/// Cycles, and bytes on all links, of the longest run: far below what 64 bits hold.
const MOST: u128 = 1 << 62;

/// Refuses a program that takes too long to be counted.
pub(super) fn check(
    schedule: &Schedule,
    program: &Program,
    machine: &MachineSpec,
    topology: &Topology,
) -> Result<(), Box<BadProgram>> {
    let bundles = topology.bundles();
    let rates = bundles.values().map(|bundle| bundle.capacity_per_flow.0);
    let slowest = rates.fold(machine.tile.clock.0, f64::min);
    // At least a cycle on each link, so that bytes are counted as well.
    let on_link = (machine.tile.clock.0 / slowest).ceil() as u128;
    let on_route = on_link.saturating_mul(schedule.route_max.max(HOPS) as u128);
    let mut longest = Longest {
        schedule,
        per_byte: on_route.saturating_mul(u128::from(program.n_replicas)),
        functions: schedule.functions.ids().map(|_| None).collect(),
    };
    if longest.steps(&schedule.steps) < MOST {
        return Ok(());
    }
    let place = Location::Program;
    let violation = Violation::TooLong { most: MOST as u64 };
    Err(Box::new(BadProgram { place, violation }))
}

/// Links that a byte of a collective crosses to the next replica at most: those of its IPUs.
const HOPS: usize = 64;

struct Longest<'s> {
    schedule: &'s Schedule,
    /// Cycles that a byte takes at most.
    per_byte: u128,
    /// Of those that are known.
    functions: IdVec<FunctionId, Option<u128>>,
}

impl Longest<'_> {
    fn steps(&mut self, steps: &[Timed]) -> u128 {
        let each = steps.iter().map(|step| match step {
            Timed::Leaf(leaf) => self.leaf(leaf),
            Timed::Repeat { count, body } => self.steps(body).saturating_mul(u128::from(*count)),
            // Calls and sections take no cycles, but calls of what isn't empty are counted.
            Timed::Call(function) => match self.function(*function) {
                0 => 0,
                longest => longest.saturating_add(1),
            },
            Timed::Section(_) => 1,
        });
        each.fold(0, u128::saturating_add)
    }

    fn function(&mut self, function: FunctionId) -> u128 {
        if let Some(known) = self.functions[function] {
            return known;
        }
        let longest = self.steps(&self.schedule.functions[function]);
        self.functions[function] = Some(longest);
        longest
    }

    fn leaf(&self, leaf: &Leaf) -> u128 {
        let spent = leaf.spends.iter().map(|(_, cycles)| u128::from(cycles.0));
        let moved = leaf.moves.iter().map(|(_, bytes)| u128::from(bytes.0));
        let moved: u128 = moved.sum();
        let latency = self.schedule.network.routes.values();
        let latency = latency.map(|route| u128::from(route.latency.total.0)).max();
        let waits = self.schedule.streams.values();
        let waits = waits.map(|stream| u128::from(stream.latency.0)).max();
        spent.chain(latency).chain(waits).fold(
            1 + moved.saturating_mul(self.per_byte),
            u128::saturating_add,
        )
    }
}

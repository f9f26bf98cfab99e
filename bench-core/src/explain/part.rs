//! What one part of a model takes: a layer, its attention, a head.
//!
//! A part has an id in the graph ([`popart_graph::ir::Parts`]), which holds through all passes and
//! in the program's profile. Asked for a part, time and bytes are those of all lines of the profile
//! that belong to it or to a part in it.

use ipu_sim::engine::Timeline;
use ipu_sim::ids::{IdVec, IpuId};
use ipu_sim::program::{Program, SourceId};
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::{self, PartMemoryUsage};
use popart_graph::ir::PartId;
use popart_graph::profile::Profile;

use super::cause::Causes;

/// Cycles of one part in a step on every IPU, by cause; waiting belongs to no part.
#[must_use]
pub fn cycles(
    program: &Program,
    profile: &Profile,
    timeline: &Timeline,
    part: PartId,
) -> IdVec<IpuId, Causes> {
    let mut out: IdVec<IpuId, Causes> = vec![Causes::default(); program.n_ipus as usize].into();
    let lines = timeline.sources.iter();
    for (id, times) in lines.filter(|&(id, _)| profile.is_of(id, part)) {
        let (line, role) = (&profile.lines[id], program.source(id).role);
        for (sum, times) in out.values_mut().zip(times.values()) {
            sum.add_all(&Causes::of_busy(line, role, &times.spent));
        }
    }
    out
}

/// Bytes of one part on all tiles of one IPU, by category ([`weigh::weigh_parts`] says what of
/// things that parts share belongs to which).
#[must_use]
pub fn bytes(
    program: &Program,
    profile: &Profile,
    machine: &MachineSpec,
    ipu: IpuId,
    part: PartId,
) -> PartMemoryUsage {
    let is_of = |line: SourceId| profile.is_of(line, part);
    let mut weights = weigh::weigh_parts(program, machine, ipu, &[&is_of]);
    weights.pop().expect("one part was asked for")
}

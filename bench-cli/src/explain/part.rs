//! What one part of a model takes: a layer, its attention, a head.
//!
//! A part has an id in the graph ([`popart_graph::ir::Parts`]), which holds through all passes and
//! in the program's profile. Its time is that of all lines of the profile that belong
//! to it or to a part in it.

use ipu_sim::engine::Timeline;
use ipu_sim::ids::{IdVec, IpuId};
use ipu_sim::program::Program;
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

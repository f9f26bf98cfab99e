//! Where the time of a step went: cycles of every IPU by cause, by mechanism, by kind of operation,
//! by layer, by pass and by section of the program, and what bounds the pipeline.
//!
//! Whole cycles throughout: on every IPU the causes add up to the step, and mechanisms, kinds,
//! layers and passes to the step without its idle cycles.
//!
//! The files: [`cause`] (what cycles are spent on), [`mechanism`] (what for), [`part`] (what one part
//! of the model takes), [`pipeline`] (what bounds a cycle of the pipeline).

pub mod cause;
pub mod mechanism;
pub mod part;
pub mod pipeline;

use std::collections::BTreeMap;

use ipu_sim::engine::{CallTime, Timeline};
use ipu_sim::ids::{IdVec, IpuId};
use ipu_sim::program::{FunctionId, Program, Step};
use ipu_sim::units::Cycles;
use popart_graph::ir::Phase;
use popart_graph::profile::{Line, Profile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use cause::{Cause, Causes, IdleTime};
use mechanism::Mechanism;
use pipeline::Pipeline;

/// Where the cycles of a step went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// Cycles of all IPUs of a replica together, by cause: the step times the IPUs.
    pub all_ipus: Causes,
    /// Every IPU of a replica.
    pub ipus: Vec<IpuCycles>,
    /// Bounds of the pipeline and the gain of an even one, if the run has a pipeline.
    pub pipeline: Option<Pipeline>,
}

/// Cycles of one IPU in a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpuCycles {
    /// Number of the IPU in the replica.
    pub ipu: u32,
    /// Stages of the pipeline that run on it.
    pub stages: Vec<u32>,
    /// Cycles by cause; all of the step.
    pub by_cause: Causes,
    /// Cycles by mechanism of machine and compiler, waiting not counted; mechanisms without any are
    /// left out, and all of them in reports of versions that didn't know them.
    #[serde(default)]
    pub by_mechanism: BTreeMap<Mechanism, Cycles>,
    /// Cycles by kind of operation (`matmul`, `layer_norm`, ...) and cause, waiting not counted.
    pub by_kind: BTreeMap<String, Causes>,
    /// Cycles by part of the model (`Layer3`, `Embedding`, ...) and cause, waiting not counted.
    pub by_layer: BTreeMap<String, Causes>,
    /// Cycles by pass (`forward`, `recompute`, `backward`, ...), waiting not counted.
    pub by_pass: BTreeMap<String, Cycles>,
    /// Cycles by section of the program (`fill`, `main`, `drain`, `update`, ...), waiting included:
    /// all of the step. `other` is what comes before the first section, and waiting for the end of
    /// the step.
    pub by_section: BTreeMap<String, Cycles>,
    /// Idle cycles of the IPU by what it waited for, longest first; all of them.
    pub waits: Vec<IdleTime>,
}

/// Placement of pipeline stages and updates, beside the program itself.
#[derive(Clone, Debug, Default)]
pub struct StagePlacement {
    /// The IPU of every stage of the pipeline.
    pub stage_ipus: Vec<IpuId>,
    /// Micro-batches of one replica in a step.
    pub micro_batches: u64,
    /// Whether stages update weights, in every micro-batch.
    pub updates_in_stages: bool,
    /// Part of the encoder that can be moved to another IPU by itself.
    pub movable: pipeline::Movable,
}

/// Name of the part that collects what belongs to no pass, section or layer.
const OTHER: &str = "other";

/// The name of the pass that a phase of a training step is.
pub(crate) fn pass_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Forward => "forward",
        Phase::Backward => "backward",
        Phase::Accumulate => "accumulate",
        Phase::Update => "update",
    }
}

impl Explanation {
    /// Sorts the cycles of a run.
    ///
    /// # Panics
    ///
    /// If the cycles of an IPU don't add up to the step, which would be a mistake of the engine.
    #[must_use]
    pub fn new(
        program: &Program,
        profile: &Profile,
        timeline: &Timeline,
        placement: &StagePlacement,
    ) -> Self {
        let again = called_again(program, timeline);
        let lowered = (program, profile);
        let ipus: Vec<IpuCycles> = (0..program.n_ipus)
            .map(|ipu| ipu_cycles(lowered, timeline, placement, IpuId(ipu), &again))
            .collect();
        let mut all_ipus = Causes::default();
        for ipu in &ipus {
            assert_eq!(
                ipu.by_cause.total(),
                timeline.total,
                "causes are the whole step"
            );
            all_ipus.add_all(&ipu.by_cause);
        }
        Self {
            pipeline: Pipeline::of(lowered, timeline, placement, &ipus),
            all_ipus,
            ipus,
        }
    }
}

fn ipu_cycles(
    (program, profile): (&Program, &Profile),
    timeline: &Timeline,
    placement: &StagePlacement,
    ipu: IpuId,
    again: &IdVec<IpuId, CallTime>,
) -> IpuCycles {
    let mut out = IpuCycles {
        ipu: ipu.0,
        stages: (0..)
            .zip(&placement.stage_ipus)
            .filter(|&(_, &at)| at == ipu)
            .map(|(stage, _)| stage)
            .collect(),
        ..IpuCycles::default()
    };
    for (id, times) in timeline.sources.iter() {
        let (line, role) = (&profile.lines[id], program.source(id).role);
        let causes = Causes::of_busy(line, role, &times[ipu].spent);
        let busy = causes.total();
        if busy == Cycles::ZERO {
            continue;
        }
        out.by_cause.add_all(&causes);
        mechanism::add_busy(&mut out.by_mechanism, line, role, &times[ipu].spent);
        let kind = out.by_kind.entry(line.kind.name().into()).or_default();
        kind.add_all(&causes);
        let layer = out.by_layer.entry(layer(profile, line).into());
        layer.or_default().add_all(&causes);
        let pass = line.phase.map_or(OTHER, pass_name);
        *out.by_pass.entry(pass.into()).or_default() += busy;
    }
    let recomputed = again[ipu].tally.spent.total();
    if recomputed > Cycles::ZERO {
        let forward = pass_name(Phase::Forward);
        let forward = out.by_pass.entry(forward.into()).or_default();
        *forward -= recomputed;
        out.by_pass.insert("recompute".into(), recomputed);
    }
    for (id, section) in profile.sections.iter() {
        let spent = timeline.sections[id][ipu].total();
        out.by_section.insert(section.name().into(), spent);
    }
    let elsewhere = timeline.total - out.by_section.values().copied().sum();
    if elsewhere > Cycles::ZERO {
        out.by_section.insert(OTHER.into(), elsewhere);
    }
    out.waits = cause::waits(profile, timeline, ipu);
    for wait in &out.waits {
        out.by_cause.add(wait.cause, wait.cycles);
    }
    out
}

/// The name of the part of the model that a line belongs to, at the outermost: `Layer3` for what
/// belongs to its attention.
fn layer<'p>(profile: &'p Profile, line: &Line) -> &'p str {
    let outermost = line.part.map(|part| profile.parts.outermost(part));
    outermost.map_or(OTHER, |part| &profile.parts[part].name)
}

/// Cycles of a micro-batch, the weight update left out unless it is in the stages.
fn per_micro_batch(causes: &Causes, placement: &StagePlacement) -> u64 {
    let update = [Cause::Optimiser, Cause::Collective, Cause::StreamingMemory];
    let outside: Cycles = match placement.updates_in_stages {
        true => Cycles::ZERO,
        false => update.iter().map(|&cause| causes.on(cause)).sum(),
    };
    (causes.total() - outside).0 / placement.micro_batches.max(1)
}

/// What functions took, IPU by IPU, in all calls but those of their first caller: lowering makes
/// a function of what is computed again, and only of that, with several callers.
pub(crate) fn called_again(program: &Program, timeline: &Timeline) -> IdVec<IpuId, CallTime> {
    let mut callers: IdVec<FunctionId, u64> = program.functions.values().map(|_| 0).collect();
    for function in program.functions.values() {
        for step in &function.steps {
            if let Step::Call(callee) = step {
                callers[*callee] += 1;
            }
        }
    }
    let mut out: IdVec<IpuId, CallTime> = vec![CallTime::default(); program.n_ipus as usize].into();
    for (id, &n_callers) in callers.iter().filter(|&(_, &n_callers)| n_callers > 1) {
        for (sum, called) in out.values_mut().zip(timeline.functions[id].values()) {
            // Every caller runs once a micro-batch, and every call takes the same.
            sum.add_share(called, (n_callers - 1, n_callers));
        }
    }
    out
}

#[cfg(test)]
mod tests;

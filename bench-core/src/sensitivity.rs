//! Knobs do what they say: every constant of a machine, changed alone, changes a run in the
//! direction that physics says, or is known to change nothing.
//!
//! `constants` has one row for every constant: what to change it to, what must come of it, and the
//! run that shows it. A new constant without a row fails the test there. The runs are small, and
//! chosen so that each constant matters in one; `ipu-bench sensitivity --suite` also says whether
//! a constant matters in a run of the published benchmark.

pub mod constants;

use ipu_sim::engine;
use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::{ConstantId, Kind};
use ipu_sim::units::{Bytes, SimSeconds};
use ipu_sim::weigh;
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;

use crate::compile::{Compiled, compile};
use crate::config::RunConfig;
use crate::error::Result;
use crate::evaluate::{TIMING, evaluate};
use crate::suite;
use constants::{Change, ExpectedEffect, KNOBS, Knob, ProgramChoice, Run};

/// Time and memory of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Simulated time of a step.
    pub step: SimSeconds,
    /// Bytes on the fullest tile.
    pub fullest: Bytes,
    /// Whether no tile is too full.
    pub fits: bool,
}

/// A run, compiled for its machine.
pub(crate) struct PreparedRun {
    config: RunConfig,
    pub(crate) machine: MachineSpec,
    compiled: Compiled,
    pub(crate) base: Outcome,
}

impl PreparedRun {
    pub(crate) fn new(config: RunConfig, machine: MachineSpec) -> Result<Self> {
        let plans = PlanCache::new(machine.tile.clone());
        let compiled = compile(&config, &machine, &plans, Watch::nobody())?;
        let base = measure(&compiled, &machine)?;
        Ok(Self {
            config,
            machine,
            compiled,
            base,
        })
    }

    /// The run on a changed machine.
    pub(crate) fn on(&self, machine: &MachineSpec, plan: ProgramChoice) -> Result<Outcome> {
        match plan {
            ProgramChoice::Fixed => measure(&self.compiled, machine),
            ProgramChoice::Again => {
                let plans = PlanCache::new(machine.tile.clone());
                let metrics = evaluate(&self.config, machine, &plans)?;
                Ok(Outcome {
                    step: metrics.step_seconds,
                    fullest: metrics.fullest_tile().unwrap_or_default(),
                    fits: metrics.fits,
                })
            }
        }
    }
}

fn measure(compiled: &Compiled, machine: &MachineSpec) -> Result<Outcome> {
    let program = &compiled.program;
    let timeline = engine::time(program, machine, TIMING)?;
    let weight = weigh::weigh(program, machine)?;
    let fullest = weight.ipus.values().map(weigh::IpuMemoryUsage::max).max();
    Ok(Outcome {
        step: machine.tile.clock.seconds(timeline.total),
        fullest: fullest.unwrap_or_default(),
        fits: weight.verdict().is_ok(),
    })
}

/// `machine` with other values of some constants, each alone within what a machine can be.
///
/// # Errors
///
/// As [`MachineSpec::with`].
///
/// # Panics
///
/// If the machine has no such constant.
pub fn changed(machine: &MachineSpec, changes: &[(ConstantId, Change)]) -> Result<MachineSpec> {
    let value = |&(id, change): &(ConstantId, Change)| {
        let constant = machine.constant(id);
        let constant = constant.unwrap_or_else(|| panic!("{} has no {id}", machine.name));
        (id, change.of(constant.value))
    };
    let values: Vec<_> = changes.iter().map(value).collect();
    Ok(machine.with_all(values, Kind::Assumed, "sensitivity")?)
}

/// Whether a machine has all constants of some changes.
fn has(machine: &MachineSpec, changes: &[(ConstantId, Change)]) -> bool {
    changes
        .iter()
        .all(|(id, _)| machine.constant(*id).is_some())
}

/// Effect of changing one constant.
#[derive(Clone, Debug)]
pub struct KnobEffect {
    /// The constant, its change and what must come of it.
    pub knob: &'static Knob,
    /// Before and after, where the changed machine runs it at all.
    pub outcome: Option<(Outcome, Outcome)>,
    /// Whether it changes a run of the published benchmark, if that was looked at.
    pub in_suite: Option<bool>,
}

impl KnobEffect {
    /// Whether what came of it is what physics says.
    #[must_use]
    pub fn holds(&self) -> bool {
        let Some((before, after)) = self.outcome else {
            return matches!(self.knob.effect, ExpectedEffect::Refused);
        };
        match self.knob.effect {
            ExpectedEffect::Faster => after.step < before.step,
            ExpectedEffect::Slower => after.step > before.step,
            ExpectedEffect::MoreMemory => after.fullest > before.fullest,
            ExpectedEffect::Refused => !after.fits,
            ExpectedEffect::Nothing(_) => after == before,
        }
    }
}

/// Which runs are looked at beside the small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraRuns {
    /// None.
    Nothing,
    /// Those of the published benchmark.
    Suite,
}

/// Changes every constant, one after the other.
///
/// # Errors
///
/// Runs that don't compile, which would be a mistake of this crate.
pub fn sensitivity(extra_runs: ExtraRuns) -> Result<Vec<KnobEffect>> {
    let runs: Vec<(Run, PreparedRun)> = Run::ALL
        .into_iter()
        .map(|run| {
            let (config, machine) = run.configured();
            Ok((run, PreparedRun::new(config, machine)?))
        })
        .collect::<Result<_>>()?;
    let published: Option<Vec<PreparedRun>> = match extra_runs {
        ExtraRuns::Nothing => None,
        ExtraRuns::Suite => {
            let runs = suite::runs().into_iter();
            let prepared = runs.map(|run| PreparedRun::new(run.config, run.machine));
            Some(prepared.collect::<Result<_>>()?)
        }
    };
    KNOBS
        .iter()
        .map(|knob| {
            let (_, run) = runs
                .iter()
                .find(|(run, _)| *run == knob.run)
                .expect("all runs are prepared");
            let machine = changed(&run.machine, knob.changes)?;
            let after = run.on(&machine, knob.plan).ok();
            let published = published.as_ref();
            Ok(KnobEffect {
                knob,
                outcome: after.map(|after| (run.base, after)),
                in_suite: published.map(|runs| runs.iter().any(|run| matters(run, knob))),
            })
        })
        .collect()
}

/// Whether a change does anything to a run.
fn matters(run: &PreparedRun, knob: &Knob) -> bool {
    if !has(&run.machine, knob.changes) {
        return false;
    }
    let Ok(machine) = changed(&run.machine, knob.changes) else {
        return false;
    };
    run.on(&machine, knob.plan).ok() != Some(run.base)
}

/// Effect of one constant on one run.
#[derive(Clone, Debug)]
pub struct RunEffect {
    /// The constant and its change.
    pub knob: &'static Knob,
    /// The run on the changed machine; none if that can't be, or doesn't run it.
    pub after: Option<Outcome>,
}

/// Effects of all constants of its machine on one run: as it is, then changed.
///
/// # Errors
///
/// As [`compile`].
pub fn of_run(config: &RunConfig, machine: &MachineSpec) -> Result<(Outcome, Vec<RunEffect>)> {
    let run = PreparedRun::new(config.clone(), machine.clone())?;
    let knobs = KNOBS.iter().filter(|knob| has(machine, knob.changes));
    let effects = knobs.map(|knob| {
        let machine = changed(machine, knob.changes).ok();
        RunEffect {
            knob,
            after: machine.and_then(|machine| run.on(&machine, knob.plan).ok()),
        }
    });
    Ok((run.base, effects.collect()))
}

#[cfg(test)]
mod options;
#[cfg(test)]
mod tests;

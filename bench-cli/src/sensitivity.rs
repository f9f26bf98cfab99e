//! Knobs do what they say: every constant of a machine, changed alone, changes a run in the
//! direction that physics says, or is known to change nothing.
//!
//! `constants` has one row for every constant: what to change it to, what must come of it, and the
//! run that shows it. A new constant without a row fails the test there. The runs are small, and
//! chosen so that each constant matters in one; `ipu-bench sensitivity --suite` also says whether
//! a constant matters in a run of the published benchmark.

pub mod constants;

use comfy_table::{Table, presets};
use ipu_sim::engine::{self, Timeline};
use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::{ConstantId, Kind};
use ipu_sim::units::{Bytes, SimSeconds};
use ipu_sim::weigh;
use popart_graph::passes::Watch;

use crate::clock::Date;
use crate::compile::{self, Compiled};
use crate::request::{RunRequest, prepare};
use crate::run::TIMING;
use crate::{args, run, suite};
use constants::{Change, Effect, KNOBS, Knob, Plan, Run};

/// What a run measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) step: SimSeconds,
    pub(crate) fullest: Bytes,
    pub(crate) fits: bool,
}

/// A run, compiled for the machine it names.
pub(crate) struct Prepared {
    pub(crate) request: RunRequest,
    compiled: Compiled,
    pub(crate) base: Outcome,
}

impl Prepared {
    pub(crate) fn new(words: &str) -> anyhow::Result<Self> {
        let words = words.split_whitespace().map(String::from);
        let request = prepare(&args::parse(words)?, Date::now())?.request;
        let compiled = compile::compile(
            &request.options,
            &request.machine.spec,
            &compile::plans_for(&request.machine.spec),
            Watch::nobody(),
        )?;
        let base = measure(&compiled, &request.machine.spec)?;
        Ok(Self {
            request,
            compiled,
            base,
        })
    }

    /// The run on a changed machine.
    pub(crate) fn on(&self, machine: &MachineSpec, plan: Plan) -> anyhow::Result<Outcome> {
        match plan {
            Plan::Fixed => measure(&self.compiled, machine),
            Plan::Again => {
                let mut request = self.request.clone();
                request.machine.spec = machine.clone();
                let metrics = run::simulate(&request)?;
                Ok(Outcome {
                    step: metrics.step_seconds,
                    fullest: metrics.fullest_tile().unwrap_or_default(),
                    fits: metrics.fits,
                })
            }
        }
    }
}

fn measure(compiled: &Compiled, machine: &MachineSpec) -> anyhow::Result<Outcome> {
    let program = &compiled.lowered.program;
    let timeline: Timeline = engine::time(program, machine, TIMING)?;
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
/// As [`MachineSpec::with`]; a constant that the machine doesn't have.
pub fn changed(
    machine: &MachineSpec,
    changes: &[(ConstantId, Change)],
) -> anyhow::Result<MachineSpec> {
    let value = |&(id, change): &(ConstantId, Change)| {
        let constant = machine.constant(id);
        let constant = constant.ok_or_else(|| anyhow::anyhow!("{} has no {id}", machine.name))?;
        Ok((id, change.of(constant.value)))
    };
    let values: Vec<_> = changes.iter().map(value).collect::<anyhow::Result<_>>()?;
    Ok(machine.with_all(values, Kind::Assumed, "sensitivity")?)
}

/// What changing one constant came to.
pub struct Found {
    knob: &'static Knob,
    /// Before and after, where the changed machine runs it at all.
    outcome: Option<(Outcome, Outcome)>,
    /// Whether it changes a run of the published benchmark, if that was looked at.
    in_suite: Option<bool>,
}

impl Found {
    /// Whether what came of it is what physics says.
    #[must_use]
    pub fn holds(&self) -> bool {
        let Some((before, after)) = self.outcome else {
            return matches!(self.knob.effect, Effect::Refused);
        };
        match self.knob.effect {
            Effect::Faster => after.step < before.step,
            Effect::Slower => after.step > before.step,
            Effect::MoreMemory => after.fullest > before.fullest,
            Effect::Refused => !after.fits,
            Effect::Nothing(_) => after == before,
        }
    }
}

/// Changes every constant, one after the other; in the whole suite too, if asked to.
///
/// # Errors
///
/// Runs that don't compile, which would be a mistake of this program.
pub fn sensitivity(with_suite: bool) -> anyhow::Result<Vec<Found>> {
    // One after the other: a device's thread shares the pool that compiles, and would starve if
    // all of the pool waited for devices.
    let runs: Vec<(Run, Prepared)> = Run::ALL
        .into_iter()
        .map(|run| Ok((run, Prepared::new(&run.words())?)))
        .collect::<anyhow::Result<_>>()?;
    let published: Vec<Prepared> = if with_suite {
        let words =
            |run: &suite::SuiteRun| format!("{} --system {}", run.arguments.join(" "), run.system);
        let runs = suite::runs();
        runs.iter()
            .map(|run| Prepared::new(&words(run)))
            .collect::<anyhow::Result<_>>()?
    } else {
        Vec::new()
    };
    KNOBS
        .iter()
        .map(|knob| {
            let (_, run) = runs
                .iter()
                .find(|(run, _)| *run == knob.run)
                .expect("all runs are prepared");
            let machine = changed(&run.request.machine.spec, knob.changes)?;
            let after = run.on(&machine, knob.plan).ok();
            let matters = |run: &Prepared| -> bool {
                let Ok(machine) = changed(&run.request.machine.spec, knob.changes) else {
                    return false;
                };
                run.on(&machine, knob.plan).ok() != Some(run.base)
            };
            Ok(Found {
                knob,
                outcome: after.map(|after| (run.base, after)),
                in_suite: with_suite.then(|| published.iter().any(matters)),
            })
        })
        .collect()
}

/// `+1.234 %`, or as many digits as it takes to show that it isn't nothing.
fn change(before: f64, after: f64) -> String {
    let percent = 100.0 * (after / before - 1.0);
    match percent.abs() {
        0.0 => "0 %".into(),
        small if small < 0.01 => format!("{percent:+.1e} %"),
        _ => format!("{percent:+.3} %"),
    }
}

/// The findings as a table.
#[must_use]
pub fn text(found: &[Found]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "constant",
        "change",
        "expected",
        "run",
        "time",
        "fullest tile",
        "holds",
        "in the suite",
    ]);
    for row in found {
        let ratio = |of: fn(Outcome) -> f64| match row.outcome {
            None => "refused".into(),
            Some((_, after)) if !after.fits => "does not fit".into(),
            Some((before, after)) => change(of(before), of(after)),
        };
        let (_, change) = &row.knob.changes[0];
        table.add_row([
            row.knob.changes[0].0.to_string(),
            change.to_string(),
            row.knob.effect.word().into(),
            row.knob.run.name().into(),
            ratio(|outcome| outcome.step.0),
            ratio(|outcome| outcome.fullest.0 as f64),
            if row.holds() { "yes" } else { "NO" }.into(),
            match row.in_suite {
                None => "",
                Some(true) => "yes",
                Some(false) => "no",
            }
            .into(),
        ]);
    }
    format!("{table}\n")
}

#[cfg(test)]
mod options;
#[cfg(test)]
mod tests;

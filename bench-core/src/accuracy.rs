//! How far a simulated throughput is to be trusted: an interval around it, and whether the run
//! lies inside the domain of what was measured.
//!
//! The rule, which [docs/validation.md](../../docs/validation.md) argues for: measured runs give
//! `n` errors of prediction (logarithms, runs that constants were fitted to left out of the fit
//! in turn), whose squares over `n` less the fitted constants are `s²`. A run at distance `d` from
//! the domain gets
//!
//! ```text
//! throughput x exp(± t sqrt(s² (1 + d) + v)),    t: 95 % quantile of Student's t
//! ```
//!
//! `d` counts octaves and choices of the run ([`domain`]) and octaves of its machine ([`machine`]):
//! each of them between the run and what was measured adds an error as large as the known ones and
//! independent of them. `v` is what the run depends more on constants that aren't known exactly
//! than measured runs do ([`effects`], `constants`). The errors are data
//! ([`configs/accuracy.toml`](../../configs/accuracy.toml)) that `ipu-bench calibrate` writes.

mod constants;
pub mod domain;
pub mod effects;
pub mod machine;
pub mod ratio;
mod student;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::ConstantId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use domain::{Domain, Features};
use effects::{Effect, Effects, UncertainConstant};
use machine::Constants;

/// The probability that the interval stands for, in per cent.
pub const LEVEL: u32 = 90;

const SHIPPED: &str = include_str!("../../configs/accuracy.toml");

/// How far a throughput is to be trusted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Accuracy {
    /// Where the throughput of a real machine is expected, with a probability of [`LEVEL`].
    pub interval: Interval,
    /// Whether runs like this one were measured in every respect that is looked at.
    pub in_domain: bool,
    /// Reasons that set the run apart from the runs that were measured.
    pub reasons: Vec<String>,
    /// Terms that make up the width of the interval.
    #[serde(default)]
    pub uncertainty: Uncertainty,
}

/// Terms of an interval, and their shares of its variance, which add up to 1.
///
/// The interval goes from `throughput / f` to `throughput x f`, with
/// `f = exp(quantile sqrt(rms_error² (1 + distance) + variance_of_constants))`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Uncertainty {
    /// Runs that were measured: `n`.
    pub n_measured: u64,
    /// Degrees of freedom of Student's t: measured runs less fitted constants.
    pub freedom: u64,
    /// Root of the squares of the logarithms of predicted over measured throughput, divided by the
    /// degrees of freedom: `s`.
    pub rms_error: f64,
    /// Distance from the runs that were measured, in octaves and choices: `d`.
    pub distance: f64,
    /// Variance that uncertain constants add: `v`.
    pub variance_of_constants: f64,
    /// Quantile of Student's t: `t`.
    pub quantile: f64,
    /// Share of the variance from the errors of prediction of measured runs.
    pub from_errors: f64,
    /// Share of the variance from the distance to the runs that were measured.
    pub from_distance: f64,
    /// Share of the variance from constants of the machine that the run depends on more than
    /// measured runs do.
    pub from_constants: f64,
    /// The constants that matter, most first, of all that share.
    pub constants: Vec<ConstantShare>,
    /// Effects on the run's throughput of all constants that aren't known exactly and cost it time.
    pub effects: Vec<ConstantEffect>,
    /// Features that make runs alike.
    pub features: Features,
}

/// Share of the variance of an interval that one uncertain constant causes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConstantShare {
    /// Section and name.
    pub constant: String,
    /// Share of the variance, from 0 to 1.
    pub share: f64,
}

/// How a throughput depends on a constant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConstantEffect {
    /// Section and name.
    pub constant: String,
    /// Value of the constant on the run's machine.
    pub value: String,
    /// The values that sources leave possible.
    pub range: [String; 2],
    /// Whether it was fitted to runs.
    pub fitted: bool,
    /// Change of the logarithm of the throughput with the logarithm of the constant.
    pub slope: f64,
    /// Changes of the logarithm of the throughput if the constant is at the ends of its range.
    pub ends: [f64; 2],
}

/// A run whose accuracy is asked for, without its throughput.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// Features that make runs alike.
    pub features: Features,
    /// Effects of uncertain constants on the throughput.
    pub effects: Effects,
    /// The machine that it runs on.
    pub constants: Constants,
    /// Whether it fits in memory.
    pub fits: bool,
}

/// Sequences a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// Least.
    pub low: f64,
    /// Most.
    pub high: f64,
}

/// Measured runs, and how far the simulator was off for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Constants of the machines that aren't known exactly, as the runs were simulated with.
    #[serde(rename = "constant", default)]
    pub constants: BTreeMap<ConstantId, UncertainConstant>,
    /// The runs.
    #[serde(rename = "run")]
    pub runs: Vec<MeasuredRun>,
}

/// One measured run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredRun {
    /// Name of the run in `configs/measurements.toml`.
    pub name: String,
    /// The shipped machine that it ran on.
    pub system: String,
    /// Natural logarithm of predicted over measured throughput.
    pub log_error: f64,
    /// Natural logarithm of predicted over measured throughput after a fit to this run among
    /// others; none if nothing was fitted to it.
    #[serde(default)]
    pub residual: Option<f64>,
    /// Changes of that logarithm if the host, whose work was in the clock of the measurement, took
    /// the least and the most that is possible.
    #[serde(default)]
    pub left_open: [f64; 2],
    /// Features that make runs alike.
    pub features: Features,
    /// Effects of uncertain constants on the throughput.
    #[serde(default)]
    pub effects: BTreeMap<ConstantId, Effect>,
}

impl MeasuredRun {
    fn effect(&self, id: ConstantId) -> Effect {
        self.effects.get(&id).copied().unwrap_or_default()
    }

    fn slope(&self, id: ConstantId) -> f64 {
        self.effect(id).slope
    }
}

/// The least share of all constants that is worth a word.
const WORTH_A_WORD: f64 = 0.1;

impl Record {
    /// The record that ships, read once in a process.
    ///
    /// # Panics
    ///
    /// Never: a test reads what ships.
    #[must_use]
    pub fn shipped() -> &'static Self {
        static SHIPPED_RECORD: LazyLock<Record> = LazyLock::new(|| {
            toml::from_str(SHIPPED).expect("configs/accuracy.toml is well-formed, as a test shows")
        });
        &SHIPPED_RECORD
    }

    /// The largest error of prediction, as a share of what was measured.
    #[must_use]
    pub fn largest_error(&self) -> f64 {
        let errors = self.runs.iter().map(|run| libm::expm1(run.log_error).abs());
        errors.fold(0.0, f64::max)
    }

    /// The record as a file.
    ///
    /// # Panics
    ///
    /// Never: its keys are texts and its numbers finite.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let rows = toml::to_string(self).expect("text keys and finite numbers");
        format!(
            "# How far the simulator was off where somebody measured, and what was measured.\n\
             # Written by `ipu-bench calibrate --accuracy configs/accuracy.toml`, from\n\
             # configs/measurements.toml; docs/validation.md says how it is used.\n\n{rows}"
        )
    }

    /// The machines that were measured.
    ///
    /// # Panics
    ///
    /// Never: a test reads what ships.
    fn machines(&self) -> Vec<Constants> {
        let systems: BTreeSet<&str> = self.runs.iter().map(|run| run.system.as_str()).collect();
        let systems = systems.into_iter().map(MachineSpec::shipped);
        systems
            .map(|machine| Constants::of(&machine.expect("a machine that ships")))
            .collect()
    }

    /// The runs that constants were fitted to, with what the fit left over.
    fn calibration(&self) -> impl Iterator<Item = (&MeasuredRun, f64)> {
        let runs = self.runs.iter();
        runs.filter_map(|run| Some((run, run.residual?)))
    }

    /// Measured runs beyond those that the fitted constants could meet whatever they were.
    fn freedom(&self) -> usize {
        let fitted = self.constants.values().filter(|constant| constant.fitted);
        self.runs.len().saturating_sub(fitted.count()).max(1)
    }

    /// Of the logarithms of predicted over measured throughput: `s²`.
    fn variance_of_errors(&self) -> f64 {
        let squares: f64 = self.runs.iter().map(|run| run.log_error.powi(2)).sum();
        squares / self.freedom() as f64
    }

    /// How far the throughput of a run is to be trusted.
    #[must_use]
    pub fn accuracy(&self, throughput: f64, run: &Subject) -> Accuracy {
        let domain = Domain::of(self.runs.iter().map(|run| &run.features));
        let (mut distance, mut reasons) = domain.distance(&run.features);
        let (of_machine, of_constants) = run.constants.distance(&self.machines());
        distance += of_machine;
        reasons.extend(of_constants);
        if !run.fits {
            distance += 1.0;
            reasons.insert(0, "it does not fit in memory".into());
        }
        let of_constants = constants::excess(self, &run.effects);
        let (n, freedom) = (self.runs.len(), self.freedom());
        let of_errors = self.variance_of_errors();
        let from_constants: f64 = of_constants.values().sum();
        let variance = of_errors * (1.0 + distance) + from_constants;
        let quantile = student::quantile_95(freedom);
        let factor = libm::exp(quantile * variance.sqrt());
        let share = |part: f64| if variance > 0.0 { part / variance } else { 0.0 };
        let mut by_constant: Vec<ConstantShare> = of_constants
            .into_iter()
            .map(|(id, part)| ConstantShare {
                constant: id.to_string(),
                share: share(part),
            })
            .filter(|part| part.share > 0.0)
            .collect();
        by_constant.sort_by(|a, b| b.share.total_cmp(&a.share));
        let effects = run.effects.0.iter().map(|(id, (constant, effect))| {
            let UncertainConstant {
                value,
                range,
                fitted,
            } = constant.clone();
            ConstantEffect {
                constant: id.to_string(),
                value,
                range,
                fitted,
                slope: effect.slope,
                ends: effect.ends,
            }
        });
        Accuracy {
            uncertainty: Uncertainty {
                n_measured: n as u64,
                freedom: freedom as u64,
                rms_error: of_errors.sqrt(),
                distance,
                variance_of_constants: from_constants,
                quantile,
                from_errors: share(of_errors),
                from_distance: share(of_errors * distance),
                from_constants: share(from_constants),
                constants: by_constant,
                effects: effects.collect(),
                features: run.features.clone(),
            },
            interval: Interval {
                low: throughput / factor,
                high: throughput * factor,
            },
            in_domain: reasons.is_empty(),
            reasons,
        }
    }
}

/// A number with the digits that its interval leaves: its last is a tenth of half the interval's
/// width at most.
#[must_use]
pub fn significant(value: f64, interval: Interval) -> String {
    let half = (interval.high - interval.low) / 2.0;
    let coarsest = libm::log10(half / 10.0);
    if !coarsest.is_finite() {
        return format!("{value:.1}");
    }
    let power = libm::floor(coarsest) as i32;
    if power <= 0 {
        return format!("{value:.*}", power.unsigned_abs() as usize);
    }
    let unit = 10f64.powi(power);
    format!("{:.0}", (value / unit).round() * unit)
}

impl Accuracy {
    /// One line for people: the interval, and what to think of it.
    #[must_use]
    pub fn text(&self) -> String {
        let Interval { low, high } = self.interval;
        let [low, high] = [low, high].map(|end| significant(end, self.interval));
        let mut out = format!("{LEVEL} % interval {low} to {high} sequences/s");
        let of = &self.uncertainty;
        if let Some(most) = of.constants.first()
            && of.from_constants >= WORTH_A_WORD
        {
            let [all, first] = [of.from_constants, most.share].map(|share| 100.0 * share);
            let name = &most.constant;
            write!(
                out,
                " ({all:.0} % of its variance from constants, {first:.0} % from {name})"
            )
            .expect("a string accepts any text");
        }
        out += ", ";
        out += if self.in_domain {
            "inside the domain of what was measured"
        } else {
            "outside the domain of what was measured"
        };
        for (reason, mark) in self
            .reasons
            .iter()
            .zip(std::iter::once(": ").chain(std::iter::repeat("; ")))
        {
            write!(out, "{mark}{reason}").expect("a string accepts any text");
        }
        out
    }
}

#[cfg(test)]
mod tests;

//! How far a simulated throughput is to be trusted: an interval around it, and whether the run
//! lies inside the domain of what was measured.
//!
//! The rule, which [docs/validation.md](../../docs/validation.md) argues for: measured runs give
//! `n` errors of prediction (logarithms, runs that constants were fitted to left out of the fit
//! in turn), whose root mean square is `s`. A run at distance `d` from the domain gets
//!
//! ```text
//! throughput x exp(± t s sqrt(1 + d)),    t: 95 % quantile of Student's t, n degrees of freedom
//! ```
//!
//! so that each octave, or unknown feature, between it and what was measured adds an error as
//! large as the known ones and independent of them. The errors are data
//! ([`configs/accuracy.toml`](../../configs/accuracy.toml)) that `ipu-bench calibrate` writes.

pub mod domain;

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use domain::{Domain, Features};

/// The probability that the interval stands for, in per cent.
pub const LEVEL: u32 = 90;

/// 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; more than these are taken as
/// the last, which makes the interval a little wide.
const T_95: [f64; 12] = [
    6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782,
];

const SHIPPED: &str = include_str!("../../configs/accuracy.toml");

/// How far a throughput is to be trusted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Accuracy {
    /// Where the throughput of a real machine is expected, with a probability of [`LEVEL`].
    pub interval: Interval,
    /// Whether runs like this one were measured in every respect that is looked at.
    pub in_domain: bool,
    /// What sets it apart from the runs that were measured.
    pub reasons: Vec<String>,
}

/// Sequences a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// Least.
    pub low: f64,
    /// Most.
    pub high: f64,
}

/// What was measured, and how far the simulator was off there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The runs.
    #[serde(rename = "run")]
    pub runs: Vec<MeasuredRun>,
}

/// One measured run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredRun {
    /// Its name in `configs/measurements.toml`.
    pub name: String,
    /// Natural logarithm of predicted over measured throughput.
    pub log_error: f64,
    /// What kind of run it is.
    pub features: Features,
}

impl Record {
    /// The record that ships.
    ///
    /// # Panics
    ///
    /// Never: a test reads what ships.
    #[must_use]
    pub fn shipped() -> Self {
        toml::from_str(SHIPPED).expect("configs/accuracy.toml is well-formed, as a test shows")
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

    /// How far the throughput of a run with these features is to be trusted.
    #[must_use]
    pub fn accuracy(&self, throughput: f64, features: &Features) -> Accuracy {
        let domain = Domain::of(self.runs.iter().map(|run| &run.features));
        let (distance, reasons) = domain.distance(features);
        let factor = libm::exp(self.half_width(distance));
        Accuracy {
            interval: Interval {
                low: throughput / factor,
                high: throughput * factor,
            },
            in_domain: reasons.is_empty(),
            reasons,
        }
    }

    /// Half the interval, in logarithms, of a run that far from the domain.
    fn half_width(&self, distance: f64) -> f64 {
        let n = self.runs.len();
        let squares: f64 = self.runs.iter().map(|run| run.log_error.powi(2)).sum();
        let spread = (squares / n as f64).sqrt();
        T_95[n.clamp(1, T_95.len()) - 1] * spread * (1.0 + distance).sqrt()
    }
}

impl Accuracy {
    /// One line for people: the interval, and what to think of it.
    #[must_use]
    pub fn text(&self) -> String {
        let Interval { low, high } = self.interval;
        let mut out = format!("{LEVEL} % interval {low:.1} to {high:.1} sequences/s, ");
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

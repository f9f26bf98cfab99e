//! How far the ratio of two simulated throughputs is to be trusted.
//!
//! Two runs share most of what is wrong with the simulator, so that their ratio is known better
//! than either. The rule, which [docs/validation.md](../../../docs/validation.md) argues for:
//!
//! ```text
//! variance = min(s² d + (ln ratio / 3)², s² (1 + d_A) + s² (1 + d_B)) + v
//! ```
//!
//! `s` is the error of prediction of measured runs. `d` is the distance of the two runs from each
//! other, in octaves and choices, as that of a run from what was measured: what tells them apart adds
//! an error as large as the known ones. Of what makes the difference itself a third may be wrong.
//! Both together are no more than two runs with nothing in common have, each at its own distance
//! from what was measured. `v` is what the two depend on constants differently.

use std::collections::BTreeMap;

use ipu_sim::spec::constant::ConstantId;

use super::domain::Domain;
use super::effects::{Effect, Effects, UncertainConstant};
use super::{Accuracy, ConstantEffect, Interval, LEVEL, Record, Uncertainty, constants, student};

/// How much of a difference between two runs may be wrong: measured pairs differ by far more than
/// their ratios are off, which says only that it is less than all of it.
const PART_OF_DIFFERENCE: f64 = 1.0 / 3.0;

/// The throughput of a run over that of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Ratio of the simulated throughputs.
    pub value: f64,
    /// Where the ratio on real machines is expected, with a probability of [`super::LEVEL`].
    pub interval: Interval,
    /// The probability that the first run is the faster one.
    pub is_faster: f64,
}

impl Ratio {
    /// One line for people on the throughput of run `a` over that of run `b`.
    #[must_use]
    pub fn text(&self, a: &str, b: &str) -> String {
        let Interval { low, high } = self.interval;
        let faster = if self.value < 1.0 { b } else { a };
        let probability = 100.0 * self.is_faster.max(1.0 - self.is_faster);
        let digits = if high - low < 0.01 { 4 } else { 3 };
        let order = match self.value == 1.0 {
            true => String::from("the same, as simulated"),
            // More would promise what the rule can't keep.
            false if probability > 99.0 => {
                format!("{faster} is faster, with a probability above 99 %")
            }
            false => format!("{faster} is faster, with a probability of {probability:.0} %"),
        };
        format!(
            "{a} over {b}: {:.digits$}, {LEVEL} % interval {low:.digits$} to {high:.digits$}; {order}",
            self.value
        )
    }
}

/// A throughput with what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Sequences a second.
    pub throughput: f64,
    /// How far it is to be trusted.
    pub accuracy: &'a Accuracy,
}

impl Record {
    /// Accuracy of the throughput of `a` over that of `b`.
    #[must_use]
    pub fn ratio(&self, a: Known<'_>, b: Known<'_>) -> Ratio {
        let value = a.throughput / b.throughput;
        let logarithm = libm::log(value);
        let [first, second] = [a, b].map(|known| &known.accuracy.uncertainty);
        let of_errors = self.variance_of_errors();
        let shared = of_errors * apart(first, second) + (PART_OF_DIFFERENCE * logarithm).powi(2);
        let alone = of_errors * (2.0 + first.distance + second.distance);
        let differences = differences(first, second);
        let of_constants = differences.iter().map(|of| constants::variance(self, of));
        let of_constants: f64 = of_constants.sum();
        let deviation = (shared.min(alone) + of_constants).sqrt();
        let freedom = self.freedom();
        let factor = libm::exp(student::quantile_95(freedom) * deviation);
        let is_faster = if deviation > 0.0 {
            student::below(logarithm / deviation, freedom)
        } else {
            0.5
        };
        Ratio {
            value,
            interval: Interval {
                low: value / factor,
                high: value * factor,
            },
            is_faster,
        }
    }
}

/// Distance of two runs from each other, in octaves and choices.
fn apart(a: &Uncertainty, b: &Uncertainty) -> f64 {
    let from = |a: &Uncertainty, b: &Uncertainty| {
        let (distance, _) = Domain::of(std::iter::once(&a.features)).distance(&b.features);
        distance
    };
    from(a, b).max(from(b, a))
}

/// What `a` depends on constants more than `b`, and what each depends on constants that the other
/// doesn't have, or not with this value.
fn differences(a: &Uncertainty, b: &Uncertainty) -> [Effects; 3] {
    let mut out = [const { Effects(BTreeMap::new()) }; 3];
    let [shared, only_a, only_b] = &mut out;
    for effect in &a.effects {
        match b.effects.iter().find(|other| is_same(effect, other)) {
            Some(other) => {
                let ends = [0, 1].map(|end| effect.ends[end] - other.ends[end]);
                add(shared, effect, effect.slope - other.slope, ends);
            }
            None => add(only_a, effect, effect.slope, effect.ends),
        }
    }
    for effect in &b.effects {
        if !a.effects.iter().any(|other| is_same(other, effect)) {
            add(only_b, effect, effect.slope, effect.ends);
        }
    }
    out
}

fn is_same(a: &ConstantEffect, b: &ConstantEffect) -> bool {
    a.constant == b.constant && a.value == b.value && a.range == b.range
}

fn add(out: &mut Effects, of: &ConstantEffect, slope: f64, ends: [f64; 2]) {
    // A report may name a constant that there isn't any more.
    let Ok(id) = ConstantId::try_from(of.constant.clone()) else {
        return;
    };
    let constant = UncertainConstant {
        value: of.value.clone(),
        range: of.range.clone(),
        fitted: of.fitted,
    };
    out.0.insert(id, (constant, Effect { slope, ends }));
}

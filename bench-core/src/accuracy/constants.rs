//! How much of what is unknown of a throughput comes from constants, beyond what the errors of
//! measured runs hold already.
//!
//! A constant that isn't fitted is distributed as a triangle over its range, with its peak at the
//! value it has; so is, to first order, its effect on the logarithm of the throughput. Were its
//! value another, the fitted constants would be others too, and make up for it in the rows they
//! are fitted to. What counts is the effect that then is left: in the run, and in the measured
//! runs, whose errors hold theirs. The fitted constants have the covariance that their rows
//! leave. Of both, a run adds what it has more of than the measured runs have on average.
//!
//! A constant with another value or range than where was measured is another quantity, of which
//! those runs say nothing: it counts in full, by its range.

use std::collections::BTreeMap;

use ipu_sim::spec::constant::ConstantId;
use nalgebra::{DMatrix, DVector};

use super::Record;
use super::effects::{Effect, Effects, UncertainConstant};

/// Variances of the logarithm of a throughput, by constant.
pub(super) type Variances = BTreeMap<ConstantId, f64>;

/// What the calibration rows say of the fitted constants.
struct Refit {
    /// The fitted constants.
    ids: Vec<ConstantId>,
    /// Changes of their logarithms that make up for changes of the rows.
    inverse: DMatrix<f64>,
    /// Covariance of their logarithms.
    covariance: DMatrix<f64>,
}

impl Refit {
    /// None if the rows don't say more than there are constants, or don't tell them apart.
    fn of(record: &Record) -> Option<Self> {
        let ids: Vec<ConstantId> = record
            .constants
            .iter()
            .filter(|(_, constant)| constant.fitted)
            .map(|(id, _)| *id)
            .collect();
        let rows: Vec<_> = record.calibration().collect();
        let freedom = rows.len().checked_sub(ids.len()).filter(|&n| n > 0)?;
        let slopes = DMatrix::from_fn(rows.len(), ids.len(), |row, column| {
            rows[row].0.slope(ids[column])
        });
        let information = (slopes.transpose() * &slopes).try_inverse()?;
        let squares: f64 = rows.iter().map(|(_, residual)| residual.powi(2)).sum();
        Some(Self {
            inverse: &information * slopes.transpose(),
            covariance: information * (squares / freedom as f64),
            ids,
        })
    }

    fn slopes(&self, of: &dyn Fn(ConstantId) -> f64) -> DVector<f64> {
        DVector::from_iterator(self.ids.len(), self.ids.iter().map(|id| of(*id)))
    }
}

/// Of a triangle with its peak at none and these ends.
fn triangle([low, high]: [f64; 2]) -> f64 {
    (low * low + low * high + high * high) / 6.0
}

/// What a run adds to the variance that the measured runs have.
pub(super) fn excess(record: &Record, effects: &Effects) -> Variances {
    let refit = Refit::of(record);
    let known = |id, constant: &UncertainConstant| record.constants.get(&id) == Some(constant);
    let slope = |id: ConstantId| -> f64 {
        let found = effects.0.get(&id);
        let alike = found.filter(|(constant, _)| known(id, constant));
        alike.map_or(0.0, |(_, effect)| effect.slope)
    };
    let mut out = Variances::new();
    for (&id, (constant, effect)) in &effects.0 {
        let variance = match (known(id, constant), constant.fitted, &refit) {
            (true, true, Some(_)) => continue,
            (true, false, Some(refit)) => {
                let left = |effect: Effect, slope: &dyn Fn(ConstantId) -> f64| {
                    triangle([0, 1].map(|end| {
                        let rows = record
                            .calibration()
                            .map(|(run, _)| run.effect(id).ends[end]);
                        let rows = DVector::from_vec(rows.collect());
                        effect.ends[end] - refit.slopes(slope).dot(&(&refit.inverse * rows))
                    }))
                };
                let measured = record
                    .runs
                    .iter()
                    .map(|run| left(run.effect(id), &|id| run.slope(id)));
                left(*effect, &slope) - measured.sum::<f64>() / record.runs.len() as f64
            }
            (true, _, None) => {
                let measured = record.runs.iter().map(|run| triangle(run.effect(id).ends));
                triangle(effect.ends) - measured.sum::<f64>() / record.runs.len() as f64
            }
            (false, _, _) => triangle(effect.ends),
        };
        out.insert(id, variance.max(0.0));
    }
    if let Some(refit) = refit {
        add_fitted(record, &refit, &slope, &mut out);
    }
    out
}

/// The fitted constants together, since their errors aren't independent; each is then given its
/// part.
fn add_fitted(
    record: &Record,
    refit: &Refit,
    slope: &dyn Fn(ConstantId) -> f64,
    out: &mut Variances,
) {
    // What each constant contributes to the variance of all.
    let parts = |slope: &dyn Fn(ConstantId) -> f64| {
        let slopes = refit.slopes(slope);
        (&refit.covariance * &slopes).component_mul(&slopes)
    };
    let own = parts(slope);
    let measured = record.runs.iter();
    let measured = measured.map(|run| parts(&|id| run.slope(id)).sum());
    let more = own.sum() - measured.sum::<f64>() / record.runs.len() as f64;
    let positive: f64 = own.iter().map(|part| part.max(0.0)).sum();
    if more <= 0.0 || positive == 0.0 {
        return;
    }
    for (id, part) in refit.ids.iter().zip(&own) {
        out.insert(*id, more * part.max(0.0) / positive);
    }
}

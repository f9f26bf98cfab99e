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
use super::effects::{Effects, UncertainConstant};

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

/// Whether a constant is what the measured runs had.
fn is_known(record: &Record, id: ConstantId, constant: &UncertainConstant) -> bool {
    record.constants.get(&id) == Some(constant)
}

/// Variances of the logarithm of a throughput from what it depends on.
struct Split {
    /// From constants that aren't fitted.
    others: Variances,
    /// Parts of the variance from the fitted constants, which depend on each other: only their sum
    /// is a variance.
    fitted: Variances,
}

impl Split {
    fn of(record: &Record, refit: Option<&Refit>, effects: &Effects) -> Self {
        let slope = |id: ConstantId| -> f64 {
            let found = effects.0.get(&id);
            let alike = found.filter(|(constant, _)| is_known(record, id, constant));
            alike.map_or(0.0, |(_, effect)| effect.slope)
        };
        let slopes = refit.map(|refit| refit.slopes(&slope));
        let mut others = Variances::new();
        for (&id, (constant, effect)) in &effects.0 {
            let ends = match (is_known(record, id, constant), refit.zip(slopes.as_ref())) {
                (true, Some(_)) if constant.fitted => continue,
                (true, Some((refit, slopes))) => [0, 1].map(|end| {
                    let rows = record.calibration();
                    let rows = rows.map(|(run, _)| run.effect(id).ends[end]);
                    let rows = DVector::from_vec(rows.collect());
                    effect.ends[end] - slopes.dot(&(&refit.inverse * rows))
                }),
                _ => effect.ends,
            };
            others.insert(id, triangle(ends));
        }
        let parts = refit.zip(slopes).map(|(refit, slopes)| {
            let parts = (&refit.covariance * &slopes).component_mul(&slopes);
            let parts = refit.ids.iter().zip(&parts);
            parts.map(|(id, part)| (*id, *part)).collect()
        });
        Self {
            others,
            fitted: parts.unwrap_or_default(),
        }
    }
}

/// The variance that constants give a logarithm.
pub(super) fn variance(record: &Record, effects: &Effects) -> f64 {
    let split = Split::of(record, Refit::of(record).as_ref(), effects);
    split.others.values().chain(split.fitted.values()).sum()
}

/// What a run adds to the variance that the measured runs have.
pub(super) fn excess(record: &Record, effects: &Effects) -> Variances {
    let refit = Refit::of(record);
    let own = Split::of(record, refit.as_ref(), effects);
    let measured = record.runs.iter().map(|run| {
        let effects = run.effects.iter().filter_map(|(id, effect)| {
            let constant = record.constants.get(id)?.clone();
            Some((*id, (constant, *effect)))
        });
        Split::of(record, refit.as_ref(), &Effects(effects.collect()))
    });
    let measured: Vec<Split> = measured.collect();
    let mean =
        |of: &dyn Fn(&Split) -> f64| measured.iter().map(of).sum::<f64>() / measured.len() as f64;
    let mut out = Variances::new();
    for (id, variance) in own.others {
        let is_known = is_known(record, id, &effects.0[&id].0);
        let held = mean(&|run| run.others.get(&id).copied().unwrap_or_default());
        let held = if is_known { held } else { 0.0 };
        out.insert(id, (variance - held).max(0.0));
    }
    // The fitted constants together, since their errors aren't independent; each is then given
    // its part.
    let all = |parts: &Variances| parts.values().sum::<f64>();
    let more = all(&own.fitted) - mean(&|run| all(&run.fitted));
    let positive: f64 = own.fitted.values().map(|part| part.max(0.0)).sum();
    if more > 0.0 && positive > 0.0 {
        let parts = own.fitted.into_iter();
        out.extend(parts.map(|(id, part)| (id, more * part.max(0.0) / positive)));
    }
    out
}

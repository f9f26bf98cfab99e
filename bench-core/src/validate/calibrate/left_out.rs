//! Errors of prediction: how far the simulator is off a run that it was not fitted to.
//!
//! Each calibration row is left out in turn, the constants are fitted to the others (one
//! Gauss-Newton step from the fit to all, within their bounds, with the slopes found there), and
//! the row is simulated with what they come to. Rows of validation are simulated as shipped.

use std::collections::BTreeMap;

use super::fit::FittedRow;
use super::time::{CompiledRun, TimeFit, residual, stepped};
use crate::accuracy::effects::Effect;
use crate::accuracy::{MeasuredRun, Record};
use crate::error::Result;

/// Constants that the fit without a row leaves at a bound, by the name of that row.
pub type AtBounds = BTreeMap<String, Vec<String>>;

/// The record of all rows: those of calibration with what the fit to all of them found, and the
/// others.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn record(time: &TimeFit) -> Result<(Record, AtBounds)> {
    let (calibration, validation) = (&time.rows, &time.others);
    let (fitted, constants) = (&time.fit.rows, &time.fit.constants);
    let mut runs = Vec::new();
    let mut at_bounds = AtBounds::new();
    for (out, row) in calibration.iter().enumerate() {
        let kept = fitted.iter().enumerate().filter(|(at, _)| *at != out);
        let kept: Vec<FittedRow> = kept.map(|(_, row)| row.clone()).collect();
        let values = stepped(constants, &kept);
        let bound = constants
            .iter()
            .zip(&values)
            .filter_map(|(constant, value)| {
                let ends = [constant.low, constant.high];
                let end = ends.into_iter().find(|end| near(*end, *value))?;
                Some(format!("{} at {end} {}", constant.id, constant.unit))
            });
        at_bounds.insert(row.name.clone(), bound.collect());
        let residual = residual(row, constants, &values)?;
        let mut run = measured(row, residual, Some(fitted[out].residual));
        // The fit has timed the run again with other values, for all IPUs and what they wait for.
        for (constant, slope) in constants.iter().zip(&fitted[out].slopes) {
            run.effects.entry(constant.id).or_default().slope = rounded(*slope);
        }
        runs.push(run);
    }
    let shipped: Vec<f64> = constants.iter().map(|constant| constant.shipped).collect();
    for row in validation {
        runs.push(measured(row, residual(row, constants, &shipped)?, None));
    }
    let rows = calibration.iter().chain(validation);
    let uncertain = rows.flat_map(|row| &row.effects.0);
    let constants = uncertain.map(|(id, (constant, _))| (*id, constant.clone()));
    let record = Record {
        constants: constants.collect(),
        runs,
    };
    Ok((record, at_bounds))
}

/// Whether a value is a bound, which a step of logarithms reaches but for rounding.
fn near(bound: f64, value: f64) -> bool {
    (bound - value).abs() <= 1e-9 * bound.abs().max(1e-9)
}

fn measured(row: &CompiledRun, log_error: f64, residual: Option<f64>) -> MeasuredRun {
    let effects = row.effects.0.iter().map(|(id, (_, effect))| {
        let rounded = Effect {
            slope: rounded(effect.slope),
            ends: effect.ends.map(rounded),
        };
        (*id, rounded)
    });
    MeasuredRun {
        name: row.name.clone(),
        system: row.system.clone(),
        log_error: rounded(log_error),
        residual: residual.map(rounded),
        left_open: row.left_open.map(rounded),
        features: row.features.clone(),
        effects: effects.collect(),
    }
}

/// More digits would be noise of the simulator's version.
fn rounded(logarithm: f64) -> f64 {
    // Adding zero makes what is rounded to minus zero none.
    (logarithm * 1e4).round() / 1e4 + 0.0
}

#[cfg(test)]
mod tests {
    use super::super::calibrate;
    use super::*;

    #[test]
    fn the_shipped_record_is_what_calibrate_finds() {
        let (shipped, found) = (Record::shipped(), calibrate().unwrap().record);
        assert_eq!(shipped.constants, found.constants);
        assert_eq!(shipped.runs.len(), found.runs.len());
        for (shipped, found) in shipped.runs.iter().zip(&found.runs) {
            let near = (shipped.log_error - found.log_error).abs() < 2e-3;
            let same = shipped.name == found.name
                && shipped.system == found.system
                && shipped.features == found.features
                && shipped.effects == found.effects;
            assert!(
                near && same,
                "run `ipu-bench calibrate --accuracy configs/accuracy.toml`:\n{shipped:?}\n{found:?}"
            );
        }
    }
}

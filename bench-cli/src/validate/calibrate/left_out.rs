//! Errors of prediction: how far the simulator is off a run that it was not fitted to.
//!
//! Each calibration row is left out in turn, the constants are fitted to the others (one
//! Gauss-Newton step from the fit to all, within their bounds, with the slopes found there), and
//! the row is simulated with what they come to. Rows of validation are simulated as shipped.

use super::constant::Constant;
use super::fit::FittedRow;
use super::time::{Row, residual, stepped};
use crate::accuracy::effects::Effect;
use crate::accuracy::{MeasuredRun, Record};

/// The record of all rows: those of calibration with what the fit to all of them found, and the
/// others.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn record(
    calibration: &[Row],
    fitted: &[FittedRow],
    constants: &[Constant],
    validation: &[Row],
) -> anyhow::Result<Record> {
    let mut runs = Vec::new();
    for (out, row) in calibration.iter().enumerate() {
        let kept = fitted.iter().enumerate().filter(|(at, _)| *at != out);
        let kept: Vec<FittedRow> = kept.map(|(_, row)| row.clone()).collect();
        let values = stepped(constants, &kept);
        let residual = residual(row, constants, &values)?;
        runs.push(measured(row, residual, Some(fitted[out].residual)));
    }
    let shipped: Vec<f64> = constants.iter().map(|constant| constant.shipped).collect();
    for row in validation {
        runs.push(measured(row, residual(row, constants, &shipped)?, None));
    }
    let rows = calibration.iter().chain(validation);
    let uncertain = rows.flat_map(|row| &row.effects.0);
    let constants = uncertain.map(|(key, (constant, _))| (key.clone(), constant.clone()));
    Ok(Record {
        constants: constants.collect(),
        runs,
    })
}

fn measured(row: &Row, log_error: f64, residual: Option<f64>) -> MeasuredRun {
    let effects = row.effects.0.iter().map(|(key, (_, effect))| {
        let rounded = Effect {
            slope: rounded(effect.slope),
            ends: effect.ends.map(rounded),
        };
        (key.clone(), rounded)
    });
    MeasuredRun {
        name: row.name.clone(),
        log_error: rounded(log_error),
        residual: residual.map(rounded),
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
                && shipped.features == found.features
                && shipped.effects == found.effects;
            assert!(
                near && same,
                "run `ipu-bench calibrate --accuracy configs/accuracy.toml`:\n{shipped:?}\n{found:?}"
            );
        }
    }
}

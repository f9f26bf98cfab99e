//! Errors of prediction: how far the simulator is off a run that it was not fitted to.
//!
//! Each calibration row is left out in turn, the constants are fitted to the others (one
//! Gauss-Newton step from the fit to all, within their bounds, with the slopes found there), and
//! the row is simulated with what they come to. Rows of validation are simulated as shipped.

use super::calibrate::{Fitted, Values, stepped};
use crate::accuracy::{MeasuredRun, Record};

/// The record of all rows: those of calibration, fitted at `best` with `slopes`, and the others.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn record(
    calibration: &[Fitted],
    (best, slopes): (Values, &[Values]),
    validation: &[Fitted],
    shipped: Values,
) -> anyhow::Result<Record> {
    let residuals: Vec<f64> = calibration
        .iter()
        .map(|row| row.residual(best))
        .collect::<anyhow::Result<_>>()?;
    let mut runs = Vec::new();
    for (out, row) in calibration.iter().enumerate() {
        let kept = |at: &usize| *at != out;
        let kept: Vec<usize> = (0..calibration.len()).filter(kept).collect();
        let slopes: Vec<Values> = kept.iter().map(|&at| slopes[at]).collect();
        let residuals: Vec<f64> = kept.iter().map(|&at| residuals[at]).collect();
        let values = stepped(best, &slopes, &residuals);
        runs.push(measured(row, row.residual(values)?));
    }
    for row in validation {
        runs.push(measured(row, row.residual(shipped)?));
    }
    Ok(Record { runs })
}

fn measured(row: &Fitted, log_error: f64) -> MeasuredRun {
    MeasuredRun {
        name: row.name.clone(),
        // More digits would be noise of the simulator's version.
        log_error: (log_error * 1e4).round() / 1e4,
        features: row.features.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::calibrate::calibrate;
    use super::*;

    #[test]
    fn the_shipped_record_is_what_calibrate_finds() {
        let (shipped, found) = (Record::shipped(), calibrate().unwrap().record);
        assert_eq!(shipped.runs.len(), found.runs.len());
        for (shipped, found) in shipped.runs.iter().zip(&found.runs) {
            let near = (shipped.log_error - found.log_error).abs() < 2e-3;
            assert!(
                near && shipped.name == found.name && shipped.features == found.features,
                "run `ipu-bench calibrate --accuracy configs/accuracy.toml`:\n{shipped:?}\n{found:?}"
            );
        }
    }
}

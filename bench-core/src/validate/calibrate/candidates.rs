//! What else the time of a weight update may hang on: each candidate priced by the calibration rows.
//!
//! A candidate is something that a step does so many times, each time for a price that no source
//! gives. With the price of bringing in order what arrived, which is fitted beside it, the time of a
//! step is
//!
//! ```text
//! time = rest + assembly x change + price x times
//! ```
//!
//! and the two are those of least squares of relative errors, the price at least nothing. What
//! decides is how far off a row is that was left out.

use ipu_sim::engine::ConstantUsage;
use ipu_sim::spec::constant::ConstantId;

use super::constant::Constant;
use super::time::{CompiledRun, TimeFit, step_with};
use crate::error::Result;

/// A candidate and what the rows say of it. Errors are shares of measured throughputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Event that is paid for.
    pub name: &'static str,
    /// Price in seconds.
    pub price: f64,
    /// Errors of the rows after a fit to all of them.
    pub errors: Vec<f64>,
    /// Errors of the rows if each is left out of the fit.
    pub left_out: Vec<f64>,
}

/// How often a step does something.
type Count = fn(&ConstantUsage) -> u64;

/// What a weight update does often enough to matter, beside what has a price of its own.
const CANDIDATES: [(&str, Count); 6] = [
    ("nothing", |_| 0),
    ("every load, store and collective", |paid| {
        paid.accesses + paid.collectives
    }),
    ("every load and store", |paid| paid.accesses),
    ("every collective", |paid| paid.collectives),
    ("every round of a collective", |paid| paid.rounds),
    ("every all-reduce of one number", |paid| paid.scalar_sums),
];

/// A row as a sum of what is fitted and the rest, in seconds.
#[derive(Clone, Copy, Debug)]
struct Linear {
    measured: f64,
    rest: f64,
    assembly: f64,
    times: f64,
}

impl Linear {
    fn time(&self, [change, price]: [f64; 2]) -> f64 {
        self.rest + self.assembly * change + self.times * price
    }

    /// Predicted over measured throughput, less one.
    fn error(&self, found: [f64; 2]) -> f64 {
        self.measured / self.time(found) - 1.0
    }
}

/// Prices every candidate.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn candidates(time: &TimeFit) -> Result<Vec<Candidate>> {
    let constants = &time.fit.constants;
    let rows: Vec<(Linear, ConstantUsage)> = time
        .rows
        .iter()
        .map(|row| linear(row, constants))
        .collect::<Result<_>>()?;
    let candidate = |(name, count): (&'static str, Count)| {
        let rows: Vec<Linear> = rows
            .iter()
            .map(|(row, paid)| Linear {
                times: count(paid) as f64,
                ..*row
            })
            .collect();
        let found = least_squares(&rows);
        let left_out = (0..rows.len()).map(|out| {
            let kept = rows.iter().enumerate().filter(|(at, _)| *at != out);
            let kept: Vec<Linear> = kept.map(|(_, row)| *row).collect();
            rows[out].error(least_squares(&kept))
        });
        Candidate {
            name,
            price: found[1],
            errors: rows.iter().map(|row| row.error(found)).collect(),
            left_out: left_out.collect(),
        }
    };
    Ok(CANDIDATES.map(candidate).to_vec())
}

/// A row without the trust ratios of LAMB, which stand where a candidate would.
fn linear(row: &CompiledRun, constants: &[Constant]) -> Result<(Linear, ConstantUsage)> {
    let without: Vec<(&Constant, f64)> = constants
        .iter()
        .map(|constant| match constant.id {
            ConstantId::ComputeTrustRatio => (constant, 0.0),
            _ => (constant, constant.shipped),
        })
        .collect();
    let (step, usage, assembly) = step_with(row, &without)?;
    let linear = Linear {
        measured: row.measured_step(),
        rest: row.host_seconds() + step.0,
        assembly,
        times: 0.0,
    };
    Ok((linear, usage))
}

/// The change of assembly and the price with the least squares of relative errors.
fn least_squares(rows: &[Linear]) -> [f64; 2] {
    let sum = |of: &dyn Fn(&Linear) -> f64| {
        let weighted = rows.iter().map(|row| of(row) / row.measured.powi(2));
        weighted.sum::<f64>()
    };
    let lacking = |row: &Linear| row.measured - row.rest;
    let (aa, ac, cc) = (
        sum(&|row| row.assembly * row.assembly),
        sum(&|row| row.assembly * row.times),
        sum(&|row| row.times * row.times),
    );
    let (a, c) = (
        sum(&|row| row.assembly * lacking(row)),
        sum(&|row| row.times * lacking(row)),
    );
    let determinant = aa * cc - ac * ac;
    let price = (aa * c - ac * a) / determinant;
    if cc > 0.0 && determinant > 0.0 && price > 0.0 {
        return [(cc * a - ac * c) / determinant, price];
    }
    [a / aa, 0.0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(measured: f64, times: f64) -> Linear {
        Linear {
            measured,
            rest: 10.0,
            assembly: 1.0,
            times,
        }
    }

    #[test]
    fn a_price_is_found_where_rows_were_made_with_one() {
        // Assembly twice as dear, and 0.5 s each time.
        let rows = [row(11.5, 1.0), row(13.0, 4.0), row(11.0, 0.0)];
        let [change, price] = least_squares(&rows);
        assert!((change - 1.0).abs() < 1e-9 && (price - 0.5).abs() < 1e-9);
        assert!(
            rows.iter()
                .all(|row| row.error([change, price]).abs() < 1e-9)
        );
    }

    #[test]
    fn no_price_is_negative() {
        let rows = [row(11.0, 4.0), row(12.0, 0.0)];
        let [change, price] = least_squares(&rows);
        assert_eq!(price, 0.0);
        assert!(change > 1.0 && change < 2.0, "{change}");
    }
}

//! `ipu-bench calibrate`: the fitted constants, fitted again.
//!
//! Which constants those are, and their bounds, the machine descriptions say (kind `fitted`).
//! Those of time are fitted to the throughputs of the calibration rows, those of memory to the
//! sizes of code in the profile, and to nothing else
//! ([`configs/measurements.toml`](../../../configs/measurements.toml)).
//! A program depends on none of them, so every row is compiled once.

mod constant;
mod fit;
mod left_out;
mod memory;
mod time;

pub use self::fit::Fit;
use self::left_out::AtBounds;
use crate::accuracy::Record;

/// What the fits found.
pub struct Calibration {
    /// Constants of time.
    pub time: Fit,
    /// Constants of memory.
    pub memory: Fit,
    /// Errors of prediction, for [`crate::accuracy`].
    pub record: Record,
    /// Constants that the fit without a row leaves at a bound, by the name of that row.
    at_bounds: AtBounds,
}

/// Fits the constants to the calibration rows.
///
/// # Errors
///
/// Rows that don't compile, which would be a mistake of this program.
pub fn calibrate() -> anyhow::Result<Calibration> {
    let (time, record, at_bounds) = time::fit()?;
    Ok(Calibration {
        time,
        memory: memory::fit()?,
        record,
        at_bounds,
    })
}

impl Calibration {
    /// Both fits as tables, and how far off each run is if it is left out of the fit.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("{}\n{}\n", self.time.text(), self.memory.text());
        for run in &self.record.runs {
            let percent = 100.0 * (run.log_error.exp() - 1.0);
            let bounds = self.at_bounds.get(&run.name).map(|found| found.join(", "));
            let stopped = match bounds.filter(|found| !found.is_empty()) {
                Some(found) => format!(", which a bound stops ({found})"),
                None => String::new(),
            };
            out += &format!(
                "{}: {percent:+.1} % if it is left out of the fit{stopped}\n",
                run.name
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fit moves by less than a quarter from what is shipped, and knows its constants apart.
    #[track_caller]
    fn check(fit: &Fit, n_constants: usize) {
        assert_eq!(fit.constants.len(), n_constants, "{}", fit.text());
        for constant in &fit.constants {
            let moved = (constant.shipped / constant.best).ln().abs();
            assert!(moved < 0.25, "{}: {}", constant.id, fit.text());
            assert!(
                constant.low <= constant.best && constant.best <= constant.high,
                "{}: {}",
                constant.id,
                fit.text()
            );
        }
        assert!(fit.condition < 10.0, "{}", fit.text());
    }

    #[test]
    fn what_is_shipped_is_near_the_best_fit() {
        let found = calibrate().unwrap();
        check(&found.time, 2);
        check(&found.memory, 4);
        let [shipped, best] = found.time.objective;
        assert!(shipped < 2.0 * best + 1e-4, "{}", found.time.text());
        // As `docs/validation.md` says.
        let stopped = "which a bound stops (sync.external at 200 us)";
        let text = found.text();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.ends_with(stopped))
            .collect();
        assert!(
            lines.len() == 1 && lines[0].starts_with("BERT-Large 512, POD16: "),
            "{text}"
        );
    }
}

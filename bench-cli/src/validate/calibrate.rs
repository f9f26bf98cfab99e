//! `ipu-bench calibrate`: the constants of time that were fitted, fitted again.
//!
//! Throughputs of the calibration rows against the constants of kind `fitted` in the machine
//! description, by Gauss-Newton steps on the logarithms of both, within the constants' bounds.
//! A program doesn't depend on these constants, so every row is compiled once.
//!
//! Left out: constants of memory, each of which was read off one number of a profile.

use anyhow::Context;
use comfy_table::{Table, presets};
use ipu_sim::engine;
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::{Cycles, SimSeconds};

use super::measurements::{Role, Throughput, measurements};
use super::{left_out, request};
use crate::accuracy::Record;
use crate::accuracy::domain::Features;
use crate::compile;
use crate::config::options::Batching;
use crate::measure::sequences_per_second;
use crate::run::TIMING;

/// Steps at most; the fit moves by less than a thousandth after three.
const STEPS: usize = 8;

/// Relative change of a constant for a finite difference: cycles are whole, so it is large.
const PROBE: f64 = 0.2;

/// A constant of time that is fitted.
struct Constant {
    key: &'static str,
    unit: &'static str,
    get: fn(&MachineSpec) -> f64,
    set: fn(&mut MachineSpec, f64),
    least: f64,
    most: f64,
}

/// All of them; bounds as in `configs/systems/parts/ipu.toml`.
const CONSTANTS: [Constant; 2] = [
    Constant {
        key: "chip.assemble_64_bytes",
        unit: "cycles",
        get: |spec| spec.tile.assemble_64_bytes.0 as f64,
        set: |spec, value| spec.tile.assemble_64_bytes = Cycles(value.round() as u64),
        least: 8.0,
        most: 326.0,
    },
    Constant {
        key: "sync.external",
        unit: "us",
        get: |spec| spec.sync.external.0 * 1e6,
        set: |spec, value| spec.sync.external = SimSeconds(value * 1e-6),
        least: 1.0,
        most: 100.0,
    },
];

/// A value of every constant.
pub(super) type Values = [f64; 2];

/// A row of the measurements, compiled.
pub(super) struct Fitted {
    pub(super) name: String,
    pub(super) features: Features,
    expected: f64,
    program: Program,
    machine: MachineSpec,
    batching: Batching,
}

impl Fitted {
    fn new(row: Throughput) -> anyhow::Result<Self> {
        let request = request(&row.system, &row.arguments)?;
        let machine = request.machine.spec;
        let compiled = compile::compile(&request.options, &machine)?;
        Ok(Self {
            name: row.name,
            features: Features::new(&request.options, &machine),
            expected: row.sequences_per_second,
            program: compiled.lowered.program,
            machine,
            batching: request.options.batching,
        })
    }

    /// Logarithm of simulated over measured throughput.
    pub(super) fn residual(&self, values: Values) -> anyhow::Result<f64> {
        let mut machine = self.machine.clone();
        for (constant, value) in CONSTANTS.iter().zip(values) {
            (constant.set)(&mut machine, value);
        }
        let timeline = engine::time(&self.program, &machine, TIMING)?;
        let step = machine.tile.clock.seconds(timeline.total);
        Ok((sequences_per_second(&self.batching, step) / self.expected).ln())
    }
}

/// What the fit found.
pub struct Calibration {
    /// Errors of prediction, for [`crate::accuracy`].
    pub record: Record,
    rows: Vec<(String, f64, Values)>,
    shipped: Values,
    best: Values,
    objective: Values,
    condition: f64,
}

/// Fits the constants to the calibration rows.
///
/// # Errors
///
/// Rows that don't compile, which would be a mistake of this program.
pub fn calibrate() -> anyhow::Result<Calibration> {
    let measured = measurements()?;
    let compiled = |rows: Vec<Throughput>| -> anyhow::Result<Vec<Fitted>> {
        rows.into_iter().map(Fitted::new).collect()
    };
    let (rows, others): (Vec<Throughput>, Vec<Throughput>) = measured
        .throughput
        .into_iter()
        .partition(|row| row.role == Role::Calibration);
    let (rows, others) = (compiled(rows)?, compiled(others)?);
    let first = rows.first().context("there are calibration rows")?;
    let shipped = CONSTANTS
        .each_ref()
        .map(|constant| (constant.get)(&first.machine));
    let mut best = shipped;
    let mut least = objective(&rows, best)?;
    let at_shipped = least;
    for _ in 0..STEPS {
        let slopes = slopes(&rows, best)?;
        let next = stepped(best, &slopes, &residuals(&rows, best)?);
        let found = objective(&rows, next)?;
        if found >= least {
            break;
        }
        (best, least) = (next, found);
    }
    let slopes = slopes(&rows, best)?;
    let residuals = residuals(&rows, best)?;
    let named = rows.iter().zip(&residuals).zip(&slopes);
    Ok(Calibration {
        record: left_out::record(&rows, (best, &slopes), &others, shipped)?,
        rows: named
            .map(|((row, residual), slope)| (row.name.clone(), *residual, *slope))
            .collect(),
        shipped,
        best,
        objective: [at_shipped, least],
        condition: condition(&slopes),
    })
}

/// The constants after one step from `values`, within their bounds.
pub(super) fn stepped(values: Values, slopes: &[Values], residuals: &[f64]) -> Values {
    let step = gauss_newton(slopes, residuals);
    let mut next = values;
    for ((value, step), constant) in next.iter_mut().zip(step).zip(&CONSTANTS) {
        *value = (*value * step.exp()).clamp(constant.least, constant.most);
    }
    next
}

fn residuals(rows: &[Fitted], values: Values) -> anyhow::Result<Vec<f64>> {
    rows.iter().map(|row| row.residual(values)).collect()
}

/// Sum of squares of the residuals.
fn objective(rows: &[Fitted], values: Values) -> anyhow::Result<f64> {
    Ok(residuals(rows, values)?.iter().map(|r| r * r).sum())
}

/// Change of each row's logarithm with the logarithm of each constant.
fn slopes(rows: &[Fitted], values: Values) -> anyhow::Result<Vec<Values>> {
    let slope = |row: &Fitted| {
        let mut out = [0.0; 2];
        for (index, out) in out.iter_mut().enumerate() {
            let (mut low, mut high) = (values, values);
            low[index] *= 1.0 - PROBE;
            high[index] *= 1.0 + PROBE;
            let run = ((1.0 + PROBE) / (1.0 - PROBE)).ln();
            *out = (row.residual(high)? - row.residual(low)?) / run;
        }
        Ok(out)
    };
    rows.iter().map(slope).collect()
}

/// The normal matrix of the slopes: `[[a, b], [b, c]]` as `(a, b, c)`.
fn normal(slopes: &[Values]) -> (f64, f64, f64) {
    slopes.iter().fold((0.0, 0.0, 0.0), |(a, b, c), [x, y]| {
        (a + x * x, b + x * y, c + y * y)
    })
}

/// The step of the logarithms that would bring linear residuals to their least squares.
fn gauss_newton(slopes: &[Values], residuals: &[f64]) -> Values {
    let (a, b, c) = normal(slopes);
    let (mut p, mut q) = (0.0, 0.0);
    for ([x, y], residual) in slopes.iter().zip(residuals) {
        p -= x * residual;
        q -= y * residual;
    }
    let determinant = a * c - b * b;
    [(c * p - b * q) / determinant, (a * q - b * p) / determinant]
}

/// Condition number of the sensitivities, each constant's scaled to one: 1 if the rows tell the
/// constants apart as well as can be, without bound if they can't at all.
fn condition(slopes: &[Values]) -> f64 {
    let (a, b, c) = normal(slopes);
    let cosine = (b / (a * c).sqrt()).abs();
    ((1.0 + cosine) / (1.0 - cosine)).sqrt()
}

impl Calibration {
    /// The result as tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut constants = Table::new();
        constants
            .load_style(presets::ASCII_MARKDOWN)
            .set_header(["constant", "unit", "shipped", "best", "bounds"]);
        for (index, constant) in CONSTANTS.iter().enumerate() {
            constants.add_row([
                constant.key.to_string(),
                constant.unit.into(),
                format!("{:.1}", self.shipped[index]),
                format!("{:.1}", self.best[index]),
                format!("{} to {}", constant.least, constant.most),
            ]);
        }
        let mut rows = Table::new();
        let sensitivity = CONSTANTS
            .each_ref()
            .map(|constant| format!("per % of {}", constant.key));
        let header = ["row", "error at best", "error if left out"].map(String::from);
        rows.load_style(presets::ASCII_MARKDOWN)
            .set_header(header.into_iter().chain(sensitivity));
        for (name, residual, slopes) in &self.rows {
            let slopes = slopes.map(|slope| format!("{slope:+.3} %"));
            let percent = |log: f64| format!("{:+.1} %", 100.0 * (log.exp() - 1.0));
            let mut runs = self.record.runs.iter();
            let left_out = runs.find(|run| run.name == *name);
            let row = [
                name.clone(),
                percent(*residual),
                left_out.map_or_else(String::new, |run| percent(run.log_error)),
            ];
            rows.add_row(row.into_iter().chain(slopes));
        }
        let [shipped, best] = self.objective;
        format!(
            "{constants}\n\n{rows}\n\nobjective (sum of squared logarithms): {shipped:.6} as \
             shipped, {best:.6} at best; condition number {:.1}\n",
            self.condition
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_is_near_the_best_fit() {
        let found = calibrate().unwrap();
        for (shipped, best) in found.shipped.iter().zip(found.best) {
            assert!((shipped / best).ln().abs() < 0.25, "{}", found.text());
        }
        assert!(found.condition < 10.0, "{}", found.text());
        assert!(
            found.objective[0] < 2.0 * found.objective[1] + 1e-4,
            "{}",
            found.text()
        );
    }

    #[test]
    fn linear_residuals_are_fitted_in_one_step() {
        let slopes = [[1.0, 0.0], [0.5, 1.0], [0.0, 2.0]];
        let residuals = slopes.map(|[x, y]| -(0.3 * x - 0.1 * y));
        let [p, q] = gauss_newton(&slopes, &residuals);
        assert!((p - 0.3).abs() < 1e-12 && (q + 0.1).abs() < 1e-12);
        assert!(condition(&[[1.0, 0.0], [0.0, 1.0]]) == 1.0);
    }
}

//! Constants of time, by Gauss-Newton steps on logarithms, within their bounds.

use anyhow::{Context, Result};
use ipu_sim::engine;
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;

use super::constant::{self, Constant};
use super::fit::{self, Fit, FittedRow};
use super::left_out::{self, AtBounds};
use crate::accuracy::Record;
use crate::accuracy::domain::Features;
use crate::accuracy::effects::Effects;
use crate::compile;
use crate::config::options::Batching;
use crate::explain::Explanation;
use crate::measure::sequences_per_second;
use crate::run::TIMING;
use crate::validate::measurements::{Role, Throughput, measurements};
use crate::validate::request;

/// Steps at most; the fit moves by less than a thousandth after three.
const STEPS: usize = 8;

/// Relative change of a constant for a finite difference: cycles are whole, so it is large.
const PROBE: f64 = 0.2;

/// A row of the measurements, compiled.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) features: Features,
    pub(super) effects: Effects,
    pub(super) system: String,
    expected: f64,
    program: Program,
    batching: Batching,
}

/// Fits the constants of time; with the errors of prediction, and what bounds stopped.
///
/// # Errors
///
/// Rows that don't compile, which would be a mistake of this program.
pub(super) fn fit() -> Result<(Fit, Record, AtBounds)> {
    let measured = measurements()?.throughput.into_iter();
    let (rows, others): (Vec<_>, Vec<_>) = measured.partition(|row| row.role == Role::Calibration);
    let compiled = |rows: Vec<Throughput>| rows.into_iter().map(row).collect::<Result<Vec<Row>>>();
    let (rows, others) = (compiled(rows)?, compiled(others)?);
    let first = rows.first().context("there are calibration rows")?;
    let mut constants = constant::fitted(&MachineSpec::shipped(&first.system)?, false)?;
    let mut fitted = at_best(&rows, &constants)?;
    let at_shipped = objective(&fitted);
    for _ in 0..STEPS {
        let mut next = constants.clone();
        for (constant, value) in next.iter_mut().zip(stepped(&constants, &fitted)) {
            constant.best = value;
        }
        let found = at_best(&rows, &next)?;
        if objective(&found) >= objective(&fitted) {
            break;
        }
        (constants, fitted) = (next, found);
    }
    let (record, at_bounds) = left_out::record(&rows, &fitted, &constants, &others)?;
    let slopes: Vec<Vec<f64>> = fitted.iter().map(|row| row.slopes.clone()).collect();
    let fit = Fit {
        title: "time",
        objective: [at_shipped, objective(&fitted)],
        condition: fit::condition(&slopes),
        constants,
        rows: fitted,
    };
    Ok((fit, record, at_bounds))
}

/// The constants after one Gauss-Newton step from their best values, within their bounds.
pub(super) fn stepped(constants: &[Constant], rows: &[FittedRow]) -> Vec<f64> {
    let slopes: Vec<Vec<f64>> = rows.iter().map(|row| row.slopes.clone()).collect();
    let residuals: Vec<f64> = rows.iter().map(|row| row.residual).collect();
    let within =
        |constant: &Constant| [constant.low, constant.high].map(|end| (end / constant.best).ln());
    let bounds: Vec<[f64; 2]> = constants.iter().map(within).collect();
    let moved = constants
        .iter()
        .zip(fit::step_within(&slopes, &residuals, &bounds));
    moved
        .map(|(constant, step)| constant.best * step.exp())
        .collect()
}

fn objective(rows: &[FittedRow]) -> f64 {
    let residuals: Vec<f64> = rows.iter().map(|row| row.residual).collect();
    fit::objective(&residuals)
}

/// Residuals and slopes of all rows with the constants at their best values.
fn at_best(rows: &[Row], constants: &[Constant]) -> Result<Vec<FittedRow>> {
    let values: Vec<f64> = constants.iter().map(|constant| constant.best).collect();
    let row = |row: &Row| {
        let slopes = (0..constants.len()).map(|index| slope(row, constants, &values, index));
        Ok(FittedRow {
            name: row.name.clone(),
            residual: residual(row, constants, &values)?,
            slopes: slopes.collect::<Result<_>>()?,
        })
    };
    rows.iter().map(row).collect()
}

fn row(row: Throughput) -> Result<Row> {
    let request = request(&row.system, &row.arguments)?;
    let machine = &request.machine.spec;
    let compiled = compile::compile(&request.options, machine)?;
    let program = compiled.lowered.program;
    let timeline = engine::time(&program, machine, TIMING)?;
    let time = Explanation::new(&program, &timeline, &compiled.placed);
    Ok(Row {
        name: row.name,
        features: Features::new(&request.options, machine, &time),
        effects: Effects::of(&timeline, machine),
        system: row.system,
        expected: row.sequences_per_second,
        program,
        batching: request.options.batching,
    })
}

/// Logarithm of simulated over measured throughput.
pub(super) fn residual(row: &Row, constants: &[Constant], values: &[f64]) -> Result<f64> {
    let values: Vec<_> = constants.iter().zip(values.iter().copied()).collect();
    let machine = constant::with(&row.system, &values)?;
    let timeline = engine::time(&row.program, &machine, TIMING)?;
    let step = machine.tile.clock.seconds(timeline.total);
    Ok((sequences_per_second(&row.batching, step) / row.expected).ln())
}

/// Change of a row's logarithm with the logarithm of one constant.
fn slope(row: &Row, constants: &[Constant], values: &[f64], index: usize) -> Result<f64> {
    // Machines take whole numbers, so the difference is that of whole numbers.
    let moved = |by: f64| {
        let mut moved = values.to_vec();
        moved[index] = (moved[index] * by).round();
        Ok::<_, anyhow::Error>((moved[index], residual(row, constants, &moved)?))
    };
    let (low, high) = (moved(1.0 - PROBE)?, moved(1.0 + PROBE)?);
    Ok((high.1 - low.1) / (high.0 / low.0).ln())
}

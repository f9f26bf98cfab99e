//! Constants of time, by Gauss-Newton steps on logarithms, within their bounds.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use ipu_sim::engine::{self, Activity, ConstantUsage, IpuTime};
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::SimSeconds;

use super::constant::{self, Constant};
use super::fit::{self, Fit, FittedRow};
use crate::accuracy::domain::Features;
use crate::accuracy::effects::Effects;
use crate::config::RunConfig;
use crate::error::Result;
use crate::evaluate::TIMING;
use crate::explain::Explanation;
use crate::validate::compiled;
use crate::validate::measurements::{HostTime, Role, Throughput, Timed, measurements};

/// Steps at most; the fit moves by less than a thousandth after three.
const STEPS: usize = 8;

/// Relative change of a constant for a finite difference: cycles are whole, so it is large.
const PROBE: f64 = 0.2;

/// The least part of itself that one step leaves of a constant with a lower bound of 0.
///
/// Zero is at minus infinity of the logarithm, which no least squares with a slope reaches, so the
/// step is bounded here, and a constant that is stopped here goes to 0. What takes `a + b c` has
/// the slope `s = b c / (a + b c)`, and without `c` its logarithm is less by `-ln(1 - s)`. The step
/// to this part of `c` counts as `s ln(100)`, which is more than that for every slope below 0.99:
/// rows that ask for still more want what even 0 doesn't give.
const PART_LEAST: f64 = 0.01;

/// What clocks held beside the time of the device.
static HOST_TIME: LazyLock<BTreeMap<Timed, HostTime>> = LazyLock::new(|| measurements().host_time);

/// A row of the measurements, compiled.
pub(super) struct CompiledRun {
    pub(super) name: String,
    pub(super) features: Features,
    pub(super) effects: Effects,
    pub(super) system: String,
    measured: Throughput,
    /// What the clock of the measurement leaves open of the logarithm of its rate.
    pub(super) left_open: [f64; 2],
    program: Arc<Program>,
    config: RunConfig,
}

/// Fit of the constants of time, with the rows that it used and those that it didn't.
pub(super) struct TimeFit {
    pub(super) fit: Fit,
    pub(super) rows: Vec<CompiledRun>,
    pub(super) others: Vec<CompiledRun>,
}

/// Fits the constants of time.
///
/// # Errors
///
/// Rows that don't compile, which would be a mistake of this program.
pub(super) fn fit() -> Result<TimeFit> {
    let measured = measurements().throughput.into_iter();
    let (rows, others): (Vec<_>, Vec<_>) = measured.partition(|row| row.role == Role::Calibration);
    let all = |rows: Vec<Throughput>| {
        rows.into_iter()
            .map(row)
            .collect::<Result<Vec<CompiledRun>>>()
    };
    let (rows, others) = (all(rows)?, all(others)?);
    let first = rows.first().expect("there are calibration rows");
    let mut constants = constant::fitted(&MachineSpec::shipped(&first.system)?, false);
    let at_best = |constants: &[Constant]| at_best(&rows, constants);
    let at_shipped = objective(&at_best(&constants)?);
    let fitted = descend(&mut constants, at_best)?;
    let slopes: Vec<Vec<f64>> = fitted.iter().map(|row| row.slopes.clone()).collect();
    let fit = Fit {
        title: "time",
        objective: [at_shipped, objective(&fitted)],
        condition: fit::condition(&slopes),
        constants,
        rows: fitted,
    };
    Ok(TimeFit { fit, rows, others })
}

/// Moves the constants to the least sum of squares within their bounds. `rows` gives residuals and
/// slopes with the constants at their best values; returned are those at the end.
fn descend(
    constants: &mut Vec<Constant>,
    rows: impl Fn(&[Constant]) -> Result<Vec<FittedRow>>,
) -> Result<Vec<FittedRow>> {
    let mut fitted = rows(constants)?;
    for _ in 0..STEPS {
        let mut next = constants.clone();
        for (constant, value) in next.iter_mut().zip(stepped(constants, &fitted)) {
            constant.best = value;
        }
        let found = rows(&next)?;
        if objective(&found) >= objective(&fitted) {
            break;
        }
        (*constants, fitted) = (next, found);
    }
    Ok(fitted)
}

/// The constants after one Gauss-Newton step from their best values, within their bounds.
///
/// A constant at 0 stays there: a step is a factor.
pub(super) fn stepped(constants: &[Constant], rows: &[FittedRow]) -> Vec<f64> {
    let slopes: Vec<Vec<f64>> = rows.iter().map(|row| row.slopes.clone()).collect();
    let residuals: Vec<f64> = rows.iter().map(|row| row.residual).collect();
    let bounds: Vec<[f64; 2]> = constants.iter().map(step_bounds).collect();
    let steps = fit::step_within(&slopes, &residuals, &bounds);
    let moved = constants.iter().zip(&bounds).zip(steps);
    moved
        .map(|((constant, [least, _]), step)| {
            if constant.low == 0.0 && step == *least {
                0.0
            } else {
                constant.best * step.exp()
            }
        })
        .collect()
}

/// Bounds of the step of a constant's logarithm; see [`PART_LEAST`] for those of 0.
fn step_bounds(constant: &Constant) -> [f64; 2] {
    if constant.best == 0.0 {
        return [0.0; 2];
    }
    [constant.low, constant.high].map(|end| match end {
        0.0 => PART_LEAST.ln(),
        end => (end / constant.best).ln(),
    })
}

fn objective(rows: &[FittedRow]) -> f64 {
    let residuals: Vec<f64> = rows.iter().map(|row| row.residual).collect();
    fit::objective(&residuals)
}

/// Residuals and slopes of all rows with the constants at their best values.
fn at_best(rows: &[CompiledRun], constants: &[Constant]) -> Result<Vec<FittedRow>> {
    let values: Vec<f64> = constants.iter().map(|constant| constant.best).collect();
    let row = |row: &CompiledRun| {
        let slopes = (0..constants.len()).map(|index| slope(row, constants, &values, index));
        Ok(FittedRow {
            name: row.name.clone(),
            residual: residual(row, constants, &values)?,
            slopes: slopes.collect::<Result<_>>()?,
        })
    };
    rows.iter().map(row).collect()
}

fn row(measured: Throughput) -> Result<CompiledRun> {
    let (config, machine) = measured.run.resolve();
    let compiled = compiled(&config, &machine)?;
    let (program, profile) = (compiled.program, compiled.profile);
    let timeline = engine::time(&program, &machine, TIMING)?;
    let time = Explanation::new(&program, &profile, &timeline, &compiled.placed);
    let step = machine.tile.clock.seconds(timeline.total);
    let mut features = Features::new(&config, &machine, &time);
    if let Some(front_end) = &measured.front_end {
        features.set_front_end(front_end);
    }
    Ok(CompiledRun {
        name: measured.name.clone(),
        features,
        effects: Effects::of(&timeline, &machine),
        system: measured.run.system.clone(),
        left_open: measured.left_open(&config, step, &HOST_TIME),
        measured,
        program,
        config,
    })
}

impl CompiledRun {
    /// What the clock of the measurement held of a step beside the device, in seconds.
    pub(super) fn host_seconds(&self) -> f64 {
        self.measured.host_seconds(&HOST_TIME)
    }

    /// The step that this clock showed, in seconds.
    pub(super) fn measured_step(&self) -> f64 {
        self.measured.step(&self.config)
    }
}

/// The time of a step with other values of constants, in seconds; with what the IPU that waits
/// least pays for, and the seconds of bringing in order what arrived there.
pub(super) fn step_with(
    row: &CompiledRun,
    values: &[(&Constant, f64)],
) -> Result<(SimSeconds, ConstantUsage, f64)> {
    let machine = constant::with(&row.system, values)?;
    let timeline = engine::time(&row.program, &machine, TIMING)?;
    let idle = |ipu: &&IpuTime| ipu.tally.spent.on(Activity::Idle);
    let busiest = timeline.ipus.values().min_by_key(idle);
    let usage = busiest.map(|ipu| ipu.usage).unwrap_or_default();
    let seconds = |cycles| machine.tile.clock.seconds(cycles);
    let assembly = seconds(usage.assembly).0;
    Ok((seconds(timeline.total), usage, assembly))
}

/// Logarithm of simulated over measured throughput.
pub(super) fn residual(row: &CompiledRun, constants: &[Constant], values: &[f64]) -> Result<f64> {
    let values: Vec<_> = constants.iter().zip(values.iter().copied()).collect();
    let (step, ..) = step_with(row, &values)?;
    let predicted = row.measured.predicted(&row.config, step, &HOST_TIME);
    Ok((predicted / row.measured.rate).ln())
}

/// Change of a row's logarithm with the logarithm of one constant.
fn slope(row: &CompiledRun, constants: &[Constant], values: &[f64], index: usize) -> Result<f64> {
    slope_at(values[index], |value| {
        let mut moved = values.to_vec();
        moved[index] = value;
        residual(row, constants, &moved)
    })
}

/// Change of `residual` with the logarithm of its argument, at `value`.
///
/// Machines take whole numbers, so the difference is that of whole numbers: at least one to either
/// side, but none below 0.
fn slope_at(value: f64, residual: impl Fn(f64) -> Result<f64>) -> Result<f64> {
    let low = (value * (1.0 - PROBE)).round().min(value.round() - 1.0);
    let low = low.max(0.0);
    let high = (value * (1.0 + PROBE)).round().max(value.round() + 1.0);
    let change = residual(high)? - residual(low)?;
    Ok(match low {
        // Zero has no logarithm; that of the value changes by its relative change.
        0.0 => change * value / (high - low),
        low => change / (high / low).ln(),
    })
}

#[cfg(test)]
mod tests {
    use ipu_sim::spec::constant::ConstantId;

    use super::*;

    const WORK: ConstantId = ConstantId::ChipAssemble64Bytes;
    const START: ConstantId = ConstantId::ComputeTrustRatio;

    fn constant(id: ConstantId, shipped: f64, [low, high]: [f64; 2]) -> Constant {
        Constant {
            id,
            unit: "cycles",
            shipped,
            best: shipped,
            low,
            high,
        }
    }

    /// Rows of runs that take a time and so many times each constant, and were measured to take
    /// another time.
    fn rows(runs: &[(f64, [f64; 2], f64)], constants: &[Constant]) -> Vec<FittedRow> {
        let row = |&(other, times, measured): &(f64, [f64; 2], f64)| {
            let parts: Vec<f64> = times
                .iter()
                .zip(constants)
                .map(|(times, constant)| times * constant.best)
                .collect();
            let time = other + parts.iter().sum::<f64>();
            FittedRow {
                name: String::new(),
                residual: (measured / time).ln(),
                slopes: parts.iter().map(|part| -part / time).collect(),
            }
        };
        runs.iter().map(row).collect()
    }

    fn fitted(runs: &[(f64, [f64; 2], f64)]) -> Vec<f64> {
        let mut constants = vec![
            constant(WORK, 40.0, [8.0, 300.0]),
            constant(START, 70.0, [0.0, 200.0]),
        ];
        descend(&mut constants, |constants| Ok(rows(runs, constants))).unwrap();
        constants.iter().map(|constant| constant.best).collect()
    }

    #[test]
    fn a_fit_finds_what_its_rows_were_made_with() {
        // The last row doesn't depend on the second constant, which may be 0.
        let found = fitted(&[
            (1000.0, [10.0, 2.0], 1600.0),
            (1000.0, [5.0, 9.0], 1700.0),
            (1000.0, [20.0, 0.0], 2000.0),
        ]);
        assert!((found[0] - 50.0).abs() < 0.01, "{found:?}");
        assert!((found[1] - 50.0).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn a_fit_goes_to_a_bound_of_zero() {
        // With the first constant at 50, the others were measured faster than without the second.
        let found = fitted(&[
            (1000.0, [10.0, 2.0], 1450.0),
            (1000.0, [5.0, 9.0], 1200.0),
            (1000.0, [20.0, 0.0], 2000.0),
        ]);
        assert_eq!(found[1], 0.0);
        // Of one constant, the best is where its derivative is: found by trying all around.
        let squares = |work: f64| -> f64 {
            [(10.0, 1450.0), (5.0, 1200.0), (20.0, 2000.0)]
                .map(|(times, measured): (f64, f64)| {
                    (measured / (1000.0 + times * work)).ln().powi(2)
                })
                .iter()
                .sum()
        };
        let tried = (800..3000).map(|tenth| f64::from(tenth) / 20.0);
        let best = tried.min_by(|a, b| squares(*a).total_cmp(&squares(*b)));
        assert!((found[0] - best.unwrap()).abs() < 0.1, "{found:?} {best:?}");
    }

    #[test]
    fn a_constant_at_zero_stays_there_and_the_others_move() {
        let constants = [
            constant(WORK, 40.0, [8.0, 300.0]),
            constant(START, 0.0, [0.0, 200.0]),
        ];
        let runs = [(0.0, [10.0, 2.0], 500.0), (0.0, [5.0, 9.0], 250.0)];
        let found = stepped(&constants, &rows(&runs, &constants));
        assert!((found[0] - 50.0).abs() < 1e-9, "{found:?}");
        assert_eq!(found[1], 0.0);
    }

    #[test]
    fn small_values_have_slopes() {
        let line = |value: f64| Ok((100.0 + 3.0 * value).ln());
        for (value, tolerance) in [(48.0, 0.02), (5.0, 0.02), (2.0, 0.1), (1.0, 0.02)] {
            let slope = slope_at(value, line).unwrap();
            let exact = 3.0 * value / (100.0 + 3.0 * value);
            assert!((slope / exact - 1.0).abs() < tolerance, "{value}: {slope}");
        }
        // Between whole numbers the step is larger than the value.
        let slope = slope_at(0.4, line).unwrap();
        assert!((slope / (1.2 / 101.2) - 1.0).abs() < 0.02, "{slope}");
        assert_eq!(slope_at(0.0, line).unwrap(), 0.0);
    }
}

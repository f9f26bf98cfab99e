//! Constants of memory: every size of code is a count times a constant, or a sum of two such.

use anyhow::{Context, Result};
use ipu_sim::ids::IpuId;
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::{self, Category, Weight};

use super::constant;
use super::fit::{self, Fit, FittedRow};
use crate::compile;
use crate::validate::measurements::{Profile, Role, measurements};
use crate::validate::request;

/// A measured size of code.
struct Row {
    name: String,
    category: Category,
    expected: f64,
    /// Whether it is what the last layer adds, instead of the whole.
    last_layer: bool,
}

/// Fits the constants of memory.
///
/// # Errors
///
/// A profile of a run that doesn't compile, which would be a mistake of this program.
pub(super) fn fit() -> Result<Fit> {
    let profiles = measurements()?.profile;
    let mut profiles = profiles.into_iter();
    let profile = profiles.find(|profile| profile.role == Role::Calibration);
    let profile = profile.context("there is a profile to fit to")?;
    let system = profile.system.clone();
    let mut constants = constant::fitted(&MachineSpec::shipped(&system)?, true)?;
    let shipped: Vec<f64> = constants.iter().map(|constant| constant.shipped).collect();
    // All layers, and all but one.
    let one_less = profile.layers - 1;
    let less = format!("--num-layers {one_less} --layers-per-ipu {one_less}");
    let programs = [program(&profile, "")?, program(&profile, &less)?];
    let rows = rows(&profile)?;
    let sizes = |values: &[f64]| {
        let values: Vec<_> = constants.iter().zip(values.iter().copied()).collect();
        sizes(&constant::with(&system, &values)?, &programs, &rows)
    };
    let at_shipped = sizes(&shipped)?;
    let mut parts = vec![Vec::new(); rows.len()];
    for index in 0..constants.len() {
        let mut more = shipped.clone();
        more[index] += 1.0;
        let found = sizes(&more)?;
        for (row, parts) in parts.iter_mut().enumerate() {
            parts.push((found[row] - at_shipped[row]) / rows[row].expected);
        }
    }
    let relative = at_shipped.iter().zip(&rows);
    let errors: Vec<f64> = relative
        .map(|(found, row)| found / row.expected - 1.0)
        .collect();
    let moved = fit::step(&parts, &errors);
    for (constant, moved) in constants.iter_mut().zip(&moved) {
        constant.best = (constant.shipped + moved).clamp(constant.low, constant.high);
    }
    let at_best = |row: usize| {
        let change = parts[row].iter().zip(&constants);
        errors[row]
            + change
                .map(|(part, constant)| part * (constant.best - constant.shipped))
                .sum::<f64>()
    };
    let slopes: Vec<Vec<f64>> = parts
        .iter()
        .enumerate()
        .map(|(row, parts)| {
            let parts = parts.iter().zip(&constants);
            let size = 1.0 + at_best(row);
            parts
                .map(|(part, constant)| part * constant.best / size)
                .collect()
        })
        .collect();
    let residuals: Vec<f64> = (0..rows.len())
        .map(|row| (1.0 + at_best(row)).ln())
        .collect();
    let logarithms: Vec<f64> = errors.iter().map(|error| (1.0 + error).ln()).collect();
    let named = rows.iter().zip(&residuals).zip(&slopes);
    Ok(Fit {
        title: "memory",
        rows: named
            .map(|((row, &residual), slopes)| FittedRow {
                name: row.name.clone(),
                residual,
                slopes: slopes.clone(),
            })
            .collect(),
        objective: [fit::objective(&logarithms), fit::objective(&residuals)],
        condition: fit::condition(&slopes),
        constants,
    })
}

fn program(profile: &Profile, more: &str) -> Result<Program> {
    let request = request(&profile.system, &format!("{} {more}", profile.arguments))?;
    let machine = &request.machine.spec;
    Ok(compile::compile(&request.options, machine)?.lowered.program)
}

fn rows(profile: &Profile) -> Result<Vec<Row>> {
    let row = |what: &str, category, expected: Option<f64>, last_layer| {
        Ok(Row {
            name: format!("{}: {what}", profile.name),
            category,
            expected: expected.with_context(|| format!("the profile has no {what}"))?,
            last_layer,
        })
    };
    let (exchange, control) = (Category::InternalExchangeCode, Category::ControlCode);
    [
        row(
            "vertex code",
            Category::VertexCode,
            profile.vertex_code,
            false,
        ),
        row("exchange code", exchange, profile.exchange_code, false),
        row(
            "exchange code of a layer",
            exchange,
            profile.exchange_code_of_a_layer,
            true,
        ),
        row("control code", control, Some(profile.control_code), false),
    ]
    .into_iter()
    .collect()
}

/// Bytes of every row on the profile's only IPU, of a program with all layers and one with all
/// but the last.
fn sizes(machine: &MachineSpec, programs: &[Program; 2], rows: &[Row]) -> Result<Vec<f64>> {
    let [whole, less] = programs.each_ref();
    let (whole, less) = (weigh::weigh(whole, machine)?, weigh::weigh(less, machine)?);
    let size = |row: &Row| {
        let of = |weight: &Weight| weight.ipus[IpuId(0)].sum(row.category).0 as f64;
        let without = if row.last_layer { of(&less) } else { 0.0 };
        of(&whole) - without
    };
    Ok(rows.iter().map(size).collect())
}

//! Constants of memory: every size of code is a count times a constant, or a sum of two such.

use ipu_sim::ids::IpuId;
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::{self, Category};

use super::constant;
use super::fit::{self, Fit, FittedRow};
use crate::error::Result;
use crate::validate::compiled;
use crate::validate::measurements::{Code, Profile, measurements};
use crate::validate::memory::weigh_parts;

/// A measured size of code.
struct MeasuredSize {
    name: String,
    category: Category,
    expected: f64,
    /// The part of the program whose it is; none for all of it.
    part: Option<usize>,
}

/// Fits the constants of memory.
///
/// # Errors
///
/// A profile of a run that doesn't compile, which would be a mistake of this program.
pub(super) fn fit() -> Result<Fit> {
    let profiles = measurements().profile;
    let mut profiles = profiles.into_iter();
    let profile = profiles.find(|profile| !profile.fitted_code.is_empty());
    let profile = profile.expect("there is a profile to fit to");
    let (config, machine) = profile.run.resolve();
    let system = profile.run.system.clone();
    let mut constants = constant::fitted(&machine, true);
    let shipped: Vec<f64> = constants.iter().map(|constant| constant.shipped).collect();
    let program = compiled(&config, &machine)?.program;
    let rows = rows(&profile);
    let sizes = |values: &[f64]| {
        let values: Vec<_> = constants.iter().zip(values.iter().copied()).collect();
        sizes(
            &constant::with(&system, &values)?,
            &program,
            &profile,
            &rows,
        )
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

fn rows(profile: &Profile) -> Vec<MeasuredSize> {
    let whole = Code::ALL.into_iter().filter_map(|code| {
        let expected = match code {
            Code::Vertex => profile.vertex_code?,
            Code::Exchange => profile.exchange_code?,
            Code::Control => profile.control_code,
        };
        let is_fitted = profile.fitted_code.contains(&code);
        is_fitted.then(|| row(&profile.name, code, expected, None))
    });
    let layers = profile.layer.iter().enumerate();
    let of_layers = layers.flat_map(|(number, layer)| {
        let codes = layer
            .fitted_code
            .iter()
            .map(|&code| (code, layer.code(code)));
        codes.map(move |(code, expected)| row(&layer.name, code, expected, Some(number)))
    });
    whole.chain(of_layers).collect()
}

fn row(of: &str, code: Code, expected: f64, part: Option<usize>) -> MeasuredSize {
    MeasuredSize {
        name: format!("{of}: {}", code.name()),
        category: match code {
            Code::Vertex => Category::VertexCode,
            Code::Exchange => Category::InternalExchangeCode,
            Code::Control => Category::ControlCode,
        },
        expected,
        part,
    }
}

/// Bytes of every row on the profile's IPU.
fn sizes(
    machine: &MachineSpec,
    program: &Program,
    profile: &Profile,
    rows: &[MeasuredSize],
) -> Result<Vec<f64>> {
    let whole = weigh::weigh(program, machine)?;
    let layers = weigh_parts(program, machine, profile.ipu, &profile.layer);
    let size = |row: &MeasuredSize| match row.part {
        None => whole.ipus[IpuId(profile.ipu)].sum(row.category).0 as f64,
        Some(part) => layers[part].sum(row.category).0 as f64,
    };
    Ok(rows.iter().map(size).collect())
}

//! Bytes of a compiled run by category, against a profile of the real compiler.

use anyhow::{Context, Result};
use ipu_sim::ids::IpuId;
use ipu_sim::weigh::{self, Category};

use super::measurements::{Profile, Role};
use super::{Row, request};
use crate::compile;

/// Largest relative error of a category.
const CATEGORY: f64 = 0.15;

/// Largest relative error of the fullest tile.
const FULLEST: f64 = 0.05;

/// The rows of one profile.
///
/// # Errors
///
/// A profile of a run that doesn't compile, which would be a mistake of this program.
pub(super) fn rows(profile: &Profile) -> Result<Vec<Row>> {
    let request = request(&profile.system, &profile.arguments)?;
    let machine = &request.machine.spec;
    let program = compile::compile(&request.options, machine)?.lowered.program;
    let weight = weigh::weigh(&program, machine)?;
    let found = weight.ipus.get(IpuId(profile.ipu));
    let ipu = found.context("the profile names an IPU that the run doesn't use")?;
    let sum = |wanted: &dyn Fn(Category) -> bool| -> f64 {
        let found = Category::all().filter(|&category| wanted(category));
        found.map(|category| ipu.sum(category).0 as f64).sum()
    };
    let of = |wanted: Category| sum(&|category| category == wanted);
    let is_variable = |category| {
        matches!(
            category,
            Category::AlwaysLive(_) | Category::NotAlwaysLive(_)
        )
    };
    let n_tiles = ipu.tiles.len() as f64;
    let fixed = (of(Category::Stack) + of(Category::Loader)) / n_tiles;
    let fullest = ipu.max().0 as f64;
    let mean = ipu.total.0 as f64 / n_tiles;
    // Sizes of code may have been fitted to the profile; variables and evenness never were.
    let (fitted, free) = (profile.role, Role::Validation);
    let rows = [
        (
            "variables",
            "B",
            Some(profile.variables),
            sum(&is_variable),
            CATEGORY,
            free,
        ),
        (
            "vertex state",
            "B",
            Some(profile.vertex_state),
            sum(&|category| Category::VERTEX_STATE.contains(&category)),
            CATEGORY,
            free,
        ),
        (
            "vertex code",
            "B",
            profile.vertex_code,
            of(Category::VertexCode),
            CATEGORY,
            fitted,
        ),
        (
            "exchange code",
            "B",
            profile.exchange_code,
            sum(&|category| Category::EXCHANGE.contains(&category)),
            CATEGORY,
            fitted,
        ),
        (
            "control code",
            "B",
            Some(profile.control_code),
            of(Category::ControlCode),
            CATEGORY,
            fitted,
        ),
        (
            "fullest tile",
            "B",
            profile.fullest_tile,
            fullest - fixed,
            FULLEST,
            free,
        ),
        (
            "fullest tile over mean",
            "ratio",
            profile.fullest_over_mean,
            fullest / mean,
            FULLEST,
            free,
        ),
    ];
    let row =
        |(what, unit, expected, found, tolerance, role): (&str, &str, Option<f64>, _, _, _)| {
            Some(Row {
                name: format!("{}: {what}", profile.name),
                unit: unit.into(),
                expected: expected?,
                found,
                tolerance,
                is_range: false,
                role,
                source: profile.source.clone(),
                known: None,
            })
        };
    Ok(rows.into_iter().filter_map(row).collect())
}

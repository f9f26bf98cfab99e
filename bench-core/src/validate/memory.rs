//! Bytes of a compiled run by category, against a profile of the real compiler.

use ipu_sim::ids::IpuId;
use ipu_sim::program::{Program, SourceId};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::Bytes;
use ipu_sim::weigh::{self, Category, IpuMemoryUsage, PartMemoryUsage};

use super::measurements::{Code, Profile, ProfileEntry, Role, SimilarLayers};
use super::{Row, compiled};
use crate::error::Result;

/// Largest relative error of a category.
const CATEGORY: f64 = 0.15;

/// Largest relative error of the fullest tile.
const FULLEST: f64 = 0.05;

/// The rows of profiles of one run.
///
/// # Errors
///
/// Profiles of a run that doesn't compile, which would be a mistake of this program.
pub(super) fn rows(profiles: &[Profile]) -> Result<Vec<Row>> {
    let Some(run) = profiles.first() else {
        return Ok(Vec::new());
    };
    let (config, machine) = run.run.resolve();
    let machine = &machine;
    let program = compiled(&config, machine)?.program;
    let weight = weigh::weigh(&program, machine)?;
    let mut rows = Vec::new();
    for profile in profiles {
        let ipu = weight.ipus.get(IpuId(profile.ipu));
        let ipu = ipu.expect("the profile names an IPU that the run uses");
        rows.extend(whole(profile, ipu));
        rows.extend(parts(profile, &program, machine));
        let alike = profile.alike.iter();
        rows.extend(alike.flat_map(|layers| alike_rows(profile, layers, &program, machine)));
    }
    Ok(rows)
}

/// The layers with the least and the most exchange code.
fn alike_rows(
    profile: &Profile,
    SimilarLayers {
        name,
        layers: [first, last],
        exchange_code,
    }: &SimilarLayers,
    program: &Program,
    machine: &MachineSpec,
) -> Vec<Row> {
    let names: Vec<String> = (*first..=*last)
        .map(|layer| format!("Layer{layer}/"))
        .collect();
    let has: Vec<_> = names
        .iter()
        .map(|name| |line: SourceId| program.source(line).name.starts_with(name.as_str()))
        .collect();
    let has: Vec<&(dyn Fn(SourceId) -> bool + Sync)> = has.iter().map(|has| has as _).collect();
    let weighed = weigh::weigh_parts(program, machine, IpuId(profile.ipu), &has);
    let found = weighed.iter().map(exchange_code_of);
    let least = found.clone().fold(f64::INFINITY, f64::min);
    let most = found.fold(0.0, f64::max);
    let both = [("least", least), ("most", most)].into_iter();
    let rows = both.zip(*exchange_code);
    rows.map(|((which, found), expected)| Row {
        name: format!("{name}: {which} exchange code"),
        unit: "B".into(),
        expected,
        found,
        tolerance: CATEGORY,
        is_range: false,
        role: Role::Validation,
        source: profile.source.clone(),
        known: None,
    })
    .collect()
}

fn exchange_code_of(part: &PartMemoryUsage) -> f64 {
    let is_exchange = |category| Category::EXCHANGE.contains(&category);
    sum_of(&is_exchange, |category| part.sum(category))
}

/// Rows of everything on the IPU.
fn whole(profile: &Profile, ipu: &IpuMemoryUsage) -> Vec<Row> {
    let sum = |wanted: &dyn Fn(Category) -> bool| sum_of(wanted, |category| ipu.sum(category));
    let of = |wanted: Category| sum(&|category| category == wanted);
    let n_tiles = ipu.tiles.len() as f64;
    let fixed = (of(Category::Stack) + of(Category::Loader)) / n_tiles;
    let fullest = ipu.max().0 as f64;
    let mean = ipu.total.0 as f64 / n_tiles;
    // Sizes of code may have been fitted to the profile; variables and evenness never were.
    let free = Role::Validation;
    let role = |code: Code| code.role(&profile.fitted_code);
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
            role(Code::Vertex),
        ),
        (
            "exchange code",
            "B",
            profile.exchange_code,
            sum(&|category| Category::EXCHANGE.contains(&category)),
            CATEGORY,
            role(Code::Exchange),
        ),
        (
            "control code",
            "B",
            Some(profile.control_code),
            of(Category::ControlCode),
            CATEGORY,
            role(Code::Control),
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
    rows.into_iter().filter_map(row).collect()
}

/// The memory of parts of a profile on its IPU.
pub(super) fn weigh_parts<'a>(
    program: &Program,
    machine: &MachineSpec,
    ipu: u32,
    parts: impl IntoIterator<Item = &'a ProfileEntry>,
) -> Vec<PartMemoryUsage> {
    let has = parts.into_iter().map(|part| {
        let has: Box<dyn Fn(SourceId) -> bool + Sync> =
            Box::new(|line| part.has(&program.source(line).name));
        has
    });
    let has: Vec<_> = has.collect();
    let has: Vec<_> = has.iter().map(|has| &**has).collect();
    weigh::weigh_parts(program, machine, IpuId(ipu), &has)
}

/// Rows of layers and of operations, each weighed alone.
fn parts(profile: &Profile, program: &Program, machine: &MachineSpec) -> Vec<Row> {
    let parts: Vec<&ProfileEntry> = profile.layer.iter().chain(&profile.operation).collect();
    let weighed = weigh_parts(program, machine, profile.ipu, parts.iter().copied());
    let rows = parts.iter().zip(&weighed).enumerate();
    rows.flat_map(|(number, (part, weighed))| {
        let is_layer = number < profile.layer.len();
        let sum =
            |wanted: &dyn Fn(Category) -> bool| sum_of(wanted, |category| weighed.sum(category));
        // Of an operation, PopLiner counts what it has from elsewhere: weights and operands.
        let variables = sum(&|category| match category {
            Category::NotAlwaysLive(_) => is_layer,
            category => is_variable(category),
        });
        let row = |what: &str, expected: Option<f64>, found, role| {
            Some(Row {
                name: format!("{}: {what}", part.name),
                unit: "B".into(),
                expected: expected?,
                found,
                tolerance: CATEGORY,
                is_range: false,
                role,
                source: profile.source.clone(),
                known: None,
            })
        };
        let state = sum(&|category| Category::VERTEX_STATE.contains(&category));
        let exchange = exchange_code_of(weighed);
        let code = |wanted: Category| sum(&|category| category == wanted);
        let free = Role::Validation;
        let role = |code: Code| code.role(&part.fitted_code);
        let (vertex, control) = (code(Category::VertexCode), code(Category::ControlCode));
        let rows = [
            row("vertex state", Some(part.vertex_state), state, free),
            row(
                "vertex code",
                Some(part.vertex_code),
                vertex,
                role(Code::Vertex),
            ),
            row(
                "exchange code",
                Some(part.exchange_code),
                exchange,
                role(Code::Exchange),
            ),
            row(
                "control code",
                Some(part.control_code),
                control,
                role(Code::Control),
            ),
            row("variables", part.variables, variables, free),
        ];
        rows.into_iter().flatten()
    })
    .collect()
}

/// Bytes of the categories that are wanted.
fn sum_of(wanted: &dyn Fn(Category) -> bool, of: impl Fn(Category) -> Bytes) -> f64 {
    let found = Category::all().filter(|&category| wanted(category));
    found.map(|category| of(category).0 as f64).sum()
}

fn is_variable(category: Category) -> bool {
    matches!(
        category,
        Category::AlwaysLive(_) | Category::NotAlwaysLive(_)
    )
}

#[cfg(test)]
mod tests {
    use super::super::measurements::measurements;
    use super::*;
    use crate::headroom::{INFERENCE_MARGIN, TRAINING_MARGIN};

    /// The margins of a verdict are what measured peaks were above simulated ones, at most.
    #[test]
    fn margins_are_what_profiles_say() {
        let mut margins = [0_u64; 2];
        let profiles = measurements().profile;
        for profiles in profiles.chunk_by(|a, b| a.run == b.run) {
            let (config, _) = profiles[0].run.resolve();
            let rows = rows(profiles).unwrap();
            let peaks = rows.iter().filter(|row| row.name.ends_with("fullest tile"));
            for row in peaks {
                let margin = &mut margins[usize::from(config.is_inference())];
                *margin = (*margin).max((row.expected - row.found).max(0.0).ceil() as u64);
            }
        }
        assert_eq!(margins, [TRAINING_MARGIN.0, INFERENCE_MARGIN.0]);
    }
}

//! What a part of a program takes: the steps of some lines of the profile.
//!
//! A part is weighed as PopLiner weighs layers and operations of a profile:
//!
//! - **Code and state** are those of the whole program, added up over the part's steps. What steps
//!   share belongs to the first of them in the program, which may be in another part.
//! - **Vertex code** is shared by all, so that each part has every codelet that its steps run.
//! - **Variables** are those that the part's steps touch, at its own fullest moment on each tile.
//!   What the part reads before it writes it comes from outside, and lives during all of the part.
//!
//! Stacks and the loader belong to no part.

use super::code::{self, ExchangeTotals};
use super::liveness;
use super::sizes::Sizes;
use super::{Category, access, kinds, peak, table};
use crate::engine::tiles::AllTiles;
use crate::ids::{Id, IdVec, IpuId};
use crate::program::{Program, SourceId, Step, VarKind};
use crate::spec::MachineSpec;
use crate::threads;
use crate::units::Bytes;

/// The memory of a part of a program on one IPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartMemoryUsage {
    /// Bytes on all tiles by category.
    pub categories: Vec<(Category, Bytes)>,
}

impl PartMemoryUsage {
    /// Bytes of one category.
    #[must_use]
    pub fn sum(&self, category: Category) -> Bytes {
        let mut categories = self.categories.iter();
        let found = categories.find(|(found, _)| *found == category);
        found.map_or(Bytes::ZERO, |&(_, bytes)| bytes)
    }
}

/// Weighs parts of `program` on one IPU; a line of the profile may be in several parts.
///
/// # Panics
///
/// If the program is nested too deep ([`Program::check_depth`]).
#[must_use]
pub fn weigh_parts(
    program: &Program,
    machine: &MachineSpec,
    ipu: IpuId,
    parts: &[&(dyn Fn(SourceId) -> bool + Sync)],
) -> Vec<PartMemoryUsage> {
    assert_eq!(program.check_depth(), Ok(()));
    let n_tiles = machine.tile.tiles_per_ipu;
    let sizes = Sizes::new(program, &AllTiles::new(program, n_tiles), n_tiles);
    let moved = ExchangeTotals::new(program, machine);
    threads::map(parts, |part| {
        let chosen: IdVec<SourceId, bool> = program.sources.ids().map(part).collect();
        let counts = |source: SourceId| chosen[source];
        let empty = || Category::all().map(|category| (category, vec![0; sizes.n_tiles()]));
        let mut tables: code::Tables = (0..program.n_ipus).map(|_| empty().collect()).collect();
        code::add_part((program, machine, &sizes), &moved, &counts, &mut tables);
        variables(&only(program, &counts), &sizes, ipu, &mut tables);
        let categories = std::mem::take(&mut tables[ipu]).into_iter();
        let categories = categories.map(|(category, tiles)| (category, Bytes(tiles.iter().sum())));
        PartMemoryUsage {
            categories: categories.collect(),
        }
    })
}

/// Adds the variables of a program on one IPU.
fn variables(program: &Program, sizes: &Sizes, ipu: IpuId, tables: &mut code::Tables) {
    let liveness = liveness::analyse(program);
    let always = liveness.always.iter().copied();
    for var in always.filter(|&var| program.vars[var].ipu == ipu) {
        let kind = program.vars[var].kind;
        let table = table(&mut tables[ipu], Category::AlwaysLive(kind));
        sizes.add(program, var, table);
    }
    let kinds = kinds::kinds(program);
    let peaks = peak::all_peaks(program, &liveness, sizes, &|_| true);
    let live = peaks[ipu].by_kind(program, (ipu, &kinds), &liveness, sizes);
    for (kind, bytes) in live {
        *table(&mut tables[ipu], Category::NotAlwaysLive(kind)) = bytes;
    }
}

/// The program with the steps of a part alone.
fn only(program: &Program, counts: &dyn Fn(SourceId) -> bool) -> Program {
    let mut part = program.clone();
    part.steps = chosen(&program.steps, counts);
    for function in part.functions.values_mut() {
        function.steps = chosen(&function.steps, counts);
    }
    let mut touched = vec![false; program.vars.len()];
    let functions = part.functions.values().map(|function| &function.steps);
    for steps in functions.chain([&part.steps]) {
        touch(&part, steps, &mut touched);
    }
    // Whatever they are for, variables that no step touches don't live.
    for (var, touched) in part.vars.values_mut().zip(touched) {
        if !touched {
            var.kind = VarKind::Temporary;
        }
    }
    part
}

fn chosen(steps: &[Step], counts: &dyn Fn(SourceId) -> bool) -> Vec<Step> {
    let step = |step: &Step| match step {
        Step::Repeat { count, body } => Some(Step::Repeat {
            count: *count,
            body: chosen(body, counts),
        }),
        other => other.source().is_none_or(counts).then(|| other.clone()),
    };
    steps.iter().filter_map(step).collect()
}

fn touch(program: &Program, steps: &[Step], touched: &mut [bool]) {
    for step in steps {
        match step {
            Step::Repeat { body, .. } => touch(program, body, touched),
            Step::Call(_) | Step::Section(_) => {}
            Step::Compute(_)
            | Step::Exchange(_)
            | Step::IpuCopies { .. }
            | Step::Transfers { .. }
            | Step::Collective(_) => {
                for (var, _) in access::accesses(program, step) {
                    touched[var.index()] = true;
                }
            }
        }
    }
}

//! How much memory a program takes on every tile, of what kind, and whether it fits.
//!
//! A tile holds for the whole run: variables whose values must last, code, vertex state
//! and stacks. On top comes, at each step, what lives just then; variables that don't
//! live at the same time share memory. A program fits if on every tile the fullest
//! moment fits. Programs that don't fit are weighed like any other.
//!
//! The parts: `access` (what steps read and write), `liveness` (when values live),
//! `peak` (the fullest moment of every tile), `fullest` (what is there then), `curve` (memory
//! over time), `kinds` (what variables are there for), `code` (everything but variables),
//! `category` (what all of it is called), `part` (what some of the steps take).
//!
//! A tile's memory has two regions, and not everything may live in both: `regions`.
//!
//! Left out: gaps between variables.

mod access;
mod category;
mod code;
mod curve;
mod fullest;
mod kinds;
mod liveness;
mod part;
mod peak;
mod regions;
mod remote;
mod sizes;
mod state;

#[cfg(test)]
mod tests;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::tiles::AllTiles;
use crate::ids::{IdVec, IpuId, TileId};
use crate::program::{Program, VarId};
use crate::replica::ReplicaPlacement;
use crate::spec::MachineSpec;
use crate::text::Names;
use crate::threads;
use crate::topology::Topology;
use crate::units::Bytes;
use crate::verify::{VerifyError, check_depth};
pub use category::{Category, UNMODELLED_CATEGORIES, UnmodelledCategory};
pub use curve::LivePoint;
use fullest::{Find, fullest};
pub use kinds::{LiveBytes, LiveKind};
pub use part::{PartMemoryUsage, weigh_parts};
pub use regions::Region;
pub(crate) use remote::check_streaming_memory;
pub use remote::{DoesNotFit, OutOfStreamingMemory, fits};
use sizes::Sizes;

/// Variables that a report of a tile names.
const LARGEST: usize = 10;

/// A variable on one tile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TileVariable {
    /// The variable.
    #[schemars(with = "u32")]
    pub var: VarId,
    /// Name of the variable, unique on its IPU: as [`crate::text`] prints it.
    pub name: String,
    /// The name of its [`Category`].
    pub category: String,
    /// Bytes that the variable takes on the tile, padding included.
    pub bytes: Bytes,
    /// Whether it takes that during the whole run.
    pub always_live: bool,
}

/// A step as people find it in a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepName {
    /// The function it stands in; none for the program's own steps.
    pub function: Option<String>,
    /// Line of the profile that the step belongs to, or the function that it calls.
    pub step: String,
}

/// The memory of one IPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpuMemoryUsage {
    /// Bytes by category, then by tile.
    pub categories: Vec<(Category, Vec<Bytes>)>,
    /// Bytes of every tile at its fullest moment.
    pub tiles: Vec<Bytes>,
    /// The fullest tile, the first if there are several.
    pub max_tile: TileId,
    /// Bytes of all tiles, each at its fullest moment.
    pub total: Bytes,
    /// When the fullest tile is fullest: a step of the program, then the steps of the
    /// functions called there; empty if nothing but always-live memory is on it.
    pub fullest_at: Vec<StepName>,
    /// The largest variables on the fullest tile at that moment, largest first.
    pub largest: Vec<TileVariable>,
    /// Memory there that must be interleaved.
    pub interleaved: InterleavedMemory,
}

/// Memory of a program that must be interleaved, on the tiles of one IPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterleavedMemory {
    /// Bytes of every tile when most of it is needed, the loader included.
    pub tiles: Vec<Bytes>,
    /// When that is on the tile that needs most, as in [`IpuMemoryUsage::fullest_at`].
    pub fullest_at: Vec<StepName>,
    /// The largest such variables there and then, largest first.
    pub largest: Vec<TileVariable>,
}

impl IpuMemoryUsage {
    /// The tile that needs most of a region, the first if there are several, and the bytes.
    #[must_use]
    pub fn fullest(&self, region: Region) -> (TileId, Bytes) {
        match region {
            Region::Tile => (self.max_tile, self.max()),
            Region::Executable => fullest(&self.code()),
            Region::Interleaved => fullest(&self.interleaved.tiles),
        }
    }

    /// Bytes of code by tile.
    fn code(&self) -> Vec<Bytes> {
        self.sum_of(Category::is_code)
    }

    /// Bytes of variables that don't always live, by tile, at the fullest moment of each.
    #[must_use]
    pub fn not_always_live(&self) -> Vec<Bytes> {
        self.sum_of(|category| matches!(category, Category::NotAlwaysLive(_)))
    }

    /// Bytes by tile of the categories that `counts` picks.
    fn sum_of(&self, counts: impl Fn(Category) -> bool) -> Vec<Bytes> {
        let mut sums = vec![Bytes::ZERO; self.tiles.len()];
        let tables = self.categories.iter();
        for (_, table) in tables.filter(|(category, _)| counts(*category)) {
            for (sum, &bytes) in sums.iter_mut().zip(table) {
                *sum += bytes;
            }
        }
        sums
    }

    /// Bytes of the fullest tile.
    #[must_use]
    pub fn max(&self) -> Bytes {
        self.tiles[self.max_tile.0 as usize]
    }

    /// The code of one tile by category, largest first.
    fn code_on(&self, tile: TileId) -> Vec<(Category, Bytes)> {
        let code = Category::all().filter(|category| category.is_code());
        let mut code: Vec<_> = code
            .map(|category| (category, self.on(category, tile)))
            .collect();
        code.retain(|&(_, bytes)| bytes > Bytes::ZERO);
        code.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        code
    }

    /// Bytes of one category on one tile.
    #[must_use]
    pub fn on(&self, category: Category, tile: TileId) -> Bytes {
        let table = self.categories.iter().find(|(found, _)| *found == category);
        table.map_or(Bytes::ZERO, |(_, tiles)| tiles[tile.0 as usize])
    }

    /// Bytes of one category on all tiles.
    #[must_use]
    pub fn sum(&self, category: Category) -> Bytes {
        let table = self.categories.iter().find(|(found, _)| *found == category);
        table.map_or(Bytes::ZERO, |(_, tiles)| tiles.iter().copied().sum())
    }
}

/// The memory of a program: one replica, the others being alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Bytes that one tile has.
    pub available: Bytes,
    /// Bytes of a tile that code can run from.
    pub executable: Bytes,
    /// Bytes of a tile that are interleaved.
    pub interleaved: Bytes,
    /// Every IPU of a replica.
    pub ipus: IdVec<IpuId, IpuMemoryUsage>,
}

/// A program doesn't fit in tile memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "out of {region} on {ipu}, {tile}: expected at most {available}, got {needed} \
     ({} too many){}",
    *needed - *available,
    details(fullest_at, largest, code)
)]
pub struct OutOfMemory {
    /// Region that is too small.
    pub region: Region,
    /// The IPU of the replica.
    pub ipu: IpuId,
    /// Fullest tile of the IPU.
    pub tile: TileId,
    /// Bytes that the tile has of the region.
    pub available: Bytes,
    /// Bytes that the program takes there.
    pub needed: Bytes,
    /// When, as in [`IpuMemoryUsage::fullest_at`].
    pub fullest_at: Vec<StepName>,
    /// The largest variables there and then; none if code is what doesn't fit.
    pub largest: Vec<TileVariable>,
    /// The code there, if that is what doesn't fit, largest first.
    pub code: Vec<(Category, Bytes)>,
}

impl MemoryUsage {
    /// Whether the program fits: a tile as a whole, then each region.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] for the tile of all IPUs that is fullest where something is too full.
    pub fn verdict(&self) -> Result<(), OutOfMemory> {
        Region::ALL
            .into_iter()
            .try_for_each(|region| self.fits(region))
    }

    /// Bytes that every tile has of a region.
    #[must_use]
    pub fn size(&self, region: Region) -> Bytes {
        match region {
            Region::Tile => self.available,
            Region::Executable => self.executable,
            Region::Interleaved => self.interleaved,
        }
    }

    fn fits(&self, region: Region) -> Result<(), OutOfMemory> {
        let on_ipu = |weight: &IpuMemoryUsage| weight.fullest(region);
        let all = self.ipus.iter().rev();
        let worst = all.max_by_key(|(_, weight)| on_ipu(weight).1);
        let Some((ipu, weight)) = worst else {
            return Ok(());
        };
        let (tile, needed) = on_ipu(weight);
        if needed <= self.size(region) {
            return Ok(());
        }
        let (fullest_at, largest, code) = match region {
            Region::Tile => (&weight.fullest_at[..], &weight.largest[..], Vec::new()),
            Region::Executable => (&[][..], &[][..], weight.code_on(tile)),
            Region::Interleaved => {
                let interleaved = &weight.interleaved;
                (
                    &interleaved.fullest_at[..],
                    &interleaved.largest[..],
                    Vec::new(),
                )
            }
        };
        Err(OutOfMemory {
            region,
            ipu,
            tile,
            available: self.size(region),
            needed,
            fullest_at: fullest_at.to_vec(),
            largest: largest.to_vec(),
            code,
        })
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "{} in {function}", self.step),
            None => f.write_str(&self.step),
        }
    }
}

fn details(
    fullest_at: &[StepName],
    largest: &[TileVariable],
    code: &[(Category, Bytes)],
) -> String {
    let at = fullest_at
        .last()
        .map_or(String::new(), |step| format!(" at {step}"));
    let variables = largest
        .iter()
        .map(|var| format!("`{}` {}", var.name, var.bytes));
    let code = code
        .iter()
        .map(|(category, bytes)| format!("{} {bytes}", category.name()));
    let names: Vec<String> = variables.chain(code).collect();
    if names.is_empty() {
        at
    } else {
        format!("{at}; largest: {}", names.join(", "))
    }
}

/// Weighs `program` on `machine`.
///
/// # Errors
///
/// [`VerifyError::Replicas`] if the machine has too few IPUs or the program has no replicas,
/// [`VerifyError::BadProgram`] if it is nested too deep or a function calls itself. Too little memory is no error here, see
/// [`MemoryUsage::verdict`].
pub fn weigh(program: &Program, machine: &MachineSpec) -> Result<MemoryUsage, VerifyError> {
    check_depth(program)?;
    ReplicaPlacement::new(&Topology::new(machine), program.n_replicas, program.n_ipus)?;
    let n_tiles = machine.tile.tiles_per_ipu;
    let tiles = AllTiles::new(program, n_tiles);
    let sizes = Sizes::new(program, &tiles, n_tiles);
    let liveness = liveness::analyse(program);
    let peaks = peak::all_peaks(program, &liveness, &sizes, &|_| true);
    let must = regions::interleaved(program);
    let must_peaks = peak::all_peaks(program, &liveness, &sizes, &|var| must.contains(&var));

    let empty = || Category::all().map(|category| (category, vec![0; sizes.n_tiles()]));
    let mut tables: code::Tables = (0..program.n_ipus).map(|_| empty().collect()).collect();
    code::add(program, machine, &sizes, &mut tables);
    for &var in &liveness.always {
        let variable = &program.vars[var];
        let table = table(
            &mut tables[variable.ipu],
            Category::AlwaysLive(variable.kind),
        );
        sizes.add(program, var, table);
    }
    let kinds = kinds::kinds(program);
    for (ipu, peaks) in peaks.iter() {
        let parts = peaks.by_kind(program, (ipu, &kinds), &liveness, &sizes);
        for (kind, part) in parts {
            *table(&mut tables[ipu], Category::NotAlwaysLive(kind)) = part;
        }
    }
    let names = Names::of(program);
    let ipus = peaks.iter().map(|(ipu, peaks)| {
        let categories = std::mem::take(&mut tables[ipu]);
        let find = Find {
            program,
            kinds: &kinds,
            liveness: &liveness,
            sizes: &sizes,
            names: &names,
            ipu,
        };
        let loader = machine.memory.loader.0;
        let interleaved = find.interleaved(&must, &must_peaks[ipu], loader);
        find.weight(peaks, categories, interleaved)
    });
    Ok(MemoryUsage {
        available: machine.tile.memory,
        executable: Region::Executable.size(machine),
        interleaved: Region::Interleaved.size(machine),
        ipus: ipus.collect(),
    })
}

/// Variables that live at each step beside those that always live, on some IPUs and on a tile of
/// each.
///
/// # Panics
///
/// If the program has no such IPU or the machine no such tile, or if it is nested too deep
/// ([`Program::check_depth`]).
#[must_use]
pub fn live_curves(
    program: &Program,
    machine: &MachineSpec,
    tiles: &[(IpuId, TileId)],
) -> Vec<Vec<LivePoint>> {
    assert_eq!(program.check_depth(), Ok(()));
    let n_tiles = machine.tile.tiles_per_ipu;
    for (ipu, tile) in tiles {
        assert!(
            ipu.0 < program.n_ipus && tile.0 < n_tiles,
            "no {tile} on {ipu}"
        );
    }
    let sizes = Sizes::new(program, &AllTiles::new(program, n_tiles), n_tiles);
    let (liveness, kinds) = (liveness::analyse(program), kinds::kinds(program));
    threads::map(tiles, |&at| {
        curve::curve(program, &kinds, &liveness, &sizes, at)
    })
}

fn table(tables: &mut [(Category, Vec<u64>)], category: Category) -> &mut Vec<u64> {
    let found = tables.iter_mut().find(|(found, _)| *found == category);
    &mut found.expect("there is a table for every category").1
}

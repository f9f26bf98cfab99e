//! The fullest tile of an IPU, when it is fullest, and what is there then.

use std::collections::BTreeSet;

use super::kinds::LiveKind;
use super::liveness::{Liveness, RoutineStep};
use super::peak::Peaks;
use super::sizes::Sizes;
use super::{Category, InterleavedMemory, IpuMemoryUsage, LARGEST, StepName, TileVariable};
use crate::ids::{IdVec, IpuId, TileId};
use crate::program::{FunctionId, Program, VarId};
use crate::text::Names;
use crate::units::Bytes;

/// Looks for what is fullest on one IPU.
pub(super) struct Find<'a> {
    pub(super) program: &'a Program,
    pub(super) kinds: &'a IdVec<VarId, LiveKind>,
    pub(super) liveness: &'a Liveness,
    pub(super) sizes: &'a Sizes,
    pub(super) names: &'a Names,
    pub(super) ipu: IpuId,
}

impl Find<'_> {
    /// The memory of the IPU, whose categories are weighed.
    pub(super) fn weight(
        &self,
        peaks: &Peaks,
        categories: Vec<(Category, Vec<u64>)>,
        interleaved: InterleavedMemory,
    ) -> IpuMemoryUsage {
        let mut tiles = vec![0; self.sizes.n_tiles()];
        for (_, table) in &categories {
            add(&mut tiles, table);
        }
        let tiles = typed(tiles);
        let (max_tile, _) = fullest(&tiles);
        let (fullest_at, largest) = self.moment(peaks, max_tile, &|_| true);
        IpuMemoryUsage {
            total: tiles.iter().copied().sum(),
            max_tile,
            tiles,
            categories: categories
                .into_iter()
                .map(|(category, table)| (category, typed(table)))
                .collect(),
            fullest_at,
            largest,
            interleaved,
        }
    }

    /// What of `must` lives at once, and the loader.
    pub(super) fn interleaved(
        &self,
        must: &BTreeSet<VarId>,
        peaks: &Peaks,
        loader: u64,
    ) -> InterleavedMemory {
        let mut tiles = vec![loader; self.sizes.n_tiles()];
        let lasting = self.liveness.always.intersection(must);
        for &var in lasting.filter(|var| self.program.vars[**var].ipu == self.ipu) {
            self.sizes.add(self.program, var, &mut tiles);
        }
        if let Some(peak) = &peaks.main {
            add(&mut tiles, &peak.bytes);
        }
        let tiles = typed(tiles);
        let (tile, _) = fullest(&tiles);
        let (fullest_at, largest) = self.moment(peaks, tile, &|var| must.contains(&var));
        InterleavedMemory {
            tiles,
            fullest_at,
            largest,
        }
    }

    fn category(&self, var: VarId, always_live: bool) -> Category {
        if always_live {
            Category::AlwaysLive(self.program.vars[var].kind)
        } else {
            Category::NotAlwaysLive(self.kinds[var])
        }
    }

    /// When `tile` is fullest, and the largest variables there and then that `counts` picks.
    fn moment(
        &self,
        peaks: &Peaks,
        tile: TileId,
        counts: &dyn Fn(VarId) -> bool,
    ) -> (Vec<StepName>, Vec<TileVariable>) {
        let (program, tile) = (self.program, tile.0 as usize);
        let moment = peaks.moment(self.liveness, tile);
        let on_this_ipu = |var: &VarId| program.vars[*var].ipu == self.ipu && counts(*var);
        let lasting = self.liveness.always.iter().copied().filter(on_this_ipu);
        let passing = moment.live.iter().map(|live| live.var).filter(on_this_ipu);
        let mut largest: Vec<TileVariable> = lasting
            .map(|var| (var, true))
            .chain(passing.map(|var| (var, false)))
            .map(|(var, always_live)| TileVariable {
                var,
                category: self.category(var, always_live).name(),
                name: self.names.vars[var].clone(),
                bytes: Bytes(self.sizes.on_tile(program, var, tile)),
                always_live,
            })
            .filter(|var| var.bytes > Bytes::ZERO)
            .collect();
        largest.sort_by_key(|var| (std::cmp::Reverse(var.bytes), var.var));
        largest.truncate(LARGEST);
        let path = moment.path.iter();
        let names = path.map(|&(function, step)| step_name(program, function, step));
        (names.collect(), largest)
    }
}

fn add(sums: &mut [u64], table: &[u64]) {
    for (sum, bytes) in sums.iter_mut().zip(table) {
        *sum += bytes;
    }
}

fn typed(table: Vec<u64>) -> Vec<Bytes> {
    table.into_iter().map(Bytes).collect()
}

/// The first of the tiles with the most bytes.
pub(super) fn fullest(tiles: &[Bytes]) -> (TileId, Bytes) {
    let tiles = tiles.iter().enumerate().rev();
    let (tile, &bytes) = tiles
        .max_by_key(|&(_, bytes)| bytes)
        .expect("an IPU has tiles");
    (TileId(tile as u32), bytes)
}

pub(super) fn step_name(
    program: &Program,
    function: Option<FunctionId>,
    step: RoutineStep,
) -> StepName {
    let function = function.map(|id| program.functions[id].name.clone());
    let step = match step {
        RoutineStep::Step(source) => program.source(source).name.clone(),
        RoutineStep::Call(id) => format!("call of {}", program.functions[id].name),
    };
    StepName { function, step }
}

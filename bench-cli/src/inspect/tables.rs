//! The memory report as CSV: tiles in the file that was asked for, memory over time and the
//! largest variables in two files beside it.

use std::path::{Path, PathBuf};

use ipu_sim::ids::{IpuId, TileId};
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::Bytes;
use ipu_sim::weigh::{self, Category, LiveKind, MemoryUsage};

/// The files of a report in `path`: `memory.csv`, `memory.curve.csv` and `memory.largest.csv`.
pub(super) fn files(path: &Path) -> [PathBuf; 3] {
    [
        path.into(),
        path.with_extension("curve.csv"),
        path.with_extension("largest.csv"),
    ]
}

/// What belongs into [`files`].
pub(super) fn texts(program: &Program, machine: &MachineSpec, weight: &MemoryUsage) -> [String; 3] {
    [
        tiles(weight),
        curve(program, machine, weight),
        largest(weight),
    ]
}

/// One row a tile: IPU, tile, bytes at its fullest moment, bytes by category.
fn tiles(weight: &MemoryUsage) -> String {
    let names = Category::all().map(Category::name);
    let header = ["ipu", "tile", "bytes", "always_live"].map(String::from);
    let header = header.into_iter().chain(names).collect();
    let rows = weight.ipus.iter().flat_map(|(IpuId(ipu), found)| {
        let (always_live, _) = super::split(found);
        let row = move |(tile, lasting): (usize, u64)| {
            let of = |(_, tiles): &(_, Vec<Bytes>)| tiles[tile].0.to_string();
            let front = [ipu.into(), tile as u64, found.tiles[tile].0, lasting];
            let front = front.map(|number| number.to_string()).into_iter();
            front.chain(found.categories.iter().map(of)).collect()
        };
        always_live.into_iter().enumerate().map(row)
    });
    text(header, rows)
}

/// One row a step of an IPU, in order: what doesn't always live, on the IPU and its fullest tile,
/// then the same by kind.
fn curve(program: &Program, machine: &MachineSpec, weight: &MemoryUsage) -> String {
    let header = [
        "ipu",
        "max_tile",
        "point",
        "step",
        "function",
        "ipu_bytes",
        "max_tile_bytes",
    ];
    let kinds = ["ipu", "max_tile"].into_iter().flat_map(|of| {
        let named = move |kind: LiveKind| format!("{of}.{}", kind.name());
        LiveKind::ALL.into_iter().map(named)
    });
    let header = header.into_iter().map(String::from).chain(kinds).collect();
    let curves = super::curves(program, machine, weight);
    let rows = weight
        .ipus
        .iter()
        .zip(curves)
        .flat_map(|((ipu, found), points)| {
            let TileId(tile) = found.max_tile;
            let row = move |(number, point): (usize, weigh::LivePoint)| {
                let (on_ipu, on_tile) = (point.on_ipu, point.on_tile);
                let kinds = [on_ipu, on_tile].into_iter().flat_map(|bytes| {
                    let kinds = LiveKind::ALL.into_iter();
                    kinds.map(move |kind| bytes.on(kind).0.to_string())
                });
                let front = [
                    ipu.0.to_string(),
                    tile.to_string(),
                    number.to_string(),
                    point.step.step,
                    point.step.function.unwrap_or_default(),
                    on_ipu.total().0.to_string(),
                    on_tile.total().0.to_string(),
                ];
                front.into_iter().chain(kinds).collect()
            };
            points.into_iter().enumerate().map(row)
        });
    text(header, rows)
}

/// One row for each of the largest variables of every IPU's fullest tile when it is fullest.
fn largest(weight: &MemoryUsage) -> String {
    let header = [
        "ipu",
        "max_tile",
        "variable",
        "category",
        "bytes",
        "always_live",
    ];
    let rows = weight.ipus.iter().flat_map(|(ipu, found)| {
        found.largest.iter().map(move |variable| {
            vec![
                ipu.0.to_string(),
                found.max_tile.0.to_string(),
                variable.name.clone(),
                variable.category.clone(),
                variable.bytes.0.to_string(),
                variable.always_live.to_string(),
            ]
        })
    });
    text(header.map(String::from).into(), rows)
}

fn text(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in std::iter::once(header).chain(rows) {
        writer
            .write_record(row)
            .expect("every row has as many cells as the header");
    }
    let bytes = writer.into_inner().expect("writing to memory cannot fail");
    String::from_utf8(bytes).expect("all cells are UTF-8")
}

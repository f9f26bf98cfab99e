//! What moves between the tiles of one IPU when a tensor changes its layout.
//!
//! Data that stays on its tile is not exchanged. One description reaches only so many words; a
//! longer transfer takes several, each with code and control instructions of its own.
//!
//! [`mod@pieces`] says which elements go from which tile to which, [`route`] how long a word
//! travels, and [`time`] how long all of it takes.

pub mod pieces;
pub mod route;
pub mod time;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::ids::TileId;
use crate::layout::Layout;
use crate::spec::ExchangeSpec;
use crate::units::Bytes;
use pieces::{Side, pieces, product};
use route::Routes;
use time::Traffic;

/// Latencies and limits between the tiles of an IPU, as far as a copy depends on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fabric {
    /// Tiles.
    pub n_tiles: u32,
    /// Latencies between them.
    pub routes: Routes,
    /// The most that one description moves.
    pub description_max: Bytes,
}

impl Fabric {
    /// Between the first `n_tiles` tiles of an IPU.
    #[must_use]
    pub fn new(spec: &ExchangeSpec, n_tiles: u32) -> Self {
        Self {
            n_tiles,
            routes: Routes::new(spec, n_tiles),
            description_max: WORD * u64::from(spec.words_per_transfer_max),
        }
    }

    /// Descriptions that a message of so many bytes takes.
    fn descriptions(&self, bytes: u32) -> u32 {
        let number = u64::from(bytes).div_ceil(self.description_max.0);
        u32::try_from(number).expect("no more than bytes")
    }
}

/// What descriptions count in.
const WORD: Bytes = Bytes(4);

/// Traffic of copying `src` to every copy of `dst`, with `element` bytes each, between the tiles
/// of `fabric`.
///
/// # Panics
///
/// If the views don't fit together ([`crate::verify`]).
#[must_use]
pub fn traffic(src: Side<'_>, dst: Side<'_>, element: Bytes, fabric: &Fabric) -> Traffic {
    let groups = pieces(src, dst);
    let mut out = Traffic::none(fabric.n_tiles);
    let mut sent = BTreeMap::new();
    let mut walk = |src_tile: u32, dst_tile: u32, elements: u64, runs: u32| {
        let bytes = (elements * element.0) as u32;
        let turns = fabric.descriptions(bytes);
        let messages = runs * fabric.descriptions(bytes.div_ceil(runs));
        let mut leaves = None;
        let mut to_pairs = true;
        for copy in dst.layout.copies_of(TileId(dst_tile)) {
            if src.layout.has_copy(TileId(src_tile), copy) {
                continue;
            }
            let route = fabric.routes.between(src_tile, copy.0);
            leaves = leaves.max(Some(route));
            let tile = &mut out.tiles[copy.0 as usize];
            tile.received += bytes;
            tile.messages += messages;
            tile.turns += turns;
            tile.route = tile.route.max(route);
            if paired(dst.layout, dst_tile, copy.0) {
                tile.received_paired += bytes;
            } else {
                to_pairs = false;
            }
        }
        if let Some(route) = leaves {
            let sender: &mut Sender = sent.entry(src_tile).or_default();
            sender.bytes += bytes;
            sender.paired += if to_pairs { bytes } else { 0 };
            sender.route = sender.route.max(route);
        }
    };
    product(
        &groups,
        src.layout.first_tile,
        dst.layout.first_tile,
        &mut walk,
    );
    for (tile, sender) in sent {
        let tile = &mut out.tiles[tile as usize];
        tile.sent += sender.bytes;
        tile.sent_paired += sender.paired;
        tile.route = tile.route.max(sender.route);
    }
    out
}

/// What a tile sends in one copy.
#[derive(Default)]
struct Sender {
    bytes: u32,
    paired: u32,
    route: u32,
}

/// Whether the pair partner of `tile` receives the same copy.
fn paired(layout: &Layout, first: u32, tile: u32) -> bool {
    layout.has_copy(TileId(first), TileId(tile ^ 1))
}

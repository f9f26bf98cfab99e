//! How long does a word travel from one tile to another?
//!
//! Tiles lie in columns and rows of blocks. Logical tiles `2q` and `2q + 1` form a pair on lanes
//! `l` and `l + 2` of a block; the pairs walk up a column on the even lanes, down the same column
//! on the odd ones, and then up the next. Words leave their tile for the spine beside the column,
//! cross to the column of the receiver, and come in from one of two sides.
//!
//! The latency counts from the send until the first word is stored, each tile counting from its
//! own release by the sync. The release runs up the rows at about the speed of words, so that the
//! row of the receiver drops out.
//!
//! Source: arithmetic equal to the schedules of osmarks/ipu-stack (`exchange.rs`), which work on
//! IPU21 silicon, for all 1472 x 1471 pairs of tiles; that other chips of 16 columns differ only
//! in their rows is assumed.

use crate::ids::TileId;
use crate::spec::ExchangeSpec;
use crate::units::Cycles;

/// Latencies between the tiles of one IPU.
///
/// A latency is the sum of a part of the sender's row and a part that depends on columns and
/// lanes only, which is tabulated: the table has a few thousand entries, not one for each pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    tiles: Vec<TilePosition>,
    per_row: u32,
    /// By class of the sender and class of the receiver.
    table: Vec<u32>,
    n_receivers: usize,
}

/// Where a tile lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TilePosition {
    row: u32,
    column: u32,
    /// On the way down its column.
    returns: bool,
    /// The second tile of its pair.
    second: bool,
}

impl TilePosition {
    fn of(tile: u32, spec: &ExchangeSpec) -> Self {
        let pair = tile / 2;
        let walk = pair / spec.rows;
        let along = pair % spec.rows;
        let ways = spec.tiles_per_block.div_ceil(2);
        let returns = walk % ways % 2 == 1;
        Self {
            row: if returns {
                spec.rows - 1 - along
            } else {
                along
            },
            column: walk / ways,
            returns,
            second: tile % 2 == 1,
        }
    }

    fn sender_class(self) -> usize {
        2 * self.column as usize + usize::from(self.returns)
    }

    fn receiver_class(self) -> usize {
        4 * self.column as usize + 2 * usize::from(self.second) + usize::from(self.returns)
    }
}

impl Routes {
    /// The latencies between the first `n_tiles` tiles of an IPU.
    #[must_use]
    pub fn new(spec: &ExchangeSpec, n_tiles: u32) -> Self {
        let classes = |n: u32| {
            (0..spec.columns).flat_map(move |column| (0..n).map(move |lane| (column, lane)))
        };
        let n_receivers = 4 * spec.columns as usize;
        let mut table = Vec::with_capacity(n_receivers * n_receivers / 2);
        for (column, lane) in classes(2) {
            let from = TilePosition {
                row: 0,
                column,
                returns: lane == 1,
                second: false,
            };
            for (column, lane) in classes(4) {
                let to = TilePosition {
                    row: 0,
                    column,
                    returns: lane % 2 == 1,
                    second: lane >= 2,
                };
                table.push(crossing(from, to, spec));
            }
        }
        Self {
            tiles: (0..n_tiles)
                .map(|tile| TilePosition::of(tile, spec))
                .collect(),
            per_row: u32::try_from(spec.route_per_row.0).expect("a few cycles"),
            table,
            n_receivers,
        }
    }

    /// Cycles from the send of a word until it is stored.
    ///
    /// # Panics
    ///
    /// If the IPU has no such tile.
    #[must_use]
    pub fn latency(&self, from: TileId, to: TileId) -> Cycles {
        Cycles(u64::from(self.between(from.0, to.0)))
    }

    pub(super) fn between(&self, from: u32, to: u32) -> u32 {
        let (from, to) = (self.tiles[from as usize], self.tiles[to as usize]);
        let entry = from.sender_class() * self.n_receivers + to.receiver_class();
        self.per_row * from.row + self.table[entry]
    }
}

/// All but the row: out of one column and into another.
///
/// The numbers that aren't fields of the description are offsets of the fabric's ports.
fn crossing(from: TilePosition, to: TilePosition, spec: &ExchangeSpec) -> u32 {
    let half = i64::from(spec.columns.div_ceil(2));
    let columns = i64::from(spec.columns);
    // The columns of the second half come back beside those of the first.
    let folded = |column: i64| {
        if column < half {
            column
        } else {
            columns - 1 - column
        }
    };
    let (c_s, c_d) = (i64::from(from.column), i64::from(to.column));
    let (h_s, h_d) = (c_s / half, c_d / half);
    let (f_s, f_d) = (folded(c_s), folded(c_d));
    let near_side = h_d == i64::from(to.returns);
    let port = match (to.second, near_side) {
        (true, true) => 2,
        (true, false) => 4,
        (false, true) => 1,
        (false, false) => 5,
    };
    let shift = 6 * (f_d - f_s - (h_s ^ i64::from(from.returns))) + port;
    let turn = if h_s == h_d {
        c_s % half + 1
    } else {
        columns - c_s % half
    };
    let base = i64::try_from(spec.route_base.0).expect("a few cycles");
    let per_column = i64::try_from(spec.route_per_column.0).expect("a few cycles");
    let sum = base + 8 * h_s - c_d + per_column * (f_s - f_d) + turn + shift.abs();
    // On a grid of other proportions the ports may lie behind each other.
    u32::try_from(sum.max(0)).expect("some hundred cycles")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::machine;

    /// All latencies between different tiles, in order.
    fn all(routes: &Routes, n_tiles: u32) -> Vec<u64> {
        let pairs = (0..n_tiles).flat_map(|from| (0..n_tiles).map(move |to| (from, to)));
        let mut latencies: Vec<u64> = pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| routes.latency(TileId(from), TileId(to)).0)
            .collect();
        latencies.sort_unstable();
        latencies
    }

    #[test]
    fn latencies_are_spread_as_on_silicon() {
        let spec = machine("mk2-pod16");
        let routes = Routes::new(&spec.exchange, 1472);
        let latencies = all(&routes, 1472);
        let at = |part: f64| latencies[(latencies.len() as f64 * part) as usize];
        let mean = latencies.iter().sum::<u64>() as f64 / latencies.len() as f64;
        assert_eq!((at(0.0), at(0.05), at(0.5), at(0.95)), (19, 32, 63, 109));
        assert_eq!(latencies.last(), Some(&165));
        assert!((mean - 65.1).abs() < 0.05, "{mean}");
        let partners = (0..1472).map(|tile| routes.between(tile, tile ^ 1));
        let partners: Vec<u32> = partners.collect();
        assert_eq!(partners.iter().min(), Some(&24));
        assert_eq!(partners.iter().max(), Some(&69));
    }

    #[test]
    fn latencies_by_hand() {
        let routes = Routes::new(&machine("mk2-pod16").exchange, 1472);
        for (from, to, expected) in [
            // Row 0, column 0, both on the near side: 22 + 1 + |0 + 2|.
            (0, 1, 25),
            // The farther side of the same block: 22 + 1 + |0 + 1|; row 22 adds 44.
            (1, 0, 24),
            (44, 0, 68),
            // Tile 46 is the first on the way down column 0: row 22; back to its own side.
            (46, 0, 22 + 44 + 1 + 5),
            // Column 15 lies behind column 0: 22 - 15 + 0 + 16 + |4|.
            (0, 2 * 23 * 30 + 1, 22 - 15 + 16 + 4),
        ] {
            let found = routes.latency(TileId(from), TileId(to));
            assert_eq!(found, Cycles(expected), "{from} to {to}");
        }
    }

    #[test]
    fn other_grids_have_latencies_too() {
        let mut spec = machine("mk1-server16").exchange;
        assert_eq!(all(&Routes::new(&spec, 1216), 1216).first(), Some(&19));
        spec.columns = 3;
        spec.rows = 5;
        spec.tiles_per_block = 6;
        assert_eq!(all(&Routes::new(&spec, 90), 90).len(), 90 * 89);
    }
}

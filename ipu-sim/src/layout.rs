//! Where the elements of a tensor lie on the tiles of one IPU.
//!
//! A [`Layout`] cuts every axis of a tensor into ranges and gives each range an
//! offset in tiles; the tile that holds an element is the first tile plus the
//! offsets of the ranges its index falls into. So a tile holds a box: the product
//! of one place on every axis. Whole layouts may be repeated on further tiles
//! ([`Layout::copies`]), which is how operands that several tiles need are described.
//!
//! ```text
//! axis 0 (rows):    |--range 0---|--range 1---|      tile offsets 0, 4
//! axis 1 (columns): |--0--|--1--|--2--|--3--|        tile offsets 0, 1, 2, 3
//! element (r, c) lies on tile first + rows(r) + columns(c)
//! ```
//!
//! Nothing here grows with the number of tiles: an axis is a list of ranges.
//! Inside a tile, [`Layout::order`] says in which order the box is stored, with
//! blocks where a vertex wants them (16 channels side by side, say).

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ids::TileId;

/// A run of consecutive indices of an axis that lies in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IndexRange {
    /// First index of the run.
    pub begin: u32,
    /// Number of indices.
    pub len: u32,
    /// The place that holds it: an index into [`AxisSplit::places`].
    pub place: u32,
    /// Position of the run's first index within that place.
    pub local: u32,
}

impl IndexRange {
    /// One past the last index of the run.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.begin + self.len
    }
}

/// One of the places that hold indices of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Offset of the tile number that the place adds.
    pub tile: u32,
    /// How many indices it holds.
    pub extent: u32,
}

/// How one axis of a tensor is spread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AxisSplit {
    /// Runs of indices, in order, without gaps.
    pub ranges: Vec<IndexRange>,
    /// The places that hold them.
    pub places: Vec<Place>,
}

/// An even cut of an axis: `parts` pieces of whole `grain`s, `tile_stride` tiles apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Number of pieces, at least 1.
    pub parts: u32,
    /// Pieces begin at multiples of this many indices, at least 1.
    pub grain: u32,
    /// Distance in tiles between neighbouring pieces.
    pub tile_stride: u32,
}

impl Cut {
    /// Pieces that begin at any index, on neighbouring tiles.
    #[must_use]
    pub const fn even(parts: u32) -> Self {
        Self {
            parts,
            grain: 1,
            tile_stride: 1,
        }
    }
}

impl AxisSplit {
    /// The whole axis in one place.
    #[must_use]
    pub fn whole(extent: u32) -> Self {
        Self::cut(extent, &[])
    }

    /// Cuts an axis evenly, then every piece again, and so on: outermost cut first.
    ///
    /// Where grains don't divide evenly, the last pieces get one more, as the
    /// convolution planner of PopLibs places them. Pieces without indices are left out.
    ///
    /// # Panics
    ///
    /// If a cut has no parts, or grains of no indices.
    ///
    /// ```
    /// use ipu_sim::layout::{AxisSplit, Cut};
    /// let rows = AxisSplit::cut(10, &[Cut { tile_stride: 8, ..Cut::even(4) }]);
    /// let sizes: Vec<u32> = rows.places.iter().map(|place| place.extent).collect();
    /// assert_eq!(sizes, [2, 2, 3, 3]);
    /// ```
    #[must_use]
    pub fn cut(extent: u32, cuts: &[Cut]) -> Self {
        let mut pieces = vec![(0, extent, 0)];
        for cut in cuts {
            pieces = pieces
                .into_iter()
                .flat_map(|(begin, len, tile)| {
                    even_pieces(len, *cut).map(move |(offset, piece, index)| {
                        (begin + offset, piece, tile + index * cut.tile_stride)
                    })
                })
                .collect();
        }
        Self::from_runs(pieces)
    }

    /// An axis from its runs `(begin, length, tile offset)`, in order and without gaps.
    ///
    /// Runs with the same tile offset share a place.
    #[must_use]
    pub fn from_runs(runs: impl IntoIterator<Item = (u32, u32, u32)>) -> Self {
        let mut split = Self {
            ranges: Vec::new(),
            places: Vec::new(),
        };
        let mut next = 0;
        let mut place_of_tile = std::collections::BTreeMap::new();
        for (begin, len, tile) in runs {
            assert_eq!(
                begin, next,
                "runs of an axis follow each other without gaps"
            );
            next = begin + len;
            if len == 0 {
                continue;
            }
            let place = *place_of_tile.entry(tile).or_insert_with(|| {
                split.places.push(Place { tile, extent: 0 });
                split.places.len() - 1
            });
            split.ranges.push(IndexRange {
                begin,
                len,
                place: place as u32,
                local: split.places[place].extent,
            });
            split.places[place].extent += len;
        }
        split
    }

    /// One index of the axis in every place of `other`: the axis of partial results.
    #[must_use]
    pub fn one_each(other: &AxisSplit) -> Self {
        Self::from_runs(
            other
                .places
                .iter()
                .enumerate()
                .map(|(index, place)| (index as u32, 1, place.tile)),
        )
    }

    /// Cuts what every place holds into pieces of whole `grain`s, one for each tile offset.
    #[must_use]
    pub fn subdivide(&self, offsets: &[u32], grain: u32) -> Self {
        let parts = offsets.len() as u32;
        let mut runs: Vec<(u32, u32, u32)> = Vec::new();
        for range in &self.ranges {
            let cut = Cut {
                parts,
                grain,
                tile_stride: 1,
            };
            let tile = self.places[range.place as usize].tile;
            runs.extend(even_pieces(range.len, cut).map(|(begin, len, piece)| {
                (range.begin + begin, len, tile + offsets[piece as usize])
            }));
        }
        Self::from_runs(runs)
    }

    /// The `len` indices from `begin` on, each where it lies now.
    #[must_use]
    pub fn window(&self, begin: u32, len: u32) -> Self {
        let runs = self.ranges.iter().filter_map(|range| {
            let from = range.begin.max(begin);
            let to = range.end().min(begin + len);
            let tile = self.places[range.place as usize].tile;
            (from < to).then(|| (from - begin, to - from, tile))
        });
        Self::from_runs(runs)
    }

    /// Tile offsets of the places.
    #[must_use]
    pub fn tiles(&self) -> Vec<u32> {
        self.places.iter().map(|place| place.tile).collect()
    }

    /// Number of indices.
    #[must_use]
    pub fn extent(&self) -> u32 {
        self.ranges.last().map_or(0, IndexRange::end)
    }

    /// The range that holds `index`.
    #[must_use]
    pub fn range_of(&self, index: u32) -> &IndexRange {
        let position = self.ranges.partition_point(|range| range.end() <= index);
        &self.ranges[position]
    }

    /// The largest number of indices in one place.
    #[must_use]
    pub fn extent_max(&self) -> u32 {
        self.places
            .iter()
            .map(|place| place.extent)
            .max()
            .unwrap_or(0)
    }

    /// All indices that `place` holds, in local order.
    pub fn indices_of(&self, place: u32) -> impl Iterator<Item = u32> + '_ {
        self.ranges
            .iter()
            .filter(move |range| range.place == place)
            .flat_map(|range| range.begin..range.end())
    }

    /// The largest tile offset.
    #[must_use]
    pub fn tile_max(&self) -> u32 {
        self.places
            .iter()
            .map(|place| place.tile)
            .max()
            .unwrap_or(0)
    }
}

fn even_pieces(extent: u32, cut: Cut) -> impl Iterator<Item = (u32, u32, u32)> {
    assert!(
        cut.parts > 0 && cut.grain > 0,
        "expected a cut into at least one part of whole grains of at least one index, got {cut:?}"
    );
    let grains = extent.div_ceil(cut.grain);
    let begin = move |piece: u32| {
        let short = cut.parts - grains % cut.parts;
        let grain = piece * (grains / cut.parts) + piece.saturating_sub(short);
        (grain * cut.grain).min(extent)
    };
    (0..cut.parts).map(move |piece| (begin(piece), begin(piece + 1) - begin(piece), piece))
}

/// One loop of the storage order: steps of `block` indices along `axis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StorageLoop {
    /// The axis it runs along.
    pub axis: u8,
    /// Indices that lie inside one step.
    pub block: u32,
}

/// Places on every axis: which box of a layout.
pub type BoxIndex = SmallVec<[u32; 4]>;

/// Local extents of a box, one per axis.
pub type Extents = SmallVec<[u32; 4]>;

/// Where the elements of a tensor lie on the tiles of one IPU.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Layout {
    /// Added to every tile offset.
    pub first_tile: u32,
    /// One per axis of the tensor.
    pub axes: Vec<AxisSplit>,
    /// Tile offsets of equal copies of the whole tensor, ascending from 0.
    pub copies: Vec<u32>,
    /// Storage order inside a tile, outermost loop first; every axis ends with a loop of block 1.
    pub order: Vec<StorageLoop>,
}

impl Layout {
    /// A layout stored row by row (last axis innermost), in one copy from tile 0.
    #[must_use]
    pub fn row_major(axes: Vec<AxisSplit>) -> Self {
        let order = (0..axes.len())
            .map(|axis| StorageLoop {
                axis: axis as u8,
                block: 1,
            })
            .collect();
        Self {
            first_tile: 0,
            axes,
            copies: vec![0],
            order,
        }
    }

    /// A scalar or small tensor of `shape`, whole on each of `count` neighbouring tiles.
    #[must_use]
    pub fn on_every_tile(shape: &[u32], count: u32) -> Self {
        Self {
            copies: (0..count).collect(),
            ..Self::row_major(
                shape
                    .iter()
                    .map(|&extent| AxisSplit::whole(extent))
                    .collect(),
            )
        }
    }

    /// Layout with copies of this one at these tile offsets, ascending from 0.
    #[must_use]
    pub fn with_copies(self, copies: Vec<u32>) -> Self {
        assert_eq!(
            copies.first(),
            Some(&0),
            "the first copy is the layout itself"
        );
        Self { copies, ..self }
    }

    /// Layout like this one, but stored in `order`, given as (axis, block), outermost first.
    #[must_use]
    pub fn with_order(self, order: &[(u8, u32)]) -> Self {
        let order = order
            .iter()
            .map(|&(axis, block)| StorageLoop { axis, block })
            .collect();
        Self { order, ..self }
    }

    /// The tensor's shape.
    #[must_use]
    pub fn shape(&self) -> Vec<u32> {
        self.axes.iter().map(AxisSplit::extent).collect()
    }

    /// Number of boxes: tiles of one copy.
    #[must_use]
    pub fn n_boxes(&self) -> usize {
        let places = self.axes.iter().map(|axis| axis.places.len());
        places.fold(1, usize::saturating_mul)
    }

    /// One past the highest tile used, or the last number if it is beyond.
    #[must_use]
    pub fn tile_end(&self) -> u32 {
        let copies = self.copies.last().copied().unwrap_or(0);
        let offsets = self.axes.iter().map(AxisSplit::tile_max).chain([copies, 1]);
        offsets.fold(self.first_tile, u32::saturating_add)
    }

    /// All boxes with the tile of their first copy, last axis fastest.
    pub fn boxes(&self) -> impl Iterator<Item = (TileId, BoxIndex)> + '_ {
        let n = if self.axes.iter().any(|axis| axis.places.is_empty()) {
            0
        } else {
            self.n_boxes()
        };
        (0..n).map(move |mut number| {
            let mut index: BoxIndex = SmallVec::from_elem(0, self.axes.len());
            let mut tile = self.first_tile;
            for (axis, split) in self.axes.iter().enumerate().rev() {
                let place = number % split.places.len();
                number /= split.places.len();
                index[axis] = place as u32;
                tile += split.places[place].tile;
            }
            (TileId(tile), index)
        })
    }

    /// The tiles that hold copies of the box whose first copy is on `tile`.
    pub fn copies_of(&self, tile: TileId) -> impl Iterator<Item = TileId> + '_ {
        self.copies
            .iter()
            .map(move |offset| TileId(tile.0 + offset))
    }

    /// Whether a copy of the box whose first copy is on `first` lies on `tile`.
    #[must_use]
    pub fn has_copy(&self, first: TileId, tile: TileId) -> bool {
        tile >= first && self.copies.binary_search(&(tile.0 - first.0)).is_ok()
    }

    /// Layout of what a tile needs of a tensor that has only the axes `keep` of this one, in that
    /// order.
    ///
    /// Every tile that holds a box here holds the matching box there: the places of
    /// the other axes become copies. Stored row by row.
    ///
    /// ```
    /// use ipu_sim::layout::{AxisSplit, Cut, Layout};
    /// let cut = |extent, parts, tile_stride| {
    ///     AxisSplit::cut(extent, &[Cut { tile_stride, ..Cut::even(parts) }])
    /// };
    /// let matrix = Layout::row_major(vec![cut(8, 2, 4), cut(12, 4, 1)]);
    /// let bias = matrix.project(&[1]);
    /// assert_eq!(bias.shape(), [12]);
    /// assert_eq!(bias.copies, [0, 4]);
    /// ```
    #[must_use]
    pub fn project(&self, keep: &[usize]) -> Self {
        let mut offsets = std::collections::BTreeSet::from([0]);
        let dropped = (0..self.axes.len()).filter(|axis| !keep.contains(axis));
        let spreads = dropped
            .map(|axis| {
                self.axes[axis]
                    .places
                    .iter()
                    .map(|place| place.tile)
                    .collect()
            })
            .chain([self.copies.clone()]);
        for spread in spreads {
            let spread: Vec<u32> = spread;
            offsets = offsets
                .iter()
                .flat_map(|base| spread.iter().map(move |offset| base + offset))
                .collect();
        }
        let least = offsets.first().copied().unwrap_or(0);
        Self {
            first_tile: self.first_tile + least,
            copies: offsets.iter().map(|offset| offset - least).collect(),
            ..Self::row_major(keep.iter().map(|&axis| self.axes[axis].clone()).collect())
        }
    }

    /// Local extents of a box.
    #[must_use]
    pub fn extents(&self, index: &[u32]) -> Extents {
        self.axes
            .iter()
            .zip(index)
            .map(|(axis, &place)| axis.places[place as usize].extent)
            .collect()
    }

    /// Elements that a box of `extents` takes in memory, padding of blocks included.
    #[must_use]
    pub fn stored_elements(&self, extents: &[u32]) -> u64 {
        extents
            .iter()
            .enumerate()
            .map(|(axis, &extent)| u64::from(self.padded(axis, extent)))
            .product()
    }

    /// Position of the element with `local` indices in a box of `extents`.
    #[must_use]
    pub fn offset(&self, extents: &[u32], local: &[u32]) -> usize {
        let mut enclosing: Extents = SmallVec::from_elem(0, extents.len());
        for (axis, &extent) in extents.iter().enumerate() {
            enclosing[axis] = self.padded(axis, extent);
        }
        let mut offset = 0usize;
        for step in &self.order {
            let axis = usize::from(step.axis);
            let radix = enclosing[axis] / step.block;
            let digit = local[axis] % enclosing[axis] / step.block;
            offset = offset * radix as usize + digit as usize;
            enclosing[axis] = step.block;
        }
        offset
    }

    /// Elements next to each other in memory that are next to each other along one axis.
    #[must_use]
    pub fn innermost(&self) -> Option<StorageLoop> {
        self.order.last().copied()
    }

    fn padded(&self, axis: usize, extent: u32) -> u32 {
        let outermost = self
            .order
            .iter()
            .find(|step| usize::from(step.axis) == axis)
            .expect("every axis has a storage loop");
        extent.next_multiple_of(outermost.block)
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Axes for the tests of this crate.

    use super::*;

    /// An axis in `parts` even pieces, `tile_stride` tiles apart.
    pub(crate) fn cut(extent: u32, parts: u32, tile_stride: u32) -> AxisSplit {
        let even = Cut::even(parts);
        AxisSplit::cut(
            extent,
            &[Cut {
                tile_stride,
                ..even
            }],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::cut;
    use super::*;

    #[test]
    fn uneven_cuts_put_the_larger_pieces_last() {
        let axis = AxisSplit::cut(
            4096,
            &[Cut {
                tile_stride: 64,
                ..Cut::even(23)
            }],
        );
        assert_eq!(axis.places.len(), 23);
        assert_eq!(axis.extent(), 4096);
        assert_eq!(axis.places[0].extent, 178);
        assert_eq!(axis.places[22].extent, 179);
        assert_eq!(axis.range_of(4095).place, 22);
    }

    #[test]
    fn nested_cuts_add_their_tile_offsets() {
        let axis = AxisSplit::cut(
            64,
            &[
                Cut {
                    parts: 2,
                    grain: 16,
                    tile_stride: 10,
                },
                Cut {
                    parts: 2,
                    grain: 16,
                    tile_stride: 1,
                },
            ],
        );
        let tiles: Vec<u32> = axis.places.iter().map(|place| place.tile).collect();
        assert_eq!(tiles, [0, 1, 10, 11]);
    }

    #[test]
    fn blocked_storage_keeps_channels_together_and_pads() {
        // [x, k] stored as groups of 16 channels, each with the field along it.
        let layout = Layout::row_major(vec![AxisSplit::whole(3), AxisSplit::whole(20)])
            .with_order(&[(1, 16), (0, 1), (1, 1)]);
        assert_eq!(layout.stored_elements(&[3, 20]), 3 * 32);
        assert_eq!(layout.offset(&[3, 20], &[0, 0]), 0);
        assert_eq!(layout.offset(&[3, 20], &[1, 0]), 16);
        assert_eq!(layout.offset(&[3, 20], &[2, 17]), 48 + 32 + 1);
    }

    #[test]
    fn boxes_cover_every_element_once() {
        let layout = Layout::row_major(vec![cut(7, 3, 4), cut(9, 4, 1)]);
        let elements: u64 = layout
            .boxes()
            .map(|(_, index)| layout.stored_elements(&layout.extents(&index)))
            .sum();
        assert_eq!(elements, 63);
        let tiles: std::collections::BTreeSet<_> = layout.boxes().map(|(tile, _)| tile).collect();
        assert_eq!(tiles.len(), 12);
        assert_eq!(layout.tile_end(), 12);
    }
}

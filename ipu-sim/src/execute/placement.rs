//! Where every element of a layout lies, looked up quickly.
//!
//! A [`Placement`] spells a [`Layout`] out for execution: one [`Cell`] per box and
//! copy, side by side in one array per variable. An element's offset inside its box
//! is a sum of one term per axis, because the storage loops of an axis see only that
//! axis' digits; so one short list per axis and box locates everything.

use std::convert::Infallible;

use super::strides::{Strides, walk};
use crate::ids::TileId;
use crate::layout::{BoxIndex, Layout};

/// A copy of a box on a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    /// The tile that holds it.
    pub tile: TileId,
    /// Which box: an index into [`Placement::boxes`].
    pub number: usize,
    /// Where its elements begin in the variable's array.
    pub base: usize,
}

/// What all copies of a box share.
#[derive(Clone, Debug)]
pub(super) struct BoxTable {
    /// Its place on every axis.
    places: BoxIndex,
    /// Terms of the offset in the box, by axis and local index.
    pub offsets: Vec<Vec<usize>>,
    /// Elements it takes in memory, padding included.
    pub stored: usize,
}

/// A layout spelt out.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    /// The tensor's shape.
    pub shape: Vec<u32>,
    /// Row-major distance of neighbours along every axis.
    pub strides: Vec<usize>,
    /// All boxes, last axis fastest.
    pub boxes: Vec<BoxTable>,
    /// All copies of all boxes: box by box, first copy first.
    pub cells: Vec<Cell>,
    /// Length of a variable's array.
    pub len: usize,
    /// By axis and index: the box number's term and the local index.
    spots: Vec<Vec<(usize, usize)>>,
    /// By axis and place: the indices held, ascending.
    indices: Vec<Vec<Vec<u32>>>,
    copies: usize,
    cell_of_tile: Vec<Option<usize>>,
}

impl Placement {
    /// Spells `layout` out, or names a tile that would hold two boxes.
    pub(super) fn new(layout: &Layout) -> Result<Self, TileId> {
        let shape = layout.shape();
        let places: Vec<u32> = layout
            .axes
            .iter()
            .map(|axis| axis.places.len() as u32)
            .collect();
        let spots = layout
            .axes
            .iter()
            .zip(row_major(&places))
            .map(|(axis, stride)| {
                axis.ranges
                    .iter()
                    .flat_map(|range| {
                        let term = range.place as usize * stride;
                        (range.local..range.local + range.len).map(move |at| (term, at as usize))
                    })
                    .collect()
            })
            .collect();
        let indices = layout
            .axes
            .iter()
            .map(|axis| {
                (0..axis.places.len() as u32)
                    .map(|place| axis.indices_of(place).collect())
                    .collect()
            })
            .collect();
        let mut placement = Self {
            strides: row_major(&shape),
            shape,
            boxes: Vec::with_capacity(layout.n_boxes()),
            cells: Vec::new(),
            len: 0,
            spots,
            indices,
            copies: layout.copies.len(),
            cell_of_tile: Vec::new(),
        };
        for (tile, places) in layout.boxes() {
            placement.add_box(layout, tile, places)?;
        }
        Ok(placement)
    }

    fn add_box(&mut self, layout: &Layout, first: TileId, places: BoxIndex) -> Result<(), TileId> {
        let extents = layout.extents(&places);
        let offsets = (0..extents.len())
            .map(|axis| {
                let mut local = vec![0; extents.len()];
                (0..extents[axis])
                    .map(|at| {
                        local[axis] = at;
                        layout.offset(&extents, &local)
                    })
                    .collect()
            })
            .collect();
        let stored = usize::try_from(layout.stored_elements(&extents))
            .expect("an executed box fits the host's memory");
        for tile in layout.copies_of(first) {
            let position = tile.0 as usize;
            if position >= self.cell_of_tile.len() {
                self.cell_of_tile.resize(position + 1, None);
            }
            if self.cell_of_tile[position].is_some() {
                return Err(tile);
            }
            self.cell_of_tile[position] = Some(self.cells.len());
            self.cells.push(Cell {
                tile,
                number: self.boxes.len(),
                base: self.len,
            });
            self.len += stored;
        }
        self.boxes.push(BoxTable {
            places,
            offsets,
            stored,
        });
        Ok(())
    }

    /// Elements of the tensor, copies and padding not counted.
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().map(|&extent| extent as usize).product()
    }

    /// The cell on `tile`.
    pub(super) fn cell_on(&self, tile: TileId) -> Option<&Cell> {
        let cell = (*self.cell_of_tile.get(tile.0 as usize)?)?;
        Some(&self.cells[cell])
    }

    /// All copies of a box, first copy first.
    pub(super) fn copies_of(&self, number: usize) -> &[Cell] {
        &self.cells[number * self.copies..(number + 1) * self.copies]
    }

    /// The box that `cell` is a copy of.
    pub(super) fn box_of(&self, cell: &Cell) -> &BoxTable {
        &self.boxes[cell.number]
    }

    /// The indices of an axis that `cell` holds, ascending.
    pub(super) fn indices_of(&self, cell: &Cell, axis: usize) -> &[u32] {
        &self.indices[axis][self.boxes[cell.number].places[axis] as usize]
    }

    /// Box number and offset in the box of the element at `index`.
    pub(super) fn find(&self, index: &[usize]) -> (usize, usize) {
        let spots = || self.spots.iter().zip(index).map(|(axis, &at)| axis[at]);
        let number = spots().map(|(term, _)| term).sum::<usize>();
        let offsets = &self.boxes[number].offsets;
        let offset = spots().zip(offsets).map(|((_, local), axis)| axis[local]);
        (number, offset.sum())
    }

    /// The tile whose cell holds position `offset` of the variable's array.
    pub(super) fn tile_at(&self, offset: usize) -> TileId {
        let after = self.cells.partition_point(|cell| cell.base <= offset);
        self.cells[after - 1].tile
    }

    /// Calls `body(offset in the box, row-major position in the tensor)` for every element of a box.
    pub(super) fn for_each(&self, number: usize, mut body: impl FnMut(usize, usize)) {
        let table = &self.boxes[number];
        let loops: Vec<Strides> = (0..self.shape.len())
            .map(|axis| {
                let indices = &self.indices[axis][table.places[axis] as usize];
                let mut strides = Strides::new(indices.len(), 2);
                strides.add(0, table.offsets[axis].iter().copied());
                let linear = indices.iter().map(|&at| at as usize * self.strides[axis]);
                strides.add(1, linear);
                strides
            })
            .collect();
        let loops: Vec<&Strides> = loops.iter().collect();
        let done = walk::<Infallible>(&loops, &[0, 0], &mut |at| {
            body(at[0], at[1]);
            Ok(())
        });
        match done {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
}

fn row_major(extents: &[u32]) -> Vec<usize> {
    let mut strides = vec![1; extents.len()];
    for axis in (1..extents.len()).rev() {
        strides[axis - 1] = strides[axis] * extents[axis] as usize;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::fixtures::cut;

    #[test]
    fn every_element_is_found_where_its_box_lists_it() {
        let layout = Layout::row_major(vec![cut(5, 2, 8), cut(20, 2, 4)])
            .with_order(&[(1, 8), (0, 1), (1, 1)])
            .with_copies(vec![0, 1]);
        let placement = Placement::new(&layout).unwrap();
        let mut seen = 0;
        for number in 0..placement.boxes.len() {
            placement.for_each(number, |offset, linear| {
                assert_eq!(
                    placement.find(&[linear / 20, linear % 20]),
                    (number, offset)
                );
                seen += 1;
            });
        }
        assert_eq!(seen, 100);
        let tiles: Vec<u32> = placement.cells.iter().map(|cell| cell.tile.0).collect();
        assert_eq!(tiles, [0, 1, 4, 5, 8, 9, 12, 13]);
        assert_eq!(placement.tile_at(placement.cells[3].base), TileId(5));
        assert_eq!(placement.len, 2 * (2 + 3) * 2 * 16);
    }

    #[test]
    fn two_boxes_on_one_tile_are_refused() {
        let layout = Layout::row_major(vec![cut(2, 2, 1), cut(2, 2, 1)]);
        assert_eq!(Placement::new(&layout).unwrap_err(), TileId(1));
    }
}

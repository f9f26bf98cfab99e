//! Rules of layouts: every element has one place, and places are tiles of the IPU.

use super::fault::{Checked, Location, Violation, broken};
use crate::ids::{Id, TileId};
use crate::layout::{AxisSplit, Layout};
use crate::program::{LayoutId, Program};

/// What a variable may take of one tile: sums over tiles and variables then fit 64 bits.
const BOX_MAX: u64 = u32::MAX as u64;
/// The largest element.
const ELEMENT: u128 = 4;

/// Checks every layout on IPUs of `n_tiles` tiles.
pub(super) fn check(program: &Program, n_tiles: u32) -> Checked {
    let layouts = program.layouts.iter().enumerate();
    layouts
        .map(|(number, layout)| (LayoutId::from_index(number), layout))
        .try_for_each(|(id, layout)| {
            let rules = [axes, copies, order, size, extent];
            let found = rules.iter().find_map(|rule| rule(layout).err());
            let found = found.or_else(|| tiles(layout, n_tiles).err());
            found.map_or(Ok(()), |violation| {
                let place = Location::Layout(id);
                Err(broken(place, violation))
            })
        })
}

fn axes(layout: &Layout) -> Result<(), Violation> {
    let broken = layout.axes.iter().position(|axis| !is_whole(axis));
    broken.map_or(Ok(()), |axis| Err(Violation::BrokenAxis { axis }))
}

/// Whether ranges and places of an axis say the same, and say something.
fn is_whole(axis: &AxisSplit) -> bool {
    let mut filled = vec![0u32; axis.places.len()];
    let mut next = 0;
    for range in &axis.ranges {
        let place = filled.get_mut(range.place as usize);
        let Some(place) = place.filter(|local| **local == range.local) else {
            return false;
        };
        if range.begin != next || range.len == 0 {
            return false;
        }
        let (Some(end), Some(local)) = (next.checked_add(range.len), place.checked_add(range.len))
        else {
            return false;
        };
        (next, *place) = (end, local);
    }
    let extents = axis.places.iter().map(|place| place.extent);
    next > 0 && filled.iter().copied().eq(extents) && filled.iter().all(|&extent| extent > 0)
}

fn copies(layout: &Layout) -> Result<(), Violation> {
    let ascends = layout.copies.is_sorted_by(|a, b| a < b);
    match layout.copies.first() {
        Some(0) if ascends => Ok(()),
        _ => Err(Violation::BrokenCopies),
    }
}

fn order(layout: &Layout) -> Result<(), Violation> {
    let n_axes = layout.axes.len();
    let beyond = layout.order.iter().map(|step| usize::from(step.axis));
    if let Some(axis) = beyond.max().filter(|&axis| axis >= n_axes) {
        return Err(Violation::BrokenOrder { axis });
    }
    let nests = |axis: usize| {
        let own = layout
            .order
            .iter()
            .filter(|step| usize::from(step.axis) == axis);
        let blocks: Vec<u32> = own.map(|step| step.block).collect();
        let divide = |pair: &[u32]| pair[1] > 0 && pair[0].is_multiple_of(pair[1]);
        blocks.last() == Some(&1) && blocks.windows(2).all(divide)
    };
    let broken = (0..n_axes).find(|&axis| !nests(axis));
    broken.map_or(Ok(()), |axis| Err(Violation::BrokenOrder { axis }))
}

/// The largest box, blocks padded.
fn size(layout: &Layout) -> Result<(), Violation> {
    let padded = layout.axes.iter().enumerate().map(|(number, axis)| {
        let mut own = layout
            .order
            .iter()
            .filter(|step| usize::from(step.axis) == number);
        let block = u128::from(own.next().map_or(1, |step| step.block));
        u128::from(axis.extent_max()).next_multiple_of(block)
    });
    // Every factor is at least 1, so a product that saturates is too large as well.
    let stored = padded.fold(ELEMENT, u128::saturating_mul);
    if stored <= u128::from(BOX_MAX) {
        return Ok(());
    }
    Err(Violation::TooLarge {
        what: "bytes of a box",
        most: BOX_MAX,
        got: u64::try_from(stored).unwrap_or(u64::MAX),
    })
}

/// A step past the end of an axis must stay in what indices are counted in.
fn extent(layout: &Layout) -> Result<(), Violation> {
    let most = u64::from(u32::MAX / 2);
    let extents = layout.axes.iter().map(|axis| u64::from(axis.extent()));
    match extents.max().filter(|&extent| extent > most) {
        Some(got) => Err(Violation::TooLarge {
            what: "indices of an axis",
            most,
            got,
        }),
        None => Ok(()),
    }
}

fn tiles(layout: &Layout, n_tiles: u32) -> Result<(), Violation> {
    let offsets = layout.axes.iter().map(|axis| u64::from(axis.tile_max()));
    let copies = layout.copies.last().copied().unwrap_or(0);
    let last = u64::from(layout.first_tile) + u64::from(copies) + offsets.sum::<u64>();
    if last >= u64::from(n_tiles) {
        return Err(Violation::TooManyTiles {
            available: n_tiles,
            needed: last + 1,
        });
    }
    let mut taken = vec![false; n_tiles as usize];
    // Ends at the first tile that is taken twice, so after that many at most.
    boxes(&layout.axes, layout.first_tile, &mut |first| {
        let shared = layout.copies_of(TileId(first));
        let mut shared = shared.filter(|tile| std::mem::replace(&mut taken[tile.index()], true));
        let tile = shared.next();
        tile.map_or(Ok(()), |tile| Err(Violation::SharedTile { tile }))
    })
}

/// Visits the first tile of every box of `axes`, which lie from `tile` on.
fn boxes(
    axes: &[AxisSplit],
    tile: u32,
    visit: &mut impl FnMut(u32) -> Result<(), Violation>,
) -> Result<(), Violation> {
    match axes {
        [] => visit(tile),
        [axis, inner @ ..] => {
            let mut places = axis.places.iter();
            places.try_for_each(|place| boxes(inner, tile + place.tile, visit))
        }
    }
}

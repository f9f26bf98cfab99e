//! Layouts that no vertex asks for: even spreads, and shares of partial results.

use ipu_sim::ids::Id;
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;

use crate::ir::PartId;

/// Least bytes on a tile before a tensor is spread further (poputil linear mapping).
const SPREAD_MIN_BYTES: u64 = 128;

/// Least results that a tile takes from a reduction: fewer would cost a message each to
/// send back (popops maps outputs of reductions in pieces of at least four vectors,
/// `lib/popops/reduction/Reduction.cpp`).
const SHARE_MIN: u32 = 8;

/// Where the small tensors of a part of the model begin.
///
/// Steps of the golden section lie far from each other however many there are; an even tile,
/// so that the two tiles of a pair stay together.
pub(crate) fn first_tile(part: Option<PartId>, n_tiles: u32) -> u32 {
    /// The golden section less one, as a share of 2^32.
    const STEP: u32 = 2_654_435_769;
    let number = part.map_or(0, |part| part.index() as u32 + 1);
    let share = u64::from(number.wrapping_mul(STEP));
    ((share * u64::from(n_tiles)) >> 32) as u32 & !1
}

/// A tensor spread evenly over tiles in boxes of whole 64-bit vectors.
///
/// The two longest axes are cut so that the largest box is smallest; among equal
/// choices rows stay whole. Small tensors use few tiles.
pub(crate) fn spread(shape: &[u32], dtype: DType, n_tiles: u32) -> Layout {
    let elements: u64 = shape.iter().map(|&extent| u64::from(extent)).product();
    let useful = (elements * dtype.size().0)
        .div_ceil(SPREAD_MIN_BYTES)
        .max(1);
    let tiles = u64::from(n_tiles).min(useful) as u32;
    let mut by_extent: Vec<usize> = (0..shape.len()).collect();
    by_extent.sort_by_key(|&axis| std::cmp::Reverse(shape[axis]));
    let vector = (8 / dtype.size().0) as u32;
    let grain = |axis: usize| {
        if axis + 1 == shape.len() {
            vector.min(shape[axis]).max(1)
        } else {
            1
        }
    };
    let mut axes: Vec<AxisSplit> = shape
        .iter()
        .map(|&extent| AxisSplit::whole(extent))
        .collect();
    match by_extent.as_slice() {
        [] => {}
        [only] => {
            axes[*only] =
                AxisSplit::cut(shape[*only], &[even(shape[*only], grain(*only), tiles, 1)]);
        }
        [first, second, ..] => {
            let (outer, inner) = (*first.min(second), *first.max(second));
            let rows = best_rows(
                (shape[outer].div_ceil(grain(outer)), grain(outer)),
                (shape[inner].div_ceil(grain(inner)), grain(inner)),
                tiles,
            );
            let columns = (tiles / rows).min(shape[inner].div_ceil(grain(inner)));
            axes[outer] = AxisSplit::cut(
                shape[outer],
                &[even(shape[outer], grain(outer), rows, columns)],
            );
            axes[inner] = AxisSplit::cut(
                shape[inner],
                &[even(shape[inner], grain(inner), columns, 1)],
            );
        }
    }
    Layout::row_major(axes)
}

fn even(extent: u32, grain: u32, parts: u32, tile_stride: u32) -> Cut {
    Cut {
        parts: parts.min(extent.div_ceil(grain)).max(1),
        grain,
        tile_stride,
    }
}

/// Into how many rows of boxes to cut `outer` (grains, grain) so that the largest box is smallest.
fn best_rows(outer: (u32, u32), inner: (u32, u32), tiles: u32) -> u32 {
    (1..=tiles.min(outer.0).max(1))
        .min_by_key(|&rows| {
            let columns = (tiles / rows).min(inner.0).max(1);
            let largest = u64::from(outer.0.div_ceil(rows) * outer.1)
                * u64::from(inner.0.div_ceil(columns) * inner.1);
            (largest, std::cmp::Reverse(rows))
        })
        .unwrap_or(1)
}

/// Where partial results along `axis` meet: that axis whole, the longest of the axes
/// behind it cut evenly among the tiles that hold the parts.
pub(crate) fn shared_among(partials: &Layout, axis: usize) -> Layout {
    let offsets = partials.axes[axis].tiles();
    let mut axes = partials.axes.clone();
    axes[axis] = AxisSplit::whole(partials.axes[axis].extent());
    share_behind(&mut axes, axis, &offsets);
    Layout {
        first_tile: partials.first_tile,
        ..Layout::row_major(axes)
    }
}

/// Cuts the longest of the axes behind `axis` among tiles at `offsets`.
fn share_behind(axes: &mut [AxisSplit], axis: usize, offsets: &[u32]) {
    let longest = (axis + 1..axes.len()).max_by_key(|&axis| (axes[axis].extent_max(), axis));
    match longest {
        Some(longest) => {
            let extent = axes[longest].extent_max();
            let plenty = u64::from(extent) >= u64::from(SHARE_MIN) * offsets.len() as u64;
            let beside: u32 = (axis + 1..axes.len())
                .filter(|&other| other != longest)
                .map(|other| axes[other].extent_max())
                .product();
            let grain = if plenty {
                1
            } else {
                SHARE_MIN.div_ceil(beside.max(1)).min(extent)
            };
            axes[longest] = axes[longest].subdivide(offsets, grain);
        }
        // Nothing to cut: the first of the tiles takes it all.
        None => {
            let tile = offsets.first().copied().unwrap_or(0);
            let extent = axes[axis].extent();
            if axes[axis].places.len() == 1 {
                axes[axis] = AxisSplit::from_runs([(0, extent, tile)]);
            }
        }
    }
}

/// Where partial results along `axis` meet in groups first, if they are so many that one
/// tile shouldn't hear from all (popops reduces in stages from `2 sqrt(tiles)` sources on,
/// `lib/popops/reduction/ReductionStages.cpp`).
///
/// `None` as well where the tiles of the groups don't repeat each other.
pub(crate) fn joined_in_groups(partials: &Layout, axis: usize, n_tiles: u32) -> Option<Layout> {
    let tiles = partials.axes[axis].tiles();
    let n = tiles.len() as u32;
    if u64::from(n) * u64::from(n) <= 4 * u64::from(n_tiles) {
        return None;
    }
    let size = n.isqrt();
    let offsets: Vec<u32> = tiles[..size as usize]
        .iter()
        .map(|tile| tile.wrapping_sub(tiles[0]))
        .collect();
    // Only what lies behind the axis is shared among the tiles of a group.
    let alone = partials.axes.len() == axis + 1;
    let repeats = alone
        || tiles.chunks(size as usize).all(|group| {
            let mut pairs = group.iter().zip(&offsets);
            pairs.all(|(tile, offset)| *tile == group[0].wrapping_add(*offset))
        });
    if !repeats
        || partials.axes[axis]
            .places
            .iter()
            .any(|place| place.extent != 1)
    {
        return None;
    }
    let groups = tiles
        .chunks(size as usize)
        .enumerate()
        .map(|(group, tiles)| {
            let begin = group as u32 * size;
            (begin, tiles.len() as u32, tiles[0])
        });
    let mut axes = partials.axes.clone();
    axes[axis] = AxisSplit::from_runs(groups);
    // The last group may have fewer tiles; they are enough for all.
    let last = tiles.len() % size as usize;
    let shared = if last == 0 { offsets.len() } else { last };
    if axes.len() > axis + 1 {
        share_behind(&mut axes, axis, &offsets[..shared]);
    }
    Some(Layout {
        first_tile: partials.first_tile,
        ..Layout::row_major(axes)
    })
}

/// Where the rows of a table lie from which single rows are picked.
///
/// Columns are cut as finely as 64-bit accesses allow before rows are, so that few tiles
/// hold parts of one row (popops, `lib/popops/DynamicSlice.cpp`).
pub(crate) fn table(rows: u32, columns: u32, dtype: DType, n_tiles: u32) -> Layout {
    let grain = (8 / dtype.size().0) as u32;
    let column_parts = columns.div_ceil(grain).min(n_tiles).max(1);
    let row_parts = (n_tiles / column_parts).min(rows).max(1);
    Layout::row_major(vec![
        AxisSplit::cut(rows, &[even(rows, 1, row_parts, column_parts)]),
        AxisSplit::cut(columns, &[even(columns, grain, column_parts, 1)]),
    ])
}

/// One replica's shard of a tensor: of every box its equal share, on the same tile.
pub(crate) fn shard(layout: &Layout, replicas: u32) -> Layout {
    let mut begin = 0;
    let runs: Vec<(u32, u32, u32)> = layout
        .boxes()
        .map(|(tile, index)| {
            let stored = layout.stored_elements(&layout.extents(&index));
            let len = stored.div_ceil(u64::from(replicas)) as u32;
            begin += len;
            (begin - len, len, tile.0)
        })
        .collect();
    Layout::row_major(vec![AxisSplit::from_runs(runs)])
}

/// A whole extra axis in front of a layout, outermost in storage: a ring of `slots` tensors.
pub(crate) fn ring(slots: u32, layout: &Layout) -> Layout {
    let mut axes = vec![AxisSplit::whole(slots)];
    axes.extend(layout.axes.iter().cloned());
    let order: Vec<(u8, u32)> = [(0, 1)]
        .into_iter()
        .chain(layout.order.iter().map(|step| (step.axis + 1, step.block)))
        .collect();
    Layout {
        first_tile: layout.first_tile,
        copies: layout.copies.clone(),
        ..Layout::row_major(axes).with_order(&order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_use_most_tiles_and_keep_small_tensors_together() {
        let layout = spread(&[1024, 1024], DType::F16, 1472);
        let largest = layout
            .boxes()
            .map(|(_, index)| layout.stored_elements(&layout.extents(&index)))
            .max();
        assert!(layout.tile_end() <= 1472);
        assert!(largest.unwrap() <= 750, "{largest:?}");
        assert_eq!(spread(&[64], DType::F16, 1472).tile_end(), 1);
        assert_eq!(spread(&[], DType::F32, 1472).n_boxes(), 1);
    }

    #[test]
    fn partial_results_meet_on_the_tiles_that_made_them() {
        let matrix = spread(&[64, 4096], DType::F32, 256);
        let columns = matrix.axes[1].places.len() as u32;
        assert!(columns > 1);
        let partials = Layout::row_major(vec![
            AxisSplit::one_each(&matrix.axes[1]),
            matrix.axes[0].clone(),
        ]);
        let joined = shared_among(&partials, 0);
        assert_eq!(joined.shape(), [columns, 64]);
        assert_eq!(joined.axes[0].places.len(), 1);
        assert!(joined.tile_end() <= matrix.tile_end());
    }
}

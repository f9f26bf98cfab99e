//! Traffic of copies, against a walk over their elements, and times worked out by hand.

use std::collections::BTreeSet;

use super::pieces::tile_of;
use super::time::NO_TRAFFIC;
use super::*;
use crate::layout::fixtures::cut;
use crate::spec::fixtures::machine;
use crate::units::Cycles;
use crate::view::ViewShape;

fn check(src: &Layout, src_view: &ViewShape, dst: &Layout, dst_view: &ViewShape) -> Traffic {
    let src = Side {
        layout: src,
        view: src_view,
    };
    let dst = Side {
        layout: dst,
        view: dst_view,
    };
    let counted = traffic(src, dst, Bytes(2), &fabric());
    assert_eq!(counted.tiles, walked(src, dst).tiles);
    let sent = counted.tiles.iter().map(|tile| tile.sent);
    assert!(
        sent.sum::<u32>() <= counted.bytes_received().0 as u32,
        "words are sent once"
    );
    counted
}

fn fabric() -> Fabric {
    Fabric::new(&machine("mk2-pod16").exchange, 64)
}

/// The same traffic, element by element.
fn walked(src: Side<'_>, dst: Side<'_>) -> Traffic {
    let known = fabric();
    let mut out = Traffic::none(64);
    let mut pairs = BTreeSet::new();
    let tile = |side: Side<'_>, index: &[u32]| {
        let at: Vec<(usize, u32)> = side
            .view
            .locate(index)
            .iter()
            .copied()
            .enumerate()
            .collect();
        side.layout.first_tile + tile_of(&side.layout.axes, &at)
    };
    let extents = src.view.extents();
    for mut number in 0..extents.iter().product::<u32>() {
        let mut index = vec![0; extents.len()];
        for (axis, &extent) in extents.iter().enumerate().rev() {
            index[axis] = number % extent;
            number /= extent;
        }
        let from = tile(src, &index);
        let to = tile(dst, &index);
        let (mut leaves, mut to_pairs) = (false, true);
        for copy in dst.layout.copies_of(TileId(to)) {
            if !src.layout.has_copy(TileId(from), copy) {
                leaves = true;
                pairs.insert((from, copy.0));
                out.tiles[copy.0 as usize].received += 2;
                if paired(dst.layout, to, copy.0) {
                    out.tiles[copy.0 as usize].received_paired += 2;
                } else {
                    to_pairs = false;
                }
            }
        }
        if leaves {
            out.tiles[from as usize].sent += 2;
            out.tiles[from as usize].sent_paired += 2 * u32::from(to_pairs);
        }
    }
    // Messages are runs, which a walk over elements doesn't see.
    let counted = traffic(src, dst, Bytes(2), &fabric());
    for (tile, counted) in out.tiles.iter_mut().zip(&counted.tiles) {
        tile.messages = counted.messages;
    }
    for (from, to) in pairs {
        let route = known.routes.between(from, to);
        out.tiles[to as usize].turns += 1;
        for end in [from, to] {
            let tile = &mut out.tiles[end as usize];
            tile.route = tile.route.max(route);
        }
    }
    out
}

#[test]
fn a_new_cut_of_both_axes() {
    let src = Layout::row_major(vec![cut(20, 3, 4), cut(30, 4, 1)]);
    let dst = Layout::row_major(vec![cut(20, 5, 2), cut(30, 2, 1)]);
    let view = ViewShape::identity(&[20, 30]);
    let moved = check(&src, &view, &dst, &view);
    assert!(!moved.is_empty());
}

#[test]
fn heads_are_split_from_uneven_tokens() {
    // [tokens 2x6, hidden 3x4] -> [batch, heads, sequence, size], each head on its tiles.
    let src = Layout::row_major(vec![cut(12, 5, 4), cut(12, 4, 1)]);
    let view = ViewShape::identity(&[12, 12])
        .reshape(&[2, 6, 3, 4])
        .unwrap()
        .transpose(&[0, 2, 1, 3]);
    let dst = Layout::row_major(vec![
        cut(2, 2, 12),
        cut(3, 3, 4),
        cut(6, 2, 2),
        cut(4, 2, 1),
    ]);
    check(&src, &view, &dst, &ViewShape::identity(&[2, 3, 6, 4]));
}

#[test]
fn copies_are_multicast_and_paired() {
    let src = Layout::row_major(vec![cut(8, 4, 1)]);
    let dst = Layout::row_major(vec![cut(8, 2, 4)]).with_copies(vec![0, 1, 2, 3]);
    let view = ViewShape::identity(&[8]);
    let moved = check(&src, &view, &dst, &view);
    // Tile 0 holds two of the four elements that its copy needs.
    assert_eq!(moved.tiles[0].received, 4);
    assert_eq!(moved.tiles[5].received_paired, 8);
    assert_eq!(moved.tiles[0].sent, 4);
    // 8 bytes over the lanes of the pair are one cycle, but each tile turns to two senders.
    let busy = moved.tiles[5].busy(&moved.tiles[4], &machine("mk2-pod16"));
    assert_eq!(busy, Cycles(6));
}

/// Words of 4 bytes from one tile to each of `receivers`: (route, cycles of its words).
#[track_caller]
fn phase(sent: u32, receivers: &[u32], expected: (u64, u64)) {
    let src = Layout::row_major(vec![cut(sent * 2, 1, 1)]);
    let mut dst = src
        .clone()
        .with_copies(receivers.iter().map(|r| r - receivers[0]).collect());
    dst.first_tile = receivers[0];
    let view = ViewShape::identity(&[sent * 2]);
    let phase = check(&src, &view, &dst, &view).phase(&machine("mk2-pod16"));
    assert_eq!((phase.route.0, phase.busy.0), expected, "{receivers:?}");
}

#[test]
fn phases_by_hand() {
    // A word a cycle, after the route from tile 0 to tile 1 or to tile 2.
    phase(1000, &[1], (25, 1000));
    phase(1000, &[2], (24, 1000));
    // To both tiles of a pair at twice the rate, over both lanes of the sending pair.
    phase(1000, &[2, 3], (25, 500));
    phase(1000, &[2, 3, 8, 9], (25, 500));
    // However many listen, a word is sent once; one without its partner holds up the others.
    phase(1000, &[1, 2, 5, 6, 9, 40], (25, 1000));
    phase(1000, &[2, 3, 8], (25, 1000));
    // A single word takes as long as turning to its sender.
    phase(1, &[1], (25, 3));
}

/// The 4148 words that one description reaches, and a word more: another turn, and another
/// message in the code. Runs count one by one.
#[test]
fn long_transfers_take_several_descriptions() {
    let moved = |words: u32, view: &dyn Fn(&ViewShape) -> ViewShape| {
        let src = Layout::row_major(vec![cut(words * 2, 1, 1)]);
        let mut dst = src.clone();
        dst.first_tile = 40;
        let whole = ViewShape::identity(&[words * 2]);
        let view = view(&whole);
        let sides = [&src, &dst].map(|layout| Side {
            layout,
            view: &view,
        });
        let tile = traffic(sides[0], sides[1], Bytes(2), &fabric()).tiles[40];
        let busy = tile.busy(&NO_TRAFFIC, &machine("mk2-pod16"));
        (tile.turns, tile.messages, busy.0)
    };
    let whole = |view: &ViewShape| view.clone();
    // Control instructions of a turn run beside the words of the one before.
    assert_eq!(moved(4148, &whole), (1, 1, 4148));
    assert_eq!(moved(4149, &whole), (2, 2, 4149));
    assert_eq!(moved(3 * 4148, &whole), (3, 3, 3 * 4148));
    // Columns of a matrix: every element is a message, none of them long.
    let columns = |view: &ViewShape| view.reshape(&[4148, 4]).unwrap().slice(1, 0, 1).unwrap();
    assert_eq!(moved(2 * 4148, &columns), (1, 4148, 2074));
}

#[test]
fn flattening_links_all_axes() {
    let src = Layout::row_major(vec![cut(6, 3, 4), cut(10, 2, 1)]);
    let view = ViewShape::identity(&[6, 10]).reshape(&[60]).unwrap();
    let dst = Layout::row_major(vec![cut(60, 7, 1)]);
    check(&src, &view, &dst, &ViewShape::identity(&[60]));
}

/// Rows of neighbours move as one each, however many more rows there are than columns.
#[test]
fn messages_are_runs_of_neighbours() {
    let src = Layout::row_major(vec![cut(96, 1, 1)]);
    let view = ViewShape::identity(&[96]).reshape(&[24, 4]).unwrap();
    let mut dst = Layout::row_major(vec![cut(24, 1, 1), cut(4, 1, 1)]);
    dst.first_tile = 1;
    let moved = check(&src, &view, &dst, &ViewShape::identity(&[24, 4]));
    assert_eq!(moved.tiles[1].messages, 24);
}

#[test]
fn nothing_moves_between_equal_layouts() {
    let layout = Layout::row_major(vec![cut(20, 3, 4), cut(30, 4, 1)]);
    let view = ViewShape::identity(&[20, 30]);
    assert!(check(&layout, &view, &layout, &view).is_empty());
}

#[test]
fn a_slice_moves_only_its_part() {
    let src = Layout::row_major(vec![cut(4, 2, 8), cut(12, 4, 1)]);
    let view = ViewShape::identity(&[4, 12]).slice(1, 4, 8).unwrap();
    let dst = Layout::row_major(vec![cut(4, 2, 2), cut(4, 2, 1)]);
    let moved = check(&src, &view, &dst, &ViewShape::identity(&[4, 4]));
    assert!(moved.bytes_received().0 <= 32);
}

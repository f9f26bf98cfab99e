//! What moves between the tiles of one IPU when a tensor changes its layout.
//!
//! A copy between two views is a product: axes of source and destination that are
//! linked through the views form independent groups, and inside a group the runs of
//! both sides intersect in a short list of [`Piece`]s. A tile pair then exchanges the
//! product of one piece per group. So traffic is counted from lists whose length is
//! the number of cuts, whatever the tensor's size.
//!
//! Data that stays on its tile is not exchanged. A tile that receives from several
//! others does so one word a cycle; both tiles of a pair that receive the same stream
//! get it at twice the rate (IPU exchange in paired mode). One word that several tiles
//! want is sent once. A receiver turns to each of its senders with a few control
//! instructions that run beside the words, so that it can't listen to more senders than
//! that. One description reaches only so many words; a longer transfer takes several, each with
//! code and control instructions of its own. How long words travel depends on where the tiles
//! lie ([`route`]).

pub mod route;

use std::collections::BTreeMap;

use smallvec::SmallVec;

use self::route::Routes;

use crate::ids::TileId;
use crate::layout::{AxisSplit, Layout};
use crate::spec::{ExchangeSpec, MachineSpec};
use crate::units::{Bytes, BytesPerCycle, Cycles};
use crate::view::ViewShape;

/// Elements that one group of axes moves between two tile offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Tile offset of the source places.
    pub src: u32,
    /// Tile offset of the destination places.
    pub dst: u32,
    /// Index combinations.
    pub elements: u32,
    /// Runs of neighbouring indices they come in.
    pub runs: u32,
}

/// Traffic of one tile in one exchange phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileTraffic {
    /// Bytes that arrive from other tiles.
    pub received: u32,
    /// Of these, bytes that the tile's pair partner receives too.
    pub received_paired: u32,
    /// Bytes that leave for other tiles, each counted once.
    pub sent: u32,
    /// Of these, bytes that go to pairs of tiles only, over the lanes of this tile and its partner.
    pub sent_paired: u32,
    /// Messages that arrive, each as many times as it takes descriptions.
    pub messages: u32,
    /// Descriptions of what it listens to, one after the other: at least one for each sender.
    pub turns: u32,
    /// Cycles to or from the most distant tile that it exchanges with.
    pub route: u32,
}

impl TileTraffic {
    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.received_paired += other.received_paired;
        self.sent += other.sent;
        self.sent_paired += other.sent_paired;
        self.messages += other.messages;
        self.turns += other.turns;
        self.route = self.route.max(other.route);
    }

    /// Cycles that the tile is busy receiving or sending, from its first word to its last, with
    /// `partner` on its other lane.
    #[must_use]
    pub fn busy(&self, partner: &Self, machine: &MachineSpec) -> Cycles {
        let tile = &machine.tile;
        let pair_rate =
            BytesPerCycle(tile.exchange_rate.0 * u64::from(tile.tiles_per_exchange_bus));
        let single = u64::from(self.received - self.received_paired);
        let words = Bytes(single).div_ceil(tile.exchange_rate)
            + Bytes(u64::from(self.received_paired)).div_ceil(pair_rate);
        let per_turn = u64::from(machine.exchange.control_words_per_fragment);
        let control = Cycles(per_turn) * u64::from(self.turns);
        // What goes to pairs takes half of each lane of the sending pair.
        let alone = u64::from(self.sent - self.sent_paired);
        let shared = u64::from(self.sent_paired + partner.sent_paired);
        let sends = Bytes(alone).div_ceil(tile.exchange_rate) + Bytes(shared).div_ceil(pair_rate);
        words.max(control).max(sends)
    }
}

/// Of a tile that has no partner.
const NO_TRAFFIC: TileTraffic = TileTraffic {
    received: 0,
    received_paired: 0,
    sent: 0,
    sent_paired: 0,
    messages: 0,
    turns: 0,
    route: 0,
};

/// What decides how long an exchange phase takes, once all tiles are released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTime {
    /// Way of the first word of the tile that is done last.
    pub route: Cycles,
    /// Words of that tile.
    pub busy: Cycles,
}

/// Traffic of every tile of an IPU in one copy or exchange phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By tile.
    pub tiles: Vec<TileTraffic>,
}

impl Traffic {
    /// No traffic on `n_tiles` tiles.
    #[must_use]
    pub fn none(n_tiles: u32) -> Self {
        Self {
            tiles: vec![TileTraffic::default(); n_tiles as usize],
        }
    }

    /// Adds what another copy in the same phase moves.
    pub fn add(&mut self, other: &Self) {
        for (tile, more) in self.tiles.iter_mut().zip(&other.tiles) {
            tile.add(more);
        }
    }

    /// Whether nothing moves between tiles.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tiles.iter().all(|tile| tile.received == 0)
    }

    /// The tile that is done last: the way to its farthest partner, then its words.
    ///
    /// Nothing where nothing moves.
    #[must_use]
    pub fn phase(&self, machine: &MachineSpec) -> PhaseTime {
        let tiles = self
            .tiles
            .iter()
            .enumerate()
            .map(|(number, tile)| PhaseTime {
                route: Cycles(u64::from(tile.route)),
                busy: tile.busy(self.tiles.get(number ^ 1).unwrap_or(&NO_TRAFFIC), machine),
            });
        let last = tiles.max_by_key(|phase| (phase.route + phase.busy, phase.busy));
        last.unwrap_or_default()
    }

    /// Bytes received by all tiles.
    #[must_use]
    pub fn bytes_received(&self) -> Bytes {
        self.tiles
            .iter()
            .map(|tile| Bytes(u64::from(tile.received)))
            .sum()
    }
}

/// A layout seen through a view: one side of a copy.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Where the variable lies.
    pub layout: &'a Layout,
    /// How it is seen.
    pub view: &'a ViewShape,
}

/// What lies between the tiles of an IPU, as far as a copy depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fabric {
    /// Tiles.
    pub n_tiles: u32,
    /// Ways between them.
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

fn product(groups: &[Vec<Piece>], src: u32, dst: u32, walk: &mut impl FnMut(u32, u32, u64, u32)) {
    fn step(
        groups: &[Vec<Piece>],
        at: (u32, u32, u64, u32),
        walk: &mut impl FnMut(u32, u32, u64, u32),
    ) {
        let (src, dst, elements, runs) = at;
        match groups.split_first() {
            None => walk(src, dst, elements, runs),
            Some((group, rest)) => {
                for piece in group {
                    let next = (
                        src + piece.src,
                        dst + piece.dst,
                        elements * u64::from(piece.elements),
                        runs * piece.runs,
                    );
                    step(rest, next, walk);
                }
            }
        }
    }
    step(groups, (src, dst, 1, 1), walk);
}

/// A digit that both views agree on.
#[derive(Clone, Copy, Debug)]
struct Joint {
    extent: u32,
    src_axis: usize,
    src_stride: u32,
    dst_axis: usize,
    dst_stride: u32,
}

impl Joint {
    /// Whether neighbouring values of the digit are neighbours on both sides.
    fn is_contiguous(self) -> bool {
        self.src_stride <= 1 && self.dst_stride <= 1
    }
}

/// The pieces of a copy, group by group of linked axes.
///
/// # Panics
///
/// If the views don't fit together ([`crate::verify`]).
#[must_use]
pub fn pieces(src: Side<'_>, dst: Side<'_>) -> Vec<Vec<Piece>> {
    let joints = refine(src.view, dst.view).expect("views of a copy fit together");
    let n_src = src.layout.axes.len();
    let n_dst = dst.layout.axes.len();
    let mut group_of: Vec<usize> = (0..n_src + n_dst).collect();
    for joint in &joints {
        let (a, b) = (group_of[joint.src_axis], group_of[n_src + joint.dst_axis]);
        for group in &mut group_of {
            if *group == b {
                *group = a;
            }
        }
    }
    let mut groups: Vec<usize> = group_of.clone();
    groups.sort_unstable();
    groups.dedup();
    groups
        .into_iter()
        .map(|group| {
            let src_axes = (0..n_src).filter(|&axis| group_of[axis] == group).collect();
            let dst_axes = (0..n_dst)
                .filter(|&axis| group_of[n_src + axis] == group)
                .collect();
            let joints = joints
                .iter()
                .filter(|joint| group_of[joint.src_axis] == group)
                .copied()
                .collect();
            Group {
                src,
                dst,
                src_axes,
                dst_axes,
                joints,
            }
            .pieces()
        })
        .collect()
}

/// Whether both sides of a copy have equal extents, in digits that pair off.
pub(crate) fn views_fit(src: &ViewShape, dst: &ViewShape) -> bool {
    refine(src, dst).is_some()
}

/// Splits the digits of both views until they pair off; nothing if they don't.
fn refine(src: &ViewShape, dst: &ViewShape) -> Option<Vec<Joint>> {
    if src.extents() != dst.extents() {
        return None;
    }
    let mut joints = Vec::new();
    for (src_digits, dst_digits) in src.axes.iter().zip(&dst.axes) {
        let mut a: Vec<_> = src_digits
            .iter()
            .filter(|digit| digit.extent > 1)
            .copied()
            .collect();
        let mut b: Vec<_> = dst_digits
            .iter()
            .filter(|digit| digit.extent > 1)
            .copied()
            .collect();
        while let (Some(x), Some(y)) = (a.pop(), b.pop()) {
            let extent = x.extent.min(y.extent);
            if !x.extent.is_multiple_of(extent) || !y.extent.is_multiple_of(extent) {
                return None;
            }
            joints.push(Joint {
                extent,
                src_axis: usize::from(x.axis),
                src_stride: x.stride,
                dst_axis: usize::from(y.axis),
                dst_stride: y.stride,
            });
            for (digits, digit) in [(&mut a, x), (&mut b, y)] {
                if digit.extent > extent {
                    let mut rest = digit;
                    rest.stride *= extent;
                    rest.extent /= extent;
                    digits.push(rest);
                }
            }
        }
    }
    Some(joints)
}

struct Group<'a> {
    src: Side<'a>,
    dst: Side<'a>,
    src_axes: SmallVec<[usize; 4]>,
    dst_axes: SmallVec<[usize; 4]>,
    joints: SmallVec<[Joint; 4]>,
}

impl Group<'_> {
    fn pieces(&self) -> Vec<Piece> {
        let mut sums: BTreeMap<(u32, u32), (u32, u32)> = BTreeMap::new();
        let mut joints = self.joints.clone();
        // One digit is walked in runs, the others value by value: the longest of those whose
        // values are neighbours on both sides, for these move as one.
        joints.sort_by_key(|joint| (joint.is_contiguous(), joint.extent));
        let run = joints.pop();
        let combinations: u64 = joints.iter().map(|joint| u64::from(joint.extent)).product();
        for number in 0..combinations {
            let mut src_at = self.start(&self.src_axes, self.src.view);
            let mut dst_at = self.start(&self.dst_axes, self.dst.view);
            let mut rest = number;
            for joint in &joints {
                let value = (rest % u64::from(joint.extent)) as u32;
                rest /= u64::from(joint.extent);
                *entry(&mut src_at, joint.src_axis) += value * joint.src_stride;
                *entry(&mut dst_at, joint.dst_axis) += value * joint.dst_stride;
            }
            self.walk_run(run, src_at, dst_at, &mut sums);
        }
        sums.into_iter()
            .map(|((src, dst), (elements, runs))| Piece {
                src,
                dst,
                elements,
                runs,
            })
            .collect()
    }

    fn start(&self, axes: &[usize], view: &ViewShape) -> SmallVec<[(usize, u32); 4]> {
        axes.iter()
            .map(|&axis| (axis, view.offsets[axis]))
            .collect()
    }

    /// Adds the intersections of one run of the longest digit.
    fn walk_run(
        &self,
        run: Option<Joint>,
        mut src_at: SmallVec<[(usize, u32); 4]>,
        mut dst_at: SmallVec<[(usize, u32); 4]>,
        sums: &mut BTreeMap<(u32, u32), (u32, u32)>,
    ) {
        let mut left = run.map_or(1, |run| run.extent);
        while left > 0 {
            let src_tile = tile_of(&self.src.layout.axes, &src_at);
            let dst_tile = tile_of(&self.dst.layout.axes, &dst_at);
            let steps = match run {
                None => 1,
                Some(run) => {
                    let a =
                        steps_inside(&self.src.layout.axes, &src_at, run.src_axis, run.src_stride);
                    let b =
                        steps_inside(&self.dst.layout.axes, &dst_at, run.dst_axis, run.dst_stride);
                    left.min(a).min(b)
                }
            };
            let contiguous = run.is_none_or(Joint::is_contiguous);
            let sum = sums.entry((src_tile, dst_tile)).or_insert((0, 0));
            sum.0 += steps;
            sum.1 += if contiguous { 1 } else { steps };
            if let Some(run) = run {
                *entry(&mut src_at, run.src_axis) += steps * run.src_stride;
                *entry(&mut dst_at, run.dst_axis) += steps * run.dst_stride;
            }
            left -= steps;
        }
    }
}

fn entry(at: &mut [(usize, u32)], axis: usize) -> &mut u32 {
    at.iter_mut()
        .find(|(candidate, _)| *candidate == axis)
        .map(|(_, index)| index)
        .expect("the axis belongs to this group")
}

fn tile_of(axes: &[AxisSplit], at: &[(usize, u32)]) -> u32 {
    at.iter()
        .map(|&(axis, index)| {
            let split = &axes[axis];
            split.places[split.part_of(index).place as usize].tile
        })
        .sum()
}

/// How many values of a digit with `stride` stay in the part that `axis` is in now.
fn steps_inside(axes: &[AxisSplit], at: &[(usize, u32)], axis: usize, stride: u32) -> u32 {
    if stride == 0 {
        return u32::MAX;
    }
    let index = at
        .iter()
        .find(|(candidate, _)| *candidate == axis)
        .map_or(0, |&(_, index)| index);
    (axes[axis].part_of(index).end() - index).div_ceil(stride)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::layout::Cut;
    use crate::spec::fixtures::machine;

    fn cut(extent: u32, parts: u32, tile_stride: u32) -> AxisSplit {
        AxisSplit::cut(
            extent,
            &[Cut {
                parts,
                grain: 1,
                tile_stride,
            }],
        )
    }

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
        // A word a cycle, after the way from tile 0 to tile 1 or to tile 2.
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
}

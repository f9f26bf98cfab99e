//! Which elements lie in a part of the source and in a part of the destination of a copy?
//!
//! A copy between two views is a product: axes of source and destination that are linked through
//! the views form independent groups, and inside a group the runs of both sides intersect in a short
//! list of [`Piece`]s. A pair of tiles then exchanges the product of one piece of each group. So a
//! copy is described by lists whose length is the number of cuts, whatever the size of its tensor.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::layout::{AxisSplit, Layout};
use crate::view::ViewShape;

/// A layout seen through a view: one side of a copy.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Where the variable lies.
    pub layout: &'a Layout,
    /// Axes by which the copy sees the variable.
    pub view: &'a ViewShape,
}

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

/// Visits the pairs of tiles of a copy, with the elements and runs that go from one to the other.
pub(super) fn product(
    groups: &[Vec<Piece>],
    src: u32,
    dst: u32,
    walk: &mut impl FnMut(u32, u32, u64, u32),
) {
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

pub(super) fn tile_of(axes: &[AxisSplit], at: &[(usize, u32)]) -> u32 {
    at.iter()
        .map(|&(axis, index)| {
            let split = &axes[axis];
            split.places[split.range_of(index).place as usize].tile
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
    (axes[axis].range_of(index).end() - index).div_ceil(stride)
}

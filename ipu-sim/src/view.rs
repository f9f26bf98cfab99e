//! Views: a variable seen with other axes, without moving an element.
//!
//! A view axis is a mixed-radix number: each [`Digit`] walks along one axis of
//! the variable with a stride. Reshapes split and join digits, transposes permute
//! axes, slices add offsets. What can't be written so returns `None`, and the
//! caller copies the tensor instead.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use crate::program::VarId;

/// A digit of a view axis: `extent` steps of `stride` indices along `axis` of the variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digit {
    /// Axis of the variable.
    pub axis: u8,
    /// Indices of that axis per step; 0 repeats the same index.
    pub stride: u32,
    /// Number of values.
    pub extent: u32,
}

/// The digits of one view axis, most significant first.
pub type ViewAxis = SmallVec<[Digit; 2]>;

/// How the axes of a view walk over the axes of a variable.
///
/// Always in simplest form: no digit of one value, no digit that continues its neighbour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ViewShape {
    /// One per axis of the view.
    pub axes: Vec<ViewAxis>,
    /// First index on every axis of the variable.
    pub offsets: SmallVec<[u32; 4]>,
}

/// A variable seen through a [`ViewShape`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct View {
    /// The variable that holds the elements.
    pub var: VarId,
    /// Axes by which the variable is seen.
    pub shape: ViewShape,
}

impl ViewShape {
    /// The variable as it is.
    #[must_use]
    pub fn identity(shape: &[u32]) -> Self {
        let axes = shape
            .iter()
            .enumerate()
            .map(|(axis, &extent)| -> ViewAxis {
                smallvec![Digit {
                    axis: axis as u8,
                    stride: 1,
                    extent,
                }]
            })
            .collect();
        Self {
            axes,
            offsets: SmallVec::from_elem(0, shape.len()),
        }
        .simplified()
    }

    /// Extents of the view's axes.
    #[must_use]
    pub fn extents(&self) -> Vec<u32> {
        self.axes
            .iter()
            .map(|axis| axis.iter().map(|digit| digit.extent).product())
            .collect()
    }

    /// Whether this is the whole variable of `shape` with its own axes.
    #[must_use]
    pub fn is_identity(&self, shape: &[u32]) -> bool {
        *self == Self::identity(shape)
    }

    /// Axis `i` of the result is axis `permutation[i]` of this view.
    #[must_use]
    pub fn transpose(&self, permutation: &[usize]) -> Self {
        Self {
            axes: permutation
                .iter()
                .map(|&axis| self.axes[axis].clone())
                .collect(),
            offsets: self.offsets.clone(),
        }
    }

    /// Keeps indices `begin..end` of one view axis.
    #[must_use]
    pub fn slice(&self, axis: usize, begin: u32, end: u32) -> Option<Self> {
        let mut out = self.clone();
        let digits = slice_digits(&self.axes[axis], begin, end, &mut out.offsets)?;
        out.axes[axis] = digits;
        Some(out.simplified())
    }

    /// View of the same elements in the same order with other axes.
    ///
    /// `None` where a new axis boundary falls inside a digit that it doesn't divide.
    #[must_use]
    pub fn reshape(&self, shape: &[u32]) -> Option<Self> {
        let mut digits: Vec<Digit> = self.axes.iter().flatten().copied().collect();
        digits.retain(|digit| digit.extent != 1);
        let mut axes = Vec::with_capacity(shape.len());
        for &extent in shape.iter().rev() {
            let mut axis: ViewAxis = SmallVec::new();
            let mut missing = extent;
            while missing > 1 {
                let digit = digits.pop()?;
                if missing % digit.extent == 0 {
                    axis.insert(0, digit);
                    missing /= digit.extent;
                } else if digit.extent % missing == 0 {
                    axis.insert(
                        0,
                        Digit {
                            extent: missing,
                            ..digit
                        },
                    );
                    digits.push(Digit {
                        axis: digit.axis,
                        stride: digit.stride * missing,
                        extent: digit.extent / missing,
                    });
                    missing = 1;
                } else {
                    return None;
                }
            }
            axes.push(axis);
        }
        if !digits.is_empty() {
            return None;
        }
        axes.reverse();
        Some(
            Self {
                axes,
                offsets: self.offsets.clone(),
            }
            .simplified(),
        )
    }

    /// Index on every axis of the variable of the element with `index` in the view.
    #[must_use]
    pub fn locate(&self, index: &[u32]) -> SmallVec<[u32; 4]> {
        let mut place = self.offsets.clone();
        for (digits, &position) in self.axes.iter().zip(index) {
            let mut rest = position;
            for digit in digits.iter().rev() {
                place[usize::from(digit.axis)] += rest % digit.extent * digit.stride;
                rest /= digit.extent;
            }
        }
        place
    }

    /// Joins digits that continue each other and drops those with one value.
    fn simplified(&self) -> Self {
        let axes = self
            .axes
            .iter()
            .map(|digits| {
                let mut out: ViewAxis = SmallVec::new();
                for digit in digits.iter().filter(|digit| digit.extent != 1) {
                    match out.last_mut() {
                        Some(last)
                            if last.axis == digit.axis
                                && last.stride == digit.stride * digit.extent =>
                        {
                            last.stride = digit.stride;
                            last.extent *= digit.extent;
                        }
                        _ => out.push(*digit),
                    }
                }
                out
            })
            .collect();
        Self {
            axes,
            offsets: self.offsets.clone(),
        }
    }
}

fn slice_digits(digits: &[Digit], begin: u32, end: u32, offsets: &mut [u32]) -> Option<ViewAxis> {
    let Some((first, rest)) = digits.split_first() else {
        return (begin == 0 && end == 1).then(SmallVec::new);
    };
    let inner: u32 = rest.iter().map(|digit| digit.extent).product();
    if begin.is_multiple_of(inner) && end.is_multiple_of(inner) {
        offsets[usize::from(first.axis)] += begin / inner * first.stride;
        let mut out: ViewAxis = smallvec![Digit {
            extent: (end - begin) / inner,
            ..*first
        }];
        out.extend_from_slice(rest);
        return Some(out);
    }
    if begin / inner != (end - 1) / inner {
        return None;
    }
    let value = begin / inner;
    offsets[usize::from(first.axis)] += value * first.stride;
    slice_digits(rest, begin - value * inner, end - value * inner, offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(view: &ViewShape, variable: &[u32]) -> Vec<u32> {
        let extents = view.extents();
        let n: u32 = extents.iter().product();
        (0..n)
            .map(|mut number| {
                let mut index = vec![0; extents.len()];
                for (axis, &extent) in extents.iter().enumerate().rev() {
                    index[axis] = number % extent;
                    number /= extent;
                }
                view.locate(&index)
                    .iter()
                    .zip(variable)
                    .fold(0, |sum, (&at, &extent)| sum * extent + at)
            })
            .collect()
    }

    #[test]
    fn heads_split_and_merge_again() {
        // [tokens, hidden] = [2 x 3, 2 x 4] -> [batch, heads, sequence, head size] and back.
        let tokens = ViewShape::identity(&[6, 8]);
        let heads = tokens
            .reshape(&[2, 3, 2, 4])
            .unwrap()
            .transpose(&[0, 2, 1, 3]);
        assert_eq!(heads.extents(), [2, 2, 3, 4]);
        assert_eq!(flat(&heads, &[6, 8])[..5], [0, 1, 2, 3, 8]);
        let back = heads.transpose(&[0, 2, 1, 3]).reshape(&[6, 8]).unwrap();
        assert!(back.is_identity(&[6, 8]));
    }

    #[test]
    fn a_slice_of_a_joined_axis_keeps_the_first_tokens_of_each_sequence() {
        let first = ViewShape::identity(&[6, 8])
            .reshape(&[2, 3, 8])
            .unwrap()
            .slice(1, 0, 2)
            .unwrap()
            .reshape(&[4, 8])
            .unwrap();
        let rows: Vec<u32> = flat(&first, &[6, 8])
            .chunks(8)
            .map(|row| row[0] / 8)
            .collect();
        assert_eq!(rows, [0, 1, 3, 4]);
    }

    #[test]
    fn slices_add_offsets() {
        let view = ViewShape::identity(&[4, 12]).slice(1, 4, 8).unwrap();
        assert_eq!(flat(&view, &[4, 12])[..5], [4, 5, 6, 7, 16]);
    }

    #[test]
    fn a_reshape_that_cuts_a_digit_unevenly_is_refused() {
        let view = ViewShape::identity(&[6, 4]).transpose(&[1, 0]);
        assert!(view.reshape(&[3, 8]).is_none());
    }
}

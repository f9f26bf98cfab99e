//! Sizes of a tensor along its axes.

use std::fmt;

use ipu_sim::units::Elements;
use smallvec::SmallVec;

/// The sizes of a tensor, outermost axis first; no axis for a scalar.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape(pub SmallVec<[u32; 4]>);

impl Shape {
    /// The shape of a single number.
    #[must_use]
    pub fn scalar() -> Self {
        Self::default()
    }

    /// The sizes, outermost first.
    #[must_use]
    pub fn dims(&self) -> &[u32] {
        &self.0
    }

    /// How many axes there are.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The product of all sizes (1 for a scalar), capped at `u64::MAX`.
    #[must_use]
    pub fn elements(&self) -> Elements {
        Elements(
            self.0
                .iter()
                .fold(1, |product: u64, &size| product.saturating_mul(size.into())),
        )
    }

    /// Shape like this one, with one axis resized.
    #[must_use]
    pub fn with(&self, axis: usize, size: u32) -> Self {
        let mut shape = self.clone();
        shape.0[axis] = size;
        shape
    }

    /// The shape that two operands are stretched to by numpy's rule: aligned at
    /// the innermost axis, a missing axis or a size of 1 stretches.
    #[must_use]
    pub fn broadcast(&self, other: &Self) -> Option<Self> {
        let rank = self.rank().max(other.rank());
        let size = |shape: &Self, axis: usize| match (axis + shape.rank()).checked_sub(rank) {
            Some(own) => shape.0[own],
            None => 1,
        };
        (0..rank)
            .map(|axis| match (size(self, axis), size(other, axis)) {
                (left, right) if left == right => Some(left),
                (1, right) => Some(right),
                (left, 1) => Some(left),
                _ => None,
            })
            .collect::<Option<SmallVec<_>>>()
            .map(Self)
    }

    /// One replica's shard of a tensor of this shape when `shards` replicas hold
    /// it together: `[ceil(elements / shards)]`, the tail padded with zeros
    /// (PopART, replicated tensor sharding).
    ///
    /// # Panics
    /// If `shards` is zero or a shard has 2^32 elements or more.
    #[must_use]
    pub fn shard(&self, shards: u32) -> Self {
        let length = self.elements().0.div_ceil(shards.into());
        Self::from([u32::try_from(length).expect("a shard has fewer than 2^32 elements")])
    }
}

impl<const N: usize> From<[u32; N]> for Shape {
    fn from(dims: [u32; N]) -> Self {
        Self(SmallVec::from_slice(&dims))
    }
}

impl From<&[u32]> for Shape {
    fn from(dims: &[u32]) -> Self {
        Self(SmallVec::from_slice(dims))
    }
}

impl FromIterator<u32> for Shape {
    fn from_iter<It: IntoIterator<Item = u32>>(dims: It) -> Self {
        Self(dims.into_iter().collect())
    }
}

/// `[2,3]`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (axis, size) in self.0.iter().enumerate() {
            let separator = if axis == 0 { "" } else { "," };
            write!(f, "{separator}{size}")?;
        }
        write!(f, "]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_aligns_at_the_innermost_axis() {
        #[track_caller]
        fn check(left: &[u32], right: &[u32], expected: Option<&[u32]>) {
            let (left, right) = (Shape::from(left), Shape::from(right));
            assert_eq!(left.broadcast(&right), expected.map(Shape::from));
            assert_eq!(right.broadcast(&left), expected.map(Shape::from));
        }
        check(&[2, 3], &[3], Some(&[2, 3]));
        check(&[2, 1, 4], &[5, 1], Some(&[2, 5, 4]));
        check(&[], &[7], Some(&[7]));
        check(&[2, 3], &[2], None);
    }

    #[test]
    fn shards_round_up() {
        assert_eq!(Shape::from([5, 6]).shard(4), Shape::from([8]));
        assert_eq!(Shape::scalar().shard(2), Shape::from([1]));
    }
}

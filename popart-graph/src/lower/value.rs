//! Tensors during lowering: views of variables, possibly several side by side.
//!
//! Reshape, transpose, slice and concat only change a [`Value`]; elements move when
//! an operation asks for them in a layout ([`super::builder::Builder::materialise`]).

use ipu_sim::numerics::DType;
use ipu_sim::program::VarId;
use ipu_sim::view::{View, ViewShape};

/// A tensor as views of variables, laid side by side along one axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// Element type of every part.
    pub(crate) dtype: DType,
    /// The axis along which parts follow each other.
    pub(crate) axis: usize,
    /// At least one.
    pub(crate) parts: Vec<View>,
}

impl Value {
    pub(crate) fn of(view: View, dtype: DType) -> Self {
        Self {
            dtype,
            axis: 0,
            parts: vec![view],
        }
    }

    /// The only part, if there is one.
    pub(crate) fn single(&self) -> Option<&View> {
        match self.parts.as_slice() {
            [view] => Some(view),
            _ => None,
        }
    }

    /// The variable, if this is the whole of it seen with its own axes.
    pub(crate) fn whole(&self, shape_of: impl Fn(VarId) -> Vec<u32>) -> Option<VarId> {
        self.single()
            .filter(|view| view.shape.is_identity(&shape_of(view.var)))
            .map(|view| view.var)
    }

    pub(crate) fn shape(&self) -> Vec<u32> {
        let mut shape = self.parts[0].shape.extents();
        for part in &self.parts[1..] {
            shape[self.axis] += part.shape.extents()[self.axis];
        }
        shape
    }

    pub(crate) fn transpose(&self, permutation: &[usize]) -> Self {
        let axis = permutation
            .iter()
            .position(|&axis| axis == self.axis)
            .unwrap_or(0);
        let parts = self.map_parts(|shape| shape.transpose(permutation));
        Self {
            dtype: self.dtype,
            axis,
            parts,
        }
    }

    /// `None` where elements would have to move.
    pub(crate) fn reshape(&self, shape: &[u32]) -> Option<Self> {
        if let Some(view) = self.single() {
            let shape = view.shape.reshape(shape)?;
            return Some(Self::of(
                View {
                    var: view.var,
                    shape,
                },
                self.dtype,
            ));
        }
        // Parts stay side by side only if their axis survives as the inner end of an axis
        // whose outer extent is 1, or unchanged.
        let old = self.shape();
        let outer: u32 = old[..self.axis].iter().product();
        let inner: u32 = old[self.axis + 1..].iter().product();
        let axis = (0..shape.len()).find(|&axis| {
            shape[axis] == old[self.axis]
                && shape[..axis].iter().product::<u32>() == outer
                && shape[axis + 1..].iter().product::<u32>() == inner
        })?;
        let parts = self
            .parts
            .iter()
            .map(|part| {
                let mut part_shape = shape.to_vec();
                part_shape[axis] = part.shape.extents()[self.axis];
                Some(View {
                    var: part.var,
                    shape: part.shape.reshape(&part_shape)?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            dtype: self.dtype,
            axis,
            parts,
        })
    }

    /// `None` where elements would have to move.
    pub(crate) fn slice(&self, axis: usize, begin: u32, end: u32) -> Option<Self> {
        let mut parts = Vec::new();
        let mut first = 0;
        for part in &self.parts {
            let extent = part.shape.extents()[axis];
            let (from, to) = if axis == self.axis && self.parts.len() > 1 {
                let window = (begin.max(first), end.min(first + extent));
                first += extent;
                if window.0 >= window.1 {
                    continue;
                }
                (window.0 - (first - extent), window.1 - (first - extent))
            } else {
                (begin, end)
            };
            parts.push(View {
                var: part.var,
                shape: part.shape.slice(axis, from, to)?,
            });
        }
        Some(Self {
            dtype: self.dtype,
            axis: self.axis,
            parts,
        })
    }

    /// `None` where a value already has parts along another axis.
    pub(crate) fn concat(values: &[Self], axis: usize) -> Option<Self> {
        let mut parts = Vec::new();
        for value in values {
            if value.parts.len() > 1 && value.axis != axis {
                return None;
            }
            parts.extend(value.parts.iter().cloned());
        }
        Some(Self {
            dtype: values[0].dtype,
            axis,
            parts,
        })
    }

    fn map_parts(&self, change: impl Fn(&ViewShape) -> ViewShape) -> Vec<View> {
        self.parts
            .iter()
            .map(|part| View {
                var: part.var,
                shape: change(&part.shape),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(var: u32, shape: &[u32]) -> Value {
        Value::of(
            View {
                var: VarId(var),
                shape: ViewShape::identity(shape),
            },
            DType::F32,
        )
    }

    #[test]
    fn concatenated_parts_are_cut_where_the_slice_says() {
        let qkv = Value::concat(
            &[value(0, &[4, 6]), value(1, &[4, 6]), value(2, &[4, 6])],
            1,
        )
        .unwrap();
        assert_eq!(qkv.shape(), [4, 18]);
        let k = qkv.slice(1, 6, 12).unwrap();
        assert_eq!(k.single().unwrap().var, VarId(1));
        let across = qkv.slice(1, 4, 8).unwrap();
        assert_eq!(across.parts.len(), 2);
        assert_eq!(across.shape(), [4, 4]);
        assert_eq!(across.transpose(&[1, 0]).axis, 0);
    }

    #[test]
    fn side_by_side_parts_keep_their_axis_in_a_reshape() {
        let both = Value::concat(&[value(0, &[4, 6]), value(1, &[4, 2])], 1).unwrap();
        assert_eq!(both.reshape(&[2, 2, 8]).unwrap().axis, 2);
        assert!(both.reshape(&[4, 2, 4]).is_none());
    }
}

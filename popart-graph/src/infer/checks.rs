//! The checks that the rules of inference are made of.

use ipu_sim::numerics::DType;

use super::Operands;
use super::error::{AttributeName, InferError, Result};
use crate::ir::{OpLabel, Shape, dtype_name};

impl Operands<'_> {
    pub(super) fn label(&self) -> OpLabel {
        OpLabel::new(self.kind, self.name)
    }

    pub(super) fn shape(&self, operand: usize) -> &Shape {
        &self.inputs[operand].shape
    }

    pub(super) fn dim(&self, operand: usize, axis: usize) -> u32 {
        self.shape(operand).dims()[axis]
    }

    pub(super) fn count(&self, expected: usize) -> Result<()> {
        let got = self.inputs.len();
        if got == expected {
            return Ok(());
        }
        Err(InferError::OperandCount {
            op: self.label(),
            expected,
            got,
        })
    }

    pub(super) fn type_error(&self, operand: usize, expected: &'static str) -> InferError {
        InferError::OperandType {
            op: self.label(),
            operand,
            expected,
            got: dtype_name(self.inputs[operand].dtype),
        }
    }

    pub(super) fn float(&self, operand: usize) -> Result<()> {
        match self.inputs[operand].dtype {
            DType::F16 | DType::F32 => Ok(()),
            DType::U32 => Err(self.type_error(operand, "a float")),
        }
    }

    pub(super) fn dtype(&self, operand: usize, expected: DType) -> Result<()> {
        if self.inputs[operand].dtype == expected {
            return Ok(());
        }
        Err(self.type_error(operand, dtype_name(expected)))
    }

    pub(super) fn float_attribute(&self, dtype: DType) -> Result<()> {
        match dtype {
            DType::F16 | DType::F32 => Ok(()),
            DType::U32 => Err(InferError::ResultNotFloat { op: self.label() }),
        }
    }

    pub(super) fn rank_error(&self, operand: usize, expected: usize) -> InferError {
        InferError::OperandRank {
            op: self.label(),
            operand,
            expected,
            got: self.shape(operand).rank(),
        }
    }

    pub(super) fn rank(&self, operand: usize, expected: usize) -> Result<()> {
        if self.shape(operand).rank() == expected {
            return Ok(());
        }
        Err(self.rank_error(operand, expected))
    }

    pub(super) fn has_shape(&self, operand: usize, expected: &Shape) -> Result<()> {
        if self.shape(operand) == expected {
            return Ok(());
        }
        Err(InferError::OperandShape {
            op: self.label(),
            operand,
            expected: expected.clone(),
            got: self.shape(operand).clone(),
        })
    }

    pub(super) fn scalar_f32(&self, operand: usize) -> Result<()> {
        self.dtype(operand, DType::F32)?;
        self.has_shape(operand, &Shape::scalar())
    }

    /// The length of a vector of `u32`.
    pub(super) fn indices(&self, operand: usize) -> Result<u32> {
        self.dtype(operand, DType::U32)?;
        self.rank(operand, 1)?;
        Ok(self.dim(operand, 0))
    }

    pub(super) fn sizes(&self, what: &'static str, expected: u32, got: u32) -> Result<()> {
        if expected == got {
            return Ok(());
        }
        Err(InferError::Sizes {
            op: self.label(),
            what,
            expected: expected.into(),
            got: got.into(),
        })
    }

    pub(super) fn broadcast_error(&self, left: &Shape, right: &Shape) -> InferError {
        InferError::Broadcast {
            op: self.label(),
            left: left.clone(),
            right: right.clone(),
        }
    }

    /// The position of an axis of the first operand.
    pub(super) fn axis(&self, axis: u32) -> Result<usize> {
        let rank = self.shape(0).rank();
        if (axis as usize) < rank {
            return Ok(axis as usize);
        }
        Err(InferError::Axis {
            op: self.label(),
            axis,
            rank,
        })
    }

    pub(super) fn sum(&self, attribute: AttributeName, left: u32, right: u32) -> Result<u32> {
        left.checked_add(right).ok_or_else(|| {
            self.attribute(
                attribute,
                "sizes below 2^32",
                f64::from(left) + f64::from(right),
            )
        })
    }

    pub(super) fn shardable(&self, shape: &Shape, shards: u32) -> Result<()> {
        let length = shape.elements().0.div_ceil(shards.into());
        if length <= u32::MAX.into() {
            return Ok(());
        }
        Err(self.attribute(
            AttributeName::Shards,
            "shards below 2^32 elements",
            shards.into(),
        ))
    }

    pub(super) fn attribute(
        &self,
        attribute: AttributeName,
        expected: &'static str,
        got: f64,
    ) -> InferError {
        InferError::Attribute {
            op: self.label(),
            attribute,
            expected,
            got,
        }
    }

    pub(super) fn finite(&self, attribute: AttributeName, got: f64) -> Result<()> {
        if got.is_finite() {
            return Ok(());
        }
        Err(self.attribute(attribute, "a finite number", got))
    }

    pub(super) fn within_unit(&self, attribute: AttributeName, got: f64) -> Result<()> {
        if (0.0..1.0).contains(&got) {
            return Ok(());
        }
        Err(self.attribute(attribute, "at least 0 and below 1", got))
    }

    pub(super) fn at_least_one(&self, attribute: AttributeName, got: u32) -> Result<()> {
        if got >= 1 {
            return Ok(());
        }
        Err(self.attribute(attribute, "at least 1", got.into()))
    }
}

//! Values that flow between operations.

use std::fmt;

use ipu_sim::numerics::DType;
use ipu_sim::units::Bytes;

use super::{PartId, Shape};

/// A value of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// For people, and for the names of weights in a checkpoint; the compiler
    /// never looks a tensor up by it.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost axis first.
    pub shape: Shape,
    /// Where its value comes from.
    pub kind: TensorKind,
    /// The part of the model that it belongs to: that of the operation that first made it.
    pub part: Option<PartId>,
    /// Number of the tensor in text; grows with the id, and stays when others are removed, so that
    /// texts before and after can be compared line by line.
    pub number: u32,
}

impl Tensor {
    /// Element type and shape together.
    #[must_use]
    pub fn ty(&self) -> TensorType {
        TensorType {
            dtype: self.dtype,
            shape: self.shape.clone(),
        }
    }

    /// Bytes of one copy, without padding.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.dtype.size() * self.shape.elements().0
    }
}

/// Element type and shape: what inference speaks about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost axis first.
    pub shape: Shape,
}

impl TensorType {
    /// A type from its parts.
    #[must_use]
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Self {
            dtype,
            shape: shape.into(),
        }
    }
}

/// `f16[2,3]`.
impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", dtype_name(self.dtype), self.shape)
    }
}

/// Where a tensor's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorKind {
    /// Lives on the device across runs. `None`: the first value is supplied from
    /// outside, as from a checkpoint.
    Variable {
        /// How to make the first value.
        init: Option<Init>,
    },
    /// Known when compiling.
    Constant(Constant),
    /// Sent by the host for every run of the graph.
    Stream,
    /// Produced by an operation.
    Activation,
}

/// The first value of a variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// 0 everywhere.
    Zeros,
    /// 1 everywhere.
    Ones,
    /// One number everywhere.
    Splat(f64),
    /// Normally distributed, values further than two standard deviations from
    /// the mean drawn again.
    TruncatedNormal {
        /// Centre of the distribution.
        mean: f64,
        /// Standard deviation before truncation.
        std_dev: f64,
    },
}

/// The value of a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constant {
    /// One number everywhere.
    Splat(f64),
    /// 0, 1, 2, … in row-major order.
    Iota,
}

/// The word for an element type in text and messages: `f16`, `f32`, `u32`.
#[must_use]
pub fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::F32 => "f32",
        DType::U32 => "u32",
    }
}

/// The element type of that word.
#[must_use]
pub fn dtype_from_name(name: &str) -> Option<DType> {
    [DType::F16, DType::F32, DType::U32]
        .into_iter()
        .find(|&dtype| dtype_name(dtype) == name)
}

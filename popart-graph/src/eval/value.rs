//! Values of tensors, on one replica and on all.

use half::f16;
use ipu_sim::numerics::DType;

use crate::ir::Shape;

/// The elements of a tensor, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of an `f16` or `f32` tensor.
    Float(Vec<f64>),
    /// Of a `u32` tensor.
    Int(Vec<u32>),
}

pub(super) fn floats(elements: Vec<f64>) -> Value {
    Value::Float(elements)
}

pub(super) fn ints(elements: Vec<u32>) -> Value {
    Value::Int(elements)
}

/// How many elements there are.
pub(super) fn count(shape: &Shape) -> usize {
    usize::try_from(shape.elements().0).expect("a tensor fits the address space")
}

impl Value {
    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Value::Float(elements) => elements.len(),
            Value::Int(elements) => elements.len(),
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of a float tensor.
    ///
    /// # Panics
    /// If it isn't one.
    #[must_use]
    pub fn as_floats(&self) -> &[f64] {
        match self {
            Value::Float(elements) => elements,
            Value::Int(_) => panic!("a value of floats was expected"),
        }
    }

    /// The elements of a `u32` tensor.
    ///
    /// # Panics
    /// If it isn't one.
    #[must_use]
    pub fn as_ints(&self) -> &[u32] {
        match self {
            Value::Int(elements) => elements,
            Value::Float(_) => panic!("a value of u32 was expected"),
        }
    }

    pub(super) fn is_float(&self) -> bool {
        matches!(self, Value::Float(_))
    }

    pub(super) fn splat(dtype: DType, length: usize, value: f64) -> Self {
        match dtype {
            DType::F16 | DType::F32 => floats(vec![value; length]),
            DType::U32 => ints(vec![value as u32; length]),
        }
    }

    pub(super) fn iota(dtype: DType, length: usize) -> Self {
        match dtype {
            DType::F16 | DType::F32 => floats((0..length).map(|index| index as f64).collect()),
            DType::U32 => ints((0..length).map(|index| index as u32).collect()),
        }
    }

    /// Converted: to `u32` by truncation, what is out of range to the nearest.
    pub(super) fn cast(&self, to: DType) -> Self {
        match (self, to) {
            (Value::Float(elements), DType::U32) => {
                ints(elements.iter().map(|&x| x as u32).collect())
            }
            (Value::Int(elements), DType::F16 | DType::F32) => {
                floats(elements.iter().map(|&x| f64::from(x)).collect())
            }
            (same, _) => same.clone(),
        }
    }

    /// As a tensor of that type holds it, if `round`.
    pub(super) fn stored_as(mut self, dtype: DType, round: bool) -> Self {
        if let (true, Value::Float(elements)) = (round, &mut self) {
            for element in elements {
                *element = rounded(*element, dtype);
            }
        }
        self
    }
}

/// To nearest even. An `f16` is rounded from an `f32`, as the machine's results
/// are, and is NaN where it overflows.
fn rounded(value: f64, dtype: DType) -> f64 {
    let single = value as f32;
    match dtype {
        DType::F16 => {
            let half = f16::from_f32(single).to_f64();
            if half.is_infinite() { f64::NAN } else { half }
        }
        DType::F32 => f64::from(single),
        DType::U32 => value,
    }
}

/// A tensor's value on every replica.
#[derive(Clone, Debug, PartialEq)]
pub enum PerReplica {
    /// The same on all.
    Same(Value),
    /// One for each replica.
    Each(Vec<Value>),
}

impl PerReplica {
    /// The value on one replica.
    ///
    /// # Panics
    /// If there are fewer replicas.
    #[must_use]
    pub fn on(&self, replica: usize) -> &Value {
        match self {
            PerReplica::Same(value) => value,
            PerReplica::Each(values) => &values[replica],
        }
    }

    /// One value for each replica, held once if they are equal.
    #[must_use]
    pub fn from_each(values: Vec<Value>) -> Self {
        match values.first() {
            Some(first) if values.iter().all(|value| value == first) => {
                PerReplica::Same(first.clone())
            }
            _ => PerReplica::Each(values),
        }
    }

    /// The values that are held.
    pub(super) fn distinct(&self) -> &[Value] {
        match self {
            PerReplica::Same(value) => std::slice::from_ref(value),
            PerReplica::Each(values) => values,
        }
    }

    pub(super) fn map(self, change: impl Fn(Value) -> Value) -> Self {
        match self {
            PerReplica::Same(value) => PerReplica::Same(change(value)),
            PerReplica::Each(values) => {
                PerReplica::from_each(values.into_iter().map(change).collect())
            }
        }
    }
}

impl From<Vec<f64>> for PerReplica {
    fn from(elements: Vec<f64>) -> Self {
        PerReplica::Same(floats(elements))
    }
}

impl From<Vec<u32>> for PerReplica {
    fn from(elements: Vec<u32>) -> Self {
        PerReplica::Same(ints(elements))
    }
}

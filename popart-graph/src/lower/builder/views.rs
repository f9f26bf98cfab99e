//! Tensors seen with other axes, copied where no view can show them so.

use super::Builder;
use crate::lower::value::Value;

impl Builder<'_> {
    /// A reshape that copies if it must: into one axis, which splits into any factors.
    pub(crate) fn reshape(&mut self, value: &Value, shape: &[u32]) -> Value {
        if let Some(value) = value.reshape(shape) {
            return value;
        }
        let elements = value.shape().iter().product();
        let flat = value.reshape(&[elements]).unwrap_or_else(|| {
            let layout = self.spread(&value.shape(), value.dtype);
            let var = self.rearrange_many(&[(value, &layout)], &self.part("reshaped"))[0];
            self.value_of(var)
                .reshape(&[elements])
                .expect("the axes of a whole variable join into one")
        });
        let layout = self.spread(&[elements], value.dtype);
        let var = self.rearrange_many(&[(&flat, &layout)], &self.part("reshaped"))[0];
        self.value_of(var)
            .reshape(shape)
            .expect("one axis splits into any factors of its extent")
    }

    /// A slice that copies if it must.
    pub(crate) fn slice(&mut self, value: &Value, axis: usize, begin: u32, end: u32) -> Value {
        value.slice(axis, begin, end).unwrap_or_else(|| {
            let layout = self.spread(&value.shape(), value.dtype);
            let var = self.relay(value, &layout, &self.part("sliced"));
            self.value_of(var)
                .slice(axis, begin, end)
                .expect("an axis of a whole variable can be cut anywhere")
        })
    }

    /// A concatenation that copies inputs that are concatenations along another axis.
    pub(crate) fn concat(&mut self, values: &[&Value], axis: usize) -> Value {
        let values: Vec<Value> = values
            .iter()
            .map(|value| {
                if value.parts.len() > 1 && value.axis != axis {
                    let layout = self.spread(&value.shape(), value.dtype);
                    let var = self.relay(value, &layout, &self.part("concatenated"));
                    self.value_of(var)
                } else {
                    (*value).clone()
                }
            })
            .collect();
        Value::concat(&values, axis).expect("parts lie along the axis of concatenation")
    }
}

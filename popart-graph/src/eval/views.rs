//! Other views of the same elements, and sums over axes.

use std::ops::Range;

use super::Local;
use super::value::{Value, count, floats, ints};
use crate::ir::Shape;

/// Row-major strides of `dims`.
fn strides(dims: &[u32]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis] as usize;
    }
    strides
}

/// `sum(index[axis] * strides[axis])` for every index into `dims`, row-major.
fn positions(dims: &[u32], strides: &[usize]) -> Vec<usize> {
    dims.iter()
        .zip(strides)
        .fold(vec![0], |outer, (&size, stride)| {
            let inner = 0..size as usize;
            outer
                .iter()
                .flat_map(|start| inner.clone().map(move |index| start + index * stride))
                .collect()
        })
}

/// Where each element of `to` comes from when `from` is stretched to it.
pub(super) fn stretched(from: &[u32], to: &[u32]) -> Vec<usize> {
    let mut own = strides(from);
    for (stride, &size) in own.iter_mut().zip(from) {
        if size == 1 {
            *stride = 0;
        }
    }
    let mut all = vec![0; to.len() - from.len()];
    all.extend(own);
    positions(to, &all)
}

/// The elements at `positions`.
fn picked(value: &Value, positions: &[usize]) -> Value {
    match value {
        Value::Float(elements) => floats(positions.iter().map(|&at| elements[at]).collect()),
        Value::Int(elements) => ints(positions.iter().map(|&at| elements[at]).collect()),
    }
}

pub(super) fn broadcast(x: Local<'_>, shape: &Shape) -> Value {
    picked(x.value, &stretched(x.dims(), shape.dims()))
}

pub(super) fn transpose(x: Local<'_>, perm: &[u32]) -> Value {
    let old = strides(x.dims());
    let dims: Vec<u32> = perm.iter().map(|&axis| x.dims()[axis as usize]).collect();
    let strides: Vec<usize> = perm.iter().map(|&axis| old[axis as usize]).collect();
    picked(x.value, &positions(&dims, &strides))
}

/// A tensor seen as `[outer, along the axis, inner]`.
fn around(dims: &[u32], axis: u32) -> [usize; 3] {
    let axis = axis as usize;
    let product = |dims: &[u32]| dims.iter().map(|&size| size as usize).product();
    [
        product(&dims[..axis]),
        dims[axis] as usize,
        product(&dims[axis + 1..]),
    ]
}

pub(super) fn slice(x: Local<'_>, axis: u32, begin: u32, end: u32) -> Value {
    let [outer, size, inner] = around(x.dims(), axis);
    let run = begin as usize * inner..end as usize * inner;
    let positions: Vec<usize> = (0..outer)
        .flat_map(|block| run.clone().map(move |at| block * size * inner + at))
        .collect();
    picked(x.value, &positions)
}

pub(super) fn concat(operands: &[Local<'_>], axis: u32) -> Value {
    let [outer, ..] = around(operands[0].dims(), axis);
    let blocks = (0..outer).flat_map(|block| {
        operands.iter().map(move |operand| {
            let length = operand.value.len() / outer;
            (operand.value, block * length..(block + 1) * length)
        })
    });
    match operands[0].value {
        Value::Float(_) => floats(
            blocks
                .flat_map(|(value, run)| value.as_floats()[run].iter().copied())
                .collect(),
        ),
        Value::Int(_) => ints(
            blocks
                .flat_map(|(value, run)| value.as_ints()[run].iter().copied())
                .collect(),
        ),
    }
}

pub(super) fn pad(x: Local<'_>, axis: u32, before: u32, after: u32) -> Value {
    let [outer, size, inner] = around(x.dims(), axis);
    let (before, after) = (before as usize * inner, after as usize * inner);
    let block = size * inner;
    let mut result = Vec::with_capacity(outer * (before + block + after));
    for index in 0..outer {
        result.resize(result.len() + before, 0.0);
        result.extend(&x.floats()[index * block..][..block]);
        result.resize(result.len() + after, 0.0);
    }
    floats(result)
}

pub(super) fn reduce_sum(x: Local<'_>, axes: &[u32]) -> Value {
    let kept: Shape = (0_u32..)
        .zip(x.dims())
        .map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size })
        .collect();
    let mut sums = vec![0.0; count(&kept)];
    for (&x, to) in x.floats().iter().zip(stretched(kept.dims(), x.dims())) {
        sums[to] += x;
    }
    floats(sums)
}

/// The elements of `piece`, with zeros up to `length`.
pub(super) fn padded_piece(value: &Value, piece: Range<usize>, length: usize) -> Value {
    match value {
        Value::Float(elements) => {
            let mut elements = elements[piece].to_vec();
            elements.resize(length, 0.0);
            floats(elements)
        }
        Value::Int(elements) => {
            let mut elements = elements[piece].to_vec();
            elements.resize(length, 0);
            ints(elements)
        }
    }
}

/// One after the other, of which the first `length` elements.
pub(super) fn joined<'a>(values: impl Iterator<Item = &'a Value>, length: usize) -> Value {
    let values: Vec<&Value> = values.collect();
    match values[0] {
        Value::Float(_) => {
            let all = values.iter().flat_map(|value| value.as_floats());
            floats(all.take(length).copied().collect())
        }
        Value::Int(_) => {
            let all = values.iter().flat_map(|value| value.as_ints());
            ints(all.take(length).copied().collect())
        }
    }
}

//! Graphs for tests: one use of every kind, and random valid ones.

mod random;
mod uses;

pub(crate) use random::graphs;
pub(crate) use uses::every_kind;

use crate::ir::{
    Graph, MatMulPass, MemoryProportion, OpKind, Partials, Scope, TensorId, TensorType,
    dtype_from_name,
};

/// `"f16[2,3] u32[]"` as types.
pub(crate) fn types(text: &str) -> Vec<TensorType> {
    text.split_whitespace()
        .map(|word| {
            let (dtype, dims) = word.trim_end_matches(']').split_once('[').unwrap();
            let dims = dims.split(',').filter(|size| !size.is_empty());
            TensorType {
                dtype: dtype_from_name(dtype).unwrap(),
                shape: dims.map(|size| size.parse::<u32>().unwrap()).collect(),
            }
        })
        .collect()
}

/// A matrix product with the given pass.
pub(crate) fn matmul(pass: MatMulPass) -> OpKind {
    OpKind::MatMul {
        pass,
        available_memory_proportion: MemoryProportion::new(0.25).unwrap(),
        partials: Partials::Half,
    }
}

/// A graph with one operation on streams of the given types, all results read.
pub(crate) fn single(kind: OpKind, operands: &[TensorType]) -> Graph {
    let mut graph = Graph::default();
    let inputs: Vec<TensorId> = operands
        .iter()
        .map(|ty| graph.stream("operand", ty.dtype, ty.shape.clone()))
        .collect();
    let op = graph.add_op(kind, &inputs, &Scope::named("op")).unwrap();
    graph.outputs = graph.ops[op].outputs.to_vec();
    graph
}

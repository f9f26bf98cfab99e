//! Graphs for tests: one use of every kind, and random valid ones.

mod random;
mod uses;

pub(crate) use random::graphs;
pub(crate) use uses::every_kind;

use ipu_sim::ids::Id;
use ipu_sim::numerics::DType;

use crate::eval::{Inputs, PerReplica};
use crate::ir::{
    Graph, MatMulPass, MemoryProportion, OpKind, Partials, Piece, Scope, TensorId, TensorKind,
    TensorType, dtype_from_name,
};
use crate::text::{parse, print};

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
        piece: Piece::Whole,
    }
}

/// A pass does what the header of its file shows: the graph between `before` and `after` becomes
/// the one behind `after`.
#[track_caller]
pub(crate) fn check_header(source: &str, pass: impl FnOnce(Graph) -> Graph) {
    let header = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines: Vec<&str> = header
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let find = |wanted: &str, from: usize| {
        let found = lines[from..].iter().position(|line| *line == wanted);
        from + found.unwrap_or_else(|| panic!("the header has no line `{wanted}`"))
    };
    let before = find("before", 0);
    let after = find("after", before);
    let end = find("```", after);
    let text = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let graph = parse(&text(&lines[before + 1..after])).expect("the graph before parses");
    let (got, expected) = (print(&pass(graph)), text(&lines[after + 1..end]));
    assert!(
        got == expected,
        "the header shows\n{expected}but the pass gives\n{got}<end>"
    );
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

/// Small whole numbers for all streams and variables, differing by `seed`: -2 to 2
/// for floats, 0 to 2 for integers. Sums of products of them are exact.
pub(crate) fn sample_inputs(graph: &Graph, seed: u32) -> Inputs {
    let mut inputs = Inputs::new();
    for (id, tensor) in graph.tensors.iter() {
        if !matches!(
            tensor.kind,
            TensorKind::Stream | TensorKind::Variable { .. }
        ) {
            continue;
        }
        let length = u32::try_from(tensor.shape.elements().0).unwrap();
        let start = seed.wrapping_mul(7) + 3 * id.index() as u32;
        let numbers = (0..u64::from(length))
            .map(|index| ((u64::from(start) + index * (index + 5)) % 11) as u32);
        let value: PerReplica = match tensor.dtype {
            DType::U32 => numbers.map(|n| n % 3).collect::<Vec<u32>>().into(),
            _ => numbers
                .map(|n| f64::from(n % 5) - 2.0)
                .collect::<Vec<f64>>()
                .into(),
        };
        inputs.insert(id, value);
    }
    inputs
}

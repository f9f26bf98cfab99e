//! The graph as text, and back.
//!
//! One part of the model, one tensor without a producer, or one operation, on each line:
//!
//! ```text
//! part0 = "Layer3" repeated
//! part1 = "Attention" in part0
//! variable %0: f16[768,768] = truncated_normal(0.0, 0.02) part1 "Out"
//! stream %1: f16[128,768] "x"
//! %2: f16[128,768] = matmul(%1, %0) {pass: training_fwd, proportion: 0.25, partials: half} @ipu1 stage1 part1 fwd recompute "Layer3/Out"
//! inputs %1
//! outputs %2
//! ```
//!
//! Tensors go by their numbers, which grow with the ids and have gaps where passes removed some;
//! operations stand in the order of the arena, but none before what it reads: what a pass put in
//! later stands in front of its first reader. So two texts of one graph, before and after a pass,
//! differ in what the pass did (`diff`), and the arena's order is that of first results.
//! `parse(&print(graph))` gives an equal graph. What is left out has one meaning:
//! no IPU, no stage, no part, a checkpoint (not `recompute`), no purpose, a whole product, a single
//! part (not `repeated`), and for a result that has no name of its own the name and the part of its
//! operation; a `#` starts a comment. [`print()`] takes malformed graphs too, so
//! that a failed check can show them. [`parse()`] refuses what breaks the form of
//! the text and leaves the rules of graphs to [`crate::verify`].

mod attributes;
mod error;
mod lexer;
mod parser;

pub use error::ParseError;
pub use parser::parse;

use ipu_sim::ids::IdVec;

use crate::ir::{
    Constant, Graph, Init, Op, OpId, Part, PartId, PartKind, Purpose, Recompute, Tensor, TensorId,
    TensorKind,
};

/// The text of a graph.
#[must_use]
pub fn print(graph: &Graph) -> String {
    let parts = graph.parts.iter();
    let mut lines: Vec<String> = parts.map(|(id, part)| part_line(id, part)).collect();
    let produced = produced(graph);
    for (id, tensor) in graph.tensors.iter() {
        if tensor.kind != TensorKind::Activation || !produced[id] {
            lines.push(source_line(tensor));
        }
    }
    let order = reading_order(graph);
    lines.extend(order.into_iter().map(|op| op_line(graph, &graph.ops[op])));
    for (word, ids) in [("inputs", &graph.inputs), ("outputs", &graph.outputs)] {
        if !ids.is_empty() {
            lines.push(format!("{word} {}", list(graph, ids)));
        }
    }
    for (variable, value) in &graph.updates {
        let [variable, value] = [variable, value].map(|&id| called(graph, id));
        lines.push(format!("update {variable} = {value}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// All operations in the order of the arena, but none before those it reads from, unless they form
/// a circle.
fn reading_order(graph: &Graph) -> Vec<OpId> {
    let mut producers: IdVec<TensorId, Option<OpId>> = vec![None; graph.tensors.len()].into();
    for (id, op) in graph.ops.iter() {
        for &output in &op.outputs {
            if graph.tensors.get(output).is_some() {
                producers[output] = Some(id);
            }
        }
    }
    let mut seen: IdVec<OpId, bool> = vec![false; graph.ops.len()].into();
    let mut order = Vec::with_capacity(graph.ops.len());
    for id in graph.ops.ids() {
        // Operations on the way, each with how many operands are done.
        let mut open = Vec::new();
        if !std::mem::replace(&mut seen[id], true) {
            open.push((id, 0));
        }
        while let Some((id, done)) = open.last_mut() {
            let Some(&input) = graph.ops[*id].inputs.get(*done) else {
                order.push(*id);
                open.pop();
                continue;
            };
            *done += 1;
            if let Some(&Some(producer)) = producers.get(input)
                && !std::mem::replace(&mut seen[producer], true)
            {
                open.push((producer, 0));
            }
        }
    }
    order
}

/// Which tensors are results, also where ids are out of range.
fn produced(graph: &Graph) -> IdVec<TensorId, bool> {
    let mut produced = IdVec::from(vec![false; graph.tensors.len()]);
    for &output in graph.ops.values().flat_map(|op| &op.outputs) {
        if graph.tensors.get(output).is_some() {
            produced[output] = true;
        }
    }
    produced
}

/// What text calls a tensor; its id where there is none.
fn called(graph: &Graph, id: TensorId) -> String {
    let number = graph.tensors.get(id).map(|tensor| tensor.number);
    number.map_or_else(|| id.to_string(), |number| format!("%{number}"))
}

fn part_line(id: PartId, part: &Part) -> String {
    let mut line = format!("{id} = {}", quoted(&part.name));
    if part.kind != PartKind::Single {
        line += &format!(" {}", part.kind.name());
    }
    if let Some(within) = part.within {
        line += &format!(" in {within}");
    }
    line
}

/// ` part1`, or nothing.
fn part_word(part: Option<PartId>) -> String {
    part.map_or(String::new(), |part| format!(" {part}"))
}

fn source_line(tensor: &Tensor) -> String {
    let ty = tensor.ty();
    let (word, value) = match &tensor.kind {
        TensorKind::Variable { init } => ("variable", init.as_ref().map(init_words)),
        TensorKind::Constant(Constant::Splat(value)) => {
            ("constant", Some(format!("splat({value:?})")))
        }
        TensorKind::Constant(Constant::Iota) => ("constant", Some("iota".to_owned())),
        TensorKind::Stream => ("stream", None),
        TensorKind::Activation => ("activation", None),
    };
    let value = value.map_or(String::new(), |value| format!(" = {value}"));
    format!(
        "{word} %{}: {ty}{value}{} {}",
        tensor.number,
        part_word(tensor.part),
        quoted(&tensor.name)
    )
}

fn init_words(init: &Init) -> String {
    match init {
        Init::Zeros => "zeros".to_owned(),
        Init::Ones => "ones".to_owned(),
        Init::Splat(value) => format!("splat({value:?})"),
        Init::TruncatedNormal { mean, std_dev } => {
            format!("truncated_normal({mean:?}, {std_dev:?})")
        }
    }
}

fn op_line(graph: &Graph, op: &Op) -> String {
    let results: Vec<String> = op
        .outputs
        .iter()
        .map(|&id| match graph.tensors.get(id) {
            Some(tensor) if tensor.name == op.name && tensor.part == op.part => {
                format!("%{}: {}", tensor.number, tensor.ty())
            }
            Some(tensor) => {
                let (name, part) = (quoted(&tensor.name), part_word(tensor.part));
                format!("%{} {name}{part}: {}", tensor.number, tensor.ty())
            }
            None => format!("{id}: missing"),
        })
        .collect();
    let mut line = format!(
        "{} = {}({})",
        results.join(", "),
        op.kind.name(),
        list(graph, &op.inputs)
    );
    let attributes: Vec<String> = attributes::of_kind(&op.kind)
        .into_iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    if !attributes.is_empty() {
        line += &format!(" {{{}}}", attributes.join(", "));
    }
    if let Some(ipu) = op.ipu {
        line += &format!(" @ipu{}", ipu.0);
    }
    if let Some(stage) = op.stage {
        line += &format!(" {stage}");
    }
    line += &part_word(op.part);
    line += &format!(" {}", op.phase.name());
    if op.recompute == Recompute::Recompute {
        line += &format!(" {}", op.recompute.name());
    }
    if op.purpose != Purpose::General {
        line += &format!(" {}", op.purpose.name());
    }
    line + " " + &quoted(&op.name)
}

fn list(graph: &Graph, ids: &[TensorId]) -> String {
    let words: Vec<String> = ids.iter().map(|&id| called(graph, id)).collect();
    words.join(", ")
}

/// A name between quotes, on one line whatever it holds.
fn quoted(name: &str) -> String {
    let mut text = String::from("\"");
    for character in name.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests;

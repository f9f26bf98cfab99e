//! From text to a graph.

use std::collections::BTreeMap;

use ipu_sim::ids::IpuId;
use smallvec::SmallVec;

use super::attributes::{Reader, read_kind};
use super::error::{ParseError, Result};
use super::lexer::{Line, Token};
use crate::ir::{
    Constant, Graph, Init, Op, Part, PartId, PartKind, Parts, Phase, Purpose, Recompute, Shape,
    StageId, Tensor, TensorId, TensorKind, TensorType, dtype_from_name,
};

/// The graph of a text in the form of [`crate::text`].
///
/// # Errors
/// [`ParseError`] with the first line that breaks the form, or with the last
/// line if an id is used and never introduced.
pub fn parse(text: &str) -> Result<Graph> {
    let mut graph = Graph::default();
    let mut tensors = BTreeMap::new();
    let mut n_lines = 0;
    for (position, text) in text.lines().enumerate() {
        n_lines = position + 1;
        let mut line = Line::new(n_lines, text)?;
        if !line.is_at_end() {
            statement(&mut line, &mut graph, &mut tensors)?;
        }
        if !line.is_at_end() {
            return Err(line.unexpected("the end of the line"));
        }
    }
    with_ids(graph, tensors, n_lines)
}

/// The graph with ids for numbers, and operations in the order of their first results.
fn with_ids(
    mut graph: Graph,
    tensors: BTreeMap<TensorId, Tensor>,
    n_lines: usize,
) -> Result<Graph> {
    let mut ids: BTreeMap<TensorId, TensorId> = BTreeMap::new();
    for (number, tensor) in tensors {
        ids.insert(number, graph.tensors.push(tensor));
    }
    let mut ops: Vec<Op> = graph.ops.values().cloned().collect();
    ops.sort_by_key(|op| op.outputs.first().copied());
    graph.ops = ops.into();
    let of_ops = graph
        .ops
        .values_mut()
        .flat_map(|op| op.inputs.iter_mut().chain(&mut op.outputs));
    let of_updates = graph.updates.iter_mut().flat_map(|(to, from)| [to, from]);
    let lists = graph.inputs.iter_mut().chain(&mut graph.outputs);
    for id in of_ops.chain(of_updates).chain(lists) {
        *id = *ids.get(id).ok_or_else(|| ParseError {
            line: n_lines,
            expected: "a line for every tensor that is used",
            got: id.to_string(),
        })?;
    }
    Ok(graph)
}

fn statement(
    line: &mut Line<'_>,
    graph: &mut Graph,
    tensors: &mut BTreeMap<TensorId, Tensor>,
) -> Result<()> {
    match line.try_word() {
        None => {
            let op = operation(line, tensors)?;
            graph.ops.push(op);
        }
        Some("variable") => source(line, tensors, |line| {
            let init = if line.try_sign('=') {
                Some(initial(line)?)
            } else {
                None
            };
            Ok(TensorKind::Variable { init })
        })?,
        Some("constant") => source(line, tensors, |line| {
            line.sign('=', "the value of the constant")?;
            Ok(TensorKind::Constant(constant(line)?))
        })?,
        Some("stream") => source(line, tensors, |_| Ok(TensorKind::Stream))?,
        Some("activation") => source(line, tensors, |_| Ok(TensorKind::Activation))?,
        Some("inputs") => graph.inputs = ids(line)?,
        Some("outputs") => graph.outputs = ids(line)?,
        Some("update") => {
            let variable = line.tensor()?;
            line.sign('=', "the variable's next value")?;
            graph.updates.push((variable, line.tensor()?));
        }
        Some(other) if part(other).is_some() => declare(line, other, &mut graph.parts)?,
        Some(other) => {
            return Err(ParseError {
                line: line.number,
                expected: "a part, a tensor, an operation, inputs, outputs or an update",
                got: other.to_owned(),
            });
        }
    }
    Ok(())
}

/// `part1 = "Attention" in part0`, from the sign on.
fn declare(line: &mut Line<'_>, id: &str, parts: &mut Parts) -> Result<()> {
    line.sign('=', "the name of the part")?;
    let new = Part {
        name: name(line)?,
        kind: line
            .try_take(word(PartKind::from_name))
            .unwrap_or(PartKind::Single),
        within: match line.try_take(word(|word| (word == "in").then_some(()))) {
            Some(()) => Some(line.take("the part that it is in", word(part))?),
            None => None,
        },
    };
    let refused = |expected, got| ParseError {
        line: line.number,
        expected,
        got,
    };
    if let Some(within) = new.within
        && parts.get(within).is_none()
    {
        let expected = "a part that has been introduced";
        return Err(refused(expected, within.to_string()));
    }
    if part(id) == Some(parts.add(new)) {
        return Ok(());
    }
    let expected = "parts that differ, numbered from 0";
    Err(refused(expected, id.to_owned()))
}

/// `%1, %2` up to the end of the line, at least one.
fn ids(line: &mut Line<'_>) -> Result<Vec<TensorId>> {
    let mut ids = vec![line.tensor()?];
    while line.try_sign(',') {
        ids.push(line.tensor()?);
    }
    Ok(ids)
}

/// A tensor without a producer; `kind` reads what stands between type and name.
fn source<'a>(
    line: &mut Line<'a>,
    tensors: &mut BTreeMap<TensorId, Tensor>,
    kind: impl FnOnce(&mut Line<'a>) -> Result<TensorKind>,
) -> Result<()> {
    let id = line.tensor()?;
    line.sign(':', "a colon and the tensor's type")?;
    let ty = tensor_type(line)?;
    let kind = kind(line)?;
    let part = line.try_take(word(part));
    let name = name(line)?;
    introduce(line, tensors, id, (ty, kind), (name, part))
}

fn introduce(
    line: &mut Line<'_>,
    tensors: &mut BTreeMap<TensorId, Tensor>,
    id: TensorId,
    (ty, kind): (TensorType, TensorKind),
    (name, part): (String, Option<PartId>),
) -> Result<()> {
    let tensor = Tensor {
        number: id.0,
        name,
        dtype: ty.dtype,
        shape: ty.shape,
        kind,
        part,
    };
    match tensors.insert(id, tensor) {
        None => Ok(()),
        Some(_) => Err(ParseError {
            line: line.number,
            expected: "an id that is not taken",
            got: id.to_string(),
        }),
    }
}

fn name(line: &mut Line<'_>) -> Result<String> {
    line.try_name()
        .ok_or_else(|| line.unexpected("a name in quotes"))
}

fn tensor_type(line: &mut Line<'_>) -> Result<TensorType> {
    let dtype = line.take("f16, f32 or u32", |token| match token {
        Token::Word(word) => dtype_from_name(word),
        _ => None,
    })?;
    line.sign('[', "a shape")?;
    let dims = line.list(']', |line| line.number("a size below 2^32"))?;
    Ok(TensorType::new(dtype, Shape(dims)))
}

fn splat(line: &mut Line<'_>) -> Result<f64> {
    line.sign('(', "a number in parentheses")?;
    let value = line.finite("a number")?;
    line.sign(')', "a closing parenthesis")?;
    Ok(value)
}

fn initial(line: &mut Line<'_>) -> Result<Init> {
    match line.try_word() {
        Some("zeros") => Ok(Init::Zeros),
        Some("ones") => Ok(Init::Ones),
        Some("splat") => Ok(Init::Splat(splat(line)?)),
        Some("truncated_normal") => {
            line.sign('(', "mean and standard deviation in parentheses")?;
            let mean = line.finite("the mean")?;
            line.sign(',', "a comma")?;
            let std_dev = line.finite("the standard deviation")?;
            line.sign(')', "a closing parenthesis")?;
            Ok(Init::TruncatedNormal { mean, std_dev })
        }
        _ => Err(line.unexpected("zeros, ones, splat or truncated_normal")),
    }
}

fn constant(line: &mut Line<'_>) -> Result<Constant> {
    match line.try_word() {
        Some("iota") => Ok(Constant::Iota),
        Some("splat") => Ok(Constant::Splat(splat(line)?)),
        _ => Err(line.unexpected("iota or splat")),
    }
}

/// `ipu3`.
pub(super) fn ipu(word: &str) -> Option<IpuId> {
    word.strip_prefix("ipu")?.parse().ok().map(IpuId)
}

fn stage(word: &str) -> Option<StageId> {
    word.strip_prefix("stage")?.parse().ok().map(StageId)
}

/// `part3`.
fn part(word: &str) -> Option<PartId> {
    word.strip_prefix("part")?.parse().ok().map(PartId)
}

fn word<'a, T>(meaning: impl Fn(&str) -> Option<T>) -> impl Fn(&Token<'a>) -> Option<T> {
    move |token| match token {
        Token::Word(word) => meaning(word),
        _ => None,
    }
}

/// `%2: f16[4] = kind(%0, %1) {..} @ipu0 stage1 part0 fwd recompute scores "name"`.
fn operation(line: &mut Line<'_>, tensors: &mut BTreeMap<TensorId, Tensor>) -> Result<Op> {
    let mut results = Vec::new();
    while !line.try_sign('=') {
        if !results.is_empty() {
            line.sign(',', "a comma or `=`")?;
        }
        let id = line.tensor()?;
        let name = line.try_name();
        let part = name.as_ref().and_then(|_| line.try_take(word(part)));
        line.sign(':', "a colon and the result's type")?;
        results.push((id, name.map(|name| (name, part)), tensor_type(line)?));
    }
    let Some(kind) = line.try_word() else {
        return Err(line.unexpected("an operation"));
    };
    line.sign('(', "the operands in parentheses")?;
    let inputs: SmallVec<[TensorId; 4]> = line.list(')', Line::tensor)?;
    let mut attributes = Reader::new(line)?;
    let kind = read_kind(kind, &mut attributes)?.ok_or_else(|| ParseError {
        line: line.number,
        expected: "an operation",
        got: kind.to_owned(),
    })?;
    attributes.finish()?;
    let ipu = if line.try_sign('@') {
        Some(line.take("an IPU", word(ipu))?)
    } else {
        None
    };
    let stage = line.try_take(word(stage));
    let part = line.try_take(word(part));
    let phase = line.take("a phase", word(Phase::from_name))?;
    let recompute = line
        .try_take(word(Recompute::from_name))
        .unwrap_or(Recompute::Checkpoint);
    let purpose = line
        .try_take(word(Purpose::from_name))
        .unwrap_or(Purpose::General);
    let name = name(line)?;
    let mut outputs = SmallVec::new();
    for (id, own, ty) in results {
        outputs.push(id);
        let own = own.unwrap_or_else(|| (name.clone(), part));
        introduce(line, tensors, id, (ty, TensorKind::Activation), own)?;
    }
    Ok(Op {
        kind,
        inputs,
        outputs,
        name,
        ipu,
        stage,
        part,
        phase,
        recompute,
        purpose,
    })
}

//! Reference numerics of every operation.
//!
//! What a graph computes, as plainly as it can be written: `f64` all the way, in
//! row-major order, with no tiles, plans or passes. [`EvalOptions::round_to_dtype`]
//! rounds every tensor to its element type when it is made, and nothing in
//! between; the machine also rounds partial sums, which belongs to the lowered
//! program. Exponentials and the like come from `libm`, the same everywhere.
//!
//! Replicas are evaluated side by side. A value that all replicas share is held
//! and computed once, so data parallelism on equal micro-batches costs nothing,
//! and a shard is what it is on the machine: another value on every replica.
//! Replica `r` has shard `r % shards`, a contiguous piece of the flattened tensor;
//! the machine deals out elements in another order, which no result shows.

mod collectives;
mod elementwise;
mod error;
mod loss;
mod matmul;
mod rows;
mod update;
mod value;
mod views;

use std::collections::BTreeMap;

use ipu_sim::ids::IdVec;
use ipu_sim::numerics::DType;
use smallvec::{SmallVec, smallvec};

pub use error::EvalError;
pub use value::{PerReplica, Value};

use crate::ir::{
    Constant, Graph, Init, Op, OpId, OpKind, OpLabel, Tensor, TensorId, TensorKind, TensorType,
    dtype_name,
};
use error::Result;
use value::floats;

/// Values of streams and variables by tensor.
pub type Inputs = BTreeMap<TensorId, PerReplica>;

/// Values of all tensors of a graph; of one that no operation makes or reads any more, no numbers.
pub type Values = IdVec<TensorId, PerReplica>;

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalOptions {
    /// Whether each tensor is rounded to its element type, to nearest even, an
    /// `f16` that overflows becoming NaN; else all floats are kept as `f64`.
    pub round_to_dtype: bool,
    /// Data-parallel copies of the graph, at least 1.
    pub replicas: u32,
}

/// Evaluates a well-formed graph once. Variables that `inputs` doesn't give start
/// from their initialiser, if that is one number everywhere.
///
/// # Errors
/// A value is missing or doesn't fit its tensor; the replicas can't hold the
/// graph's shards; a label is outside its classes; the graph has a cycle.
pub fn eval(graph: &Graph, inputs: &Inputs, options: EvalOptions) -> Result<Values> {
    let mut values = sources(graph, inputs, options)?;
    for op in graph.topological_order()? {
        let operands = graph.ops[op].inputs.iter();
        let operands: SmallVec<[&PerReplica; 4]> = operands
            .map(|&id| values[id].as_ref().expect("producers come first"))
            .collect();
        let results = eval_op(graph, op, &operands, options)?;
        drop(operands);
        for (&id, result) in graph.ops[op].outputs.iter().zip(results) {
            values[id] = Some(result);
        }
    }
    let nothing = || PerReplica::Same(Value::Float(Vec::new()));
    let taken = |value: &mut Option<PerReplica>| value.take().unwrap_or_else(nothing);
    Ok(values.values_mut().map(taken).collect())
}

/// The values of tensors that no operation makes; variables that `inputs` doesn't give start from
/// their initialiser, as in [`eval`].
///
/// # Errors
/// A value is missing or doesn't fit its tensor.
pub fn sources(
    graph: &Graph,
    inputs: &Inputs,
    options: EvalOptions,
) -> Result<IdVec<TensorId, Option<PerReplica>>> {
    let of_tensor = |(id, tensor): (TensorId, &Tensor)| match tensor.kind {
        TensorKind::Activation => Ok(None),
        _ => source_value(id, tensor, inputs, options).map(Some),
    };
    graph.tensors.iter().map(of_tensor).collect()
}

/// Evaluates one operation of a well-formed graph, given the values of its operands in order; for
/// those who walk a graph in another way than [`eval`].
///
/// # Errors
/// The replicas can't hold the graph's shards; a label is outside its classes.
pub fn eval_op(
    graph: &Graph,
    op: OpId,
    operands: &[&PerReplica],
    options: EvalOptions,
) -> Result<SmallVec<[PerReplica; 2]>> {
    let op = &graph.ops[op];
    let results = op_values(graph, op, operands, options)?;
    let stored = op.outputs.iter().zip(results).map(|(&id, result)| {
        let dtype = graph.tensors[id].dtype;
        result.map(|value| value.stored_as(dtype, options.round_to_dtype))
    });
    Ok(stored.collect())
}

/// Gives the variables of `inputs` the values that they have after the run.
pub fn apply_updates(graph: &Graph, values: &Values, inputs: &mut Inputs) {
    for &(variable, value) in &graph.updates {
        inputs.insert(variable, values[value].clone());
    }
}

/// An operand: its type on one replica and its values on all.
struct Operand<'a> {
    ty: TensorType,
    value: &'a PerReplica,
}

fn source_value(
    id: TensorId,
    tensor: &Tensor,
    inputs: &Inputs,
    options: EvalOptions,
) -> Result<PerReplica> {
    let length = value::count(&tensor.shape);
    let splat = |value: f64| PerReplica::Same(Value::splat(tensor.dtype, length, value));
    let given = match (inputs.get(&id), &tensor.kind) {
        (_, TensorKind::Constant(Constant::Splat(value))) => splat(*value),
        (_, TensorKind::Constant(Constant::Iota)) => {
            PerReplica::Same(Value::iota(tensor.dtype, length))
        }
        (Some(given), _) => {
            check_value(id, tensor, given, options.replicas)?;
            given.clone()
        }
        (None, TensorKind::Variable { init: Some(init) }) => match init {
            Init::Zeros => splat(0.0),
            Init::Ones => splat(1.0),
            Init::Splat(value) => splat(*value),
            Init::TruncatedNormal { .. } => return Err(missing(id, tensor)),
        },
        (None, _) => return Err(missing(id, tensor)),
    };
    Ok(given.map(|value| value.stored_as(tensor.dtype, options.round_to_dtype)))
}

fn missing(id: TensorId, tensor: &Tensor) -> EvalError {
    EvalError::ValueMissing {
        tensor: id,
        name: tensor.name.clone(),
    }
}

fn check_value(id: TensorId, tensor: &Tensor, given: &PerReplica, replicas: u32) -> Result<()> {
    if let PerReplica::Each(each) = given
        && each.len() != replicas as usize
    {
        return Err(EvalError::ValueReplicas {
            tensor: id,
            name: tensor.name.clone(),
            expected: replicas,
            got: each.len(),
        });
    }
    let expected = value::count(&tensor.shape);
    for value in given.distinct() {
        if value.len() != expected || value.is_float() == (tensor.dtype == DType::U32) {
            return Err(EvalError::ValueSize {
                tensor: id,
                name: tensor.name.clone(),
                expected,
                dtype: dtype_name(tensor.dtype),
                got: value.len(),
                got_dtype: if value.is_float() { "floats" } else { "u32" },
            });
        }
    }
    Ok(())
}

type Results = SmallVec<[PerReplica; 2]>;

fn op_values(
    graph: &Graph,
    op: &Op,
    values: &[&PerReplica],
    options: EvalOptions,
) -> Result<Results> {
    let operands: SmallVec<[Operand<'_>; 4]> = op
        .inputs
        .iter()
        .zip(values)
        .map(|(&id, &value)| Operand {
            ty: graph.tensors[id].ty(),
            value,
        })
        .collect();
    let label = || OpLabel::new(&op.kind, &op.name);
    if let Some(results) = collectives::eval(&op.kind, &operands, options.replicas, &label) {
        return results;
    }
    let result = graph.tensors[op.outputs[0]].ty();
    let on_replica = |replica: usize| {
        let locals: SmallVec<[Local<'_>; 4]> = operands
            .iter()
            .map(|operand| Local {
                ty: &operand.ty,
                value: operand.value.on(replica),
            })
            .collect();
        local(&op.kind, &locals, &result, &label)
    };
    let same = |operand: &Operand<'_>| matches!(operand.value, PerReplica::Same(_));
    if operands.iter().all(same) {
        let results = on_replica(0)?;
        return Ok(results.into_iter().map(PerReplica::Same).collect());
    }
    let mut each: SmallVec<[Vec<Value>; 2]> = smallvec![Vec::new(); op.outputs.len()];
    for replica in 0..options.replicas as usize {
        for (all, value) in each.iter_mut().zip(on_replica(replica)?) {
            all.push(value);
        }
    }
    Ok(each.into_iter().map(PerReplica::from_each).collect())
}

/// An operand on one replica.
#[derive(Clone, Copy)]
struct Local<'a> {
    ty: &'a TensorType,
    value: &'a Value,
}

impl<'a> Local<'a> {
    fn floats(self) -> &'a [f64] {
        self.value.as_floats()
    }

    fn ints(self) -> &'a [u32] {
        self.value.as_ints()
    }

    fn dims(self) -> &'a [u32] {
        self.ty.shape.dims()
    }

    /// The number of a scalar.
    fn number(self) -> f64 {
        self.floats()[0]
    }
}

/// The values of an operation on one replica; `result` is the first one's type.
fn local(
    kind: &OpKind,
    operands: &[Local<'_>],
    result: &TensorType,
    label: &dyn Fn() -> OpLabel,
) -> Result<SmallVec<[Value; 2]>> {
    let x = operands[0];
    let value = match kind {
        OpKind::MatMul { .. } => floats(matmul::matmul(x, operands[1])),
        OpKind::Binary(function) => elementwise::binary(*function, x, operands[1], &result.shape),
        OpKind::Scale { factor } => elementwise::map(x, |x| x * factor),
        OpKind::Unary(function) => {
            let function = *function;
            elementwise::map(x, |x| elementwise::unary(function, x))
        }
        OpKind::UnaryGrad(function) => {
            let function = *function;
            elementwise::zip(x, operands[1], |saved, dy| {
                dy * elementwise::derivative(function, saved)
            })
        }
        OpKind::Cast { to } => x.value.cast(*to),
        OpKind::Identity
        | OpKind::Detach
        | OpKind::Reshape { .. }
        | OpKind::IpuCopy { .. }
        | OpKind::Stash { .. }
        | OpKind::Restore { .. }
        | OpKind::CallInput
        | OpKind::CallOutput
        | OpKind::RemoteLoad
        | OpKind::RemoteStore => x.value.clone(),

        OpKind::Transpose { perm } => views::transpose(x, perm),
        OpKind::Slice { axis, begin, end } => views::slice(x, *axis, *begin, *end),
        OpKind::Concat { axis } => views::concat(operands, *axis),
        OpKind::Pad {
            axis,
            before,
            after,
        } => views::pad(x, *axis, *before, *after),
        OpKind::Broadcast { shape } => views::broadcast(x, shape),
        OpKind::ReduceSum { axes, .. } => views::reduce_sum(x, axes),

        OpKind::Softmax => rows::softmax(x),
        OpKind::SoftmaxGrad => rows::softmax_grad(x, operands[1]),
        OpKind::LayerNorm { epsilon } => {
            return Ok(rows::layer_norm(x, operands[1], operands[2], *epsilon).into());
        }
        OpKind::LayerNormGrad => {
            let &[x, gamma, mean, inv_std, dy] = operands else {
                panic!("five operands");
            };
            return Ok(rows::layer_norm_grad(x, gamma, mean, inv_std, dy).into());
        }
        OpKind::Dropout { probability, id } => rows::dropout(x, operands[1], *probability, *id),
        OpKind::Gather { first_row } => rows::gather(x, operands[1], *first_row),
        OpKind::GatherGrad { first_row, rows } => {
            let columns = x.dims()[1] as usize;
            let mut sums = vec![0.0; *rows as usize * columns];
            rows::scatter_add(&mut sums, x, operands[1], *first_row, 1.0);
            floats(sums)
        }
        OpKind::OneHot { depth, .. } => rows::one_hot(x, *depth),
        OpKind::SequenceMask {
            sequence_length,
            mask_tokens,
            ..
        } => rows::sequence_mask(operands, *sequence_length, *mask_tokens),

        OpKind::AttentionMask => rows::attention_mask(x),
        OpKind::NllLoss {
            reduction,
            ignore_index,
        } => loss::nll(x, operands[1], *reduction, *ignore_index, label)?,
        OpKind::NllSoftmaxGrad {
            reduction,
            ignore_index,
        } => loss::nll_softmax_grad(
            x,
            operands[1],
            operands[2],
            *reduction,
            *ignore_index,
            label,
        )?,
        OpKind::Accuracy { ignore_index, .. } => {
            let weights = operands.get(2).copied();
            loss::accuracy(x, operands[1], weights, *ignore_index, label)?
        }

        OpKind::Accumulate { factor } => {
            elementwise::zip(x, operands[1], |sum, gradient| sum + factor * gradient)
        }
        OpKind::SparseAccumulate { first_row, factor } => {
            let mut sums = x.floats().to_vec();
            rows::scatter_add(&mut sums, operands[1], operands[2], *first_row, *factor);
            floats(sums)
        }
        OpKind::Zero => Value::splat(result.dtype, x.value.len(), 0.0),
        OpKind::AdamMoment { beta, square } => update::adam_moment(x, operands[1], *beta, *square),
        OpKind::AdamUpdater {
            epsilon,
            weight_decay,
            bias_correction,
        } => update::adam_updater(operands, *epsilon, *weight_decay, *bias_correction),
        OpKind::SquareSum => floats(vec![x.floats().iter().map(|x| x * x).sum()]),
        OpKind::AdamUpdate => {
            let rate = operands[2].number();
            elementwise::zip(x, operands[1], |w, x| w - rate * x)
        }
        OpKind::LambUpdate { max_weight_norm } => update::lamb_update(operands, *max_weight_norm),
        OpKind::SgdUpdate {
            scale,
            weight_decay,
        } => {
            let rate = operands[2].number();
            elementwise::zip(x, operands[1], |w, v| {
                (1.0 - rate * weight_decay) * w - rate * scale * v
            })
        }
        OpKind::SgdMomentum {
            momentum,
            weight_decay,
        } => elementwise::zip(x, operands[1], |v, w| momentum * v + weight_decay * w),
        OpKind::AllReduce
        | OpKind::ReduceScatter { .. }
        | OpKind::AllGather { .. }
        | OpKind::LocalSlice { .. }
        | OpKind::Multi { .. } => unreachable!("collectives are not local"),
    };
    Ok(smallvec![value])
}

#[cfg(test)]
mod tests;

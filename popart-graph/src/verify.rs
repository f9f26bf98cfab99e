//! What a well-formed graph is.
//!
//! [`verify`] runs after every pass. A graph of any [`Form`] keeps these rules:
//!
//! 1. Every id in operations, inputs, outputs and updates is in the arena, and every part of
//!    operations and tensors among the graph's parts.
//! 2. Every activation that something reads is a result of exactly one operation,
//!    and any other of at most one; variables, constants and streams are results
//!    of none.
//! 3. The inputs are the streams, each once.
//! 4. An update is of a variable, by a value of its type and shape, and a
//!    variable has at most one.
//! 5. First values and constants fit their element type: finite, and whole
//!    numbers for `u32`.
//! 6. Operands fit their operation, and the stored types of results are those
//!    that [`crate::infer`] gives.
//! 7. No operation depends on itself.
//! 8. A value never flows to an earlier phase, nor, between operations that have
//!    a stage, to an earlier stage.
//!
//! A [`Form::Placed`] graph also keeps these:
//!
//! 9. Every operation has an IPU, and reads only what is there: results of
//!    operations on it and of copies to it. Constants are on every IPU. A
//!    collective of several operands reads each on the IPU that it names for it.
//! 10. A variable or stream is read on one IPU, and a variable's next value is
//!     there too.
//! 11. A copy goes to another IPU.
//! 12. If any operation has a stage, all of the micro-batch (all phases but
//!     [`Phase::Update`]) have one; stages are numbered from 0 without a gap, and
//!     each is on one IPU.
//! 13. If any operation of [`Phase::Update`] has a stage, all that read what a stage
//!     makes, or that give a variable its next value, have one: what has none runs
//!     before the pipeline.
//!
//! A [`Form::Pipelined`] graph also keeps this:
//!
//! 14. Every stage that runs an operation, be it to recompute, reads values of its own
//!     micro-batch: made or recomputed in that stage, copied to it from the stage
//!     before, or restored in it from a ring that is long enough.
//!
//! Left out: whether the graph fits the machine, which is for the lowering to
//! find, and names, which are only for people.

mod error;
mod waiting;

use ipu_sim::ids::{Id, IdVec, IpuId};
use ipu_sim::numerics::DType;
use smallvec::SmallVec;

pub use self::error::{VerifyError, Violation};

use self::waiting::waiting;
use crate::infer::infer;
use crate::ir::{
    Constant, Graph, Init, Op, OpId, OpKind, Phase, StageId, TensorId, TensorKind, TensorType,
};

/// How far a graph has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As built: operations may lack an IPU, and read from any.
    Logical,
    /// With copies between IPUs.
    Placed,
    /// With stashes, if there is a pipeline.
    Pipelined,
}

/// Checks every rule of the module's list.
///
/// # Errors
/// The first broken rule, in the order of the list, as [`VerifyError::Malformed`] or [`VerifyError::Cycle`];
/// or what [`infer`] says of an operation.
pub fn verify(graph: &Graph, form: Form) -> Result<(), VerifyError> {
    ids_exist(graph)?;
    sources(graph)?;
    inputs(graph)?;
    updates(graph)?;
    initial_values(graph)?;
    for id in graph.ops.ids() {
        results(graph, id)?;
    }
    let order = graph.topological_order()?;
    order_of_phases_and_stages(graph)?;
    if form >= Form::Placed {
        locality(graph)?;
        stages(graph)?;
        updates_in_stages(graph)?;
    }
    if form >= Form::Pipelined {
        waiting(graph, &order)?;
    }
    Ok(())
}

fn ids_exist(graph: &Graph) -> Result<(), Violation> {
    let of_ops = graph
        .ops
        .values()
        .flat_map(|op| op.inputs.iter().chain(&op.outputs));
    let of_updates = graph.updates.iter().flat_map(|(to, from)| [to, from]);
    let mut all = of_ops
        .chain(&graph.inputs)
        .chain(&graph.outputs)
        .chain(of_updates);
    match all.find(|&&id| graph.tensors.get(id).is_none()) {
        Some(&tensor) => Err(Violation::UnknownTensor { tensor }),
        None => parts_exist(graph),
    }
}

fn parts_exist(graph: &Graph) -> Result<(), Violation> {
    let of_ops = graph.ops.values().filter_map(|op| op.part);
    let of_tensors = graph.tensors.values().filter_map(|tensor| tensor.part);
    let mut all = of_ops.chain(of_tensors);
    match all.find(|&part| graph.parts.get(part).is_none()) {
        Some(part) => Err(Violation::UnknownPart { part }),
        None => Ok(()),
    }
}

fn name_of(graph: &Graph, tensor: TensorId) -> String {
    graph.tensors[tensor].name.clone()
}

fn sources(graph: &Graph) -> Result<(), Violation> {
    let mut has_source: IdVec<TensorId, bool> = graph
        .tensors
        .values()
        .map(|tensor| tensor.kind != TensorKind::Activation)
        .collect();
    for (op, operation) in graph.ops.iter() {
        for &tensor in &operation.outputs {
            if std::mem::replace(&mut has_source[tensor], true) {
                let name = name_of(graph, tensor);
                return Err(Violation::TwoSources { tensor, name, op });
            }
        }
    }
    let read = graph.ops.values().flat_map(|op| &op.inputs);
    let taken = graph.updates.iter().map(|(_, value)| value);
    let mut needed = read.chain(&graph.outputs).chain(taken);
    match needed.find(|&&tensor| !has_source[tensor]) {
        Some(&tensor) => {
            let name = name_of(graph, tensor);
            Err(Violation::NoProducer { tensor, name })
        }
        None => Ok(()),
    }
}

fn inputs(graph: &Graph) -> Result<(), Violation> {
    let mut listed: IdVec<TensorId, usize> = IdVec::from(vec![0; graph.tensors.len()]);
    for &tensor in &graph.inputs {
        listed[tensor] += 1;
    }
    for (id, tensor) in graph.tensors.iter() {
        let expected = usize::from(tensor.kind == TensorKind::Stream);
        if listed[id] != expected {
            return Err(Violation::Inputs {
                tensor: id,
                name: tensor.name.clone(),
                times: listed[id],
                expected,
            });
        }
    }
    Ok(())
}

fn updates(graph: &Graph) -> Result<(), Violation> {
    let mut updated = vec![false; graph.tensors.len()];
    for &(variable, value) in &graph.updates {
        let name = name_of(graph, variable);
        if !matches!(graph.tensors[variable].kind, TensorKind::Variable { .. }) {
            let tensor = variable;
            return Err(Violation::UpdateTarget { tensor, name });
        }
        if std::mem::replace(&mut updated[variable.index()], true) {
            let tensor = variable;
            return Err(Violation::UpdatedTwice { tensor, name });
        }
        if graph.tensors[variable].ty() != graph.tensors[value].ty() {
            return Err(Violation::UpdateType {
                variable,
                name,
                value,
            });
        }
    }
    Ok(())
}

fn initial_values(graph: &Graph) -> Result<(), Violation> {
    let fits = |dtype: DType, value: f64| match dtype {
        DType::F16 | DType::F32 => value.is_finite(),
        DType::U32 => value >= 0.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0,
    };
    for (id, tensor) in graph.tensors.iter() {
        let good = match tensor.kind {
            TensorKind::Variable { init: Some(init) } => match init {
                Init::Zeros | Init::Ones => true,
                Init::Splat(value) => fits(tensor.dtype, value),
                Init::TruncatedNormal { mean, std_dev } => {
                    tensor.dtype != DType::U32 && mean.is_finite() && std_dev.is_finite()
                }
            },
            TensorKind::Constant(Constant::Splat(value)) => fits(tensor.dtype, value),
            TensorKind::Constant(Constant::Iota)
            | TensorKind::Variable { init: None }
            | TensorKind::Stream
            | TensorKind::Activation => true,
        };
        if !good {
            let name = tensor.name.clone();
            return Err(Violation::InitialValue { tensor: id, name });
        }
    }
    Ok(())
}

fn results(graph: &Graph, id: OpId) -> Result<(), VerifyError> {
    let op = &graph.ops[id];
    let operands: SmallVec<[TensorType; 4]> = op
        .inputs
        .iter()
        .map(|&tensor| graph.tensors[tensor].ty())
        .collect();
    let inferred = infer(&op.kind, &op.name, &operands)?;
    if inferred.len() != op.outputs.len() {
        return Err(Violation::ResultCount {
            op: id,
            name: op.name.clone(),
            expected: inferred.len(),
            got: op.outputs.len(),
        }
        .into());
    }
    for (result, (expected, &output)) in inferred.iter().zip(&op.outputs).enumerate() {
        let got = graph.tensors[output].ty();
        if got != *expected {
            return Err(Violation::ResultType {
                op: id,
                name: op.name.clone(),
                result,
                expected: expected.clone(),
                got,
            }
            .into());
        }
    }
    Ok(())
}

fn order_of_phases_and_stages(graph: &Graph) -> Result<(), Violation> {
    let producers = graph.producers();
    for (id, op) in graph.ops.iter() {
        for producer in op.inputs.iter().filter_map(|&tensor| producers[tensor]) {
            let producer = &graph.ops[producer];
            if producer.phase > op.phase {
                return Err(Violation::PhaseOrder {
                    op: id,
                    name: op.name.clone(),
                    consumer: op.phase,
                    producer: producer.phase,
                });
            }
            if let (Some(from), Some(to)) = (producer.stage, op.stage)
                && from > to
            {
                return Err(Violation::StageOrder {
                    op: id,
                    name: op.name.clone(),
                    consumer: to,
                    producer: from,
                });
            }
        }
    }
    Ok(())
}

fn ipu_of(id: OpId, op: &Op) -> Result<IpuId, Violation> {
    let name = || op.name.clone();
    op.ipu.ok_or_else(|| Violation::NotPlaced {
        op: id,
        name: name(),
    })
}

fn locality(graph: &Graph) -> Result<(), Violation> {
    let mut home: IdVec<TensorId, Option<IpuId>> = IdVec::from(vec![None; graph.tensors.len()]);
    for (id, op) in graph.ops.iter() {
        let ipu = ipu_of(id, op)?;
        if op.kind == (OpKind::IpuCopy { to: ipu }) {
            let name = op.name.clone();
            return Err(Violation::CopyToSelf { op: id, name, ipu });
        }
        for (result, &output) in op.outputs.iter().enumerate() {
            home[output] = op.result_ipu(result);
        }
    }
    for (id, op) in graph.ops.iter() {
        let own = ipu_of(id, op)?;
        for (operand, &tensor) in op.inputs.iter().enumerate() {
            if matches!(graph.tensors[tensor].kind, TensorKind::Constant(_)) {
                continue;
            }
            let ipu = op.operand_ipu(operand).unwrap_or(own);
            // A variable or stream is at home where it is first read.
            let tensor_ipu = *home[tensor].get_or_insert(ipu);
            if tensor_ipu != ipu {
                return Err(Violation::Remote {
                    op: id,
                    name: op.name.clone(),
                    ipu,
                    tensor,
                    tensor_ipu,
                });
            }
        }
    }
    for &(variable, value) in &graph.updates {
        if let (Some(ipu), Some(value_ipu)) = (home[variable], home[value])
            && ipu != value_ipu
        {
            return Err(Violation::UpdateIpu {
                variable,
                name: name_of(graph, variable),
                ipu,
                value_ipu,
            });
        }
    }
    Ok(())
}

fn stages(graph: &Graph) -> Result<(), Violation> {
    if graph.ops.values().all(|op| op.stage.is_none()) {
        return Ok(());
    }
    let n_stages = graph
        .ops
        .values()
        .filter_map(|op| op.stage)
        .map(|stage| stage.index() + 1)
        .max()
        .unwrap_or(0);
    let mut place: IdVec<StageId, Option<IpuId>> = IdVec::from(vec![None; n_stages]);
    for (id, op) in graph.ops.iter() {
        let own = ipu_of(id, op)?;
        let Some(stage) = op.stage else {
            if op.phase == Phase::Update {
                continue;
            }
            let name = op.name.clone();
            return Err(Violation::NoStage { op: id, name });
        };
        let expected = *place[stage].get_or_insert(own);
        let elsewhere = (0..op.inputs.len())
            .filter_map(|operand| op.operand_ipu(operand))
            .chain([own])
            .find(|&ipu| ipu != expected);
        if let Some(got) = elsewhere {
            return Err(Violation::StageIpu {
                op: id,
                name: op.name.clone(),
                stage,
                expected,
                got,
            });
        }
    }
    match place.iter().find(|(_, ipu)| ipu.is_none()) {
        Some((stage, _)) => Err(Violation::StageGap { stage }),
        None => Ok(()),
    }
}

fn updates_in_stages(graph: &Graph) -> Result<(), Violation> {
    if !graph.updates_in_stages() {
        return Ok(());
    }
    let producers = graph.producers();
    let of_micro_batch = |tensor: TensorId| match producers[tensor] {
        Some(op) => graph.ops[op].stage.is_some(),
        None => false,
    };
    let mut is_next: IdVec<TensorId, bool> = IdVec::from(vec![false; graph.tensors.len()]);
    for &(_, value) in &graph.updates {
        is_next[value] = true;
    }
    let outside = graph.ops.iter().find(|(_, op)| {
        op.stage.is_none()
            && (op.inputs.iter().copied().any(of_micro_batch)
                || op.outputs.iter().any(|&id| is_next[id]))
    });
    match outside {
        Some((op, operation)) => {
            let name = operation.name.clone();
            Err(Violation::UpdateOutsideStages { op, name })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

//! The graph itself: two arenas, and how to add to and walk through them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use ipu_sim::ids::IdVec;
use ipu_sim::numerics::DType;
use smallvec::SmallVec;

use super::{
    Constant, Cycle, Init, Op, OpId, OpKind, PartId, Parts, Phase, Scope, Shape, Tensor, TensorId,
    TensorKind,
};
use crate::infer::{InferError, infer};

/// A computation on tensors. What makes one well-formed is in [`crate::verify`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The operations, in no particular order: see [`Graph::topological_order`].
    pub ops: IdVec<OpId, Op>,
    /// The tensors, in no particular order.
    pub tensors: IdVec<TensorId, Tensor>,
    /// The parts of the model that operations and tensors belong to.
    pub parts: Parts,
    /// The streams, in the order in which the host supplies them.
    pub inputs: Vec<TensorId>,
    /// Tensors that the host reads back.
    pub outputs: Vec<TensorId>,
    /// `(variable, value)`: after a run the variable takes the value.
    pub updates: Vec<(TensorId, TensorId)>,
}

/// The new id of every tensor, by its old one; none for those that are gone.
pub type NewIds = IdVec<TensorId, Option<TensorId>>;

impl Graph {
    /// Adds a variable.
    pub fn variable(
        &mut self,
        name: &str,
        dtype: DType,
        shape: Shape,
        init: Option<Init>,
    ) -> TensorId {
        self.tensor(name, dtype, shape, TensorKind::Variable { init }, None)
    }

    /// Adds a variable that another one needs beside it: `prefix` and its name, in its part of the
    /// model, at first zeros.
    pub fn variable_beside(
        &mut self,
        beside: TensorId,
        prefix: &str,
        dtype: DType,
        shape: Shape,
    ) -> TensorId {
        let other = &self.tensors[beside];
        let (name, part) = (format!("{prefix}{}", other.name), other.part);
        let init = Some(Init::Zeros);
        self.tensor(&name, dtype, shape, TensorKind::Variable { init }, part)
    }

    /// Adds a constant.
    pub fn constant(
        &mut self,
        name: &str,
        dtype: DType,
        shape: Shape,
        value: Constant,
    ) -> TensorId {
        self.tensor(name, dtype, shape, TensorKind::Constant(value), None)
    }

    /// Adds a stream and lists it among the inputs.
    pub fn stream(&mut self, name: &str, dtype: DType, shape: Shape) -> TensorId {
        let id = self.tensor(name, dtype, shape, TensorKind::Stream, None);
        self.inputs.push(id);
        id
    }

    fn tensor(
        &mut self,
        name: &str,
        dtype: DType,
        shape: Shape,
        kind: TensorKind,
        part: Option<PartId>,
    ) -> TensorId {
        let last = self.tensors.values().last();
        let number = last.map_or(Some(0), |last| last.number.checked_add(1));
        self.tensors.push(Tensor {
            number: number.expect("fewer than 2^32 tensors were ever made"),
            name: name.to_owned(),
            dtype,
            shape,
            kind,
            part,
        })
    }

    /// Adds an operation and, with the types that inference gives, its results,
    /// which take its name and part.
    ///
    /// # Errors
    /// Those of [`infer`]: the operands don't fit the operation.
    ///
    /// # Panics
    /// If an operand is not of this graph.
    pub fn add_op(
        &mut self,
        kind: OpKind,
        inputs: &[TensorId],
        scope: &Scope,
    ) -> Result<OpId, InferError> {
        let types: SmallVec<[_; 4]> = inputs.iter().map(|&id| self.tensors[id].ty()).collect();
        let outputs = infer(&kind, &scope.name, &types)?
            .into_iter()
            .map(|ty| {
                let kind = TensorKind::Activation;
                self.tensor(&scope.name, ty.dtype, ty.shape, kind, scope.part)
            })
            .collect();
        Ok(self.ops.push(Op {
            kind,
            inputs: inputs.into(),
            outputs,
            name: scope.name.clone(),
            ipu: scope.ipu,
            stage: scope.stage,
            part: scope.part,
            phase: scope.phase,
            recompute: scope.recompute,
            purpose: scope.purpose,
        }))
    }

    /// [`Graph::add_op`], giving the first result.
    ///
    /// # Errors
    /// As [`Graph::add_op`].
    pub fn add(
        &mut self,
        kind: OpKind,
        inputs: &[TensorId],
        scope: &Scope,
    ) -> Result<TensorId, InferError> {
        let op = self.add_op(kind, inputs, scope)?;
        Ok(self.ops[op].outputs[0])
    }

    /// Says that `variable` takes `value` after a run.
    pub fn update(&mut self, variable: TensorId, value: TensorId) {
        self.updates.push((variable, value));
    }

    /// Where [`Graph::updates`] has the value that each variable takes.
    #[must_use]
    pub fn update_positions(&self) -> BTreeMap<TensorId, usize> {
        let updates = self.updates.iter().enumerate();
        updates
            .map(|(position, &(variable, _))| (variable, position))
            .collect()
    }

    /// Whether stages of a pipeline update weights themselves, after every micro-batch, instead
    /// of leaving that to an outer fragment.
    #[must_use]
    pub fn updates_in_stages(&self) -> bool {
        let in_stage = |op: &Op| op.phase == Phase::Update && op.stage.is_some();
        self.ops.values().any(in_stage)
    }

    /// Whether each tensor is a hyper-parameter of the optimiser: a stream that only the weight
    /// update reads, or a result of an operation of the update that has no stage. Such values
    /// are of no micro-batch.
    #[must_use]
    pub fn hyper_parameters(&self) -> IdVec<TensorId, bool> {
        let is_update = |&op: &OpId| self.ops[op].phase == Phase::Update;
        let consumers = self.consumers();
        let streams = self.tensors.iter().map(|(id, tensor)| {
            let readers = &consumers[id];
            tensor.kind == TensorKind::Stream
                && !readers.is_empty()
                && readers.iter().all(is_update)
        });
        let mut found: IdVec<TensorId, bool> = streams.collect();
        for op in self.ops.values() {
            if op.phase == Phase::Update && op.stage.is_none() {
                for &output in &op.outputs {
                    found[output] = true;
                }
            }
        }
        found
    }

    /// The operation that produces each tensor; `None` for inputs of the graph.
    #[must_use]
    pub fn producers(&self) -> IdVec<TensorId, Option<OpId>> {
        let mut producers = IdVec::from(vec![None; self.tensors.len()]);
        for (id, op) in self.ops.iter() {
            for &output in &op.outputs {
                producers[output] = Some(id);
            }
        }
        producers
    }

    /// The operations that read each tensor, in order of id, one entry for each
    /// operand it is.
    #[must_use]
    pub fn consumers(&self) -> IdVec<TensorId, SmallVec<[OpId; 4]>> {
        let mut consumers = IdVec::from(vec![SmallVec::new(); self.tensors.len()]);
        for (id, op) in self.ops.iter() {
            for &input in &op.inputs {
                consumers[input].push(id);
            }
        }
        consumers
    }

    /// All operations, each after those it depends on; among those that are ready
    /// the one with the lowest id is first.
    ///
    /// # Errors
    /// [`Cycle`] if operations wait for each other.
    pub fn topological_order(&self) -> Result<Vec<OpId>, Cycle> {
        let producers = self.producers();
        let consumers = self.consumers();
        let mut waiting_for: IdVec<OpId, usize> = self
            .ops
            .values()
            .map(|op| {
                op.inputs
                    .iter()
                    .filter(|&&id| producers[id].is_some())
                    .count()
            })
            .collect();
        let mut ready: BinaryHeap<Reverse<OpId>> = self
            .ops
            .ids()
            .filter(|&op| waiting_for[op] == 0)
            .map(Reverse)
            .collect();
        let mut order = Vec::with_capacity(self.ops.len());
        while let Some(Reverse(op)) = ready.pop() {
            order.push(op);
            for &output in &self.ops[op].outputs {
                for &consumer in &consumers[output] {
                    waiting_for[consumer] -= 1;
                    if waiting_for[consumer] == 0 {
                        ready.push(Reverse(consumer));
                    }
                }
            }
        }
        match waiting_for.iter().find(|&(_, &count)| count > 0) {
            Some((op, _)) => Err(Cycle {
                op,
                name: self.ops[op].name.clone(),
            }),
            None => Ok(order),
        }
    }

    /// Removes the operations that `keep` refuses, with their results, and closes
    /// the gaps in both arenas: ids change, order and numbers don't. Tensors
    /// without a producer stay. Gives the new ids.
    ///
    /// # Panics
    /// If something that stays needs a removed result.
    pub fn retain_ops(&mut self, mut keep: impl FnMut(OpId, &Op) -> bool) -> NewIds {
        let kept: IdVec<OpId, bool> = self.ops.iter().map(|(id, op)| keep(id, op)).collect();
        let producers = self.producers();
        let mut new_id: NewIds = IdVec::from(vec![None; self.tensors.len()]);
        let mut tensors = IdVec::new();
        for (id, tensor) in std::mem::take(&mut self.tensors).iter() {
            if producers[id].is_none_or(|op| kept[op]) {
                new_id[id] = Some(tensors.push(tensor.clone()));
            }
        }
        let renamed = |id: TensorId| new_id[id].expect("what stays reads only what stays");
        self.tensors = tensors;
        self.ops = std::mem::take(&mut self.ops)
            .iter()
            .filter(|&(id, _)| kept[id])
            .map(|(_, op)| Op {
                inputs: op.inputs.iter().copied().map(renamed).collect(),
                outputs: op.outputs.iter().copied().map(renamed).collect(),
                ..op.clone()
            })
            .collect();
        for id in self.inputs.iter_mut().chain(&mut self.outputs) {
            *id = renamed(*id);
        }
        for (variable, value) in &mut self.updates {
            (*variable, *value) = (renamed(*variable), renamed(*value));
        }
        new_id
    }

    /// Lets text call tensors by their ids, as messages do.
    pub fn renumber(&mut self) {
        for (number, tensor) in (0..).zip(self.tensors.values_mut()) {
            tensor.number = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{BinaryFn, UnaryFn};

    /// `z = (x + x) ^ 2` with a stray `-x` added first.
    fn sample() -> (Graph, TensorId) {
        let mut graph = Graph::default();
        let x = graph.stream("x", DType::F32, Shape::from([3]));
        let scope = Scope::named("f");
        graph
            .add(OpKind::Unary(UnaryFn::Neg), &[x], &scope)
            .unwrap();
        let y = graph
            .add(OpKind::Binary(BinaryFn::Add), &[x, x], &scope)
            .unwrap();
        let z = graph
            .add(OpKind::Unary(UnaryFn::Square), &[y], &scope)
            .unwrap();
        graph.outputs.push(z);
        (graph, z)
    }

    #[test]
    fn order_follows_dependencies_then_ids() {
        let (mut graph, _) = sample();
        assert_eq!(
            graph.topological_order().unwrap(),
            [OpId(0), OpId(1), OpId(2)]
        );
        let first = graph.ops[OpId(0)].clone();
        graph.ops[OpId(0)] = graph.ops[OpId(2)].clone();
        graph.ops[OpId(2)] = first;
        assert_eq!(
            graph.topological_order().unwrap(),
            [OpId(1), OpId(0), OpId(2)]
        );
    }

    #[test]
    fn a_cycle_is_named() {
        let (mut graph, z) = sample();
        graph.ops[OpId(1)].inputs[1] = z;
        let error = graph.topological_order().unwrap_err();
        assert_eq!(error.op, OpId(1));
        let name = &graph.ops[OpId(1)].name;
        let message = format!("malformed graph: op 1 `{name}` depends on itself");
        assert_eq!(error.to_string(), message);
    }
}

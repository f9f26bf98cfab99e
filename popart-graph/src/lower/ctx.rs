//! What lowering knows so far: values of tensors, who reads and replaces variables, rings of stashes.
//!
//! Every operation is lowered against one [`Ctx`], which it changes; how, is in `ops.rs` and the
//! files it calls. Here is only what all of them ask.

use std::collections::BTreeMap;

use ipu_sim::ids::{IdVec, IpuId};
use ipu_sim::layout::Layout;
use ipu_sim::numerics::DType;
use ipu_sim::program::{IpuCopy, Label, RemoteBufferId, Step, StreamId, VarId};
use ipu_sim::spec::TileSpec;
use ipu_sim::view::View;
use smallvec::SmallVec;

use super::builder::Builder;
use super::options::{HostStreams, Prefetch};
use super::value::Value;
use crate::ir::{Constant, Graph, MultiKind, Op, OpId, OpKind, Phase, TensorId, TensorKind};
use crate::plan::PlanCache;

/// What lowering an operation needs to know and change.
pub(crate) struct Ctx<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) builder: Builder<'a>,
    pub(crate) plans: &'a PlanCache,
    /// Lowered tensors but for constants.
    pub(crate) values: IdVec<TensorId, Option<Value>>,
    /// Lowered constants, one on every IPU that reads it.
    pub(crate) constant_values: BTreeMap<(TensorId, IpuId), Value>,
    pub(crate) variables: Variables,
    /// Inter-IPU copies that a pipeline makes at the end of its cycle.
    pub(crate) late_copies: Option<Vec<IpuCopy>>,
    /// Whether stages update weights, which thus change between the stages of a micro-batch.
    pub(crate) updates_in_stages: bool,
    /// Rings of stashed tensors.
    pub(crate) stashes: Stashes,
    /// Steps that run once, before all others.
    pub(crate) init: Vec<Step>,
    /// Reads of host streams that the operations lowered since the last look need.
    pub(crate) host_reads: Vec<Step>,
    /// Values that the host writes before the first run.
    pub(crate) constants: Vec<(VarId, Constant)>,
    /// Whether streams are made ready before the device asks.
    pub(crate) prefetch: Prefetch,
    pub(crate) host: HostStreams,
}

impl Ctx<'_> {
    pub(crate) fn spec(&self) -> &TileSpec {
        self.builder.spec
    }

    /// The tensor on a variable of its own axes, one digit each: fit for labels.
    pub(crate) fn labelled(&mut self, value: &Value) -> Value {
        let fit = value.single().is_some_and(|view| {
            view.shape.axes.len() == view.shape.offsets.len()
                && view.shape.axes.iter().all(|digits| digits.len() <= 1)
                && view.shape.offsets.iter().all(|&offset| offset == 0)
                && view
                    .shape
                    .axes
                    .iter()
                    .flatten()
                    .map(|digit| u64::from(digit.extent))
                    .product::<u64>()
                    == self.builder.program.elements_of(view.var).0
        });
        if fit {
            return value.clone();
        }
        let layout = self.builder.spread(&value.shape(), value.dtype);
        let var = self
            .builder
            .relay(value, &layout, &self.builder.part("labelled"));
        self.builder.value_of(var)
    }

    /// A small tensor whole on every tile.
    pub(crate) fn everywhere(&mut self, value: &Value, name: &str) -> VarId {
        let n_tiles = self.spec().tiles_per_ipu;
        let layout = Layout::on_every_tile(&value.shape(), n_tiles);
        self.builder.materialise(value, &layout, name)
    }

    pub(crate) fn dtype_of(&self, id: TensorId) -> DType {
        self.graph.tensors[id].dtype
    }

    /// Whether nothing but the operation reads operand `operand`, a copy from streaming memory.
    pub(crate) fn is_last_use(&self, op: &Op, operand: usize) -> bool {
        let tensor = op.inputs[operand];
        let loaded = self
            .variables
            .producer(tensor)
            .is_some_and(|producer| matches!(self.graph.ops[producer].kind, OpKind::RemoteLoad));
        loaded && self.variables.consumers(tensor).len() == 1
    }

    /// Whether the operation's first result replaces the variable it reads as operand `operand`.
    pub(crate) fn replaces(&self, op: &Op, operand: usize) -> bool {
        self.variables
            .replaces(self.graph, op.outputs[0], op.inputs[operand])
    }
}

/// The label of a logical axis of a value that [`Ctx::labelled`] made.
///
/// Axes of one index have no digit; in order, they are the axes of the variable that no
/// digit walks.
pub(crate) fn label_of(value: &Value, axis: usize) -> Label {
    let view = value.single().expect("labelled values have one part");
    if let Some(digit) = view.shape.axes[axis].first() {
        return Label(digit.axis);
    }
    let walked: Vec<u8> = view
        .shape
        .axes
        .iter()
        .flatten()
        .map(|digit| digit.axis)
        .collect();
    let position = view.shape.axes[..axis]
        .iter()
        .filter(|digits| digits.is_empty())
        .count();
    let label = (0..view.shape.offsets.len() as u8)
        .filter(|axis| !walked.contains(axis))
        .nth(position)
        .expect("labelled values have the rank of their variable");
    Label(label)
}

/// Who reads and who replaces variables.
#[derive(Clone, Debug)]
pub(crate) struct Variables {
    consumers: IdVec<TensorId, SmallVec<[OpId; 4]>>,
    producers: IdVec<TensorId, Option<OpId>>,
    /// The variable that takes a value.
    updated: IdVec<TensorId, Option<TensorId>>,
    /// Whether a variable takes a value.
    has_update: IdVec<TensorId, bool>,
    pub(crate) remote_buffers: BTreeMap<TensorId, RemoteBufferId>,
    /// What streaming memory holds, and how it is seen once loaded.
    pub(crate) remote: Vec<(TensorId, RemoteBufferId, View)>,
    /// Streams that the program reads.
    pub(crate) streams: Vec<(TensorId, StreamId)>,
}

impl Variables {
    pub(crate) fn of(graph: &Graph) -> Self {
        let mut updated = IdVec::from(vec![None; graph.tensors.len()]);
        let mut has_update = IdVec::from(vec![false; graph.tensors.len()]);
        for &(variable, value) in &graph.updates {
            updated[value] = Some(variable);
            has_update[variable] = true;
        }
        Self {
            consumers: graph.consumers(),
            producers: graph.producers(),
            updated,
            has_update,
            remote_buffers: BTreeMap::new(),
            remote: Vec::new(),
            streams: Vec::new(),
        }
    }

    /// The variable that takes `value`.
    pub(crate) fn updated_by(&self, value: TensorId) -> Option<TensorId> {
        self.updated[value]
    }

    pub(crate) fn consumers(&self, tensor: TensorId) -> &[OpId] {
        &self.consumers[tensor]
    }

    pub(crate) fn producer(&self, tensor: TensorId) -> Option<OpId> {
        self.producers[tensor]
    }

    /// Whether `value` is a further value of the variable that `operand` is a value of.
    ///
    /// A variable's memory holds all values from the variable itself to the one it takes in
    /// the end: a sum grows in its accumulator before zero replaces it.
    pub(crate) fn replaces(&self, graph: &Graph, value: TensorId, operand: TensorId) -> bool {
        let Some(owner) = self.owner(graph, operand) else {
            return false;
        };
        match self.updated[value] {
            Some(variable) => variable == owner,
            None => self.has_update[owner],
        }
    }

    /// The variable whose memory holds a value, seen through operations that work in place.
    fn owner(&self, graph: &Graph, tensor: TensorId) -> Option<TensorId> {
        let mut tensor = tensor;
        loop {
            let Some(producer) = self.producers[tensor] else {
                let is_variable = is_variable(graph, tensor);
                return is_variable.then_some(tensor);
            };
            if let Some(variable) = self.updated[tensor] {
                return Some(variable);
            }
            let op = &graph.ops[producer];
            let in_place = match op.kind {
                OpKind::Accumulate { .. } | OpKind::SparseAccumulate { .. } => true,
                OpKind::Transpose { .. } => matches!(op.phase, Phase::Accumulate | Phase::Update),
                OpKind::AllReduce
                | OpKind::SgdMomentum { .. }
                | OpKind::Multi {
                    kind: MultiKind::AllReduce,
                    ..
                } => op.phase == Phase::Update,
                _ => false,
            };
            if !in_place {
                return None;
            }
            let is_multi = matches!(op.kind, OpKind::Multi { .. });
            let result = op.outputs.iter().position(|&output| output == tensor);
            tensor = op.inputs[result.filter(|_| is_multi).unwrap_or(0)];
        }
    }
}

/// The ring of every variable of a stashed tensor.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    pub(crate) tensor: VarId,
    pub(crate) ring: VarId,
    pub(crate) slots: u32,
}

/// Rings by the tensor that a stash gives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stashes {
    pub(crate) rings: BTreeMap<TensorId, (Value, Vec<Ring>)>,
}

pub(crate) fn elements(shape: &[u32]) -> u64 {
    shape.iter().map(|&extent| u64::from(extent)).product()
}

/// Whether a tensor lives on the device from run to run.
pub(crate) fn is_variable(graph: &Graph, id: TensorId) -> bool {
    matches!(graph.tensors[id].kind, TensorKind::Variable { .. })
}

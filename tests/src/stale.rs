//! Evaluates a pipeline whose stages update weights, in `f64`, cycle by cycle.
//!
//! Nothing here knows of rings, buffers or functions: it is the definition of such a pipeline
//! (PopART, `willow/src/transforms/pipeline.cpp`). In cycle `c` every stage `p`, in ascending
//! order, works on micro-batch `c - p` if there is one. Values of a micro-batch are its own;
//! variables belong to all, and take their next values where the stage that makes these ends.
//!
//! So the gradients of stage `u`, where a weight is updated, are of the weight that the updates of
//! all earlier micro-batches have left; the forward pass of the same micro-batch, in stage `p`, was
//! `u - p` cycles earlier and knows those of all but the last `u - p` of them. What stage `u`
//! recomputes is computed with the weights of stage `u`.

use popart_graph::eval::{EvalOptions, Inputs, PerReplica, eval_op, sources};
use popart_graph::ir::{Graph, OpId, Phase, Recompute, StageId, TensorId};

use crate::Result;

/// Evaluates every stage of every micro-batch, of which `feeds` has the streams. `inputs` are
/// variables and hyper-parameters; in the end they are what variables have become.
///
/// Gives the outputs of every micro-batch.
///
/// # Errors
/// The graph can't be evaluated, or reads what isn't there yet.
pub fn run(
    graph: &Graph,
    n_stages: u32,
    inputs: &mut Inputs,
    feeds: &[Inputs],
    options: EvalOptions,
) -> Result<Vec<Inputs>> {
    let mut walk = Walk {
        graph,
        options,
        order: graph.topological_order()?,
        producers: graph.producers().values().copied().collect(),
        shared: shared(graph, inputs, &feeds[0], options)?,
        of_micro_batch: feeds.to_vec(),
    };
    walk.hyper_parameters()?;
    let n = feeds.len() as u32;
    for cycle in 0..n + n_stages - 1 {
        for stage in 0..n_stages {
            if stage <= cycle && cycle < stage + n {
                walk.stage(StageId(stage), (cycle - stage) as usize)?;
            }
        }
    }
    for (id, value) in inputs.iter_mut() {
        value.clone_from(&walk.shared[id]);
    }
    let outputs = walk.of_micro_batch.into_iter().map(|mut values| {
        values.retain(|id, _| graph.outputs.contains(id));
        values
    });
    Ok(outputs.collect())
}

/// What is of no micro-batch: variables, constants, hyper-parameters.
fn shared(graph: &Graph, inputs: &Inputs, feed: &Inputs, options: EvalOptions) -> Result<Inputs> {
    let mut all = feed.clone();
    all.extend(inputs.clone());
    let values = sources(graph, &all, options)?;
    let known = values
        .iter()
        .filter_map(|(id, value)| Some((id, value.clone()?)));
    Ok(known.filter(|(id, _)| !feed.contains_key(id)).collect())
}

struct Walk<'a> {
    graph: &'a Graph,
    options: EvalOptions,
    order: Vec<OpId>,
    /// By tensor.
    producers: Vec<Option<OpId>>,
    /// Variables as they are now, constants, hyper-parameters.
    shared: Inputs,
    /// Streams and results of each micro-batch, as its stages have made them.
    of_micro_batch: Vec<Inputs>,
}

/// One run of a stage.
struct Turn {
    stage: StageId,
    micro_batch: usize,
    /// What it has computed again.
    again: Inputs,
}

impl Walk<'_> {
    /// What the optimiser needs that is the same for all micro-batches.
    fn hyper_parameters(&mut self) -> Result<()> {
        for &id in &self.order {
            let op = &self.graph.ops[id];
            if op.phase == Phase::Update && op.stage.is_none() {
                let operands = op.inputs.iter().map(|input| &self.shared[input]);
                let operands: Vec<&PerReplica> = operands.collect();
                let results = eval_op(self.graph, id, &operands, self.options)?;
                self.shared.extend(op.outputs.iter().copied().zip(results));
            }
        }
        Ok(())
    }

    /// Runs a stage for a micro-batch, then gives variables the values that it made for them.
    fn stage(&mut self, stage: StageId, micro_batch: usize) -> Result<()> {
        let mut turn = Turn {
            stage,
            micro_batch,
            again: Inputs::new(),
        };
        let is_here =
            |op: Option<OpId>| op.is_some_and(|op| self.graph.ops[op].stage == Some(stage));
        let ops: Vec<OpId> = self
            .order
            .iter()
            .copied()
            .filter(|&op| is_here(Some(op)))
            .collect();
        let updates = self.graph.updates.iter();
        let updates: Vec<(TensorId, TensorId)> = updates
            .copied()
            .filter(|(_, value)| is_here(self.producers[value.0 as usize]))
            .collect();
        for op in ops {
            let results = self.results(op, &mut turn)?;
            self.of_micro_batch[micro_batch].extend(results);
        }
        for (variable, value) in updates {
            let next = self.of_micro_batch[micro_batch][&value].clone();
            self.shared.insert(variable, next);
        }
        Ok(())
    }

    fn results(&self, id: OpId, turn: &mut Turn) -> Result<Vec<(TensorId, PerReplica)>> {
        let op = &self.graph.ops[id];
        let operands = op.inputs.iter().map(|&input| self.value(input, turn));
        let operands: Vec<PerReplica> = operands.collect::<Result<_>>()?;
        let operands: Vec<&PerReplica> = operands.iter().collect();
        let results = eval_op(self.graph, id, &operands, self.options)?;
        Ok(op.outputs.iter().copied().zip(results).collect())
    }

    /// What a stage reads: of an earlier stage's result that is computed again, what comes out
    /// now.
    fn value(&self, tensor: TensorId, turn: &mut Turn) -> Result<PerReplica> {
        if let Some(value) = self.shared.get(&tensor).or(turn.again.get(&tensor)) {
            return Ok(value.clone());
        }
        if let Some(producer) = self.producers[tensor.0 as usize] {
            let op = &self.graph.ops[producer];
            if op.recompute == Recompute::Recompute && op.stage < Some(turn.stage) {
                let results = self.results(producer, turn)?;
                turn.again.extend(results);
                return Ok(turn.again[&tensor].clone());
            }
        }
        let name = &self.graph.tensors[tensor].name;
        let value = self.of_micro_batch[turn.micro_batch].get(&tensor);
        let value = value.ok_or_else(|| format!("`{name}` isn't there in {}", turn.stage))?;
        Ok(value.clone())
    }
}

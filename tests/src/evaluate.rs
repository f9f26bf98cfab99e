//! Evaluates the graph of a case in `f64`, micro-batch by micro-batch.

use std::collections::BTreeMap;

use bert_model::data::MicroBatch;
use popart_graph::eval::{EvalOptions, Inputs, PerReplica, Value, apply_updates, eval};
use popart_graph::ir::{Phase, TensorId};

use crate::{Case, Result, Results, plan, shards, stale};

/// Evaluates every micro-batch, and after those of an update the update, on all replicas.
///
/// # Errors
/// The graph can't be evaluated, or replicas end with different weights.
pub fn run(case: &Case) -> Result<Results> {
    let graph = &case.compiled.graph;
    if graph.updates_in_stages() {
        return run_in_stages(case);
    }
    let n_replicas = case.plan.replicas;
    let options = EvalOptions {
        round_to_dtype: false,
        replicas: n_replicas,
    };
    let shared = |values: Vec<f64>| PerReplica::Same(Value::Float(values));
    let variables = case.variables.clone().into_iter();
    let mut inputs: Inputs = variables.map(|(id, values)| (id, shared(values))).collect();
    let sums = sums(case);
    // By output, on each replica.
    let mut outputs: BTreeMap<TensorId, Vec<Vec<f64>>> = BTreeMap::new();
    for (number, on_each) in case.batches.iter().enumerate() {
        let per_update = case.plan.micro_batches as usize;
        let (update, in_update) = (number / per_update, number % per_update);
        if let Some(rate) = case.compiled.learning_rate {
            inputs.insert(rate, shared(vec![plan::LEARNING_RATES[update]]));
        }
        inputs.extend(streams(on_each));
        let values = eval(graph, &inputs, options)?;
        for output in &graph.outputs {
            let all = outputs
                .entry(*output)
                .or_insert_with(|| vec![Vec::new(); n_replicas as usize]);
            for (replica, all) in all.iter_mut().enumerate() {
                let element = values[*output].on(replica).as_floats();
                if case.plan.task.trains() && number > 0 {
                    all.iter_mut().zip(element).for_each(|(sum, x)| *sum += x);
                } else {
                    all.extend(element);
                }
            }
        }
        if in_update + 1 < per_update {
            for (&variable, &sum) in &sums {
                inputs.insert(variable, values[sum].clone());
            }
        } else {
            apply_updates(graph, &values, &mut inputs);
        }
    }
    results(case, &inputs, outputs)
}

/// Evaluates a pipeline that updates weights after every micro-batch, in its stages.
fn run_in_stages(case: &Case) -> Result<Results> {
    let graph = &case.compiled.graph;
    let replicas = case.plan.replicas;
    let options = EvalOptions {
        round_to_dtype: false,
        replicas,
    };
    let shared = |values: Vec<f64>| PerReplica::Same(Value::Float(values));
    let variables = case.variables.clone().into_iter();
    let mut inputs: Inputs = variables.map(|(id, values)| (id, shared(values))).collect();
    if let Some(rate) = case.compiled.learning_rate {
        inputs.insert(rate, shared(vec![plan::LEARNING_RATE_IN_STAGES]));
    }
    let feeds: Vec<Inputs> = case.batches.iter().map(|batch| streams(batch)).collect();
    let each = stale::run(graph, case.n_stages(), &mut inputs, &feeds, options)?;
    let mut outputs: BTreeMap<TensorId, Vec<Vec<f64>>> = BTreeMap::new();
    for (id, value) in each.iter().flatten() {
        let sums = outputs.entry(*id).or_default();
        for replica in 0..replicas as usize {
            let element = value.on(replica).as_floats();
            match sums.get_mut(replica) {
                Some(sum) => sum.iter_mut().zip(element).for_each(|(sum, x)| *sum += x),
                None => sums.push(element.to_vec()),
            }
        }
    }
    results(case, &inputs, outputs)
}

/// The streams of a micro-batch, given on each replica.
fn streams(on_each: &[MicroBatch]) -> Inputs {
    let streams = on_each[0].iter().enumerate();
    let values = streams.map(|(position, &(tensor, _))| {
        let values = on_each.iter().map(|batch| batch[position].1.clone());
        let values = values.map(Value::Int).collect();
        (tensor, PerReplica::Each(values))
    });
    values.collect()
}

/// What is left: outputs by tensor and replica, variables put together from their shards.
fn results(
    case: &Case,
    inputs: &Inputs,
    outputs: BTreeMap<TensorId, Vec<Vec<f64>>>,
) -> Result<Results> {
    let graph = &case.compiled.graph;
    let n_replicas = case.plan.replicas;
    let mut results = Results::default();
    let joined = |(id, each): (TensorId, Vec<Vec<f64>>)| (id, each.concat());
    results.outputs = outputs.into_iter().map(joined).collect();
    for &id in case.variables.keys() {
        let each = (0..n_replicas as usize).map(|replica| inputs[&id].on(replica).as_floats());
        let each: Vec<&[f64]> = each.collect();
        let whole = match shards::weight_of(case, id) {
            Some(weight) => {
                let mut whole = each.concat();
                whole.truncate(case.variables[&weight].len());
                whole
            }
            None => {
                if each.iter().any(|values| *values != each[0]) {
                    let name = &graph.tensors[id].name;
                    return Err(format!("`{name}` differs between replicas").into());
                }
                each[0].to_vec()
            }
        };
        results.variables.insert(id, whole);
    }
    Ok(results)
}

/// What every accumulator holds after a micro-batch that isn't the last: the end of the chain
/// of sums that starts at it.
fn sums(case: &Case) -> BTreeMap<TensorId, TensorId> {
    let graph = &case.compiled.graph;
    let producers = graph.producers();
    let mut sums = BTreeMap::new();
    let summing = graph
        .ops
        .values()
        .filter(|op| op.phase == Phase::Accumulate);
    for op in summing {
        let mut source = op.inputs[0];
        let mut depth = 0;
        while let Some(producer) = producers[source] {
            source = graph.ops[producer].inputs[0];
            depth += 1;
        }
        let is_updated = graph
            .updates
            .iter()
            .any(|(variable, _)| *variable == source);
        let is_weight = case
            .model
            .weights
            .iter()
            .any(|weight| weight.tensor == source);
        if is_updated && !is_weight {
            let last = sums.entry(source).or_insert((depth, op.outputs[0]));
            *last = (*last).max((depth, op.outputs[0]));
        }
    }
    let last = |(variable, (_, sum))| (variable, sum);
    sums.into_iter().map(last).collect()
}

//! Trains a case by the definition, in `f64`, without a pass of the compiler.
//!
//! A second opinion on [`crate::evaluate`], which evaluates the graph that all passes have made and
//! so repeats what a pass gets wrong. Here the graph is the model's own, forward only: every
//! micro-batch of every replica is a run of it, with gradients by [`backward`] (which
//! [`slopes`] checks against differences of the loss), and all that follows is written out below on
//! plain vectors: sums and means over micro-batches and replicas, moments, norms, steps. The loss
//! isn't scaled, for that must cancel. Which weight decays and which weights share a norm is told
//! by their names, as a user would.
//!
//! Sources: PopART, `willow/src/transforms/{adamdecompose,sgd0decompose,sgd1decompose}.cpp` and
//! `willow/include/popart/{adam,sgd}.hpp`; Kingma and Ba, "Adam", algorithm 1; You et al., "Large
//! batch optimization for deep learning", algorithm 2.
//!
//! Left out: pipelines that update weights in their stages, whose gradients are of several
//! versions of the weights ([`crate::stale`]).

use std::collections::BTreeMap;

use bert_model::config::Task;
use bert_model::data::MicroBatch;
use bert_model::optim::{LambNorms, OptimizerKind, OptimizerOptions};
use popart_graph::eval::{EvalOptions, Inputs, PerReplica, Value, Values, eval};
use popart_graph::grad::backward;
use popart_graph::ir::{Graph, Op, OpKind, Phase, Reduction, TensorId};
use popart_graph::passes::SoftmaxDropoutGradient;
use popart_graph::passes::optimizer::rules::Correction;

use crate::{Case, Result, Results, Tensors, plan};

/// Added to the root of a second moment (PopART, `adam.hpp`).
const EPSILON: f64 = 1e-6;

/// One run of a graph, on one replica.
const ALONE: EvalOptions = EvalOptions {
    round_to_dtype: false,
    replicas: 1,
};

/// Runs every micro-batch and, after those of an update, the update. Gives what
/// [`Case::evaluate`] gives.
///
/// # Errors
/// The model can't be differentiated or evaluated.
pub fn run(case: &Case) -> Result<Results> {
    let mut graph = case.model.graph.clone();
    let weights: Vec<TensorId> = case.model.weights.iter().map(|info| info.tensor).collect();
    let gradients = match case.model.loss {
        Some(loss) => backward(&mut graph, loss, 1.0, &weights)?,
        None => Default::default(),
    };
    if case.plan.softmax_dropout_gradient == SoftmaxDropoutGradient::Identity {
        disable_attention_dropout(&mut graph);
    }
    let is_weight = |(id, _): &(&TensorId, &Vec<f64>)| weights.contains(id);
    let first = case.variables.iter().filter(is_weight);
    let mut state = State {
        weights: first.map(|(&id, values)| (id, values.clone())).collect(),
        ..State::default()
    };
    let mut outputs = vec![Tensors::new(); case.plan.replicas as usize];
    for (update, micro_batches) in case
        .batches
        .chunks(case.plan.micro_batches as usize)
        .enumerate()
    {
        let mut sums = Tensors::new();
        for on_each in micro_batches {
            for (batch, outputs) in on_each.iter().zip(&mut outputs) {
                let values = eval(&graph, &inputs(&state.weights, batch), ALONE)?;
                for &output in &graph.outputs {
                    let value = values[output].on(0).as_floats();
                    match case.plan.task.trains() {
                        true => add(outputs.entry(output).or_default(), value),
                        false => outputs.entry(output).or_default().extend(value),
                    }
                }
                for (&weight, &gradient) in &gradients {
                    let value = values[gradient].on(0).as_floats();
                    add(sums.entry(weight).or_default(), value);
                }
            }
        }
        if case.plan.task.trains() {
            state.update(case, sums, plan::LEARNING_RATES[update]);
        }
    }
    let mut results = Results {
        variables: state.named(case)?,
        ..Results::default()
    };
    for (id, values) in outputs.into_iter().flatten() {
        results.outputs.entry(id).or_default().extend(values);
    }
    Ok(results)
}

/// Lets the gradients of attention dropout pass unchanged, told by their names.
fn disable_attention_dropout(graph: &mut Graph) {
    let of_attention = |op: &&mut Op| {
        op.phase == Phase::Backward
            && matches!(op.kind, OpKind::Dropout { .. })
            && op.name.contains("Attention/Z")
    };
    for op in graph.ops.values_mut().filter(of_attention) {
        op.kind = OpKind::Identity;
        op.inputs.truncate(1);
    }
}

/// The gradient of the first micro-batch's loss by every weight, along a direction of its own for
/// each: as [`backward`] has it, and by differences of the loss.
///
/// # Errors
/// The model can't be differentiated or evaluated.
pub fn slopes(case: &Case) -> Result<BTreeMap<TensorId, (f64, f64)>> {
    // The error of the formula is of the fourth order in the step, that of rounding of the first
    // in its inverse: this is where they meet.
    const STEP: f64 = 1e-4;
    let loss = case.model.loss.ok_or("there is no loss")?;
    let mut graph = case.model.graph.clone();
    let weights: Vec<TensorId> = case.model.weights.iter().map(|info| info.tensor).collect();
    let gradients = backward(&mut graph, loss, 1.0, &weights)?;
    let inputs = inputs(&case.variables, &case.batches[0][0]);
    let values: Values = eval(&graph, &inputs, ALONE)?;
    let mut slopes = BTreeMap::new();
    for (&weight, &gradient) in &gradients {
        let gradient = values[gradient].on(0).as_floats();
        let direction = directions(gradient.len());
        let along = gradient.iter().zip(&direction);
        let along: f64 = along
            .map(|(gradient, direction)| gradient * direction)
            .sum();
        let loss_at = |step: f64| -> Result<f64> {
            let moved = case.variables[&weight].iter().zip(&direction);
            let moved: Vec<f64> = moved.map(|(w, direction)| w + step * direction).collect();
            let mut inputs = inputs.clone();
            inputs.insert(weight, moved.into());
            let values = eval(&case.model.graph, &inputs, ALONE)?;
            Ok(values[loss].on(0).as_floats()[0])
        };
        let near = loss_at(STEP)? - loss_at(-STEP)?;
        let far = loss_at(2.0 * STEP)? - loss_at(-2.0 * STEP)?;
        slopes.insert(weight, (along, (8.0 * near - far) / (12.0 * STEP)));
    }
    Ok(slopes)
}

/// Signs without a pattern: the bits of multiples of the golden ratio.
fn directions(n: usize) -> Vec<f64> {
    let bit = |index: u64| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) & 1;
    let sign = |index: u64| if bit(index) == 1 { 1.0 } else { -1.0 };
    (0..n as u64).map(sign).collect()
}

/// Of one replica and micro-batch.
fn inputs(weights: &Tensors, batch: &MicroBatch) -> Inputs {
    let weights = weights
        .iter()
        .map(|(&id, values)| (id, values.clone().into()));
    let streams = batch
        .iter()
        .map(|(id, values)| (*id, PerReplica::Same(Value::Int(values.clone()))));
    weights.chain(streams).collect()
}

/// What training changes.
#[derive(Clone, Debug, Default)]
struct State {
    /// Updates so far.
    updates: i32,
    weights: Tensors,
    /// By weight: Adam's first moment, or what SGD carries over to its next step.
    first: Tensors,
    /// By weight.
    second: Tensors,
}

impl State {
    /// Takes a step from gradients summed over all micro-batches of all replicas.
    fn update(&mut self, case: &Case, sums: Tensors, rate: f64) {
        self.updates += 1;
        let n = f64::from(case.plan.micro_batches) * f64::from(case.plan.replicas);
        let divisor = match case.plan.reduction {
            Reduction::Sum => 1.0,
            Reduction::Mean => n,
        };
        let options = &case.plan.optimizer;
        // One factor for all gradients, where their common norm is too large.
        let squares = sums.values().flatten().map(|sum| (sum / divisor).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        let factor = match options.clip_norm {
            Some(limit) if norm > limit => limit / norm,
            _ => 1.0,
        };
        let mut steps = Tensors::new();
        for (weight, sum) in sums {
            let gradient: Vec<f64> = sum.iter().map(|sum| factor * sum / divisor).collect();
            let decays = decays(name(&case.model.graph, weight));
            match options.kind {
                OptimizerKind::Sgd => self.sgd(weight, &gradient, options, decays, rate),
                OptimizerKind::Adam(correction) | OptimizerKind::Lamb(correction) => {
                    let step = self.adam(weight, &gradient, options, correction, decays);
                    steps.insert(weight, step);
                }
            }
        }
        let ratios = match (options.kind, options.max_weight_norm) {
            (OptimizerKind::Lamb(_), Some(limit)) => self.trust_ratios(case, &steps, limit),
            _ => BTreeMap::new(),
        };
        for (weight, step) in &steps {
            let ratio = ratios.get(weight).unwrap_or(&1.0);
            let values = self.weights.entry(*weight).or_default();
            for (w, step) in values.iter_mut().zip(step) {
                *w -= rate * ratio * step;
            }
        }
    }

    /// The direction in which a weight goes.
    fn adam(
        &mut self,
        weight: TensorId,
        gradient: &[f64],
        adam: &OptimizerOptions,
        correction: Correction,
        decays: bool,
    ) -> Vec<f64> {
        let zeros = || vec![0.0; gradient.len()];
        let first = self.first.entry(weight).or_insert_with(zeros);
        let second = self.second.entry(weight).or_insert_with(zeros);
        let (of_first, of_second) = match correction {
            Correction::Bias => (
                1.0 - adam.beta1.powi(self.updates),
                1.0 - adam.beta2.powi(self.updates),
            ),
            Correction::None => (1.0, 1.0),
        };
        let decay = if decays { adam.weight_decay } else { 0.0 };
        let mut step = zeros();
        for index in 0..gradient.len() {
            let (g, w) = (gradient[index], self.weights[&weight][index]);
            first[index] = adam.beta1 * first[index] + (1.0 - adam.beta1) * g;
            second[index] = adam.beta2 * second[index] + (1.0 - adam.beta2) * g.powi(2);
            let (m, v) = (first[index] / of_first, second[index] / of_second);
            step[index] = m / (v.sqrt() + EPSILON) + decay * w;
        }
        step
    }

    /// LAMB's length of a step: that of the weight over that of the direction. Pieces of one
    /// weight count as that weight.
    fn trust_ratios(&self, case: &Case, steps: &Tensors, limit: f64) -> BTreeMap<TensorId, f64> {
        let whole =
            |weight: &TensorId| whole_name(name(&case.model.graph, *weight), case.plan.task);
        let mut squares: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (weight, step) in steps {
            let sum = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
            let (of_weight, of_step) = squares.entry(whole(weight)).or_default();
            *of_weight += sum(&self.weights[weight]);
            *of_step += sum(step);
        }
        let ratio = |weight: &TensorId| match squares[whole(weight)] {
            _ if case.plan.norms == LambNorms::OfFactors && is_added(case, *weight) => 1.0,
            (0.0, _) | (_, 0.0) => 1.0,
            (of_weight, of_step) => of_weight.sqrt().min(limit) / of_step.sqrt(),
        };
        steps
            .keys()
            .map(|weight| (*weight, ratio(weight)))
            .collect()
    }

    /// A step along the gradient and what the last one carries over: its momentum, and, as PopART
    /// has it, the decay of the weight that it has made. So the very first step decays nothing.
    fn sgd(
        &mut self,
        weight: TensorId,
        gradient: &[f64],
        sgd: &OptimizerOptions,
        decays: bool,
        rate: f64,
    ) {
        let decay = if decays { sgd.weight_decay } else { 0.0 };
        let kept = 1.0 - sgd.dampening.unwrap_or(sgd.momentum);
        let values = self.weights.entry(weight).or_default();
        if sgd.momentum == 0.0 {
            for (w, g) in values.iter_mut().zip(gradient) {
                *w -= rate * kept * (g + decay * *w);
            }
            return;
        }
        let carried = self.first.entry(weight);
        let carried = carried.or_insert_with(|| vec![0.0; gradient.len()]);
        for ((w, g), carried) in values.iter_mut().zip(gradient).zip(carried) {
            let step = *carried + kept * g;
            *w -= rate * step;
            *carried = sgd.momentum * step + kept * decay * *w;
        }
    }

    /// All variables of the compiled graph, by the names that PopART gives them; accumulators are
    /// empty after an update.
    /// A first moment in `f16` keeps the loss scale, and the second its square.
    fn named(&self, case: &Case) -> Result<Tensors> {
        let options = &case.plan.optimizer;
        let kept = match options.moments.keep_loss_scale() {
            true => options.loss_scaling,
            false => 1.0,
        };
        let times = |values: &[f64], factor: f64| values.iter().map(|x| x * factor).collect();
        let graph = &case.compiled.graph;
        let by_name = self
            .weights
            .keys()
            .map(|&weight| (name(graph, weight), weight));
        let by_name: BTreeMap<&str, TensorId> = by_name.collect();
        let mut variables = Tensors::new();
        for &id in case.variables.keys() {
            let name = name(graph, id);
            let (state, of) = match name.split_once("___") {
                None => ("", name),
                Some(parts) => parts,
            };
            let weight = by_name
                .get(of)
                .ok_or_else(|| format!("`{name}` is of no weight"))?;
            let values = match state {
                "" => self.weights[weight].clone(),
                "Accl" => self.first[weight].clone(),
                "Accl1" => times(&self.first[weight], kept),
                "Accl2" => times(&self.second[weight], kept * kept),
                "Accum" => vec![0.0; self.weights[weight].len()],
                "Step" => vec![f64::from(self.updates)],
                _ => return Err(format!("`{name}` has no definition").into()),
            };
            variables.insert(id, values);
        }
        Ok(variables)
    }
}

fn name(graph: &Graph, tensor: TensorId) -> &str {
    &graph.tensors[tensor].name
}

/// Biases and shifts of norms, whose steps LAMB may take as they are.
fn is_added(case: &Case, weight: TensorId) -> bool {
    let name = name(&case.model.graph, weight);
    let added = ["B", "Beta", "Bias"];
    added.iter().any(|suffix| name.ends_with(suffix))
}

/// Biases and the weights of norms don't (`applications/popart/bert/bert_optimizer`).
fn decays(name: &str) -> bool {
    let spared = ["B", "Beta", "Gamma", "Bias"];
    !spared.iter().any(|suffix| name.ends_with(suffix))
}

/// The weight of which one is a piece for a serialised product (PopART, `LambSerialisedWeight`), or
/// itself. SQuAD gathers from tables that no product reads: each is a weight of its own.
fn whole_name(name: &str, task: Task) -> &str {
    match (name.split_once("/split"), task) {
        (Some((whole, _)), Task::Pretraining(_)) => whole,
        _ => name,
    }
}

fn add(sum: &mut Vec<f64>, values: &[f64]) {
    match sum.is_empty() {
        true => sum.extend(values),
        false => sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += x),
    }
}

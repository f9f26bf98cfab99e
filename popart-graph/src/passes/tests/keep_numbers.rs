//! Every pass keeps the numbers: what the host gets, and what weights become.
//!
//! Graphs are random, or chains of layers wide enough to be sharded; replicas have data of their
//! own. After each pass the graph is evaluated and compared with what it was after the one
//! before. Until weights become something, it is their gradients that are compared, as gradients or
//! in accumulators, the first with those of the model by [`backward`]; what weights then become is
//! compared with the step by its definition.

use proptest::prelude::*;

use super::super::optimizer::rules::LearningRate;
use super::*;
use crate::eval::Values;
use crate::grad::backward;
use crate::testing::sample_inputs;
use crate::text::parse;

/// Sums over replicas and shards happen in other orders.
const TOLERANCE: f64 = 1e-9;

/// A graph and what it was made by.
type Seen = Vec<(&'static str, Graph)>;

/// Trains with all graphs on the way, that of the model first.
fn watched(graph: &Graph, options: &Training) -> Result<Seen> {
    let mut seen: Seen = vec![("model", graph.clone())];
    train_watched(graph.clone(), options, &mut |pass, graph| {
        seen.push((pass, graph.clone()));
    })?;
    Ok(seen)
}

/// Evaluates a graph on replicas with data of their own.
fn values(graph: &Graph, replicas: u32) -> Values {
    let samples: Vec<Inputs> = (0..replicas)
        .map(|replica| sample_inputs(graph, replica))
        .collect();
    let mut inputs = Inputs::new();
    for (&id, same) in &samples[0] {
        let tensor = &graph.tensors[id];
        let value = match tensor.kind {
            TensorKind::Stream => {
                let each = samples.iter().map(|sample| sample[&id].on(0).clone());
                PerReplica::Each(each.collect())
            }
            // State of the optimiser starts at zero.
            TensorKind::Variable { init: Some(_) } => continue,
            _ => same.clone(),
        };
        inputs.insert(id, value);
    }
    let options = EvalOptions {
        round_to_dtype: false,
        replicas,
    };
    eval(graph, &inputs, options).unwrap()
}

/// Values of a graph's outputs and of what its weights become, as far as that is decided.
fn results(graph: &Graph, values: &Values, weights: &[TensorId]) -> Vec<Option<PerReplica>> {
    let outputs = graph.outputs.iter().map(|&id| Some(values[id].clone()));
    let updated = weights
        .iter()
        .map(|&weight| Some(values[next(graph, weight)?].clone()));
    outputs.chain(updated).collect()
}

/// What a variable becomes.
fn next(graph: &Graph, variable: TensorId) -> Option<TensorId> {
    let mut updates = graph.updates.iter();
    let update = updates.find(|(updated, _)| *updated == variable);
    update.map(|&(_, value)| value)
}

/// What a micro-batch adds to the gradient of each weight: with [`Reduction::Mean`], to the mean
/// over all micro-batches and replicas.
type Gradients = Vec<Vec<f64>>;

/// Those of the model, whose loss isn't scaled.
fn of_model(model: &Graph, options: &Training) -> Gradients {
    let mut graph = model.clone();
    let weights = weights(options);
    let gradients = backward(&mut graph, options.loss, 1.0, &weights).unwrap();
    let scaling = options.optimizer.scaling;
    let values = values(&graph, scaling.replicas);
    let of = |weight| summed(&values[gradients[weight]], scaling, 1.0);
    weights.iter().map(of).collect()
}

/// Those of a graph, undone of their scales: what accumulators hold after a micro-batch if there
/// are any, else `made`.
fn of_graph(
    graph: &Graph,
    values: &Values,
    made: &[TensorId],
    options: &Training,
) -> Option<Gradients> {
    let scaling = options.optimizer.scaling;
    let accumulators = graph.tensors.iter().filter(|(_, tensor)| {
        let is_variable = matches!(tensor.kind, TensorKind::Variable { .. });
        is_variable
            && ["Accum___", "Accl___"]
                .iter()
                .any(|prefix| tensor.name.starts_with(prefix))
    });
    // In the order of weights.
    let accumulators = accumulators.filter_map(|(id, _)| next(graph, id));
    let accumulated: Vec<TensorId> = accumulators.collect();
    if accumulated.is_empty() {
        let of = |&gradient| summed(&values[gradient], scaling, scaling.loss_scale);
        return (!made.is_empty()).then(|| made.iter().map(of).collect());
    }
    let of = |(&sum, update): (&TensorId, &WeightUpdate)| match update.rule {
        // Replicas start from a share of a velocity, which is their sum; without accumulation each
        // has it all (PopART, SGD1).
        UpdateRule::Sgd(sgd) if sgd.momentum != 0.0 => {
            let scale = f64::from(scaling.replicas) * (1.0 - sgd.dampening) * sgd.velocity_scaling;
            let sums = Scaling {
                reduction: Reduction::Sum,
                ..scaling
            };
            summed(&values[sum], sums, scale)
        }
        _ => summed(&values[sum], scaling, scaling.loss_scale),
    };
    let updates = &options.optimizer.weights;
    assert_eq!(accumulated.len(), updates.len());
    Some(accumulated.iter().zip(updates).map(of).collect())
}

/// The sum over replicas, divided by `scale`, and for a mean by how much is summed.
fn summed(value: &PerReplica, scaling: Scaling, scale: f64) -> Vec<f64> {
    let divisor = match scaling.reduction {
        Reduction::Sum => scale,
        Reduction::Mean => scale * f64::from(scaling.accumulation * scaling.replicas),
    };
    let mut sum = vec![0.0; value.on(0).len()];
    for replica in 0..scaling.replicas as usize {
        let addends = value.on(replica).as_floats();
        sum.iter_mut().zip(addends).for_each(|(sum, x)| *sum += x);
    }
    sum.iter().map(|sum| sum / divisor).collect()
}

/// A weight after its first step (PopART, `willow/include/popart/{sgd,adam}.hpp`).
fn stepped(w: &[f64], gradient: &[f64], update: &WeightUpdate, rate: LearningRate) -> Vec<f64> {
    let LearningRate::Constant(rate) = rate else {
        unreachable!("these optimisers have constant rates");
    };
    let rate = rate * update.learning_rate_scale;
    let pairs = w.iter().zip(gradient);
    let adam = match update.rule {
        UpdateRule::Adam(adam) => adam,
        UpdateRule::Sgd(sgd) => {
            // A velocity has the decay of the weight that its last step has made: none yet.
            let decay = if sgd.momentum == 0.0 {
                sgd.weight_decay
            } else {
                0.0
            };
            let step = |(w, g): (&f64, &f64)| w - rate * (1.0 - sgd.dampening) * (g + decay * w);
            return pairs.map(step).collect();
        }
    };
    let (of_first, of_second) = match adam.bias_correction {
        true => (1.0, 1.0),
        false => (1.0 - adam.beta1, 1.0 - adam.beta2),
    };
    let direction = |(w, g): (&f64, &f64)| {
        of_first * g / ((of_second * g * g).sqrt() + adam.epsilon) + adam.weight_decay * w
    };
    let direction: Vec<f64> = pairs.map(direction).collect();
    let norm = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
    let ratio = match (adam.max_weight_norm, norm(w), norm(&direction)) {
        (None, ..) | (_, 0.0, _) | (_, _, 0.0) => 1.0,
        (Some(limit), of_weight, of_direction) => of_weight.min(limit) / of_direction,
    };
    let step = |(w, x): (&f64, &f64)| w - rate * ratio * x;
    w.iter().zip(&direction).map(step).collect()
}

fn weights(options: &Training) -> Vec<TensorId> {
    let updates = options.optimizer.weights.iter();
    updates.map(|update| update.weight).collect()
}

fn close(got: &PerReplica, want: &PerReplica, replicas: u32) -> bool {
    (0..replicas as usize).all(|replica| match (got.on(replica), want.on(replica)) {
        (Value::Float(got), Value::Float(want)) => all_close(got, want),
        (got, want) => got == want,
    })
}

fn all_close(got: &[f64], want: &[f64]) -> bool {
    let close = |(got, want): (&f64, &f64)| {
        got == want
            || (got.is_nan() && want.is_nan())
            || (got - want).abs() <= TOLERANCE * (1.0 + want.abs())
    };
    got.len() == want.len() && got.iter().zip(want).all(close)
}

/// Compares the graph after each pass with the one before it.
fn check(seen: &Seen, options: &Training) -> std::result::Result<(), TestCaseError> {
    let weights = weights(options);
    let replicas = options.optimizer.scaling.replicas;
    let model = &seen[0].1;
    let mut last = results(model, &values(model, replicas), &weights);
    let mut gradients = of_model(model, options);
    let mut made = Vec::new();
    for pair in seen.windows(2) {
        let [(_, before), (pass, graph)] = pair else {
            unreachable!("windows are pairs");
        };
        let read = parse(&print(graph));
        prop_assert_eq!(read.as_ref(), Ok(graph), "{}", pass);
        if *pass == "differentiate" {
            made = differentiated(before, options);
        }
        let values = values(graph, replicas);
        let now = results(graph, &values, &weights);
        prop_assert_eq!(now.len(), last.len(), "{}", pass);
        for (position, (got, want)) in now.iter().zip(&last).enumerate() {
            if let Some(want) = want {
                let same = got.as_ref().is_some_and(|got| close(got, want, replicas));
                // Values can be long: the printed graphs say more.
                prop_assert!(same, "{}: result {} changes", pass, position);
            }
        }
        let was_decided = last.iter().all(Option::is_some);
        if now.iter().all(Option::is_some) && !was_decided {
            let updates = options.optimizer.weights.iter().zip(&gradients);
            for (update, gradient) in updates {
                let weight = values[update.weight].on(0).as_floats();
                let want = stepped(weight, gradient, update, options.optimizer.learning_rate);
                let got = &values[next(graph, update.weight).expect("it is decided")];
                for replica in 0..replicas as usize {
                    let same = all_close(got.on(replica).as_floats(), &want);
                    prop_assert!(same, "{}: {} takes another step", pass, update.weight);
                }
            }
        } else if !was_decided && let Some(found) = of_graph(graph, &values, &made, options) {
            for (weight, (got, want)) in weights.iter().zip(found.iter().zip(&gradients)) {
                prop_assert!(
                    all_close(got, want),
                    "{}: gradient of {} changes",
                    pass,
                    weight
                );
            }
            gradients = found;
        }
        last = now;
    }
    let all_become_something = last.iter().all(Option::is_some);
    prop_assert!(all_become_something, "a weight isn't trained");
    Ok(())
}

/// Where that pass leaves the gradient of each weight.
fn differentiated(graph: &Graph, options: &Training) -> Vec<TensorId> {
    let weights = weights(options);
    let options = Differentiate {
        loss: options.loss,
        loss_scale: options.optimizer.scaling.loss_scale,
        weights: weights.clone(),
    };
    let (_, gradients) = differentiate(graph.clone(), &options).unwrap();
    weights.iter().map(|weight| gradients[weight]).collect()
}

fn rules() -> impl Strategy<Value = UpdateRule> {
    let momentum = UpdateRule::Sgd(Sgd {
        momentum: 0.5,
        dampening: 0.25,
        velocity_scaling: 2.0,
        weight_decay: 0.125,
    });
    let UpdateRule::Adam(lamb) = LAMB else {
        unreachable!("LAMB is of Adam's family");
    };
    let adam = UpdateRule::Adam(Adam {
        bias_correction: true,
        weight_decay: 0.25,
        max_weight_norm: None,
        ..lamb
    });
    prop::sample::select(vec![LAMB, SGD, momentum, adam])
}

/// A random graph on one IPU, with the sum of all that it makes as loss.
fn with_loss(mut graph: Graph) -> (Graph, TensorId, Vec<TensorId>) {
    let at = Scope {
        ipu: Some(IpuId(0)),
        ..Scope::named("loss")
    };
    for op in graph.ops.values_mut() {
        op.ipu = at.ipu;
        op.recompute = Recompute::Checkpoint;
    }
    let mut loss = None;
    let is_float = |graph: &Graph, id: TensorId| graph.tensors[id].dtype != DType::U32;
    for id in graph.outputs.clone() {
        if !is_float(&graph, id) {
            continue;
        }
        let kind = OpKind::ReduceSum {
            axes: (0..graph.tensors[id].shape.rank() as u32).collect(),
            keep_dims: false,
        };
        let sum = graph.add(kind, &[id], &at).unwrap();
        loss = Some(match loss {
            None => sum,
            Some(loss) => {
                let add = OpKind::Binary(BinaryFn::Add);
                graph.add(add, &[loss, sum], &at).unwrap()
            }
        });
    }
    let weights = graph.tensors.iter().filter(|(id, tensor)| {
        matches!(tensor.kind, TensorKind::Variable { .. }) && is_float(&graph, *id)
    });
    let weights = weights.map(|(id, _)| id).collect();
    (graph, loss.unwrap_or(TensorId(0)), weights)
}

fn options(weights: &[TensorId], loss: TensorId, rule: UpdateRule, scaling: Scaling) -> Training {
    Training {
        loss,
        checkpoints: Vec::new(),
        pipelining: Pipelining::Off,
        recompute: RecomputeMode::None,
        whole_stages: Vec::new(),
        batches_per_step: 1,
        optimizer: OptimizerOptions {
            weights: weights
                .iter()
                .map(|&weight| WeightUpdate {
                    weight,
                    learning_rate_scale: 0.5,
                    rule,
                })
                .collect(),
            joint_norms: Vec::new(),
            scaling,
            learning_rate: LearningRate::Constant(0.5),
        },
        state: OptimizerState {
            sharded: true,
            off_chip: true,
        },
        merge_collectives: true,
        outline: true,
    }
}

proptest! {
    #[test]
    fn of_random_graphs(
        graph in graphs(),
        rule in rules(),
        accumulation in 1..3_u32,
        replicas in 1..4_u32,
    ) {
        let (graph, loss, weights) = with_loss(graph);
        prop_assume!(!weights.is_empty());
        let scaling = Scaling {
            loss_scale: 4.0,
            accumulation,
            replicas,
            reduction: Reduction::Mean,
        };
        let options = options(&weights, loss, rule, scaling);
        match watched(&graph, &options) {
            // Not every operation can be differentiated, and not every sum is one float.
            Err(Error::NoGradient { .. } | Error::Independent { .. } | Error::LossNotScalar { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
            Ok(seen) => check(&seen, &options)?,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// With weights that are sharded or not, in pipelines that recompute or not.
    #[test]
    fn of_chains_of_layers(
        per_stage in prop::collection::vec(1..3_u32, 1..4),
        embedding_stage: bool,
        wide: bool,
        rule in rules(),
        replicas in 1..4_u32,
        sharded: bool,
        off_chip: bool,
        recomputes: bool,
        merge_collectives: bool,
        accumulates: bool,
    ) {
        let columns = if wide { 8192 } else { 3 };
        let model = model(&Layers { per_stage, shape: [2, columns], embedding_stage });
        let accumulation = if accumulates { 32 } else { 1 };
        let mut options = training(&model, rule, accumulation, replicas);
        options.optimizer.learning_rate = LearningRate::Constant(0.5);
        options.state = OptimizerState { sharded, off_chip };
        options.merge_collectives = merge_collectives;
        if !recomputes {
            options.recompute = RecomputeMode::None;
        }
        match watched(&model.graph, &options) {
            Err(Error::PipelineOnOneIpu) => {}
            Err(error) => prop_assert!(false, "{error}"),
            Ok(seen) => check(&seen, &options)?,
        }
    }
}

//! Every pass keeps the numbers: what the host gets, and what weights become.
//!
//! Graphs are random, or chains of layers wide enough to be sharded; replicas have data of their
//! own. After each pass the graph is evaluated and compared with what it was after the one
//! before.

use proptest::prelude::*;

use super::*;
use crate::grad::GradError;
use crate::testing::sample_inputs;
use crate::text::parse;

/// Sums over replicas and shards happen in other orders.
const TOLERANCE: f64 = 1e-9;

/// A graph and what it was made by.
type Seen = Vec<(&'static str, Graph)>;

/// Trains with all graphs on the way, that of the model first.
fn watched(graph: &Graph, options: &Training) -> Result<Seen, PassError> {
    let mut seen: Seen = vec![("model", graph.clone())];
    let mut see = |pass, graph: &Graph| seen.push((pass, graph.clone()));
    super::super::train(graph.clone(), options, &mut Watch::by(&mut see))?;
    Ok(seen)
}

/// Values of a graph's outputs and of what its weights become, as far as that is decided.
fn results(graph: &Graph, weights: &[TensorId], replicas: u32) -> Vec<Option<PerReplica>> {
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
    let values = eval(graph, &inputs, options).unwrap();
    let outputs = graph.outputs.iter().map(|&id| Some(values[id].clone()));
    let updated = weights.iter().map(|weight| {
        let update = graph
            .updates
            .iter()
            .find(|(variable, _)| variable == weight);
        update.map(|&(_, value)| values[value].clone())
    });
    outputs.chain(updated).collect()
}

fn close(got: &PerReplica, want: &PerReplica, replicas: u32) -> bool {
    (0..replicas as usize).all(|replica| match (got.on(replica), want.on(replica)) {
        (Value::Float(got), Value::Float(want)) => {
            let close = |(got, want): (&f64, &f64)| {
                got == want
                    || (got.is_nan() && want.is_nan())
                    || (got - want).abs() <= TOLERANCE * (1.0 + want.abs())
            };
            got.len() == want.len() && got.iter().zip(want).all(close)
        }
        (got, want) => got == want,
    })
}

/// Compares the graph after each pass with the one before it.
fn check(seen: &Seen, weights: &[TensorId], replicas: u32) -> Result<(), TestCaseError> {
    let mut last = results(&seen[0].1, weights, replicas);
    for (pass, graph) in &seen[1..] {
        let read = parse(&print(graph));
        prop_assert_eq!(read.as_ref(), Ok(graph), "{}", pass);
        let now = results(graph, weights, replicas);
        prop_assert_eq!(now.len(), last.len(), "{}", pass);
        for (position, (got, want)) in now.iter().zip(&last).enumerate() {
            if let Some(want) = want {
                let same = got.as_ref().is_some_and(|got| close(got, want, replicas));
                // Values can be long: the printed graphs say more.
                prop_assert!(same, "{}: result {} changes", pass, position);
            }
        }
        last = now;
    }
    let all_become_something = last.iter().all(Option::is_some);
    prop_assert!(all_become_something, "a weight isn't trained");
    Ok(())
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
        correction: Correction::Bias,
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

/// Limits on the norm of gradients, for rules that take them.
fn clip_norms() -> impl Strategy<Value = Option<f64>> {
    prop::sample::select(vec![None, Some(1e-3), Some(1e6)])
}

fn options(weights: &[TensorId], loss: TensorId, rule: UpdateRule, scaling: Scaling) -> Training {
    Training {
        loss,
        pipelining: Pipelining::Off,
        recompute: RecomputeMode::None,
        updates: 1,
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
            clip_norm: None,
        },
        state: OptimizerState {
            sharding: Sharding::On,
            memory: StateMemory::OffChip,
        },
        softmax_dropout_gradient: SoftmaxDropoutGradient::Exact,
        collective_merging: CollectiveMerging::On,
        outlining: Outlining::On,
    }
}

proptest! {
    #[test]
    fn of_random_graphs(
        graph in graphs(),
        rule in rules(),
        accumulation in 1..3_u32,
        replicas in 1..4_u32,
        clip_norm in clip_norms(),
    ) {
        let (graph, loss, weights) = with_loss(graph);
        prop_assume!(!weights.is_empty());
        let scaling = Scaling {
            loss_scale: 4.0,
            accumulation,
            replicas,
            reduction: Reduction::Mean,
        };
        let mut options = options(&weights, loss, rule, scaling);
        if let UpdateRule::Adam(_) = rule {
            options.optimizer.clip_norm = clip_norm;
        }
        match watched(&graph, &options) {
            // Not every operation can be differentiated, and not every sum is one float.
            Err(PassError::Grad(GradError::NoGradient { .. } | GradError::Independent { .. } | GradError::LossNotScalar { .. })) => {}
            Err(error) => prop_assert!(false, "{error}"),
            Ok(seen) => check(&seen, &weights, replicas)?,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// With weights that are sharded or not, in pipelines that recompute in all stages, some or
    /// none.
    #[test]
    fn of_chains_of_layers(
        per_stage in prop::collection::vec(1..3_u32, 1..4),
        embedding_stage: bool,
        wide: bool,
        rule in rules(),
        replicas in 1..4_u32,
        sharding in prop::sample::select(vec![Sharding::Off, Sharding::On]),
        memory in prop::sample::select(vec![StateMemory::OnChip, StateMemory::OffChip]),
        recomputes: bool,
        whole: u8,
        merging in prop::sample::select(vec![CollectiveMerging::Off, CollectiveMerging::On]),
        accumulates: bool,
        clip_norm in clip_norms(),
    ) {
        let columns = if wide { 8192 } else { 3 };
        let n_stages = per_stage.len() as u32;
        let model = model(&Layers { per_stage, shape: [2, columns], embedding_stage });
        let accumulation = if accumulates { 32 } else { 1 };
        let mut options = training(&model, rule, accumulation, replicas);
        options.optimizer.learning_rate = LearningRate::Constant(0.5);
        if let UpdateRule::Adam(_) = rule && accumulates {
            options.optimizer.clip_norm = clip_norm;
        }
        options.state = OptimizerState { sharding, memory };
        options.collective_merging = merging;
        options.recompute = match recomputes {
            true => RecomputeMode::Pipeline {
                checkpoints: model.checkpoints.clone(),
                whole_stages: (1..n_stages)
                    .map(StageId)
                    .filter(|stage| whole >> stage.0 & 1 == 1)
                    .collect(),
            },
            false => RecomputeMode::None,
        };
        match watched(&model.graph, &options) {
            Err(PassError::Pipeline(PipelineError::OnOneIpu)) => {}
            Err(error) => prop_assert!(false, "{error}"),
            Ok(seen) => check(&seen, &model.weights, replicas)?,
        }
    }
}

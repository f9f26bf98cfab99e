//! The whole pipeline: golden numbers of PopART, and values that no pass may change.

mod keep_numbers;

use std::collections::BTreeMap;

use expect_test::expect;
use ipu_sim::ids::{Id, IdVec, IpuId};
use ipu_sim::numerics::DType;
use ipu_sim::units::Bytes;
use proptest::prelude::*;

use super::inter_ipu_copies::CopyError;
use super::optimizer::rules::{
    Adam, Correction, LearningRate, MomentTypes, Scaling, Sgd, UpdateRule, WeightUpdate,
};
use super::*;
use crate::eval::{EvalOptions, Inputs, PerReplica, Value, eval};
use crate::ir::{
    BinaryFn, OpId, OpKind, Phase, Recompute, Reduction, Scope, Shape, StageId, TensorKind, UnaryFn,
};
use crate::schedule::schedule;
use crate::testing::graphs;

/// Sizes of a model.
struct Layers {
    /// Layers on each forward stage, which is on the IPU of its number.
    per_stage: Vec<u32>,
    /// Activation `[rows, columns]`.
    shape: [u32; 2],
    /// Whether the embedding has a stage of its own.
    embedding_stage: bool,
}

/// A chain of layers `x = tanh(x * w)` on the stages' IPUs, with the loss on IPU 0 as BERT
/// has it.
struct Model {
    graph: Graph,
    loss: TensorId,
    checkpoints: Vec<TensorId>,
    weights: Vec<TensorId>,
}

fn model(layers: &Layers) -> Model {
    let mut graph = Graph::default();
    let dtype = DType::F16;
    let ids = graph.stream("indices", DType::U32, Shape::from([layers.shape[0]]));
    let mut weights = Vec::new();
    let mut checkpoints = Vec::new();
    let scope = |name: String, stage: usize, ipu: usize| Scope {
        ipu: Some(IpuId::from_index(ipu)),
        stage: Some(StageId::from_index(stage)),
        ..Scope::named(&name)
    };
    let table_shape = Shape::from([16, layers.shape[1]]);
    let table = graph.variable("table", dtype, table_shape, None);
    weights.push(table);
    let at = scope("Embedding".to_owned(), 0, 0);
    let kind = OpKind::Gather { first_row: 0 };
    let mut x = graph.add(kind, &[table, ids], &at).unwrap();
    let n_stages = layers.per_stage.len();
    for (stage, &n_layers) in layers.per_stage.iter().enumerate() {
        let place = stage + usize::from(layers.embedding_stage);
        for layer in 0..n_layers {
            let name = format!("Layer{stage}.{layer}");
            let at = scope(name.clone(), place, place);
            let w = graph.variable(&name, dtype, Shape::from([layers.shape[1]]), None);
            weights.push(w);
            x = graph
                .add(OpKind::Binary(BinaryFn::Mul), &[x, w], &at)
                .unwrap();
            x = graph.add(OpKind::Unary(UnaryFn::Tanh), &[x], &at).unwrap();
            if layer + 1 < n_layers {
                checkpoints.push(x);
            }
        }
    }
    let at = scope(
        "Head".to_owned(),
        n_stages + usize::from(layers.embedding_stage),
        0,
    );
    let kind = OpKind::ReduceSum {
        axes: [0, 1].into_iter().collect(),
        keep_dims: false,
    };
    let loss = graph.add(kind, &[x], &at).unwrap();
    graph.outputs.push(loss);
    Model {
        graph,
        loss,
        checkpoints,
        weights,
    }
}

const LAMB: UpdateRule = UpdateRule::Adam(Adam {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-6,
    weight_decay: 0.0,
    correction: Correction::None,
    max_weight_norm: Some(65504.0),
    moments: MomentTypes::FLOAT,
});

const SGD: UpdateRule = UpdateRule::Sgd(Sgd {
    momentum: 0.0,
    dampening: 0.0,
    velocity_scaling: 1.0,
    weight_decay: 0.0,
});

fn training(model: &Model, rule: UpdateRule, accumulation: u32, replicas: u32) -> Training {
    let update = |&weight: &TensorId| WeightUpdate {
        weight,
        learning_rate_scale: 1.0,
        rule,
    };
    Training {
        loss: model.loss,
        pipelining: Pipelining::On,
        recompute: RecomputeMode::Pipeline {
            checkpoints: model.checkpoints.clone(),
            whole_stages: Vec::new(),
        },
        // Fills any of these pipelines, also where it doesn't accumulate.
        updates: 32,
        optimizer: OptimizerOptions {
            weights: model.weights.iter().map(update).collect(),
            joint_norms: Vec::new(),
            scaling: Scaling {
                loss_scale: 1.0,
                accumulation,
                replicas,
                reduction: Reduction::Mean,
            },
            learning_rate: LearningRate::Stream,
            clip_norm: None,
        },
        state: OptimizerState {
            sharding: Sharding::On,
            memory: StateMemory::OffChip,
        },
        softmax_dropout_gradient: SoftmaxDropoutGradient::Exact,
        collective_merging: CollectiveMerging::Off,
        outlining: Outlining::Off,
    }
}

fn train(graph: Graph, options: &Training) -> Result<Prepared, PassError> {
    super::train(graph, options, &mut Watch::nobody())
}

fn infer(graph: Graph, options: &Inference) -> Result<Prepared, PassError> {
    super::infer(graph, options, &mut Watch::nobody())
}

/// Bytes that the rings of stashes take on each IPU that has any.
fn stash_bytes(graph: &Graph) -> BTreeMap<IpuId, Bytes> {
    let mut bytes = BTreeMap::new();
    for op in graph.ops.values() {
        if let (OpKind::Stash { slots }, Some(ipu)) = (&op.kind, op.ipu) {
            let ring = graph.tensors[op.inputs[0]].bytes() * u64::from(*slots);
            let total = bytes.entry(ipu).or_insert(Bytes(0));
            *total += ring;
        }
    }
    bytes
}

/// Golden numbers of the stash rules on BERT's placements: slots x activations x bytes.
#[test]
fn stashes_of_bert_placements() {
    #[track_caller]
    fn check(layers: &Layers, expected_mib: &[(u32, f64)]) {
        let model = model(layers);
        let compiled = train(model.graph.clone(), &training(&model, LAMB, 2048, 4)).unwrap();
        let activation = u64::from(layers.shape[0] * layers.shape[1]) * 2;
        let mut only_activations = compiled.graph.clone();
        only_activations.ops = only_activations
            .ops
            .values()
            .filter(|op| {
                let stashed = op.inputs.first();
                stashed.is_some_and(|&id| compiled.graph.tensors[id].bytes().0 == activation)
            })
            .cloned()
            .collect();
        let got: Vec<(u32, f64)> = stash_bytes(&only_activations)
            .into_iter()
            .map(|(ipu, bytes)| (ipu.0, bytes.0 as f64 / f64::from(1 << 20)))
            .collect();
        assert_eq!(got, expected_mib);
    }
    // BERT-Large, sequences of 128 and 384: embedding and 3 layers, then 7 on each IPU.
    let large = |rows| Layers {
        per_stage: vec![3, 7, 7, 7],
        shape: [rows, 1024],
        embedding_stage: false,
    };
    check(&large(1024), &[(0, 36.0), (1, 98.0), (2, 70.0), (3, 42.0)]);
    check(&large(768), &[(0, 27.0), (1, 73.5), (2, 52.5), (3, 31.5)]);
    // BERT-Base: the embedding alone, then 4 layers on each IPU.
    let base = |rows| Layers {
        per_stage: vec![4, 4, 4],
        shape: [rows, 768],
        embedding_stage: true,
    };
    check(&base(4096), &[(1, 168.0), (2, 120.0), (3, 72.0)]);
    check(&base(3072), &[(1, 126.0), (2, 90.0), (3, 54.0)]);
}

/// Without checkpoints a stage keeps only what arrives.
#[test]
fn a_stage_without_checkpoints_keeps_its_input() {
    let mut model = model(&Layers {
        per_stage: vec![3, 7],
        shape: [4, 8],
        embedding_stage: true,
    });
    model.checkpoints.clear();
    let compiled = train(model.graph.clone(), &training(&model, SGD, 16, 1)).unwrap();
    let stashed: Vec<(&str, u32)> = compiled
        .graph
        .ops
        .values()
        .filter_map(|op| match op.kind {
            OpKind::Stash { slots } => Some((op.name.as_str(), slots)),
            _ => None,
        })
        .collect();
    expect![[r#"
        [
            (
                "Stashed___indices",
                7,
            ),
            (
                "Stashed___Embedding",
                5,
            ),
            (
                "Stashed___Layer0.2",
                3,
            ),
        ]
    "#]]
    .assert_debug_eq(&stashed);
}

#[test]
fn a_small_model_from_front_to_back() {
    let model = model(&Layers {
        per_stage: vec![1, 1],
        shape: [2, 3],
        embedding_stage: false,
    });
    let compiled = train(model.graph.clone(), &training(&model, SGD, 8, 1)).unwrap();
    expect![[r#"
        part0 = "learningRate"
        stream %0: u32[2] "indices"
        variable %1: f16[16,3] "table"
        variable %3: f16[3] "Layer0.0"
        variable %6: f16[3] "Layer1.0"
        constant %10: f16[] = splat(1.0) "loss_scale"
        variable %22: f16[16,3] = zeros "Accum___table"
        variable %24: f16[3] = zeros "Accum___Layer0.0"
        variable %26: f16[3] = zeros "Accum___Layer1.0"
        stream %28: f32[] part0 "learningRate"
        %2: f16[2,3] = gather(%1, %0) {first_row: 0} @ipu0 stage0 fwd recompute "Embedding"
        %4: f16[2,3] = mul(%2, %3) @ipu0 stage0 fwd recompute "Layer0.0"
        %5: f16[2,3] = tanh(%4) @ipu0 stage0 fwd recompute "Layer0.0"
        %35: f16[2,3] = ipu_copy(%5) {to: ipu1} @ipu0 stage0 fwd "Layer0.0"
        %7: f16[2,3] = mul(%35, %6) @ipu1 stage1 fwd recompute "Layer1.0"
        %8: f16[2,3] = tanh(%7) @ipu1 stage1 fwd recompute "Layer1.0"
        %36: f16[2,3] = ipu_copy(%8) {to: ipu0} @ipu1 stage1 fwd "Layer1.0"
        %9: f16[] = reduce_sum(%36) {axes: [0,1], keep_dims: false} @ipu0 stage2 fwd "Head"
        %11: f16[1,1] = reshape(%10) {shape: [1,1]} @ipu0 stage2 bwd "Head"
        %12: f16[2,3] = broadcast(%11) {shape: [2,3]} @ipu0 stage2 bwd "Head"
        %37: f16[2,3] = ipu_copy(%12) {to: ipu1} @ipu0 stage2 bwd "Head"
        %13: f16[2,3] = tanh_grad(%8, %37) @ipu1 stage3 bwd "Layer1.0"
        %14: f16[2,3] = mul(%13, %6) @ipu1 stage3 bwd "Layer1.0"
        %42: f16[2,3] = stash(%35) {slots: 3} @ipu1 stage1 fwd "Stashed___Layer0.0"
        %43: f16[2,3] = restore(%42) {slots: 3} @ipu1 stage3 bwd "Restored___Layer0.0"
        %15: f16[2,3] = mul(%13, %43) @ipu1 stage3 bwd "Layer1.0"
        %16: f16[3] = reduce_sum(%15) {axes: [0], keep_dims: false} @ipu1 stage3 bwd "Layer1.0"
        %38: f16[2,3] = ipu_copy(%14) {to: ipu0} @ipu1 stage3 bwd "Layer1.0"
        %17: f16[2,3] = tanh_grad(%5, %38) @ipu0 stage4 bwd "Layer0.0"
        %18: f16[2,3] = mul(%17, %3) @ipu0 stage4 bwd "Layer0.0"
        %19: f16[2,3] = mul(%17, %2) @ipu0 stage4 bwd "Layer0.0"
        %20: f16[3] = reduce_sum(%19) {axes: [0], keep_dims: false} @ipu0 stage4 bwd "Layer0.0"
        %40: u32[2] = stash(%0) {slots: 5} @ipu0 stage0 fwd "Stashed___indices"
        %41: u32[2] = restore(%40) {slots: 5} @ipu0 stage4 bwd "Restored___indices"
        %23: f16[16,3] = sparse_accumulate(%22, %18, %41) {first_row: 0, factor: 1.0} @ipu0 stage4 acc "Accum___table"
        %25: f16[3] = accumulate(%24, %20) {factor: 1.0} @ipu0 stage4 acc "Accum___Layer0.0"
        %27: f16[3] = accumulate(%26, %16) {factor: 1.0} @ipu1 stage3 acc "Accum___Layer1.0"
        %29: f16[16,3] = sgd_update(%1, %23, %28) {scale: 0.125, weight_decay: 0.0} @ipu0 upd "table"
        %30: f16[16,3] = zero(%23) @ipu0 upd "table"
        %31: f16[3] = sgd_update(%3, %25, %28) {scale: 0.125, weight_decay: 0.0} @ipu0 upd "Layer0.0"
        %32: f16[3] = zero(%25) @ipu0 upd "Layer0.0"
        %39: f32[] = ipu_copy(%28) {to: ipu1} @ipu0 part0 upd "learningRate"
        %33: f16[3] = sgd_update(%6, %27, %39) {scale: 0.125, weight_decay: 0.0} @ipu1 upd "Layer1.0"
        %34: f16[3] = zero(%27) @ipu1 upd "Layer1.0"
        inputs %0, %28
        outputs %9
        update %22 = %30
        update %24 = %32
        update %26 = %34
        update %1 = %29
        update %3 = %31
        update %6 = %33
    "#]].assert_eq(&print(&compiled.graph));
    let order = schedule(&compiled.graph).unwrap().order;
    let words: Vec<String> = order
        .iter()
        .map(|&op| {
            let op = &compiled.graph.ops[op];
            let stage = op
                .stage
                .map_or(String::new(), |stage| format!("{} ", stage.0));
            format!("{stage}{} {}", op.kind.name(), op.name)
        })
        .collect();
    expect![[r#"
        0 stash Stashed___indices
        0 gather Embedding
        0 mul Layer0.0
        0 tanh Layer0.0
        0 ipu_copy Layer0.0
        1 stash Stashed___Layer0.0
        1 mul Layer1.0
        1 tanh Layer1.0
        1 ipu_copy Layer1.0
        2 reduce_sum Head
        2 reshape Head
        2 broadcast Head
        2 ipu_copy Head
        3 restore Restored___Layer0.0
        3 tanh_grad Layer1.0
        3 mul Layer1.0
        3 mul Layer1.0
        3 reduce_sum Layer1.0
        3 accumulate Accum___Layer1.0
        3 ipu_copy Layer1.0
        4 restore Restored___indices
        4 tanh_grad Layer0.0
        4 mul Layer0.0
        4 sparse_accumulate Accum___table
        4 mul Layer0.0
        4 reduce_sum Layer0.0
        4 accumulate Accum___Layer0.0
        sgd_update table
        zero table
        sgd_update Layer0.0
        zero Layer0.0
        ipu_copy learningRate
        sgd_update Layer1.0
        zero Layer1.0"#]]
    .assert_eq(&words.join("\n"));
}

#[test]
fn too_few_micro_batches_are_refused() {
    let model = model(&Layers {
        per_stage: vec![1, 1],
        shape: [2, 3],
        embedding_stage: false,
    });
    let error = train(model.graph.clone(), &training(&model, SGD, 4, 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a pipeline of 5 stages needs as many micro-batches, got 4"
    );
}

#[test]
fn a_broken_graph_names_the_pass() {
    let mut graph = Graph::default();
    let x = graph.stream("x", DType::F32, Shape::from([2]));
    let at = Scope {
        ipu: Some(IpuId(0)),
        ..Scope::named("y")
    };
    let y = graph.add(OpKind::Identity, &[x], &at).unwrap();
    graph.inputs.push(y);
    let options = Inference {
        pipelining: Pipelining::Off,
        replicas: 1,
        micro_batches: 1,
        outlining: Outlining::Off,
    };
    let error = infer(graph, &options).unwrap_err().to_string();
    assert!(
        error.starts_with("after pass inter_ipu_copies: malformed graph: "),
        "{error}"
    );
    assert!(
        error.contains("%1: f32[2] = identity(%0) @ipu0 fwd \"y\""),
        "{error}"
    );
}

/// Small whole numbers for everything that the host supplies.
fn inputs(graph: &Graph) -> Inputs {
    let mut inputs: Inputs = BTreeMap::new();
    for (id, tensor) in graph.tensors.iter() {
        let sent = match tensor.kind {
            TensorKind::Stream => true,
            TensorKind::Variable { init } => init.is_none(),
            TensorKind::Constant(_) | TensorKind::Activation => false,
        };
        let n = tensor.shape.elements().0;
        if sent {
            let value = match tensor.dtype {
                DType::U32 => Value::Int((0..n).map(|index| (index % 3) as u32).collect()),
                DType::F16 | DType::F32 => {
                    Value::Float((0..n).map(|index| (index % 5) as f64 - 2.0).collect())
                }
            };
            inputs.insert(id, PerReplica::Same(value));
        }
    }
    inputs
}

const EXACTLY: EvalOptions = EvalOptions {
    round_to_dtype: false,
    replicas: 1,
};

/// Places stage `s` on IPU `s mod n_ipus`.
fn placed(mut graph: Graph, n_ipus: u32) -> Graph {
    for op in graph.ops.values_mut() {
        op.ipu = op.stage.map(|stage| IpuId(stage.0 % n_ipus));
        op.recompute = Recompute::Checkpoint;
    }
    graph
}

/// Errors of random graphs that can't have a pipeline.
fn is_expected(error: &PassError) -> bool {
    matches!(
        error,
        PassError::Pipeline(PipelineError::OnOneIpu | PipelineError::Malformed(_))
            | PassError::Copies(CopyError::VariableOnTwoIpus { .. })
    )
}

/// Whether every copy in a stage goes to the next stage's IPU.
fn hops_are_single(compiled: &Prepared) -> bool {
    let Some(pipeline) = &compiled.pipeline else {
        return true;
    };
    let graph = &compiled.graph;
    graph.ops.values().all(|op| match (&op.kind, op.stage) {
        (OpKind::IpuCopy { to }, Some(stage)) => {
            pipeline.stages.get(StageId(stage.0 + 1)) == Some(to)
        }
        _ => true,
    })
}

/// Whether every kept value that an operation reads is of its own stage, so that it belongs
/// to the right micro-batch.
fn micro_batches_match(graph: &Graph) -> bool {
    let producers: IdVec<TensorId, Option<OpId>> = graph.producers();
    graph.ops.values().all(|op| {
        let waits = matches!(op.kind, OpKind::Restore { .. });
        op.inputs
            .iter()
            .filter_map(|&input| producers[input])
            .all(|producer| {
                let producer = &graph.ops[producer];
                let hop = u32::from(matches!(producer.kind, OpKind::IpuCopy { .. }));
                let (Some(own), Some(from)) = (op.stage, producer.stage) else {
                    return true;
                };
                waits
                    || producer.recompute == Recompute::Recompute
                    || op.recompute == Recompute::Recompute
                    || producer.phase == Phase::Accumulate
                    || own.0 == from.0 + hop
            })
    })
}

/// Whether every weight whose gradient isn't accumulated is updated in the last stage that reads
/// it: the one that mirrors the first stage it is read in, whose gradient comes last.
fn updates_follow_gradients(compiled: &Prepared, weights: &[TensorId]) -> bool {
    let (graph, pipeline) = (&compiled.graph, compiled.pipeline.as_ref());
    let pipeline = pipeline.expect("there are stages");
    let producers = graph.producers();
    let consumers = graph.consumers();
    let mut updates = graph.updates.iter();
    updates.all(|&(variable, value)| {
        let readers = consumers[variable].iter().map(|&op| &graph.ops[op]);
        let forward = readers.filter(|op| op.phase == Phase::Forward);
        let first = forward.filter_map(|op| op.stage).min();
        let update = producers[value].and_then(|op| graph.ops[op].stage);
        match first {
            Some(first) if weights.contains(&variable) && graph.updates_in_stages() => {
                update == Some(pipeline.backward(first))
            }
            _ => true,
        }
    })
}

/// A weight that the first stage and that of the loss read, both on IPU 0, as BERT's word table:
/// with its gradients of both, its update and its moments in the last stage.
#[test]
fn a_tied_weight_is_updated_in_its_last_stage() {
    let text = r#"variable %0: f32[2] = zeros "w"
stream %1: f32[2] "x"
%2: f32[2] = mul(%1, %0) @ipu0 stage0 fwd "embedding"
%3: f32[2] = tanh(%2) @ipu1 stage1 fwd "layer"
%4: f32[2] = mul(%3, %0) @ipu0 stage2 fwd "projection"
%5: f32[] = reduce_sum(%4) {axes: [0], keep_dims: false} @ipu0 stage2 fwd "loss"
inputs %1
outputs %5
"#;
    let model = Model {
        graph: crate::text::parse(text).unwrap(),
        loss: TensorId(5),
        checkpoints: Vec::new(),
        weights: vec![TensorId(0)],
    };
    let mut options = training(&model, SGD, 1, 2);
    options.optimizer.weights[0].learning_rate_scale = 0.5;
    let graph = train(model.graph, &options).unwrap().graph;
    // The gradient of the projection waits for that of the embedding; the rate is scaled once.
    expect![[r#"
        part0 = "learningRate"
        variable %0: f32[2] = zeros "w"
        stream %1: f32[2] "x"
        constant %6: f32[] = splat(1.0) "loss_scale"
        stream %14: f32[] part0 "learningRate"
        %2: f32[2] = mul(%1, %0) @ipu0 stage0 fwd recompute "embedding"
        %18: f32[2] = ipu_copy(%2) {to: ipu1} @ipu0 stage0 fwd "embedding"
        %3: f32[2] = tanh(%18) @ipu1 stage1 fwd recompute "layer"
        %19: f32[2] = ipu_copy(%3) {to: ipu0} @ipu1 stage1 fwd "layer"
        %4: f32[2] = mul(%19, %0) @ipu0 stage2 fwd "projection"
        %5: f32[] = reduce_sum(%4) {axes: [0], keep_dims: false} @ipu0 stage2 fwd "loss"
        %7: f32[1] = reshape(%6) {shape: [1]} @ipu0 stage2 bwd "loss"
        %8: f32[2] = broadcast(%7) {shape: [2]} @ipu0 stage2 bwd "loss"
        %9: f32[2] = mul(%8, %0) @ipu0 stage2 bwd "projection"
        %10: f32[2] = mul(%8, %19) @ipu0 stage2 bwd "projection"
        %20: f32[2] = ipu_copy(%9) {to: ipu1} @ipu0 stage2 bwd "projection"
        %11: f32[2] = tanh_grad(%3, %20) @ipu1 stage3 bwd "layer"
        %21: f32[2] = ipu_copy(%11) {to: ipu0} @ipu1 stage3 bwd "layer"
        %22: f32[2] = stash(%1) {slots: 5} @ipu0 stage0 fwd "Stashed___x"
        %23: f32[2] = restore(%22) {slots: 5} @ipu0 stage4 bwd "Restored___x"
        %12: f32[2] = mul(%21, %23) @ipu0 stage4 bwd "embedding"
        %24: f32[2] = stash(%10) {slots: 3} @ipu0 stage2 bwd "Stashed___projection"
        %25: f32[2] = restore(%24) {slots: 3} @ipu0 stage4 bwd "Restored___projection"
        %13: f32[2] = add(%25, %12) @ipu0 stage4 bwd "embedding"
        %15: f32[] = scale(%14) {factor: 0.5} @ipu0 part0 upd "learningRate"
        %16: f32[2] = all_reduce(%13) @ipu0 stage4 upd "w"
        %17: f32[2] = sgd_update(%0, %16, %15) {scale: 0.5, weight_decay: 0.0} @ipu0 stage4 upd "w"
        %26: f32[2] = stash(%18) {slots: 3} @ipu1 stage1 fwd "Stashed___embedding"
        %27: f32[2] = restore(%26) {slots: 3} @ipu1 stage3 bwd "Restored___embedding"
        inputs %1, %14
        outputs %5
        update %0 = %17
    "#]]
    .assert_eq(&crate::text::print(&graph));
}

proptest! {
    #[test]
    fn inference_keeps_all_outputs(graph in graphs(), n_ipus in 2..4_u32) {
        let graph = placed(graph, n_ipus);
        let options = Inference {
            pipelining: Pipelining::On,
            replicas: 1,
            micro_batches: 99,
            outlining: Outlining::On,
        };
        match infer(graph.clone(), &options) {
            Err(error) => prop_assert!(is_expected(&error), "{error}"),
            Ok(compiled) => {
                prop_assert!(hops_are_single(&compiled));
                prop_assert!(micro_batches_match(&compiled.graph));
                schedule(&compiled.graph).unwrap();
                let expected = eval(&graph, &inputs(&graph), EXACTLY).unwrap();
                let got = eval(&compiled.graph, &inputs(&compiled.graph), EXACTLY).unwrap();
                for (&before, &after) in graph.outputs.iter().zip(&compiled.graph.outputs) {
                    prop_assert_eq!(&got[after], &expected[before]);
                }
            }
        }
    }

    #[test]
    fn a_pipeline_trains_as_one_ipu_does(
        per_stage in prop::collection::vec(1..4_u32, 1..4),
        embedding_stage: bool,
        keep: u8,
        recomputes: bool,
        accumulates: bool,
    ) {
        let mut model = model(&Layers { per_stage, shape: [3, 2], embedding_stage });
        let mut position = 0;
        model.checkpoints.retain(|_| {
            position += 1;
            keep >> (position % 8) & 1 == 0
        });
        let accumulation = if accumulates { 32 } else { 1 };
        let mut options = training(&model, LAMB, accumulation, 1);
        if !recomputes {
            options.recompute = RecomputeMode::None;
        }
        let pipelined = match train(model.graph.clone(), &options) {
            Err(PassError::Pipeline(PipelineError::OnOneIpu)) => return Ok(()),
            other => other.unwrap(),
        };
        prop_assert!(hops_are_single(&pipelined));
        prop_assert!(micro_batches_match(&pipelined.graph));
        prop_assert_eq!(pipelined.graph.updates_in_stages(), !accumulates);
        prop_assert!(updates_follow_gradients(&pipelined, &model.weights));
        let order = schedule(&pipelined.graph).unwrap().order;
        prop_assert_eq!(order.len(), pipelined.graph.ops.len());

        options.pipelining = Pipelining::Off;
        options.recompute = RecomputeMode::None;
        options.state = OptimizerState { sharding: Sharding::Off, memory: StateMemory::OnChip };
        let mut together = model.graph.clone();
        for op in together.ops.values_mut() {
            op.ipu = Some(IpuId(0));
        }
        let together = train(together, &options).unwrap();
        let new_weights = |compiled: &Prepared| {
            let graph = &compiled.graph;
            let values = eval(graph, &inputs(graph), EXACTLY).unwrap();
            let taken = graph.updates.iter();
            taken
                .filter(|(variable, _)| model.weights.contains(variable))
                .map(|&(variable, value)| (variable, values[value].clone()))
                .collect::<BTreeMap<_, _>>()
        };
        prop_assert_eq!(new_weights(&pipelined), new_weights(&together));
    }
}

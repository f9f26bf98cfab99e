//! From resolved options to a program: the model, its passes, its lowering.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use bert_model::config::{BertConfig, Dropout, Mode, Task as ModelTask};
use bert_model::model::{self, BertModel};
use bert_model::optim::{self, GradientSums, StageScaling};
use bert_model::placement::{
    EncoderMemory, Execution, LayersPerIpu, Placement, Recomputation, SquadHead,
    layers_on_fullest_ipu,
};
use ipu_sim::ids::{Id, IdVec, IpuId};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::{Bytes, Flops};
use popart_graph::flops;
use popart_graph::ir::{Graph, OpId, OpKind, Phase, Reduction as LossReduction, TensorKind};
use popart_graph::lower::{self, LowerOptions, Lowered};
use popart_graph::passes::optimizer::rules::{LearningRate, OptimizerOptions};
use popart_graph::passes::{
    self, Inference, OptimizerState, Pipelining, RecomputeMode, Training, Watch,
};
use popart_graph::plan::PlanCache;
use popart_graph::schedule;

use crate::config::BertOptions;
use crate::config::options::{ExecutionMode, HostStreams, InferenceIo, Reduction, Task};
use crate::explain::Placed;

/// A program and what it is for.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The program.
    pub lowered: Lowered,
    /// Whether only the forward pass runs.
    pub inference: bool,
    /// Where stages run, and how many micro-batches of a replica a step has.
    pub placed: Placed,
    /// Work of the graph's matrix products on every IPU in one micro-batch, nothing twice.
    pub matmul_flops: IdVec<IpuId, Flops>,
}

/// Compiles a run for a machine.
///
/// # Errors
///
/// A model that can't be built, placed, planned or pipelined as asked.
pub fn compile(options: &BertOptions, machine: &MachineSpec) -> anyhow::Result<Compiled> {
    compile_watched(options, machine, &mut |_, _| {})
}

/// As [`compile`]; `watch` sees the model's graph and what every pass makes of it.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_watched(
    options: &BertOptions,
    machine: &MachineSpec,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Compiled> {
    compile_with(options, machine, &mut plans_for(machine), watch)
}

/// No plans yet, for [`compile_with`] that machine.
#[must_use]
pub fn plans_for(machine: &MachineSpec) -> PlanCache {
    PlanCache::new(machine.tile.clone())
}

/// As [`compile_watched`], with `plans` of products that are known for this machine; those that
/// it makes are added.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_with(
    options: &BertOptions,
    machine: &MachineSpec,
    plans: &mut PlanCache,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Compiled> {
    let task = task(options);
    let config = bert_config(options);
    refuse_crowded(options, machine)?;
    let placement = placement(options, task)?;
    check_depth(options, &placement, task)?;
    let model = model::build(&config, &placement, task)?;
    watch("model", &model.graph);
    refuse_hopeless(&model.graph, machine)?;
    let inference = options.session.inference;
    let compiled = if inference {
        infer(options, model, watch)?
    } else {
        train(options, model, watch)?
    };
    let order = order(options, &compiled)?;
    let batching = &options.batching;
    let stages = compiled
        .pipeline
        .map_or(0, |pipeline| pipeline.stages.len() as u32);
    // A pipeline of inference runs all micro-batches of a step through at once.
    let (accumulation, batches_per_step) = match (inference, stages) {
        (true, 1..) => (batching.batches_per_step, 1),
        (true, 0) => (1, batching.batches_per_step),
        (false, _) => (
            batching.gradient_accumulation_factor,
            batching.batches_per_step,
        ),
    };
    let lower_options = LowerOptions {
        replicas: batching.replication_factor,
        accumulation,
        batches_per_step,
        stages,
        outline: !options.session.no_outlining,
        prefetch: options.session.inference_io != InferenceIo::MinimumLatency,
        host: match options.session.host_streams {
            HostStreams::WhereNeeded => lower::HostStreams::WhereNeeded,
            HostStreams::Grouped => lower::HostStreams::Grouped,
            HostStreams::Absent => lower::HostStreams::Absent,
        },
        sum_outputs: !inference,
    };
    let graph = &compiled.graph;
    let mut lowered = lower::lower(graph, &order, &lower_options, plans, &machine.tile)?;
    lowered.program.started_by_host = true;
    Ok(Compiled {
        placed: Placed {
            stage_ipus: stage_ipus(graph, stages),
            micro_batches: u64::from(accumulation) * u64::from(batches_per_step),
            updates_in_stages: graph.updates_in_stages(),
        },
        matmul_flops: matmul_flops(graph, lowered.program.n_ipus),
        lowered,
        inference,
    })
}

/// The IPU of every stage.
fn stage_ipus(graph: &Graph, stages: u32) -> Vec<IpuId> {
    let mut out = vec![IpuId(0); stages as usize];
    for op in graph.ops.values() {
        if let (Some(stage), Some(ipu)) = (op.stage, op.ipu)
            && let Some(at) = out.get_mut(stage.index())
        {
            *at = ipu;
        }
    }
    out
}

fn matmul_flops(graph: &Graph, n_ipus: u32) -> IdVec<IpuId, Flops> {
    let mut out: IdVec<IpuId, Flops> = vec![Flops::ZERO; n_ipus as usize].into();
    for (id, op) in graph.ops.iter() {
        if op.phase != Phase::Update {
            out[op.ipu.unwrap_or(IpuId(0))] += flops::of_op(graph, id).matmul_flops;
        }
    }
    out
}

/// Refuses a model of which the weights of the encoder layers of one IPU alone fill it, before a
/// graph is made of what may be billions of layers. Of fewer, [`refuse_hopeless`] counts all
/// weights.
fn refuse_crowded(options: &BertOptions, machine: &MachineSpec) -> crate::Result<()> {
    /// A graph of so many layers is made in a moment.
    const FEW_LAYERS: u32 = 1000;
    let model = &options.model;
    if model.num_layers <= FEW_LAYERS {
        return Ok(());
    }
    let layers = layers_on_fullest_ipu(&options.placement.layers_per_ipu, model.num_layers);
    let [hidden, ff] = [model.hidden_size, model.ff_size].map(u128::from);
    // Query, key, value and output; into the feed-forward block and out of it.
    let elements = 4 * hidden * hidden + 2 * hidden * ff;
    let needed = u128::from(layers) * elements * u128::from(model.dtype.size().0);
    let tile = &machine.tile;
    let available = tile.memory * u64::from(tile.tiles_per_ipu);
    match needed.checked_sub(u128::from(available.0)) {
        None | Some(0) => Ok(()),
        Some(more) => Err(crate::Error::DoesNotFit {
            message: format!(
                "out of memory: the weights of {layers} encoder layers take {needed} B at once, \
                 {more} B more than the {available} of an IPU"
            ),
        }),
    }
}

/// Refuses a model that no plan can make fit: one of whose matrix products alone fills its IPU,
/// since both operands and the result lie there at the same time, or whose weights do. Compiling
/// would only take longer to find out.
fn refuse_hopeless(graph: &Graph, machine: &MachineSpec) -> crate::Result<()> {
    let tile = &machine.tile;
    let available = tile.memory * u64::from(tile.tiles_per_ipu);
    let check = |what: &dyn Fn() -> String, needed: Bytes| match needed > available {
        true => Err(crate::Error::DoesNotFit {
            message: format!(
                "out of memory: {} take {needed} at once, {} more than the {available} of an IPU",
                what(),
                needed - available
            ),
        }),
        false => Ok(()),
    };
    for op in graph.ops.values() {
        if matches!(op.kind, OpKind::MatMul { .. }) {
            let tensors = op.inputs.iter().chain(&op.outputs);
            let bytes = tensors.map(|&id| graph.tensors[id].bytes().0);
            let what = || format!("the operands and the result of `{}`", op.name);
            check(&what, Bytes(bytes.sum()))?;
        }
    }
    for (ipu, bytes) in weights_by_ipu(graph) {
        check(&|| format!("the weights on {ipu}"), bytes)?;
    }
    Ok(())
}

/// Bytes of the variables that operations on each IPU read.
fn weights_by_ipu(graph: &Graph) -> BTreeMap<IpuId, Bytes> {
    let mut bytes: BTreeMap<IpuId, Bytes> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for op in graph.ops.values() {
        let ipu = op.ipu.unwrap_or(IpuId(0));
        for &input in &op.inputs {
            let tensor = &graph.tensors[input];
            if matches!(tensor.kind, TensorKind::Variable { .. }) && seen.insert((ipu, input)) {
                *bytes.entry(ipu).or_default() += tensor.bytes();
            }
        }
    }
    bytes
}

/// The order of operations, with weight updates side by side where the application asks for it
/// (`applications/popart/bert/bert.py`): with replicas,
/// accumulation, a pipeline and state in streaming memory, but for the first IPU's. With sharded
/// state on the chip it asks for the same (`OverlapMemoryOptimized`), which pairs loads that are
/// alike: there are none, so the order stays.
fn order(options: &BertOptions, compiled: &passes::Compiled) -> anyhow::Result<Vec<OpId>> {
    let graph = &compiled.graph;
    let schedule = schedule::schedule(graph)?;
    let batching = &options.batching;
    let overlaps = compiled.pipeline.is_some()
        && !options.session.inference
        && batching.replication_factor > 1
        && batching.gradient_accumulation_factor > 1
        && options.optimizer.state_offchip;
    Ok(match overlaps {
        true => schedule::overlap_updates(graph, schedule, &[IpuId(0)]).order,
        false => schedule.order,
    })
}

/// Most micro-batches of a step that are simulated: far above any use, and few enough for
/// cycles to be counted in 64 bits.
const MICRO_BATCHES_MAX: u64 = 1_000_000_000;

/// Refuses steps with too few micro-batches to fill the pipeline, or too many to count.
fn check_depth(
    options: &BertOptions,
    placement: &Placement,
    task: ModelTask,
) -> anyhow::Result<()> {
    let batching = &options.batching;
    let (accumulated, per_step) = (
        batching.gradient_accumulation_factor,
        batching.batches_per_step,
    );
    let micro_batches = u64::from(accumulated) * u64::from(per_step);
    anyhow::ensure!(
        micro_batches <= MICRO_BATCHES_MAX,
        "--gradient-accumulation-factor {accumulated} times --batches-per-step {per_step} is \
         more than {MICRO_BATCHES_MAX} micro-batches a step: lower one of them"
    );
    let stages = placement.stage_ipus(task).len();
    if options.placement.execution_mode == ExecutionMode::Default || placement.stages.len() < 2 {
        return Ok(());
    }
    let (kind, option, depth) = match task.mode() {
        Mode::Training if accumulated > 1 => ("", "--gradient-accumulation-factor", accumulated),
        // Then micro-batches of several weight updates are on the way at the same time.
        Mode::Training => (" without accumulation", "--batches-per-step", per_step),
        Mode::Inference => ("", "--batches-per-step", per_step),
    };
    anyhow::ensure!(
        depth as usize >= stages,
        "a pipeline of {stages} stages{kind} needs {option} {stages} or more, got {depth}"
    );
    Ok(())
}

fn task(options: &BertOptions) -> ModelTask {
    let mode = if options.session.inference {
        Mode::Inference
    } else {
        Mode::Training
    };
    match options.model.task {
        Task::Pretraining => ModelTask::Pretraining(mode),
        Task::Squad => ModelTask::Squad(mode),
    }
}

fn bert_config(options: &BertOptions) -> BertConfig {
    let model = &options.model;
    BertConfig {
        micro_batch: options.batching.micro_batch_size,
        sequence_length: model.sequence_length,
        max_positional_length: model.max_positional_length,
        mask_tokens: model.mask_tokens,
        vocab_length: model.vocab_length,
        hidden_size: model.hidden_size,
        ff_size: model.ff_size,
        attention_heads: model.attention_heads,
        num_layers: model.num_layers,
        split_qkv: model.split_qkv,
        split_linear_layers: model.split_linear_layers,
        vocab_steps: model.embedding_serialization_vocab_steps,
        attention_bias: model.attention_bias,
        activation: model.activation,
        cls_layer: model.cls_layer,
        projection_bias: model.projection_bias,
        update_embedding_dict: model.update_embedding_dict,
        squad_single_output: model.squad_single_output,
        inference_loss: model.inference_lm_perplexity,
        dropout: match (model.dropout, model.attention_dropout) {
            (false, _) => Dropout::Off,
            (true, false) => Dropout::Hidden,
            (true, true) => Dropout::HiddenAndAttention,
        },
        dropout_probability: model.dropout_prob,
        layer_norm_epsilon: model.layer_norm_eps,
        dtype: model.dtype,
        half_partials: options.session.half_partials,
        fully_connected_pass: options.session.fully_connected_pass,
        reduction: loss_reduction(options.optimizer.gradient_reduction),
    }
}

fn loss_reduction(reduction: Reduction) -> LossReduction {
    match reduction {
        Reduction::Sum => LossReduction::Sum,
        Reduction::Mean => LossReduction::Mean,
    }
}

fn placement(options: &BertOptions, task: ModelTask) -> anyhow::Result<Placement> {
    let placed = &options.placement;
    let layers = LayersPerIpu {
        encoder_start_ipu: placed.encoder_start_ipu,
        layers_per_ipu: placed.layers_per_ipu.clone(),
        memory: match &placed.available_memory_proportion {
            None => EncoderMemory::PoplibsDefault,
            Some(shares) => EncoderMemory::PerIpu(shares.clone()),
        },
        squad_head: SquadHead::default_for(task.mode()),
        recomputation: match (
            placed.execution_mode,
            placed.recompute_checkpoint_every_layer,
        ) {
            (ExecutionMode::Default, _) => Recomputation::Off,
            (ExecutionMode::Pipeline, false) => Recomputation::FromStageInput,
            (ExecutionMode::Pipeline, true) => Recomputation::FromEveryLayer,
        },
        execution: match placed.execution_mode {
            ExecutionMode::Default => Execution::Sequential,
            ExecutionMode::Pipeline => Execution::Pipelined,
        },
    };
    Ok(Placement::from_layers_per_ipu(
        &layers,
        options.model.num_layers,
        task,
    )?)
}

fn pipelining(options: &BertOptions, model: &BertModel) -> Pipelining {
    let piped = options.placement.execution_mode == ExecutionMode::Pipeline;
    match piped && model.placement.stages.len() > 1 {
        true => Pipelining::On,
        false => Pipelining::Off,
    }
}

fn infer(
    options: &BertOptions,
    model: BertModel,
    watch: &mut Watch<'_>,
) -> anyhow::Result<passes::Compiled> {
    let inference = Inference {
        pipelining: pipelining(options, &model),
        batches_per_step: options.batching.batches_per_step,
        outline: !options.session.no_outlining,
    };
    Ok(passes::infer_watched(model.graph, &inference, watch)?)
}

fn train(
    options: &BertOptions,
    model: BertModel,
    watch: &mut Watch<'_>,
) -> anyhow::Result<passes::Compiled> {
    let training = Training {
        loss: model.loss.context("the model has no loss to train on")?,
        checkpoints: model.checkpoints.clone(),
        pipelining: pipelining(options, &model),
        recompute: match options.placement.execution_mode {
            ExecutionMode::Default => RecomputeMode::None,
            ExecutionMode::Pipeline => RecomputeMode::Pipeline,
        },
        batches_per_step: options.batching.batches_per_step,
        whole_stages: Vec::new(),
        optimizer: optimizer(options, &model),
        state: OptimizerState {
            sharded: options.optimizer.replicated_tensor_sharding
                && options.batching.replication_factor > 1,
            off_chip: options.optimizer.state_offchip,
        },
        // The application asks for none (`ReplicatedCollectivesSettings`).
        merge_collectives: options.session.merge_collectives,
        outline: !options.session.no_outlining,
    };
    Ok(passes::train_watched(model.graph, &training, watch)?)
}

fn optimizer(options: &BertOptions, model: &BertModel) -> OptimizerOptions {
    let chosen = &options.optimizer;
    let batching = &options.batching;
    let update = optim::OptimizerOptions {
        kind: chosen.kind,
        loss_scaling: chosen.loss_scaling,
        weight_decay: chosen.weight_decay,
        momentum: chosen.momentum,
        dampening: Some(chosen.dampening),
        velocity_scaling: chosen.velocity_scaling,
        beta1: chosen.beta1,
        beta2: chosen.beta2,
        max_weight_norm: chosen.max_weight_norm,
        squad_lr_scale: chosen.squad_lr_scale,
        stage_scaling: match chosen.stage_scaling {
            true => StageScaling::On,
            false => StageScaling::Off,
        },
    };
    let sums = GradientSums {
        accumulation: batching.gradient_accumulation_factor,
        replicas: batching.replication_factor,
        reduction: loss_reduction(chosen.gradient_reduction),
    };
    // As in the original, a rate that no schedule changes is compiled in.
    let rate = match options.learning_rate.is_scheduled() {
        true => LearningRate::Stream,
        false => LearningRate::Constant(options.learning_rate.rate),
    };
    optim::weight_updates(&update, model, sums, rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::clock::Date;
    use crate::request::prepare;

    #[track_caller]
    fn check_refused(words: &str, expected: &str) {
        let given = args::parse(words.split_whitespace().map(String::from)).unwrap();
        let request = prepare(&given, Date::now()).unwrap().request;
        let error = compile(&request.options, &request.machine.spec).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn steps_that_fill_no_pipeline_or_overflow_the_clock_are_refused() {
        let model = "--generated-data true --epochs 1 --num-layers 4 --layers-per-ipu 2 \
                     --encoder-start-ipu 0";
        let pipeline = format!("{model} --execution-mode PIPELINE");
        check_refused(
            &format!("{pipeline} --gradient-accumulation-factor 4"),
            "a pipeline of 5 stages needs --gradient-accumulation-factor 5 or more, got 4",
        );
        check_refused(
            &format!("{pipeline} --batches-per-step 4"),
            "a pipeline of 5 stages without accumulation needs --batches-per-step 5 or more, got 4",
        );
        check_refused(
            &format!("{model} --gradient-accumulation-factor 100000 --batches-per-step 100000"),
            "--gradient-accumulation-factor 100000 times --batches-per-step 100000 is more than \
             1000000000 micro-batches a step: lower one of them",
        );
    }
}

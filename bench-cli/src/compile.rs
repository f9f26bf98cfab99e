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
use ipu_sim::ids::{IdVec, IpuId};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::{Bytes, Flops};
use popart_graph::error::PipelineDepth;
use popart_graph::ir::{Graph, OpKind, Reduction as LossReduction, TensorKind};
use popart_graph::lower::{self, HostOptions, Lowered, OutputReturn, Prefetch, RunStart};
use popart_graph::passes::optimizer::rules::{LearningRate, OptimizerOptions};
use popart_graph::passes::{
    CollectiveMerging, Inference, OptimizerState, Outlining, Pipelining, Sharding, StateMemory,
    Training, Watch,
};
use popart_graph::plan::PlanCache;
use popart_graph::session::{self, Purpose, SessionOptions};

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

/// No plans yet, for runs on that machine.
#[must_use]
pub fn plans_for(machine: &MachineSpec) -> PlanCache {
    PlanCache::new(machine.tile.clone())
}

/// Compiles a run for a machine. `plans` are those of products that are known for it; those that
/// are made are added. `watch` sees the model's graph and what every pass makes of it.
///
/// # Errors
///
/// A model that can't be built, placed, planned or pipelined as asked.
pub fn compile(
    options: &BertOptions,
    machine: &MachineSpec,
    plans: &PlanCache,
    mut watch: Watch<'_>,
) -> anyhow::Result<Compiled> {
    let task = task(options);
    let config = bert_config(options);
    refuse_crowded(options, machine)?;
    let placement = placement(options, task)?;
    refuse_uncountable(options)?;
    let model = model::build(&config, &placement, task)?;
    watch.show("model", &model.graph);
    refuse_hopeless(&model.graph, machine)?;
    let session_options = SessionOptions {
        purpose: match options.session.inference {
            true => Purpose::Inference(inference(options, &model)),
            false => Purpose::Training(training(options, &model)?),
        },
        host: host(options),
    };
    let compiled = session::compile(model.graph, &session_options, machine, plans, watch);
    let compiled = compiled.map_err(in_words)?;
    Ok(Compiled {
        placed: Placed {
            stage_ipus: compiled.execution.stage_ipus(),
            micro_batches: compiled.execution.micro_batches(),
            updates_in_stages: compiled.updates_in_stages,
        },
        matmul_flops: compiled.matmul_flops,
        lowered: compiled.lowered,
        inference: options.session.inference,
    })
}

/// What the compiler says, by the options that a user knows.
fn in_words(error: popart_graph::error::Error) -> anyhow::Error {
    let popart_graph::error::Error::PipelineDepth { stages, depth } = error else {
        return error.into();
    };
    let (kind, option) = match depth {
        PipelineDepth::Accumulation(_) => ("", "--gradient-accumulation-factor"),
        // Then micro-batches of several weight updates are on the way at the same time.
        PipelineDepth::Updates(_) => (" without accumulation", "--batches-per-step"),
        PipelineDepth::MicroBatches(_) => ("", "--batches-per-step"),
    };
    let got = depth.micro_batches();
    anyhow::anyhow!(
        "a pipeline of {stages} stages{kind} needs {option} {stages} or more, got {got}"
    )
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

/// Most micro-batches of a step that are simulated: far above any use, and few enough for
/// cycles to be counted in 64 bits.
const MICRO_BATCHES_MAX: u64 = 1_000_000_000;

/// Refuses steps with too many micro-batches to count.
fn refuse_uncountable(options: &BertOptions) -> anyhow::Result<()> {
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

fn outlining(options: &BertOptions) -> Outlining {
    match options.session.no_outlining {
        true => Outlining::Off,
        false => Outlining::On,
    }
}

fn inference(options: &BertOptions, model: &BertModel) -> Inference {
    Inference {
        pipelining: pipelining(options, model),
        replicas: options.batching.replication_factor,
        micro_batches: options.batching.batches_per_step,
        outlining: outlining(options),
    }
}

fn training(options: &BertOptions, model: &BertModel) -> anyhow::Result<Training> {
    let chosen = &options.optimizer;
    let sharded = chosen.replicated_tensor_sharding && options.batching.replication_factor > 1;
    Ok(Training {
        loss: model.loss.context("the model has no loss to train on")?,
        pipelining: pipelining(options, model),
        recompute: model.recompute_mode(),
        updates: options.batching.batches_per_step,
        optimizer: optimizer(options, model),
        state: OptimizerState {
            sharding: match sharded {
                true => Sharding::On,
                false => Sharding::Off,
            },
            memory: match chosen.state_offchip {
                true => StateMemory::OffChip,
                false => StateMemory::OnChip,
            },
        },
        // The application asks for none (`ReplicatedCollectivesSettings`).
        collective_merging: match options.session.merge_collectives {
            true => CollectiveMerging::On,
            false => CollectiveMerging::Off,
        },
        outlining: outlining(options),
    })
}

fn host(options: &BertOptions) -> HostOptions {
    let session = &options.session;
    HostOptions {
        streams: match session.host_streams {
            HostStreams::WhereNeeded => lower::HostStreams::WhereNeeded,
            HostStreams::Grouped => lower::HostStreams::Grouped,
            HostStreams::Absent => lower::HostStreams::Absent,
        },
        prefetch: match session.inference_io {
            InferenceIo::MinimumLatency => Prefetch::Off,
            InferenceIo::Ordinary | InferenceIo::LowLatency => Prefetch::On,
        },
        outputs: match session.inference {
            true => OutputReturn::All,
            false => OutputReturn::Sum,
        },
        start: RunStart::ByHost,
    }
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
        let machine = &request.machine.spec;
        let plans = plans_for(machine);
        let error = compile(&request.options, machine, &plans, Watch::nobody()).unwrap_err();
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

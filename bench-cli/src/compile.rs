//! From resolved options to a program: the model, its passes, its lowering.

use bert_model::config::{Activation, BertConfig, Dropout, Mode, Task as ModelTask};
use bert_model::model::{self, BertModel};
use bert_model::placement::{
    EncoderMemory, Execution, LayersPerIpu, Placement, Recomputation, SquadHead,
};
use ipu_sim::spec::MachineSpec;
use popart_graph::ir::Reduction as LossReduction;
use popart_graph::lower::{self, LowerOptions, Lowered};
use popart_graph::plan::PlanCache;

use crate::config::BertOptions;
use crate::config::options::{ExecutionMode, InferenceIo, Reduction, Task};

/// A program and what it is for.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The program.
    pub lowered: Lowered,
    /// Whether only the forward pass runs.
    pub inference: bool,
}

/// Compiles a run for a machine.
///
/// # Errors
///
/// A model that can't be built, placed, planned or pipelined as asked.
pub fn compile(options: &BertOptions, machine: &MachineSpec) -> anyhow::Result<Compiled> {
    let task = task(options);
    let config = bert_config(options);
    let placement = placement(options, task)?;
    let model = model::build(&config, &placement, task)?;
    let inference = options.session.inference;
    let lowered = if inference {
        infer(options, model, machine)?
    } else {
        anyhow::bail!("training is not wired yet")
    };
    Ok(Compiled { lowered, inference })
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
        vocab_steps: model.embedding_serialization_vocab_steps,
        activation: Activation::Gelu,
        dropout: match (model.dropout, model.attention_dropout) {
            (false, _) => Dropout::Off,
            (true, false) => Dropout::Hidden,
            (true, true) => Dropout::HiddenAndAttention,
        },
        dropout_probability: model.dropout_prob,
        layer_norm_epsilon: model.layer_norm_eps,
        dtype: model.dtype,
        half_partials: options.session.half_partials,
        reduction: match options.optimizer.gradient_reduction {
            Reduction::Sum => LossReduction::Sum,
            Reduction::Mean => LossReduction::Mean,
        },
        ..BertConfig::base()
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
        recomputation: match (placed.execution_mode, placed.recompute_checkpoint_every_layer) {
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

fn infer(
    options: &BertOptions,
    model: BertModel,
    machine: &MachineSpec,
) -> anyhow::Result<Lowered> {
    let graph = model.graph;
    let order = graph.topological_order()?;
    let lower_options = LowerOptions {
        replicas: options.batching.replication_factor,
        accumulation: 1,
        batches_per_step: options.batching.batches_per_step,
        stages: 0,
        prefetch: options.session.inference_io != InferenceIo::MinimumLatency,
        sum_outputs: false,
    };
    let mut plans = PlanCache::new(machine.tile.clone());
    Ok(lower::lower(&graph, &order, &lower_options, &mut plans, &machine.tile)?)
}

//! The pipeline of passes, in order.
//!
//! [`train`] and [`infer`] take a model's placed forward graph to what the lowering takes: a
//! graph of one micro-batch and one weight update, with copies, stashes and updates in it.
//! After each pass [`verify()`] runs; where it fails, the error names the pass and carries the
//! graph.
//!
//! Ids of the model's tensors stay valid throughout.
//!
//! Not every transform of PopART is a pass here. Products in slices, the tied word table, split or
//! merged attention weights and split linear layers are in the model's graph from the start
//! (`bert-model`), for the options that ask for them are the model's. Loss scaling is how
//! [`differentiate()`] begins; sums and means over micro-batches and replicas are factors of
//! [`accumulate()`] and [`optimizer()`].

pub mod accumulate;
pub mod differentiate;
pub mod inter_ipu_copies;
pub mod merge_collectives;
pub mod offload_optimizer_state;
pub mod optimizer;
pub mod outline;
pub mod pipeline_stages;
pub mod prune;
pub mod recompute;
pub mod shard_optimizer_state;
pub mod sparse_accumulate;
pub mod stash;

use self::accumulate::accumulate;
use self::differentiate::{Differentiate, differentiate};
use self::inter_ipu_copies::inter_ipu_copies;
use self::merge_collectives::merge_collectives;
use self::offload_optimizer_state::offload_optimizer_state;
use self::optimizer::optimizer;
use self::optimizer::rules::{LearningRate, OptimizerOptions};
use self::outline::outline;
use self::pipeline_stages::{Pipeline, PipelineStages, pipeline_stages};
use self::prune::prune;
use self::recompute::{RecomputeOptions, recompute};
use self::shard_optimizer_state::shard_optimizer_state;
use self::sparse_accumulate::sparse_accumulate;
use self::stash::stash;
use crate::error::{Error, Result};
use crate::ir::{Graph, StageId, TensorId};
use crate::text::print;
use crate::verify::{Form, verify};

/// Whether stages work on different micro-batches at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipelining {
    /// One micro-batch after the other; stages are forgotten.
    Off,
    /// As many micro-batches at a time as there are stages.
    On,
}

/// Which forward results are computed again for the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecomputeMode {
    /// None: all that gradients read is kept.
    None,
    /// All between what arrives on an IPU and checkpoints (PopART's `Pipeline`).
    Pipeline,
}

/// Where the state of the optimiser lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptimizerState {
    /// Whether replicas share it out between them (replicated tensor sharding).
    pub sharded: bool,
    /// Whether it is in streaming memory between updates.
    pub off_chip: bool,
}

/// How to train a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The final loss, a scalar.
    pub loss: TensorId,
    /// Results that are kept instead of computed again.
    pub checkpoints: Vec<TensorId>,
    /// Whether there is a pipeline.
    pub pipelining: Pipelining,
    /// Operations that are computed again.
    pub recompute: RecomputeMode,
    /// Forward stages, as [`pipeline_stages()`] numbers them, that compute nothing again.
    pub whole_stages: Vec<StageId>,
    /// Weight updates of a run: micro-batches of a pipeline without accumulation.
    pub batches_per_step: u32,
    /// The weights and what is done to them.
    pub optimizer: OptimizerOptions,
    /// Where moments live.
    pub state: OptimizerState,
    /// Whether collectives that are alike are one (PopART's `ReplicatedCollectivesSettings`, all
    /// off unless asked for).
    pub merge_collectives: bool,
    /// Whether pieces that are alike share their code.
    pub outline: bool,
}

/// How to run a model forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inference {
    /// Whether there is a pipeline.
    pub pipelining: Pipelining,
    /// Micro-batches of a run.
    pub batches_per_step: u32,
    /// Whether pieces that are alike share their code.
    pub outline: bool,
}

/// A graph to lower.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// One micro-batch and one weight update.
    pub graph: Graph,
    /// Stages and where they run; `None` without a pipeline.
    pub pipeline: Option<Pipeline>,
    /// The stream of the learning rate, if the host sends it.
    pub learning_rate: Option<TensorId>,
}

/// Is shown the graph after every pass, with the pass's name.
pub type Watch<'a> = dyn FnMut(&'static str, &Graph) + 'a;

/// From a placed forward graph to a training step.
///
/// # Errors
/// What a pass says of the graph or the options, or, as [`Error::Pass`], what the verifier
/// says of a pass's result.
pub fn train(graph: Graph, options: &Training) -> Result<Compiled> {
    train_watched(graph, options, &mut |_, _| {})
}

/// Runs [`train`], pass by pass before the eyes of `watch`.
///
/// # Errors
/// As [`train`].
pub fn train_watched(graph: Graph, options: &Training, watch: &mut Watch<'_>) -> Result<Compiled> {
    let optimizer_options = &options.optimizer;
    let scaling = optimizer_options.scaling;
    let depth = match scaling.accumulates() {
        true => scaling.accumulation,
        false => options.batches_per_step,
    };
    let n_inputs = graph.inputs.len();

    // First, for gradients are placed by the stages of what they differentiate.
    let (graph, pipeline) = staged(graph, options.pipelining, Some(options.loss), depth, watch)?;
    let differentiation = Differentiate {
        loss: options.loss,
        loss_scale: scaling.loss_scale,
        weights: optimizer_options
            .weights
            .iter()
            .map(|update| update.weight)
            .collect(),
    };
    let mut logical = |pass, graph| checked(watch, pass, Form::Logical, graph);
    // Before copies and stashes, which have no gradients.
    let (graph, gradients) = differentiate(graph, &differentiation)?;
    let graph = logical("differentiate", graph)?;
    // Right behind, while gradients are still those of single micro-batches.
    let (graph, accumulated) = accumulate(graph, &gradients, optimizer_options)?;
    let graph = logical("accumulate", graph)?;
    // Needs accumulators; spares the pipeline dense gradients that wait for their other part.
    let graph = logical("sparse_accumulate", sparse_accumulate(graph, &scaling)?)?;
    // Before copies, so that those of the learning rate are made with all others.
    let (graph, _) = optimizer(graph, &accumulated, optimizer_options)?;
    let mut graph = logical("optimizer", graph)?;
    // Before offloading, which moves what one replica holds.
    if options.state.sharded {
        let sharded = shard_optimizer_state(graph, scaling.replicas)?;
        graph = logical("shard_optimizer_state", sharded)?;
    }
    // Before pruning, which keeps what is stored.
    if options.state.off_chip {
        graph = logical("offload_optimizer_state", offload_optimizer_state(graph)?)?;
    }
    // Before copies and stashes, which would be made for useless results too.
    let graph = logical("prune", prune(graph))?;
    // Before recomputation and stashes, which start from what arrives on an IPU.
    let mut graph = moved(graph, pipeline.as_ref(), watch)?;
    let mut placed = |pass, graph| checked(watch, pass, Form::Placed, graph);
    // Needs copies, which are never computed again; decides what is stashed.
    if options.recompute == RecomputeMode::Pipeline {
        let kept = RecomputeOptions {
            checkpoints: options.checkpoints.clone(),
            whole_stages: options.whole_stages.clone(),
            loss_stage: pipeline.as_ref().map(|pipeline| pipeline.loss_stage),
        };
        graph = placed("recompute", recompute(graph, &kept)?)?;
    }
    // Needs to know what is computed again: the rest is kept for later stages.
    if pipeline.is_some() {
        graph = checked(watch, "stash", Form::Pipelined, stash(graph)?)?;
    }
    let mut pipelined = |pass, graph| checked(watch, pass, Form::Pipelined, graph);
    // Needs every IPU's updates in place, and all copies that they wait for.
    if options.merge_collectives {
        graph = pipelined("merge_collectives", merge_collectives(graph))?;
    }
    // Last, for nothing may come between what is alike.
    if options.outline {
        graph = pipelined("outline", outline(graph)?)?;
    }
    let streamed = optimizer_options.learning_rate == LearningRate::Stream;
    Ok(Compiled {
        // The optimiser's only stream follows those of the model.
        learning_rate: streamed.then(|| graph.inputs[n_inputs]),
        pipeline,
        graph,
    })
}

/// From a placed forward graph to one that runs forward on several IPUs.
///
/// # Errors
/// As [`train`].
pub fn infer(graph: Graph, options: &Inference) -> Result<Compiled> {
    infer_watched(graph, options, &mut |_, _| {})
}

/// Runs [`infer`], pass by pass before the eyes of `watch`.
///
/// # Errors
/// As [`train`].
pub fn infer_watched(graph: Graph, options: &Inference, watch: &mut Watch<'_>) -> Result<Compiled> {
    let (graph, pipeline) = staged(
        graph,
        options.pipelining,
        None,
        options.batches_per_step,
        watch,
    )?;
    let mut graph = moved(graph, pipeline.as_ref(), watch)?;
    // PopART stashes nothing here; so does this, unless a later stage on the same IPU would
    // read another micro-batch's value.
    if pipeline.is_some() {
        graph = checked(watch, "stash", Form::Pipelined, stash(graph)?)?;
    }
    if options.outline {
        graph = checked(watch, "outline", Form::Pipelined, outline(graph)?)?;
    }
    Ok(Compiled {
        graph,
        pipeline,
        learning_rate: None,
    })
}

/// Stages of a pipeline, or none.
fn staged(
    mut graph: Graph,
    pipelining: Pipelining,
    loss: Option<TensorId>,
    micro_batches: u32,
    watch: &mut Watch<'_>,
) -> Result<(Graph, Option<Pipeline>)> {
    if pipelining == Pipelining::Off {
        for op in graph.ops.values_mut() {
            op.stage = None;
        }
        return Ok((graph, None));
    }
    let options = PipelineStages {
        loss,
        micro_batches,
    };
    let (graph, pipeline) = pipeline_stages(graph, &options)?;
    let graph = checked(watch, "pipeline_stages", Form::Logical, graph)?;
    Ok((graph, Some(pipeline)))
}

fn moved(graph: Graph, pipeline: Option<&Pipeline>, watch: &mut Watch<'_>) -> Result<Graph> {
    let graph = inter_ipu_copies(graph, pipeline)?;
    checked(watch, "inter_ipu_copies", Form::Placed, graph)
}

/// The graph, shown to `watch`, if it is well-formed.
fn checked(watch: &mut Watch<'_>, pass: &'static str, form: Form, graph: Graph) -> Result<Graph> {
    let Err(source) = verify(&graph, form) else {
        watch(pass, &graph);
        return Ok(graph);
    };
    let mut graph = graph;
    // The message has ids.
    graph.renumber();
    Err(Error::Pass {
        pass,
        source: Box::new(source),
        graph: print(&graph),
    })
}

#[cfg(test)]
mod tests;

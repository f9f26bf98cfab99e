//! The pipeline of passes, in order.
//!
//! `train` and `infer`, which a [session](crate::session) calls, take a model's placed forward graph
//! to what the lowering takes: a graph of one micro-batch and one weight update, with copies,
//! stashes and updates in it.
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
pub mod disable_attn_dropout_bwd;
mod error;
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

pub use self::error::{PassError, PassName};

use self::accumulate::accumulate;
use self::differentiate::{Differentiate, differentiate};
use self::disable_attn_dropout_bwd::disable_attn_dropout_bwd;
use self::inter_ipu_copies::inter_ipu_copies;
use self::merge_collectives::merge_collectives;
use self::offload_optimizer_state::offload_optimizer_state;
use self::optimizer::optimizer;
use self::optimizer::rules::OptimizerOptions;
use self::outline::outline;
use self::pipeline_stages::{
    Pipeline, PipelineDepth, PipelineError, PipelineStages, every_operation_is_placed,
    pipeline_stages,
};
use self::prune::prune;
use self::recompute::{RecomputeOptions, recompute};
use self::shard_optimizer_state::shard_optimizer_state;
use self::sparse_accumulate::sparse_accumulate;
use self::stash::stash;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecomputeMode {
    /// None: all that gradients read is kept.
    None,
    /// All between what arrives on an IPU and checkpoints (PopART's `Pipeline`).
    ///
    /// Only a pipeline runs anything again. Without one, operations before a checkpoint are marked
    /// all the same, and outlined apart from the others.
    Pipeline {
        /// Results that are kept instead of computed again.
        checkpoints: Vec<TensorId>,
        /// Forward stages, as the model numbers them, that compute nothing again.
        whole_stages: Vec<StageId>,
    },
}

/// Where the state of the optimiser lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptimizerState {
    /// Whether every replica has all of it.
    pub sharding: Sharding,
    /// Memory that holds the state between updates.
    pub memory: StateMemory,
}

/// Whether replicas share the state of the optimiser out between them (replicated tensor sharding).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharding {
    /// Every replica has all of it.
    Off,
    /// Every replica has a part of it, and updates that part of the weights.
    On,
}

/// Which memory the state of the optimiser is in between weight updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateMemory {
    /// That of the tiles.
    OnChip,
    /// Streaming memory, from which every weight update loads it.
    OffChip,
}

/// Whether collectives that are alike are one (PopART's `ReplicatedCollectivesSettings`, all off
/// unless asked for).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectiveMerging {
    /// Each stays what the optimiser made it.
    Off,
    /// Those of all IPUs that could run at the same time do.
    On,
}

/// Form of the gradient of a dropout behind a softmax, as attention has one (PopART's pattern
/// `DisableAttnDropoutBwdPattern`, off unless asked for).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftmaxDropoutGradient {
    /// It drops what the forward pass dropped.
    Exact,
    /// It is an identity: a pass less over all scores, and no exact gradient.
    Identity,
}

/// Whether pieces of a graph that are alike share their code (PopART's outlining).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlining {
    /// Each operation has code of its own.
    Off,
    /// What is alike is one function, called with copies of what goes in and comes out.
    On,
}

/// How to train a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The final loss, a scalar.
    pub loss: TensorId,
    /// Whether there is a pipeline.
    pub pipelining: Pipelining,
    /// Operations that are computed again.
    pub recompute: RecomputeMode,
    /// Weight updates of a run.
    pub updates: u32,
    /// The weights and what is done to them; its scaling says how many micro-batches a weight update
    /// has, and how many replicas there are.
    pub optimizer: OptimizerOptions,
    /// Gradient of a dropout behind a softmax.
    pub softmax_dropout_gradient: SoftmaxDropoutGradient,
    /// Where moments live.
    pub state: OptimizerState,
    /// Whether collectives that are alike are one.
    pub collective_merging: CollectiveMerging,
    /// Whether pieces that are alike share their code.
    pub outlining: Outlining,
}

impl Training {
    /// Micro-batches that go through a pipeline before it is flushed, and what counts them: those
    /// of one weight update or, where each updates weights in the stages, all of a run.
    #[must_use]
    pub fn depth(&self) -> PipelineDepth {
        let scaling = self.optimizer.scaling;
        match scaling.accumulates() {
            true => PipelineDepth::Accumulation(scaling.accumulation),
            false => PipelineDepth::Updates(self.updates),
        }
    }
}

/// How to run a model forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inference {
    /// Whether there is a pipeline.
    pub pipelining: Pipelining,
    /// Data-parallel copies.
    pub replicas: u32,
    /// Micro-batches of a run.
    pub micro_batches: u32,
    /// Whether pieces that are alike share their code.
    pub outlining: Outlining,
}

impl Inference {
    /// Micro-batches that go through a pipeline before it is flushed: all of a run.
    #[must_use]
    pub fn depth(&self) -> PipelineDepth {
        PipelineDepth::MicroBatches(self.micro_batches)
    }
}

/// A graph to lower.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// One micro-batch and one weight update.
    pub graph: Graph,
    /// Stages and where they run; `None` without a pipeline.
    pub pipeline: Option<Pipeline>,
    /// The stream of the learning rate, if the host sends it.
    pub learning_rate: Option<TensorId>,
}

/// Is shown a graph, with the name of the pass that made it.
type See<'a> = dyn FnMut(&'static str, &Graph) + 'a;

/// Whoever is shown the graph after every pass, with the pass's name; or nobody.
pub struct Watch<'a>(Option<&'a mut See<'a>>);

impl<'a> Watch<'a> {
    /// Nobody watches.
    #[must_use]
    pub fn nobody() -> Self {
        Self(None)
    }

    /// `see` is called after every pass.
    #[must_use]
    pub fn by(see: &'a mut See<'a>) -> Self {
        Self(Some(see))
    }

    /// Shows a graph.
    pub fn show(&mut self, pass: &'static str, graph: &Graph) {
        if let Some(see) = &mut self.0 {
            see(pass, graph);
        }
    }
}

/// From a placed forward graph to a training step, pass by pass before the eyes of `watch`.
///
/// # Errors
/// What a pass says of the graph or the options, or, as [`PassError::Broken`], what the verifier
/// says of a pass's result.
pub(crate) fn train(
    graph: Graph,
    options: &Training,
    watch: &mut Watch<'_>,
) -> Result<Prepared, PassError> {
    let optimizer_options = &options.optimizer;
    let scaling = optimizer_options.scaling;

    // First, for gradients are placed by the stages of what they differentiate.
    let stages = PipelineStages {
        loss: Some(options.loss),
        depth: options.depth(),
    };
    let (graph, pipeline) = staged(graph, options.pipelining, &stages, watch)?;
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
    let mut graph = logical(PassName::Differentiate, graph)?;
    // Right behind, while it sees gradients and nothing else.
    if options.softmax_dropout_gradient == SoftmaxDropoutGradient::Identity {
        graph = logical(
            PassName::DisableAttnDropoutBwd,
            disable_attn_dropout_bwd(graph),
        )?;
    }
    // While gradients are still those of single micro-batches.
    let (graph, accumulated) = accumulate(graph, &gradients, optimizer_options)?;
    let graph = logical(PassName::Accumulate, graph)?;
    // Needs accumulators; spares the pipeline dense gradients that wait for their other part.
    let graph = logical(
        PassName::SparseAccumulate,
        sparse_accumulate(graph, &scaling)?,
    )?;
    // Before copies, so that those of the learning rate are made with all others.
    let (graph, learning_rate) = optimizer(graph, &accumulated, optimizer_options)?;
    let mut graph = logical(PassName::Optimizer, graph)?;
    // Before offloading, which moves what one replica holds.
    if options.state.sharding == Sharding::On {
        let sharded = shard_optimizer_state(graph, scaling.replicas)?;
        graph = logical(PassName::ShardOptimizerState, sharded)?;
    }
    // Before pruning, which keeps what is stored.
    if options.state.memory == StateMemory::OffChip {
        graph = logical(
            PassName::OffloadOptimizerState,
            offload_optimizer_state(graph)?,
        )?;
    }
    // Before copies and stashes, which would be made for useless results too.
    let (graph, new_ids) = prune(graph);
    let learning_rate = learning_rate.and_then(|rate| new_ids[rate]);
    let graph = logical(PassName::Prune, graph)?;
    // Before recomputation and stashes, which start from what arrives on an IPU.
    let mut graph = moved(graph, pipeline.as_ref(), watch)?;
    let mut placed = |pass, graph| checked(watch, pass, Form::Placed, graph);
    // Needs copies, which are never computed again; decides what is stashed.
    if let RecomputeMode::Pipeline {
        checkpoints,
        whole_stages,
    } = &options.recompute
    {
        let kept = RecomputeOptions {
            checkpoints: checkpoints.clone(),
            whole_stages: match (&pipeline, whole_stages.first()) {
                (Some(pipeline), _) => pipeline.whole_stages(whole_stages)?,
                (None, None) => Vec::new(),
                (None, Some(&stage)) => return Err(PipelineError::NoSuchStage { stage }.into()),
            },
            loss_stage: pipeline.as_ref().map(|pipeline| pipeline.loss_stage),
        };
        graph = placed(PassName::Recompute, recompute(graph, &kept)?)?;
    }
    // Needs to know what is computed again: the rest is kept for later stages.
    if pipeline.is_some() {
        graph = checked(watch, PassName::Stash, Form::Pipelined, stash(graph)?)?;
    }
    let mut pipelined = |pass, graph| checked(watch, pass, Form::Pipelined, graph);
    // Needs every IPU's updates in place, and all copies that they wait for.
    if options.collective_merging == CollectiveMerging::On {
        graph = pipelined(PassName::MergeCollectives, merge_collectives(graph))?;
    }
    // Last, for nothing may come between what is alike.
    if options.outlining == Outlining::On {
        graph = pipelined(PassName::Outline, outline(graph)?)?;
    }
    Ok(Prepared {
        graph,
        pipeline,
        learning_rate,
    })
}

/// From a placed forward graph to one that runs forward on several IPUs, pass by pass before the
/// eyes of `watch`.
///
/// # Errors
/// As [`train`].
pub(crate) fn infer(
    graph: Graph,
    options: &Inference,
    watch: &mut Watch<'_>,
) -> Result<Prepared, PassError> {
    let stages = PipelineStages {
        loss: None,
        depth: options.depth(),
    };
    let (graph, pipeline) = staged(graph, options.pipelining, &stages, watch)?;
    let mut graph = moved(graph, pipeline.as_ref(), watch)?;
    // PopART stashes nothing here; so does this, unless a later stage on the same IPU would
    // read another micro-batch's value.
    if pipeline.is_some() {
        graph = checked(watch, PassName::Stash, Form::Pipelined, stash(graph)?)?;
    }
    if options.outlining == Outlining::On {
        graph = checked(watch, PassName::Outline, Form::Pipelined, outline(graph)?)?;
    }
    Ok(Prepared {
        graph,
        pipeline,
        learning_rate: None,
    })
}

/// Stages of a pipeline, or none.
fn staged(
    mut graph: Graph,
    pipelining: Pipelining,
    options: &PipelineStages,
    watch: &mut Watch<'_>,
) -> Result<(Graph, Option<Pipeline>), PassError> {
    if pipelining == Pipelining::Off {
        every_operation_is_placed(&graph).map_err(PipelineError::from)?;
        for op in graph.ops.values_mut() {
            op.stage = None;
        }
        return Ok((graph, None));
    }
    let (graph, pipeline) = pipeline_stages(graph, options)?;
    let graph = checked(watch, PassName::PipelineStages, Form::Logical, graph)?;
    Ok((graph, Some(pipeline)))
}

fn moved(
    graph: Graph,
    pipeline: Option<&Pipeline>,
    watch: &mut Watch<'_>,
) -> Result<Graph, PassError> {
    let graph = inter_ipu_copies(graph, pipeline)?;
    checked(watch, PassName::InterIpuCopies, Form::Placed, graph)
}

/// The graph, shown to `watch`, if it is well-formed.
fn checked(
    watch: &mut Watch<'_>,
    pass: PassName,
    form: Form,
    graph: Graph,
) -> Result<Graph, PassError> {
    let Err(source) = verify(&graph, form) else {
        watch.show(pass.name(), &graph);
        return Ok(graph);
    };
    let mut graph = graph;
    // The message has ids.
    graph.renumber();
    Err(PassError::Broken {
        pass,
        source: Box::new(source),
        graph: print(&graph),
    })
}

#[cfg(test)]
mod tests;

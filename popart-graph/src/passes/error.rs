//! Why does a graph not come through the passes?

use super::inter_ipu_copies::CopyError;
use super::optimizer::error::OptimizerError;
use super::outline::OutlineError;
use super::pipeline_stages::PipelineError;
use super::recompute::RecomputeError;
use crate::grad::GradError;
use crate::infer::InferError;
use crate::ir::{GraphError, words};
use crate::verify::VerifyError;

words! {
    /// A pass that the verifier checks.
    PassName {
        /// Checks and numbers stages.
        PipelineStages = "pipeline_stages",
        /// Adds the backward pass.
        Differentiate = "differentiate",
        /// Makes the gradient of attention dropout an identity.
        DisableAttnDropoutBwd = "disable_attn_dropout_bwd",
        /// Adds accumulators.
        Accumulate = "accumulate",
        /// Adds gradients of gathers row by row.
        SparseAccumulate = "sparse_accumulate",
        /// Adds the weight update.
        Optimizer = "optimizer",
        /// Shards the state of the optimiser.
        ShardOptimizerState = "shard_optimizer_state",
        /// Moves the state of the optimiser to streaming memory.
        OffloadOptimizerState = "offload_optimizer_state",
        /// Removes what nobody needs.
        Prune = "prune",
        /// Copies values between IPUs.
        InterIpuCopies = "inter_ipu_copies",
        /// Chooses what is computed again.
        Recompute = "recompute",
        /// Keeps values for later stages.
        Stash = "stash",
        /// Makes one of collectives that are alike.
        MergeCollectives = "merge_collectives",
        /// Shares the code of pieces that are alike.
        Outline = "outline",
    }
}

/// Why a pass refuses a graph or its options, or what it has broken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PassError {
    /// The stages of a pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The backward pass.
    #[error(transparent)]
    Grad(#[from] GradError),
    /// Accumulators and weight updates.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    /// Copies between IPUs.
    #[error(transparent)]
    Copies(#[from] CopyError),
    /// What is computed again.
    #[error(transparent)]
    Recompute(#[from] RecomputeError),
    /// Pieces that are alike.
    #[error(transparent)]
    Outline(#[from] OutlineError),
    /// A pass that adds operations along the graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A pass that adds operations.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A graph that a pass has broken: a mistake of the compiler, or of the graph it began with.
    #[error("after pass {}: {source}\n{graph}", pass.name())]
    Broken {
        /// The pass.
        pass: PassName,
        /// What is wrong.
        source: Box<VerifyError>,
        /// The graph as text.
        graph: String,
    },
}

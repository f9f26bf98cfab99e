//! Why can a graph not be a pipeline?

use ipu_sim::ids::IpuId;

use super::depth::PipelineDepth;
use crate::ir::{OpId, StageId, TensorId};
use crate::verify::Violation;

/// Why a graph has no stages, or not those that are asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PipelineError {
    /// All stages of a pipeline on one IPU.
    #[error("a pipeline needs stages on at least two IPUs")]
    OnOneIpu,
    /// Fewer micro-batches than stages: the pipeline would be flushed before it is full.
    #[error("a pipeline of {stages} stages needs as many micro-batches, got {}", depth.micro_batches())]
    Depth {
        /// Forward and backward stages.
        stages: usize,
        /// What should be as many.
        depth: PipelineDepth,
    },
    /// A stage that is to compute nothing again, in a model or a run without it.
    #[error("{stage} is to compute nothing again, but there is no such stage")]
    NoSuchStage {
        /// The stage, as the model numbers them.
        stage: StageId,
    },
    /// Neighbours on one IPU, which are one stage, of which only one computes nothing again.
    #[error("{whole} computes nothing again and {other} does, but both are one stage of {ipu}")]
    MixedRecomputation {
        /// A stage that computes nothing again, as the model numbers them.
        whole: StageId,
        /// One that does.
        other: StageId,
        /// Where both are.
        ipu: IpuId,
    },
    /// A loss that no operation computes.
    #[error("{tensor} `{name}` is not the result of an operation")]
    LossNotComputed {
        /// The loss.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// A forward operation in a stage that only has gradients.
    #[error("{op} `{name}` is in {stage}, after the loss in {loss_stage}")]
    AfterLoss {
        /// The operation.
        op: OpId,
        /// Its scope path.
        name: String,
        /// Its stage.
        stage: StageId,
        /// The stage of the loss.
        loss_stage: StageId,
    },
    /// An operation without a place, or stages in disorder.
    #[error("malformed graph: {0}")]
    Malformed(#[from] Violation),
}

//! Which mechanism of machine and compiler the cycles of an IPU are spent on.
//!
//! `docs/mechanisms.md` goes through them and has the share of each. Causes say what an IPU does,
//! mechanisms what for: all that brings operands to a product has one cause with all else that
//! moves between tiles, but a mechanism of its own.
//!
//! A line of the profile says which operation its steps belong to, and the program what they do for
//! it; that gives the mechanism, but for kinds of operation that serve several ends, where it takes
//! the purpose that the model gives them. What is left out:
//! the steps of one exchange phase or compute set have one mechanism, so that operands which come to
//! a product in one phase aren't told apart, activations or weights.

use std::collections::BTreeMap;

use ipu_sim::engine::{Activity, ActivityCycles};
use ipu_sim::program::Role;
use ipu_sim::units::Cycles;
use popart_graph::ir::{BinaryFn, OpTag, Phase, Purpose, UnaryFn};
use popart_graph::profile::{Line, LineKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One mechanism. Every cycle in which an IPU doesn't wait has exactly one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// Vertices of matrix products.
    ProductVertices,
    /// Words between tiles for matrix products: operands to the vertices, partial sums to where
    /// they are added.
    ProductExchange,
    /// Adding partial sums of matrix products, and casting the result.
    Reduction,
    /// Slices of operands for the serial parts of matrix products, and their results.
    Slicing,
    /// Bringing operands of matrix products into the layout of their plan: transposing, moving,
    /// and putting in order.
    ProductRearrangement,
    /// Bringing gradients into the layout of their accumulators.
    GradientRearrangement,
    /// All other changes of layout.
    OtherRearrangement,
    /// Copies of what calls of outlined layers take and hand out.
    CallCopies,
    /// Sync and way of every exchange phase before its words move.
    Launch,
    /// Dispatch of every compute set.
    Dispatch,
    /// Layer norms and their gradients.
    Norms,
    /// Scale, mask and softmax of attention scores, and their gradients.
    Scores,
    /// Activation functions and their gradients.
    ActivationFunctions,
    /// Dropout with the seeds of its generators.
    Dropout,
    /// Sums of results with biases, residuals and other results, and of gradients of one tensor.
    Additions,
    /// Gradients of biases, summed over what they were added to.
    BiasGradients,
    /// Adding gradients to their accumulators.
    Accumulation,
    /// Stashing activations for a later stage of the pipeline, and restoring them.
    Stash,
    /// Looking rows up in embeddings, and adding gradients to these rows.
    Embedding,
    /// Losses with their softmax, gradients of these, and accuracies.
    Loss,
    /// Copies between IPUs of a replica with their sync.
    InterIpuCopies,
    /// Transfers with the host with their sync, and what is summed for them.
    Host,
    /// Transfers with streaming memory with their sync.
    StreamingMemory,
    /// Collectives between replicas with their sync and additions.
    Collectives,
    /// Arithmetic of the weight update.
    Optimiser,
    /// What none of the others stands for.
    Other,
}

impl Mechanism {
    /// Every mechanism.
    pub const ALL: [Self; 26] = [
        Self::ProductVertices,
        Self::ProductExchange,
        Self::Reduction,
        Self::Slicing,
        Self::ProductRearrangement,
        Self::GradientRearrangement,
        Self::OtherRearrangement,
        Self::CallCopies,
        Self::Launch,
        Self::Dispatch,
        Self::Norms,
        Self::Scores,
        Self::ActivationFunctions,
        Self::Dropout,
        Self::Additions,
        Self::BiasGradients,
        Self::Accumulation,
        Self::Stash,
        Self::Embedding,
        Self::Loss,
        Self::InterIpuCopies,
        Self::Host,
        Self::StreamingMemory,
        Self::Collectives,
        Self::Optimiser,
        Self::Other,
    ];

    /// Name of the mechanism in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ProductVertices => "AMP vertices",
            Self::ProductExchange => "operands and partial sums on their way",
            Self::Reduction => "reduction of partials",
            Self::Slicing => "slicing of serial parts",
            Self::ProductRearrangement => "rearrangement for products",
            Self::GradientRearrangement => "rearrangement of gradients",
            Self::OtherRearrangement => "rearrangement elsewhere",
            Self::CallCopies => "copies at calls of outlined layers",
            Self::Launch => "launch of exchanges",
            Self::Dispatch => "dispatch of compute sets",
            Self::Norms => "norms",
            Self::Scores => "softmax, scale and mask of scores",
            Self::ActivationFunctions => "activation functions",
            Self::Dropout => "dropout and its seeds",
            Self::Additions => "biases, residuals and sums of gradients",
            Self::BiasGradients => "reduction of bias gradients",
            Self::Accumulation => "gradient accumulation",
            Self::Stash => "stash and restore",
            Self::Embedding => "embeddings",
            Self::Loss => "loss and accuracy",
            Self::InterIpuCopies => "copies between IPUs",
            Self::Host => "host streams",
            Self::StreamingMemory => "streaming memory",
            Self::Collectives => "collectives",
            Self::Optimiser => "optimiser arithmetic",
            Self::Other => "other",
        }
    }

    /// The mechanism of what steps of a role spend on an activity; none of waiting.
    pub(super) fn of(line: &Line, role: Role, activity: Activity) -> Option<Self> {
        let is_product = line.kind == LineKind::Op(OpTag::MatMul);
        Some(match activity {
            Activity::Compute | Activity::Exchange => match role {
                Role::Reduction | Role::Work if is_product && activity == Activity::Exchange => {
                    Self::ProductExchange
                }
                Role::Work if is_product => Self::ProductVertices,
                Role::Work => Self::of_work(line),
                Role::Reduction => Self::Reduction,
                Role::Slicing => Self::Slicing,
                Role::Layout if is_product => Self::ProductRearrangement,
                Role::Layout if line.kind == LineKind::Op(OpTag::Accumulate) => {
                    Self::GradientRearrangement
                }
                Role::Layout => Self::OtherRearrangement,
                Role::Call => Self::CallCopies,
            },
            Activity::Dispatch => Self::Dispatch,
            Activity::Launch => Self::Launch,
            Activity::IpuCopy => Self::InterIpuCopies,
            Activity::Host => Self::Host,
            Activity::StreamingMemory => Self::StreamingMemory,
            Activity::Collective => Self::Collectives,
            Activity::Idle => return None,
        })
    }

    /// What an operation that is no product computes, and exchanges to compute it.
    fn of_work(line: &Line) -> Self {
        let tag = match line.kind {
            LineKind::PipelineCopies => return Self::InterIpuCopies,
            LineKind::HostInput | LineKind::HostOutput => return Self::Host,
            LineKind::Op(tag) => tag,
        };
        match tag {
            OpTag::IpuCopy => Self::InterIpuCopies,
            OpTag::RemoteLoad | OpTag::RemoteStore => Self::StreamingMemory,
            OpTag::AllReduce
            | OpTag::ReduceScatter
            | OpTag::AllGather
            | OpTag::LocalSlice
            | OpTag::MultiAllReduce
            | OpTag::MultiReduceScatter
            | OpTag::MultiAllGather => Self::Collectives,
            // Of the others, whatever a weight update has is its arithmetic.
            _ if line.phase == Some(Phase::Update) => Self::Optimiser,
            OpTag::LayerNorm | OpTag::LayerNormGrad => Self::Norms,
            OpTag::SequenceMask | OpTag::AttentionMask => Self::Scores,
            OpTag::NllLoss | OpTag::NllSoftmaxGrad | OpTag::Accuracy => Self::Loss,
            OpTag::Dropout => Self::Dropout,
            OpTag::Unary(function) | OpTag::UnaryGrad(function) => match function {
                UnaryFn::Gelu
                | UnaryFn::GeluErf
                | UnaryFn::Tanh
                | UnaryFn::Relu
                | UnaryFn::Sigmoid => Self::ActivationFunctions,
                UnaryFn::Neg | UnaryFn::Abs => Self::of_purpose(line.purpose, Self::Other),
                UnaryFn::Exp
                | UnaryFn::Log
                | UnaryFn::Sqrt
                | UnaryFn::Rsqrt
                | UnaryFn::Square
                | UnaryFn::Reciprocal => Self::Other,
            },
            // A cast follows the sum of the pieces of a product.
            OpTag::Binary(BinaryFn::Add) | OpTag::Cast => {
                Self::of_purpose(line.purpose, Self::Additions)
            }
            OpTag::Softmax
            | OpTag::SoftmaxGrad
            | OpTag::Scale
            | OpTag::Binary(BinaryFn::Sub | BinaryFn::Mul | BinaryFn::Div) => {
                Self::of_purpose(line.purpose, Self::Other)
            }
            OpTag::ReduceSum => Self::BiasGradients,
            OpTag::Accumulate => Self::Accumulation,
            OpTag::Stash | OpTag::Restore => Self::Stash,
            OpTag::Gather | OpTag::GatherGrad | OpTag::SparseAccumulate | OpTag::OneHot => {
                Self::Embedding
            }
            // Outside the weight update, these are nobody's, or have another role.
            OpTag::MatMul
            | OpTag::Identity
            | OpTag::Detach
            | OpTag::Reshape
            | OpTag::Transpose
            | OpTag::Slice
            | OpTag::Concat
            | OpTag::Pad
            | OpTag::Broadcast
            | OpTag::Zero
            | OpTag::AdamMoment
            | OpTag::AdamUpdater
            | OpTag::SquareSum
            | OpTag::AdamUpdate
            | OpTag::LambUpdate
            | OpTag::SgdUpdate
            | OpTag::SgdMomentum
            | OpTag::Binary(BinaryFn::Max)
            | OpTag::CallInput
            | OpTag::CallOutput => Self::Other,
        }
    }

    /// The mechanism of a kind that serves several ends; `general` if it serves none of them here.
    fn of_purpose(purpose: Purpose, general: Self) -> Self {
        match purpose {
            Purpose::Scores => Self::Scores,
            Purpose::ActivationFunction => Self::ActivationFunctions,
            Purpose::Loss => Self::Loss,
            Purpose::General => general,
        }
    }
}

/// Adds what a line of the profile spent without waiting.
pub(super) fn add_busy(
    sums: &mut BTreeMap<Mechanism, Cycles>,
    line: &Line,
    role: Role,
    spent: &ActivityCycles,
) {
    for activity in Activity::ALL {
        let cycles = spent.on(activity);
        let mechanism = Mechanism::of(line, role, activity);
        if let Some(mechanism) = mechanism.filter(|_| cycles > Cycles::ZERO) {
            *sums.entry(mechanism).or_default() += cycles;
        }
    }
}

//! Which mechanism of machine and compiler the cycles of an IPU are spent on.
//!
//! `docs/mechanisms.md` goes through them and has the share of each. Causes say what an IPU does,
//! mechanisms what for: all that brings operands to a product has one cause with all else that
//! moves between tiles, but a mechanism of its own.
//!
//! A line of the profile says which operation its steps belong to and what they do for it; that
//! gives the mechanism, but for kinds of operation that serve several ends. Those are told apart by
//! the part of the model that they stand in, which their name says (`bert_model`). What is left out:
//! the steps of one exchange phase or compute set have one mechanism, so that operands which come to
//! a product in one phase aren't told apart, activations or weights.

use std::collections::BTreeMap;

use ipu_sim::engine::{Activity, ActivityCycles};
use ipu_sim::program::{Role, Source};
use ipu_sim::units::Cycles;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::UPDATE_PASS;

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

    /// Its name in tables.
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

    /// The mechanism of what a line of the profile spends on an activity; none of waiting.
    pub(super) fn of(source: &Source, activity: Activity) -> Option<Self> {
        let is_product = source.kind == "matmul";
        Some(match activity {
            Activity::Compute | Activity::Exchange => match source.role {
                Role::Reduction | Role::Work if is_product && activity == Activity::Exchange => {
                    Self::ProductExchange
                }
                Role::Work if is_product => Self::ProductVertices,
                Role::Work => Self::of_work(source),
                Role::Reduction => Self::Reduction,
                Role::Slicing => Self::Slicing,
                Role::Layout if is_product => Self::ProductRearrangement,
                Role::Layout if source.kind == "accumulate" => Self::GradientRearrangement,
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
    fn of_work(source: &Source) -> Self {
        let part = Part::of(&source.name);
        match source.kind.as_str() {
            "ipu_copy" => Self::InterIpuCopies,
            "host_input" | "host_output" => Self::Host,
            "remote_load" | "remote_store" => Self::StreamingMemory,
            "all_reduce"
            | "reduce_scatter"
            | "all_gather"
            | "local_slice"
            | "multi_all_reduce"
            | "multi_reduce_scatter"
            | "multi_all_gather" => Self::Collectives,
            // Of the others, whatever a weight update has is its arithmetic.
            _ if source.pass == UPDATE_PASS => Self::Optimiser,
            "layer_norm" | "layer_norm_grad" => Self::Norms,
            "sequence_mask" => Self::Scores,
            "softmax" | "softmax_grad" => match part {
                Part::Scores => Self::Scores,
                Part::ActivationFunction | Part::Loss | Part::Elsewhere => Self::Loss,
            },
            "nll_loss" | "nll_softmax_grad" | "accuracy" => Self::Loss,
            "gelu" | "gelu_erf" | "tanh" | "relu" | "sigmoid" | "gelu_grad" | "gelu_erf_grad"
            | "tanh_grad" | "relu_grad" | "sigmoid_grad" => Self::ActivationFunctions,
            "dropout" => Self::Dropout,
            // A cast follows the sum of the pieces of a product.
            "add" | "cast" => match part {
                Part::Scores => Self::Scores,
                Part::ActivationFunction => Self::ActivationFunctions,
                Part::Loss => Self::Loss,
                Part::Elsewhere => Self::Additions,
            },
            "scale" | "mul" | "sub" | "div" | "neg" | "neg_grad" => match part {
                Part::Scores => Self::Scores,
                Part::ActivationFunction => Self::ActivationFunctions,
                Part::Loss => Self::Loss,
                Part::Elsewhere => Self::Other,
            },
            "reduce_sum" => Self::BiasGradients,
            "accumulate" => Self::Accumulation,
            "stash" | "restore" => Self::Stash,
            "gather" | "gather_grad" | "sparse_accumulate" | "one_hot" => Self::Embedding,
            _ => Self::Other,
        }
    }
}

/// Parts of the model whose operations have kinds that others have, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// `Layer3/Attention/Z/Scale`.
    Scores,
    /// `Layer3/FF/SGelu/Mul`: made of several operations.
    ActivationFunction,
    /// `Loss/Sum`, `MLM/Loss/Mean`.
    Loss,
    Elsewhere,
}

impl Part {
    fn of(name: &str) -> Self {
        let mut words = name.split('/');
        let found = words.find_map(|word| match word {
            "Z" => Some(Self::Scores),
            "SGelu" | "LRelu" => Some(Self::ActivationFunction),
            "Loss" => Some(Self::Loss),
            _ => None,
        });
        found.unwrap_or(Self::Elsewhere)
    }
}

/// Adds what a line of the profile spent without waiting.
pub(super) fn add_busy(
    sums: &mut BTreeMap<Mechanism, Cycles>,
    source: &Source,
    spent: &ActivityCycles,
) {
    for activity in Activity::ALL {
        let cycles = spent.on(activity);
        if let Some(mechanism) = Mechanism::of(source, activity).filter(|_| cycles > Cycles::ZERO) {
            *sums.entry(mechanism).or_default() += cycles;
        }
    }
}

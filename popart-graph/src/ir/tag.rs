//! Kinds of operations without their attributes.
//!
//! Where time and memory went is sorted by the kind of operation, and attributes such as an axis
//! or a factor don't matter there. An [`OpTag`] compares, orders and hashes, which an [`OpKind`]
//! with its numbers can't.

use super::{BinaryFn, MultiKind, OpKind, UnaryFn};

/// A row for each kind: its tag, its word, and which [`OpKind`] it stands for.
macro_rules! tags {
    ($($tag:ident = $word:literal of $kind:pat,)*) => {
        /// Kind of an operation, without attributes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OpTag {
            /// [`OpKind::Binary`].
            Binary(BinaryFn),
            /// [`OpKind::Unary`].
            Unary(UnaryFn),
            /// [`OpKind::UnaryGrad`].
            UnaryGrad(UnaryFn),
            $(
                #[doc = concat!("An operation that text calls `", $word, "`.")]
                $tag,
            )*
        }

        impl OpKind {
            /// The kind without its attributes.
            #[must_use]
            pub fn tag(&self) -> OpTag {
                match self {
                    OpKind::Binary(function) => OpTag::Binary(*function),
                    OpKind::Unary(function) => OpTag::Unary(*function),
                    OpKind::UnaryGrad(function) => OpTag::UnaryGrad(*function),
                    $($kind => OpTag::$tag,)*
                }
            }
        }

        impl OpTag {
            /// Name of the kind in text, messages and profiles.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    OpTag::Binary(function) => function.name(),
                    OpTag::Unary(function) => function.name(),
                    OpTag::UnaryGrad(function) => function.gradient_name(),
                    $(OpTag::$tag => $word,)*
                }
            }
        }
    };
}

tags! {
    MatMul = "matmul" of OpKind::MatMul { .. },
    Scale = "scale" of OpKind::Scale { .. },
    Cast = "cast" of OpKind::Cast { .. },
    Identity = "identity" of OpKind::Identity,
    Detach = "detach" of OpKind::Detach,
    Reshape = "reshape" of OpKind::Reshape { .. },
    Transpose = "transpose" of OpKind::Transpose { .. },
    Slice = "slice" of OpKind::Slice { .. },
    Concat = "concat" of OpKind::Concat { .. },
    Pad = "pad" of OpKind::Pad { .. },
    Broadcast = "broadcast" of OpKind::Broadcast { .. },
    ReduceSum = "reduce_sum" of OpKind::ReduceSum { .. },
    Softmax = "softmax" of OpKind::Softmax,
    SoftmaxGrad = "softmax_grad" of OpKind::SoftmaxGrad,
    LayerNorm = "layer_norm" of OpKind::LayerNorm { .. },
    LayerNormGrad = "layer_norm_grad" of OpKind::LayerNormGrad,
    Dropout = "dropout" of OpKind::Dropout { .. },
    Gather = "gather" of OpKind::Gather { .. },
    GatherGrad = "gather_grad" of OpKind::GatherGrad { .. },
    OneHot = "one_hot" of OpKind::OneHot { .. },
    SequenceMask = "sequence_mask" of OpKind::SequenceMask { .. },
    AttentionMask = "attention_mask" of OpKind::AttentionMask,
    NllLoss = "nll_loss" of OpKind::NllLoss { .. },
    NllSoftmaxGrad = "nll_softmax_grad" of OpKind::NllSoftmaxGrad { .. },
    Accuracy = "accuracy" of OpKind::Accuracy { .. },
    Accumulate = "accumulate" of OpKind::Accumulate { .. },
    SparseAccumulate = "sparse_accumulate" of OpKind::SparseAccumulate { .. },
    Zero = "zero" of OpKind::Zero,
    AdamMoment = "adam_moment" of OpKind::AdamMoment { .. },
    AdamUpdater = "adam_updater" of OpKind::AdamUpdater { .. },
    SquareSum = "square_sum" of OpKind::SquareSum,
    AdamUpdate = "adam_update" of OpKind::AdamUpdate,
    LambUpdate = "lamb_update" of OpKind::LambUpdate { .. },
    SgdUpdate = "sgd_update" of OpKind::SgdUpdate { .. },
    SgdMomentum = "sgd_momentum" of OpKind::SgdMomentum { .. },
    IpuCopy = "ipu_copy" of OpKind::IpuCopy { .. },
    Stash = "stash" of OpKind::Stash { .. },
    Restore = "restore" of OpKind::Restore { .. },
    CallInput = "call_input" of OpKind::CallInput,
    CallOutput = "call_output" of OpKind::CallOutput,
    AllReduce = "all_reduce" of OpKind::AllReduce,
    ReduceScatter = "reduce_scatter" of OpKind::ReduceScatter { .. },
    AllGather = "all_gather" of OpKind::AllGather { .. },
    LocalSlice = "local_slice" of OpKind::LocalSlice { .. },
    RemoteLoad = "remote_load" of OpKind::RemoteLoad,
    RemoteStore = "remote_store" of OpKind::RemoteStore,
    MultiAllReduce = "multi_all_reduce" of OpKind::Multi { kind: MultiKind::AllReduce, .. },
    MultiReduceScatter = "multi_reduce_scatter" of OpKind::Multi { kind: MultiKind::ReduceScatter { .. }, .. },
    MultiAllGather = "multi_all_gather" of OpKind::Multi { kind: MultiKind::AllGather { .. }, .. },
}

impl OpKind {
    /// Name of the kind in text and messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.tag().name()
    }
}

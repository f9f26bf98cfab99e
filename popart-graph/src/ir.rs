//! The graph: tensors and operations as data.
//!
//! What is to be computed, and on which IPU, but not how: tiles, vertices and
//! cycles belong to the lowered program. A [`Graph`] is a functional program
//! in single-assignment form. A tensor is produced once and never changes;
//! state that lives across runs (weights, accumulators, moments) is a
//! [`TensorKind::Variable`] together with an entry of [`Graph::updates`], which
//! says what value the variable takes when a run has ended.
//!
//! ```
//! use popart_graph::ir::{Graph, Init, OpKind, BinaryFn, Scope, Shape};
//! use ipu_sim::numerics::DType;
//!
//! let mut graph = Graph::default();
//! let x = graph.stream("x", DType::F16, Shape::from([4, 8]));
//! let bias = graph.variable("bias", DType::F16, Shape::from([8]), Some(Init::Zeros));
//! let y = graph.add(OpKind::Binary(BinaryFn::Add), &[x, bias], &Scope::named("Add"))?;
//! graph.outputs.push(y);
//! assert_eq!(graph.tensors[y].shape, Shape::from([4, 8]));
//! # Ok::<(), popart_graph::infer::InferError>(())
//! ```
//!
//! The vocabulary (virtual graph, pipeline stage, checkpoint, stash) is
//! PopART's. Left out: subgraphs (a call of outlined code shows as the copies
//! around it), loops, which the lowering makes, and in-place variants, which are a question of memory.

mod attribute;
mod error;
mod graph;
mod op;
mod part;
mod shape;
mod tag;
mod tensor;

pub use attribute::{
    BiasCorrection, BinaryFn, MatMulPass, MemoryProportion, NoProportion, Partials, Phase, Piece,
    Purpose, Recompute, Reduction, Saved, saved,
};
pub use error::{Cycle, GraphError};
pub use graph::{Graph, NewIds};
pub use ipu_sim::vertex::UnaryFn;
pub use op::{
    MASKED_PAIR_SCORE, MASKED_SCORE, MultiKind, Op, OpKind, OpLabel, Scope,
    nll_smallest_probability,
};
pub use part::{Part, PartKind, Parts};
pub use shape::Shape;
pub use tag::OpTag;
pub use tensor::{Constant, Init, Tensor, TensorKind, TensorType, dtype_from_name, dtype_name};

ipu_sim::define_ids! {
    /// An operation of a graph.
    OpId, "op ";
    /// A tensor of a graph.
    TensorId, "%";
    /// A pipeline stage, counted over forward and backward together.
    #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    StageId, "stage";
    /// A part of a model.
    PartId, "part";
}

/// An enum of words: each variant has a name, in the text form and wherever it is written.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize,
            serde::Deserialize, schemars::JsonSchema,
        )]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Word of the text form.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// The variant of that word.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.name() == name)
            }
        }
    )*};
}
pub(crate) use words;

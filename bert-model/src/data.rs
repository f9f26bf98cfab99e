//! What the host feeds a model with.
//!
//! ```text
//! text ── Tokeniser ──▶ Corpus ── RecordMaker ──▶ Record ◀── RecordLayout ──▶ file
//!                                                                              │
//!          generated ──▶ MicroBatch ◀── Records ◀──────────────────────────────┘
//! ```
//!
//! Text becomes tokens ([`Tokeniser`] with its [`Vocabulary`]), tokens become records of
//! sentence pairs with masked words ([`RecordMaker`]), and [`Records`] feed a model with what a
//! file of them holds. [`generated`] draws random micro-batches instead.
//!
//! [`pack_records`] puts several records into one [`Pack`], which lies in a file as its
//! [`PackLayout`] says.
//!
//! [`squad`] makes features of questions.

pub mod blanks;
mod error;
mod generated;
mod layout;
mod nnls;
mod pack;
mod packing;
mod pairs;
mod pretraining;
mod random;
mod record;
mod rows;
pub mod squad;
mod tokeniser;
mod vocabulary;
mod words;

pub use error::{DataError, Limit, RecipeField};
pub use generated::{MicroBatch, generated};
pub use layout::{Fault, Field, Record, RecordLayout, SEQUENCE_LENGTH_MAX, Token};
pub use pack::{Pack, PackFault, PackField, PackForm, PackLayout, Sequence};
pub use packing::{Leftovers, NamedPack, Packing, PackingRecipe, pack_records};
pub use pretraining::{Corpus, Recipe, RecordMaker};
pub use record::Records;
pub use tokeniser::Tokeniser;
pub use vocabulary::{Vocabulary, WordCounts};
pub use words::Case;

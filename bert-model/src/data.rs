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
//! [`squad`] makes features of questions.
//!
//! Left out so far: packing several sequences into one.

pub mod blanks;
mod error;
mod generated;
mod layout;
mod pairs;
mod pretraining;
mod random;
mod record;
pub mod squad;
mod tokeniser;
mod vocabulary;
mod words;

pub use error::{DataError, Limit, RecipeField};
pub use generated::{MicroBatch, generated};
pub use layout::{Fault, Field, Record, RecordLayout, Token};
pub use pretraining::{Corpus, Recipe, RecordMaker};
pub use record::Records;
pub use tokeniser::Tokeniser;
pub use vocabulary::Vocabulary;
pub use words::Case;

//! What the host feeds a model with.
//!
//! [`generated`] draws random micro-batches; [`Records`] are read from the application's files.
//! Left out so far: tokens of real text, and packing.

mod generated;
mod record;

pub use generated::{MicroBatch, generated};
pub use record::Records;

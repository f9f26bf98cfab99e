//! What the host feeds a model with.
//!
//! Left out so far: record files, tokens of real text, and packing.

mod generated;

pub use generated::{MicroBatch, generated};

//! The benchmark as a library: a configuration in, metrics out.

pub mod config;
pub mod presets;

pub mod compile;
pub mod evaluate;

pub mod explain;
pub mod measure;
pub mod metrics;
pub mod utilisation;

pub mod accuracy;
pub mod advise;
pub mod learning_rate;
pub mod sensitivity;
pub mod suite;
pub mod validate;

pub mod error;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};

//! bert-model
mod attention;
mod builder;
pub mod config;
mod embedding;
mod encoder;
pub mod error;
mod feed_forward;
mod heads;
pub mod model;
pub mod optim;
pub mod placement;

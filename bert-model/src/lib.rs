//! bert-model
mod attention;
mod builder;
pub mod config;
pub mod counts;
pub mod data;
mod embedding;
mod encoder;
pub mod error;
mod feed_forward;
mod heads;
pub mod init;
pub mod model;
pub mod optim;
pub mod placement;

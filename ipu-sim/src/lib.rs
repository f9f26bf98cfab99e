//! A cycle-approximate simulator of Graphcore IPUs and IPU-PODs.

pub mod cost;
pub mod device;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod execute;
pub mod ids;
pub mod layout;
pub mod numerics;
pub mod program;
pub mod spec;
pub mod topology;
pub mod trace;
pub mod units;
pub mod vertex;
pub mod view;
pub mod weigh;

//! A graph compiler in the manner of PopART.

pub mod error;
pub mod eval;
pub mod flops;
pub mod grad;
pub mod infer;
pub mod ir;
pub mod lower;
pub mod passes;
pub mod plan;
pub mod schedule;
#[cfg(test)]
mod testing;
pub mod text;
pub mod verify;

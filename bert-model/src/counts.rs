//! Sizes in closed form: weights, work and stashes.
//!
//! Small formulas that a person checks by hand, each tested against the graph or
//! against published numbers. What a run costs in time or memory is for the
//! lowered program to say.

mod stash;
mod work;

pub use stash::{StageStash, stashes};
pub use work::{flops_forward, flops_training, parameters};

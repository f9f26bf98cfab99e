//! The pipeline of passes, in order.

pub mod inter_ipu_copies;
pub mod pipeline_stages;
pub mod recompute;
pub mod stash;

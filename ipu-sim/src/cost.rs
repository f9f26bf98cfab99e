//! Vertex cost laws: pure functions from sizes on one tile to tile cycles.
//!
//! One file per family. Every law is restated from Graphcore's public PopLibs
//! estimators unless its documentation says otherwise.

pub mod amp;
pub mod elementwise;
pub mod links;
pub mod memory;
pub mod partials;
pub mod random;
pub mod reduce;
pub mod slice;
pub mod vertex;

//! Cost laws: pure functions from sizes to tile cycles, of vertices and of syncs.
//!
//! One file per family. Every law is restated from Graphcore's public PopLibs
//! estimators unless its documentation says otherwise. [`vertex`] says which law each
//! vertex of a program takes; the families also hold laws of vertices that no program
//! contains yet, for those who write programs by hand.

pub mod amp;
pub mod elementwise;
pub mod mac;
pub mod matmul;
pub mod memory;
pub mod partials;
pub mod random;
pub mod reduce;
pub mod slic;
pub mod slice;
pub mod sync;
pub mod vertex;

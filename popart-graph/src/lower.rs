//! From a graph to a device program.

pub(crate) mod builder;
pub(crate) mod layouts;
pub(crate) mod matmul;
pub(crate) mod value;

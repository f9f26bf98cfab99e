//! The graph: tensors and operations as data.

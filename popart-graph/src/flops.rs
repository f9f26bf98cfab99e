//! Work of every operation.

//! Reference numerics of every operation.

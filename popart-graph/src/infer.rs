//! Shapes and types of every operation.

//! Derivative of every operation.

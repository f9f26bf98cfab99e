//! The matrix-product planner.

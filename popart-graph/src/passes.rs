//! The pipeline of passes, in order.

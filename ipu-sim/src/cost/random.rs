//! Random-number vertices.

//! Order of operations.

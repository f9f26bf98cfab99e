//! One machine's numbers.

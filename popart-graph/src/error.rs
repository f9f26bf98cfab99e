//! What can go wrong in the compiler.

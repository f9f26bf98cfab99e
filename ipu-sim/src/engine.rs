//! Time of a program.

//! Values of a program, computed on tile memory.

//! Bytes of a program on every tile.

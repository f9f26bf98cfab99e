//! Bytes and cycles of data movement between tiles.

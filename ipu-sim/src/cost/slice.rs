//! Dynamic slice, multi-slice (gather) and multi-update vertices.

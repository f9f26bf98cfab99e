//! Fill, copy and transpose vertices.

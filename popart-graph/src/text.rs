//! The graph as text, and back.

//! Element-wise vertices: unary, binary, broadcast, scaled add, cast, non-linearities.

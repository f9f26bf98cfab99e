//! Reduction of convolution partials, and the casts that the planner charges.

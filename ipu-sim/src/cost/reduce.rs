//! Reductions: convolution partials and popops reduce vertices.

//! Matrix-product vertices on the AMP unit.

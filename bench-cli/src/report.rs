//! Results as texts: JSON, CSV, tables.

pub mod advice;
pub mod calibration;
pub mod csv;
pub mod explain;
pub mod json;
pub mod plan;
pub mod sensitivity;
mod shares;
pub mod table;
pub mod validation;

//! What can go wrong in this crate, at its door.
//!
//! Every subject has an error of its own, which holds the facts; here they are one, for who calls
//! several of them.

use crate::config::ConfigError;
use crate::data::DataError;
use crate::init::NoFirstValue;
use crate::placement::PlacementError;

/// The result of whatever asks several subjects.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model can't be built, or not be given values or data.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A configuration breaks one of its rules.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model can't be placed so.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// A variable has no first value.
    #[error(transparent)]
    Init(#[from] NoFirstValue),
    /// Data can't be read or made.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An operation of the model can't be.
    #[error(transparent)]
    Graph(#[from] popart_graph::infer::InferError),
}

//! Number formats of the machine.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// The element types that tiles store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
    /// Unsigned 32-bit integer: token ids, indices, counters, seeds.
    U32,
}

impl DType {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> Bytes {
        Bytes(match self {
            DType::F16 => 2,
            DType::F32 | DType::U32 => 4,
        })
    }
}

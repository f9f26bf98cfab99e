//! How a vertex sees a variable.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::ids::VarId;

/// The labels of an operand's axes: equal labels run together over a vertex.
pub type Labels = SmallVec<[Label; 4]>;

/// One of the loops of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Label(pub u8);

impl Label {
    /// An axis that the vertex takes whole instead of looping over it.
    pub const WHOLE: Self = Self(u8::MAX);
}

/// A variable as a vertex sees it: each tile's box, its axes named by labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operand {
    /// The variable.
    pub var: VarId,
    /// One label per axis of the variable.
    pub labels: Labels,
}

impl Operand {
    /// The variable with its axes labelled `labels[0]`, `labels[1]`, ...
    #[must_use]
    pub fn new(var: VarId, labels: &[u8]) -> Self {
        Self {
            var,
            labels: labels.iter().map(|&label| Label(label)).collect(),
        }
    }
}

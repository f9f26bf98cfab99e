//! Parts of a model: what time and memory are asked for.
//!
//! Whoever builds a graph says which part each operation, variable and stream belongs to; what
//! passes add belongs to the part of what it is added for. Parts are in parts, as attention is in
//! a layer. Ids hold through all passes: these add parts, but neither remove nor renumber any.

use std::ops::Index;

use ipu_sim::ids::{Id, IdVec};

use super::{PartId, words};

words! {
    /// Whether a model has several parts of a kind.
    PartKind {
        /// It is the only one.
        Single = "single",
        /// It is one of several that are alike and follow each other, as layers do.
        Repeated = "repeated",
    }
}

/// A part of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// For people: `Layer3`, or `Attention` in it.
    pub name: String,
    /// Whether there are others like it.
    pub kind: PartKind,
    /// The part that it is in, if it is in one.
    pub within: Option<PartId>,
}

impl Part {
    /// A part that is the only one of its kind and in no other.
    #[must_use]
    pub fn single(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: PartKind::Single,
            within: None,
        }
    }
}

/// All parts of a model, each once and behind the one that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(IdVec<PartId, Part>);

impl Parts {
    /// The id of an equal part, added if it is new.
    ///
    /// # Panics
    /// If it is in a part that isn't here.
    pub fn add(&mut self, part: Part) -> PartId {
        let known = self.iter().find(|&(_, known)| *known == part);
        if let Some((id, _)) = known {
            return id;
        }
        let is_here = |id: PartId| id.index() < self.0.len();
        assert!(
            part.within.is_none_or(is_here),
            "what the part `{}` is in comes first",
            part.name
        );
        self.0.push(part)
    }

    /// The part of an id, if it exists.
    #[must_use]
    pub fn get(&self, id: PartId) -> Option<&Part> {
        self.0.get(id)
    }

    /// All parts with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (PartId, &Part)> {
        self.0.iter()
    }

    /// A part and those it is in, from the inside out.
    pub fn around(&self, part: PartId) -> impl Iterator<Item = PartId> {
        std::iter::successors(Some(part), |&id| self[id].within)
    }

    /// The part that is in no other and has this one.
    #[must_use]
    pub fn outermost(&self, part: PartId) -> PartId {
        self.around(part).last().unwrap_or(part)
    }

    /// Whether `part` is `outer` or in it.
    #[must_use]
    pub fn is_within(&self, part: PartId, outer: PartId) -> bool {
        self.around(part).any(|id| id == outer)
    }
}

impl Index<PartId> for Parts {
    type Output = Part;

    fn index(&self, id: PartId) -> &Part {
        &self.0[id]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_in_parts() {
        let mut parts = Parts::default();
        let mut layer = |number: u32| {
            let layer = parts.add(Part {
                kind: PartKind::Repeated,
                ..Part::single(&format!("Layer{number}"))
            });
            let half = parts.add(Part {
                within: Some(layer),
                ..Part::single("Attention")
            });
            [layer, half]
        };
        let [first, half] = layer(0);
        let [second, other_half] = layer(1);
        assert_eq!(layer(0), [first, half], "a part is there once");
        assert_ne!(half, other_half, "equal names in different parts");
        assert_eq!(parts.outermost(half), first);
        assert_eq!(parts.outermost(first), first);
        assert!(parts.is_within(half, first) && parts.is_within(half, half));
        assert!(!parts.is_within(first, half) && !parts.is_within(half, second));
    }
}

//! Which box of a layout every tile holds: what timing and weighing need of it.
//!
//! Boxes of equal extents form one class, so that a cost or a size is worked out
//! once per class and then looked up tile by tile.

use indexmap::IndexSet;

use crate::layout::{Extents, Layout};
use crate::program::{LayoutId, Program};
use crate::threads;

/// The boxes of one layout, tile by tile.
#[derive(Clone, Debug)]
pub(crate) struct TileClasses {
    /// By tile: index into `extents` or [`Self::NONE`].
    class_of: Vec<u32>,
    /// Local extents of every class.
    extents: IndexSet<Extents>,
}

impl TileClasses {
    /// No box lies on the tile.
    const NONE: u32 = u32::MAX;

    /// The boxes of `layout` on the first `n_tiles` tiles.
    pub(crate) fn new(layout: &Layout, n_tiles: u32) -> Self {
        let mut out = Self {
            class_of: vec![Self::NONE; n_tiles as usize],
            extents: IndexSet::new(),
        };
        for (first, index) in layout.boxes() {
            let class = out.extents.insert_full(layout.extents(&index)).0 as u32;
            for tile in layout.copies_of(first) {
                out.class_of[tile.0 as usize] = class;
            }
        }
        out
    }

    /// The class of the box on `tile`, if there is one.
    pub(crate) fn class(&self, tile: usize) -> Option<u32> {
        Some(self.class_of[tile]).filter(|&class| class != Self::NONE)
    }

    /// Local extents of a class.
    pub(crate) fn extents(&self, class: u32) -> &Extents {
        &self.extents[class as usize]
    }

    /// Elements that every tile stores, padding included.
    pub(crate) fn stored_elements(&self, layout: &Layout) -> Vec<u64> {
        let by_class: Vec<u64> = self
            .extents
            .iter()
            .map(|extents| layout.stored_elements(extents))
            .collect();
        self.class_of
            .iter()
            .map(|&class| by_class.get(class as usize).copied().unwrap_or(0))
            .collect()
    }
}

/// The boxes of every layout of a program, by layout id.
#[derive(Clone, Debug)]
pub(crate) struct AllTiles(Vec<TileClasses>);

impl AllTiles {
    /// All layouts of `program` on IPUs of `n_tiles` tiles.
    pub(crate) fn new(program: &Program, n_tiles: u32) -> Self {
        let layouts: Vec<&Layout> = program.layouts.iter().collect();
        Self(threads::map(&layouts, |layout| {
            TileClasses::new(layout, n_tiles)
        }))
    }

    /// The boxes of one layout.
    pub(crate) fn of(&self, layout: LayoutId) -> &TileClasses {
        &self.0[layout.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::fixtures::cut;

    #[test]
    fn uneven_boxes_form_two_classes_and_copies_share_theirs() {
        let layout = Layout::row_major(vec![cut(10, 4, 2)]).with_copies(vec![0, 1]);
        let tiles = TileClasses::new(&layout, 9);
        assert_eq!(tiles.stored_elements(&layout), [2, 2, 2, 2, 3, 3, 3, 3, 0]);
        assert_eq!(tiles.class(0), tiles.class(3));
        assert_ne!(tiles.class(0), tiles.class(4));
        assert_eq!(tiles.class(8), None);
    }
}

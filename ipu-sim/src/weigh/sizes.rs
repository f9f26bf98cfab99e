//! Bytes of every variable on every tile, worked out once for each layout.

use crate::engine::tiles::AllTiles;
use crate::layout::Layout;
use crate::program::{LayoutId, Program, VarId};
use crate::threads;

/// Elements that every layout stores, by tile.
pub(super) struct Sizes {
    n_tiles: u32,
    stored: Vec<Vec<u64>>,
}

impl Sizes {
    /// The layouts of `program` on IPUs of `n_tiles` tiles.
    pub(super) fn new(program: &Program, tiles: &AllTiles, n_tiles: u32) -> Self {
        let layouts: Vec<(usize, &Layout)> = program.layouts.iter().enumerate().collect();
        let stored = threads::map(&layouts, |&(id, layout)| {
            tiles.of(LayoutId(id as u32)).stored_elements(layout)
        });
        Self { n_tiles, stored }
    }

    /// Tiles of an IPU.
    pub(super) fn n_tiles(&self) -> usize {
        self.n_tiles as usize
    }

    /// Bytes of `var` on `tile`.
    pub(super) fn on_tile(&self, program: &Program, var: VarId, tile: usize) -> u64 {
        let var = &program.vars[var];
        self.stored[var.layout.0 as usize][tile] * var.dtype.size().0
    }

    /// Bytes of `var` on all tiles.
    pub(super) fn on_ipu(&self, program: &Program, var: VarId) -> u64 {
        let var = &program.vars[var];
        let stored: u64 = self.stored[var.layout.0 as usize].iter().sum();
        stored * var.dtype.size().0
    }

    /// Adds `var` to the bytes of its tiles.
    pub(super) fn add(&self, program: &Program, var: VarId, tiles: &mut [u64]) {
        let var = &program.vars[var];
        let element = var.dtype.size().0;
        for (sum, stored) in tiles.iter_mut().zip(&self.stored[var.layout.0 as usize]) {
            *sum += stored * element;
        }
    }

    /// Takes `var` off the bytes of its tiles.
    pub(super) fn take_off(&self, program: &Program, var: VarId, tiles: &mut [u64]) {
        let var = &program.vars[var];
        let element = var.dtype.size().0;
        for (sum, stored) in tiles.iter_mut().zip(&self.stored[var.layout.0 as usize]) {
            *sum -= stored * element;
        }
    }
}

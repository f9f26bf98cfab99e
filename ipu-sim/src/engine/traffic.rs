//! Traffic of exchanges, worked out once for equal copies.
//!
//! Two copies move alike if their layouts, their views and the size of their elements
//! are equal, whatever variables they name: equal layers cost one evaluation.

use indexmap::IndexSet;

use crate::exchange::pieces::Side;
use crate::exchange::time::Traffic;
use crate::exchange::{self, Fabric};
use crate::program::{Exchange, LayoutId, Program, TileCopy};
use crate::spec::MachineSpec;
use crate::threads;
use crate::units::Bytes;
use crate::view::ViewShape;

/// What the traffic of a copy depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CopyKey {
    src: (LayoutId, ViewShape),
    dst: (LayoutId, ViewShape),
    element: Bytes,
}

impl CopyKey {
    fn of(program: &Program, copy: &TileCopy) -> Self {
        let src = &program.vars[copy.src.var];
        Self {
            src: (src.layout, copy.src.shape.clone()),
            dst: (program.vars[copy.dst.var].layout, copy.dst.shape.clone()),
            element: src.dtype.size(),
        }
    }

    fn traffic(&self, program: &Program, fabric: &Fabric) -> Traffic {
        let [src, dst] = [&self.src, &self.dst].map(|(layout, view)| Side {
            layout: program.layout(*layout),
            view,
        });
        exchange::traffic(src, dst, self.element, fabric)
    }
}

/// The distinct exchanges of a program, as sets of distinct copies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchanges {
    copies: IndexSet<CopyKey>,
    phases: IndexSet<Vec<u32>>,
}

impl Exchanges {
    /// The number of the phase that moves what `exchange` moves.
    pub(crate) fn add(&mut self, program: &Program, exchange: &Exchange) -> usize {
        let mut copies: Vec<u32> = exchange
            .copies
            .iter()
            .map(|copy| self.copies.insert_full(CopyKey::of(program, copy)).0 as u32)
            .collect();
        copies.sort_unstable();
        self.phases.insert_full(copies).0
    }

    /// The traffic of every phase on the IPUs of `machine`, by its number.
    pub(crate) fn traffic(&self, program: &Program, machine: &MachineSpec) -> Vec<Traffic> {
        let n_tiles = machine.tile.tiles_per_ipu;
        let fabric = Fabric::new(&machine.exchange, n_tiles);
        let copies: Vec<&CopyKey> = self.copies.iter().collect();
        let copies: Vec<Traffic> = threads::map(&copies, |copy| copy.traffic(program, &fabric));
        let phases: Vec<&Vec<u32>> = self.phases.iter().collect();
        threads::map(&phases, |phase| {
            let mut sum = Traffic::none(n_tiles);
            for &copy in *phase {
                sum.add(&copies[copy as usize]);
            }
            sum
        })
    }
}

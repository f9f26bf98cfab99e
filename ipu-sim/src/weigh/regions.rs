//! What may live in which region of a tile's memory.
//!
//! A tile has two regions. Code runs from the first only; its memory elements aren't
//! interleaved. Two neighbouring elements of the second take turns, so that 128 bits can be
//! loaded at once; the loader keeps the end of it. All else may lie in either, and a variable
//! across both. So a program fits a tile if all of it fits the tile, its code the first region,
//! and what must be interleaved, with the loader, the second.
//!
//! What must be interleaved: the coefficients of matrix products that load them 128 bits at a
//! time ([`MatMulMethod::needs_interleaved_coefficients`](crate::vertex::MatMulMethod)). Every
//! other vertex is the one of PopLibs' cost model, which assumes no interleaved operands.
//!
//! Sources: osmarks/ipu-stack, memory.rs (code runs below 0x80000, the loader's 0x450 bytes at
//! the end); Tile Vertex ISA (`ld128putcs`).
//!
//! Left out: vertices that want operands in different elements (PopLibs picks none of them
//! unless asked to), and code, vertices and exchanges that wait for each other at one element.

use std::collections::BTreeSet;
use std::fmt;

use super::Category;
use crate::program::{Program, Step, VarId};
use crate::spec::MachineSpec;
use crate::units::Bytes;
use crate::vertex::Vertex;

/// A part of a tile's memory that something must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Region {
    /// All of it.
    Tile,
    /// The region that code runs from.
    Executable,
    /// The region of interleaved elements.
    Interleaved,
}

impl Region {
    /// Every region, in the order in which programs are refused.
    pub const ALL: [Self; 3] = [Self::Tile, Self::Executable, Self::Interleaved];

    /// Bytes of the region on a tile of `machine`.
    #[must_use]
    pub fn size(self, machine: &MachineSpec) -> Bytes {
        match self {
            Self::Tile => machine.tile.memory,
            Self::Executable => machine.memory.executable,
            Self::Interleaved => machine.memory.interleaved,
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tile => "memory",
            Self::Executable => "executable memory",
            Self::Interleaved => "interleaved memory",
        })
    }
}

impl Category {
    /// Whether this is code.
    #[must_use]
    pub fn is_code(self) -> bool {
        match self {
            Self::VertexCode
            | Self::InternalExchangeCode
            | Self::GlobalExchangeCode
            | Self::HostExchangeCode
            | Self::ControlCode => true,
            Self::AlwaysLive(_)
            | Self::NotAlwaysLive(_)
            | Self::VertexInstanceState
            | Self::VertexFieldData
            | Self::CopyDescriptor
            | Self::GlobalExchangePacketHeader
            | Self::HostExchangePacketHeader
            | Self::Stack
            | Self::Loader => false,
        }
    }
}

/// The variables of `program` that must be interleaved.
pub(super) fn interleaved(program: &Program) -> BTreeSet<VarId> {
    let mut found = BTreeSet::new();
    for function in program.functions.values() {
        collect(&function.steps, &mut found);
    }
    collect(&program.steps, &mut found);
    found
}

fn collect(steps: &[Step], found: &mut BTreeSet<VarId>) {
    for step in steps {
        match step {
            Step::Compute(set) => {
                let groups = set.vertices.iter().filter(|group| match &group.vertex {
                    Vertex::MatMul { method, .. } => method.needs_interleaved_coefficients(),
                    _ => false,
                });
                found.extend(groups.map(|group| group.inputs[1].var));
            }
            Step::Repeat { body, .. } => collect(body, found),
            Step::Exchange(_)
            | Step::IpuCopies { .. }
            | Step::Transfers { .. }
            | Step::Collective(_)
            | Step::Call(_)
            | Step::Section(_) => {}
        }
    }
}

//! Which variables a step reads and writes.

use std::collections::BTreeMap;

use crate::program::{ComputeSet, Exchange, Program, Step, VarId};
use crate::vertex::Vertex;

/// What one step does to one variable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// Needs the value from before.
    pub(super) reads: bool,
    /// Changes the value.
    pub(super) writes: bool,
    /// Nothing of the value from before is left.
    pub(super) replaces: bool,
}

impl Access {
    /// Reads only.
    pub(super) const READ: Self = Self {
        reads: true,
        writes: false,
        replaces: false,
    };
    /// Writes everything.
    pub(super) const WRITE: Self = Self {
        reads: false,
        writes: true,
        replaces: true,
    };
    /// Writes a part.
    pub(super) const WRITE_PART: Self = Self {
        reads: false,
        writes: true,
        replaces: false,
    };

    /// Both at the same time: what is read is the value from before.
    pub(super) fn and(self, other: Self) -> Self {
        let reads = self.reads || other.reads;
        Self {
            reads,
            writes: self.writes || other.writes,
            replaces: (self.replaces || other.replaces) && !reads,
        }
    }
}

/// Accesses of one step by variable.
pub(super) type Accesses = BTreeMap<VarId, Access>;

/// What a step that is neither repeat nor call does.
pub(super) fn accesses(program: &Program, step: &Step) -> Accesses {
    let mut out = Accesses::new();
    let mut add = |var: VarId, access: Access| {
        let sum = out.entry(var).or_default();
        *sum = sum.and(access);
    };
    match step {
        Step::Compute(set) => compute(set, &mut add),
        Step::Exchange(exchange) => exchanged(program, exchange, &mut add),
        Step::IpuCopies { copies, .. } => {
            for copy in copies {
                add(copy.src, Access::READ);
                add(copy.dst, Access::WRITE);
            }
        }
        Step::Transfers { transfers, .. } => {
            for transfer in transfers {
                use crate::program::Transfer::{HostRead, HostWrite, RemoteLoad, RemoteStore};
                let access = match transfer {
                    HostRead { .. } | RemoteLoad { .. } => Access::WRITE,
                    HostWrite { .. } | RemoteStore { .. } => Access::READ,
                };
                add(transfer.var(), access);
            }
        }
        Step::Collective(collective) => {
            for tensor in &collective.tensors {
                add(tensor.src, Access::READ);
                add(tensor.dst, Access::WRITE);
            }
        }
        Step::Repeat { .. } | Step::Call(_) | Step::Section(_) => {}
    }
    out
}

fn compute(set: &ComputeSet, add: &mut impl FnMut(VarId, Access)) {
    for group in &set.vertices {
        for input in &group.inputs {
            add(input.var, Access::READ);
        }
        let keeps_values = matches!(
            group.vertex,
            Vertex::MultiUpdateAdd { .. } | Vertex::DynamicUpdate { .. }
        );
        if keeps_values {
            add(group.output.var, Access::READ);
        }
        add(group.output.var, Access::WRITE);
    }
}

fn exchanged(program: &Program, exchange: &Exchange, add: &mut impl FnMut(VarId, Access)) {
    for copy in &exchange.copies {
        add(copy.src.var, Access::READ);
        let whole = copy.dst.shape.is_identity(&program.shape_of(copy.dst.var));
        let write = if whole {
            Access::WRITE
        } else {
            Access::WRITE_PART
        };
        add(copy.dst.var, write);
    }
}

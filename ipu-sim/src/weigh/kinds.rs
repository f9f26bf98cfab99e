//! What a variable that doesn't always live is there for, told from the steps that touch it.
//!
//! One rule decides for each variable, whichever of its values lives: the first of the list of
//! [`LiveKind`] that applies. Lowering says which variables are results of operations and which
//! are on the way to one ([`VarKind`]); the rest is who writes and who reads.

use serde::{Deserialize, Serialize};

use crate::ids::IdVec;
use crate::program::{Program, Role, SourceId, Step, Transfer, VarId, VarKind};
use crate::units::Bytes;
use crate::vertex::Vertex;

/// Purpose of a variable that doesn't always live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveKind {
    /// Loaded from streaming memory, or stored there.
    RemoteBuffer,
    /// Read from a host stream, or written to one.
    StreamBuffer,
    /// Written by a collective.
    CollectiveBuffer,
    /// Written by a copy between IPUs.
    GlobalMessage,
    /// Written by a copy of what a call of outlined code takes or hands out.
    CallCopy,
    /// On the way to a result: arrived in an exchange and still to be put in order, put in order
    /// by vertices that do nothing else, or arrived to lie differently.
    Rearrangement,
    /// On the way to a result: arrived in an exchange, and read by vertices as it is.
    Message,
    /// On the way to a result: written by vertices to be sent to other tiles, and read by
    /// exchanges only. Partial sums are of this kind.
    OutputEdge,
    /// All others: results of operations, and what vertices need between two exchanges.
    Variable,
}

impl LiveKind {
    /// Every kind, in the order of the rules.
    pub const ALL: [Self; 9] = [
        Self::RemoteBuffer,
        Self::StreamBuffer,
        Self::CollectiveBuffer,
        Self::GlobalMessage,
        Self::CallCopy,
        Self::Rearrangement,
        Self::Message,
        Self::OutputEdge,
        Self::Variable,
    ];

    /// Name of the kind in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RemoteBuffer => "remote_buffer",
            Self::StreamBuffer => "stream_buffer",
            Self::CollectiveBuffer => "collective_buffer",
            Self::GlobalMessage => "global_message",
            Self::CallCopy => "call_copy",
            Self::Rearrangement => "rearrangement",
            Self::Message => "message",
            Self::OutputEdge => "output_edge",
            Self::Variable => "variable",
        }
    }

    /// The category of Poplar's profile that is meant for the same.
    pub(super) fn poplar(self) -> &'static str {
        match self {
            Self::StreamBuffer => "hostMessage",
            Self::GlobalMessage => "globalMessage",
            Self::Rearrangement => "rearrangement",
            Self::Message => "message",
            Self::OutputEdge => "outputEdge",
            Self::RemoteBuffer | Self::CollectiveBuffer | Self::CallCopy | Self::Variable => {
                "variable"
            }
        }
    }
}

/// Bytes by [`LiveKind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveBytes([u64; LiveKind::ALL.len()]);

impl LiveBytes {
    /// Bytes of one kind.
    #[must_use]
    pub fn on(&self, kind: LiveKind) -> Bytes {
        Bytes(self.0[kind as usize])
    }

    /// Bytes of all kinds.
    #[must_use]
    pub fn total(&self) -> Bytes {
        Bytes(self.0.iter().sum())
    }

    pub(super) fn of(kind: LiveKind, bytes: u64) -> Self {
        let mut out = Self::default();
        out.0[kind as usize] = bytes;
        out
    }

    pub(super) fn plus(mut self, other: Self) -> Self {
        for (sum, bytes) in self.0.iter_mut().zip(other.0) {
            *sum += bytes;
        }
        self
    }

    pub(super) fn minus(mut self, other: Self) -> Self {
        for (left, bytes) in self.0.iter_mut().zip(other.0) {
            *left -= bytes;
        }
        self
    }

    /// The one that is more in all, the first if both are equal.
    pub(super) fn max(self, other: Self) -> Self {
        if other.total() > self.total() {
            other
        } else {
            self
        }
    }
}

/// What is known of a variable.
#[derive(Clone, Copy, Debug, Default)]
struct Touched {
    with_memory: bool,
    with_host: bool,
    by_collective: bool,
    by_ipu_copy: bool,
    for_call: bool,
    /// Arrived in an exchange, and in one that only changes a layout.
    arrived: bool,
    arrived_for_layout: bool,
    /// Written by vertices that put elements in order, and by others.
    ordered: bool,
    computed: bool,
    /// Read by vertices that put elements in order, by other vertices, and by exchanges.
    read_to_order: bool,
    read_by_vertices: bool,
    read_by_exchange: bool,
}

impl Touched {
    fn kind(self, var: VarKind) -> LiveKind {
        let on_the_way = var == VarKind::Temporary;
        let in_disorder = self.arrived && (self.read_to_order || self.arrived_for_layout);
        let only_sent = self.read_by_exchange && !self.read_by_vertices && !self.read_to_order;
        match self {
            _ if self.with_memory => LiveKind::RemoteBuffer,
            _ if self.with_host => LiveKind::StreamBuffer,
            _ if self.by_collective => LiveKind::CollectiveBuffer,
            _ if self.by_ipu_copy => LiveKind::GlobalMessage,
            _ if self.for_call => LiveKind::CallCopy,
            _ if !on_the_way => LiveKind::Variable,
            _ if in_disorder || (self.ordered && !self.computed) => LiveKind::Rearrangement,
            _ if self.arrived && self.read_by_vertices => LiveKind::Message,
            _ if self.computed && only_sent => LiveKind::OutputEdge,
            _ => LiveKind::Variable,
        }
    }
}

/// The kind of every variable; of those that always live, what it would be if they didn't.
pub(super) fn kinds(program: &Program) -> IdVec<VarId, LiveKind> {
    let nothing = program.vars.ids().map(|_| Touched::default());
    let mut touched: IdVec<VarId, Touched> = nothing.collect();
    for function in program.functions.values() {
        look(program, &function.steps, &mut touched);
    }
    look(program, &program.steps, &mut touched);
    let vars = touched.iter();
    vars.map(|(id, touched)| touched.kind(program.vars[id].kind))
        .collect()
}

fn look(program: &Program, steps: &[Step], touched: &mut IdVec<VarId, Touched>) {
    let role = |source: SourceId| program.source(source).role;
    for step in steps {
        match step {
            Step::Compute(set) => {
                for group in &set.vertices {
                    let orders = matches!(group.vertex, Vertex::Copy | Vertex::Assemble);
                    let output = &mut touched[group.output.var];
                    output.for_call |= role(set.source) == Role::Call;
                    output.ordered |= orders;
                    output.computed |= !orders;
                    for input in &group.inputs {
                        let input = &mut touched[input.var];
                        input.read_to_order |= group.vertex == Vertex::Assemble;
                        input.read_by_vertices |= group.vertex != Vertex::Assemble;
                    }
                }
            }
            Step::Exchange(exchange) => {
                for copy in &exchange.copies {
                    touched[copy.src.var].read_by_exchange = true;
                    let arrived = &mut touched[copy.dst.var];
                    arrived.arrived = true;
                    arrived.arrived_for_layout |= role(exchange.source) == Role::Layout;
                }
            }
            Step::IpuCopies { copies, .. } => {
                for copy in copies {
                    touched[copy.dst].by_ipu_copy = true;
                }
            }
            Step::Transfers { transfers, .. } => {
                for transfer in transfers {
                    let var = &mut touched[transfer.var()];
                    match transfer {
                        Transfer::HostRead { .. } | Transfer::HostWrite { .. } => {
                            var.with_host = true;
                        }
                        Transfer::RemoteLoad { .. } | Transfer::RemoteStore { .. } => {
                            var.with_memory = true;
                        }
                    }
                }
            }
            Step::Collective(collective) => {
                for tensor in &collective.tensors {
                    touched[tensor.dst].by_collective = true;
                }
            }
            Step::Repeat { body, .. } => look(program, body, touched),
            Step::Call(_) | Step::Section(_) => {}
        }
    }
}

//! What happened on the simulated machine, as data.
//!
//! A trace holds spans: what one IPU did from one clock to another. The engine
//! records the steps of the program's outer levels, on their first pass through a
//! repeat; a repeat itself is one span that covers all its passes. Finer spans are
//! not recorded: they grow with the program's length, totals by line of the
//! profile don't ([`crate::engine::Timeline::sources`]).

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ids::IpuId;
use crate::program::{FunctionId, SourceId};
use crate::units::Cycles;

/// Kind of work that a span stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// One step.
    Step(SourceId),
    /// A call of a function.
    Call(FunctionId),
    /// All passes of a repeat.
    Repeat {
        /// How many there are.
        count: u32,
    },
}

/// Work of one IPU from one clock to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Position of the step in the program, then in the repeat at that position, and so on.
    pub path: SmallVec<[u32; 4]>,
    /// Kind of work.
    pub kind: SpanKind,
    /// IPU of the replica.
    pub ipu: IpuId,
    /// When the IPU came to the step, waiting for others included.
    pub begin: Cycles,
    /// When the IPU was through.
    pub end: Cycles,
}

/// Spans in the order in which steps stand in the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The spans.
    pub spans: Vec<Span>,
}

impl Trace {
    /// The spans of one IPU.
    pub fn of(&self, ipu: IpuId) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |span| span.ipu == ipu)
    }
}

//! What does a row of the table of constants say, beside the field that holds the constant?

use super::field::Form;

/// What the table says of a constant, beside the field that holds it.
#[derive(Debug)]
pub(super) struct ConstantEntry {
    /// Section and name.
    pub(super) key: &'static str,
    /// What is written for it.
    pub(super) form: Form,
    /// What its value may be.
    pub(super) limits: Limits,
    /// What it is the price of.
    pub(super) expense: Expense,
}

/// Bounds of a constant beside those of its dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Whether it may be zero.
    pub(super) zero: bool,
    /// What it is a multiple of, in base units, and why.
    pub(super) multiple_of: Option<(u64, &'static str)>,
    /// The largest value, in base units, and why.
    pub(super) most: Option<(u64, &'static str)>,
}

/// Cost that a constant sets: where its time, or its memory, is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expense {
    /// Every cycle of a tile.
    Cycles,
    /// The plans that fit a tile, and how much of the work each tile has.
    Plans,
    /// Work of vertices.
    Vertices,
    /// Every compute set that is started.
    ComputeSets,
    /// Every weight that LAMB moves by the ratio of two norms.
    TrustRatios,
    /// Every exchange phase, however little is sent.
    ExchangePhases,
    /// What exchange phases take by distance, by bytes and by messages.
    Exchanges,
    /// Bringing in order what an exchange left in pieces.
    Assembly,
    /// Syncs between IPUs.
    Syncs,
    /// Which ways there are between IPUs, hosts and memories, and who shares them.
    Routes,
    /// Bytes on links between IPUs.
    LinkBytes,
    /// The way over the first link, however few bytes there are.
    FirstLinks,
    /// The way over every further link.
    FurtherLinks,
    /// Bytes between racks.
    GatewayBytes,
    /// Every way to another rack, however few bytes there are.
    GatewayCrossings,
    /// Bytes to and from hosts.
    HostBytes,
    /// Every transfer of a host, however few bytes there are.
    HostTransfers,
    /// Every start of a run by a host.
    HostRuns,
    /// Bytes to and from streaming memory.
    StreamingBytes,
    /// Every load and store of streaming memory, however few bytes there are.
    StreamingAccesses,
    /// Room in a memory, or what takes it, and no time.
    Memory,
    /// Nothing: it is only checked against other constants, or no program makes use of it.
    Nothing,
}

impl Limits {
    pub(super) const ANY: Self = Self {
        zero: true,
        multiple_of: None,
        most: None,
    };

    pub(super) const POSITIVE: Self = Self {
        zero: false,
        ..Self::ANY
    };

    pub(super) const fn at_most(self, most: u64, what: &'static str) -> Self {
        Self {
            most: Some((most, what)),
            ..self
        }
    }

    pub(super) const fn multiple_of(self, of: u64, what: &'static str) -> Self {
        Self {
            multiple_of: Some((of, what)),
            ..self
        }
    }
}

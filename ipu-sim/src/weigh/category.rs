//! What a byte of tile memory is taken by, in our words and in those of Poplar's profile.
//!
//! Poplar's names are those of its profile's storage categories (Poplar Profile Data, "Storage
//! categories", and users of its analysis library). Where one of ours has no name there, or one
//! of theirs can have no bytes here, the reason is stated: [`UNMODELLED_CATEGORIES`].

use serde::{Deserialize, Serialize};

use super::kinds::LiveKind;
use crate::program::VarKind;

/// Kind of memory on a tile, by what takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Variables that take memory during the whole run.
    AlwaysLive(VarKind),
    /// Variables that take memory for some steps, at the tile's fullest moment.
    NotAlwaysLive(LiveKind),
    /// Code of vertices.
    VertexCode,
    /// Entry addresses and fields of vertices, and the pointers among their fields.
    VertexInstanceState,
    /// Fields of vertices whose size varies: lists of pointers.
    VertexFieldData,
    /// From where to where vertices that only copy do so.
    CopyDescriptor,
    /// Code of exchanges between the tiles of an IPU.
    InternalExchangeCode,
    /// Code of copies between IPUs and of collectives.
    GlobalExchangeCode,
    /// What goes in front of their data, message by message.
    GlobalExchangePacketHeader,
    /// Code of transfers with the host and with streaming memory.
    HostExchangeCode,
    /// What goes in front of their data, message by message.
    HostExchangePacketHeader,
    /// The program's steps.
    ControlCode,
    /// Stacks of workers and supervisor.
    Stack,
    /// What the loader keeps.
    Loader,
}

impl Category {
    /// Categories of vertices that aren't their code.
    pub const VERTEX_STATE: [Self; 3] = [
        Self::VertexInstanceState,
        Self::VertexFieldData,
        Self::CopyDescriptor,
    ];

    /// Categories of messages that go from tile to tile, beyond the IPU or not.
    pub const EXCHANGE: [Self; 5] = [
        Self::InternalExchangeCode,
        Self::GlobalExchangeCode,
        Self::GlobalExchangePacketHeader,
        Self::HostExchangeCode,
        Self::HostExchangePacketHeader,
    ];

    /// Name of the category in reports.
    #[must_use]
    pub fn name(self) -> String {
        let name = match self {
            Self::AlwaysLive(kind) => return format!("always_live.{}", kind.name()),
            Self::NotAlwaysLive(kind) => return format!("not_always_live.{}", kind.name()),
            Self::VertexCode => "vertex_code",
            Self::VertexInstanceState => "vertex_instance_state",
            Self::VertexFieldData => "vertex_field_data",
            Self::CopyDescriptor => "copy_descriptor",
            Self::InternalExchangeCode => "internal_exchange_code",
            Self::GlobalExchangeCode => "global_exchange_code",
            Self::GlobalExchangePacketHeader => "global_exchange_packet_header",
            Self::HostExchangeCode => "host_exchange_code",
            Self::HostExchangePacketHeader => "host_exchange_packet_header",
            Self::ControlCode => "control_code",
            Self::Stack => "stack",
            Self::Loader => "loader",
        };
        name.into()
    }

    /// The category of Poplar's profile that holds the same bytes, if there is one.
    #[must_use]
    pub fn poplar(self) -> Option<&'static str> {
        Some(match self {
            Self::AlwaysLive(VarKind::Constant) => "constant",
            Self::AlwaysLive(_) => "variable",
            Self::NotAlwaysLive(kind) => kind.poplar(),
            Self::VertexCode => "vertexCode",
            Self::VertexInstanceState => "vertexInstanceState",
            Self::VertexFieldData => "vertexFieldData",
            Self::CopyDescriptor => "copyDescriptor",
            Self::InternalExchangeCode => "internalExchangeCode",
            Self::GlobalExchangeCode => "globalExchangeCode",
            Self::GlobalExchangePacketHeader => "globalExchangePacketHeader",
            Self::HostExchangeCode => "hostExchangeCode",
            Self::HostExchangePacketHeader => "hostExchangePacketHeader",
            Self::ControlCode => "controlCode",
            Self::Stack => "stack",
            Self::Loader => return None,
        })
    }

    /// Every category, in the order of a report.
    pub fn all() -> impl Iterator<Item = Self> {
        let rest = [
            Self::VertexCode,
            Self::VertexInstanceState,
            Self::VertexFieldData,
            Self::CopyDescriptor,
            Self::InternalExchangeCode,
            Self::GlobalExchangeCode,
            Self::GlobalExchangePacketHeader,
            Self::HostExchangeCode,
            Self::HostExchangePacketHeader,
            Self::ControlCode,
            Self::Stack,
            Self::Loader,
        ];
        let lasting = VarKind::ALL.into_iter().map(Self::AlwaysLive);
        lasting
            .chain(LiveKind::ALL.into_iter().map(Self::NotAlwaysLive))
            .chain(rest)
    }
}

/// A category of Poplar's profile that has no bytes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmodelledCategory {
    /// Name of the category in Poplar's profile.
    pub poplar: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// Poplar's categories that no [`Category`] stands for.
pub const UNMODELLED_CATEGORIES: [UnmodelledCategory; 7] = [
    UnmodelledCategory {
        poplar: "controlId",
        reason: "variables of switches and ids of syncs: no step of a program chooses between \
                 others, and a sync's id is a word (12 B on all tiles of an IPU in a test of \
                 Graphcore's TensorFlow add-ons)",
    },
    UnmodelledCategory {
        poplar: "controlTable",
        reason: "vertices by compute set for Poplar's table scheduler, which nothing here asks for",
    },
    UnmodelledCategory {
        poplar: "instrumentationResults",
        reason: "counters of an instrumented program, and no option instruments one: cycles come \
                 from the simulator",
    },
    UnmodelledCategory {
        poplar: "vectorListDescriptor",
        reason: "fields of the type VectorList: work lists of matrix products other than plain AMP \
                 products have it, and work lists aren't counted",
    },
    UnmodelledCategory {
        poplar: "multiple",
        reason: "bytes that categories share in turn: a tile is weighed at its fullest moment, \
                 when every byte has one",
    },
    UnmodelledCategory {
        poplar: "sharedCodeStorage",
        reason: "as multiple; code that calls share is counted once, as what it is",
    },
    UnmodelledCategory {
        poplar: "sharedDataStorage",
        reason: "as multiple",
    },
];

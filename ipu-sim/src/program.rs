//! What a device can run: variables on tiles, and steps over them.
//!
//! A [`Program`] is written for one replica; its IPUs are numbered from 0. It is
//! read three ways: timed ([`crate::engine`]), executed ([`crate::execute`]) and
//! weighed ([`crate::weigh`]). It knows nothing of graphs, layers or gradients.
//!
//! Each IPU runs the steps that concern it in order; steps of different IPUs
//! overlap until one that joins them (an inter-IPU copy, a collective) makes them
//! wait for each other.

mod depth;
mod ids;
mod operand;

pub(crate) use depth::nested;
pub use depth::{DEPTH_MAX, TooDeep};
pub use ids::{FunctionId, LayoutId, RemoteBufferId, SectionId, SourceId, StreamId, VarId};
pub use operand::{Label, Labels, Operand};

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ids::{IdVec, IpuId};
use crate::layout::Layout;
use crate::numerics::DType;
use crate::units::{Bytes, Elements};
use crate::vertex::Vertex;
use crate::view::{View, ViewShape};

/// Purpose of a variable, which memory reports sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarKind {
    /// Trained or constant parameters.
    Weight,
    /// Gradient accumulators.
    Accumulator,
    /// State of the optimiser.
    OptimizerState,
    /// Fixed values.
    Constant,
    /// Ring of stashed activations.
    Stash,
    /// Destination of an inter-IPU copy, read one pipeline cycle later.
    CopyBuffer,
    /// Destination or source of a host stream.
    StreamBuffer,
    /// Scalars the program steers itself by: seeds, counters, hyper-parameters.
    Control,
    /// Results of operations.
    Activation,
    /// Operands broadcast or rearranged for one operation, and partial results.
    Temporary,
}

impl VarKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Weight,
        Self::Accumulator,
        Self::OptimizerState,
        Self::Constant,
        Self::Stash,
        Self::CopyBuffer,
        Self::StreamBuffer,
        Self::Control,
        Self::Activation,
        Self::Temporary,
    ];

    /// Name of the purpose in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Accumulator => "accumulator",
            Self::OptimizerState => "optimizer_state",
            Self::Constant => "constant",
            Self::Stash => "stash",
            Self::CopyBuffer => "copy_buffer",
            Self::StreamBuffer => "stream_buffer",
            Self::Control => "control",
            Self::Activation => "activation",
            Self::Temporary => "temporary",
        }
    }

    /// Whether the values must outlive the function that uses them.
    #[must_use]
    pub fn is_always_live(self) -> bool {
        !matches!(self, Self::Activation | Self::Temporary)
    }
}

/// A tensor that lies on the tiles of one IPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// For people.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// IPU of the replica.
    pub ipu: IpuId,
    /// Where the elements lie.
    pub layout: LayoutId,
    /// Purpose of the variable.
    pub kind: VarKind,
}

/// One vertex on every tile that holds a box of its output.
///
/// On each of those tiles the boxes of the inputs must cover the same indices of
/// every label they share with the output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VertexGroup {
    /// Vertex, which says what is computed and what it costs.
    pub vertex: Vertex,
    /// Operand that is written; may also be among the inputs (in place).
    pub output: Operand,
    /// Operands that are read.
    pub inputs: SmallVec<[Operand; 4]>,
}

/// Vertices that run at the same time on one IPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComputeSet {
    /// Line of the profile that the compute set belongs to.
    pub source: SourceId,
    /// IPU of the replica.
    pub ipu: IpuId,
    /// The vertices, a few groups.
    pub vertices: Vec<VertexGroup>,
}

/// A copy between two views of equal extents on one IPU; the destination may have copies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TileCopy {
    /// Read.
    pub src: View,
    /// Written, on every tile that holds a copy.
    pub dst: View,
}

/// Copies between tiles of one IPU in one exchange phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Line of the profile that the exchange belongs to.
    pub source: SourceId,
    /// IPU of the replica.
    pub ipu: IpuId,
    /// Copies of the exchange.
    pub copies: Vec<TileCopy>,
}

/// A whole variable copied to one of the same layout on another IPU of the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpuCopy {
    /// Read.
    pub src: VarId,
    /// Written.
    pub dst: VarId,
}

/// Kind of collective: what replicas do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectiveKind {
    /// Every replica gets the sum: source and destination have one layout.
    AllReduce,
    /// Every replica gets its shard of the sum.
    ReduceScatter,
    /// Every replica gets all shards.
    AllGather,
    /// Every replica keeps its own shard of a whole tensor; nothing moves between replicas.
    TakeShard,
}

/// One tensor of a collective.
///
/// A shard is the slice that every tile's box is cut into, one per replica: of a
/// box that stores `n` elements, a shard holds `ceil(n / replicas)` on the same tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectiveTensor {
    /// Read.
    pub src: VarId,
    /// Written.
    pub dst: VarId,
}

/// A collective over all replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collective {
    /// Line of the profile that the collective belongs to.
    pub source: SourceId,
    /// Kind of the collective.
    pub kind: CollectiveKind,
    /// Tensors that take part, on one or more IPUs.
    pub tensors: Vec<CollectiveTensor>,
}

/// Between host and device, or device and streaming memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transfer {
    /// The next element of a stream arrives.
    HostRead {
        /// The stream.
        stream: StreamId,
        /// Written.
        var: VarId,
    },
    /// The next element of a stream leaves.
    HostWrite {
        /// The stream.
        stream: StreamId,
        /// Read.
        var: VarId,
    },
    /// A buffer of streaming memory is loaded.
    RemoteLoad {
        /// The buffer.
        buffer: RemoteBufferId,
        /// Written.
        var: VarId,
    },
    /// A buffer of streaming memory is stored.
    RemoteStore {
        /// The buffer.
        buffer: RemoteBufferId,
        /// Read.
        var: VarId,
    },
}

impl Transfer {
    /// The variable on the device.
    #[must_use]
    pub fn var(&self) -> VarId {
        match *self {
            Self::HostRead { var, .. }
            | Self::HostWrite { var, .. }
            | Self::RemoteLoad { var, .. }
            | Self::RemoteStore { var, .. } => var,
        }
    }
}

/// One step of a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Vertices on one IPU.
    Compute(ComputeSet),
    /// Copies between tiles of one IPU.
    Exchange(Exchange),
    /// Copies between IPUs of a replica, all at once.
    IpuCopies {
        /// Where it comes from.
        source: SourceId,
        /// What moves.
        copies: Vec<IpuCopy>,
    },
    /// Transfers with host or streaming memory, in one phase.
    Transfers {
        /// Where they come from.
        source: SourceId,
        /// What moves, to and from one or more IPUs.
        transfers: Vec<Transfer>,
    },
    /// Something that replicas do together.
    Collective(Collective),
    /// Steps a number of times.
    Repeat {
        /// How often.
        count: u32,
        /// What.
        body: Vec<Step>,
    },
    /// The steps of a function.
    Call(FunctionId),
    /// Nothing: what follows, up to the next such step, belongs to this section.
    Section(SectionId),
}

impl Step {
    /// Line of the profile that a step belongs to; none for repeats, calls and sections.
    #[must_use]
    pub fn source(&self) -> Option<SourceId> {
        match self {
            Self::Compute(set) => Some(set.source),
            Self::Exchange(exchange) => Some(exchange.source),
            Self::IpuCopies { source, .. } | Self::Transfers { source, .. } => Some(*source),
            Self::Collective(collective) => Some(collective.source),
            Self::Repeat { .. } | Self::Call(_) | Self::Section(_) => None,
        }
    }
}

/// Steps that can be called from several places; their code exists once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// For people.
    pub name: String,
    /// Steps of the function.
    pub steps: Vec<Step>,
}

/// Purpose of steps for their operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What it is there for: vertices that compute, and bringing them their operands.
    Work,
    /// Adding up what a matrix product left in parts, on several tiles or one after the other,
    /// and bringing the parts together.
    Reduction,
    /// Taking slices of operands for the parts of a serial loop, and putting its results together.
    Slicing,
    /// Making a tensor lie differently: nothing is computed.
    Layout,
    /// Copying what a call of outlined code takes or hands out.
    Call,
}

/// A line of the profile that steps belong to.
///
/// What else a line stands for is known to whoever made the program, by its [`SourceId`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The operation, for people: `Layer3/Attention/QKV`.
    pub name: String,
    /// Kind of the operation, for people: `matmul`, `layer_norm`.
    pub kind: String,
    /// Purpose of the steps for the operation.
    pub role: Role,
}

/// A stream between host and device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// For people, and for the host to connect.
    pub name: String,
    /// Whether the host side is made ready before the device asks.
    pub prefetch: bool,
    /// Elements that the buffer beside the device holds, at least 1: those made ready, or those
    /// that the host hasn't taken yet.
    pub buffering_depth: u32,
}

/// A buffer in streaming memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteBuffer {
    /// For people.
    pub name: String,
    /// Bytes of the buffer for one replica.
    pub bytes: Bytes,
}

/// Program that a device can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// IPUs of one replica.
    pub n_ipus: u32,
    /// Replicas that run it side by side.
    pub n_replicas: u32,
    /// Whether steps of one IPU that are alike in all but their variables share their code,
    /// as calls of one function do.
    pub outlined: bool,
    /// Whether a host starts each run of it, which all IPUs wait for
    /// ([`HostSpec::run`](crate::spec::HostSpec)).
    pub started_by_host: bool,
    /// All variables.
    pub vars: IdVec<VarId, Variable>,
    /// All layouts, each once.
    pub layouts: IndexSet<Layout>,
    /// Functions that steps call.
    pub functions: IdVec<FunctionId, Function>,
    /// Streams.
    pub streams: IdVec<StreamId, Stream>,
    /// Buffers in streaming memory.
    pub remote_buffers: IdVec<RemoteBufferId, RemoteBuffer>,
    /// Lines of the profile.
    pub sources: IdVec<SourceId, Source>,
    /// Names of the stretches that [`Step::Section`] begins: `fill`, `update`.
    pub sections: IndexSet<String>,
    /// Steps that run, in order.
    pub steps: Vec<Step>,
}

impl Program {
    /// An empty program for `n_ipus` IPUs in each of `n_replicas` replicas.
    #[must_use]
    pub fn new(n_ipus: u32, n_replicas: u32) -> Self {
        Self {
            n_ipus,
            n_replicas,
            ..Self::default()
        }
    }

    /// The id of an equal layout, added if it is new.
    pub fn add_layout(&mut self, layout: Layout) -> LayoutId {
        LayoutId(self.layouts.insert_full(layout).0 as u32)
    }

    /// Adds a line of the profile for steps that do the work of their operation.
    pub fn add_source(&mut self, name: &str, kind: &str) -> SourceId {
        self.sources.push(Source {
            name: name.to_owned(),
            kind: kind.to_owned(),
            role: Role::Work,
        })
    }

    /// The step that begins a section of this name.
    pub fn section(&mut self, name: &str) -> Step {
        let (id, _) = self.sections.insert_full(name.to_owned());
        Step::Section(SectionId(id as u32))
    }

    /// The layout of an id.
    #[must_use]
    pub fn layout(&self, id: LayoutId) -> &Layout {
        &self.layouts[id.0 as usize]
    }

    /// The source of an id.
    #[must_use]
    pub fn source(&self, id: SourceId) -> &Source {
        &self.sources[id]
    }

    /// The layout of a variable.
    #[must_use]
    pub fn layout_of(&self, var: VarId) -> &Layout {
        self.layout(self.vars[var].layout)
    }

    /// The shape of a variable.
    #[must_use]
    pub fn shape_of(&self, var: VarId) -> Vec<u32> {
        self.layout_of(var).shape()
    }

    /// Elements of a variable, copies and padding not counted.
    #[must_use]
    pub fn elements_of(&self, var: VarId) -> Elements {
        Elements(
            self.shape_of(var)
                .iter()
                .map(|&extent| u64::from(extent))
                .product(),
        )
    }

    /// Bytes of a variable, copies and padding not counted.
    #[must_use]
    pub fn bytes_of(&self, var: VarId) -> Bytes {
        self.vars[var].dtype.size() * self.elements_of(var).0
    }

    /// The whole variable as a view.
    #[must_use]
    pub fn view(&self, var: VarId) -> View {
        View {
            var,
            shape: ViewShape::identity(&self.shape_of(var)),
        }
    }
}

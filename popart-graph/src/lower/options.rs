//! How a graph is to run: how often, on how many replicas, and what the host has to do with it.

use ipu_sim::ids::{IdVec, IpuId};

use crate::ir::StageId;
use crate::passes::Outlining;

/// How a graph runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LowerOptions<'a> {
    /// Data-parallel copies.
    pub(crate) replicas: u32,
    /// How micro-batches follow each other.
    pub(crate) execution: &'a Execution,
    /// Whether operations that are alike share their code.
    pub(crate) outlining: Outlining,
    /// What the host has to do with it.
    pub(crate) host: HostOptions,
}

/// How the micro-batches of a run follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Execution {
    /// One after the other, each on all IPUs.
    Sequential {
        /// How many there are.
        repeats: Repeats,
    },
    /// As a pipeline: each stage on another micro-batch.
    Pipelined {
        /// The IPU of every stage.
        stages: IdVec<StageId, IpuId>,
        /// How many there are: between filling and flushing, as many as stages or more.
        repeats: Repeats,
    },
}

/// How often a micro-batch is repeated in a round, and a round in a run. Where gradients are
/// accumulated, weights are updated at the end of each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats {
    /// Micro-batches of a round.
    pub micro_batches: u32,
    /// Rounds of a run.
    pub rounds: u32,
}

impl Execution {
    /// Micro-batches of a run.
    #[must_use]
    pub fn micro_batches(&self) -> u64 {
        let (Execution::Sequential { repeats } | Execution::Pipelined { repeats, .. }) = self;
        u64::from(repeats.micro_batches) * u64::from(repeats.rounds)
    }

    /// The IPU of every stage of the pipeline; of none without one.
    #[must_use]
    pub fn stage_ipus(&self) -> Vec<IpuId> {
        match self {
            Execution::Sequential { .. } => Vec::new(),
            Execution::Pipelined { stages, .. } => stages.values().copied().collect(),
        }
    }
}

/// Options of how the device and its host work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// When the device talks to the host.
    pub streams: HostStreams,
    /// When the host has its data ready.
    pub prefetch: Prefetch,
    /// How often outputs leave.
    pub outputs: OutputReturn,
    /// Batches of an output that may wait for the host before the device does, at least one.
    pub outputs_buffered: u32,
    /// Starter of a run: the host, or the device by itself.
    pub start: RunStart,
}

/// Whether the host makes the data of a stream ready before the device asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// The device waits while it does.
    Off,
    /// So many batches are ready when the device asks, at least one.
    Ahead(u32),
}

/// How often an output leaves for the host (PopART, `AnchorReturnType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputReturn {
    /// That of every micro-batch, at once.
    All,
    /// Their sum over all micro-batches of a run, at its end.
    Sum,
}

/// Starter of a run of the program: the host, or the device by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStart {
    /// The host, which all IPUs wait for.
    ByHost,
    /// Nobody: the device goes on by itself, as if the program were part of a longer one.
    Unasked,
}

/// When the device talks to the host (PopART, `groupHostSync` and `syntheticDataMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostStreams {
    /// Without a pipeline, every stream is read where its data is first needed; in a pipeline,
    /// before its stage, as with [`HostStreams::Grouped`].
    WhereNeeded,
    /// Everything is read together before a micro-batch.
    Grouped,
    /// Never: inputs are values on the device, results stay there.
    Absent,
}

//! What the cycles of an IPU are spent on.

use std::collections::BTreeMap;

use ipu_sim::engine::{Activity, ActivityCycles, Timeline, WaitCause};
use ipu_sim::ids::IpuId;
use ipu_sim::program::Role;
use ipu_sim::units::Cycles;
use popart_graph::ir::Phase;
use popart_graph::profile::{Line, Profile, Section};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One cause. Every cycle of an IPU has exactly one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Vertices of the model's passes, on the slowest tile.
    Compute,
    /// Words that move between tiles: operands and partial results of the model's passes.
    InternalExchange,
    /// Making tensors lie differently: transposing, moving and putting in order.
    LayoutChange,
    /// Starting compute sets and exchanges.
    SyncAndLaunch,
    /// Copies between the IPUs of a replica, with their sync.
    InterIpuCopy,
    /// Transfers with the host.
    Host,
    /// Transfers with streaming memory.
    StreamingMemory,
    /// Collectives between replicas.
    Collective,
    /// Vertices and exchanges of the weight update.
    Optimiser,
    /// Waiting while the pipeline fills.
    IdleFill,
    /// Waiting while the pipeline drains, and for the end of the step.
    IdleDrain,
    /// Waiting for another IPU that has more to do.
    IdleImbalance,
    /// Waiting for the host.
    IdleHost,
    /// Waiting for streaming memory that serves another IPU.
    IdleStreamingMemory,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 14] = [
        Self::Compute,
        Self::InternalExchange,
        Self::LayoutChange,
        Self::SyncAndLaunch,
        Self::InterIpuCopy,
        Self::Host,
        Self::StreamingMemory,
        Self::Collective,
        Self::Optimiser,
        Self::IdleFill,
        Self::IdleDrain,
        Self::IdleImbalance,
        Self::IdleHost,
        Self::IdleStreamingMemory,
    ];

    /// Name of the cause in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::InternalExchange => "internal exchange",
            Self::LayoutChange => "layout changes",
            Self::SyncAndLaunch => "sync and launch",
            Self::InterIpuCopy => "inter-IPU copies",
            Self::Host => "host",
            Self::StreamingMemory => "streaming memory",
            Self::Collective => "collectives",
            Self::Optimiser => "optimiser",
            Self::IdleFill => "idle: fill",
            Self::IdleDrain => "idle: drain",
            Self::IdleImbalance => "idle: imbalance",
            Self::IdleHost => "idle: waiting for the host",
            Self::IdleStreamingMemory => "idle: waiting for streaming memory",
        }
    }

    /// Whether the IPU did nothing.
    #[must_use]
    pub fn is_idle(self) -> bool {
        match self {
            Self::IdleFill
            | Self::IdleDrain
            | Self::IdleImbalance
            | Self::IdleHost
            | Self::IdleStreamingMemory => true,
            Self::Compute
            | Self::InternalExchange
            | Self::LayoutChange
            | Self::SyncAndLaunch
            | Self::InterIpuCopy
            | Self::Host
            | Self::StreamingMemory
            | Self::Collective
            | Self::Optimiser => false,
        }
    }

    /// The cause of what steps of a role spend on an activity; none of waiting.
    fn of(line: &Line, role: Role, activity: Activity) -> Option<Self> {
        let updates = line.phase == Some(Phase::Update);
        let moves_only = match role {
            Role::Layout | Role::Call => true,
            Role::Work | Role::Reduction | Role::Slicing => false,
        };
        Some(match activity {
            Activity::Compute | Activity::Exchange if updates => Self::Optimiser,
            Activity::Compute | Activity::Exchange if moves_only => Self::LayoutChange,
            Activity::Compute => Self::Compute,
            Activity::Exchange => Self::InternalExchange,
            Activity::Dispatch | Activity::Launch => Self::SyncAndLaunch,
            Activity::IpuCopy => Self::InterIpuCopy,
            Activity::Host => Self::Host,
            Activity::StreamingMemory => Self::StreamingMemory,
            Activity::Collective => Self::Collective,
            Activity::Idle => return None,
        })
    }
}

/// Cycles by cause; causes without any are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Causes(BTreeMap<Cause, Cycles>);

impl Causes {
    /// What a line of the profile spent without waiting.
    pub(super) fn of_busy(line: &Line, role: Role, spent: &ActivityCycles) -> Self {
        let mut out = Self::default();
        for activity in Activity::ALL {
            if let Some(cause) = Cause::of(line, role, activity) {
                out.add(cause, spent.on(activity));
            }
        }
        out
    }

    /// Cycles of one cause.
    #[must_use]
    pub fn on(&self, cause: Cause) -> Cycles {
        self.0.get(&cause).copied().unwrap_or_default()
    }

    /// Cycles of all causes.
    #[must_use]
    pub fn total(&self) -> Cycles {
        self.0.values().copied().sum()
    }

    pub(super) fn add(&mut self, cause: Cause, cycles: Cycles) {
        if cycles > Cycles::ZERO {
            *self.0.entry(cause).or_default() += cycles;
        }
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (&cause, &cycles) in &other.0 {
            self.add(cause, cycles);
        }
    }
}

/// Idle cycles of one IPU that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IdleTime {
    /// Which kind of idleness that is.
    pub cause: Cause,
    /// Section of the program in which the IPU waits; none before the first and at the end of the
    /// step.
    pub section: Option<String>,
    /// The IPU that came last, if one did.
    pub ipu: Option<u32>,
    /// How long.
    pub cycles: Cycles,
}

/// What `ipu` waited for, longest first.
pub(super) fn waits(profile: &Profile, timeline: &Timeline, ipu: IpuId) -> Vec<IdleTime> {
    let of_ipu = timeline.waits.iter().filter(|(wait, _)| wait.ipu == ipu);
    let mut out: Vec<IdleTime> = of_ipu
        .map(|(wait, &cycles)| {
            let section = wait.section.map(|id| profile.sections[id]);
            let (cause, last) = match wait.on {
                WaitCause::Host => (Cause::IdleHost, None),
                WaitCause::StreamingMemory => (Cause::IdleStreamingMemory, None),
                WaitCause::End => (Cause::IdleDrain, None),
                WaitCause::Ipu(last) => (for_another_ipu(section), Some(last.0)),
            };
            IdleTime {
                cause,
                section: section.map(|section| section.name().to_owned()),
                ipu: last,
                cycles,
            }
        })
        .collect();
    out.sort_by_key(|wait| std::cmp::Reverse(wait.cycles));
    out
}

/// The cause of waiting for another IPU in a section, or before the first.
fn for_another_ipu(section: Option<Section>) -> Cause {
    match section {
        Some(Section::Fill) => Cause::IdleFill,
        Some(Section::Drain) => Cause::IdleDrain,
        None
        | Some(
            Section::Start
            | Section::MicroBatches
            | Section::Main
            | Section::Update
            | Section::Results,
        ) => Cause::IdleImbalance,
    }
}

//! The result of timing a program: clocks, and where the cycles went.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cost::amp::AmpTypes;
use crate::ids::{IdVec, IpuId};
use crate::program::{FunctionId, SectionId, SourceId, StreamId};
use crate::topology::BundleId;
use crate::trace::Trace;
use crate::units::{Bytes, Cycles};

/// Kind of work, or of waiting, that an IPU spends cycles on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// The slowest tile's vertices.
    Compute,
    /// Words moving between tiles.
    Exchange,
    /// Dispatching compute sets.
    Dispatch,
    /// Syncs and route latency before words move between tiles.
    Launch,
    /// Words moving between IPUs of a replica.
    IpuCopy,
    /// Transfers with the host.
    Host,
    /// Transfers with streaming memory.
    StreamingMemory,
    /// Collectives between replicas.
    Collective,
    /// Waiting for another IPU, for a shared line, or for the end.
    Idle,
}

impl Activity {
    /// Every activity.
    pub const ALL: [Self; 9] = [
        Self::Compute,
        Self::Exchange,
        Self::Dispatch,
        Self::Launch,
        Self::IpuCopy,
        Self::Host,
        Self::StreamingMemory,
        Self::Collective,
        Self::Idle,
    ];
}

/// Cycles by activity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityCycles([Cycles; Activity::ALL.len()]);

impl ActivityCycles {
    /// Cycles of one activity.
    #[must_use]
    pub fn on(&self, activity: Activity) -> Cycles {
        self.0[activity as usize]
    }

    /// Cycles of all activities.
    #[must_use]
    pub fn total(&self) -> Cycles {
        self.0.iter().copied().sum()
    }

    /// What was spent since this tally was `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut out = *self;
        for (sum, &before) in out.0.iter_mut().zip(&earlier.0) {
            *sum -= before;
        }
        out
    }

    /// Adds cycles to one activity.
    pub(crate) fn add(&mut self, activity: Activity, cycles: Cycles) {
        self.0[activity as usize] += cycles;
    }

    /// Adds the cycles of another tally.
    pub(crate) fn add_all(&mut self, other: &Self) {
        self.add_times(other, 1);
    }

    /// Adds what is spent `times` times.
    pub(crate) fn add_times(&mut self, other: &Self, times: u64) {
        for (sum, &more) in self.0.iter_mut().zip(&other.0) {
            *sum += more * times;
        }
    }
}

/// Exits of an IPU that bytes are counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// From the host.
    HostRead,
    /// To the host.
    HostWrite,
    /// From streaming memory.
    RemoteLoad,
    /// To streaming memory.
    RemoteStore,
    /// Between IPUs of a replica.
    IpuLink,
    /// Between replicas, sent by one replica.
    Collective,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 6] = [
        Self::HostRead,
        Self::HostWrite,
        Self::RemoteLoad,
        Self::RemoteStore,
        Self::IpuLink,
        Self::Collective,
    ];
}

/// Bytes by channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelBytes([Bytes; Channel::ALL.len()]);

impl ChannelBytes {
    /// Bytes of one channel.
    #[must_use]
    pub fn on(&self, channel: Channel) -> Bytes {
        self.0[channel as usize]
    }

    /// Adds bytes to one channel.
    pub(crate) fn add(&mut self, channel: Channel, bytes: Bytes) {
        self.0[channel as usize] += bytes;
    }
}

/// Cycles and steps of one line of the profile on one IPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTime {
    /// Cycles by activity, waiting in front of its steps included.
    pub spent: ActivityCycles,
    /// Steps that ran.
    pub steps: u64,
}

/// When elements of a stream passed between host and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamTime {
    /// When the first transfer began.
    pub first_begin: Cycles,
    /// When the first transfer was through.
    pub first_end: Cycles,
    /// When the last transfer began.
    pub last_begin: Cycles,
    /// When the last transfer was through.
    pub last_end: Cycles,
    /// Number of transfers.
    pub transfers: u64,
}

/// Cycles by activity, and operations of matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Cycles by activity.
    pub spent: ActivityCycles,
    /// Operations of matrix products.
    pub products: ProductFlops,
}

impl Tally {
    /// Adds what happens `times` times.
    pub(crate) fn add(&mut self, other: &Self, times: u64) {
        self.spent.add_times(&other.spent, times);
        self.products.add(&other.products, times);
    }
}

/// Floating-point operations of matrix products by the types of their operands and partial
/// results, a multiply-add as two; padding not counted.
///
/// Wider than [`crate::units::Flops`]: a run may repeat a large model a billion times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductFlops([u128; AmpTypes::ALL.len()]);

impl ProductFlops {
    /// Operations of one product.
    #[must_use]
    pub fn of(types: AmpTypes, flops: u128) -> Self {
        Self(AmpTypes::ALL.map(|of| if of == types { flops } else { 0 }))
    }

    /// Operations with these types.
    pub fn iter(&self) -> impl Iterator<Item = (AmpTypes, u128)> {
        AmpTypes::ALL.into_iter().zip(self.0)
    }

    /// Operations of all types.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.0.iter().sum()
    }

    /// Operations since the count was `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut out = *self;
        for (sum, less) in out.0.iter_mut().zip(before.0) {
            *sum -= less;
        }
        out
    }

    /// Adds what is computed `times` times.
    pub fn add(&mut self, more: &Self, times: u64) {
        for (sum, more) in self.0.iter_mut().zip(more.0) {
            *sum += more * u128::from(times);
        }
    }

    /// A share of what calls that are alike computed.
    fn share(&self, (share, of): (u64, u64)) -> Self {
        Self(
            self.0
                .map(|flops| flops / u128::from(of) * u128::from(share)),
        )
    }
}

/// Amounts that an IPU used of what constants of the machine price, by the piece or by the cycle:
/// what its time depends on, constant by constant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConstantUsage {
    /// Starts of the run by a host.
    pub runs: u64,
    /// Compute sets.
    pub dispatches: u64,
    /// Exchange phases.
    pub launches: u64,
    /// Trust ratios of LAMB, with those of other IPUs that this one waited for.
    pub trust_ratios: u64,
    /// Loads from and stores to streaming memory.
    pub accesses: u64,
    /// Collectives.
    pub collectives: u64,
    /// All-reduces of single numbers among them.
    pub scalar_sums: u64,
    /// Rounds of collectives.
    pub rounds: u64,
    /// Answers of the host.
    pub answers: u64,
    /// Cycles of bringing what arrived in order, without the calls.
    pub assembly: Cycles,
    /// Cycles of bytes on links, in copies between IPUs and in collectives.
    pub links: Cycles,
    /// Cycles of the latency of first links, however few bytes there are.
    pub latency: Cycles,
    /// Cycles of the latency of further links of a route.
    pub latency_hops: Cycles,
    /// Gateways that copies between IPUs and collectives leave for another rack, syncs of collectives
    /// included.
    pub gateways: u64,
    /// Cycles that bytes take to or from streaming memory, waiting for others' included.
    pub streaming: Cycles,
}

impl ConstantUsage {
    /// Adds what is paid `times` times.
    pub(crate) fn add(&mut self, other: &Self, times: u64) {
        self.runs += other.runs * times;
        self.dispatches += other.dispatches * times;
        self.launches += other.launches * times;
        self.trust_ratios += other.trust_ratios * times;
        self.accesses += other.accesses * times;
        self.collectives += other.collectives * times;
        self.scalar_sums += other.scalar_sums * times;
        self.rounds += other.rounds * times;
        self.answers += other.answers * times;
        self.assembly += other.assembly * times;
        self.links += other.links * times;
        self.latency += other.latency * times;
        self.latency_hops += other.latency_hops * times;
        self.gateways += other.gateways * times;
        self.streaming += other.streaming * times;
    }
}

/// One IPU of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpuTime {
    /// When its last step was through.
    pub finish: Cycles,
    /// Where its cycles went, waiting for the end of the whole program included, and what it
    /// computed.
    pub tally: Tally,
    /// Amounts of what constants of the machine price.
    pub usage: ConstantUsage,
}

/// Cycles and number of the calls of one function on one IPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTime {
    /// In all calls.
    pub tally: Tally,
    /// How many there were.
    pub calls: u64,
}

impl CallTime {
    /// Adds a share of the calls of another function, all of which take the same.
    ///
    /// # Panics
    ///
    /// If the share isn't a whole number of calls.
    pub fn add_share(&mut self, other: &Self, (share, of): (u64, u64)) {
        assert!(other.calls.is_multiple_of(of), "whole calls");
        for (sum, &more) in self.tally.spent.0.iter_mut().zip(&other.tally.spent.0) {
            *sum += Cycles(more.0 / of * share);
        }
        let products = other.tally.products.share((share, of));
        self.tally.products.add(&products, 1);
        self.calls += other.calls / of * share;
    }
}

/// Cause of an IPU's waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitCause {
    /// The last of the IPUs that a step joins.
    Ipu(IpuId),
    /// The host, which makes data ready or serves another IPU.
    Host,
    /// Streaming memory, which serves another IPU.
    StreamingMemory,
    /// The end of the program, which other IPUs are still busy with.
    End,
}

/// Idle cycles that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wait {
    /// IPU that waits.
    pub ipu: IpuId,
    /// Section of the program in which it waits; none before the first one, and for the end.
    pub section: Option<SectionId>,
    /// Cause of the waiting.
    pub on: WaitCause,
}

/// Steps that join several IPUs, of one line of the profile, with the same last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Join {
    /// Section of the program that the steps are in.
    pub section: Option<SectionId>,
    /// Where the steps come from.
    pub source: SourceId,
    /// The IPU that the others wait for; the first of those that come last.
    pub last: IpuId,
}

/// The time of a program: one run of one replica, the others being alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// When the last IPU was through.
    pub total: Cycles,
    /// Cycles in which the host starts the run and every IPU waits.
    pub start: Cycles,
    /// Every IPU of the replica; the activities of each sum to `total`.
    pub ipus: IdVec<IpuId, IpuTime>,
    /// Every line of the profile on every IPU.
    pub sources: IdVec<SourceId, IdVec<IpuId, SourceTime>>,
    /// Every section on every IPU; what is before the first one is in none.
    pub sections: IdVec<SectionId, IdVec<IpuId, ActivityCycles>>,
    /// Every function on every IPU, what it calls included.
    pub functions: IdVec<FunctionId, IdVec<IpuId, CallTime>>,
    /// Why IPUs were idle; the cycles of each sum to what its tally calls idle.
    pub waits: BTreeMap<Wait, Cycles>,
    /// How often which IPU came last to a step of several.
    pub joins: BTreeMap<Join, u64>,
    /// Every stream that was used.
    pub streams: IdVec<StreamId, Option<StreamTime>>,
    /// Bytes that one replica moved.
    pub moved: ChannelBytes,
    /// Bytes that every link of the machine carried, of all replicas together. What a host sent
    /// ahead and no step took isn't counted.
    pub carried: IdVec<BundleId, Bytes>,
    /// The outer steps.
    pub trace: Trace,
}

impl Timeline {
    /// Cycles that counters of the device see of a run: all but its start by the host.
    #[must_use]
    pub fn device_cycles(&self) -> Cycles {
        self.total - self.start
    }

    /// Latency from the begin of the first transfer of `read` to the end of the first one of
    /// `write`: that of the first item of an inference program that reads and writes once an item.
    ///
    /// `None` where one of the streams was not used.
    #[must_use]
    pub fn latency_first(&self, read: StreamId, write: StreamId) -> Option<Cycles> {
        let (read, write) = (self.streams[read]?, self.streams[write]?);
        Some(write.first_end.saturating_sub(read.first_begin))
    }

    /// Latency from the begin of the last transfer of `read` to the end of the last one of `write`.
    #[must_use]
    pub fn latency_last(&self, read: StreamId, write: StreamId) -> Option<Cycles> {
        let (read, write) = (self.streams[read]?, self.streams[write]?);
        Some(write.last_end.saturating_sub(read.last_begin))
    }
}

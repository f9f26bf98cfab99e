//! The result of timing a program: clocks, and where the cycles went.

use serde::{Deserialize, Serialize};

use crate::ids::{IdVec, IpuId};
use crate::program::{SourceId, StreamId};
use crate::trace::Trace;
use crate::units::{Bytes, Cycles};

/// What an IPU spends its cycles on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// The slowest tile's vertices.
    Compute,
    /// Words moving between tiles.
    Exchange,
    /// Dispatching compute sets, syncs and route latency before words move.
    Sync,
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
    pub const ALL: [Self; 8] = [
        Self::Compute,
        Self::Exchange,
        Self::Sync,
        Self::IpuCopy,
        Self::Host,
        Self::StreamingMemory,
        Self::Collective,
        Self::Idle,
    ];
}

/// Cycles by activity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent([Cycles; Activity::ALL.len()]);

impl Spent {
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

    /// Adds cycles to one activity.
    pub(crate) fn add(&mut self, activity: Activity, cycles: Cycles) {
        self.0[activity as usize] += cycles;
    }

    /// Adds the cycles of another tally.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for (sum, &more) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }
}

/// Ways out of an IPU that bytes are counted on.
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
pub struct Moved([Bytes; Channel::ALL.len()]);

impl Moved {
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

/// What one line of the profile took on one IPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTime {
    /// Cycles by activity, waiting in front of its steps included.
    pub spent: Spent,
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

/// One IPU of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpuTime {
    /// When its last step was through.
    pub finish: Cycles,
    /// Where its cycles went, waiting for the end of the whole program included.
    pub spent: Spent,
}

/// The time of a program: one run of one replica, the others being alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// When the last IPU was through.
    pub total: Cycles,
    /// Every IPU of the replica; the activities of each sum to `total`.
    pub ipus: IdVec<IpuId, IpuTime>,
    /// Every line of the profile on every IPU.
    pub sources: IdVec<SourceId, IdVec<IpuId, SourceTime>>,
    /// Every stream that was used.
    pub streams: IdVec<StreamId, Option<StreamTime>>,
    /// Bytes that one replica moved.
    pub moved: Moved,
    /// The outer steps.
    pub trace: Trace,
}

impl Timeline {
    /// From the begin of the first transfer of `read` to the end of the first one of `write`:
    /// the latency of the first item of an inference program that reads and writes once an item.
    ///
    /// `None` where one of the streams was not used.
    #[must_use]
    pub fn latency_first(&self, read: StreamId, write: StreamId) -> Option<Cycles> {
        let (read, write) = (self.streams[read]?, self.streams[write]?);
        Some(write.first_end.saturating_sub(read.first_begin))
    }

    /// From the begin of the last transfer of `read` to the end of the last one of `write`.
    #[must_use]
    pub fn latency_last(&self, read: StreamId, write: StreamId) -> Option<Cycles> {
        let (read, write) = (self.streams[read]?, self.streams[write]?);
        Some(write.last_end.saturating_sub(read.last_begin))
    }
}

//! How is a program brought onto a machine, run there, and observed?
//!
//! As on the real one: through a driver that hands out devices and keeps others off them.
//!
//! ```text
//! DeviceManager ──attach──▶ Attached ──load──▶ Loaded ──run──▶ Timeline
//!       ▲                     │   ▲              │  streams, counters, values
//!       └──────detach─────────┘   └────unload────┘
//! ```
//!
//! Each state is a type, so a device that has nothing loaded can't be run; dropping any of them
//! gives the IPUs back. A run that fails stops the device, which then answers nothing but
//! questions until it is recovered as the [class](ErrorClass) of the error says ([`Condition`]).
//! Requests go through a channel to a thread that plays the device and
//! owns its memory; the host's ends of streams are called on the thread that asked for the run.
//!
//! The driver shows what a real one could: streams, counters, values of variables, and the
//! profile of a run. Devices and their ids follow Graphcore's device groups ([`Device`]),
//! ways to attach those of PopART's `DeviceManager` ([`Connection`]).
//!
//! ```
//! use std::sync::Arc;
//! use ipu_sim::device::{
//!     Connection, DeviceManager, Executable, HOST_SYNC_TIMEOUT, Mode, Ports, StreamQueue,
//! };
//! use ipu_sim::engine;
//! use ipu_sim::execute::FloatControl;
//! use ipu_sim::ids::{IpuId, ReplicaId};
//! use ipu_sim::layout::{AxisSplit, Cut, Layout};
//! use ipu_sim::numerics::DType;
//! use ipu_sim::program::*;
//! use ipu_sim::spec::MachineSpec;
//! use ipu_sim::units::Cycles;
//! use ipu_sim::vertex::{MapOp, UnaryFn, Vertex};
//!
//! // Four numbers come from the host to two tiles, and their squares go back.
//! let mut program = Program::new(1, 1);
//! let halves = AxisSplit::cut(4, &[Cut::even(2)]);
//! let layout = program.add_layout(Layout::row_major(vec![halves]));
//! let x = program.vars.push(Variable {
//!     name: "x".to_owned(),
//!     dtype: DType::F32,
//!     ipu: IpuId(0),
//!     layout,
//!     kind: VarKind::Activation,
//! });
//! let mut stream = |name: &str| program.streams.push(Stream {
//!     name: name.to_owned(),
//!     prefetch: false,
//!     buffering_depth: 1,
//! });
//! let (input, output) = (stream("input"), stream("output"));
//! let source = program.add_source("x", "square");
//! program.steps = vec![
//!     Step::Transfers { source, transfers: vec![Transfer::HostRead { stream: input, var: x }] },
//!     Step::Compute(ComputeSet {
//!         source,
//!         ipu: IpuId(0),
//!         vertices: vec![VertexGroup {
//!             vertex: Vertex::Map(MapOp::Unary(UnaryFn::Square)),
//!             output: Operand::new(x, &[0]),
//!             inputs: [Operand::new(x, &[0])].into_iter().collect(),
//!         }],
//!     }),
//!     Step::Transfers { source, transfers: vec![Transfer::HostWrite { stream: output, var: x }] },
//! ];
//! let executable = Executable {
//!     name: "squares".to_owned(),
//!     program: Arc::new(program),
//!     timing: engine::Options { mode: engine::Mode::Folded, trace_depth: 0 },
//!     float_control: FloatControl::default(),
//!     host_sync_timeout: Some(HOST_SYNC_TIMEOUT),
//! };
//!
//! let machine = MachineSpec::shipped("mk2-m2000")?;
//! let manager = DeviceManager::new(machine, Ports::alone());
//! let attached = manager.attach_any(1, Connection::Always)?;
//! let mut device = attached.load(executable)?;
//! let (inputs, outputs) = (StreamQueue::default(), StreamQueue::default());
//! device.connect(input, inputs.clone())?;
//! device.connect(output, outputs.clone())?;
//!
//! inputs.push(ReplicaId(0), vec![1.0, 2.0, 3.0, 4.0]);
//! let timeline = device.run(Mode::TimeAndExecute)?;
//! assert_eq!(outputs.pop(ReplicaId(0)), Some(vec![1.0, 4.0, 9.0, 16.0]));
//! assert!(timeline.total > Cycles::ZERO);
//! assert_eq!(device.counters()?.cycles, timeline.total);
//! # Ok::<(), ipu_sim::error::Error>(())
//! ```
//!
//! Left out: failures at a chosen moment of a run, and what the position of a group in the
//! machine could change: all groups of one size are timed as the first.

mod attached;
mod condition;
mod error;
mod executable;
mod failure;
#[cfg(test)]
mod interleavings;
mod inventory;
mod lease;
mod loaded;
mod manager;
mod memory;
mod ports;
mod streams;
mod sync;
mod thread;

pub use attached::AttachedDevice;
pub use condition::Condition;
pub use error::DeviceError;
pub use executable::{Executable, HOST_SYNC_TIMEOUT};
pub use failure::{ErrorClass, Fault, Hardware, HealthyHardware, Recovery, RecoveryAction};
pub use inventory::{Device, DeviceId};
pub use loaded::LoadedDevice;
pub use manager::{Connection, DeviceManager};
pub use ports::{
    AttachLocks, Clock, LockFailure, LockGuard, LockRefusal, ManualClock, NoLocks, Ports,
};
pub use streams::{HostStream, StreamQueue};

use crate::units::Cycles;

/// Extent of a run: its time alone, or values as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Takes its time, without any values: streams are not called.
    Time,
    /// Also computes all values.
    TimeAndExecute,
}

/// Counts of a device since its executable was loaded or reset. Runs that failed don't count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Runs.
    pub runs: u64,
    /// Cycles of all runs.
    pub cycles: Cycles,
    /// Cycles of the last run; none before the first.
    pub cycles_last: Option<Cycles>,
}

impl Counters {
    /// Counts one more run.
    fn count(&mut self, cycles: Cycles) {
        self.runs += 1;
        self.cycles += cycles;
        self.cycles_last = Some(cycles);
    }
}

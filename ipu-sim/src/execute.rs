//! Which values does a program compute?
//!
//! [`run`] executes a [`Program`] for all its replicas on simulated tile memory:
//! every vertex reads and writes the boxes that lie on its own tile, and data gets
//! to another tile only by an exchange, a copy between IPUs or a collective. So a
//! wrong mapping, a forgotten exchange or a stale buffer is an [`ExecuteError`] or
//! a wrong number, as it would be on the machine.
//!
//! Numerics: an element is rounded to its type on every store, to nearest or, if
//! [`FloatControl`] says so, stochastically. Sums for floating-point
//! outputs run in f32, one addition after the other in the order of the loops, and
//! products enter them exactly, as in the AMP unit's accumulators (Tile Vertex ISA,
//! "Accumulating Matrix Product"). Where a matrix product writes halves, its partial
//! sums are rounded to half after each block of `input_group` channels, because that
//! is when they return to memory.
//!
//! Left out: time ([`crate::engine`]) and memory limits ([`crate::weigh`]). Steps run one after the other and repeats
//! are not folded, so this is for small machines and models.
//!
//! ```
//! use std::collections::VecDeque;
//! use ipu_sim::execute::{Host, Memory, RemoteMemory, StreamError, run};
//! use ipu_sim::ids::{IpuId, ReplicaId};
//! use ipu_sim::layout::{AxisSplit, Cut, Layout};
//! use ipu_sim::numerics::DType;
//! use ipu_sim::program::*;
//! use ipu_sim::vertex::{MapOp, UnaryFn, Vertex};
//!
//! struct NoHost;
//! impl Host for NoHost {
//!     fn read(&mut self, _: ReplicaId, _: StreamId) -> Result<Vec<f64>, StreamError> {
//!         Err(StreamError::NotConnected)
//!     }
//!     fn write(&mut self, _: ReplicaId, _: StreamId, _: Vec<f64>) -> Result<(), StreamError> {
//!         Err(StreamError::NotConnected)
//!     }
//! }
//!
//! // Four numbers on two tiles, squared in place.
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
//! let source = program.add_source("x", "square");
//! program.steps = vec![Step::Compute(ComputeSet {
//!     source,
//!     ipu: IpuId(0),
//!     vertices: vec![VertexGroup {
//!         vertex: Vertex::Map(MapOp::Unary(UnaryFn::Square)),
//!         output: Operand::new(x, &[0]),
//!         inputs: [Operand::new(x, &[0])].into_iter().collect(),
//!     }],
//! })];
//!
//! let mut memory = Memory::new(&program)?;
//! memory.write(ReplicaId(0), x, &[1.0, 2.0, 3.0, 4.0])?;
//! run(&mut memory, &mut NoHost, &mut RemoteMemory::new(&program))?;
//! assert_eq!(memory.read(ReplicaId(0), x)?, [1.0, 4.0, 9.0, 16.0]);
//! # Ok::<(), ipu_sim::execute::ExecuteError>(())
//! ```

use crate::ids::{IdVec, ReplicaId};
use crate::program::{FunctionId, Program, Step, StreamId, Transfer};

mod collective;
mod compute;
mod error;
#[cfg(test)]
mod fixtures;
mod float;
mod memory;
mod moves;
mod nest;
mod placement;
mod remote;
mod strides;
#[cfg(test)]
mod tests;
mod vertices;

pub use error::{ExecuteError, StreamError};
pub use float::{FloatControl, FloatException, StochasticRounding};
pub use memory::Memory;
pub use remote::RemoteMemory;

/// The host's end of the streams.
///
/// An element of a stream is a whole variable: its values in logical order, last axis fastest.
pub trait Host {
    /// The next element of a stream to the device.
    ///
    /// # Errors
    ///
    /// If the stream isn't connected or has no more data.
    fn read(&mut self, replica: ReplicaId, stream: StreamId) -> Result<Vec<f64>, StreamError>;

    /// Takes the next element of a stream from the device.
    ///
    /// # Errors
    ///
    /// If the stream isn't connected or takes no more data.
    fn write(
        &mut self,
        replica: ReplicaId,
        stream: StreamId,
        values: Vec<f64>,
    ) -> Result<(), StreamError>;

    /// Whether to go on; asked before every step. A no ends the run with
    /// [`ExecuteError::Stopped`].
    fn goes_on(&mut self) -> bool {
        true
    }
}

/// Runs the memory's program once, for all replicas in step.
///
/// Tile and streaming memory keep their values, so that running again continues.
///
/// # Errors
///
/// See [`ExecuteError`]; the memory is then in the state that the failing step left.
pub fn run(
    memory: &mut Memory<'_>,
    host: &mut dyn Host,
    remote: &mut RemoteMemory,
) -> Result<(), ExecuteError> {
    let program = memory.atlas.program;
    let mut empty = EmptySteps::new(program);
    run_steps(&program.steps, memory, host, remote, &mut empty)
}

fn run_steps(
    steps: &[Step],
    memory: &mut Memory<'_>,
    host: &mut dyn Host,
    remote: &mut RemoteMemory,
    empty: &mut EmptySteps<'_>,
) -> Result<(), ExecuteError> {
    for step in steps {
        if empty.is_empty(step) {
            continue;
        }
        if !host.goes_on() {
            return Err(ExecuteError::Stopped);
        }
        match step {
            Step::Compute(set) => compute::run(memory, set)?,
            Step::Exchange(exchange) => moves::exchange(memory, exchange)?,
            Step::IpuCopies { source, copies } => moves::ipu_copies(memory, *source, copies)?,
            Step::Transfers { transfers, .. } => {
                for transfer in transfers {
                    run_transfer(*transfer, memory, host, remote)?;
                }
            }
            Step::Collective(collective) => collective::run(memory, collective)?,
            Step::Repeat { count, body } => {
                for _ in 0..*count {
                    run_steps(body, memory, host, remote, empty)?;
                }
            }
            Step::Call(function) => {
                let steps = &memory.atlas.program.functions[*function].steps;
                run_steps(steps, memory, host, remote, empty)?;
            }
            Step::Section(_) => {}
        }
    }
    Ok(())
}

/// Which steps do nothing however often they are run.
struct EmptySteps<'p> {
    program: &'p Program,
    /// Of those that are known.
    functions: IdVec<FunctionId, Option<bool>>,
}

impl<'p> EmptySteps<'p> {
    fn new(program: &'p Program) -> Self {
        let functions = program.functions.ids().map(|_| None).collect();
        Self { program, functions }
    }

    fn is_empty(&mut self, step: &Step) -> bool {
        match step {
            Step::Section(_) | Step::Repeat { count: 0, .. } => true,
            Step::Repeat { body, .. } => body.iter().all(|step| self.is_empty(step)),
            Step::Call(id) => self.is_empty_function(*id),
            Step::Compute(_)
            | Step::Exchange(_)
            | Step::IpuCopies { .. }
            | Step::Transfers { .. }
            | Step::Collective(_) => false,
        }
    }

    fn is_empty_function(&mut self, id: FunctionId) -> bool {
        if let Some(known) = self.functions[id] {
            return known;
        }
        let steps = &self.program.functions[id].steps;
        let is_empty = steps.iter().all(|step| self.is_empty(step));
        self.functions[id] = Some(is_empty);
        is_empty
    }
}

fn run_transfer(
    transfer: Transfer,
    memory: &mut Memory<'_>,
    host: &mut dyn Host,
    remote: &mut RemoteMemory,
) -> Result<(), ExecuteError> {
    let program = memory.atlas.program;
    for replica in (0..program.n_replicas).map(ReplicaId) {
        let failed = |stream: StreamId| {
            move |error| ExecuteError::Stream {
                stream: program.streams[stream].name.clone(),
                replica,
                error,
            }
        };
        match transfer {
            Transfer::HostRead { stream, var } => {
                let values = host.read(replica, stream).map_err(failed(stream))?;
                memory.write(replica, var, &values)?;
            }
            Transfer::HostWrite { stream, var } => {
                let values = memory.read(replica, var)?;
                host.write(replica, stream, values)
                    .map_err(failed(stream))?;
            }
            Transfer::RemoteLoad { buffer, var } => {
                remote::load(memory, remote, replica, remote::Ends { buffer, var })?;
            }
            Transfer::RemoteStore { buffer, var } => {
                remote::store(memory, remote, replica, remote::Ends { buffer, var })?;
            }
        }
    }
    Ok(())
}

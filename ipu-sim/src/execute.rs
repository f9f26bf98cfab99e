//! Which values does a program compute?
//!
//! [`run`] executes a [`Program`](crate::program::Program) for all its replicas on simulated tile memory:
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
//! let cut = Cut { parts: 2, grain: 1, tile_stride: 1 };
//! let layout = program.add_layout(Layout::row_major(vec![AxisSplit::cut(4, &[cut])]));
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

use crate::ids::{IpuId, ReplicaId, TileId};
use crate::program::{LayoutId, Step, StreamId, Transfer};
use crate::units::Bytes;

mod collective;
mod compute;
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

pub use float::{FloatControl, FloatException, StochasticRounding};
pub use memory::Memory;
pub use remote::RemoteMemory;

/// Why a program could not be executed.
///
/// `step` is the name of the [`crate::program::Source`] that the step belongs to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ExecuteError {
    /// A layout puts two different boxes, or two copies of one, on the same tile.
    #[error("{layout} puts two boxes on {tile}")]
    SharedTile {
        /// The layout.
        layout: LayoutId,
        /// The tile.
        tile: TileId,
    },
    /// An element was read before anything wrote it.
    #[error("`{variable}` on {tile} is read before it is written")]
    Unwritten {
        /// The variable.
        variable: String,
        /// Where it was read.
        tile: TileId,
    },
    /// Copies of the same element hold different values.
    #[error("the copies of `{variable}` differ, the one on {tile} from the first")]
    CopiesDiffer {
        /// The variable.
        variable: String,
        /// Tile of the copy that differs.
        tile: TileId,
    },
    /// As many values as the variable has elements were expected.
    #[error("`{variable}`: expected {expected} values, got {got}")]
    Length {
        /// The variable.
        variable: String,
        /// Its elements.
        expected: usize,
        /// Values that were given.
        got: usize,
    },
    /// Operands of a vertex hold different indices of a label that they share.
    #[error("`{step}`: `{variable}` on {tile} doesn't cover the indices of the other operands")]
    Misaligned {
        /// What was run.
        step: String,
        /// The operand.
        variable: String,
        /// Where the vertex is.
        tile: TileId,
    },
    /// A tile needs a box of a variable that isn't there.
    #[error("`{step}`: `{variable}` has no box on {tile}")]
    MissingBox {
        /// What was run.
        step: String,
        /// The variable.
        variable: String,
        /// Where it was needed.
        tile: TileId,
    },
    /// An axis that a vertex takes whole is only partly on its tile.
    #[error("`{step}`: `{variable}` isn't whole on {tile}")]
    NotWhole {
        /// What was run.
        step: String,
        /// The operand.
        variable: String,
        /// Where the vertex is.
        tile: TileId,
    },
    /// An operand has a label that the output of an elementwise vertex lacks.
    #[error("`{step}`: an input has axes that `{variable}` lacks, but nothing reduces them")]
    ExtraLabel {
        /// What was run.
        step: String,
        /// The output.
        variable: String,
    },
    /// A step uses a variable that lies on another IPU.
    #[error("`{step}`: expected `{variable}` on {expected}, got {got}")]
    WrongIpu {
        /// What was run.
        step: String,
        /// The variable.
        variable: String,
        /// The IPU of the step.
        expected: IpuId,
        /// The IPU of the variable.
        got: IpuId,
    },
    /// Vertices of one compute set, which run at the same time, share a variable that one of them writes.
    #[error("`{step}`: `{variable}` is written by one vertex group and used by another")]
    Race {
        /// What was run.
        step: String,
        /// The variable.
        variable: String,
    },
    /// A result is an exception, and [`FloatControl::exceptions`] stops the program there.
    #[error("`{step}`: {exception} in `{variable}` on {tile}")]
    Float {
        /// What was run.
        step: String,
        /// The result.
        variable: String,
        /// Where it was computed.
        tile: TileId,
        /// What is wrong with it.
        exception: FloatException,
    },
    /// A dynamic slice or update names a slot that the tile (or the variable) lacks.
    #[error("`{step}`: `{variable}` has no slot {slot} on {tile}")]
    NoSlot {
        /// What was run.
        step: String,
        /// The sliced variable.
        variable: String,
        /// Where the vertex is.
        tile: TileId,
        /// The slot.
        slot: f64,
    },
    /// Source and destination of a copy between IPUs, or of an all-reduce, need one layout.
    #[error("`{step}`: `{src}` and `{dst}` have different layouts")]
    LayoutsDiffer {
        /// What was run.
        step: String,
        /// Read.
        src: String,
        /// Written.
        dst: String,
    },
    /// Source and destination of a copy need one element type.
    #[error("`{step}`: `{src}` and `{dst}` have different element types")]
    TypesDiffer {
        /// What was run.
        step: String,
        /// Read.
        src: String,
        /// Written.
        dst: String,
    },
    /// A shard stores another number of elements than its share of the box it is a slice of.
    #[error("`{step}`: expected {expected} elements of shard `{variable}` on {tile}, got {got}")]
    ShardSize {
        /// What was run.
        step: String,
        /// The shard.
        variable: String,
        /// Where it lies.
        tile: TileId,
        /// A replica's share of the box.
        expected: usize,
        /// What the shard stores there.
        got: usize,
    },
    /// The host side of a stream failed.
    #[error("stream `{stream}` of {replica}: {error}")]
    Stream {
        /// The stream.
        stream: String,
        /// Whose stream.
        replica: ReplicaId,
        /// What the host said.
        error: StreamError,
    },
    /// The host stopped the run.
    #[error("stopped by the host")]
    Stopped,
    /// A buffer of streaming memory is loaded before anything was stored there.
    #[error("buffer `{buffer}` of {replica} is loaded before it is stored")]
    RemoteEmpty {
        /// The buffer.
        buffer: String,
        /// Whose buffer.
        replica: ReplicaId,
    },
    /// A buffer of streaming memory holds another number of elements than the variable.
    #[error("buffer `{buffer}`: expected {expected} elements for `{variable}`, got {got}")]
    RemoteLength {
        /// The buffer.
        buffer: String,
        /// The variable that is loaded.
        variable: String,
        /// What it stores.
        expected: usize,
        /// What the buffer holds.
        got: usize,
    },
    /// A buffer of streaming memory is smaller than the variable.
    #[error("buffer `{buffer}`: expected room for {needed} of `{variable}`, got {available}")]
    RemoteTooSmall {
        /// The buffer.
        buffer: String,
        /// The variable that is stored.
        variable: String,
        /// Its size.
        needed: Bytes,
        /// The buffer's size.
        available: Bytes,
    },
}

/// Why the host could not serve a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Nothing on the host side belongs to the stream.
    #[error("not connected")]
    NotConnected,
    /// There is no further element.
    #[error("no more data")]
    Exhausted,
}

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
    let steps = &memory.atlas.program.steps;
    run_steps(steps, memory, host, remote)
}

fn run_steps(
    steps: &[Step],
    memory: &mut Memory<'_>,
    host: &mut dyn Host,
    remote: &mut RemoteMemory,
) -> Result<(), ExecuteError> {
    for step in steps {
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
                    run_steps(body, memory, host, remote)?;
                }
            }
            Step::Call(function) => {
                let steps = &memory.atlas.program.functions[*function].steps;
                run_steps(steps, memory, host, remote)?;
            }
            Step::Section(_) => {}
        }
    }
    Ok(())
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

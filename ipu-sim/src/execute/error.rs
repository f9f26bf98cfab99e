//! Why a program could not be executed.

use super::float::FloatException;
use crate::ids::{IpuId, ReplicaId, TileId};
use crate::program::{LayoutId, TooDeep};
use crate::units::Bytes;

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
    /// Repeats and calls are nested too deep to be followed.
    #[error(transparent)]
    TooDeep(TooDeep),
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
    /// A result is an exception, and [`FloatControl::exceptions`](super::FloatControl::exceptions) stops the program there.
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

//! How a program breaks a rule: where, and against what.

use std::fmt;

use crate::ids::{IpuId, TileId};
use crate::numerics::DType;
use crate::program::{FunctionId, Label, LayoutId, Program, SourceId, Step, TooDeep};
use crate::replica::ReplicaError;
use crate::units::Bytes;

/// A rule of [`crate::verify`] that a program breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {violation}")]
pub struct BadProgram {
    /// Location of the fault.
    pub place: Location,
    /// Rule that is broken, with the facts.
    pub violation: Violation,
}

/// Reason that a program can't be run, whatever its size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The machine has no room for its replicas.
    #[error(transparent)]
    Replicas(#[from] ReplicaError),
    /// It breaks a rule of [`crate::verify`].
    #[error(transparent)]
    BadProgram(#[from] Box<BadProgram>),
}

/// The outcome of checking a rule.
pub(crate) type Checked = Result<(), Box<BadProgram>>;

/// A rule broken at `place`.
pub(super) fn broken(place: Location, violation: Violation) -> Box<BadProgram> {
    Box::new(BadProgram { place, violation })
}

/// Where a program breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In the program as a whole.
    Program,
    /// In a layout.
    Layout(LayoutId),
    /// In a variable.
    Variable(String),
    /// In a function.
    Function(String),
    /// In a stream.
    Stream(String),
    /// In a buffer of streaming memory.
    RemoteBuffer(String),
    /// In a step.
    Step(StepLocation),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program => f.write_str("the program"),
            Self::Layout(layout) => write!(f, "{layout}"),
            Self::Variable(name) => write!(f, "variable `{name}`"),
            Self::Function(name) => write!(f, "function `{name}`"),
            Self::Stream(name) => write!(f, "stream `{name}`"),
            Self::RemoteBuffer(name) => write!(f, "buffer `{name}`"),
            Self::Step(step) => write!(f, "{step}"),
        }
    }
}

/// A step, by its numbers from 0: `3.1` is the second step of the repeat that is the fourth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepLocation {
    /// The name of its line of the profile, if it has one.
    pub source: Option<String>,
    /// Numbers of the step in each list of steps, outermost first.
    pub numbers: Vec<usize>,
    /// The function that it is in; none for the program's own.
    pub function: Option<String>,
}

impl fmt::Display for StepLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.numbers.iter().map(usize::to_string).collect();
        write!(f, "step {}", numbers.join("."))?;
        if let Some(function) = &self.function {
            write!(f, " of function `{function}`")?;
        }
        match &self.source {
            Some(source) => write!(f, " (`{source}`)"),
            None => Ok(()),
        }
    }
}

/// A step while the rules are being checked; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'w> {
    pub(super) numbers: &'w [usize],
    pub(super) function: Option<FunctionId>,
}

impl At<'_> {
    /// The place of a step that belongs to `source`.
    pub(super) fn place(self, program: &Program, source: Option<SourceId>) -> Location {
        let source = source.and_then(|id| program.sources.get(id));
        Location::Step(StepLocation {
            source: source.map(|source| source.name.clone()),
            numbers: self.numbers.to_vec(),
            function: self.function.map(|id| program.functions[id].name.clone()),
        })
    }
}

/// The line of the profile that a step belongs to, if it belongs to one.
pub(super) fn source_of(step: &Step) -> Option<SourceId> {
    match step {
        Step::Compute(set) => Some(set.source),
        Step::Exchange(exchange) => Some(exchange.source),
        Step::IpuCopies { source, .. } | Step::Transfers { source, .. } => Some(*source),
        Step::Collective(collective) => Some(collective.source),
        Step::Repeat { .. } | Step::Call(_) | Step::Section(_) => None,
    }
}

/// Broken rule of [`crate::verify`], with the facts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An id of nothing.
    #[error("there is no {what} {number}, expected one below {count}")]
    NoSuchId {
        /// What it should name.
        what: &'static str,
        /// Its number.
        number: u32,
        /// How many there are.
        count: usize,
    },
    /// The parts of an axis don't cover its indices once each, or miss their places.
    #[error(
        "axis {axis}: expected parts that follow each other from index 0 and fill their places in \
         order, none of them empty"
    )]
    BrokenAxis {
        /// The axis.
        axis: usize,
    },
    /// Copies of a layout don't ascend from 0.
    #[error("expected copies at tile offsets that ascend from 0")]
    BrokenCopies,
    /// Storage loops that name no position for every element.
    #[error(
        "axis {axis}: expected storage loops whose blocks divide each other and end with 1, on \
         axes that there are"
    )]
    BrokenOrder {
        /// The axis.
        axis: usize,
    },
    /// A layout of a larger chip.
    #[error("expected at most {available} tiles, got {needed}")]
    TooManyTiles {
        /// Tiles of an IPU.
        available: u32,
        /// One past the last tile that it uses.
        needed: u64,
    },
    /// A layout puts two boxes on one tile.
    #[error("expected one box on {tile}, got two: move its axes or copies apart")]
    SharedTile {
        /// The tile.
        tile: TileId,
    },
    /// More than is counted anywhere.
    #[error("expected at most {most} {what}, got {got}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// The most that is counted.
        most: u64,
        /// What it comes to, as far as known.
        got: u64,
    },
    /// Repeats and calls that are nested too deep.
    #[error(transparent)]
    TooDeep(TooDeep),
    /// A function that calls itself, in one call or more.
    #[error("expected calls that come to an end, but it calls itself")]
    Recursion,
    /// A stream whose buffer holds nothing.
    #[error("expected a buffering depth of at least 1")]
    NoBuffer,
    /// Elements of a stream that differ.
    #[error(
        "expected elements of one size that pass one way on one IPU: `{first}` and `{other}` \
         differ; use a stream for each"
    )]
    MixedStream {
        /// The variable of its first transfer.
        first: String,
        /// That of another one.
        other: String,
    },
    /// A buffer that IPUs of two IPU-Machines use.
    #[error(
        "expected users on one IPU-Machine, got {first} and {other} of {replica}: a buffer lies \
         beside the gateway of one; copy its variable between the IPUs"
    )]
    FarBuffer {
        /// Its first user.
        first: IpuId,
        /// Another.
        other: IpuId,
        /// A replica in which they lie apart.
        replica: crate::ids::ReplicaId,
    },
    /// A buffer that is smaller than a variable that goes there.
    #[error(
        "expected a buffer of at least {needed} for `{variable}`, got {available} in `{buffer}`"
    )]
    SmallBuffer {
        /// The buffer.
        buffer: String,
        /// The variable.
        variable: String,
        /// The variable's size.
        needed: Bytes,
        /// The buffer's.
        available: Bytes,
    },
    /// A variable on another IPU than what uses it.
    #[error("expected `{variable}` on {expected}, got {got}: copy it between the IPUs first")]
    WrongIpu {
        /// The variable.
        variable: String,
        /// The IPU of the step.
        expected: IpuId,
        /// The IPU of the variable.
        got: IpuId,
    },
    /// A copy between IPUs that stays on one.
    #[error("expected `{dst}` on another IPU than `{src}`: use an exchange")]
    SameIpu {
        /// Read.
        src: String,
        /// Written.
        dst: String,
    },
    /// Two variables that need one layout.
    #[error("expected one layout of `{src}` and `{dst}`: exchange one of them first")]
    LayoutsDiffer {
        /// Read.
        src: String,
        /// Written.
        dst: String,
    },
    /// Two variables that need one element type.
    #[error("expected one element type of `{src}` and `{dst}`: cast one of them first")]
    TypesDiffer {
        /// Read.
        src: String,
        /// Written.
        dst: String,
    },
    /// A view of indices that its variable doesn't have.
    #[error("expected a view of what `{variable}` has, got axes or indices that it lacks")]
    BrokenView {
        /// The variable.
        variable: String,
    },
    /// Views of a copy that don't fit together.
    #[error(
        "expected views of equal extents with digits that divide each other, got {src:?} of `{from}` and {dst:?} of `{to}`"
    )]
    ViewsDiffer {
        /// Read.
        from: String,
        /// Its extents.
        src: Vec<u32>,
        /// Written.
        to: String,
        /// Its extents.
        dst: Vec<u32>,
    },
    /// A vertex with too few inputs, or too many.
    #[error("expected {expected} inputs of {vertex}, got {got}")]
    Inputs {
        /// The vertex.
        vertex: &'static str,
        /// What it needs.
        expected: String,
        /// What it has.
        got: usize,
    },
    /// Labels of an operand that don't name its axes.
    #[error("expected a label for each of the {axes} axes of `{variable}`, no two alike")]
    Labels {
        /// The operand.
        variable: String,
        /// Its axes.
        axes: usize,
    },
    /// A label where the vertex needs it isn't there, or is where it can't be.
    #[error(
        "expected {label:?} {expected} of {vertex}: label the operands as the vertex reads them"
    )]
    Label {
        /// The label.
        label: Label,
        /// Where it should be, or shouldn't.
        expected: &'static str,
        /// The vertex.
        vertex: &'static str,
    },
    /// An axis that a vertex can't take whole.
    #[error("expected `{variable}` to be {expected}")]
    Whole {
        /// The operand.
        variable: String,
        /// How it may be passed.
        expected: &'static str,
    },
    /// A constant of a vertex that can't be.
    #[error("expected {what} of {vertex} of at least 1")]
    Zero {
        /// The constant.
        what: &'static str,
        /// The vertex.
        vertex: &'static str,
    },
    /// Element types that no codelet has.
    #[error("expected element types that {vertex} exists for, got {types:?}: cast first")]
    Types {
        /// The vertex.
        vertex: &'static str,
        /// Of the output and the inputs.
        types: Vec<DType>,
    },
    /// An operand that isn't where its vertex runs.
    #[error("`{variable}` has no box on {tile}, where `{output}` is written: exchange it first")]
    MissingBox {
        /// The operand.
        variable: String,
        /// Where it is missing.
        tile: TileId,
        /// What is written.
        output: String,
    },
    /// An operand that is there with other indices.
    #[error(
        "`{variable}` doesn't cover the indices of the other operands on {tile}: exchange it to \
         their layout first"
    )]
    Misaligned {
        /// The operand.
        variable: String,
        /// Where it differs.
        tile: TileId,
    },
    /// Vertices of one compute set use what another one writes.
    #[error(
        "`{variable}` is written by one vertex group and used by another: use two compute sets"
    )]
    Race {
        /// The variable.
        variable: String,
    },
    /// A shard that isn't a replica's share.
    #[error(
        "expected {expected} elements of shard `{shard}` on {tile}, a replica's share of `{whole}`, \
         got {got}"
    )]
    Shard {
        /// The shard.
        shard: String,
        /// What it is cut from.
        whole: String,
        /// Where.
        tile: TileId,
        /// What it should store.
        expected: u64,
        /// What it stores.
        got: u64,
    },
    /// More simulated time than is counted.
    #[error("expected a run of at most {most} cycles, got more: repeat less")]
    TooLong {
        /// The most that is counted.
        most: u64,
    },
}

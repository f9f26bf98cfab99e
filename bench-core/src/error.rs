//! What a configuration or a machine can get wrong: the union of this crate's and the lower crates'
//! errors, at the door of the crate.

use ipu_sim::ids::IpuId;
use ipu_sim::units::Bytes;

use crate::config::KeyError;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run can't be evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Keys that make no run.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A model that can't be built or placed.
    #[error(transparent)]
    Model(#[from] bert_model::error::Error),
    /// A graph that can't be compiled.
    #[error(transparent)]
    Graph(Box<popart_graph::session::CompileError>),
    /// A matrix product that has no plan.
    #[error(transparent)]
    Plan(#[from] popart_graph::plan::PlanError),
    /// A program that a machine can't run, or a description that describes none.
    #[error(transparent)]
    Machine(#[from] ipu_sim::error::Error),
    /// A model that no plan can make fit, found before it is compiled.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A pipeline of one stage. The sentence is PopART's.
    #[error(
        "Pipelining requires more than 1 IPU and the 'virtualGraphMode' session option to not be \
         VirtualGraphMode::Off."
    )]
    OneStage,
    /// More IPUs than the machine has.
    #[error("the configuration needs {needed} IPUs, `{machine}` has {available}")]
    TooFewIpus {
        /// IPUs that all replicas ask for.
        needed: u32,
        /// IPUs of the machine.
        available: u32,
        /// Name of the machine.
        machine: String,
    },
}

/// Errors of parts of the simulator.
macro_rules! of_machine {
    ($($part:ty),* $(,)?) => {$(
        impl From<$part> for Error {
            fn from(error: $part) -> Self {
                Self::Machine(error.into())
            }
        }
    )*};
}

of_machine!(
    ipu_sim::spec::error::SpecError,
    ipu_sim::replica::ReplicaError,
    ipu_sim::verify::VerifyError,
);

impl From<popart_graph::session::CompileError> for Error {
    fn from(error: popart_graph::session::CompileError) -> Self {
        Self::Graph(Box::new(error))
    }
}

/// A model of which a part alone takes more than an IPU has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "out of memory: {part} take {needed} B at once, {} B more than the {available} of an IPU",
    needed - u128::from(available.0)
)]
pub struct TooLarge {
    /// Part of the model that is too large.
    pub part: LargePart,
    /// Bytes that it takes.
    pub needed: u128,
    /// Bytes of all tiles of an IPU.
    pub available: Bytes,
}

/// Part of a model that can be too large for an IPU by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LargePart {
    /// Weights on an IPU.
    Weights(IpuId),
    /// Operands and result of a matrix product of this name.
    Product(String),
}

impl std::fmt::Display for LargePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Weights(ipu) => write!(f, "the weights on {ipu}"),
            Self::Product(name) => write!(f, "the operands and the result of `{name}`"),
        }
    }
}

//! What can go wrong by the fault of a user, a file or a simulated machine.
//!
//! Faults of this crate's own code are assertions, not variants.

use std::fmt;

use crate::spec::quantity::Dimension;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything this crate refuses, with the facts of each case.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A machine description says something that can't be.
    #[error("{place}: {fault}")]
    Description {
        /// Where in which file.
        place: Place,
        /// What is wrong there.
        fault: Box<DescriptionFault>,
    },
    /// A machine description, with its bases, leaves something out.
    #[error("the machine description doesn't give `{key}`")]
    DescriptionIncomplete {
        /// The absent key.
        key: &'static str,
    },
    /// No machine of this name is shipped.
    #[error("no machine `{name}` is shipped, expected one of {}", shipped.join(", "))]
    UnknownMachine {
        /// The name asked for.
        name: String,
        /// The names there are.
        shipped: Vec<&'static str>,
    },
    /// More replicas than the machine has room for.
    #[error(
        "{n_replicas} replicas of {ipus_per_replica} IPUs don't fit, expected at most {n_ipus} \
         IPUs, got {}",
        u64::from(*n_replicas) * u64::from(*ipus_per_replica)
    )]
    ReplicasDontFit {
        /// Replicas wanted.
        n_replicas: u32,
        /// IPUs of each.
        ipus_per_replica: u32,
        /// IPUs of the machine.
        n_ipus: u32,
    },
    /// A replica, or a machine, of nothing.
    #[error("expected at least one replica of at least one IPU")]
    NoReplicas,
}

/// A position in a machine description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shipped base it lies in; none in the description itself.
    pub base: Option<String>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(base) = &self.base {
            write!(f, "base `{base}`, ")?;
        }
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// What is wrong at one place of a machine description.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DescriptionFault {
    /// Not TOML, or not of the form of a description.
    #[error("{message}")]
    Form {
        /// What the TOML reader says.
        message: String,
    },
    /// A constant nobody reads.
    #[error("unknown constant `{key}`, expected one of {}", expected.join(", "))]
    UnknownConstant {
        /// Its full key.
        key: String,
        /// The keys of that section.
        expected: Vec<&'static str>,
    },
    /// A base that isn't shipped.
    #[error("unknown base `{base}`, expected one of {}", expected.join(", "))]
    UnknownBase {
        /// The base named.
        base: String,
        /// The bases there are.
        expected: Vec<&'static str>,
    },
    /// Not a number with a unit, where one was expected.
    #[error("`{key}`: expected {}, got `{found}`", expected.example())]
    NotAQuantity {
        /// The constant.
        key: &'static str,
        /// What it measures.
        expected: Dimension,
        /// What stands there.
        found: String,
    },
    /// A unit of something else, or of nothing.
    #[error("`{key}`: expected a unit of {}, got `{unit}`", expected.unit_names())]
    WrongUnit {
        /// The constant.
        key: &'static str,
        /// What it measures.
        expected: Dimension,
        /// The unit given.
        unit: String,
    },
    /// Zero, where the machine couldn't work with it.
    #[error("`{key}`: expected more than zero")]
    Zero {
        /// The constant.
        key: &'static str,
    },
    /// A fraction of something indivisible.
    #[error("`{key}`: expected a whole number of {}, got `{found}`", expected.base_unit())]
    NotWhole {
        /// The constant.
        key: &'static str,
        /// What it measures.
        expected: Dimension,
        /// What stands there.
        found: String,
    },
    /// More than this program can count.
    #[error("`{key}`: `{found}` is too large")]
    TooLarge {
        /// The constant.
        key: &'static str,
        /// What stands there.
        found: String,
    },
    /// The value lies outside the constant's own range.
    #[error("`{key}`: expected a value from `{low}` to `{high}`, its own range, got `{found}`")]
    OutsideRange {
        /// The constant.
        key: &'static str,
        /// Lower end of the range.
        low: String,
        /// Upper end of the range.
        high: String,
        /// The value.
        found: String,
    },
    /// Not one of the words that have a meaning here.
    #[error("`{key}`: expected one of {}, got `{found}`", expected.join(", "))]
    UnknownWord {
        /// The constant.
        key: &'static str,
        /// The words there are.
        expected: Vec<&'static str>,
        /// What stands there.
        found: String,
    },
    /// Two constants contradict each other: not a multiple.
    #[error("`{key}`: expected a multiple of {of} ({of_what}), got {value}")]
    NotAMultiple {
        /// The constant.
        key: &'static str,
        /// What it should be a multiple of.
        of: u64,
        /// What that is.
        of_what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Two constants contradict each other: one exceeds the other.
    #[error("`{key}`: expected at most {most} ({most_what}), got {value}")]
    MoreThan {
        /// The constant.
        key: &'static str,
        /// Its upper bound.
        most: u64,
        /// What that is.
        most_what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Two constants contradict each other: they should be equal.
    #[error("`{key}`: expected {expected} ({expected_what}), got {value}")]
    Unequal {
        /// The constant.
        key: &'static str,
        /// What it should be.
        expected: u64,
        /// What that is.
        expected_what: &'static str,
        /// Its value.
        value: u64,
    },
}

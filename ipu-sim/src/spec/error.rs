//! What can be wrong with the description of a machine?

use std::fmt;

use super::quantity::QuantityFault;
use super::suggest::{closest, did_you_mean};

/// The result of reading a description.
pub(super) type Result<T> = std::result::Result<T, SpecError>;

/// Why there is no [`super::MachineSpec`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// A machine description says something that can't be.
    #[error("{place}: {fault}")]
    Description {
        /// Where in which file.
        place: TextPosition,
        /// What is wrong there.
        fault: Box<DescriptionFault>,
    },
    /// A constant of a machine was to be changed to what can't be.
    #[error("{fault}")]
    Constant {
        /// What is wrong.
        fault: Box<DescriptionFault>,
    },
    /// A machine description, with its bases, leaves something out.
    #[error("the machine description doesn't give `{key}`")]
    Incomplete {
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
}

/// A position in a machine description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPosition {
    /// The shipped base it lies in; none in the description itself.
    pub base: Option<String>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for TextPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(base) = &self.base {
            write!(f, "base `{base}`, ")?;
        }
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Fault at one position of a machine description.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DescriptionFault {
    /// Not TOML, or not of the form of a description; with what the TOML reader says.
    #[error("{}", with_suggestion(_0.message()))]
    Form(toml::de::Error),
    /// A constant nobody reads.
    #[error(
        "unknown constant `{key}`{}, expected one of {}",
        did_you_mean(meant.as_deref()), expected.join(", ")
    )]
    UnknownConstant {
        /// Its full key.
        key: String,
        /// The constant that was probably meant.
        meant: Option<String>,
        /// The keys of that section.
        expected: Vec<String>,
    },
    /// A base that isn't shipped.
    #[error(
        "unknown base `{base}`{}, expected one of {}",
        did_you_mean(*meant), expected.join(", ")
    )]
    UnknownBase {
        /// The base named.
        base: String,
        /// The base that was probably meant.
        meant: Option<&'static str>,
        /// The bases there are.
        expected: Vec<&'static str>,
    },
    /// Not a quantity of its dimension.
    #[error(transparent)]
    Quantity(#[from] QuantityFault),
    /// Zero, where the machine couldn't work with it.
    #[error("`{key}`: expected more than zero")]
    Zero {
        /// The constant.
        key: &'static str,
    },
    /// More than any machine has, or than this program can count.
    #[error("`{key}`: expected at most {most}, got `{found}`")]
    TooLarge {
        /// The constant.
        key: &'static str,
        /// The largest value that is accepted.
        most: &'static str,
        /// What stands there.
        found: String,
    },
    /// Less than any machine has.
    #[error("`{key}`: expected at least {least}, got `{found}`")]
    TooSmall {
        /// The constant.
        key: &'static str,
        /// The smallest value that is accepted.
        least: &'static str,
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
    /// A range of a constant that is no number.
    #[error("`{key}`: expected no range, since a word is no number")]
    RangeOfWords {
        /// The constant.
        key: &'static str,
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
    /// A range whose ends are the wrong way round.
    #[error("`{key}`: expected a range with its lower end first, got `{low}` to `{high}`")]
    ReversedRange {
        /// The constant.
        key: &'static str,
        /// The end written first.
        low: String,
        /// The other.
        high: String,
    },
    /// A source that says nothing.
    #[error("`{key}`: expected where the value is from, such as \"what if\", got an empty source")]
    EmptySource {
        /// The constant.
        key: &'static str,
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

/// What the TOML reader says, on one line. Where it names an unknown word and those it knows, all
/// in backticks, also the one that was probably meant.
fn with_suggestion(message: &str) -> String {
    let line = message.lines().collect::<Vec<_>>().join(", ");
    let words: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
    let [found, known @ ..] = &words[..] else {
        return line;
    };
    match closest(found, known.iter().copied()) {
        Some(meant) if line.starts_with("unknown ") => {
            let found = format!("`{found}`");
            let suggestion = did_you_mean(Some(meant));
            line.replacen(&found, &format!("{found}{suggestion}"), 1)
        }
        _ => line,
    }
}

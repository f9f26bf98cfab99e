//! What is known of a constant of a machine?
//!
//! A [`ConstantId`] names it, and the table of constants says in what form it is written, what
//! bounds it has and what it is the price of. A [`Constant`] is that of one machine: the value is
//! that of the field, in the unit that its description chose; how it is known, who says so and
//! what the sources leave possible stand beside it.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::DescriptionFault;
use super::field::{Form, Raw};
use super::quantity::{Dimension, Quantity, Unit, Value};
use super::row::ConstantEntry;
pub use super::row::Expense;
use super::suggest::closest;
pub use super::table::ConstantId;
use super::table::ROWS;

/// One constant of one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant<'a> {
    /// Section and name of the constant.
    pub id: ConstantId,
    /// Value of the constant, with its unit.
    pub value: Value,
    /// How the value is known.
    pub kind: Kind,
    /// Source of the value, in words.
    pub source: &'a str,
    /// The values that the sources leave possible, lowest and highest.
    pub range: Option<[Quantity; 2]>,
}

/// How the value of a constant is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Published by the maker: documentation, data sheet or source code.
    Documented,
    /// Seen on the device, by the maker or by somebody else.
    Measured,
    /// Follows from documented or measured numbers by arithmetic.
    Derived,
    /// A guess, for want of a source.
    Assumed,
    /// Chosen so that the simulator agrees with measured runs.
    Fitted,
}

/// Sort of fact that a constant states, which says how it changes a program's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A time, in seconds or cycles: more of it never makes a program faster.
    Time,
    /// A rate, in hertz or in bytes a second or cycle.
    Rate,
    /// An amount of memory, or of bytes in one go.
    Size,
    /// How many there are.
    Count,
    /// One of a few words.
    Choice,
}

/// How a value of a constant came to be known, and in what unit it is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Provenance {
    /// The value that this is said of: of another, nothing is known.
    pub(super) of: Raw,
    pub(super) unit: Unit,
    pub(super) kind: Kind,
    pub(super) source: String,
    pub(super) range: Option<[Quantity; 2]>,
}

impl ConstantId {
    /// The constant of this section and name, such as `chip.clock`.
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|id| id.key() == key)
    }

    /// Section and name: `chip.clock`.
    #[must_use]
    pub fn key(self) -> &'static str {
        self.row().key
    }

    /// The section it stands in: `chip` of `chip.clock`.
    #[must_use]
    pub fn section(self) -> &'static str {
        self.split().0
    }

    /// Name of the constant within its section: `clock` of `chip.clock`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.split().1
    }

    /// Sort of fact that the constant states.
    #[must_use]
    pub fn class(self) -> Class {
        match self.row().form {
            Form::Quantity(Dimension::Cycles | Dimension::Seconds) => Class::Time,
            Form::Quantity(
                Dimension::Hertz | Dimension::BytesPerCycle | Dimension::BytesPerSecond,
            ) => Class::Rate,
            Form::Quantity(Dimension::Bytes) => Class::Size,
            Form::Quantity(Dimension::Count) => Class::Count,
            Form::Word(_) => Class::Choice,
        }
    }

    /// Cost that the constant sets.
    #[must_use]
    pub fn expense(self) -> Expense {
        self.row().expense
    }

    /// The unit in which its field keeps it; that of counts for words.
    pub(super) fn base_unit(self) -> Unit {
        match self.row().form {
            Form::Quantity(dimension) => dimension.base(),
            Form::Word(_) => Unit::ONE,
        }
    }

    pub(super) fn row(self) -> &'static ConstantEntry {
        &ROWS[self as usize]
    }

    fn split(self) -> (&'static str, &'static str) {
        let parts = self.key().split_once('.');
        parts.expect("a key of the table has a section and a name")
    }
}

impl fmt::Display for ConstantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.key())
    }
}

impl AsRef<str> for ConstantId {
    fn as_ref(&self) -> &str {
        self.key()
    }
}

impl Ord for ConstantId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for ConstantId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<ConstantId> for &'static str {
    fn from(id: ConstantId) -> Self {
        id.key()
    }
}

impl TryFrom<String> for ConstantId {
    type Error = DescriptionFault;

    fn try_from(key: String) -> Result<Self, DescriptionFault> {
        Self::from_key(&key).ok_or_else(|| unknown(&key))
    }
}

impl Kind {
    /// The word for it in a description.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::Measured => "measured",
            Self::Derived => "derived",
            Self::Assumed => "assumed",
            Self::Fitted => "fitted",
        }
    }
}

impl Constant<'_> {
    /// The constant as a line of its section: `clock = { value = "1.325 GHz", … }`.
    pub(super) fn to_toml(&self) -> String {
        let range = self.range.map_or(String::new(), |ends| {
            let [low, high] = ends.map(|end| written(Value::Quantity(end)));
            format!(", range = [{low}, {high}]")
        });
        format!(
            "{} = {{ value = {}, kind = \"{}\", source = {}{range} }}",
            self.id.name(),
            written(self.value),
            self.kind.word(),
            quoted(self.source),
        )
    }
}

/// What is wrong with a name that no constant has.
pub(super) fn unknown(key: &str) -> DescriptionFault {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let known: BTreeSet<ConstantId> = ConstantId::ALL.iter().copied().collect();
    let siblings = known.iter().filter(|id| id.section() == section);
    let expected: Vec<&str> = siblings.map(|id| id.key()).collect();
    // Misspelt, or in the wrong section.
    let misspelt = closest(key, expected.iter().copied());
    let misplaced = || known.iter().find(|id| id.name() == name).map(|id| id.key());
    DescriptionFault::UnknownConstant {
        key: key.to_owned(),
        meant: misspelt.or_else(misplaced).map(str::to_owned),
        expected: expected.into_iter().map(str::to_owned).collect(),
    }
}

/// Counts stand bare, everything else in quotes.
fn written(value: Value) -> String {
    match value {
        Value::Quantity(quantity) if quantity.unit == Unit::ONE => value.to_string(),
        _ => quoted(&value.to_string()),
    }
}

/// `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

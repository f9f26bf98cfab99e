//! Where does a number come from?
//!
//! Every constant of a machine keeps the text it was written with, so that a report can list it
//! and a machine can be written out as a description that reads back as the same machine.

use serde::{Deserialize, Serialize};

/// One number of a machine description.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Section and name: `chip.clock`.
    pub key: String,
    /// The value with its unit, as written: `1.325 GHz`.
    pub value: String,
    /// How the value is known.
    pub kind: Kind,
    /// Source of the value, in words.
    pub source: String,
    /// The values that the sources leave possible, lowest and highest, as written.
    pub range: Option<[String; 2]>,
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

impl Constant {
    /// The section it stands in: `chip` of `chip.clock`.
    #[must_use]
    pub fn section(&self) -> &str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    /// The constant as a line of its section: `clock = { value = "1.325 GHz", … }`.
    pub(super) fn to_toml(&self) -> String {
        let name = self.key.split_once('.').map_or("", |(_, name)| name);
        let range = self.range.as_ref().map_or(String::new(), |[low, high]| {
            format!(", range = [{}, {}]", value(low), value(high))
        });
        format!(
            "{name} = {{ value = {}, kind = \"{}\", source = {}{range} }}",
            value(&self.value),
            self.kind.word(),
            quoted(&self.source),
        )
    }
}

/// Whole numbers stand bare, everything else in quotes.
fn value(text: &str) -> String {
    if text.parse::<u64>().is_ok() {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

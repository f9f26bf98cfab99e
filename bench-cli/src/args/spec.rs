//! What one option is: the row type of the option table and its constructors.
//!
//! Rows are `const` data. A constructor fixes the kind, the default and how many words the option
//! takes; the methods after it add what is special: choices, the value of a bare option, the help
//! line and whether the simulator acts on it yet.

use serde_json::{Value, json};

/// The kind of one value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Int,
    /// A whole number on the command line, any number in a configuration file.
    IntOrConfigFloat,
    /// A finite number.
    Float,
    /// `true t 1 yes y` or `false f 0 no n`, in any case.
    Bool,
    /// Any text.
    Text,
    /// An execution mode: `DEFAULT`, `PIPELINE` or `PHASED`.
    Mode,
    /// `int:float` pairs, kept as an object in the order given.
    Schedule,
    /// A JSON object, or the path of a file that holds one.
    Json,
    /// A JSON list of `[IPU, [attention blocks, feed-forward blocks]]`, in one word.
    Halves,
    /// No word at all: the option stores this text under its key.
    Constant(&'static str),
}

/// How many words an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one.
    One,
    /// One or none; `bare` is what none means.
    Optional {
        /// The value of the option without a word.
        bare: bool,
    },
    /// A list of at least one.
    OneOrMore,
    /// A list that may be empty.
    Any,
    /// None: naming the option is the value.
    None,
}

/// The value of an option that nobody gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// Not set.
    Null,
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A switch.
    Bool(bool),
    /// A text.
    Text(&'static str),
    /// A list of whole numbers.
    Ints(&'static [i64]),
    /// A list of numbers.
    Floats(&'static [f64]),
}

/// Use that the simulator makes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It shapes the run or what is printed of it.
    Acts,
    /// It is a number in the program that the machine runs, and moves nothing else: neither time
    /// nor memory nor what is printed.
    ActsOnValues,
    /// It is accepted, and a note says why nothing changes.
    NoEffect(&'static str),
    /// Any value but the default is refused, with this reason.
    NotYet(&'static str),
}

/// One row of the option table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptionSpec {
    /// The option as typed, dashes included: `--micro-batch-size`.
    pub name: &'static str,
    /// Key of the option in configuration files and reports: `micro_batch_size`.
    pub key: &'static str,
    /// The kind of its values.
    pub kind: Kind,
    /// How many words it takes.
    pub arity: Arity,
    /// Value of the option when nobody gives one.
    pub default: Default,
    /// The words it accepts; empty where any will do.
    pub choices: &'static [&'static str],
    /// One line of help.
    pub help: &'static str,
    /// Use that the simulator makes of the option.
    pub support: Support,
}

impl OptionSpec {
    const fn new(
        name: &'static str,
        key: &'static str,
        kind: Kind,
        arity: Arity,
        default: Default,
    ) -> Self {
        Self {
            name,
            key,
            kind,
            arity,
            default,
            choices: &[],
            help: "",
            support: Support::Acts,
        }
    }

    /// The same option, accepting only `choices`.
    pub(super) const fn choices(mut self, choices: &'static [&'static str]) -> Self {
        self.choices = choices;
        self
    }

    /// The same switch, meaning `bare` when it has no word.
    pub(super) const fn bare(mut self, bare: bool) -> Self {
        self.arity = Arity::Optional { bare };
        self
    }

    /// The same switch, with a word demanded.
    pub(super) const fn needs_word(mut self) -> Self {
        self.arity = Arity::One;
        self
    }

    /// The same option with a default that the original writes as a whole number.
    pub(super) const fn whole_default(mut self, default: i64) -> Self {
        self.default = Default::Int(default);
        self
    }

    /// The same option with its line of help.
    pub(super) const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    /// The same option, acting on values only.
    pub(super) const fn on_values(mut self) -> Self {
        self.support = Support::ActsOnValues;
        self
    }

    /// The same option, accepted without effect because of `reason`.
    pub(super) const fn no_effect(mut self, reason: &'static str) -> Self {
        self.support = Support::NoEffect(reason);
        self
    }

    /// The same option, refused unless it keeps its default because of `reason`.
    pub(super) const fn not_yet(mut self, reason: &'static str) -> Self {
        self.support = Support::NotYet(reason);
        self
    }

    /// Whether its value is a list.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self.arity, Arity::OneOrMore | Arity::Any) && self.kind != Kind::Schedule
    }

    /// Value of the option when nobody gives one, as JSON.
    #[must_use]
    pub fn default_value(&self) -> Value {
        match self.default {
            Default::Null => Value::Null,
            Default::Int(number) => json!(number),
            Default::Float(number) => json!(number),
            Default::Bool(switch) => json!(switch),
            Default::Text(text) => json!(text),
            Default::Ints(list) => json!(list),
            Default::Floats(list) => json!(list),
        }
    }

    /// Whether `value` asks for nothing beyond the default. An unset switch and `false` are alike.
    #[must_use]
    pub fn is_default(&self, value: &Value) -> bool {
        let default = self.default_value();
        match (default.as_f64(), value.as_f64()) {
            (Some(expected), Some(actual)) => expected == actual,
            // Where unset, a switch is off unless its bare form turns it off.
            _ => {
                let unset_is_on = self.arity == Arity::Optional { bare: false };
                let off = default.is_null() && !unset_is_on && *value == json!(false);
                *value == default || off
            }
        }
    }
}

/// A whole number with a default.
pub(super) const fn int(name: &'static str, key: &'static str, default: i64) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Int, Arity::One, Default::Int(default))
}

/// A whole number that may stay unset.
pub(super) const fn maybe_int(name: &'static str, key: &'static str) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Int, Arity::One, Default::Null)
}

/// A number that the command line takes as a whole one only.
pub(super) const fn int_or_config_float(
    name: &'static str,
    key: &'static str,
    default: f64,
) -> OptionSpec {
    OptionSpec::new(
        name,
        key,
        Kind::IntOrConfigFloat,
        Arity::One,
        Default::Float(default),
    )
}

/// A number with a default.
pub(super) const fn float(name: &'static str, key: &'static str, default: f64) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Float, Arity::One, Default::Float(default))
}

/// A number that may stay unset.
pub(super) const fn maybe_float(name: &'static str, key: &'static str) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Float, Arity::One, Default::Null)
}

/// A text with a default.
pub(super) const fn text(
    name: &'static str,
    key: &'static str,
    default: &'static str,
) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Text, Arity::One, Default::Text(default))
}

/// A text that may stay unset.
pub(super) const fn maybe_text(name: &'static str, key: &'static str) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Text, Arity::One, Default::Null)
}

/// A switch whose bare form means the opposite of its default.
pub(super) const fn switch(name: &'static str, key: &'static str, default: bool) -> OptionSpec {
    let arity = Arity::Optional { bare: !default };
    OptionSpec::new(name, key, Kind::Bool, arity, Default::Bool(default))
}

/// A switch that may stay unset; bare, it is on.
pub(super) const fn maybe_switch(name: &'static str, key: &'static str) -> OptionSpec {
    let arity = Arity::Optional { bare: true };
    OptionSpec::new(name, key, Kind::Bool, arity, Default::Null)
}

/// A switch that takes no word.
pub(super) const fn flag(name: &'static str, key: &'static str) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Bool, Arity::None, Default::Bool(false))
}

/// A list of whole numbers.
pub(super) const fn ints(
    name: &'static str,
    key: &'static str,
    default: &'static [i64],
) -> OptionSpec {
    OptionSpec::new(
        name,
        key,
        Kind::Int,
        Arity::OneOrMore,
        Default::Ints(default),
    )
}

/// A list of numbers.
pub(super) const fn floats(
    name: &'static str,
    key: &'static str,
    default: &'static [f64],
) -> OptionSpec {
    OptionSpec::new(
        name,
        key,
        Kind::Float,
        Arity::OneOrMore,
        Default::Floats(default),
    )
}

/// A list of texts that may stay unset.
pub(super) const fn maybe_texts(name: &'static str, key: &'static str) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Text, Arity::Any, Default::Null)
}

/// `int:float` pairs.
pub(super) const fn schedule(name: &'static str, key: &'static str) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Schedule, Arity::Any, Default::Null)
}

/// An execution mode.
pub(super) const fn mode(
    name: &'static str,
    key: &'static str,
    default: &'static str,
) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Mode, Arity::One, Default::Text(default))
}

/// A JSON object that may stay unset.
pub(super) const fn maybe_json(name: &'static str, key: &'static str) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Json, Arity::One, Default::Null)
}

/// A list of half layers that may stay unset.
pub(super) const fn maybe_halves(name: &'static str, key: &'static str) -> OptionSpec {
    OptionSpec::new(name, key, Kind::Halves, Arity::One, Default::Null)
}

/// An option that stores `value` under the key of another one.
pub(super) const fn constant(
    name: &'static str,
    key: &'static str,
    value: &'static str,
    default: &'static str,
) -> OptionSpec {
    OptionSpec::new(
        name,
        key,
        Kind::Constant(value),
        Arity::None,
        Default::Text(default),
    )
}

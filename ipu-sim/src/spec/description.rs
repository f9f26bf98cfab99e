//! What does the text of a machine description say, with its bases laid under it?
//!
//! This step knows the form of a description (sections of constants, each with value, kind and
//! source) and nothing of what the constants mean; `resolve` gives them meaning.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::constant::Kind;
use super::error::{DescriptionFault, Result, SpecError, TextPosition};
use super::shipped;
use super::suggest::closest;
use crate::object::{Form, Object};

/// A description after its bases have been merged in.
#[derive(Clone, Debug, Default)]
pub(super) struct Description {
    /// The machine's name, from the outermost file that gives one.
    pub(super) name: Option<String>,
    /// One line on what the machine is, likewise.
    pub(super) summary: Option<String>,
    /// The constants by key.
    pub(super) entries: BTreeMap<String, Entry>,
}

/// One constant as it was given.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The value, without quotes.
    pub(super) value: String,
    /// Whether the value was written as a bare whole number.
    pub(super) whole_number: bool,
    /// How the value is known.
    pub(super) kind: Kind,
    /// Who says so.
    pub(super) source: String,
    /// Lowest and highest value, without quotes.
    pub(super) range: Option<[String; 2]>,
    /// Where it was given.
    pub(super) origin: Origin,
}

/// Where a constant was given.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// In a file.
    File {
        /// Of its value.
        value: TextPosition,
        /// Of its name.
        key: TextPosition,
    },
    /// In a machine that is to be changed.
    Machine,
    /// As a change of that.
    Change,
}

impl Origin {
    /// Whether the user gave it, and neither a shipped base nor the machine before a change.
    pub(super) fn is_own(&self) -> bool {
        match self {
            Self::File { value, .. } => value.base.is_none(),
            Self::Machine => false,
            Self::Change => true,
        }
    }

    /// The error of a value that was given here.
    pub(super) fn refuse(&self, fault: DescriptionFault) -> SpecError {
        self.error(fault, |value, _| value)
    }

    /// The error of a name that was given here.
    pub(super) fn refuse_key(&self, fault: DescriptionFault) -> SpecError {
        self.error(fault, |_, key| key)
    }

    fn error<'a>(
        &'a self,
        fault: DescriptionFault,
        place: fn(&'a TextPosition, &'a TextPosition) -> &'a TextPosition,
    ) -> SpecError {
        let fault = Box::new(fault);
        match self {
            Self::File { value, key } => SpecError::Description {
                place: place(value, key).clone(),
                fault,
            },
            Self::Machine | Self::Change => SpecError::Constant { fault },
        }
    }
}

/// A file as TOML sees it. The sections are listed so that a misspelt one is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    summary: Option<String>,
    #[serde(default)]
    base: Vec<Spanned<String>>,
    system: Option<Section>,
    chip: Option<Section>,
    compute: Option<Section>,
    exchange: Option<Section>,
    sync: Option<Section>,
    links: Option<Section>,
    gateway: Option<Section>,
    host: Option<Section>,
    streaming_memory: Option<Section>,
    memory: Option<Section>,
}

type Section = BTreeMap<Spanned<String>, Object<RawConstant>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConstant {
    value: Spanned<Value>,
    kind: Kind,
    source: String,
    range: Option<[Value; 2]>,
}

impl Form for RawConstant {
    const EXPECTED: &'static str =
        r#"a constant such as { value = "1 GHz", kind = "assumed", source = "what if" }"#;
}

impl Description {
    /// Reads a description and the shipped bases it names.
    pub(super) fn read(text: &str) -> Result<Self> {
        Self::read_file(text, None)
    }

    /// `base` is the name of the shipped file that `text` is, if it is one.
    fn read_file(text: &str, base: Option<&str>) -> Result<Self> {
        let place = |span: Range<usize>| place(text, base, span.start);
        let file: File = toml::from_str(text).map_err(|error| SpecError::Description {
            place: place(error.span().unwrap_or_default()),
            fault: Box::new(DescriptionFault::Form(error)),
        })?;

        let mut merged = Self::default();
        for name in &file.base {
            let under = shipped::find(name.as_ref()).ok_or_else(|| SpecError::Description {
                place: place(name.span()),
                fault: Box::new(DescriptionFault::UnknownBase {
                    base: name.as_ref().clone(),
                    meant: closest(name.as_ref(), shipped::bases()),
                    expected: shipped::bases(),
                }),
            })?;
            merged.lay(Self::read_file(under, Some(name.as_ref()))?);
        }

        let mut own = Self {
            name: file.name.clone(),
            summary: file.summary.clone(),
            entries: BTreeMap::new(),
        };
        for (section, constants) in file.into_sections() {
            for (name, Object(raw)) in constants {
                let key = format!("{section}.{}", name.as_ref());
                let entry = Entry {
                    value: as_written(raw.value.as_ref()),
                    whole_number: raw.value.as_ref().is_integer(),
                    kind: raw.kind,
                    source: raw.source,
                    range: raw.range.map(|ends| ends.map(|end| as_written(&end))),
                    origin: Origin::File {
                        value: place(raw.value.span()),
                        key: place(name.span()),
                    },
                };
                own.entries.insert(key, entry);
            }
        }
        merged.lay(own);
        Ok(merged)
    }

    /// Lays `over` on top of what is here: what it gives, wins.
    fn lay(&mut self, over: Self) {
        self.name = over.name.or(self.name.take());
        self.summary = over.summary.or(self.summary.take());
        self.entries.extend(over.entries);
    }
}

impl File {
    fn into_sections(self) -> impl Iterator<Item = (&'static str, Section)> {
        [
            ("system", self.system),
            ("chip", self.chip),
            ("compute", self.compute),
            ("exchange", self.exchange),
            ("sync", self.sync),
            ("links", self.links),
            ("gateway", self.gateway),
            ("host", self.host),
            ("streaming_memory", self.streaming_memory),
            ("memory", self.memory),
        ]
        .into_iter()
        .filter_map(|(name, section)| section.map(|section| (name, section)))
    }
}

/// The value without TOML's quotes.
fn as_written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Line and column of a byte of `text`.
fn place(text: &str, base: Option<&str>, offset: usize) -> TextPosition {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    TextPosition {
        base: base.map(str::to_owned),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

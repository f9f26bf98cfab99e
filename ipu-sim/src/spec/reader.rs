//! How does a constant become a number?
//!
//! A [`Reader`] hands out the constants of a description as fields of a machine, each once, checks
//! what the table says of each, and remembers where they were given, so that a contradiction found
//! later still has a line and a column.

use std::collections::BTreeMap;

use super::constant::{ConstantId, Provenance, unknown};
use super::description::{Entry, Origin};
use super::error::{DescriptionFault, Result, SpecError};
use super::field::{Field, Form, Raw};
use super::quantity::{Dimension, Quantity, QuantityFault, Unit};
use super::row::Limits;

/// Hands out the constants of a description, each once.
pub(super) struct Reader {
    left: BTreeMap<ConstantId, Entry>,
    origins: BTreeMap<ConstantId, Origin>,
    provenance: BTreeMap<ConstantId, Provenance>,
}

impl Reader {
    /// Refuses a constant that no machine has.
    pub(super) fn new(entries: BTreeMap<String, Entry>) -> Result<Self> {
        let known = |(key, entry): (String, Entry)| match ConstantId::from_key(&key) {
            Some(id) => Ok((id, entry)),
            None => Err(entry.origin.refuse_key(unknown(&key))),
        };
        Ok(Self {
            left: entries.into_iter().map(known).collect::<Result<_>>()?,
            origins: BTreeMap::new(),
            provenance: BTreeMap::new(),
        })
    }

    /// How all that was read is known.
    pub(super) fn into_provenance(self) -> BTreeMap<ConstantId, Provenance> {
        self.provenance
    }

    /// Whether a section has constants that nobody has read yet.
    pub(super) fn has_section(&self, section: &str) -> bool {
        self.left.keys().any(|id| id.section() == section)
    }

    /// The field of a constant.
    pub(super) fn take<T: Field>(&mut self, id: ConstantId) -> Result<T> {
        let entry = self.left.remove(&id);
        let entry = entry.ok_or(SpecError::Incomplete { key: id.key() })?;
        let read = read(id, &entry);
        let (raw, provenance) = read.map_err(|fault| entry.origin.refuse(fault))?;
        self.origins.insert(id, entry.origin);
        self.provenance.insert(id, provenance);
        Ok(T::of(raw).expect("the row of a constant has the form of its type"))
    }

    pub(super) fn refuse(&self, id: ConstantId, fault: DescriptionFault) -> SpecError {
        let origin = self.origins.get(&id).expect("checked after it was read");
        origin.refuse(fault)
    }

    /// Of constants that contradict each other, the first that the user gave; else the first.
    pub(super) fn own_first<const N: usize>(&self, ids: [ConstantId; N]) -> ConstantId {
        let is_own = |id: &ConstantId| self.origins.get(id).is_some_and(Origin::is_own);
        ids.into_iter().find(is_own).unwrap_or(ids[0])
    }

    pub(super) fn multiple(
        &self,
        id: ConstantId,
        value: u64,
        of: u64,
        of_what: &'static str,
    ) -> Result<()> {
        if value.is_multiple_of(of) {
            return Ok(());
        }
        Err(self.refuse(
            id,
            DescriptionFault::NotAMultiple {
                key: id.key(),
                of,
                of_what,
                value,
            },
        ))
    }

    pub(super) fn at_most(
        &self,
        id: ConstantId,
        value: u64,
        most: u64,
        most_what: &'static str,
    ) -> Result<()> {
        if value <= most {
            return Ok(());
        }
        Err(self.refuse(
            id,
            DescriptionFault::MoreThan {
                key: id.key(),
                most,
                most_what,
                value,
            },
        ))
    }

    pub(super) fn equal(
        &self,
        id: ConstantId,
        value: u64,
        expected: u64,
        expected_what: &'static str,
    ) -> Result<()> {
        if value == expected {
            return Ok(());
        }
        Err(self.refuse(
            id,
            DescriptionFault::Unequal {
                key: id.key(),
                expected,
                expected_what,
                value,
            },
        ))
    }
}

/// What an entry says of its constant.
fn read(id: ConstantId, entry: &Entry) -> std::result::Result<(Raw, Provenance), DescriptionFault> {
    let key = id.key();
    if entry.source.trim().is_empty() {
        return Err(DescriptionFault::EmptySource { key });
    }
    let (raw, unit, range) = match id.row().form {
        Form::Quantity(dimension) => {
            let (value, range) = quantity(key, dimension, entry)?;
            check(key, id.row().limits, value.magnitude)?;
            (Raw::Number(value.magnitude), value.unit, range)
        }
        Form::Word(words) => (Raw::Word(word(key, words, entry)?), Unit::ONE, None),
    };
    let provenance = Provenance {
        of: raw,
        unit,
        kind: entry.kind,
        source: entry.source.clone(),
        range,
    };
    Ok((raw, provenance))
}

/// A value inside its own range and the bounds of its dimension, with that range.
fn quantity(
    key: &'static str,
    dimension: Dimension,
    entry: &Entry,
) -> std::result::Result<(Quantity, Option<[Quantity; 2]>), DescriptionFault> {
    let found = || entry.value.clone();
    if (dimension == Dimension::Count) != entry.whole_number {
        let fault = QuantityFault::NotAQuantity {
            key,
            expected: dimension,
            found: found(),
        };
        return Err(fault.into());
    }
    let value = dimension.read(key, &entry.value)?;
    let range = match &entry.range {
        None => None,
        Some([low, high]) => {
            let ends = [dimension.read(key, low)?, dimension.read(key, high)?];
            let [least, most] = ends.map(|end| end.magnitude);
            let (low, high) = (low.clone(), high.clone());
            if least > most {
                return Err(DescriptionFault::ReversedRange { key, low, high });
            }
            if !(least..=most).contains(&value.magnitude) {
                return Err(DescriptionFault::OutsideRange {
                    key,
                    low,
                    high,
                    found: found(),
                });
            }
            Some(ends)
        }
    };
    let (least, least_text) = dimension.least();
    let (most, most_text) = dimension.most();
    if value.magnitude > most {
        return Err(DescriptionFault::TooLarge {
            key,
            most: most_text,
            found: found(),
        });
    }
    if value.magnitude > 0.0 && value.magnitude < least {
        return Err(DescriptionFault::TooSmall {
            key,
            least: least_text,
            found: found(),
        });
    }
    Ok((value, range))
}

/// Refuses a magnitude outside the bounds of its constant.
fn check(
    key: &'static str,
    limits: Limits,
    magnitude: f64,
) -> std::result::Result<(), DescriptionFault> {
    if magnitude == 0.0 && !limits.zero {
        return Err(DescriptionFault::Zero { key });
    }
    let value = magnitude as u64;
    if let Some((of, of_what)) = limits.multiple_of
        && !value.is_multiple_of(of)
    {
        return Err(DescriptionFault::NotAMultiple {
            key,
            of,
            of_what,
            value,
        });
    }
    if let Some((most, most_what)) = limits.most
        && value > most
    {
        return Err(DescriptionFault::MoreThan {
            key,
            most,
            most_what,
            value,
        });
    }
    Ok(())
}

/// One of the words that have a meaning.
fn word(
    key: &'static str,
    words: &'static [&'static str],
    entry: &Entry,
) -> std::result::Result<&'static str, DescriptionFault> {
    if entry.range.is_some() {
        return Err(DescriptionFault::RangeOfWords { key });
    }
    let known = words.iter().find(|word| **word == entry.value);
    known.copied().ok_or_else(|| DescriptionFault::UnknownWord {
        key,
        expected: words.to_vec(),
        found: entry.value.clone(),
    })
}

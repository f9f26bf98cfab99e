//! How does a constant become a number?
//!
//! A [`Reader`] hands out the constants of a description as typed numbers, each once, keeps them
//! in that order, and remembers where they stood, so that a contradiction found later still has a
//! line and a column.

use std::collections::BTreeMap;

use super::constant::Constant;
use super::description::Entry;
use super::error::{DescriptionFault, Result, SpecError, TextPosition};
use super::quantity::{Dimension, QuantityFault};
use super::suggest::closest;
use crate::units::{Bytes, BytesPerCycle, BytesPerSecond, Cycles, SimSeconds};

/// Hands out the constants of a description, each once.
pub(super) struct Reader {
    left: BTreeMap<String, Entry>,
    places: BTreeMap<&'static str, TextPosition>,
    constants: Vec<Constant>,
}

impl Reader {
    pub(super) fn new(entries: BTreeMap<String, Entry>) -> Self {
        Self {
            left: entries,
            places: BTreeMap::new(),
            constants: Vec::new(),
        }
    }

    /// What has been read, in order.
    pub(super) fn into_constants(self) -> Vec<Constant> {
        self.constants
    }

    /// Whether a section has constants that nobody has read yet.
    pub(super) fn has_section(&self, section: &str) -> bool {
        let mut left = self.left.values();
        left.any(|entry| entry.constant.section() == section)
    }

    pub(super) fn take(&mut self, key: &'static str) -> Result<Entry> {
        let entry = self.left.remove(key);
        let entry = entry.ok_or(SpecError::Incomplete { key })?;
        self.places.insert(key, entry.place.clone());
        if entry.constant.source.trim().is_empty() {
            return Err(self.refuse(key, DescriptionFault::EmptySource { key }));
        }
        self.constants.push(entry.constant.clone());
        Ok(entry)
    }

    pub(super) fn refuse(&self, key: &str, fault: impl Into<DescriptionFault>) -> SpecError {
        let place = self.places.get(key).expect("checked after it was read");
        SpecError::Description {
            place: place.clone(),
            fault: Box::new(fault.into()),
        }
    }

    /// A value in base units, inside its own range.
    fn quantity(&mut self, key: &'static str, dimension: Dimension) -> Result<f64> {
        let entry = self.take(key)?;
        let constant = &entry.constant;
        let read = |text: &str| dimension.read(key, text);
        if (dimension == Dimension::Count) != entry.whole_number {
            let fault = QuantityFault::NotAQuantity {
                key,
                expected: dimension,
                found: constant.value.clone(),
            };
            return Err(self.refuse(key, fault));
        }
        let value = read(&constant.value).map_err(|fault| self.refuse(key, fault))?;
        if let Some([low, high]) = &constant.range {
            let ends = read(low).and_then(|low| Ok(low..=read(high)?));
            let ends = ends.map_err(|fault| self.refuse(key, fault))?;
            if ends.is_empty() {
                let (low, high) = (low.clone(), high.clone());
                return Err(self.refuse(key, DescriptionFault::ReversedRange { key, low, high }));
            }
            if !ends.contains(&value) {
                let fault = DescriptionFault::OutsideRange {
                    key,
                    low: low.clone(),
                    high: high.clone(),
                    found: constant.value.clone(),
                };
                return Err(self.refuse(key, fault));
            }
        }
        let found = constant.value.clone();
        let (least, least_text) = dimension.least();
        let (most, most_text) = dimension.most();
        if value > most {
            let most = most_text;
            return Err(self.refuse(key, DescriptionFault::TooLarge { key, most, found }));
        }
        if value > 0.0 && value < least {
            let least = least_text;
            return Err(self.refuse(key, DescriptionFault::TooSmall { key, least, found }));
        }
        Ok(value)
    }

    pub(super) fn positive(&mut self, key: &'static str, dimension: Dimension) -> Result<f64> {
        let value = self.quantity(key, dimension)?;
        if value == 0.0 {
            return Err(self.refuse(key, DescriptionFault::Zero { key }));
        }
        Ok(value)
    }

    pub(super) fn count(&mut self, key: &'static str) -> Result<u32> {
        Ok(self.positive(key, Dimension::Count)? as u32)
    }

    /// Latencies and extra cycles may be nothing.
    pub(super) fn cycles(&mut self, key: &'static str) -> Result<Cycles> {
        Ok(Cycles(self.quantity(key, Dimension::Cycles)? as u64))
    }

    pub(super) fn seconds(&mut self, key: &'static str) -> Result<SimSeconds> {
        Ok(SimSeconds(self.quantity(key, Dimension::Seconds)?))
    }

    pub(super) fn cycle_rate(&mut self, key: &'static str) -> Result<BytesPerCycle> {
        let rate = self.positive(key, Dimension::BytesPerCycle)?;
        Ok(BytesPerCycle(rate as u64))
    }

    pub(super) fn rate(&mut self, key: &'static str) -> Result<BytesPerSecond> {
        let rate = self.positive(key, Dimension::BytesPerSecond)?;
        Ok(BytesPerSecond(rate))
    }

    pub(super) fn bytes(&mut self, key: &'static str) -> Result<Bytes> {
        Ok(Bytes(self.positive(key, Dimension::Bytes)? as u64))
    }

    /// An accounting estimate may be nothing.
    pub(super) fn estimate(&mut self, key: &'static str) -> Result<Bytes> {
        Ok(Bytes(self.quantity(key, Dimension::Bytes)? as u64))
    }

    /// Refuses the first constant that no line above has read.
    pub(super) fn refuse_leftovers(&self) -> Result<()> {
        let Some((key, entry)) = self.left.first_key_value() else {
            return Ok(());
        };
        let known: Vec<&str> = self.places.keys().copied().collect();
        Err(unknown(key, entry, &known))
    }

    /// Of constants that contradict each other, the first that the user's own file gives; else
    /// the first.
    pub(super) fn own_first<const N: usize>(&self, keys: [&'static str; N]) -> &'static str {
        let is_own =
            |key: &&str| matches!(self.places.get(*key), Some(TextPosition { base: None, .. }));
        keys.into_iter().find(is_own).unwrap_or(keys[0])
    }

    pub(super) fn multiple(
        &self,
        key: &'static str,
        value: u64,
        of: u64,
        of_what: &'static str,
    ) -> Result<()> {
        if value.is_multiple_of(of) {
            return Ok(());
        }
        Err(self.refuse(
            key,
            DescriptionFault::NotAMultiple {
                key,
                of,
                of_what,
                value,
            },
        ))
    }

    pub(super) fn at_most(
        &self,
        key: &'static str,
        value: u64,
        most: u64,
        most_what: &'static str,
    ) -> Result<()> {
        if value <= most {
            return Ok(());
        }
        Err(self.refuse(
            key,
            DescriptionFault::MoreThan {
                key,
                most,
                most_what,
                value,
            },
        ))
    }

    pub(super) fn equal(
        &self,
        key: &'static str,
        value: u64,
        expected: u64,
        expected_what: &'static str,
    ) -> Result<()> {
        if value == expected {
            return Ok(());
        }
        Err(self.refuse(
            key,
            DescriptionFault::Unequal {
                key,
                expected,
                expected_what,
                value,
            },
        ))
    }
}

/// The error of a constant that isn't among `known`.
pub(super) fn unknown(key: &str, entry: &Entry, known: &[&str]) -> SpecError {
    let name = |key: &str| key.split_once('.').map(|(_, name)| name.to_owned());
    let section = entry.constant.section();
    let is_sibling = |other: &&str| other.split_once('.').is_some_and(|(s, _)| s == section);
    let expected: Vec<&str> = known.iter().copied().filter(is_sibling).collect();
    // Misspelt, or in the wrong section.
    let misspelt = closest(key, expected.iter().copied());
    let misplaced = || known.iter().copied().find(|other| name(other) == name(key));
    SpecError::Description {
        place: entry.key_place.clone(),
        fault: Box::new(DescriptionFault::UnknownConstant {
            key: key.to_owned(),
            meant: misspelt.or_else(misplaced).map(str::to_owned),
            expected: expected.into_iter().map(str::to_owned).collect(),
        }),
    }
}

//! What if a constant of a machine were another?
//!
//! A change goes the way of a description: all constants of the machine as they are written, some
//! of them with other values, are read and checked anew. So what a file can't say, a change can't
//! either, and it is refused with the same words, without line and column.

use std::collections::BTreeMap;

use super::constant::{Constant, ConstantId, Kind};
use super::description::{Description, Entry, Origin};
use super::error::Result;
use super::quantity::{Unit, Value};
use super::{MachineSpec, resolve};

impl MachineSpec {
    /// A machine with another value of one constant, assumed and with any range.
    ///
    /// The key is a [`ConstantId`] or its text; the value is written as in a description,
    /// `"26.5 GB/s"` or `"1472"`.
    ///
    /// # Errors
    ///
    /// [`SpecError::Constant`](super::error::SpecError::Constant) where a description with this value
    /// would be refused; [`SpecError::Incomplete`](super::error::SpecError::Incomplete)
    /// for one of several constants that the machine has none of, as those of gateways.
    pub fn with(&self, key: impl AsRef<str>, value: &str) -> Result<Self> {
        self.with_all([(key, value)], Kind::Assumed, "what if")
    }

    /// A machine with other values of constants that must agree with each other, or whose values
    /// somebody else vouches for.
    ///
    /// # Errors
    ///
    /// As [`Self::with`].
    pub fn with_all<K: AsRef<str>, V: AsRef<str>>(
        &self,
        values: impl IntoIterator<Item = (K, V)>,
        kind: Kind,
        source: &str,
    ) -> Result<Self> {
        let mut entries: BTreeMap<String, Entry> = self
            .constants()
            .map(|constant| (constant.id.key().to_owned(), unchanged(&constant)))
            .collect();
        for (key, value) in values {
            let value = value.as_ref().to_owned();
            let entry = Entry {
                whole_number: value.parse::<i64>().is_ok(),
                value,
                kind,
                source: source.to_owned(),
                range: None,
                origin: Origin::Change,
            };
            entries.insert(key.as_ref().to_owned(), entry);
        }
        resolve::resolve(Description {
            name: Some(self.name.clone()),
            summary: Some(self.summary.clone()),
            entries,
        })
    }

    /// A machine with another number of IPUs, and of tiles on each, and all else as here: for tests
    /// and for what-if questions on a machine too large to look at.
    ///
    /// Everything else stays, also rates and latencies that a smaller chip would change.
    ///
    /// # Errors
    ///
    /// As [`Self::with`], where the counts don't fit the rest of the machine.
    pub fn scaled_down(&self, n_ipus: u32, tiles_per_ipu: u32) -> Result<Self> {
        let counts = [
            (ConstantId::SystemIpus, n_ipus.to_string()),
            (ConstantId::ChipTiles, tiles_per_ipu.to_string()),
        ];
        let source = format!("{} scaled down", self.name);
        let small = self.with_all(counts, Kind::Assumed, &source)?;
        let name = format!("{}-{n_ipus}x{tiles_per_ipu}", self.name);
        Ok(Self { name, ..small })
    }
}

/// A constant as the machine has it.
fn unchanged(constant: &Constant<'_>) -> Entry {
    Entry {
        value: constant.value.to_string(),
        whole_number: matches!(constant.value, Value::Quantity(value) if value.unit == Unit::ONE),
        kind: constant.kind,
        source: constant.source.to_owned(),
        range: constant.range.map(|ends| ends.map(|end| end.to_string())),
        origin: Origin::Machine,
    }
}

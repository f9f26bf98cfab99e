//! How does a description write a number, and what does it mean?
//!
//! `"624 KiB"`, `"1.325 GHz"`, `"26.5 GB/s"`, `"126 cycles"`: a decimal number, a space and a unit.
//! Decimal units shift the decimal point before the number is read, so that `"1.325 GHz"` is the
//! floating-point number nearest to 1.325e9; a number is written with the fewest digits that are
//! read as the same one. Signs and exponents aren't accepted: no constant needs them.

use std::fmt;

/// The value of a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number with its unit.
    Quantity(Quantity),
    /// One of a few words.
    Word(&'static str),
}

/// A number in the unit that it is written with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    /// The number of base units: B, cycles, s, Hz, B/cycle, B/s, or none for counts.
    pub magnitude: f64,
    /// The unit to write it with.
    pub unit: Unit,
}

/// Physical dimension of a constant, which decides the units it may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// A plain whole number.
    Count,
    /// Memory or traffic.
    Bytes,
    /// Tile cycles.
    Cycles,
    /// Time that doesn't scale with the tile clock.
    Seconds,
    /// A frequency.
    Hertz,
    /// A rate that scales with the tile clock.
    BytesPerCycle,
    /// A rate that doesn't.
    BytesPerSecond,
}

/// Fault of the value of a constant, whatever the constant means.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityFault {
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
}

/// One unit: its name, and its size as `binary * 10^decimal` base units, one of them 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    /// Name of the unit, as in a description; empty for counts.
    pub name: &'static str,
    binary: f64,
    decimal: i32,
}

const fn decimal(name: &'static str, decimal: i32) -> Unit {
    Unit {
        name,
        binary: 1.0,
        decimal,
    }
}

const fn binary(name: &'static str, doublings: u32) -> Unit {
    Unit {
        name,
        binary: (1_u64 << doublings) as f64,
        decimal: 0,
    }
}

const BYTES: &[Unit] = &[
    decimal("B", 0),
    binary("KiB", 10),
    binary("MiB", 20),
    binary("GiB", 30),
    decimal("kB", 3),
    decimal("MB", 6),
    decimal("GB", 9),
];
const CYCLES: &[Unit] = &[decimal("cycles", 0)];
const SECONDS: &[Unit] = &[
    decimal("s", 0),
    decimal("ms", -3),
    decimal("us", -6),
    decimal("ns", -9),
];
const HERTZ: &[Unit] = &[
    decimal("Hz", 0),
    decimal("kHz", 3),
    decimal("MHz", 6),
    decimal("GHz", 9),
];
const BYTES_PER_CYCLE: &[Unit] = &[decimal("B/cycle", 0)];
const BYTES_PER_SECOND: &[Unit] = &[
    decimal("B/s", 0),
    decimal("kB/s", 3),
    decimal("MB/s", 6),
    decimal("GB/s", 9),
    decimal("TB/s", 12),
];

impl Unit {
    /// Unit of counts, which is not written.
    pub const ONE: Self = decimal("", 0);

    /// What a number in this unit comes to in base units.
    fn magnitude(self, number: &str) -> Option<f64> {
        let shifted: f64 = format!("{number}e{}", self.decimal).parse().ok()?;
        Some(shifted * self.binary)
    }
}

impl Value {
    /// The number of base units; none of a word.
    #[must_use]
    pub fn magnitude(self) -> Option<f64> {
        match self {
            Self::Quantity(quantity) => Some(quantity.magnitude),
            Self::Word(_) => None,
        }
    }
}

impl Quantity {
    /// The number as it is written, in [`Self::unit`]: 13.25 of `13.25 GB/s`.
    #[must_use]
    pub fn number(self) -> f64 {
        self.digits().parse().unwrap_or(f64::NAN)
    }

    /// Another number of the same unit.
    #[must_use]
    pub fn with_number(self, number: f64) -> Self {
        let magnitude = self.unit.magnitude(&number.to_string());
        Self {
            magnitude: magnitude.unwrap_or(f64::NAN),
            ..self
        }
    }

    /// The fewest digits that, in this unit, are read as this magnitude.
    fn digits(self) -> String {
        let Self { magnitude, unit } = self;
        if unit.decimal == 0 {
            return (magnitude / unit.binary).to_string();
        }
        // The point is moved in the text, where it costs no digit.
        let text = format!("{magnitude:e}");
        let Some((mantissa, exponent)) = text.split_once('e').filter(|_| magnitude > 0.0) else {
            return magnitude.to_string();
        };
        let exponent: i32 = exponent.parse().expect("a number's exponent is a number");
        let digits = mantissa.replace('.', "");
        let point = 1 + exponent - unit.decimal;
        match usize::try_from(point) {
            Ok(point) if point >= digits.len() => format!("{digits:0<point$}"),
            Ok(point) if point > 0 => format!("{}.{}", &digits[..point], &digits[point..]),
            _ => format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize)),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.digits();
        match self.unit.name {
            "" => f.pad(&digits),
            name => f.pad(&format!("{digits} {name}")),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantity(quantity) => quantity.fmt(f),
            Self::Word(word) => f.pad(word),
        }
    }
}

impl Dimension {
    fn units(self) -> &'static [Unit] {
        match self {
            Self::Count => &[Unit::ONE],
            Self::Bytes => BYTES,
            Self::Cycles => CYCLES,
            Self::Seconds => SECONDS,
            Self::Hertz => HERTZ,
            Self::BytesPerCycle => BYTES_PER_CYCLE,
            Self::BytesPerSecond => BYTES_PER_SECOND,
        }
    }

    /// The unit in which a value is kept.
    pub(super) fn base(self) -> Unit {
        self.units()[0]
    }

    /// The units this may carry, for a message.
    #[must_use]
    pub fn unit_names(self) -> String {
        let names: Vec<&str> = self.units().iter().map(|unit| unit.name).collect();
        names.join(", ")
    }

    /// A value of this dimension as it may be written, for a message.
    #[must_use]
    pub fn example(self) -> &'static str {
        match self {
            Self::Count => "a whole number such as 1472, without quotes or unit",
            Self::Bytes => "a size such as \"624 KiB\"",
            Self::Cycles => "a time in tile cycles such as \"126 cycles\"",
            Self::Seconds => "a time such as \"15 ns\"",
            Self::Hertz => "a frequency such as \"1.325 GHz\"",
            Self::BytesPerCycle => "a rate such as \"4 B/cycle\"",
            Self::BytesPerSecond => "a rate such as \"26.5 GB/s\"",
        }
    }

    /// The unit in which a value is kept, for a message.
    #[must_use]
    pub fn base_unit(self) -> &'static str {
        match self {
            Self::Count => "units",
            _ => self.base().name,
        }
    }

    /// The smallest value but zero, in base units and for a message. Zero has a check of its own,
    /// because some constants may be zero.
    pub(super) fn least(self) -> (f64, &'static str) {
        match self {
            Self::Count => (1.0, "1"),
            Self::Bytes => (1.0, "1 B"),
            Self::Cycles => (1.0, "1 cycles"),
            Self::BytesPerCycle => (1.0, "1 B/cycle"),
            Self::Seconds => (0.0, "0 s"),
            Self::Hertz => (1e6, "1 MHz"),
            Self::BytesPerSecond => (1e6, "1 MB/s"),
        }
    }

    /// The largest value, in base units and for a message. Far beyond any machine, and small
    /// enough that no product of a few of them leaves the numbers that this program counts with.
    /// A count of IPUs is that of the largest system ever described (Graphcore, 1024 racks).
    pub(super) fn most(self) -> (f64, &'static str) {
        match self {
            Self::Count => (65_536.0, "65536"),
            Self::Bytes => ((1_u64 << 46) as f64, "65536 GiB"),
            Self::Cycles => (1e6, "1000000 cycles"),
            Self::BytesPerCycle => (65_536.0, "65536 B/cycle"),
            Self::Seconds => (60.0, "60 s"),
            Self::Hertz => (1e12, "1000 GHz"),
            Self::BytesPerSecond => (1e18, "1000000 TB/s"),
        }
    }

    /// Whether only whole numbers of the base unit make sense.
    fn whole(self) -> bool {
        match self {
            Self::Count | Self::Bytes | Self::Cycles | Self::BytesPerCycle => true,
            Self::Seconds | Self::Hertz | Self::BytesPerSecond => false,
        }
    }

    /// Reads `text` as this dimension.
    ///
    /// # Errors
    ///
    /// Says what was expected where the number or the unit isn't one, or the value isn't whole.
    pub(super) fn read(
        self,
        key: &'static str,
        text: &str,
    ) -> std::result::Result<Quantity, QuantityFault> {
        let malformed = || QuantityFault::NotAQuantity {
            key,
            expected: self,
            found: text.to_owned(),
        };
        let (number, unit) = match (self, text.split_once(' ')) {
            (Self::Count, None) => (text, Unit::ONE),
            (Self::Count, Some(_)) | (_, None) => return Err(malformed()),
            (_, Some((number, name))) => {
                let name = name.trim();
                let unit = self.units().iter().find(|unit| unit.name == name);
                let unit = unit.ok_or_else(|| QuantityFault::WrongUnit {
                    key,
                    expected: self,
                    unit: name.to_owned(),
                })?;
                (number, *unit)
            }
        };
        if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(malformed());
        }
        let magnitude = unit.magnitude(number).ok_or_else(malformed)?;
        if self.whole() && magnitude.fract() != 0.0 {
            return Err(QuantityFault::NotWhole {
                key,
                expected: self,
                found: text.to_owned(),
            });
        }
        Ok(Quantity { magnitude, unit })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(dimension: Dimension, text: &str, expected: f64) {
        let read = dimension.read("k", text).unwrap();
        assert_eq!(read.magnitude, expected, "{text}");
        assert_eq!(read.to_string(), text);
    }

    #[track_caller]
    fn refuse(dimension: Dimension, text: &str, expected: &str) {
        let fault = dimension.read("k", text).unwrap_err();
        assert_eq!(fault.to_string(), expected);
    }

    #[test]
    fn a_quantity_is_written_with_the_fewest_digits() {
        for (dimension, text, shortest) in [
            (Dimension::Seconds, "15  us ", "15 us"),
            (Dimension::Seconds, "0.50 us", "0.5 us"),
            (Dimension::Seconds, "00 us", "0 us"),
            (Dimension::Seconds, "0.000012 ms", "0.000012 ms"),
            (Dimension::Hertz, ".125 GHz", "0.125 GHz"),
            (Dimension::BytesPerSecond, "26500. MB/s", "26500 MB/s"),
            (Dimension::Bytes, "0.5 KiB", "0.5 KiB"),
            (Dimension::Count, "0012", "12"),
        ] {
            let read = dimension.read("k", text).unwrap();
            assert_eq!(read.to_string(), shortest);
            assert_eq!(dimension.read("k", shortest), Ok(read));
        }
    }

    #[test]
    fn other_numbers_of_a_unit() {
        let read = Dimension::Seconds.read("k", "0.1 us").unwrap();
        assert_eq!(read.number(), 0.1);
        let ten_times = read.with_number(10.0 * read.number());
        assert_eq!(ten_times.to_string(), "1 us");
        assert_eq!(ten_times.magnitude, 1e-6);
    }

    proptest! {
        /// Whatever number a field holds and whatever unit it is written with, it is read again.
        #[test]
        fn what_is_written_is_read(magnitude in positive(), at in any::<prop::sample::Index>()) {
            for dimension in [Dimension::Seconds, Dimension::Hertz, Dimension::BytesPerSecond] {
                let unit = *at.get(dimension.units());
                let quantity = Quantity { magnitude, unit };
                prop_assert_eq!(dimension.read("k", &quantity.to_string()), Ok(quantity));
            }
            let unit = *at.get(BYTES);
            let whole = Quantity { magnitude: magnitude.round(), unit };
            prop_assert_eq!(Dimension::Bytes.read("k", &whole.to_string()), Ok(whole));
        }
    }

    fn positive() -> impl Strategy<Value = f64> {
        prop_oneof![
            0.0..1e-3,
            0.0..1e3,
            0.0..1e13,
            (0..1_u32 << 31).prop_map(f64::from)
        ]
    }

    #[test]
    fn every_unit() {
        check(Dimension::Count, "1472", 1472.0);
        check(Dimension::Bytes, "17 B", 17.0);
        check(Dimension::Bytes, "624 KiB", 638_976.0);
        check(Dimension::Bytes, "1.5 MiB", 1_572_864.0);
        check(Dimension::Bytes, "2 GiB", 2_147_483_648.0);
        check(Dimension::Bytes, "3 kB", 3_000.0);
        check(Dimension::Bytes, "3 MB", 3.0e6);
        check(Dimension::Bytes, "256 GB", 256.0e9);
        check(Dimension::Cycles, "126 cycles", 126.0);
        check(Dimension::Seconds, "15 ns", 15e-9);
        check(Dimension::Seconds, "0.3 us", 0.3e-6);
        check(Dimension::Seconds, "2 ms", 2e-3);
        check(Dimension::Seconds, "300 s", 300.0);
        check(Dimension::Hertz, "1.325 GHz", 1.325e9);
        check(Dimension::Hertz, "1850 MHz", 1.85e9);
        check(Dimension::Hertz, "5 kHz", 5e3);
        check(Dimension::Hertz, "5 Hz", 5.0);
        check(Dimension::BytesPerCycle, "4 B/cycle", 4.0);
        check(Dimension::BytesPerSecond, "13.25 GB/s", 13.25e9);
        check(Dimension::BytesPerSecond, "1 TB/s", 1e12);
        check(Dimension::BytesPerSecond, "1 MB/s", 1e6);
        check(Dimension::BytesPerSecond, "1 kB/s", 1e3);
        check(Dimension::BytesPerSecond, "7 B/s", 7.0);
    }

    #[test]
    fn what_is_refused() {
        refuse(
            Dimension::Bytes,
            "624",
            "`k`: expected a size such as \"624 KiB\", got `624`",
        );
        refuse(
            Dimension::Bytes,
            "624 GHz",
            "`k`: expected a unit of B, KiB, MiB, GiB, kB, MB, GB, got `GHz`",
        );
        refuse(
            Dimension::Bytes,
            "0.3 B",
            "`k`: expected a whole number of B, got `0.3 B`",
        );
        refuse(
            Dimension::Seconds,
            "-3 ns",
            "`k`: expected a time such as \"15 ns\", got `-3 ns`",
        );
        refuse(
            Dimension::Hertz,
            "inf GHz",
            "`k`: expected a frequency such as \"1.325 GHz\", got `inf GHz`",
        );
        refuse(
            Dimension::Hertz,
            "1.3.2 GHz",
            "`k`: expected a frequency such as \"1.325 GHz\", got `1.3.2 GHz`",
        );
        refuse(
            Dimension::Count,
            "4 IPUs",
            "`k`: expected a whole number such as 1472, without quotes or unit, got `4 IPUs`",
        );
        refuse(
            Dimension::Cycles,
            "1.5 cycles",
            "`k`: expected a whole number of cycles, got `1.5 cycles`",
        );
    }
}

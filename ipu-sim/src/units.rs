//! Quantities as types: what is counted, and how it may be combined.
//!
//! Only arithmetic that has a meaning is defined. Simulated time is whole tile
//! [`Cycles`]; it becomes [`SimSeconds`] once, in a report, through a [`Hertz`].

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub, SubAssign};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident, $unit:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);

            /// `self - other`, or nothing where that would be negative.
            #[must_use]
            pub fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                self.0 -= other.0;
            }
        }

        impl Mul<u64> for $name {
            type Output = Self;
            fn mul(self, times: u64) -> Self {
                Self(self.0 * times)
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                Self(items.map(|item| item.0).sum())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{} ", $unit), self.0)
            }
        }
    };
}

counted!(
    /// Simulated time, in cycles of the tile clock.
    Cycles,
    "cycles"
);
counted!(
    /// An amount of memory or traffic.
    Bytes,
    "B"
);
counted!(
    /// Floating-point operations; a multiply-add counts as two.
    Flops,
    "FLOP"
);
counted!(
    /// A number of tensor elements.
    Elements,
    "elements"
);

impl Bytes {
    /// Cycles to move these bytes at `rate`, rounded up.
    #[must_use]
    pub fn div_ceil(self, rate: BytesPerCycle) -> Cycles {
        Cycles(self.0.div_ceil(rate.0))
    }

    /// The largest share when these bytes are split as evenly as possible in `shares`.
    #[must_use]
    pub fn share(self, shares: u64) -> Self {
        Self(self.0.div_ceil(shares))
    }
}

/// A rate inside a tile or on the exchange, in bytes a tile cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BytesPerCycle(pub u64);

/// A clock frequency.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hertz(pub f64);

impl Hertz {
    /// Simulated seconds that `cycles` of this clock take.
    #[must_use]
    pub fn seconds(self, cycles: Cycles) -> SimSeconds {
        SimSeconds(cycles.0 as f64 / self.0)
    }

    /// Whole cycles of this clock that cover `seconds`, rounded up.
    ///
    /// A billionth of the time is taken for the noise of floating-point sums: 10 us and 5 us are
    /// 15,000 cycles of 1 GHz, not 15,001.
    #[must_use]
    pub fn cycles(self, seconds: SimSeconds) -> Cycles {
        let cycles = seconds.0 * self.0;
        let nearest = cycles.round();
        let is_noise = (cycles - nearest).abs() <= cycles * 1e-9;
        let whole = if is_noise { nearest } else { cycles.ceil() };
        Cycles(whole as u64)
    }
}

/// A rate between chips, to the host or to streaming memory.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BytesPerSecond(pub f64);

impl BytesPerSecond {
    /// Simulated seconds to move `bytes`.
    #[must_use]
    pub fn seconds(self, bytes: Bytes) -> SimSeconds {
        SimSeconds(bytes.0 as f64 / self.0)
    }

    /// The rate of `links` of these side by side.
    #[must_use]
    pub fn side_by_side(self, links: u32) -> Self {
        Self(self.0 * f64::from(links))
    }

    /// Rate that each of `users` gets when they share this one evenly.
    #[must_use]
    pub fn shared_by(self, users: u32) -> Self {
        Self(self.0 / f64::from(users))
    }

    /// The rate that moves `bytes` in `time`.
    #[must_use]
    pub fn of(bytes: Bytes, time: SimSeconds) -> Self {
        Self(bytes.0 as f64 / time.0)
    }
}

/// Time on the simulated machine.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct SimSeconds(pub f64);

impl SimSeconds {
    /// No time.
    pub const ZERO: Self = Self(0.0);

    /// The longer of two times.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
}

impl Add for SimSeconds {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

/// Time on the machine that runs the simulator.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct HostSeconds(pub f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_cycles_round_up() {
        let clock = Hertz(1.0e9);
        assert_eq!(clock.cycles(SimSeconds(1.5e-9)), Cycles(2));
        assert_eq!(clock.cycles(SimSeconds(10e-6 + 5e-6)), Cycles(15_000));
        assert_eq!(clock.cycles(SimSeconds(15_000.1e-9)), Cycles(15_001));
        assert_eq!(clock.seconds(Cycles(1_000_000_000)), SimSeconds(1.0));
        assert_eq!(Bytes(9).div_ceil(BytesPerCycle(4)), Cycles(3));
        assert_eq!(Bytes(9).share(4), Bytes(3));
    }

    #[test]
    fn rates_are_shared_and_added() {
        let link = BytesPerSecond(13.25e9);
        assert_eq!(link.side_by_side(2), BytesPerSecond(26.5e9));
        assert_eq!(link.side_by_side(2).shared_by(4), BytesPerSecond(6.625e9));
        assert_eq!(
            BytesPerSecond::of(Bytes(100), SimSeconds(4.0)),
            BytesPerSecond(25.0)
        );
    }
}

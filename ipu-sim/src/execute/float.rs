//! How tiles round to f16, and which results stop a program.
//!
//! A tile's `$FP_CTL` has a bit for stochastic rounding, and one for every kind of result that
//! is an exception: invalid, division by zero, overflow (Tile Vertex ISA). Without exceptions, what
//! overflows f16 is NaN; see [`DType::round`].
//!
//! Stochastic rounding takes the nearer of the two neighbouring f16 numbers more often, in
//! proportion, so that the mean of many roundings is the number itself. Each worker of each tile
//! has a generator of its own, and rounds an equal part of a vertex's elements, one after the
//! other, as PopLibs cuts work. Generators start anew in every compute set, from the seed, the
//! place and how many compute sets there were: so what a worker drew before, which may depend on
//! data, changes nothing after. Replicas have equal seeds, as PopART gives them by default
//! (`IdenticalSeeds`), and so do tiles that compute copies of one box; therefore weights that
//! are equal stay equal.
//!
//! Left out: the chip's own generator, whose name no source gives (SplitMix64 stands in for it,
//! with 53 bits a rounding where the chip's number of bits is unknown); the sticky bits of
//! `$FP_STS`, which no vertex reads.

use std::cell::Cell;
use std::fmt;

use smallvec::SmallVec;

use crate::ids::{IpuId, TileId};
use crate::numerics::{DType, GOLDEN, mix};

/// Floating-point control of all tiles. By default results are rounded to nearest and nothing is
/// an exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloatControl {
    /// Whether the first [`FloatException`] ends the run.
    pub exceptions: bool,
    /// How results of type f16 are rounded; to nearest if none.
    pub stochastic_rounding: Option<StochasticRounding>,
}

/// Seeds of stochastic rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StochasticRounding {
    /// Seed of all generators.
    pub seed: u64,
    /// Generators of a tile: its workers, [`TileSpec::workers`](crate::spec::TileSpec::workers).
    pub workers: u32,
}

/// A result that is an exception, if `$FP_CTL` says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatException {
    /// No number, from operands that are numbers.
    Invalid,
    /// Infinite, from a division by zero.
    DivideByZero,
    /// Too large for its type, from finite operands.
    Overflow,
}

impl fmt::Display for FloatException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid operation",
            Self::DivideByZero => "division by zero",
            Self::Overflow => "overflow",
        })
    }
}

/// The generator of one worker: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Copy, Debug)]
struct Generator(u64);

impl Generator {
    fn new(rounding: StochasticRounding, launch: Launch, worker: u32) -> Self {
        let Launch { number, ipu, tile } = launch;
        let place = u64::from(ipu.0) << 32 | u64::from(tile.0);
        let parts = [number, place, u64::from(worker)];
        Self(parts.iter().fold(rounding.seed, |state, &part| {
            mix(state.wrapping_add(GOLDEN)) ^ part
        }))
    }

    /// A uniform number from 0, below 1.
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        (mix(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One start of the workers of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    /// Compute sets and collectives before.
    pub number: u64,
    /// Where.
    pub ipu: IpuId,
    /// Where: of tiles that hold copies of one box, the first.
    pub tile: TileId,
}

/// What was read since the last result.
#[derive(Clone, Copy, Debug, Default)]
struct Operands {
    nan: bool,
    infinite: bool,
    zero: bool,
}

/// The floating-point units of one tile while it runs one vertex.
pub(super) struct FloatUnit {
    exceptions: bool,
    /// By worker; empty if rounding is to nearest.
    generators: SmallVec<[Generator; 6]>,
    /// Elements that the workers share, and those that are done.
    elements: usize,
    done: usize,
    operands: Cell<Operands>,
}

impl FloatUnit {
    /// The units of a tile whose workers share `elements`.
    pub(super) fn new(control: FloatControl, launch: Launch, elements: usize) -> Self {
        let seeded = |rounding: StochasticRounding| {
            let workers = 0..rounding.workers;
            workers
                .map(|worker| Generator::new(rounding, launch, worker))
                .collect()
        };
        Self {
            exceptions: control.exceptions,
            generators: control.stochastic_rounding.map(seeded).unwrap_or_default(),
            elements: elements.max(1),
            done: 0,
            operands: Cell::default(),
        }
    }

    /// Takes note of an operand.
    #[inline]
    pub(super) fn note(&self, value: f64) {
        if self.exceptions {
            let seen = self.operands.get();
            self.operands.set(Operands {
                nan: seen.nan || value.is_nan(),
                infinite: seen.infinite || value.is_infinite(),
                zero: seen.zero || value == 0.0,
            });
        }
    }

    /// `value` as the worker of the current element rounds it.
    #[inline]
    pub(super) fn round(&mut self, dtype: DType, value: f64) -> Result<f64, FloatException> {
        let rounded = if self.generators.is_empty() {
            dtype.round(value)
        } else {
            let last = self.generators.len() - 1;
            let worker = self.done * self.generators.len() / self.elements;
            dtype.round_stochastically(value, self.generators[worker.min(last)].draw())
        };
        match self.exceptions && dtype != DType::U32 {
            true => self.check(value, rounded).map_or(Ok(rounded), Err),
            false => Ok(rounded),
        }
    }

    /// Goes on to the next element.
    #[inline]
    pub(super) fn next_element(&mut self) {
        self.done += 1;
        self.operands.set(Operands::default());
    }

    fn check(&self, value: f64, rounded: f64) -> Option<FloatException> {
        let seen = self.operands.get();
        if rounded.is_finite() || seen.nan {
            None
        } else if value.is_nan() {
            Some(FloatException::Invalid)
        } else if seen.infinite {
            // An infinity that was there before, or f16 has made NaN of.
            None
        } else if value.is_infinite() && seen.zero {
            Some(FloatException::DivideByZero)
        } else {
            Some(FloatException::Overflow)
        }
    }
}

#[cfg(test)]
mod tests;

//! Which types can a field for a constant have, and how are they written?

use super::Wiring;
use super::quantity::Dimension;
use crate::units::{Bytes, BytesPerCycle, BytesPerSecond, Cycles, Hertz, SimSeconds};

/// What is written for a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A number, with a unit of this dimension.
    Quantity(Dimension),
    /// One of these words.
    Word(&'static [&'static str]),
}

/// What a field holds, without its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Raw {
    /// A number of base units.
    Number(f64),
    /// A word.
    Word(&'static str),
}

/// A type of fields for constants.
pub(super) trait Field: Sized {
    /// What is written for it.
    const FORM: Form;

    /// What it holds.
    fn raw(&self) -> Raw;

    /// The field that holds this; none for what isn't of its form.
    fn of(raw: Raw) -> Option<Self>;
}

macro_rules! quantity {
    ($Type:ty, $dimension:ident, $to:expr, $of:expr) => {
        impl Field for $Type {
            const FORM: Form = Form::Quantity(Dimension::$dimension);

            fn raw(&self) -> Raw {
                let number: fn(&Self) -> f64 = $to;
                Raw::Number(number(self))
            }

            fn of(raw: Raw) -> Option<Self> {
                let field: fn(f64) -> Self = $of;
                match raw {
                    Raw::Number(number) => Some(field(number)),
                    Raw::Word(_) => None,
                }
            }
        }
    };
}

// Whole numbers are far below 2^53 (`Dimension::most`), so that they are themselves as f64.
quantity!(u32, Count, |n| f64::from(*n), |n| n as Self);
quantity!(Bytes, Bytes, |n| n.0 as f64, |n| Self(n as u64));
quantity!(Cycles, Cycles, |n| n.0 as f64, |n| Self(n as u64));
quantity!(BytesPerCycle, BytesPerCycle, |n| n.0 as f64, |n| Self(
    n as u64
));
quantity!(SimSeconds, Seconds, |n| n.0, Self);
quantity!(Hertz, Hertz, |n| n.0, Self);
quantity!(BytesPerSecond, BytesPerSecond, |n| n.0, Self);

impl Field for Wiring {
    const FORM: Form = Form::Word(&[Self::Ladder.word(), Self::Torus.word()]);

    fn raw(&self) -> Raw {
        Raw::Word(self.word())
    }

    fn of(raw: Raw) -> Option<Self> {
        let all = [Self::Ladder, Self::Torus];
        all.into_iter().find(|wiring| wiring.raw() == raw)
    }
}

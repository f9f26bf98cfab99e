//! Functions of single elements.

use super::value::{Value, count, floats};
use super::{Local, views};
use crate::ir::{BinaryFn, Shape, UnaryFn};

/// `sqrt(2 / pi)`, in the tanh form of GELU.
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
/// The cubic coefficient in the tanh form of GELU.
const GELU_CUBIC: f64 = 0.044_715;

pub(super) fn map(x: Local<'_>, function: impl Fn(f64) -> f64) -> Value {
    floats(x.floats().iter().map(|&x| function(x)).collect())
}

/// On two operands of one shape.
pub(super) fn zip(x: Local<'_>, y: Local<'_>, function: impl Fn(f64, f64) -> f64) -> Value {
    let pairs = x.floats().iter().zip(y.floats());
    floats(pairs.map(|(&x, &y)| function(x, y)).collect())
}

/// On two operands that stretch to `shape`.
pub(super) fn binary(function: BinaryFn, x: Local<'_>, y: Local<'_>, shape: &Shape) -> Value {
    let function: fn(f64, f64) -> f64 = match function {
        BinaryFn::Add => |x, y| x + y,
        BinaryFn::Sub => |x, y| x - y,
        BinaryFn::Mul => |x, y| x * y,
        BinaryFn::Div => |x, y| x / y,
        BinaryFn::Max => f64::max,
    };
    let (left, right) = (x.floats(), y.floats());
    let mut result = Vec::with_capacity(count(shape));
    let left_positions = views::stretched(x.dims(), shape.dims());
    let right_positions = views::stretched(y.dims(), shape.dims());
    for (at_left, at_right) in left_positions.into_iter().zip(right_positions) {
        result.push(function(left[at_left], right[at_right]));
    }
    floats(result)
}

pub(super) fn unary(function: UnaryFn, x: f64) -> f64 {
    match function {
        UnaryFn::Gelu => 0.5 * x * (1.0 + libm::tanh(GELU_SCALE * (x + GELU_CUBIC * x * x * x))),
        UnaryFn::GeluErf => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        UnaryFn::Tanh => libm::tanh(x),
        UnaryFn::Relu => x.max(0.0),
        UnaryFn::Exp => libm::exp(x),
        UnaryFn::Log => libm::log(x),
        UnaryFn::Sqrt => x.sqrt(),
        UnaryFn::Rsqrt => 1.0 / x.sqrt(),
        UnaryFn::Square => x * x,
        UnaryFn::Reciprocal => 1.0 / x,
        UnaryFn::Neg => -x,
        UnaryFn::Abs => x.abs(),
        UnaryFn::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
    }
}

/// The derivative at `saved`, which is the operand or the result as
/// [`saved`](crate::ir::saved) says.
pub(super) fn derivative(function: UnaryFn, saved: f64) -> f64 {
    let x = saved;
    match function {
        UnaryFn::Gelu => {
            let t = libm::tanh(GELU_SCALE * (x + GELU_CUBIC * x * x * x));
            let inner = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x);
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
        }
        UnaryFn::GeluErf => {
            let below = 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
            let density = libm::exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt();
            below + x * density
        }
        UnaryFn::Tanh => 1.0 - saved * saved,
        UnaryFn::Sigmoid => saved * (1.0 - saved),
        UnaryFn::Relu => f64::from(u8::from(x > 0.0)),
        UnaryFn::Exp => libm::exp(x),
        UnaryFn::Log => 1.0 / x,
        UnaryFn::Sqrt => 0.5 / x.sqrt(),
        UnaryFn::Rsqrt => -0.5 / (x * x.sqrt()),
        UnaryFn::Square => 2.0 * x,
        UnaryFn::Reciprocal => -1.0 / (x * x),
        UnaryFn::Neg => -1.0,
        UnaryFn::Abs => match x {
            0.0 => 0.0,
            x => x.signum(),
        },
    }
}

//! What vertices compute.
//!
//! A vertex loops over the labels of its operands (see [`crate::program::Operand`])
//! and computes one scalar expression per combination; labels that the output
//! lacks are reduced over. What a vertex costs is in [`crate::cost`].
//!
//! Expressions with one purpose, such as [`MapOp::AdamUpdater`], [`MapOp::LambUpdate`] or
//! [`MapOp::SequenceMask`], are those that PopART hands to PopLibs as one map; the codelets that
//! run for them are in [`crate::cost::vertex`]. Why a program has them is nothing to this crate.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use libm::{exp, log, sqrt, tanh};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::numerics::dropout_keep;
use crate::program::{Label, Labels};

/// Declares [`UnaryFn`]: its functions, each with its word and that of its gradient.
macro_rules! unary_functions {
    ($($(#[$doc:meta])* $function:ident = $word:literal / $gradient:literal,)*) => {
        /// Scalar functions of one argument.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            JsonSchema,
        )]
        pub enum UnaryFn { $($(#[$doc])* #[serde(rename = $word)] $function,)* }

        impl UnaryFn {
            /// Every function, in order.
            pub const ALL: &[Self] = &[$(Self::$function),*];

            /// Word for the function in text.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$function => $word),* }
            }

            /// Word for the gradient of the function in text.
            #[must_use]
            pub fn gradient_name(self) -> &'static str {
                match self { $(Self::$function => $gradient),* }
            }
        }
    };
}

unary_functions! {
    /// `-x`.
    Neg = "neg" / "neg_grad",
    /// `|x|`.
    Abs = "abs" / "abs_grad",
    /// Exponential.
    Exp = "exp" / "exp_grad",
    /// Natural logarithm.
    Log = "log" / "log_grad",
    /// `x^2`.
    Square = "square" / "square_grad",
    /// Square root.
    Sqrt = "sqrt" / "sqrt_grad",
    /// `1 / sqrt x`.
    Rsqrt = "rsqrt" / "rsqrt_grad",
    /// `1 / x`.
    Reciprocal = "reciprocal" / "reciprocal_grad",
    /// Hyperbolic tangent.
    Tanh = "tanh" / "tanh_grad",
    /// `1 / (1 + exp(-x))`.
    Sigmoid = "sigmoid" / "sigmoid_grad",
    /// `max(x, 0)`.
    Relu = "relu" / "relu_grad",
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, the form PopLibs computes.
    Gelu = "gelu" / "gelu_grad",
    /// `x/2 (1 + erf(x / sqrt 2))`, the form of models trained elsewhere.
    GeluErf = "gelu_erf" / "gelu_erf_grad",
}

/// Scalar functions of two arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinaryFn {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a * b.
    Mul,
    /// a / b.
    Div,
    /// The larger of both.
    Max,
    /// 1 where both are equal, else 0.
    Equal,
}

/// Expression of the inputs for one element; `in0`, `in1`, ... are their values there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapOp {
    /// in0, in the output's element type.
    Cast,
    /// f(in0).
    Unary(UnaryFn),
    /// f'(in0) * in1, where in0 is the function's result for tanh, sigmoid and exp and its argument otherwise.
    UnaryGrad(UnaryFn),
    /// f(in0, in1).
    Binary(BinaryFn),
    /// in0 * factor.
    Scale {
        /// The factor.
        factor: f64,
    },
    /// in0 + factor * in1.
    ScaledAdd {
        /// The factor.
        factor: f64,
    },
    /// in0 * factor + in1 * (1 - factor), or with in1 squared: a moving average.
    MovingAverage {
        /// Weight of the old value in0.
        factor: f64,
        /// Whether in1 is squared first.
        square: bool,
    },
    /// log(max(in0, epsilon)) * factor.
    ClampedLog {
        /// Lower bound of the argument.
        epsilon: f64,
        /// The factor.
        factor: f64,
    },
    /// 1 / sqrt(in1 - in0^2 + epsilon): from mean in0 and power in1.
    InverseStdDev {
        /// Added to the variance.
        epsilon: f64,
    },
    /// in0 / (1 - probability) where the mask keeps it, else 0; in1 is the seed, two words, taken whole.
    ///
    /// The mask depends on the position: the sum of index times stride over labels 0, 1, ...
    Dropout {
        /// Chance of an element to be dropped.
        probability: f64,
        /// Which mask of the seed.
        id: u32,
        /// What one step along each label adds to the position.
        strides: [u64; MAX_LABELS],
    },
    /// 1 where the index along `class` equals in0, else 0.
    OneHot {
        /// The label that is compared.
        class: Label,
    },
    /// in1 where the index along `class` equals in0, else 0.
    Pick {
        /// The label that is compared.
        class: Label,
    },
    /// Minus the index along `class` where in0 equals in1, else minus infinity: the largest
    /// of these is where in1, a maximum, comes first.
    MinusIndex {
        /// The label that is counted along.
        class: Label,
    },
    /// (in0 - onehot(in1)) * in2 along `class`; rows whose in1 is `ignore` give 0.
    SoftmaxNllGrad {
        /// The label that is compared with in1.
        class: Label,
        /// The class whose rows don't count.
        ignore: Option<u32>,
    },
    /// factor * (1 where in0 is not `ignore`, else 0).
    Counts {
        /// The class whose rows don't count.
        ignore: Option<u32>,
    },
    /// Attention mask along `position`: 0 where the token counts, else -1000.
    ///
    /// Tokens count below in0 (the sequence's length); with two inputs also if they
    /// are below in1 (the number of masked tokens) or not below `first`.
    SequenceMask {
        /// The label of the position in the sequence.
        position: Label,
        /// Positions in front that hold masked tokens.
        first: u32,
    },
    /// Adam's direction from moments in0 and in1: m/(sqrt(v)+epsilon) + decay*w.
    ///
    /// The weight is the next input if there is decay. With `correction` (beta1, beta2),
    /// the last input is the step count and both moments are corrected.
    AdamUpdater {
        /// Added to the denominator.
        epsilon: f64,
        /// Weight decay, if the weight is an input.
        decay: Option<f64>,
        /// Both betas where bias is corrected.
        correction: Option<(f64, f64)>,
    },
    /// first * in0 + second * in1.
    Blend {
        /// Factor of in0.
        first: f64,
        /// Factor of in1.
        second: f64,
    },
    /// in0 - in2 * (scale * in1 + decay * in0): weight, gradient or velocity, learning rate.
    Descend {
        /// Factor of the gradient.
        scale: f64,
        /// Weight decay.
        decay: f64,
    },
    /// LAMB's step: in0 - in4 * ratio * in1 with ratio from squared norms in2 (weight) and in3 (direction).
    LambUpdate {
        /// Upper limit of the weight's norm.
        max_weight_norm: f64,
    },
    /// in0 + addend, modulo `modulus` if it isn't 0.
    Count {
        /// Added.
        addend: u32,
        /// Where counting starts again.
        modulus: u32,
    },
}

/// How elements of labels that the output lacks are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceOp {
    /// Sum.
    Sum,
    /// Sum of squares.
    SquareSum,
    /// Largest.
    Max,
}

/// How the supervisor loads coefficients into the matrix unit.
///
/// The rates are those of [`AmpSpec`](crate::spec::AmpSpec).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum WeightLoad {
    /// 64 bits at a time (`ld64putcs`), from anywhere.
    #[default]
    Bits64,
    /// 128 bits at a time (`ld128putcs`), from interleaved memory only.
    Bits128,
}

/// Which codelet computes a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatMulMethod {
    /// The matrix unit, blocks of channels in filling its chains.
    Amp {
        /// Units in use.
        units: u32,
        /// How coefficients get into them.
        load: WeightLoad,
    },
    /// The matrix unit, with rows of a kernel where channels in don't fill its chains.
    AmpNx1 {
        /// Units in use.
        units: u32,
        /// Rows of the kernel that a chain holds; those of a product but the first are zeros.
        rows: u32,
        /// How coefficients get into the units. [`Self::AMP_ROWS_MAX`] rows come from as many
        /// places, so that only loads of 64 bits take them.
        load: WeightLoad,
    },
    /// Dot products along channels in.
    HorizontalMac,
    /// Groups side by side, each of one channel in and out.
    VerticalMac {
        /// Groups at once.
        groups: u32,
    },
    /// One channel in.
    OuterProduct,
    /// The matrix unit, a window of which one element of four is the product's.
    Slic {
        /// Groups at once.
        groups: u32,
        /// Chains in use.
        chains: u32,
    },
}

impl MatMulMethod {
    /// Rows of a kernel that fill a chain with single vectors.
    pub const AMP_ROWS_MAX: u32 = 4;

    /// Whether its coefficients must lie in interleaved memory.
    #[must_use]
    pub fn needs_interleaved_coefficients(self) -> bool {
        match self {
            Self::Amp { load, .. } => load == WeightLoad::Bits128,
            Self::AmpNx1 { load, rows, .. } => {
                load == WeightLoad::Bits128 && rows != Self::AMP_ROWS_MAX
            }
            Self::HorizontalMac
            | Self::VerticalMac { .. }
            | Self::OuterProduct
            | Self::Slic { .. } => false,
        }
    }

    /// Name of the vertex in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amp { .. } => "AMP",
            Self::AmpNx1 { .. } => "AMP nx1",
            Self::HorizontalMac => "horizontal MAC",
            Self::VerticalMac { .. } => "vertical MAC",
            Self::OuterProduct => "outer product",
            Self::Slic { .. } => "SLIC",
        }
    }

    /// Groups that it works on at once.
    #[must_use]
    pub fn groups_at_once(self) -> u32 {
        match self {
            Self::VerticalMac { groups } | Self::Slic { groups, .. } => groups,
            Self::Amp { .. } | Self::AmpNx1 { .. } | Self::HorizontalMac | Self::OuterProduct => 1,
        }
    }
}

/// A step with the state of the workers' random-number generators.
///
/// Masks of [`MapOp::Dropout`] come from the seed alone, so no value depends on that state: what is
/// saved are zeros, and the other two leave their operand, input and output, as it is. They stand
/// for the time and the memory of PopLibs' `poprand`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerSeeds {
    /// To memory: [`Self::WORDS`] for each worker.
    Save,
    /// From a seed.
    Set,
    /// From what was saved.
    Restore,
}

impl WorkerSeeds {
    /// Words of one worker's state.
    pub const WORDS: u32 = 4;
}

/// A vertex: what it computes on one tile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Vertex {
    /// Matrix product: out[g.., x, o] = sum over k of in0[g.., x, k] * in1[g.., k, o].
    MatMul {
        /// The instructions that do it.
        method: MatMulMethod,
        /// Group labels.
        groups: Labels,
        /// x: the field.
        field: Label,
        /// k: input channels.
        input: Label,
        /// o: output channels.
        output: Label,
        /// Input channels of one block.
        input_group: u32,
        /// Output channels of one block.
        output_group: u32,
    },
    /// Sum of partial results over `over`, the outermost label of in0.
    ReducePartials {
        /// The label of the partial results.
        over: Label,
    },
    /// One result per element.
    Map(MapOp),
    /// Reduction over the labels that the output lacks, times `scale`.
    Reduce {
        /// How values are joined.
        op: ReduceOp,
        /// Applied to the result.
        scale: f64,
    },
    /// The same elements, possibly in another storage order.
    Copy,
    /// The same elements, fragments from several tiles put into the order that is read next.
    Assemble,
    /// A constant everywhere.
    Fill(f64),
    /// What random numbers take before they are drawn and after, on the state of all workers.
    WorkerSeeds(WorkerSeeds),
    /// `out[n.., h..] = in0[row = in1[n] - first_row, h..]`, or 0 if no row of this tile has that index.
    MultiSlice {
        /// The label of the table's rows.
        row: Label,
        /// Index of the table's row 0.
        first_row: u32,
    },
    /// `out[row, h..] += scale * sum` over n with `in1[n] - first_row = row` of `in0[n, h..]`.
    MultiUpdateAdd {
        /// The label of the table's rows.
        row: Label,
        /// Index of the table's row 0.
        first_row: u32,
        /// Factor of what is added.
        scale: f64,
    },
    /// out[..] = in0[slot = in1, ..]; in1 is a scalar.
    DynamicSlice {
        /// The label of the sliced axis.
        slot: Label,
    },
    /// out[slot = in1, ..] = in0[..]; other slots keep their values; in1 is a scalar.
    DynamicUpdate {
        /// The label of the sliced axis.
        slot: Label,
    },
}

/// Where an element lies: what position-dependent expressions need.
pub trait Position {
    /// Index along a label in the whole tensor.
    fn index(&self, label: Label) -> u32;
}

/// Labels that a position-dependent vertex can have.
pub const MAX_LABELS: usize = 6;

impl UnaryFn {
    /// f(x).
    #[must_use]
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::Neg => -x,
            Self::Abs => x.abs(),
            Self::Exp => exp(x),
            Self::Log => log(x),
            Self::Square => x * x,
            Self::Sqrt => sqrt(x),
            Self::Rsqrt => 1.0 / sqrt(x),
            Self::Reciprocal => 1.0 / x,
            Self::Tanh => tanh(x),
            Self::Sigmoid => 1.0 / (1.0 + exp(-x)),
            Self::Relu => x.max(0.0),
            Self::Gelu => 0.5 * x * (1.0 + tanh(gelu_inner(x))),
            Self::GeluErf => 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
        }
    }

    /// f'(x); for tanh, sigmoid and exp from the function's result instead of x.
    #[must_use]
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            Self::Neg => -1.0,
            Self::Abs => match x {
                0.0 => 0.0,
                x => x.signum(),
            },
            Self::Exp => x,
            Self::Log => 1.0 / x,
            Self::Square => 2.0 * x,
            Self::Sqrt => 0.5 / sqrt(x),
            Self::Rsqrt => -0.5 / (x * sqrt(x)),
            Self::Reciprocal => -1.0 / (x * x),
            Self::Tanh => 1.0 - x * x,
            Self::Sigmoid => x * (1.0 - x),
            Self::Relu => f64::from(u8::from(x > 0.0)),
            Self::Gelu => {
                let t = tanh(gelu_inner(x));
                let slope = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
            }
            Self::GeluErf => {
                let density = exp(-0.5 * x * x) * FRAC_2_SQRT_PI * 0.5 * FRAC_1_SQRT_2;
                0.5 * (1.0 + libm::erf(x * FRAC_1_SQRT_2)) + x * density
            }
        }
    }
}

/// sqrt(2 / pi), of the tanh form of GELU (Hendrycks and Gimpel, arXiv 1606.08415).
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
/// Cubic coefficient of the tanh form of GELU (same source).
const GELU_CUBIC: f64 = 0.044_715;

fn gelu_inner(x: f64) -> f64 {
    GELU_SCALE * (x + GELU_CUBIC * x * x * x)
}

impl BinaryFn {
    /// f(a, b).
    #[must_use]
    pub fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Max => a.max(b),
            Self::Equal => f64::from(u8::from(a == b)),
        }
    }
}

impl MapOp {
    /// The result for one element.
    #[must_use]
    pub fn apply(&self, input: &[f64], position: &dyn Position) -> f64 {
        let at = |label: Label| f64::from(position.index(label));
        match *self {
            Self::Cast => input[0],
            Self::Unary(f) => f.apply(input[0]),
            Self::UnaryGrad(f) => f.derivative(input[0]) * input[1],
            Self::Binary(f) => f.apply(input[0], input[1]),
            Self::Scale { factor } => input[0] * factor,
            Self::ScaledAdd { factor } => input[0] + factor * input[1],
            Self::MovingAverage { factor, square } => {
                let value = if square {
                    input[1] * input[1]
                } else {
                    input[1]
                };
                input[0] * factor + value * (1.0 - factor)
            }
            Self::ClampedLog { epsilon, factor } => log(input[0].max(epsilon)) * factor,
            Self::InverseStdDev { epsilon } => 1.0 / sqrt(input[1] - input[0] * input[0] + epsilon),
            Self::Dropout {
                probability,
                id,
                strides,
            } => {
                let seed = [input[1] as u32, input[2] as u32];
                let place = strides
                    .iter()
                    .enumerate()
                    .filter(|&(_, &stride)| stride != 0)
                    .map(|(label, stride)| u64::from(position.index(Label(label as u8))) * stride)
                    .sum();
                if dropout_keep(seed, id, place, probability) {
                    input[0] / (1.0 - probability)
                } else {
                    0.0
                }
            }
            Self::OneHot { class } => f64::from(u8::from(at(class) == input[0])),
            Self::Pick { class } if at(class) == input[0] => input[1],
            Self::Pick { .. } => 0.0,
            Self::MinusIndex { class } if input[0] == input[1] => -at(class),
            Self::MinusIndex { .. } => f64::NEG_INFINITY,
            Self::SoftmaxNllGrad { class, ignore } => {
                if ignore.is_some_and(|ignore| input[1] == f64::from(ignore)) {
                    return 0.0;
                }
                let target = f64::from(u8::from(at(class) == input[1]));
                (input[0] - target) * input[2]
            }
            Self::Counts { ignore } => f64::from(u8::from(
                ignore.is_none_or(|ignore| input[0] != f64::from(ignore)),
            )),
            Self::SequenceMask { position: p, first } => {
                let position = at(p);
                let kept = input
                    .get(1)
                    .is_none_or(|&tokens| position < tokens || position >= f64::from(first));
                if kept && position < input[0] {
                    0.0
                } else {
                    -1000.0
                }
            }
            Self::AdamUpdater {
                epsilon,
                decay,
                correction,
            } => {
                let step = input[input.len() - 1];
                let (m, v) = match correction {
                    Some((beta1, beta2)) => (
                        input[0] / (1.0 - libm::pow(beta1, step)),
                        input[1] / (1.0 - libm::pow(beta2, step)),
                    ),
                    None => (input[0], input[1]),
                };
                m / (sqrt(v) + epsilon) + decay.map_or(0.0, |decay| decay * input[2])
            }
            Self::Blend { first, second } => first * input[0] + second * input[1],
            Self::Descend { scale, decay } => {
                input[0] - input[2] * (scale * input[1] + decay * input[0])
            }
            Self::LambUpdate { max_weight_norm } => {
                let (weight, direction) = (input[2], input[3]);
                let ratio = if weight == 0.0 || direction == 0.0 || max_weight_norm == 0.0 {
                    1.0
                } else {
                    sqrt(weight).min(max_weight_norm) / sqrt(direction)
                };
                input[0] - input[4] * ratio * input[1]
            }
            Self::Count { addend, modulus } => {
                let next = input[0] + f64::from(addend);
                if modulus == 0 {
                    next
                } else {
                    next % f64::from(modulus)
                }
            }
        }
    }
}

impl ReduceOp {
    /// The value before anything was joined.
    #[must_use]
    pub fn identity(self) -> f64 {
        match self {
            Self::Sum | Self::SquareSum => 0.0,
            Self::Max => f64::NEG_INFINITY,
        }
    }

    /// `value` joined to `total`.
    #[must_use]
    pub fn join(self, total: f64, value: f64) -> f64 {
        match self {
            Self::Sum => total + value,
            Self::SquareSum => total + value * value,
            Self::Max => total.max(value),
        }
    }
}

/// Labels from their numbers.
#[must_use]
pub fn labels(numbers: &[u8]) -> Labels {
    numbers
        .iter()
        .map(|&number| Label(number))
        .collect::<SmallVec<_>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(u32);
    impl Position for At {
        fn index(&self, _: Label) -> u32 {
            self.0
        }
    }

    #[test]
    fn derivatives_agree_with_differences() {
        let results = [UnaryFn::Tanh, UnaryFn::Sigmoid, UnaryFn::Exp];
        for f in [
            UnaryFn::Neg,
            UnaryFn::Abs,
            UnaryFn::Exp,
            UnaryFn::Log,
            UnaryFn::Square,
            UnaryFn::Sqrt,
            UnaryFn::Rsqrt,
            UnaryFn::Reciprocal,
            UnaryFn::Tanh,
            UnaryFn::Sigmoid,
            UnaryFn::Relu,
            UnaryFn::Gelu,
            UnaryFn::GeluErf,
        ] {
            let (x, h) = (0.7, 1e-6);
            let difference = (f.apply(x + h) - f.apply(x - h)) / (2.0 * h);
            let argument = if results.contains(&f) { f.apply(x) } else { x };
            let error = (f.derivative(argument) - difference).abs();
            assert!(error < 1e-8, "{f:?}: {error}");
        }
    }

    #[test]
    fn masks_hide_tokens_past_the_end_and_unused_front_slots() {
        let mask = MapOp::SequenceMask {
            position: Label(0),
            first: 4,
        };
        // Length 8, two of four front slots used.
        let row: Vec<f64> = (0..10).map(|at| mask.apply(&[8.0, 2.0], &At(at))).collect();
        let hidden = -1000.0;
        assert_eq!(
            row,
            [0.0, 0.0, hidden, hidden, 0.0, 0.0, 0.0, 0.0, hidden, hidden]
        );
    }

    #[test]
    fn lamb_ratio_is_one_for_zero_norms() {
        let lamb = MapOp::LambUpdate {
            max_weight_norm: 65504.0,
        };
        assert_eq!(lamb.apply(&[1.0, 0.5, 0.0, 4.0, 0.1], &At(0)), 0.95);
        assert_eq!(lamb.apply(&[1.0, 0.5, 16.0, 4.0, 0.1], &At(0)), 0.9);
    }
}

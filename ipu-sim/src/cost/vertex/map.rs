//! Maps: which codelet computes one result per element, and at what cost.
//!
//! | expression | law |
//! | --- | --- |
//! | one operation on whole operands of one type | `UnaryOp1D`, `BinaryOp1D`, in place or not |
//! | ... with an operand that lacks labels | `BroadcastScalar1D`, `BroadcastVectorInner1D`, `BroadcastVectorOuter*1D` |
//! | GELU in its tanh form and gradients of activations | popnn's; GELU into a new tensor copies first |
//! | `ScaledAdd`, `Blend`, `Descend`, `LambUpdate` in place | scaled sum |
//! | `Cast`, `Dropout`, `InverseStdDev` | their own |
//! | `OneHot`, `Pick`, `SoftmaxNllGrad` | zero, encode, then what is left as a fused map |
//! | everything else: moments, updaters, mixed types | fused map: all operations, one load for each operand, one store |
//!
//! Where an operand lacks labels, its place in the output's storage decides: if it has the
//! innermost loop, it is a vector along it; if not, each of its values meets a run of
//! elements. Inside fused maps, operands of the second kind stay in registers.

use smallvec::SmallVec;

use super::storage::loops;
use super::{OperandSize, VertexSizes};
use crate::cost::elementwise::Destination;
use crate::cost::elementwise::binary::{BinaryOp, binary_1d};
use crate::cost::elementwise::broadcast::{
    Alignment, Matrix, broadcast_outer_by_column, broadcast_outer_by_row, broadcast_scalar_1d,
};
use crate::cost::elementwise::cast::cast;
use crate::cost::elementwise::fused::{self, MapExpression, MapOp as Op};
use crate::cost::elementwise::nonlinearity::{
    NonLinearity, NonLinearityGrad, nonlinearity, nonlinearity_grad,
};
use crate::cost::elementwise::pointwise::inverse_std_dev;
use crate::cost::elementwise::scaled_add::{
    OperandMemory, Scale, ScaledAdd, ScaledForm, scaled_add_1d,
};
use crate::cost::elementwise::unary::{UnaryOp, unary_1d};
use crate::cost::elementwise::vector_inner::{VectorInner, VectorInnerOp, vector_inner};
use crate::cost::memory;
use crate::cost::random::dropout;
use crate::cost::reduce::class::one_hot;
use crate::numerics::DType;
use crate::program::Label;
use crate::spec::TileSpec;
use crate::units::Cycles;
use crate::vertex::{BinaryFn, MapOp, UnaryFn};

const ADD: Op = Op::Binary(BinaryOp::Add);
const SUBTRACT: Op = Op::Binary(BinaryOp::Subtract);
const MULTIPLY: Op = Op::Binary(BinaryOp::Multiply);
const DIVIDE: Op = Op::Binary(BinaryOp::Divide);
const MAXIMUM: Op = Op::Binary(BinaryOp::Maximum);
const SQRT: Op = Op::Unary(UnaryOp::Sqrt);

/// How an input meets the elements of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meets {
    /// One value each.
    Whole,
    /// One value for all.
    Scalar,
    /// A vector along the innermost loop.
    Inner(VectorInner),
    /// Rows of elements with one value for each row.
    Outer(Matrix),
}

/// Tile cycles of a map.
pub(super) fn cycles(op: &MapOp, sizes: &VertexSizes<'_>, spec: &TileSpec) -> Cycles {
    let map = Map::new(sizes, spec);
    let (n, dtype) = (map.elements, sizes.output.dtype);
    match *op {
        MapOp::Cast => map.cast(),
        MapOp::Unary(f) => map.unary(f),
        MapOp::UnaryGrad(f) => map.unary_grad(f),
        MapOp::Binary(f) => map.binary(f),
        MapOp::Scale { .. } if map.is_uniform() && map.is_float() => {
            broadcast_scalar_1d(BinaryOp::Multiply, dtype, map.destination(), n, spec)
        }
        MapOp::Scale { .. } => map.fused(&[(MULTIPLY, 1)]),
        MapOp::ScaledAdd { .. } => {
            map.scaled(ScaledForm::Add, Scale::Constant, &[(MULTIPLY, 1), (ADD, 1)])
        }
        MapOp::MovingAverage { square, .. } => {
            let squares = u64::from(square);
            map.fused(&[
                (MULTIPLY, 2),
                (ADD, 1),
                (Op::Unary(UnaryOp::Square), squares),
            ])
        }
        MapOp::ClampedLog { .. } => {
            map.fused(&[(MAXIMUM, 1), (Op::Unary(UnaryOp::Log), 1), (MULTIPLY, 1)])
        }
        MapOp::InverseStdDev { .. } => {
            let share = n.div_ceil(u64::from(spec.workers));
            inverse_std_dev(&[share], spec).on_tile(spec)
        }
        MapOp::Dropout { .. } => dropout(dtype, n, spec),
        MapOp::OneHot { class } => map.one_hot(class),
        // NLL: one-hot rows times probabilities.
        MapOp::Pick { class } => map.one_hot(class) + map.fused(&[(MULTIPLY, 1)]),
        // The index is a loop counter.
        MapOp::MinusIndex { .. } => map.fused(&[(Op::Binary(BinaryOp::Equal), 1), (Op::Select, 1)]),
        // Probabilities minus one-hot rows, times the loss's gradient.
        MapOp::SoftmaxNllGrad { class, .. } => {
            map.one_hot(class) + map.fused(&[(SUBTRACT, 1), (MULTIPLY, 1)])
        }
        MapOp::Counts { .. } => map.compares(1) + map.fused(&[(MULTIPLY, 1)]),
        // One comparison of the position for each bound, one for the slots in front.
        MapOp::SequenceMask { .. } => {
            let bounds = if sizes.inputs.len() > 1 { 3 } else { 1 };
            map.compares(bounds) + map.fused(&[(SUBTRACT, 1), (MULTIPLY, 1)])
        }
        MapOp::AdamUpdater {
            decay, correction, ..
        } => {
            let decays = u64::from(decay.is_some());
            let corrections = 2 * u64::from(correction.is_some());
            map.fused(&[
                (SQRT, 1),
                (DIVIDE, 1),
                (ADD, 1 + decays),
                // Corrections are reciprocals of scalars, worked out once.
                (MULTIPLY, decays + corrections),
            ])
        }
        MapOp::Blend { .. } => map.scaled(
            ScaledForm::AxPlusBy,
            Scale::Constant,
            &[(MULTIPLY, 2), (ADD, 1)],
        ),
        MapOp::Descend { decay: 0.0, .. } => map.scaled(
            ScaledForm::Subtract,
            Scale::Tensor,
            &[(MULTIPLY, 1), (SUBTRACT, 1)],
        ),
        MapOp::Descend { .. } => map.fused(&[(MULTIPLY, 3), (ADD, 1), (SUBTRACT, 1)]),
        MapOp::LambUpdate { .. } => map.lamb(),
        MapOp::Count { modulus, .. } => {
            let add = binary_1d(BinaryOp::Add, dtype, map.destination(), n, spec);
            let again = (modulus > 0)
                .then(|| binary_1d(BinaryOp::Remainder, dtype, map.destination(), n, spec));
            add + again.unwrap_or(Cycles::ZERO)
        }
    }
}

/// A map on one tile.
struct Map<'a, 's> {
    sizes: &'a VertexSizes<'s>,
    spec: &'a TileSpec,
    elements: u64,
    /// By input.
    meets: SmallVec<[Meets; 5]>,
}

impl<'a, 's> Map<'a, 's> {
    fn new(sizes: &'a VertexSizes<'s>, spec: &'a TileSpec) -> Self {
        let inputs = sizes.inputs.iter();
        Self {
            sizes,
            spec,
            elements: sizes.output.elements(),
            meets: inputs.map(|input| meets(&sizes.output, input)).collect(),
        }
    }

    fn destination(&self) -> Destination {
        match self.sizes.in_place {
            Some(_) => Destination::InPlace,
            None => Destination::New,
        }
    }

    /// Whether all operands have the output's element type.
    fn is_uniform(&self) -> bool {
        let dtype = self.sizes.output.dtype;
        self.sizes.inputs.iter().all(|input| input.dtype == dtype)
    }

    fn is_float(&self) -> bool {
        self.sizes.output.dtype != DType::U32
    }

    /// All operations in one pass; in the output's element type, or f32 for integers.
    fn fused(&self, ops: &[(Op, u64)]) -> Cycles {
        let compute = match self.sizes.output.dtype {
            DType::F16 => DType::F16,
            DType::F32 | DType::U32 => DType::F32,
        };
        let inputs = self.sizes.inputs.iter().zip(&self.meets);
        let loaded: SmallVec<[DType; 5]> = inputs
            .filter(|(_, meets)| matches!(meets, Meets::Whole | Meets::Inner(_)))
            .map(|(input, _)| input.dtype)
            .collect();
        let expression = MapExpression {
            compute,
            inputs: &loaded,
            outputs: &[self.sizes.output.dtype],
            ops,
        };
        fused::map(&expression, self.elements, self.spec)
    }

    /// A broadcast is a copy of each value to its elements.
    fn cast(&self) -> Cycles {
        let (from, to) = (self.sizes.inputs[0].dtype, self.sizes.output.dtype);
        if from == to {
            return memory::copy(to.size() * self.elements, self.spec);
        }
        match self.meets[0] {
            Meets::Whole => cast(from, to, self.elements, self.spec),
            Meets::Scalar | Meets::Inner(_) | Meets::Outer(_) => {
                cast(from, to, self.sizes.inputs[0].elements(), self.spec)
                    + memory::copy(to.size() * self.elements, self.spec)
            }
        }
    }

    fn unary(&self, f: UnaryFn) -> Cycles {
        let dtype = self.sizes.output.dtype;
        match unary_codelet(f) {
            UnaryCodelet::Popops(op) if self.is_uniform() && self.is_float() => {
                unary_1d(op, dtype, self.destination(), self.elements, self.spec)
            }
            UnaryCodelet::Popops(op) => self.fused(&[(Op::Unary(op), 1)]),
            // popnn works in place.
            UnaryCodelet::PopnnGelu if self.is_uniform() && self.is_float() => {
                let copied = match self.destination() {
                    Destination::InPlace => Cycles::ZERO,
                    Destination::New => memory::copy(dtype.size() * self.elements, self.spec),
                };
                copied + nonlinearity(NonLinearity::Gelu, dtype, self.elements, self.spec)
            }
            // In mixed types, through its own tanh: 6 products and sums around it.
            UnaryCodelet::PopnnGelu => {
                self.fused(&[(Op::Unary(UnaryOp::Tanh), 1), (MULTIPLY, 4), (ADD, 2)])
            }
        }
    }

    fn unary_grad(&self, f: UnaryFn) -> Cycles {
        let popnn = match f {
            UnaryFn::Tanh => Some(NonLinearityGrad::Tanh),
            UnaryFn::Sigmoid => Some(NonLinearityGrad::Sigmoid),
            UnaryFn::Relu => Some(NonLinearityGrad::Relu),
            UnaryFn::Gelu => Some(NonLinearityGrad::Gelu),
            UnaryFn::GeluErf => Some(NonLinearityGrad::GeluErf),
            UnaryFn::Neg
            | UnaryFn::Abs
            | UnaryFn::Exp
            | UnaryFn::Log
            | UnaryFn::Square
            | UnaryFn::Sqrt
            | UnaryFn::Rsqrt
            | UnaryFn::Reciprocal => None,
        };
        if let Some(op) = popnn
            && self.is_uniform()
            && self.is_float()
        {
            return nonlinearity_grad(op, self.sizes.output.dtype, self.elements, self.spec);
        }
        // The derivative, times the gradient that comes in.
        let inverse = Op::Unary(UnaryOp::Inverse);
        let rsqrt = Op::Unary(UnaryOp::ReciprocalSqrt);
        match f {
            UnaryFn::Neg => self.fused(&[(Op::Unary(UnaryOp::Negate), 1)]),
            UnaryFn::Abs => self.fused(&[(Op::Unary(UnaryOp::Signum), 1), (MULTIPLY, 1)]),
            UnaryFn::Exp => self.fused(&[(MULTIPLY, 1)]),
            UnaryFn::Log => self.fused(&[(DIVIDE, 1)]),
            UnaryFn::Square => self.fused(&[(MULTIPLY, 2)]),
            UnaryFn::Sqrt => self.fused(&[(rsqrt, 1), (MULTIPLY, 2)]),
            UnaryFn::Rsqrt => self.fused(&[(rsqrt, 1), (DIVIDE, 1), (MULTIPLY, 2)]),
            UnaryFn::Reciprocal => self.fused(&[(inverse, 1), (MULTIPLY, 3)]),
            UnaryFn::Tanh | UnaryFn::Sigmoid => self.fused(&[(MULTIPLY, 2), (SUBTRACT, 1)]),
            UnaryFn::Relu => self.fused(&[(Op::Select, 1)]),
            UnaryFn::Gelu => self.fused(&[(Op::Unary(UnaryOp::Tanh), 1), (MULTIPLY, 8), (ADD, 4)]),
            UnaryFn::GeluErf => self.fused(&[
                (Op::Unary(UnaryOp::Erf), 1),
                (Op::Unary(UnaryOp::Exp), 1),
                (MULTIPLY, 5),
                (ADD, 2),
            ]),
        }
    }

    fn binary(&self, f: BinaryFn) -> Cycles {
        let op = binary_op(f);
        let (dtype, spec) = (self.sizes.output.dtype, self.spec);
        let destination = self.destination();
        let vector_op = vector_op(f).filter(|_| self.is_float());
        match (self.meets[0], self.meets[1]) {
            _ if !self.is_uniform() => self.mixed_binary(op),
            (Meets::Whole, Meets::Whole) => binary_1d(op, dtype, destination, self.elements, spec),
            (Meets::Whole, Meets::Scalar) if self.is_float() => {
                broadcast_scalar_1d(op, dtype, destination, self.elements, spec)
            }
            (Meets::Whole, Meets::Inner(vector)) => match vector_op {
                Some(op) => vector_inner(op, dtype, destination, vector, spec),
                None => self.mixed_binary(op),
            },
            (Meets::Whole, Meets::Outer(matrix)) => match vector_op {
                Some(VectorInnerOp::Divide) | None => self.mixed_binary(op),
                Some(VectorInnerOp::Add | VectorInnerOp::Subtract | VectorInnerOp::Multiply) => {
                    outer(op, dtype, matrix, spec)
                }
            },
            _ => self.mixed_binary(op),
        }
    }

    /// Forms that popops has no vertex for; integers take the one of whole operands.
    fn mixed_binary(&self, op: BinaryOp) -> Cycles {
        if self.is_float() {
            self.fused(&[(Op::Binary(op), 1)])
        } else {
            binary_1d(op, DType::U32, self.destination(), self.elements, self.spec)
        }
    }

    /// A scaled sum over in0, or the same as a fused map.
    fn scaled(&self, form: ScaledForm, scale: Scale, ops: &[(Op, u64)]) -> Cycles {
        let (a, b) = (self.sizes.output.dtype, self.sizes.inputs[1].dtype);
        let exists = self.sizes.in_place == Some(0)
            && self.meets[1] == Meets::Whole
            && self.is_float()
            && b != DType::U32
            && (a == b || form == ScaledForm::Add);
        if !exists {
            return self.fused(ops);
        }
        let sum = ScaledAdd {
            form,
            a,
            b,
            scale,
            memory: OperandMemory::Any,
        };
        scaled_add_1d(sum, self.elements, self.spec)
    }

    /// The ratio of norms as one map of scalars, then a scaled sum (PopART, LAMB's update).
    fn lamb(&self) -> Cycles {
        let ratio = MapExpression {
            compute: DType::F32,
            inputs: &[DType::F32; 3],
            outputs: &[DType::F32],
            ops: &[
                (SQRT, 2),
                (Op::Binary(BinaryOp::Minimum), 1),
                (DIVIDE, 1),
                (MULTIPLY, 1),
                (Op::Select, 2),
            ],
        };
        fused::map(&ratio, 1, self.spec)
            + self.scaled(
                ScaledForm::Subtract,
                Scale::Tensor,
                &[(MULTIPLY, 1), (SUBTRACT, 1)],
            )
    }

    /// Zeros, and a one in each row along `class`.
    fn one_hot(&self, class: Label) -> Cycles {
        let (dtype, spec) = (self.sizes.output.dtype, self.spec);
        let row = self.sizes.output.extent(class).unwrap_or(1);
        memory::fill(dtype, self.elements, spec) + one_hot(dtype, self.elements / row, spec)
    }

    /// Comparisons of indices or labels.
    fn compares(&self, count: u64) -> Cycles {
        let one = binary_1d(
            BinaryOp::Less,
            DType::U32,
            Destination::New,
            self.elements,
            self.spec,
        );
        one * count
    }
}

/// How `input` meets the elements of `output`.
fn meets(output: &OperandSize<'_>, input: &OperandSize<'_>) -> Meets {
    let varies = |label: &Label| input.varies_along(*label);
    let stored = loops(output);
    if stored.iter().all(|run| varies(&run.label)) {
        return Meets::Whole;
    }
    let shared = output.labels.iter().zip(output.extents);
    let values: u64 = shared
        .filter(|(label, _)| varies(label))
        .map(|(_, &extent)| u64::from(extent))
        .product();
    let others = output.elements() / values;
    match stored.last() {
        _ if values == 1 => Meets::Scalar,
        Some(innermost) if varies(&innermost.label) => Meets::Inner(VectorInner {
            length: values,
            repeats: others,
        }),
        _ => Meets::Outer(Matrix {
            rows: values,
            columns: others,
        }),
    }
}

/// By column for few rows, by row for many: popops takes what keeps all workers busy.
fn outer(op: BinaryOp, dtype: DType, matrix: Matrix, spec: &TileSpec) -> Cycles {
    let alignment = if matrix
        .columns
        .is_multiple_of(spec.vector_width(dtype.size()))
    {
        Alignment::Aligned
    } else {
        Alignment::Unaligned
    };
    let by_column = broadcast_outer_by_column(op, dtype, alignment, matrix, spec);
    let by_row = broadcast_outer_by_row(op, dtype, alignment, matrix, spec);
    by_column.min(by_row)
}

/// The library that computes a function of one argument, and what it calls it.
enum UnaryCodelet {
    /// An operation of popops.
    Popops(UnaryOp),
    /// GELU in its tanh form, which popnn has and popops hasn't.
    PopnnGelu,
}

fn unary_codelet(f: UnaryFn) -> UnaryCodelet {
    UnaryCodelet::Popops(match f {
        UnaryFn::Neg => UnaryOp::Negate,
        UnaryFn::Abs => UnaryOp::Abs,
        UnaryFn::Exp => UnaryOp::Exp,
        UnaryFn::Log => UnaryOp::Log,
        UnaryFn::Square => UnaryOp::Square,
        UnaryFn::Sqrt => UnaryOp::Sqrt,
        UnaryFn::Rsqrt => UnaryOp::ReciprocalSqrt,
        UnaryFn::Reciprocal => UnaryOp::Inverse,
        UnaryFn::Tanh => UnaryOp::Tanh,
        UnaryFn::Sigmoid => UnaryOp::Sigmoid,
        UnaryFn::Relu => UnaryOp::Relu,
        UnaryFn::GeluErf => UnaryOp::GeluErf,
        UnaryFn::Gelu => return UnaryCodelet::PopnnGelu,
    })
}

fn binary_op(f: BinaryFn) -> BinaryOp {
    match f {
        BinaryFn::Add => BinaryOp::Add,
        BinaryFn::Sub => BinaryOp::Subtract,
        BinaryFn::Mul => BinaryOp::Multiply,
        BinaryFn::Div => BinaryOp::Divide,
        BinaryFn::Max => BinaryOp::Maximum,
        BinaryFn::Equal => BinaryOp::Equal,
    }
}

fn vector_op(f: BinaryFn) -> Option<VectorInnerOp> {
    match f {
        BinaryFn::Add => Some(VectorInnerOp::Add),
        BinaryFn::Sub => Some(VectorInnerOp::Subtract),
        BinaryFn::Mul => Some(VectorInnerOp::Multiply),
        BinaryFn::Div => Some(VectorInnerOp::Divide),
        BinaryFn::Max | BinaryFn::Equal => None,
    }
}

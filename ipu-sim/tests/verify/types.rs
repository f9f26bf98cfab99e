//! Every vertex with every element type: it has a cost, or is refused.

use ipu_sim::device::{DeviceError, ErrorClass};
use ipu_sim::engine::time;
use ipu_sim::ids::IpuId;
use ipu_sim::layout::{AxisSplit, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    ComputeSet, Label, Operand, Program, Step, VarId, VarKind, Variable, VertexGroup,
};
use ipu_sim::vertex::{BinaryFn, MapOp, ReduceOp, UnaryFn, Vertex, WorkerSeeds};

use crate::good::{machine, options};

const TYPES: [DType; 3] = [DType::F16, DType::F32, DType::U32];

/// Every expression and its number of inputs.
fn maps() -> Vec<(MapOp, usize)> {
    use MapOp::*;
    let unary = [
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
    ];
    let binary = [
        BinaryFn::Add,
        BinaryFn::Sub,
        BinaryFn::Mul,
        BinaryFn::Div,
        BinaryFn::Max,
        BinaryFn::Equal,
    ];
    let (class, ignore) = (Label(0), Some(0));
    let mut maps: Vec<(MapOp, usize)> = unary.iter().map(|&f| (Unary(f), 1)).collect();
    maps.extend(unary.iter().map(|&f| (UnaryGrad(f), 2)));
    maps.extend(binary.iter().map(|&f| (Binary(f), 2)));
    let average = |square| MovingAverage {
        factor: 0.9,
        square,
    };
    let adam = |decay, correction| AdamUpdater {
        epsilon: 1e-6,
        decay,
        correction,
    };
    maps.extend([
        (Cast, 1),
        (Scale { factor: 2.0 }, 1),
        (ScaledAdd { factor: 2.0 }, 2),
        (average(false), 2),
        (average(true), 2),
        (
            ClampedLog {
                epsilon: 1e-6,
                factor: 1.0,
            },
            1,
        ),
        (InverseStdDev { epsilon: 1e-6 }, 2),
        (OneHot { class }, 1),
        (Pick { class }, 2),
        (MinusIndex { class }, 2),
        (SoftmaxNllGrad { class, ignore }, 3),
        (Counts { ignore }, 1),
        (
            SequenceMask {
                position: class,
                first: 1,
            },
            2,
        ),
        (adam(None, None), 2),
        (adam(Some(0.1), Some((0.9, 0.99))), 4),
        (
            Blend {
                first: 1.0,
                second: 2.0,
            },
            2,
        ),
        (
            Descend {
                scale: 1.0,
                decay: 0.0,
            },
            3,
        ),
        (
            Descend {
                scale: 1.0,
                decay: 0.1,
            },
            3,
        ),
        (
            LambUpdate {
                max_weight_norm: 1.0,
            },
            5,
        ),
        (
            Count {
                addend: 1,
                modulus: 7,
            },
            1,
        ),
    ]);
    maps
}

/// Adds a matrix of `shape` on tile 0.
fn matrix(program: &mut Program, dtype: DType, shape: &[u32]) -> VarId {
    let axes = shape
        .iter()
        .map(|&extent| AxisSplit::whole(extent))
        .collect();
    let layout = program.add_layout(Layout::row_major(axes));
    program.vars.push(Variable {
        name: format!("x{}", program.vars.len()),
        dtype,
        ipu: IpuId(0),
        layout,
        kind: VarKind::Activation,
    })
}

/// Times one vertex, which must not panic; whether it has a cost.
fn has_cost(program: &Program, vertex: Vertex, output: Operand, inputs: Vec<Operand>) -> bool {
    let mut program = program.clone();
    let source = program.add_source("vertex", "test");
    program.steps = vec![Step::Compute(ComputeSet {
        source,
        ipu: IpuId(0),
        vertices: vec![VertexGroup {
            vertex,
            output,
            inputs: inputs.into_iter().collect(),
        }],
    })];
    match time(&program, &machine(), options()) {
        Ok(timeline) => timeline.total.0 > 0,
        Err(error) => {
            let error = DeviceError::from(error);
            assert_eq!(error.class(), ErrorClass::Setup, "{error}");
            false
        }
    }
}

#[test]
fn maps_of_any_types_and_shapes_have_a_cost_or_are_refused() {
    let mut costed = 0;
    // A whole operand, a row, a column and a scalar.
    let forms: [(&[u32], &[u8]); 4] = [(&[6, 8], &[0, 1]), (&[8], &[1]), (&[6], &[0]), (&[], &[])];
    for (op, n_inputs) in maps() {
        for out in TYPES {
            for first in TYPES {
                for other in TYPES {
                    for (shape, labels) in forms {
                        let mut program = Program::new(1, 1);
                        let output = matrix(&mut program, out, &[6, 8]);
                        let written = Operand::new(output, &[0, 1]);
                        let read = matrix(&mut program, first, &[6, 8]);
                        let rest = (1..n_inputs).map(|_| {
                            let var = matrix(&mut program, other, shape);
                            Operand::new(var, labels)
                        });
                        let rest: Vec<Operand> = rest.collect();
                        for read in [Operand::new(read, &[0, 1]), written.clone()] {
                            let inputs = std::iter::once(read).chain(rest.clone()).collect();
                            let vertex = Vertex::Map(op);
                            costed +=
                                u32::from(has_cost(&program, vertex, written.clone(), inputs));
                        }
                    }
                }
            }
        }
    }
    assert!(costed > 1000, "{costed}");
}

#[test]
fn other_vertices_of_any_types_have_a_cost_or_are_refused() {
    for out in TYPES {
        for input in TYPES {
            let mut program = Program::new(1, 1);
            let whole = matrix(&mut program, input, &[6, 8]);
            let copied = matrix(&mut program, out, &[6, 8]);
            let reduced = matrix(&mut program, out, &[8]);
            let scalar = matrix(&mut program, out, &[]);
            let index = matrix(&mut program, DType::U32, &[8]);
            let slot = matrix(&mut program, DType::U32, &[]);
            let of = Operand::new;
            let check = |vertex: Vertex, output: Operand, inputs: Vec<Operand>| {
                has_cost(&program, vertex, output, inputs)
            };
            let both = || vec![of(whole, &[0, 1])];
            for op in [ReduceOp::Sum, ReduceOp::SquareSum, ReduceOp::Max] {
                let reduce = || Vertex::Reduce { op, scale: 1.0 };
                check(reduce(), of(reduced, &[1]), both());
                check(reduce(), of(scalar, &[]), both());
                check(reduce(), of(copied, &[0, 1]), both());
            }
            let over = Label(0);
            check(Vertex::ReducePartials { over }, of(reduced, &[1]), both());
            check(Vertex::Copy, of(copied, &[0, 1]), both());
            check(Vertex::Assemble, of(copied, &[0, 1]), both());
            check(Vertex::Fill(1.0), of(copied, &[0, 1]), vec![]);
            for step in [WorkerSeeds::Set, WorkerSeeds::Restore] {
                check(Vertex::WorkerSeeds(step), of(copied, &[0, 1]), both());
            }
            let save = Vertex::WorkerSeeds(WorkerSeeds::Save);
            check(save, of(copied, &[0, 1]), vec![]);
            let row = Label(3);
            let table = || vec![of(whole, &[3, 0]), of(index, &[1])];
            check(
                Vertex::MultiSlice { row, first_row: 0 },
                of(copied, &[1, 0]),
                table(),
            );
            let slot_of = |other: Operand| vec![other, of(slot, &[])];
            check(
                Vertex::DynamicSlice { slot: over },
                of(reduced, &[1]),
                slot_of(of(whole, &[0, 1])),
            );
            check(
                Vertex::DynamicUpdate { slot: over },
                of(copied, &[0, 1]),
                slot_of(of(reduced, &[1])),
            );
        }
    }
}

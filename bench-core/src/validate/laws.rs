//! Vertices of one tile against totals worked out from PopLibs' estimators.
//!
//! Each row is a program of one compute set on tile 0 that the engine times; what dispatching
//! a compute set takes is subtracted, as PopLibs' estimators leave it out.

use ipu_sim::engine;
use ipu_sim::ids::IpuId;
use ipu_sim::layout::Layout;
use ipu_sim::numerics::DType::{self, F16, F32};
use ipu_sim::program::{
    ComputeSet, Label, Operand, Program, Step, VarId, VarKind, Variable, VertexGroup,
};
use ipu_sim::spec::MachineSpec;
use ipu_sim::vertex::{BinaryFn, MapOp, MatMulMethod, UnaryFn, Vertex, WeightLoad, labels};

use super::{Role, Row};
use crate::error::Result;
use crate::evaluate::TIMING;

/// Where the totals of all rows come from.
const SOURCE: &str = "PopLibs' cycle estimators (lib/poplin, lib/popops, lib/popnn, lib/poputil), \
                      worked out by an independent evaluation for a GC200";

/// A tensor on tile 0.
#[derive(Clone)]
struct Tensor {
    labels: &'static [u8],
    shape: Vec<u32>,
    dtype: DType,
}

/// A vertex with the tensors it works on.
struct Case {
    name: String,
    vertex: Vertex,
    output: Tensor,
    /// Tensors of their own; see `in_place`.
    inputs: Vec<Tensor>,
    /// Whether the first input is the output itself.
    in_place: bool,
    cycles: u64,
}

/// All rows.
///
/// # Errors
///
/// As [`engine::time`].
pub(super) fn rows(machine: &MachineSpec) -> Result<Vec<Row>> {
    let row = |case: Case| {
        Ok(Row {
            found: tile_cycles(machine, &case)?,
            name: case.name,
            unit: "cycles".into(),
            expected: case.cycles as f64,
            tolerance: 0.0,
            is_range: false,
            role: Role::Law,
            source: SOURCE.into(),
            known: None,
        })
    };
    products().chain(elementwise()).map(row).collect()
}

/// `[x, k] x [k, o]` in each of `g` groups, halves with half partials and 16 units.
fn products() -> impl Iterator<Item = Case> {
    // g, x, k and o, and cycles of the supervisor.
    const CASES: [([u32; 4], u64); 7] = [
        ([1, 1, 16, 16], 355),
        ([1, 12, 16, 16], 423),
        ([1, 64, 16, 16], 577),
        ([1, 128, 64, 16], 3133),
        ([1, 128, 128, 48], 17_873),
        ([1, 179, 256, 64], 59_659),
        ([4, 64, 32, 32], 7798),
    ];
    CASES.into_iter().map(|([g, x, k, o], cycles)| {
        let tensor = |labels, shape: [u32; 3]| Tensor {
            labels,
            shape: shape.to_vec(),
            dtype: F16,
        };
        Case {
            name: format!("AMP vertex, {g} of [{x},{k}] x [{k},{o}]"),
            vertex: Vertex::MatMul {
                method: MatMulMethod::Amp {
                    units: 16,
                    load: WeightLoad::Bits64,
                },
                groups: labels(&[0]),
                field: Label(1),
                input: Label(2),
                output: Label(3),
                input_group: 16,
                output_group: 16,
            },
            output: tensor(&[0, 1, 3], [g, x, o]),
            inputs: vec![tensor(&[0, 1, 2], [g, x, k]), tensor(&[0, 2, 3], [g, k, o])],
            in_place: false,
            cycles,
        }
    })
}

/// Vertices that work element by element.
fn elementwise() -> impl Iterator<Item = Case> {
    const ADD: MapOp = MapOp::Binary(BinaryFn::Add);
    const NEW: bool = false;
    const IN_PLACE: bool = true;
    let map = |op: MapOp, inputs: usize, n: u32, dtype: DType, in_place, cycles| {
        let tensor = |dtype| Tensor {
            labels: &[0],
            shape: vec![n],
            dtype,
        };
        let from = match op {
            MapOp::Cast if dtype == F16 => F32,
            MapOp::Cast => F16,
            _ => dtype,
        };
        Case {
            name: format!("{}, {n} elements", title(&op, dtype, in_place)),
            vertex: Vertex::Map(op),
            output: tensor(dtype),
            inputs: vec![tensor(from); inputs],
            in_place,
            cycles,
        }
    };
    let unary = MapOp::Unary;
    [
        map(ADD, 2, 96, F16, NEW, 239),
        map(ADD, 2, 1000, F16, NEW, 923),
        map(ADD, 2, 4096, F16, NEW, 3245),
        map(ADD, 2, 96, F32, NEW, 329),
        map(ADD, 2, 1000, F32, NEW, 1697),
        map(ADD, 2, 4096, F32, NEW, 6341),
        map(ADD, 2, 4096, F16, IN_PLACE, 3437),
        map(ADD, 2, 4096, F32, IN_PLACE, 6515),
        map(unary(UnaryFn::Exp), 1, 4096, F16, NEW, 4322),
        map(unary(UnaryFn::Exp), 1, 4096, F16, IN_PLACE, 4454),
        map(unary(UnaryFn::Tanh), 1, 4096, F16, NEW, 4226),
        map(unary(UnaryFn::Tanh), 1, 4096, F16, IN_PLACE, 2402),
        map(unary(UnaryFn::GeluErf), 1, 4096, F16, IN_PLACE, 65_918),
        map(unary(UnaryFn::Gelu), 1, 4096, F16, IN_PLACE, 5349),
        map(unary(UnaryFn::Gelu), 1, 4096, F32, IN_PLACE, 20_763),
        map(unary(UnaryFn::Reciprocal), 1, 4096, F32, NEW, 12_434),
        map(MapOp::Cast, 1, 64, F16, NEW, 294),
        map(MapOp::Cast, 1, 1000, F16, NEW, 762),
        map(MapOp::Cast, 1, 4096, F16, NEW, 2310),
        map(MapOp::Cast, 1, 4096, F32, NEW, 2298),
    ]
    .into_iter()
}

fn title(op: &MapOp, dtype: DType, in_place: bool) -> String {
    let what = match op {
        MapOp::Binary(function) => format!("{function:?}"),
        MapOp::Unary(function) => format!("{function:?}"),
        other => format!("{other:?}"),
    };
    let dtype = if dtype == F16 { "half" } else { "float" };
    let place = if in_place { ", in place" } else { "" };
    format!("{what} to {dtype}{place}")
}

/// Cycles of a case on one tile, without dispatch.
fn tile_cycles(machine: &MachineSpec, case: &Case) -> Result<f64> {
    let mut program = Program::new(1, 1);
    let source = program.add_source("vertex", "vertex");
    let mut operand = |tensor: &Tensor| {
        let var = on_one_tile(&mut program, &tensor.shape, tensor.dtype);
        Operand::new(var, tensor.labels)
    };
    let output = operand(&case.output);
    let inputs = case.inputs.iter().enumerate().map(|(index, tensor)| {
        if index == 0 && case.in_place {
            output.clone()
        } else {
            operand(tensor)
        }
    });
    let inputs = inputs.collect();
    program.steps = vec![Step::Compute(ComputeSet {
        source,
        ipu: IpuId(0),
        vertices: vec![VertexGroup {
            vertex: case.vertex.clone(),
            output,
            inputs,
        }],
    })];
    let total = engine::time(&program, machine, TIMING)?.total;
    Ok((total - machine.compute.dispatch).0 as f64)
}

/// A variable that lies on tile 0, row by row.
fn on_one_tile(program: &mut Program, shape: &[u32], dtype: DType) -> VarId {
    let layout = program.add_layout(Layout::on_every_tile(shape, 1));
    program.vars.push(Variable {
        name: "x".into(),
        dtype,
        ipu: IpuId(0),
        layout,
        kind: VarKind::Weight,
    })
}

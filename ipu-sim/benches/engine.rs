//! Speed of the simulator itself: timing and weighing a program of 10,000 steps on four
//! IPUs of 1,472 tiles, a pipeline whose main cycle runs 1,000 times.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ipu_sim::engine::{Mode, Options, time};
use ipu_sim::ids::IpuId;
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    ComputeSet, Exchange, Function, IpuCopy, LayoutId, Operand, Program, SourceId, Step, TileCopy,
    VarId, VarKind, Variable, VertexGroup,
};
use ipu_sim::spec::MachineSpec;
use ipu_sim::vertex::{BinaryFn, MapOp, UnaryFn, Vertex};
use ipu_sim::weigh::weigh;

const N_IPUS: u32 = 4;
const N_TILES: u32 = 1_472;
const LAYERS_PER_IPU: usize = 100;
/// Rounds of a layer: three compute sets and two exchanges each.
const ROUNDS_PER_LAYER: usize = 5;

/// A `[1472 * 8, 64]` tensor, cut along one of its axes.
fn layout(program: &mut Program, axis: usize) -> LayoutId {
    let rows = N_TILES * 8;
    let cut = |extent, parts| AxisSplit::cut(extent, &[Cut::even(parts)]);
    let axes = match axis {
        0 => vec![cut(rows, N_TILES), AxisSplit::whole(64)],
        _ => vec![AxisSplit::whole(rows), cut(64, 64)],
    };
    program.add_layout(Layout::row_major(axes))
}

fn variable(program: &mut Program, ipu: u32, layout: LayoutId, kind: VarKind) -> VarId {
    program.vars.push(Variable {
        name: "x".into(),
        dtype: DType::F16,
        ipu: IpuId(ipu),
        layout,
        kind,
    })
}

fn compute(source: SourceId, ipu: u32, op: MapOp, output: VarId, inputs: &[VarId]) -> Step {
    let operand = |var| Operand::new(var, &[0, 1]);
    Step::Compute(ComputeSet {
        source,
        ipu: IpuId(ipu),
        vertices: vec![VertexGroup {
            vertex: Vertex::Map(op),
            output: operand(output),
            inputs: inputs.iter().map(|&var| operand(var)).collect(),
        }],
    })
}

fn exchange(program: &Program, source: SourceId, ipu: u32, src: VarId, dst: VarId) -> Step {
    Step::Exchange(Exchange {
        source,
        ipu: IpuId(ipu),
        copies: vec![TileCopy {
            src: program.view(src),
            dst: program.view(dst),
        }],
    })
}

fn pipeline() -> Program {
    let mut program = Program::new(N_IPUS, 4);
    let rows = layout(&mut program, 0);
    let columns = layout(&mut program, 1);
    let mut ends = Vec::new();
    let mut cycle = Vec::new();
    for ipu in 0..N_IPUS {
        let input = variable(&mut program, ipu, rows, VarKind::CopyBuffer);
        let mut last = input;
        let mut steps = Vec::new();
        for layer in 0..LAYERS_PER_IPU {
            let source = program.add_source(&format!("IPU{ipu}/Layer{layer}"), "layer");
            for _ in 0..ROUNDS_PER_LAYER {
                let [sum, result] =
                    [0; 2].map(|_| variable(&mut program, ipu, rows, VarKind::Activation));
                let turned = variable(&mut program, ipu, columns, VarKind::Activation);
                let add = MapOp::Binary(BinaryFn::Add);
                let gelu = MapOp::Unary(UnaryFn::Gelu);
                steps.push(compute(source, ipu, add, sum, &[last, last]));
                steps.push(exchange(&program, source, ipu, sum, turned));
                steps.push(compute(source, ipu, gelu, turned, &[turned]));
                steps.push(exchange(&program, source, ipu, turned, result));
                steps.push(compute(
                    source,
                    ipu,
                    MapOp::Scale { factor: 0.5 },
                    result,
                    &[result],
                ));
                last = result;
            }
        }
        let name = format!("stage {ipu}");
        cycle.push(Step::Call(program.functions.push(Function { name, steps })));
        ends.push((input, last));
    }
    let copies = ends
        .windows(2)
        .map(|pair| IpuCopy {
            src: pair[0].1,
            dst: pair[1].0,
        })
        .collect();
    let source = program.add_source("copies", "copy");
    cycle.push(Step::IpuCopies { source, copies });
    program.steps = vec![Step::Repeat {
        count: 1_000,
        body: cycle,
    }];
    program
}

fn engine(criterion: &mut Criterion) {
    let program = pipeline();
    let machine = MachineSpec::shipped("mk2-pod16").expect("a shipped machine");
    let options = Options {
        mode: Mode::Folded,
        trace_depth: 1,
    };
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10);
    group.bench_function("time 10,000 steps on 4 x 1472 tiles", |bencher| {
        bencher.iter(|| time(black_box(&program), &machine, options).expect("it fits"));
    });
    group.bench_function("weigh 10,000 steps on 4 x 1472 tiles", |bencher| {
        bencher.iter(|| weigh(black_box(&program), &machine).expect("it fits"));
    });
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);

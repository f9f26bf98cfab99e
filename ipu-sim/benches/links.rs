//! Speed of the simulator itself, beyond one IPU: exchange over all tiles, collectives around a
//! torus, streams that share a host, folding, and what a larger POD costs.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ipu_sim::engine::{Mode, Options, time};
use ipu_sim::exchange::pieces::Side;
use ipu_sim::exchange::{Fabric, traffic};
use ipu_sim::ids::IpuId;
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    Collective, CollectiveKind, CollectiveTensor, IpuCopy, Program, SourceId, Step, Stream,
    Transfer, VarId, VarKind, Variable,
};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::Bytes;
use ipu_sim::view::ViewShape;

const N_TILES: u32 = 1_472;

fn machine(name: &str) -> MachineSpec {
    MachineSpec::shipped(name).expect("a shipped machine")
}

fn spread(extent: u32) -> AxisSplit {
    AxisSplit::cut(extent, &[Cut::even(N_TILES)])
}

/// A vector of so many f16 on an IPU, spread over all tiles.
fn vector(program: &mut Program, ipu: u32, extent: u32) -> VarId {
    let layout = program.add_layout(Layout::row_major(vec![spread(extent)]));
    program.vars.push(Variable {
        name: "x".into(),
        dtype: DType::F16,
        ipu: IpuId(ipu),
        layout,
        kind: VarKind::Activation,
    })
}

/// All-reduces of `n` sizes, one after the other, as weight updates have them.
fn update(n_ipus: u32, n_replicas: u32, n: u32) -> Program {
    let mut program = Program::new(n_ipus, n_replicas);
    let source = program.add_source("update", "collective");
    for number in 0..n {
        let var = vector(&mut program, number % n_ipus, 1_000_000 + 1_000 * number);
        program.steps.push(Step::Collective(Collective {
            source,
            kind: CollectiveKind::AllReduce,
            tensors: vec![CollectiveTensor { src: var, dst: var }],
        }));
    }
    program
}

/// A pipeline of four IPUs that pass a vector on, the first of which reads it.
fn pipeline(count: u32, n_replicas: u32) -> Program {
    let mut program = Program::new(4, n_replicas);
    let source = program.add_source("copies", "copy");
    let vars: Vec<VarId> = (0..4)
        .map(|ipu| vector(&mut program, ipu, 1_000_000))
        .collect();
    let mut body = vec![read(&mut program, source, vars[0], true)];
    let copies = vars.windows(2).map(|pair| IpuCopy {
        src: pair[0],
        dst: pair[1],
    });
    body.extend(copies.map(|copy| Step::IpuCopies {
        source,
        copies: vec![copy],
    }));
    program.steps = vec![Step::Repeat { count, body }];
    program
}

fn read(program: &mut Program, source: SourceId, var: VarId, prefetch: bool) -> Step {
    let stream = program.streams.push(Stream {
        name: "in".into(),
        prefetch,
        buffering_depth: 1,
    });
    Step::Transfers {
        source,
        transfers: vec![Transfer::HostRead { stream, var }],
    }
}

/// Single IPUs that all read, again and again.
fn reads(n_replicas: u32) -> Program {
    let mut program = Program::new(1, n_replicas);
    let source = program.add_source("input", "host_input");
    let var = vector(&mut program, 0, 1_000_000);
    let body = vec![read(&mut program, source, var, false)];
    program.steps = vec![Step::Repeat { count: 1_000, body }];
    program
}

fn exchange(criterion: &mut Criterion) {
    let spec = machine("mk2-pod16");
    let fabric = Fabric::new(&spec.exchange, N_TILES);
    let rows = Layout::row_major(vec![spread(N_TILES * 8), AxisSplit::whole(64)]);
    let columns = Layout::row_major(vec![AxisSplit::whole(N_TILES * 8), {
        let cut = Cut {
            tile_stride: 23,
            ..Cut::even(64)
        };
        AxisSplit::cut(64, &[cut])
    }]);
    let view = ViewShape::identity(&[N_TILES * 8, 64]);
    let side = |layout| Side {
        layout,
        view: &view,
    };
    criterion.bench_function("exchange over 1472 tiles", |bencher| {
        bencher.iter(|| {
            let moved = traffic(side(&rows), side(&columns), Bytes(2), &fabric);
            black_box(moved.phase(&spec))
        });
    });
}

fn programs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("links");
    group.sample_size(10);
    for (name, program, system, mode) in [
        (
            "all-reduce, torus of 16 replicas",
            update(4, 16, 1),
            "mk2-pod64",
            Mode::Folded,
        ),
        (
            "all-reduce, torus of 64 replicas",
            update(1, 64, 1),
            "mk2-pod64",
            Mode::Folded,
        ),
        (
            "update of 300 tensors, POD16",
            update(4, 4, 300),
            "mk2-pod16",
            Mode::Folded,
        ),
        (
            "update of 300 tensors, POD256",
            update(4, 64, 300),
            "mk2-pod256",
            Mode::Folded,
        ),
        (
            "streams of 4 replicas on one host",
            reads(4),
            "mk2-m2000",
            Mode::Folded,
        ),
        (
            "streams of 4 replicas on one host, unfolded",
            reads(4),
            "mk2-m2000",
            Mode::Unfolded,
        ),
        (
            "pipeline of 16 passes, folded",
            pipeline(16, 4),
            "mk2-pod16",
            Mode::Folded,
        ),
        (
            "pipeline of 2048 passes, folded",
            pipeline(2048, 4),
            "mk2-pod16",
            Mode::Folded,
        ),
        (
            "pipeline of 2048 passes, unfolded",
            pipeline(2048, 4),
            "mk2-pod16",
            Mode::Unfolded,
        ),
    ] {
        let spec = machine(system);
        let options = Options {
            mode,
            trace_depth: 0,
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| time(black_box(&program), &spec, options).expect("it fits"));
        });
    }
    group.finish();
}

criterion_group!(benches, exchange, programs);
criterion_main!(benches);

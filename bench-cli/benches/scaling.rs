//! How does the host's time grow with the model? Every pass, lowering, weighing and timing
//! over 6, 12, 24, 48 and 96 layers of a narrow BERT.
//!
//! Throughput is operations of the graph that comes out, so the time of one operation
//! shows at a glance whether anything grows faster than the graph: the rate stays.
//! A pass includes the verifier that follows it; `lower` is the schedule, the plans and the
//! lowering.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use bench_cli::args;
use bench_cli::clock::{Date, Stopwatch};
use bench_cli::compile::{Compiled, compile, plans_for};
use bench_cli::config::BertOptions;
use bench_cli::request::prepare;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use ipu_sim::engine::{self, Mode};
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::weigh;
use popart_graph::ir::Graph;
use popart_graph::passes::Watch;

const LAYERS: [u32; 5] = [6, 12, 24, 48, 96];

/// A BERT of two pipeline stages forward, trained with everything that has a pass of its own.
fn options(layers: u32) -> BertOptions {
    let half = layers / 2;
    let words = format!(
        "--task PRETRAINING --generated-data true --epochs 1 --no-model-save --no-validation \
         --num-layers {layers} --layers-per-ipu {half} {half} --encoder-start-ipu 0 \
         --hidden-size 64 --attention-heads 1 --sequence-length 32 --mask-tokens 4 \
         --vocab-length 512 --dtype FLOAT16 --execution-mode PIPELINE \
         --gradient-accumulation-factor 8 --replication-factor 2 --optimizer LAMB \
         --replicated-tensor-sharding true --optimizer-state-offchip true"
    );
    let given = args::parse(words.split_whitespace().map(String::from)).expect("words parse");
    let prepared = prepare(&given, Date::now()).expect("options agree");
    prepared.request.options
}

/// What one compilation took, and what it made.
struct Phases {
    /// Seconds by pass, in order, the model in front and `lower` behind.
    seconds: Vec<(&'static str, f64)>,
    operations: u64,
    compiled: Compiled,
}

fn phases(options: &BertOptions, machine: &MachineSpec) -> Phases {
    let watch = Stopwatch::start();
    let mut seconds = Vec::new();
    let mut before = 0.0;
    let mut operations = 0;
    let mut see = |pass, graph: &Graph| {
        let now = watch.seconds().0;
        seconds.push((pass, now - before));
        before = now;
        operations = graph.ops.len() as u64;
    };
    let plans = plans_for(machine);
    let compiled = compile(black_box(options), machine, &plans, Watch::by(&mut see))
        .expect("the options compile");
    seconds.push(("lower", watch.seconds().0 - before));
    Phases {
        seconds,
        operations,
        compiled,
    }
}

fn bench(criterion: &mut Criterion) {
    let machine = MachineSpec::shipped("mk2-pod16").expect("a shipped machine");
    let made: BTreeMap<u32, (BertOptions, Phases)> = LAYERS
        .into_iter()
        .map(|layers| {
            let options = options(layers);
            let phases = phases(&options, &machine);
            (layers, (options, phases))
        })
        .collect();
    let names: Vec<&str> = made[&LAYERS[0]]
        .1
        .seconds
        .iter()
        .map(|(name, _)| *name)
        .collect();
    for name in names {
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(10)
            .sampling_mode(SamplingMode::Flat)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_millis(500));
        for (layers, (options, first)) in &made {
            group.throughput(Throughput::Elements(first.operations));
            group.bench_function(BenchmarkId::from_parameter(layers), |bencher| {
                bencher.iter_custom(|iterations| {
                    let one = |_| {
                        let found = phases(options, &machine).seconds;
                        let phase = found.iter().find(|(found, _)| *found == name);
                        phase.map_or(0.0, |(_, seconds)| *seconds)
                    };
                    Duration::from_secs_f64((0..iterations).map(one).sum())
                });
            });
        }
        group.finish();
    }
    let folded = engine::Options {
        mode: Mode::Folded,
        trace_depth: 0,
    };
    for (layers, (_, phases)) in &made {
        let program = &phases.compiled.lowered.program;
        let mut group = criterion.benchmark_group("program");
        group
            .sample_size(10)
            .throughput(Throughput::Elements(phases.operations));
        group.bench_function(BenchmarkId::new("weigh", layers), |bencher| {
            bencher.iter(|| weigh(black_box(program), &machine).expect("the program is sound"));
        });
        group.bench_function(BenchmarkId::new("time", layers), |bencher| {
            bencher.iter(|| {
                engine::time(black_box(program), &machine, folded).expect("the program is sound")
            });
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);

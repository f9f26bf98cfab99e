//! How does the host's time grow with the model? Every pass, lowering, weighing and timing
//! over 6, 12, 24, 48 and 96 layers of a narrow BERT.
//!
//! Throughput is operations of the graph that comes out, so the time of one operation
//! shows at a glance whether anything grows faster than the graph: the rate stays.
//! A pass includes the verifier that follows it; `lower` is the schedule, the plans and the
//! lowering.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bench_core::compile::{Compiled, compile};
use bench_core::config::RunConfig;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use ipu_sim::engine::{self, Mode};
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::weigh;
use popart_graph::ir::Graph;
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;
use serde_json::json;

const LAYERS: [u32; 5] = [6, 12, 24, 48, 96];

/// A BERT of two pipeline stages forward, trained with everything that has a pass of its own.
fn config(layers: u32) -> RunConfig {
    let keys = json!({
        "num_layers": layers, "layers_per_ipu": [layers / 2, layers / 2], "encoder_start_ipu": 0,
        "hidden_size": 64, "attention_heads": 1, "sequence_length": 32, "mask_tokens": 4,
        "vocab_length": 512, "execution_mode": "PIPELINE", "gradient_accumulation_factor": 8,
        "replication_factor": 2, "optimizer": "LAMB", "replicated_tensor_sharding": true,
        "optimizer_state_offchip": true,
    });
    serde_json::from_value(keys).expect("the keys make a run")
}

/// What one compilation took, and what it made.
struct Phases {
    /// Seconds by pass, in order, the model in front and `lower` behind.
    seconds: Vec<(&'static str, f64)>,
    operations: u64,
    compiled: Compiled,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock of the host"
)]
fn phases(config: &RunConfig, machine: &MachineSpec) -> Phases {
    let start = Instant::now();
    let mut seconds = Vec::new();
    let mut before = 0.0;
    let mut operations = 0;
    let mut see = |pass, graph: &Graph| {
        let now = start.elapsed().as_secs_f64();
        seconds.push((pass, now - before));
        before = now;
        operations = graph.ops.len() as u64;
    };
    let plans = PlanCache::new(machine.tile.clone());
    let compiled =
        compile(black_box(config), machine, &plans, Watch::by(&mut see)).expect("the run compiles");
    seconds.push(("lower", start.elapsed().as_secs_f64() - before));
    Phases {
        seconds,
        operations,
        compiled,
    }
}

fn bench(criterion: &mut Criterion) {
    let machine = MachineSpec::shipped("mk2-pod16").expect("a shipped machine");
    let made: BTreeMap<u32, (RunConfig, Phases)> = LAYERS
        .into_iter()
        .map(|layers| {
            let config = config(layers);
            let phases = phases(&config, &machine);
            (layers, (config, phases))
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
        for (layers, (config, first)) in &made {
            group.throughput(Throughput::Elements(first.operations));
            group.bench_function(BenchmarkId::from_parameter(layers), |bencher| {
                bencher.iter_custom(|iterations| {
                    let one = |_| {
                        let found = phases(config, &machine).seconds;
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
        let program = &phases.compiled.program;
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

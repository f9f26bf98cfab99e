//! How long does an evaluation take the host? BERT-Large as published, whole and in its parts.
//!
//! The runs are those of the benchmark document: pre-training at sequence length 128 on a POD16
//! and, for the time of one weight update, on a POD64. Reading options is not measured.

use std::hint::black_box;

use bench_core::compile::{Compiled, compile};
use bench_core::config::RunConfig;
use bench_core::evaluate::{TIMING, evaluate};
use bench_core::suite;
use bert_model::placement::{EncoderPlacement, LayersPerIpu};
use criterion::{Criterion, criterion_group, criterion_main};
use ipu_sim::engine;
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::weigh;
use mimalloc::MiMalloc;
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;

/// The allocator that the command has.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A run of the benchmark document and its machine.
fn published(name: &str) -> (RunConfig, MachineSpec) {
    let runs = suite::runs();
    let run = runs.into_iter().find(|run| run.name == name);
    let run = run.expect("the suite has this run");
    (run.config, run.machine)
}

fn no_plans(machine: &MachineSpec) -> PlanCache {
    PlanCache::new(machine.tile.clone())
}

fn compiled(config: &RunConfig, machine: &MachineSpec) -> Compiled {
    let plans = no_plans(machine);
    compile(black_box(config), machine, &plans, Watch::nobody()).expect("published runs compile")
}

/// One layer moved from the second encoder IPU to the third, and back.
fn moved(config: &RunConfig, times: u64) -> RunConfig {
    let mut config = config.clone();
    if times.is_multiple_of(2) {
        config.placement.encoder = EncoderPlacement::Layers(LayersPerIpu {
            encoder_start_ipu: 0,
            layers_per_ipu: vec![3, 6, 8, 7],
        });
    }
    config
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bert_large_128");
    group.sample_size(10);

    let (config, machine) = published("1-large-128-pod16");
    group.bench_function("evaluate_pod16", |bencher| {
        bencher.iter(|| evaluate(black_box(&config), &machine, &no_plans(&machine)));
    });
    let plans = no_plans(&machine);
    let mut times = 0;
    group.bench_function(
        "evaluate_pod16_with_plans_and_another_placement",
        |bencher| {
            bencher.iter(|| {
                times += 1;
                evaluate(&moved(&config, times), &machine, &plans)
            });
        },
    );
    // Twice as many evaluations: two cores take as long as one does for one.
    group.bench_function("evaluate_pod16_in_two_threads", |bencher| {
        bencher.iter(|| {
            std::thread::scope(|scope| {
                for times in 0..2 {
                    let (config, machine, plans) = (&config, &machine, &plans);
                    scope.spawn(move || evaluate(&moved(config, times), machine, plans));
                }
            });
        });
    });
    group.bench_function("compile_pod16", |bencher| {
        bencher.iter(|| compiled(&config, &machine));
    });
    let program = compiled(&config, &machine).program;
    group.bench_function("weigh_pod16", |bencher| {
        bencher.iter(|| weigh(black_box(&program), &machine).expect("the program is sound"));
    });

    let (config, machine) = published("2-large-128-pod64");
    let program = compiled(&config, &machine).program;
    group.bench_function("time_weight_update_pod64", |bencher| {
        bencher.iter(|| {
            engine::time(black_box(&program), &machine, TIMING).expect("the program is sound")
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

//! How long does a whole run take the host? Compiling, weighing and timing BERT-Large as published.
//!
//! The runs are those of the suite: pre-training at sequence length 128 on a POD16 and,
//! for the time of one weight update, on a POD64. Reading options is not measured.

use std::hint::black_box;

use bench_cli::args;
use bench_cli::clock::Date;
use bench_cli::compile::{Compiled, compile, plans_for};
use bench_cli::config::BertOptions;
use bench_cli::request::prepare;
use bench_cli::suite;
use criterion::{Criterion, criterion_group, criterion_main};
use ipu_sim::engine::{self, Mode};
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::weigh;
use popart_graph::passes::Watch;

/// Some moment: it only names the folder that a run would write to.
const DATE: Date = Date {
    year: 2021,
    month: 3,
    day: 19,
    hour: 18,
    minute: 49,
    second: 38,
};

/// Options and machine of a run of the suite.
fn published(name: &str) -> (BertOptions, MachineSpec) {
    let runs = suite::runs();
    let run = runs.iter().find(|run| run.name == name);
    let run = run.expect("the suite has this run");
    let given = args::parse(run.arguments.iter().cloned()).expect("published words parse");
    let prepared = prepare(&given, DATE).expect("published words and preset agree");
    let machine = MachineSpec::shipped(run.system).expect("the system ships");
    (prepared.request.options, machine)
}

fn compiled(options: &BertOptions, machine: &MachineSpec) -> Compiled {
    compile(
        black_box(options),
        machine,
        &plans_for(machine),
        Watch::nobody(),
    )
    .expect("published runs compile")
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bert_large_128");
    group.sample_size(10);

    let (options, machine) = published("1-large-128-pod16");
    group.bench_function("compile_pod16", |bencher| {
        bencher.iter(|| compiled(&options, &machine));
    });
    let program = compiled(&options, &machine).lowered.program;
    group.bench_function("weigh_pod16", |bencher| {
        bencher.iter(|| weigh(black_box(&program), &machine).expect("the program is sound"));
    });

    let (options, machine) = published("2-large-128-pod64");
    let program = compiled(&options, &machine).lowered.program;
    let folded = engine::Options {
        mode: Mode::Folded,
        trace_depth: 0,
    };
    group.bench_function("time_weight_update_pod64", |bencher| {
        bencher.iter(|| {
            engine::time(black_box(&program), &machine, folded).expect("the program is sound")
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

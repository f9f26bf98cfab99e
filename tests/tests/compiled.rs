//! What compiled programs are like: their memory, their size, their time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bench_cli::clock::Date;
use bench_cli::request::{RunRequest, prepare};
use bench_cli::{args, run::plans_for};
use bench_core::compile::compile;
use bert_model::config::{Mode, Task};
use ipu_sim::engine::{self, Options};
use ipu_sim::program::{Program, Step};
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::{IpuMemoryUsage, weigh};
use popart_graph::ir::{Graph, OpKind, Phase};
use popart_graph::passes::{Pipelining, Watch};
use popart_graph::profile::Section;
use popart_graph::text;
use rayon::prelude::*;
use tests::plan::lamb;
use tests::{Case, Plan, small_machine};

fn request(words: &str) -> RunRequest {
    let given = args::parse(words.split_whitespace().map(String::from)).unwrap();
    prepare(&given, Date::now()).unwrap().request
}

fn program(words: &str) -> (Arc<Program>, MachineSpec) {
    let request = request(words);
    let machine = MachineSpec::shipped(&request.machine.name).unwrap();
    let plans = plans_for(&machine);
    let compiled = compile(&request.options.config, &machine, &plans, Watch::nobody());
    (compiled.unwrap().program, machine)
}

/// As the published preset runs it, and as the compilation was made whose memory by category is
/// among the measurements.
#[test]
fn bert_large_fits_on_one_ipu_for_inference() {
    let (program, machine) =
        program("--config configs/mk2/squad_large_128_inf.json --generated-data true --epochs 1");
    let weight = weigh(&program, &machine).unwrap();
    weight.verdict().unwrap();
    let fullest = weight.ipus.values().map(IpuMemoryUsage::max).max().unwrap();
    assert!(fullest.0 > machine.tile.memory.0 * 8 / 10, "{fullest:?}");
}

#[test]
fn training_bert_large_does_not_fit_on_one_ipu() {
    let (program, machine) = program(
        "--config configs/mk2/pretrain_large_128.json --layers-per-ipu 24 \
         --pipeline false --available-memory-proportion 0.2 --replication-factor 1 \
         --gradient-accumulation-factor 8192 --epochs 1 --generated-data true --no-model-save",
    );
    let error = weigh(&program, &machine).unwrap().verdict().unwrap_err();
    let text = error.to_string();
    assert!(error.needed > error.available, "{text}");
    assert!(!error.largest.is_empty(), "{text}");
    for fact in [
        error.tile.to_string(),
        error.needed.to_string(),
        error.available.to_string(),
        format!("`{}`", error.largest[0].name),
    ] {
        assert!(text.contains(&fact), "`{fact}` is missing: {text}");
    }
}

/// Steps and variables: what a compiler and a host pay for.
fn size(program: &Program) -> (usize, usize) {
    fn count(steps: &[Step]) -> usize {
        let inner = steps.iter().map(|step| match step {
            Step::Repeat { body, .. } => 1 + count(body),
            _ => 1,
        });
        inner.sum()
    }
    let functions = program.functions.values();
    let in_functions: usize = functions.map(|function| count(&function.steps)).sum();
    (count(&program.steps) + in_functions, program.vars.len())
}

#[test]
fn more_replicas_make_no_larger_program() {
    let words = |replicas: u32| {
        format!(
            "--hidden-size 64 --attention-heads 4 --num-layers 2 --vocab-length 120 \
             --sequence-length 32 --mask-tokens 4 --layers-per-ipu 1 --encoder-start-ipu 2 \
             --micro-batch-size 1 --gradient-accumulation-factor 16 --replication-factor {replicas} \
             --execution-mode PIPELINE --epochs 1 --optimizer LAMB_NO_BIAS --generated-data true \
             --no-model-save"
        )
    };
    let (on_pod16, _) = program(&words(4));
    let (on_pod64, _) = program(&words(16));
    assert_eq!((on_pod16.n_replicas, on_pod64.n_replicas), (4, 16));
    assert_eq!(size(&on_pod16), size(&on_pod64));
}

#[test]
fn folding_keeps_the_time_of_a_pipeline() {
    let task = Task::Pretraining(Mode::Training);
    let case = Case::new(Plan::new(task, Pipelining::On, 60, lamb()));
    let program = case.unwrap().compiled.lowered.program;
    let machine = small_machine(8, 32).unwrap();
    let time = |mode| {
        let options = Options {
            mode,
            trace_depth: 0,
        };
        engine::time(&program, &machine, options).unwrap()
    };
    let (folded, unfolded) = (time(engine::Mode::Folded), time(engine::Mode::Unfolded));
    assert!(folded.total.0 > 0);
    assert_eq!(folded, unfolded);
}

/// A pipeline that updates weights in its stages: every micro-batch beyond filling and draining
/// costs the same, more than one whose gradients are accumulated, by no more than a whole weight
/// update. The updates of the IPUs overlap, and no gradient is added to an accumulator.
#[test]
fn updates_in_stages_cost_every_micro_batch() {
    let task = Task::Pretraining(Mode::Training);
    let machine = small_machine(8, 32).unwrap();
    let time = |micro_batches, updates, mode| {
        let plan = Plan {
            updates,
            ..Plan::new(task, Pipelining::On, micro_batches, lamb())
        };
        let lowered = Case::new(plan).unwrap().compiled.lowered;
        let options = Options {
            mode,
            trace_depth: 0,
        };
        let timeline = engine::time(&lowered.program, &machine, options).unwrap();
        let update = lowered.profile.section(Section::Update).map(|section| {
            let of_ipus = timeline.sections[section].values();
            of_ipus.map(|spent| spent.total().0).max().unwrap()
        });
        (timeline, update)
    };
    let folded = |micro_batches, updates| {
        let (timeline, update) = time(micro_batches, updates, engine::Mode::Folded);
        (timeline.total.0, update)
    };
    let [(accumulated, update), (twice, _)] = [60, 120].map(|n| folded(n, 1));
    let each_accumulated = (twice - accumulated) / 60;
    let [few, more, most] = [60, 120, 180].map(|n| folded(1, n).0);
    assert_eq!(more - few, most - more);
    let each = (more - few) / 60;
    let update = update.expect("there is an outer fragment");
    assert!(each > each_accumulated, "{each} {each_accumulated}");
    assert!(
        each - each_accumulated < update,
        "{each} {each_accumulated} {update}"
    );
    assert_eq!(folded(1, 60).1, None);

    let (unfolded, _) = time(1, 20, engine::Mode::Unfolded);
    assert_eq!(time(1, 20, engine::Mode::Folded).0, unfolded);
}

/// Layers of an IPU that compute the same are outlined the same: as many copies go into their calls
/// and out of them, also of the first, before which the mask is made. The last one's output leaves
/// for another IPU and isn't kept, so that where others' is, its norm is in another part.
#[test]
fn equal_layers_are_outlined_alike() {
    for (every_layer, equal) in [(true, 0..3), (false, 0..4)] {
        let request = request(&format!(
            "--hidden-size 64 --attention-heads 4 --num-layers 8 --vocab-length 120 \
             --sequence-length 32 --mask-tokens 4 --layers-per-ipu 4 --encoder-start-ipu 1 \
             --micro-batch-size 2 --gradient-accumulation-factor 16 --execution-mode PIPELINE \
             --recompute-checkpoint-every-layer {every_layer} --epochs 1 --generated-data true \
             --no-model-save"
        ));
        let machine = MachineSpec::shipped(&request.machine.name).unwrap();
        let mut copies = [[0_u32; 2]; 8];
        let mut see = |pass, graph: &Graph| {
            let ops = graph.ops.values().filter(|op| op.phase == Phase::Forward);
            for op in ops.filter(|_| pass == "outline") {
                let way = match op.kind {
                    OpKind::CallInput => 0,
                    OpKind::CallOutput => 1,
                    _ => continue,
                };
                let layer = op.name.strip_prefix("Layer");
                let layer = layer.and_then(|name| name.split('/').next()?.parse::<usize>().ok());
                if let Some(layer) = layer {
                    copies[layer][way] += 1;
                }
            }
        };
        let plans = plans_for(&machine);
        compile(
            &request.options.config,
            &machine,
            &plans,
            Watch::by(&mut see),
        )
        .unwrap();
        for of_ipu in copies.chunks(4) {
            assert!(of_ipu[0].iter().all(|&copies| copies > 0), "{copies:?}");
            for layer in &of_ipu[equal.clone()] {
                assert_eq!(layer, &of_ipu[0], "{copies:?}");
            }
        }
    }
}

/// Every graph of every published run, after every pass, is text that reads back as itself.
#[test]
fn graphs_of_the_published_runs_parse_back() {
    let runs: Vec<_> = bench_cli::suite::runs();
    let graphs: usize = runs
        .par_iter()
        .map(|run| {
            let given = args::parse(run.arguments.iter().cloned()).unwrap();
            let options = prepare(&given, Date::now()).unwrap().request.options;
            let machine = MachineSpec::shipped(run.system).unwrap();
            let mut seen = 0;
            let mut see = |pass, graph: &Graph| {
                let parsed = text::parse(&text::print(graph));
                let parsed = parsed.unwrap_or_else(|error| panic!("{}, {pass}: {error}", run.name));
                assert!(parsed == *graph, "{}, after {pass}", run.name);
                seen += 1;
            };
            let plans = plans_for(&machine);
            compile(&options.config, &machine, &plans, Watch::by(&mut see)).unwrap();
            seen
        })
        .sum();
    assert!(
        graphs > 2 * runs.len(),
        "{graphs} graphs of {} runs",
        runs.len()
    );
}

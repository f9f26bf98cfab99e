use super::*;
use crate::clock::Date;
use crate::request::prepare;
use crate::run::TIMING;
use crate::utilisation::Utilisation;
use crate::{args, compile};
use ipu_sim::engine;
use ipu_sim::spec::MachineSpec;

const MODEL: &str = "--generated-data true --hidden-size 64 --attention-heads 1 \
                     --sequence-length 32 --vocab-length 512 --encoder-start-ipu 0";

struct Case {
    compiled: compile::Compiled,
    machine: MachineSpec,
}

impl Case {
    fn new(words: &str) -> Self {
        let given = args::parse(words.split_whitespace().map(String::from)).unwrap();
        let request = prepare(&given, Date::now()).unwrap().request;
        let machine = request.machine.spec.clone();
        let compiled = compile::compile(&request.options, &machine).unwrap();
        Self { compiled, machine }
    }

    fn time(&self, mode: engine::Mode) -> Timeline {
        let options = engine::Options { mode, ..TIMING };
        engine::time(&self.compiled.lowered.program, &self.machine, options).unwrap()
    }

    fn explain(&self, mode: engine::Mode) -> (Explanation, Timeline) {
        let timeline = self.time(mode);
        let program = &self.compiled.lowered.program;
        let found = Explanation::new(program, &timeline, &self.compiled.placed);
        (found, timeline)
    }
}

#[track_caller]
fn check_sums(words: &str) -> Explanation {
    let case = Case::new(words);
    let (found, timeline) = case.explain(engine::Mode::Folded);
    for ipu in &found.ipus {
        let idle = Cause::ALL.into_iter().filter(|cause| cause.is_idle());
        let idle: u64 = idle.map(|cause| ipu.by_cause.on(cause).0).sum();
        let of = |map: &BTreeMap<String, Causes>| -> u64 {
            map.values().map(|causes| causes.total().0).sum()
        };
        let plain = |map: &BTreeMap<String, Cycles>| map.values().map(|c| c.0).sum::<u64>();
        let step = timeline.total.0;
        assert_eq!(ipu.by_cause.total().0, step, "{words}");
        assert_eq!(of(&ipu.by_kind) + idle, step, "{words}");
        assert_eq!(of(&ipu.by_layer) + idle, step, "{words}");
        assert_eq!(plain(&ipu.by_pass) + idle, step, "{words}");
        assert_eq!(plain(&ipu.by_section), step, "{words}");
        let waited: u64 = ipu.waits.iter().map(|wait| wait.cycles.0).sum();
        assert_eq!(waited, idle, "{words}");
    }
    assert_eq!(found, case.explain(engine::Mode::Unfolded).0, "{words}");
    found
}

fn pipelined(more: &str) -> String {
    format!(
        "{MODEL} --epochs 1 --mask-tokens 4 --optimizer LAMB --execution-mode PIPELINE \
         --gradient-accumulation-factor 24 --batches-per-step 2 --replication-factor 2 \
         --replicated-tensor-sharding true --optimizer-state-offchip true {more}"
    )
}

#[test]
fn every_cycle_of_every_ipu_has_a_cause() {
    let inference = check_sums(&format!(
        "{MODEL} --task SQUAD --inference --num-layers 2 --layers-per-ipu 2"
    ));
    assert!(inference.pipeline.is_none());
    let training = check_sums(&pipelined("--num-layers 2 --layers-per-ipu 1 1"));
    for cause in [
        Cause::Compute,
        Cause::InternalExchange,
        Cause::LayoutChange,
        Cause::SyncAndLaunch,
        Cause::InterIpuCopy,
        Cause::Host,
        Cause::StreamingMemory,
        Cause::Collective,
        Cause::Optimiser,
        Cause::IdleFill,
        Cause::IdleDrain,
        Cause::IdleImbalance,
    ] {
        assert!(training.all_ipus.on(cause) > Cycles::ZERO, "{cause:?}");
    }
    assert_eq!(training.ipus[0].stages, [0, 2, 4]);
}

#[test]
fn waiting_for_the_host_is_seen_where_streams_are_not_made_ready() {
    let words = |io: &str| {
        format!("{MODEL} --task SQUAD --inference --num-layers 1 --layers-per-ipu 1 {io}")
    };
    let late = check_sums(&words("--minimum-latency-inference true"));
    assert!(late.all_ipus.on(Cause::IdleHost) > Cycles::ZERO);
    let ready = check_sums(&words("--low-latency-inference true"));
    assert_eq!(ready.all_ipus.on(Cause::IdleHost), Cycles::ZERO);
}

/// The estimate of a move, against the run in which the layer has moved.
#[test]
fn a_move_wins_what_was_said() {
    let run = |layers: &str| {
        let case = Case::new(&pipelined(&format!(
            "--num-layers 8 --layers-per-ipu {layers}"
        )));
        case.explain(engine::Mode::Folded)
    };
    let (uneven, before) = run("2 6");
    let pipeline = uneven.pipeline.unwrap();
    // Two weight updates; five stages, since the heads come back to IPU 0.
    assert_eq!(pipeline.cycles, 2 * (24 - 4));
    assert_eq!(pipeline.bounds, [0, pipeline.cycles]);
    let found = pipeline.best_move.unwrap();
    assert_eq!((found.from, found.to), (1, 0));
    let (_, after) = run("3 5");
    let saved = 1.0 - after.total.0 as f64 / before.total.0 as f64;
    // Fill and drain get shorter too, which the estimate leaves out.
    assert!(
        saved > found.win && saved < 1.35 * found.win,
        "{saved} {found:?}"
    );
    assert!(pipeline.win_if_even >= found.win);
}

/// Operations counted on the program against those of the graph, and of a program that keeps all.
#[test]
fn utilisation_counts_the_graph_once_and_recomputation_apart() {
    let check = |words: &str| {
        let case = Case::new(words);
        let timeline = case.time(engine::Mode::Folded);
        let program = &case.compiled.lowered.program;
        let used = Utilisation::new(program, &timeline, &case.machine);
        let seconds = case.machine.tile.clock.seconds(timeline.total).0;
        let per_micro_batch: u64 = case
            .compiled
            .matmul_flops
            .values()
            .map(|flops| flops.0)
            .sum();
        let replicas = u64::from(program.n_replicas);
        let expected = per_micro_batch * case.compiled.placed.micro_batches * replicas;
        let found = used.all.model_flops_per_second * seconds;
        assert!((found / expected as f64 - 1.0).abs() < 1e-9, "{words}");
        used
    };
    let again = check(&pipelined("--num-layers 2 --layers-per-ipu 1 1"));
    let ratio = again.all.hardware_share / again.all.model_share;
    assert!((1.05..4.0 / 3.0).contains(&ratio), "{ratio}");
    let one = format!("{MODEL} --epochs 1 --mask-tokens 4 --num-layers 2 --layers-per-ipu 2");
    let kept = check(&format!("{one} --enable-half-partials true"));
    assert_eq!(kept.all.hardware_share, kept.all.model_share);
    assert!(kept.all.model_share > 0.0 && kept.all.model_share < 1.0);
    // Half as much into f32, but for products of one block of channels in, which have partial sums
    // of the result's type; a quarter of f32.
    for (types, part) in [
        ("--enable-half-partials false", 0.5),
        ("--dtype FLOAT", 0.25),
    ] {
        let used = check(&format!("{one} {types}"));
        let found = used.peak_flops_per_second / kept.peak_flops_per_second;
        assert!((found / part - 1.0).abs() < 0.01, "{types}: {found}");
        let share = used.all.model_flops_per_second / used.peak_flops_per_second;
        let n_ipus =
            kept.all.model_flops_per_second / (kept.all.model_share * kept.peak_flops_per_second);
        assert!((used.all.model_share * n_ipus / share - 1.0).abs() < 1e-9);
    }
}

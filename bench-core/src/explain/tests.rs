mod parts;
mod sums;

use std::collections::BTreeSet;

use expect_test::expect;
use ipu_sim::engine::{self, Activity};
use ipu_sim::spec::MachineSpec;
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;

use super::*;
use crate::compile::{Compiled, compile};
use crate::config::RunConfig;
use crate::evaluate::TIMING;
use crate::testing::try_run;
use crate::utilisation::Utilisation;

const MODEL: &str = "--generated-data true --hidden-size 64 --attention-heads 1 \
                     --sequence-length 32 --vocab-length 512 --encoder-start-ipu 0";

/// Products that come in parts.
const SERIAL: &str = "--available-memory-proportion 0.001 \
                      --device-connection-type offline --device-tiles 16";

struct Case {
    config: RunConfig,
    compiled: Compiled,
    machine: MachineSpec,
}

impl Case {
    fn new(words: &str) -> Self {
        Self::try_new(words).unwrap()
    }

    fn try_new(words: &str) -> crate::Result<Self> {
        let (config, machine) = try_run(words)?;
        let plans = PlanCache::new(machine.tile.clone());
        let compiled = compile(&config, &machine, &plans, Watch::nobody())?;
        Ok(Self {
            config,
            compiled,
            machine,
        })
    }

    fn time(&self, mode: engine::Mode) -> Timeline {
        let options = engine::Options { mode, ..TIMING };
        engine::time(&self.compiled.program, &self.machine, options).unwrap()
    }

    fn explain(&self, mode: engine::Mode) -> (Explanation, Timeline) {
        let timeline = self.time(mode);
        let (program, profile) = (&self.compiled.program, &self.compiled.profile);
        let found = Explanation::new(program, profile, &timeline, &self.compiled.placed);
        (found, timeline)
    }
}

/// Mechanisms against what is counted elsewhere: compute sets by the piece, causes and kinds.
#[track_caller]
fn check_mechanisms(ipu: &IpuCycles, timeline: &Timeline, case: &Case) {
    let on = |mechanisms: &[Mechanism]| -> Cycles {
        let cycles = mechanisms.iter().map(|found| ipu.by_mechanism.get(found));
        cycles.flatten().copied().sum()
    };
    let paid = timeline.ipus[IpuId(ipu.ipu)].usage;
    let dispatches = case.machine.compute.dispatch * paid.dispatches;
    assert_eq!(on(&[Mechanism::Dispatch]), dispatches, "dispatch");
    let started = on(&[Mechanism::Dispatch, Mechanism::Launch]);
    assert_eq!(started, ipu.by_cause.on(Cause::SyncAndLaunch), "starts");
    // Nothing but products has these, and products have nothing else.
    let of_products = on(&[
        Mechanism::ProductVertices,
        Mechanism::ProductExchange,
        Mechanism::Reduction,
        Mechanism::Slicing,
        Mechanism::ProductRearrangement,
    ]);
    let products = &ipu.by_kind["matmul"];
    assert_eq!(
        of_products,
        products.total() - products.on(Cause::SyncAndLaunch),
        "products"
    );
    assert_eq!(
        on(&[Mechanism::ProductExchange]),
        products.on(Cause::InternalExchange),
        "exchange of products"
    );
    let rearrangement = on(&[
        Mechanism::ProductRearrangement,
        Mechanism::GradientRearrangement,
        Mechanism::OtherRearrangement,
        Mechanism::CallCopies,
    ]);
    // What a weight update rearranges and adds has the cause of its arithmetic.
    let update = on(&[Mechanism::Optimiser, Mechanism::Collectives]);
    let causes = [Cause::LayoutChange, Cause::Optimiser, Cause::Collective];
    let causes = causes.map(|cause| ipu.by_cause.on(cause));
    // Without accumulation gradients are summed over replicas as the backward pass makes them, and
    // what that adds has the cause of all that is added there.
    let mut added_in_passes = Cycles::ZERO;
    let Compiled {
        program, profile, ..
    } = &case.compiled;
    for (id, times) in timeline.sources.iter() {
        let (line, role) = (&profile.lines[id], program.source(id).role);
        for activity in [Activity::Compute, Activity::Exchange] {
            let mechanism = Mechanism::of(line, role, activity);
            let is_collective = mechanism == Some(Mechanism::Collectives);
            if is_collective && line.phase != Some(Phase::Update) {
                added_in_passes += times[IpuId(ipu.ipu)].spent.on(activity);
            }
        }
    }
    assert_eq!(
        rearrangement + update - added_in_passes,
        causes.into_iter().sum(),
        "moves and updates"
    );
    assert_eq!(on(&[Mechanism::Other]), Cycles::ZERO);
}

fn plain_cycles<K>(map: &BTreeMap<K, Cycles>) -> u64 {
    map.values().map(|cycles| cycles.0).sum()
}

#[track_caller]
fn check_sums(words: &str) -> Explanation {
    check_sums_of(&Case::new(words), words)
}

#[track_caller]
fn check_sums_of(case: &Case, words: &str) -> Explanation {
    let (found, timeline) = case.explain(engine::Mode::Folded);
    for ipu in &found.ipus {
        let idle = Cause::ALL.into_iter().filter(|cause| cause.is_idle());
        let idle: u64 = idle.map(|cause| ipu.by_cause.on(cause).0).sum();
        let of = |map: &BTreeMap<String, Causes>| -> u64 {
            map.values().map(|causes| causes.total().0).sum()
        };
        let step = timeline.total.0;
        assert_eq!(ipu.by_cause.total().0, step, "{words}");
        assert_eq!(plain_cycles(&ipu.by_mechanism) + idle, step, "{words}");
        assert_eq!(of(&ipu.by_kind) + idle, step, "{words}");
        assert_eq!(of(&ipu.by_layer) + idle, step, "{words}");
        assert_eq!(plain_cycles(&ipu.by_pass) + idle, step, "{words}");
        assert_eq!(plain_cycles(&ipu.by_section), step, "{words}");
        check_mechanisms(ipu, &timeline, case);
        let waited: u64 = ipu.waits.iter().map(|wait| wait.cycles.0).sum();
        assert_eq!(waited, idle, "{words}");
    }
    for cause in Cause::ALL {
        let on_ipus = found.ipus.iter().map(|ipu| ipu.by_cause.on(cause)).sum();
        assert_eq!(found.all_ipus.on(cause), on_ipus, "{cause:?} of {words}");
    }
    let all = timeline.total * found.ipus.len() as u64;
    assert_eq!(found.all_ipus.total(), all, "{words}");
    if let Some(pipeline) = &found.pipeline {
        let bounds: u64 = pipeline.bounds.iter().sum();
        assert_eq!(bounds, pipeline.cycles, "{words}");
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
    let serial = format!("{MODEL} --task SQUAD --inference --num-layers 1 {SERIAL}");
    let serial = check_sums(&format!("{serial} --layers-per-ipu 1"));
    let slicing = serial.ipus[0].by_mechanism.get(&Mechanism::Slicing);
    assert!(slicing > Some(&Cycles::ZERO));
}

/// Of every model that the options can ask for, whatever a step spends cycles on; and the part that
/// a line belongs to is the one that its name, which is for people, begins with.
#[test]
fn every_line_of_the_profile_has_a_mechanism_and_the_part_of_its_name() {
    let squad = format!("{MODEL} --task SQUAD --epochs 1 --num-layers 2 --layers-per-ipu 2");
    let activation = |name| format!("{squad} --activation-type {name}");
    let pretraining = pipelined("--num-layers 2 --layers-per-ipu 1 1");
    let update = |name| format!("{pretraining} --optimizer {name}");
    let models = [
        activation("Gelu"),
        activation("SGelu"),
        activation("LRelu"),
        activation("Relu"),
        update("SGD"),
        update("SGD --momentum 0.9"),
        update("ADAM"),
        update("LAMB"),
        format!("{pretraining} --merge-collectives --gradient-reduction-type Mean"),
        format!("{pretraining} --split-linear-layers true --split-qkv true"),
        format!("{pretraining} --embedding-serialization-vocab-steps 2 --projection-bias true"),
        format!("{squad} --attention-bias true --split-qkv true --squad-single-output true"),
        format!("{squad} --inference"),
        format!("{squad} {SERIAL}"),
        format!("{MODEL} --inference --inference-lm-perplexity true --mask-tokens 4"),
    ];
    let mut found = BTreeMap::new();
    for words in models {
        let case = Case::new(&words);
        let Compiled {
            program, profile, ..
        } = &case.compiled;
        for (source, line) in program.sources.values().zip(profile.lines.values()) {
            // What passes add to a tensor's name ends in three underscores.
            let tensor = source.name.rsplit("___").next();
            let scope = tensor.and_then(|tensor| tensor.split('/').next());
            assert_eq!(scope, Some(layer(profile, line)), "{source:?} of {words}");
            for activity in [Activity::Compute, Activity::Exchange] {
                let mechanism = Mechanism::of(line, source.role, activity).unwrap();
                assert_ne!(mechanism, Mechanism::Other, "{source:?} of {words}");
                let kinds: &mut BTreeSet<_> = found.entry(mechanism).or_default();
                kinds.insert(line.kind.name());
            }
        }
    }
    let found = found.iter().map(|(mechanism, kinds)| {
        let kinds: Vec<&str> = kinds.iter().copied().collect();
        format!("{}: {}\n", mechanism.name(), kinds.join(", "))
    });
    expect![[r#"
        AMP vertices: matmul
        operands and partial sums on their way: matmul
        reduction of partials: matmul
        slicing of serial parts: matmul
        rearrangement for products: matmul
        rearrangement of gradients: accumulate
        rearrangement elsewhere: accuracy, adam_moment, add, cast, concat, detach, div, dropout, gelu, gelu_grad, host_output, layer_norm, layer_norm_grad, mul, neg, neg_grad, nll_loss, nll_softmax_grad, pad, reduce_sum, relu, relu_grad, reshape, restore, scale, sgd_momentum, sigmoid, sigmoid_grad, slice, softmax, softmax_grad, square_sum, stash, sub, tanh, transpose
        copies at calls of outlined layers: call_input, call_output
        norms: layer_norm, layer_norm_grad
        softmax, scale and mask of scores: add, scale, sequence_mask, softmax, softmax_grad
        activation functions: gelu, gelu_grad, mul, neg, neg_grad, relu, relu_grad, scale, sigmoid, sigmoid_grad, sub, tanh, tanh_grad
        dropout and its seeds: dropout
        biases, residuals and sums of gradients: add, cast
        reduction of bias gradients: reduce_sum
        gradient accumulation: accumulate
        stash and restore: restore, stash
        embeddings: gather, one_hot, sparse_accumulate
        loss and accuracy: accuracy, div, nll_loss, nll_softmax_grad, softmax
        copies between IPUs: ipu_copy
        host streams: host_input, host_output
        streaming memory: remote_load, remote_store
        collectives: all_gather, all_reduce, local_slice, multi_all_gather, multi_all_reduce, multi_reduce_scatter, reduce_scatter
        optimiser arithmetic: adam_moment, adam_update, adam_updater, add, cast, lamb_update, scale, sgd_momentum, sgd_update, square_sum, zero
    "#]].assert_eq(&found.collect::<String>());
}

#[test]
fn waiting_for_the_host_is_seen_where_streams_are_not_made_ready() {
    let words = |io: &str| {
        format!("{MODEL} --task SQUAD --inference --num-layers 1 --layers-per-ipu 1 {io}")
    };
    let late = check_sums(&words("--minimum-latency-inference true"));
    let ready = check_sums(&words("--low-latency-inference true"));
    // All that is left is the start of the run: 2 ms at 1.325 GHz.
    let start = Cycles(2_650_000);
    assert_eq!(ready.all_ipus.on(Cause::IdleHost), start);
    assert!(late.all_ipus.on(Cause::IdleHost) > start);
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

/// Where half layers are placed, it is of them that a move is estimated.
#[test]
fn a_move_of_half_a_layer_wins_what_was_said() {
    let run = |groups: &str| {
        let words = pipelined(&format!("--num-layers 4 --att-ffn-placement {groups}"));
        let case = Case::new(&words.replace("--encoder-start-ipu 0", ""));
        case.explain(engine::Mode::Folded)
    };
    let (uneven, before) = run("[[1,[4,3]],[0,[0,1]]]");
    let pipeline = uneven.pipeline.unwrap();
    assert_eq!(pipeline.movable, pipeline::Movable::HalfLayer);
    assert_eq!(pipeline.bounds, [0, pipeline.cycles]);
    let found = pipeline.best_move.unwrap();
    assert_eq!((found.from, found.to), (1, 0));
    let (_, after) = run("[[1,[3,3]],[0,[1,1]]]");
    let saved = 1.0 - after.total.0 as f64 / before.total.0 as f64;
    // A whole layer would be about twice as much.
    assert!(
        saved > 0.8 * found.win && saved < 1.35 * found.win,
        "{saved} {found:?}"
    );
}

/// Operations counted on the program against those of the graph, and of a program that keeps all.
#[test]
fn utilisation_counts_the_graph_once_and_recomputation_apart() {
    let check = |words: &str| {
        let case = Case::new(words);
        let timeline = case.time(engine::Mode::Folded);
        let program = &case.compiled.program;
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

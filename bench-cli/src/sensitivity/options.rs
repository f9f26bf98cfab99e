//! Every option that claims an effect has one: set, it changes what a run shows, in the direction
//! that it promises where it promises one.

use std::collections::BTreeSet;

use crate::args::spec::Support;
use crate::args::{self, table};
use crate::clock::Date;
use crate::compile;
use crate::log::{self, Process};
use crate::metrics::Metrics;
use crate::request::{Prepared, prepare};
use crate::run;

/// Where the effect shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// A step takes less time.
    Faster,
    /// A step takes more time.
    Slower,
    /// The fullest tile is fuller.
    MoreMemory,
    /// The fullest tile is less full.
    LessMemory,
    /// The program is another one.
    Program,
    /// The log, or a note, says something else.
    Log,
    /// The resolved configuration, which a run leaves in its folder.
    Folder,
}

use Shows::{Faster, Folder, LessMemory, Log, MoreMemory, Program, Slower};

const TRAIN: &str = "--generated-data true --hidden-size 64 --attention-heads 1 \
                     --sequence-length 32 --vocab-length 512 --mask-tokens 4 \
                     --encoder-start-ipu 0 --batches-per-step 2 --epochs 1";
const LAMB: &str = "--optimizer LAMB --replication-factor 2";
const PIPELINE: &str = "--num-layers 4 --layers-per-ipu 2 --execution-mode PIPELINE \
                        --gradient-accumulation-factor 8";
const LINEAR: &str = "--learning-rate-function Linear --lr-warmup-steps 4 --epochs 8";
const INFER: &str = "--generated-data true --hidden-size 256 --attention-heads 4 \
                     --sequence-length 64 --vocab-length 512 --task SQUAD --inference \
                     --encoder-start-ipu 0 --num-layers 1 --layers-per-ipu 1 \
                     --batches-per-step 4 --micro-batch-size 8";

/// Option, words that set it, the other words of the run, and where it shows.
type Row = (&'static str, &'static str, &'static [&'static str], Shows);

const ROWS: &[Row] = &[
    ("--micro-batch-size", "4", &[TRAIN], MoreMemory),
    ("--sequence-length", "64", &[TRAIN], Slower),
    ("--max-positional-length", "1024", &[TRAIN], Program),
    ("--mask-tokens", "16", &[TRAIN], Slower),
    ("--vocab-length", "2048", &[TRAIN], Slower),
    ("--hidden-size", "256", &[TRAIN], Slower),
    ("--ff-size", "1024", &[TRAIN], Slower),
    ("--attention-heads", "2", &[TRAIN], Program),
    ("--inference", "true", &["--task SQUAD", TRAIN], Faster),
    ("--num-layers", "4 --layers-per-ipu 4", &[TRAIN], Slower),
    ("--encoder-start-ipu", "1", &[TRAIN], Program),
    ("--layers-per-ipu", "1 1", &[TRAIN], Program),
    ("--available-memory-proportion", "0.01", &[INFER], Slower),
    (
        "--recompute-checkpoint-every-layer",
        "false",
        &[TRAIN, PIPELINE],
        Program,
    ),
    ("--no-dropout", "true", &[TRAIN], Faster),
    ("--no-attn-dropout", "true", &[TRAIN], Faster),
    ("--dropout-prob", "0.2", &[TRAIN], Program),
    ("--layer-norm-eps", "0.1", &[TRAIN], Program),
    ("--task", "SQUAD", &[TRAIN], Faster),
    ("--split-qkv", "true", &[TRAIN], Program),
    ("--dtype", "FLOAT", &[TRAIN], MoreMemory),
    (
        "--embedding-serialization-vocab-steps",
        "2",
        &[TRAIN],
        Program,
    ),
    (
        "--use-default-available-memory-proportion",
        "true",
        &[INFER, "--available-memory-proportion 0.01"],
        Faster,
    ),
    (
        "--execution-mode",
        "PIPELINE",
        &[
            TRAIN,
            "--num-layers 2 --layers-per-ipu 1 --gradient-accumulation-factor 16",
        ],
        Faster,
    ),
    ("--virtual-graph", "", &[TRAIN, PIPELINE], Slower),
    (
        "--pipeline",
        "",
        &[
            TRAIN,
            "--num-layers 2 --layers-per-ipu 1 --gradient-accumulation-factor 16",
        ],
        Faster,
    ),
    ("--global-batch-size", "8", &[TRAIN], Slower),
    ("--gradient-accumulation-factor", "8", &[TRAIN], Slower),
    ("--replication-factor", "4", &[TRAIN], Slower),
    ("--optimizer", "ADAM", &[TRAIN, LAMB], Faster),
    ("--learning-rate", "0.5", &[TRAIN], Log),
    ("--loss-scaling", "128", &[TRAIN], Program),
    ("--weight-decay", "0.1", &[TRAIN], Program),
    ("--momentum", "0.5", &[TRAIN], Program),
    ("--dampening", "0.5", &[TRAIN], Program),
    ("--velocity-scaling", "0.5", &[TRAIN], Program),
    ("--beta1", "0.5", &[TRAIN, LAMB], Program),
    ("--beta2", "0.5", &[TRAIN, LAMB], Program),
    ("--max-weight-norm", "2", &[TRAIN, LAMB], Program),
    ("--epochs-inference", "3", &[INFER], Log),
    ("--stochastic-rounding", "true", &[TRAIN], Folder),
    (
        "--gradient-reduction-type",
        "Mean",
        &[TRAIN, "--gradient-accumulation-factor 4"],
        Program,
    ),
    (
        "--learning-rate-function",
        "Linear --lr-warmup-steps 4 --epochs 8",
        &[TRAIN],
        Log,
    ),
    ("--epochs", "3", &[TRAIN], Log),
    ("--training-steps", "3", &["--generated-data true"], Log),
    ("--lr-warmup-start", "0.1", &[TRAIN, LINEAR], Log),
    ("--lr-warmup-steps", "2", &[TRAIN, LINEAR], Log),
    ("--lr-steps-per-warmup-update", "2", &[TRAIN, LINEAR], Log),
    ("--lr-steps-per-decay-update", "3", &[TRAIN, LINEAR], Log),
    ("--lr-schedule-by-epoch", "0:0.5", &[TRAIN], Log),
    ("--lr-schedule-by-step", "0:0.5", &[TRAIN], Log),
    ("--generated-data", "false", &[TRAIN], Log),
    ("--batches-per-step", "4", &[TRAIN], Slower),
    (
        "--no-outlining",
        "true",
        &[TRAIN, "--num-layers 2 --layers-per-ipu 2"],
        MoreMemory,
    ),
    ("--no-validation", "true", &[TRAIN], Log),
    (
        "--low-latency-inference",
        "true",
        &[INFER, "--minimum-latency-inference true"],
        Folder,
    ),
    ("--minimum-latency-inference", "true", &[INFER], Slower),
    ("--group-host-syncs", "true", &[TRAIN], Folder),
    ("--optimizer-state-offchip", "true", &[TRAIN, LAMB], Slower),
    (
        "--replicated-tensor-sharding",
        "true",
        &[TRAIN, LAMB],
        LessMemory,
    ),
    ("--enable-half-partials", "true", &[INFER], Faster),
    ("--report-hw-cycle-count", "", &[TRAIN], Log),
    ("--steps-per-log", "2", &[TRAIN, "--epochs 4"], Log),
    ("--no-model-save", "true", &[TRAIN], Log),
    ("--checkpoint-dir", "elsewhere", &[TRAIN], Folder),
    ("--log-level", "ERROR", &[TRAIN], Log),
];

/// Options whose effect other tests show: which device a run gets, and where its words are.
const ELSEWHERE: &[&str] = &[
    "--device-id",
    "--device-connection-type",
    "--device-ondemand-timeout",
    "--config",
];

#[test]
fn every_option_that_acts_has_its_row() {
    let acting = table::options().filter(|option| option.support == Support::Acts);
    let acting: BTreeSet<&str> = acting.map(|option| option.name).collect();
    let rows = ROWS.iter().map(|(name, ..)| *name);
    let shown: BTreeSet<&str> = rows.chain(ELSEWHERE.iter().copied()).collect();
    assert_eq!(acting, shown);
}

fn words(parts: &[&str]) -> Prepared {
    let words = parts.iter().flat_map(|part| part.split_whitespace());
    let given = args::parse(words.map(String::from)).unwrap();
    prepare(&given, Date::now()).unwrap()
}

fn program(prepared: &Prepared) -> String {
    let request = &prepared.request;
    let compiled = compile::compile(&request.options, &request.machine.spec).unwrap();
    ipu_sim::text::print(&compiled.lowered.program)
}

/// Lines that are printed, and notes; host times left out.
fn said(prepared: &Prepared, metrics: &Metrics) -> Vec<String> {
    let mut metrics = metrics.clone();
    metrics.host_seconds = Default::default();
    let process = Process {
        hostname: "host".into(),
        command: Vec::new(),
    };
    let request = &prepared.request;
    let before = log::before_compile(request, prepared.accumulation_set, &process);
    let least = request.options.output.log_level;
    let lines = before
        .into_iter()
        .chain(log::after_compile(&request.options, &metrics));
    let lines = lines
        .filter(|line| line.level >= least)
        .map(|line| line.text);
    lines.chain(prepared.notes.iter().cloned()).collect()
}

fn holds(&(name, value, others, shows): &Row) -> bool {
    let before = words(others);
    let set = format!("{name} {value}");
    let after = words(&[others, &[set.as_str()]].concat());
    match shows {
        Program => return program(&before) != program(&after),
        Folder => return before.request.options != after.request.options,
        Faster | Slower | MoreMemory | LessMemory | Log => {}
    }
    let [a, b] = [&before, &after].map(|run| run::simulate(&run.request).unwrap());
    match shows {
        Faster => b.step_seconds < a.step_seconds,
        Slower => b.step_seconds > a.step_seconds,
        MoreMemory => b.fullest_tile() > a.fullest_tile(),
        LessMemory => b.fullest_tile() < a.fullest_tile(),
        Log | Program | Folder => said(&before, &a) != said(&after, &b),
    }
}

#[test]
fn every_option_that_acts_shows_it() {
    // Threads of our own: a device's thread shares the pool that compiles.
    let failed: Vec<String> = std::thread::scope(|scope| {
        let chunks = ROWS.chunks(ROWS.len().div_ceil(4));
        let threads: Vec<_> = chunks
            .map(|rows| scope.spawn(|| rows.iter().filter(|row| !holds(row)).collect::<Vec<_>>()))
            .collect();
        let rows = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        rows.map(|row| format!("{row:?}")).collect()
    });
    assert!(failed.is_empty(), "{failed:#?}");
}

/// With a smaller share of tile memory for temporary data, plans never use more of it.
#[test]
fn a_smaller_memory_proportion_never_takes_more_temporary_memory() {
    let shares = ["0.6", "0.4", "0.2", "0.1", "0.05", "0.02"];
    let temporary = |share: &&str| {
        let run = words(&[INFER, "--available-memory-proportion", share]);
        let metrics = run::simulate(&run.request).unwrap();
        let tiles = metrics.ipus.iter().map(|ipu| {
            let by_category = &ipu.fullest_tile.bytes_by_category;
            by_category["not_always_live"].0
        });
        tiles.max().unwrap()
    };
    let found: Vec<u64> = shares.iter().map(temporary).collect();
    assert!(found.is_sorted_by(|more, less| more >= less), "{found:?}");
}

//! Options that promise a direction keep it: set, they make a step shorter or longer, or the
//! fullest tile fuller or less full. (That every option does something at all, `tests/options/main.rs`
//! shows.)

use popart_graph::plan::PlanCache;

use crate::evaluate::evaluate;
use crate::metrics::Metrics;
use crate::testing::run;

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
}

use Shows::{Faster, LessMemory, MoreMemory, Slower};

const TRAIN: &str = "--generated-data true --hidden-size 64 --attention-heads 1 \
                     --sequence-length 32 --vocab-length 512 --mask-tokens 4 \
                     --encoder-start-ipu 0 --batches-per-step 2 --epochs 1";
const LAMB: &str = "--optimizer LAMB --replication-factor 2";
const PIPELINE: &str = "--num-layers 4 --layers-per-ipu 2 --execution-mode PIPELINE \
                        --gradient-accumulation-factor 8";
const INFER: &str = "--generated-data true --hidden-size 256 --attention-heads 4 \
                     --sequence-length 64 --vocab-length 512 --task SQUAD --inference \
                     --encoder-start-ipu 0 --num-layers 1 --layers-per-ipu 1 \
                     --batches-per-step 4 --micro-batch-size 8";

/// Option, words that set it, the other words of the run, and where it shows.
type OptionCase = (&'static str, &'static str, &'static [&'static str], Shows);

const ROWS: &[OptionCase] = &[
    ("--micro-batch-size", "4", &[TRAIN], MoreMemory),
    ("--sequence-length", "64", &[TRAIN], Slower),
    ("--mask-tokens", "16", &[TRAIN], Slower),
    ("--vocab-length", "2048", &[TRAIN], Slower),
    ("--hidden-size", "256", &[TRAIN], Slower),
    ("--ff-size", "1024", &[TRAIN], Slower),
    ("--inference", "true", &["--task SQUAD", TRAIN], Faster),
    ("--num-layers", "4 --layers-per-ipu 4", &[TRAIN], Slower),
    ("--available-memory-proportion", "0.01", &[INFER], Slower),
    ("--no-dropout", "true", &[TRAIN], Faster),
    ("--no-attn-dropout", "true", &[TRAIN], Faster),
    ("--task", "SQUAD", &[TRAIN], Faster),
    ("--dtype", "FLOAT", &[INFER], MoreMemory),
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
    ("--execution-mode", "DEFAULT", &[TRAIN, PIPELINE], Slower),
    (
        "--execution-mode",
        "PIPELINE",
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
    ("--batches-per-step", "4", &[TRAIN], Slower),
    (
        "--no-outlining",
        "true",
        &[TRAIN, "--num-layers 2 --layers-per-ipu 2"],
        MoreMemory,
    ),
    ("--minimum-latency-inference", "true", &[INFER], Slower),
    ("--optimizer-state-offchip", "true", &[TRAIN, LAMB], Slower),
    (
        "--replicated-tensor-sharding",
        "true",
        &[TRAIN, LAMB, "--hidden-size 512 --attention-heads 8"],
        LessMemory,
    ),
    ("--enable-half-partials", "true", &[INFER], Faster),
    ("--gradient-clipping-norm", "1", &[TRAIN, LAMB], Slower),
    ("--reduce-nsp-overhead", "true", &[TRAIN], Faster),
    ("--lamb-accl-dtype", "FLOAT16", &[TRAIN, LAMB], LessMemory),
];

fn measure(parts: &[&str]) -> Metrics {
    let (config, machine) = run(&parts.join(" "));
    evaluate(&config, &machine, &PlanCache::new(machine.tile.clone())).unwrap()
}

fn holds(&(name, value, others, shows): &OptionCase) -> bool {
    let set = format!("{name} {value}");
    let (a, b) = (
        measure(others),
        measure(&[others, &[set.as_str()]].concat()),
    );
    match shows {
        Faster => b.step_seconds < a.step_seconds,
        Slower => b.step_seconds > a.step_seconds,
        MoreMemory => b.fullest_tile() > a.fullest_tile(),
        LessMemory => b.fullest_tile() < a.fullest_tile(),
    }
}

#[test]
fn options_keep_their_direction() {
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
        let metrics = measure(&[INFER, "--available-memory-proportion", share]);
        let tiles = metrics.ipus.iter().map(|ipu| -> u64 {
            let by_category = ipu.fullest_tile.bytes_by_category.iter();
            let passing = by_category.filter(|(name, _)| name.starts_with("not_always_live."));
            passing.map(|(_, bytes)| bytes.0).sum()
        });
        tiles.max().unwrap()
    };
    let found: Vec<u64> = shares.iter().map(temporary).collect();
    assert!(found.is_sorted_by(|more, less| more >= less), "{found:?}");
}

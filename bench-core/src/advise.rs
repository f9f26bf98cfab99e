//! What would make a model fit that doesn't: settings to change, each of them tried.
//!
//! A trial compiles the run with the change for the same machine and weighs it; nothing is
//! guessed from sizes. Trials run side by side, and plan only those products that the run itself
//! hadn't. If no single change is enough, they are tried together. Only so many trials are made that
//! all of them compile [`OPERATIONS_MAX`] operations, none of a model that has more: a count and not
//! a time, so that the answer is the same on every computer. What a model has is estimated before.
//!
//! Left out: changes of the model itself (layers, widths, sequence length), and other machines.

use bert_model::config::VOCAB_STEPS_MAX;
use bert_model::optim::OptimizerKind;
use bert_model::placement::{
    EncoderMemory, EncoderPlacement, HalvesPerStage, LayersPerIpu, Recomputation,
};
use ipu_sim::spec::MachineSpec;
use ipu_sim::threads;
use ipu_sim::weigh::{self, Region};
use popart_graph::passes::{Outlining, Sharding, StateMemory, Watch};
use popart_graph::plan::PlanCache;

use crate::compile::{compile, model};
use crate::config::RunConfig;
use crate::error::Error;
use crate::metrics::RegionUse;

/// A changed run that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The run with its change.
    pub config: RunConfig,
    /// Use of the region of tile memory that is too small, or if it fits, of the one that was too
    /// small before; none if it couldn't even be compiled.
    pub used: Option<RegionUse>,
    /// Whether every tile holds what is placed on it.
    pub fits: bool,
}

/// How many operations all trials together compile: fifteen times those of BERT-Large in training.
/// They take some seconds and less than a gibibyte.
pub const OPERATIONS_MAX: usize = 150_000;

/// Operations that compiling makes at most of one of the model, about: inference adds copies between
/// IPUs, training gradients and updates. Counted, as the test below does.
const OPERATIONS_INFERENCE: usize = 2;
const OPERATIONS_TRAINING: usize = 6;

/// As [`OPERATIONS_TRAINING`], where every weight has norms of its own.
const OPERATIONS_LAMB: usize = 12;

/// Changes of a run that could make it fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// Changed runs that were tried.
    pub trials: Vec<Trial>,
    /// How many settings were not, for that would have taken too long.
    pub untried: usize,
}

/// Settings that could make the run fit, each tried. Of the smaller micro-batches, and of fewer
/// layers on an IPU, only the largest that fits is kept, or else the smallest. `overflow` is the
/// region that is too small as it is; none where the run couldn't even be compiled. `plans` are
/// those that the run made. `tried` hears of every run that was tried, from several threads.
#[must_use]
pub fn advice(
    config: &RunConfig,
    overflow: Option<RegionUse>,
    machine: &MachineSpec,
    plans: &PlanCache,
    tried: &(dyn Fn() + Sync),
) -> Advice {
    let trials = OPERATIONS_MAX / operations(config).max(1);
    within(config, overflow, machine, plans, trials, tried)
}

/// About how many operations a run compiles; none if its model can't be built, which costs nothing
/// to find out.
fn operations(config: &RunConfig) -> usize {
    let each = match config.optimizer.kind {
        _ if config.is_inference() => OPERATIONS_INFERENCE,
        OptimizerKind::Lamb(_) => OPERATIONS_LAMB,
        OptimizerKind::Adam(_) | OptimizerKind::Sgd => OPERATIONS_TRAINING,
    };
    let of_model = model(config).map_or(0, |model| model.graph.ops.len());
    of_model.saturating_mul(each)
}

/// Advice of at most so many trials.
fn within(
    config: &RunConfig,
    now: Option<RegionUse>,
    machine: &MachineSpec,
    plans: &PlanCache,
    mut left: usize,
    tried: &(dyn Fn() + Sync),
) -> Advice {
    let region = now.map_or(Region::Tile, |used| used.region);
    let attempt = |changed: &RunConfig| {
        let trial = attempt(changed, machine, plans, region);
        tried();
        trial
    };
    let mut sequences = [smaller_micro_batches(config), fewer_layers(config, machine)];
    let mut changes = other_changes(config);
    let untried = shorten(&mut sequences, &mut changes, &mut left);
    // What changes nothing where it is too full can't help, alone or with others.
    let matters = |trial: &Trial| trial.used.is_none() || trial.used != now;
    let changed = |change: &Change| {
        let mut changed = config.clone();
        change.apply(&mut changed);
        changed
    };
    let (smaller, others) = threads::join(
        || -> Vec<Trial> {
            let tried = threads::map(&sequences, |changes| {
                largest_that_fits(changes, |change| attempt(&changed(change)))
            });
            tried.into_iter().flatten().collect()
        },
        || -> Vec<(&Change, Trial)> {
            let tried = threads::map(&changes, |change| attempt(&changed(change)));
            let tried = changes.iter().zip(tried);
            let tried = tried.filter_map(|(change, trial)| Some((change, trial?)));
            tried.filter(|(_, trial)| matters(trial)).collect()
        },
    );
    let helps = |trial: &Trial| match (trial.used, now) {
        (Some(used), Some(now)) => used.bytes < now.bytes,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let helping = others.iter().filter(|(_, trial)| helps(trial));
    let helping: Vec<&Change> = helping.map(|(change, _)| *change).collect();
    let mut trials: Vec<Trial> = smaller
        .into_iter()
        .chain(others.iter().map(|(_, trial)| trial.clone()))
        .collect();
    if left > 0 && !trials.iter().any(|trial| trial.fits) {
        // All that helps at once, with the smallest of each sequence.
        let smallest = sequences.iter().filter_map(|changes| changes.last());
        let mut together = config.clone();
        for change in helping.into_iter().chain(smallest) {
            change.apply(&mut together);
        }
        trials.extend(attempt(&together));
    }
    Advice { trials, untried }
}

/// Cuts changes down to what at most `left` trials try, and takes those from it: the least of each
/// sequence, then the others in order, then more of the sequences. Gives how many changes went.
fn shorten(sequences: &mut [Vec<Change>], others: &mut Vec<Change>, left: &mut usize) -> usize {
    let mut take = |wanted: usize| {
        let taken = wanted.min(*left);
        *left -= taken;
        taken
    };
    let all = |sequences: &[Vec<Change>], others: &[Change]| {
        sequences.iter().map(Vec::len).sum::<usize>() + others.len()
    };
    let before = all(sequences, others);
    let mut steps: Vec<usize> = sequences
        .iter()
        .map(|changes| take(changes.len().min(1)))
        .collect();
    others.truncate(take(others.len()));
    for (changes, steps) in sequences.iter_mut().zip(&mut steps) {
        // Halving finds one of `2^n - 1` in `n` steps.
        let wanted = changes
            .len()
            .checked_ilog2()
            .map_or(0, |log| log as usize + 1);
        *steps += take(wanted.saturating_sub(*steps));
        let kept = changes.len().min((1 << *steps) - 1);
        changes.drain(..changes.len() - kept);
    }
    before - all(sequences, others)
}

/// The first of `changes`, each smaller than the one before, that fits; else the last one. Found
/// by halving, since less takes less memory.
fn largest_that_fits(
    changes: &[Change],
    attempt: impl Fn(&Change) -> Option<Trial>,
) -> Option<Trial> {
    let (mut first, mut end) = (0, changes.len());
    let mut best = None;
    while first < end {
        let middle = first + (end - first) / 2;
        let tried = attempt(&changes[middle]);
        if tried.as_ref().is_some_and(|trial| trial.fits) {
            best = tried;
            end = middle;
        } else {
            // The last one is reached only if nothing larger fits.
            if middle + 1 == changes.len() {
                best = tried;
            }
            first = middle + 1;
        }
    }
    best
}

/// A change of one setting.
#[derive(Clone, Debug, PartialEq)]
enum Change {
    /// Micro-batches of so many sequences, with as many behind a weight update.
    MicroBatch(u32),
    /// The encoder on more IPUs: fewer layers on each, or fewer halves of layers where those are
    /// placed.
    Encoder(EncoderPlacement),
    /// State of the optimiser in streaming memory.
    StateOffChip,
    /// State of the optimiser shared out between replicas.
    ShardedState,
    /// Partial sums of matrix products in `f16`.
    HalfPartials,
    /// Code that equal layers share.
    Outlining,
    /// Other checkpoints of recomputation.
    Checkpoints(Recomputation),
    /// Shares of tile memory for temporary data of matrix products.
    Memory(EncoderMemory),
    /// So many pieces of the word table.
    VocabularySteps(u32),
}

impl Change {
    fn apply(&self, config: &mut RunConfig) {
        match self {
            Self::MicroBatch(size) => {
                // An odd micro-batch leaves a remainder: the global batch then changes, too.
                if !config.is_inference() {
                    let smaller = config.model.micro_batch / size;
                    let accumulation = &mut config.batching.accumulation;
                    *accumulation = accumulation.saturating_mul(smaller);
                }
                config.model.micro_batch = *size;
            }
            Self::Encoder(encoder) => {
                let ipus = encoder.memory_shares(config.model.num_layers);
                let placement = &mut config.placement;
                // More IPUs have the share of the last that had any.
                if let (EncoderMemory::PerIpu(shares), Ok(ipus)) = (&mut placement.memory, ipus)
                    && let [_, .., last] = *shares.as_slice()
                {
                    shares.resize(shares.len().max(ipus as usize), last);
                }
                placement.encoder = encoder.clone();
            }
            Self::StateOffChip => config.state.memory = StateMemory::OffChip,
            Self::ShardedState => config.state.sharding = Sharding::On,
            Self::HalfPartials => config.model.half_partials = true,
            Self::Outlining => config.session.outlining = Outlining::On,
            Self::Checkpoints(kept) => config.placement.recomputation = *kept,
            Self::Memory(memory) => config.placement.memory = memory.clone(),
            Self::VocabularySteps(steps) => config.model.vocab_steps = *steps,
        }
    }
}

/// Halves of the micro-batch, down to one.
fn smaller_micro_batches(config: &RunConfig) -> Vec<Change> {
    let halved = |size: &u32| Some(size / 2);
    let smaller = std::iter::successors(Some(config.model.micro_batch / 2), halved);
    let smaller = smaller.take_while(|size| *size > 0);
    smaller.map(Change::MicroBatch).collect()
}

/// Half as many layers on an IPU, down to one, for which the machine has the IPUs; of a placement of
/// half layers as many half layers, down to one.
fn fewer_layers(config: &RunConfig, machine: &MachineSpec) -> Vec<Change> {
    let num_layers = config.model.num_layers;
    let halved = |count: &u32| (*count > 1).then(|| count.div_ceil(2));
    let counts = |most: u32| std::iter::successors(halved(&most), halved);
    let placements: Vec<EncoderPlacement> = match &config.placement.encoder {
        EncoderPlacement::Layers(layers) => {
            let most = layers.layers_per_ipu.iter().max();
            let most = most.map_or(1, |most| (*most).min(num_layers));
            let with = |each| LayersPerIpu {
                layers_per_ipu: vec![each],
                ..layers.clone()
            };
            let placements = counts(most).map(with);
            placements.map(EncoderPlacement::Layers).collect()
        }
        EncoderPlacement::Halves(halves) => {
            let sizes = halves.by_ipu().into_values();
            let sizes = sizes.map(|of_ipu| of_ipu.attention.saturating_add(of_ipu.feed_forward));
            let placements = counts(sizes.max().unwrap_or(1));
            let placements = placements.map(|each| HalvesPerStage::evenly(num_layers, each));
            placements.map(EncoderPlacement::Halves).collect()
        }
    };
    let changes = placements.into_iter().map(Change::Encoder);
    changes
        .filter(|change| {
            let mut changed = config.clone();
            change.apply(&mut changed);
            changed.check().is_ok() && changed.ipus_requested() <= machine.n_ipus
        })
        .collect()
}

fn other_changes(config: &RunConfig) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let trains = !config.is_inference();
    if trains && config.state.memory == StateMemory::OnChip {
        changes.push(Change::StateOffChip);
    }
    if trains && config.batching.replicas > 1 && config.state.sharding == Sharding::Off {
        changes.push(Change::ShardedState);
    }
    if !config.model.half_partials {
        changes.push(Change::HalfPartials);
    }
    if config.session.outlining == Outlining::Off {
        changes.push(Change::Outlining);
    }
    if trains && config.is_pipelined() {
        changes.push(Change::Checkpoints(match config.placement.recomputation {
            Recomputation::FromEveryLayer | Recomputation::FromEveryBlock => {
                Recomputation::FromStageInput
            }
            Recomputation::FromStageInput | Recomputation::Off => match &config.placement.encoder {
                EncoderPlacement::Layers(_) => Recomputation::FromEveryLayer,
                EncoderPlacement::Halves(_) => Recomputation::FromEveryBlock,
            },
        }));
    }
    let shares = match &config.placement.memory {
        EncoderMemory::PerIpu(shares) => shares.iter().map(|share| share / 2.0).collect(),
        EncoderMemory::PoplibsDefault => vec![0.15],
    };
    changes.push(Change::Memory(EncoderMemory::PerIpu(shares)));
    let (steps, vocabulary) = (config.model.vocab_steps, config.model.vocab_length);
    let most = vocabulary.min(VOCAB_STEPS_MAX);
    let more = (steps.saturating_mul(2)..=most).find(|more| vocabulary.is_multiple_of(*more));
    changes.extend(more.map(Change::VocabularySteps));
    changes
}

/// Compiles and weighs a changed run; none if the change doesn't go with the rest. If it fits, it
/// says what it takes of `region`.
fn attempt(
    config: &RunConfig,
    machine: &MachineSpec,
    plans: &PlanCache,
    region: Region,
) -> Option<Trial> {
    config.check().ok()?;
    if config.ipus_requested() > machine.n_ipus {
        return None;
    }
    let program = match compile(config, machine, plans, Watch::nobody()) {
        Ok(compiled) => compiled.program,
        // Too large to be compiled is an answer; anything else means that it can't be asked.
        Err(Error::TooLarge(_)) => {
            return Some(Trial {
                config: config.clone(),
                used: None,
                fits: false,
            });
        }
        Err(_) => return None,
    };
    let weight = weigh::weigh(&program, machine).ok()?;
    let too_much = RegionUse::too_much(&weight);
    Some(Trial {
        config: config.clone(),
        used: Some(too_much.unwrap_or_else(|| RegionUse::of(&weight, region))),
        fits: weigh::fits(&program, machine, &weight).is_ok(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use popart_graph::ir::Graph;

    use super::*;
    use crate::testing::run;

    const LAYERS_512: &str = "--epochs 1 --num-layers 512 --layers-per-ipu 16 \
        --execution-mode PIPELINE --gradient-accumulation-factor 1024 --optimizer LAMB \
        --system mk2-pod64";

    /// A model that is too large for 16 tiles an IPU.
    const LARGE: &str = "--task SQUAD --inference --num-layers 2 --layers-per-ipu 2 \
        --encoder-start-ipu 0 --hidden-size 128 --attention-heads 2 --sequence-length 64 \
        --vocab-length 512 --batches-per-step 2";

    /// A run of that model on a machine of such IPUs.
    fn large(more: &str) -> (RunConfig, MachineSpec) {
        let (config, machine) = run(&format!("{LARGE} {more}"));
        let machine = machine.scaled_down(machine.n_ipus, 16).unwrap();
        (config, machine)
    }

    fn plans_for(machine: &MachineSpec) -> PlanCache {
        PlanCache::new(machine.tile.clone())
    }

    fn weigh_run(config: &RunConfig, machine: &MachineSpec) -> weigh::MemoryUsage {
        let compiled = compile(config, machine, &plans_for(machine), Watch::nobody()).unwrap();
        weigh::weigh(&compiled.program, machine).unwrap()
    }

    /// The region that is too small for a run.
    fn overflow(config: &RunConfig, machine: &MachineSpec) -> Option<RegionUse> {
        RegionUse::too_much(&weigh_run(config, machine))
    }

    #[test]
    fn what_is_said_to_help_does() {
        let (config, machine) = large("--micro-batch-size 64");
        let now = overflow(&config, &machine);
        assert!(now.is_some());
        let plans = plans_for(&machine);
        let tried = AtomicUsize::new(0);
        let count = || {
            tried.fetch_add(1, Ordering::Relaxed);
        };
        let found = advice(&config, now, &machine, &plans, &count);
        assert_eq!(found.untried, 0);
        // What is answered with, and the steps on the way there.
        assert!(tried.into_inner() > found.trials.len());
        // Plans that are known already change nothing.
        assert!(!plans.is_empty());
        assert_eq!(advice(&config, now, &machine, &plans, &|| {}), found);
        let helping = found.trials.iter().filter(|trial| trial.fits);
        let helping: Vec<&Trial> = helping.collect();
        assert!(!helping.is_empty(), "{found:#?}");
        for trial in helping {
            let weight = weigh_run(&trial.config, &machine);
            assert!(weight.verdict().is_ok(), "{trial:?}");
        }
    }

    /// What helps is found by the region that is too small, whatever the whole tile holds.
    #[test]
    fn a_small_region_is_what_advice_is_about() {
        let (alike, mut machine) = large("");
        let mut apart = alike.clone();
        apart.session.outlining = Outlining::Off;
        let code = |config: &RunConfig, machine: &MachineSpec| {
            RegionUse::of(&weigh_run(config, machine), Region::Executable).bytes
        };
        let outlined = code(&alike, &machine);
        machine.memory.executable = outlined;
        assert!(code(&apart, &machine) > outlined);
        let now = overflow(&apart, &machine);
        let found = advice(&apart, now, &machine, &plans_for(&machine), &|| {});
        let helps = found.trials.iter().find(|trial| trial.config == alike);
        let expected = RegionUse {
            region: Region::Executable,
            bytes: outlined,
            available: outlined,
        };
        assert_eq!(helps.unwrap().used, Some(expected), "{found:#?}");
        assert!(helps.unwrap().fits);
    }

    /// Fewer layers on an IPU are fewer half layers where those are placed.
    #[test]
    fn half_layers_are_spread_by_halves() {
        let (config, machine) = run(
            "--num-layers 3 --att-ffn-placement [[1,[3,2]],[0,[0,1]]] --optimizer LAMB \
             --execution-mode PIPELINE --gradient-accumulation-factor 32 --system mk2-pod16",
        );
        let spread = fewer_layers(&config, &machine).into_iter().map(|change| {
            let Change::Encoder(EncoderPlacement::Halves(halves)) = change else {
                unreachable!("half layers stay half layers");
            };
            assert_eq!(halves.check(3), Ok(()));
            // A list of shares reaches as far as the IPUs do.
            let mut changed = config.clone();
            changed.placement.memory = EncoderMemory::PerIpu(vec![0.2, 0.3]);
            Change::Encoder(EncoderPlacement::Halves(halves.clone())).apply(&mut changed);
            assert_eq!(changed.check(), Ok(()));
            let sizes = halves.by_ipu().into_values();
            sizes
                .map(|of_ipu| of_ipu.attention + of_ipu.feed_forward)
                .max()
        });
        assert_eq!(spread.collect::<Vec<_>>(), [3, 2, 1].map(Some));
        let kept = other_changes(&config);
        let kept = kept
            .iter()
            .find(|change| matches!(change, Change::Checkpoints(_)));
        let from_stage = Change::Checkpoints(Recomputation::FromStageInput);
        assert_eq!(kept, Some(&from_stage));
    }

    #[test]
    fn the_largest_that_fits_is_found() {
        let changes: Vec<Change> = (0..9).map(Change::MicroBatch).collect();
        for least in 0..=9 {
            let found = largest_that_fits(&changes, |change| {
                let mut config = RunConfig::default();
                let Change::MicroBatch(size) = *change else {
                    unreachable!("all of them are micro-batches");
                };
                config.model.micro_batch = size;
                Some(Trial {
                    config,
                    used: None,
                    fits: size >= least,
                })
            });
            let found = found.unwrap();
            let expected = (least.min(8), least < 9);
            assert_eq!((found.config.model.micro_batch, found.fits), expected);
        }
        assert_eq!(largest_that_fits(&[], |_| None), None);
    }

    /// The more of them the smaller a model is.
    #[test]
    fn large_models_are_tried_less() {
        let (config, machine) = large("--micro-batch-size 64");
        let now = overflow(&config, &machine);
        let plans = plans_for(&machine);
        let one = within(&config, now, &machine, &plans, 1, &|| {});
        assert_eq!(one.trials.len(), 1, "{one:#?}");
        assert_eq!(one.trials[0].config.model.micro_batch, 1);
        let all = advice(&config, now, &machine, &plans, &|| {});
        assert!(one.untried > 0 && all.trials.len() > 1, "{all:#?}");
    }

    /// A run of as many layers as there may be, compiled once, takes seconds and a gibibyte by itself.
    #[test]
    fn the_largest_models_are_not_tried() {
        let (config, machine) = run(LAYERS_512);
        assert_eq!(config.check(), Ok(()));
        let nobody = || unreachable!("nothing is compiled");
        let found = advice(&config, None, &machine, &plans_for(&machine), &nobody);
        assert_eq!(found.trials, []);
        assert!(found.untried > 3, "{found:#?}");
    }

    /// How many trials there are follows from how many operations they will have.
    #[test]
    fn operations_are_estimated() {
        for line in [
            LARGE,
            "--epochs 1 --num-layers 3 --layers-per-ipu 1",
            "--epochs 1 --num-layers 12 --layers-per-ipu 2 --execution-mode PIPELINE \
             --gradient-accumulation-factor 64",
            "--task SQUAD --inference --num-layers 12 --layers-per-ipu 3",
            "--config pretrain_large_128.json --epochs 1",
            "--epochs 1 --num-layers 192 --layers-per-ipu 16 \
             --execution-mode PIPELINE --gradient-accumulation-factor 1024 --system mk2-pod64",
        ] {
            let (config, machine) = run(line);
            let mut compiled = 0;
            let mut count = |_: &str, graph: &Graph| compiled = graph.ops.len();
            let watch = Watch::by(&mut count);
            compile(&config, &machine, &plans_for(&machine), watch).unwrap();
            let estimate = operations(&config);
            let around = compiled..=2 * compiled;
            assert!(
                around.contains(&estimate),
                "{line}: {estimate} for {compiled}"
            );
        }
    }

    #[test]
    fn trials_are_dealt_out() {
        let changes = |n: u32| -> Vec<Change> { (0..n).map(Change::MicroBatch).collect() };
        // What is left of seven and two changes of sequences, and of three others.
        for (trials, expected) in [
            (1, [1, 0, 0]),
            (2, [1, 1, 0]),
            (4, [1, 1, 2]),
            (6, [3, 1, 3]),
            (7, [7, 1, 3]),
            (8, [7, 2, 3]),
            (9, [7, 2, 3]),
        ] {
            let mut sequences = [changes(7), changes(2)];
            let mut others = changes(3);
            let mut left = trials;
            let untried = shorten(&mut sequences, &mut others, &mut left);
            let kept = [sequences[0].len(), sequences[1].len(), others.len()];
            assert_eq!(
                (kept, untried),
                (expected, 12 - expected.iter().sum::<usize>())
            );
            assert_eq!(left, trials.saturating_sub(8));
            // The last ones of a sequence are the least, the first of the others stay.
            assert_eq!(sequences[0].last(), changes(7).last());
            assert!(changes(3).starts_with(&others));
        }
    }
}

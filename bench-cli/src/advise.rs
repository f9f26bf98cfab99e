//! What would make a model fit that doesn't: settings to change, each of them tried.
//!
//! A trial compiles the run with the change for the same machine and weighs it; nothing is
//! guessed from sizes. Trials run side by side, and plan only those products that the run itself
//! hadn't. If no single change is enough, they are tried together. Of a graph of very many
//! operations only so many trials are made that all of them compile [`OPERATIONS_MAX`]: a count and
//! not a time, so that the answer is the same on every computer.
//!
//! Left out: changes of the model itself (layers, widths, sequence length), and other machines.

use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::{self, Region};
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::args::{table, values};
use crate::compile;
use crate::config::BertOptions;
use crate::metrics::Taken;
use crate::request::RunRequest;

/// Options by key with their new values.
type Change = Vec<(&'static str, Value)>;

/// A change that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The options to give, as one would type them.
    pub words: String,
    /// Of the region of tile memory that is too small, or if it fits, of the one that was too small
    /// before; none if it couldn't even be compiled.
    pub taken: Option<Taken>,
    /// Whether every tile holds what is placed on it.
    pub fits: bool,
}

/// How many operations all trials together compile, as far as there is more than one: twenty
/// times those of BERT-Large in training.
pub const OPERATIONS_MAX: usize = 200_000;

/// What could make a run fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// What was tried.
    pub trials: Vec<Trial>,
    /// How many settings were not, for that would have taken too long.
    pub untried: usize,
}

/// Tries what could make the run fit. Of the smaller micro batches, and of fewer layers on an IPU,
/// only the largest that fits is kept, or else the smallest. `plans` are those that the run made.
#[must_use]
pub fn advice(request: &RunRequest, plans: &PlanCache) -> Advice {
    within(request, plans, OPERATIONS_MAX)
}

/// As [`advice`], compiling about `operations_max` operations.
fn within(request: &RunRequest, plans: &PlanCache, operations_max: usize) -> Advice {
    let resolved = &request.resolved;
    let machine = &request.machine.spec;
    let mut operations = 1;
    let unchanged = attempt(
        resolved,
        &Vec::new(),
        machine,
        plans,
        Region::Tile,
        &mut operations,
    );
    let now = unchanged.and_then(|trial| trial.taken);
    let region = now.map_or(Region::Tile, |taken| taken.region);
    let attempt = |change: &Change| attempt(resolved, change, machine, plans, region, &mut 0);
    let mut sequences = [
        smaller_micro_batches(resolved),
        fewer_layers(resolved, &request.options, machine),
    ];
    let mut changes = other_changes(resolved, &request.options);
    let mut left = (operations_max / operations).max(1);
    let untried = shorten(&mut sequences, &mut changes, &mut left);
    // What changes nothing where it is too full can't help, alone or with others.
    let matters = |trial: &Trial| trial.taken.is_none() || trial.taken != now;
    let (smaller, others) = rayon::join(
        || -> Vec<Trial> {
            let tried = sequences.par_iter();
            tried
                .filter_map(|changes| largest_that_fits(changes, attempt))
                .collect()
        },
        || -> Vec<(&Change, Trial)> {
            let tried = changes.par_iter();
            let tried = tried.filter_map(|change| Some((change, attempt(change)?)));
            tried.filter(|(_, trial)| matters(trial)).collect()
        },
    );
    let helps = |trial: &Trial| match (trial.taken, now) {
        (Some(taken), Some(now)) => taken.bytes < now.bytes,
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
        // All that helps at once, with the smallest of each sequence. Later values of a key win.
        let smallest = sequences.iter().filter_map(|changes| changes.last());
        let together = helping.into_iter().chain(smallest).flatten().cloned();
        trials.extend(attempt(&together.collect()));
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

/// Trials as lines for people: what helps first.
#[must_use]
pub fn lines(advice: &Advice) -> Vec<String> {
    let line = |trial: &Trial| {
        let taken = trial.taken.map_or_else(
            || "too large to be compiled".into(),
            |taken| taken.to_string(),
        );
        format!("  {} ({taken})", trial.words)
    };
    let trials = advice.trials.iter();
    let (help, fail): (Vec<&Trial>, Vec<&Trial>) = trials.partition(|trial| trial.fits);
    let mut lines = Vec::new();
    if help.is_empty() {
        lines.push("nothing that was tried makes it fit".into());
    } else {
        lines.push("tried, and fits:".into());
        lines.extend(help.into_iter().map(line));
    }
    if !fail.is_empty() {
        lines.push("tried, and doesn't fit:".into());
        lines.extend(fail.into_iter().map(line));
    }
    if advice.untried > 0 {
        let untried = advice.untried;
        lines.push(format!(
            "not tried, because so large a model takes long to compile: {untried} more settings"
        ));
    }
    lines
}

/// Halves of the micro batch, down to one, with as many sequences behind a weight update.
fn smaller_micro_batches(resolved: &Map<String, Value>) -> Vec<Change> {
    let number = |key: &str| resolved[key].as_u64().unwrap_or(1);
    let (micro, accumulation) = (
        number("micro_batch_size"),
        number("gradient_accumulation_factor"),
    );
    let trains = resolved["inference"] != true;
    let smaller = std::iter::successors(Some(micro / 2), |size| Some(size / 2));
    let smaller = smaller.take_while(|size| *size > 0);
    smaller
        .map(|size| {
            let mut change = vec![("micro_batch_size", json!(size))];
            // An odd micro batch leaves a remainder: the global batch then changes, too.
            if trains {
                let factor = accumulation * (micro / size);
                change.push(("gradient_accumulation_factor", json!(factor)));
                let replicas = number("replication_factor");
                let global = json!(size * factor * replicas);
                if global != resolved["global_batch_size"] {
                    change.push(("global_batch_size", global));
                }
            }
            change
        })
        .collect()
}

/// Halves of the layers of an IPU, down to one, for which the machine has the IPUs.
fn fewer_layers(
    resolved: &Map<String, Value>,
    options: &BertOptions,
    machine: &MachineSpec,
) -> Vec<Change> {
    let layers = options.placement.layers_per_ipu.iter().max();
    let layers = layers.map_or(1, |most| (*most).min(options.model.num_layers));
    let halved = |layers: &u32| (*layers > 1).then(|| layers.div_ceil(2));
    let changes = std::iter::successors(halved(&layers), halved)
        .map(|fewer| vec![("layers_per_ipu", json!([fewer]))]);
    changes
        .filter(|change| {
            changed(resolved, change)
                .is_some_and(|options| options.placement.ipus_requested <= machine.n_ipus)
        })
        .collect()
}

/// The options with a change; none if it doesn't go with the rest.
fn changed(resolved: &Map<String, Value>, change: &Change) -> Option<BertOptions> {
    let mut changed = resolved.clone();
    for (key, value) in change {
        changed.insert((*key).into(), value.clone());
    }
    BertOptions::from_values(&changed).ok()
}

fn other_changes(resolved: &Map<String, Value>, options: &BertOptions) -> Vec<Change> {
    let on = |key: &str| resolved[key] == true;
    let mut changes: Vec<Change> = Vec::new();
    let mut switch = |key, value: bool| changes.push(vec![(key, json!(value))]);
    let trains = !options.session.inference;
    if trains && !on("optimizer_state_offchip") {
        switch("optimizer_state_offchip", true);
    }
    if trains && options.batching.replication_factor > 1 && !on("replicated_tensor_sharding") {
        switch("replicated_tensor_sharding", true);
    }
    if !on("enable_half_partials") {
        switch("enable_half_partials", true);
    }
    if on("no_outlining") {
        switch("no_outlining", false);
    }
    if trains && resolved["execution_mode"] == "PIPELINE" {
        let key = "recompute_checkpoint_every_layer";
        switch(key, !on(key));
    }
    match &options.placement.available_memory_proportion {
        Some(shares) => {
            let halves: Vec<f64> = shares.iter().map(|share| share / 2.0).collect();
            changes.push(vec![("available_memory_proportion", json!(halves))]);
        }
        None => changes.push(vec![
            ("use_default_available_memory_proportion", json!(false)),
            ("available_memory_proportion", json!([0.15])),
        ]),
    }
    let (steps, vocabulary) = (
        options.model.embedding_serialization_vocab_steps,
        options.model.vocab_length,
    );
    let more = (steps.saturating_mul(2)..=vocabulary).find(|more| vocabulary.is_multiple_of(*more));
    if let Some(more) = more {
        changes.push(vec![("embedding_serialization_vocab_steps", json!(more))]);
    }
    changes
}

/// Compiles and weighs the run with a change; none if the change doesn't go with the rest. If it
/// fits, it says what it takes of `region`. Counts the operations that it has compiled.
fn attempt(
    resolved: &Map<String, Value>,
    change: &Change,
    machine: &MachineSpec,
    plans: &PlanCache,
    region: Region,
    operations: &mut usize,
) -> Option<Trial> {
    let options = changed(resolved, change)?;
    if options.placement.ipus_requested > machine.n_ipus {
        return None;
    }
    let typed = |(key, value): &(&'static str, Value)| {
        let option = table::by_key(key).expect("changes name options");
        format!("{} {}", option.name, values::show(value))
    };
    // A key that is changed twice is typed once.
    let last = |(at, (key, _)): &(usize, &(&'static str, Value))| {
        !change[at + 1..].iter().any(|(later, _)| later == key)
    };
    let words = change
        .iter()
        .enumerate()
        .filter(last)
        .map(|(_, pair)| typed(pair));
    let words = words.collect::<Vec<_>>().join(" ");
    let compiled = compile::compile(
        &options,
        machine,
        plans,
        Watch::by(&mut |_, graph| *operations = graph.ops.len()),
    );
    let weight = match compiled {
        Ok(compiled) => weigh::weigh(&compiled.lowered.program, machine).ok()?,
        Err(error) => {
            // Too large to be compiled is an answer; anything else means that it can't be asked.
            let too_large = error.downcast_ref::<crate::Error>();
            return matches!(too_large, Some(crate::Error::DoesNotFit { .. })).then_some(Trial {
                words,
                taken: None,
                fits: false,
            });
        }
    };
    let too_much = Taken::too_much(&weight);
    Some(Trial {
        words,
        taken: Some(too_much.unwrap_or_else(|| Taken::of(&weight, region))),
        fits: too_much.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use ipu_sim::units::Bytes;

    use super::*;
    use crate::clock::Date;
    use crate::request::prepare;

    fn request(line: &str) -> RunRequest {
        let given = crate::args::parse(line.split_whitespace().map(String::from)).unwrap();
        prepare(&given, Date::now()).unwrap().request
    }

    /// A model that is too large for 16 tiles an IPU.
    const LARGE: &str = "--task SQUAD --inference --generated-data --num-layers 2 \
        --layers-per-ipu 2 --encoder-start-ipu 0 --hidden-size 128 --attention-heads 2 \
        --sequence-length 64 --vocab-length 512 --batches-per-step 2 --device-tiles 16";

    #[test]
    fn what_is_said_to_help_does() {
        let request = request(&format!("{LARGE} --micro-batch-size 64"));
        let machine = &request.machine.spec;
        let plans = compile::plans_for(machine);
        let region = Region::Tile;
        let none = attempt(&request.resolved, &vec![], machine, &plans, region, &mut 0).unwrap();
        assert!(!none.fits, "{none:?}");
        let advice = advice(&request, &plans);
        assert_eq!(advice.untried, 0);
        // Plans that are known already change nothing.
        assert!(!plans.is_empty());
        assert_eq!(super::advice(&request, &plans), advice);
        let helping = advice.trials.iter().filter(|trial| trial.fits);
        let helping: Vec<&Trial> = helping.collect();
        assert!(!helping.is_empty(), "{advice:#?}");
        for trial in helping {
            // Typed after the line, as a user would.
            let line = format!("{LARGE} --micro-batch-size 64 {}", trial.words);
            let tried = self::request(&line);
            let program = compile::compile(&tried.options, machine, &plans, Watch::nobody());
            let program = program.unwrap().lowered.program;
            let weight = weigh::weigh(&program, machine).unwrap();
            assert!(weight.verdict().is_ok(), "{}", trial.words);
        }
    }

    /// What helps is found, and said, by the region that is too small, whatever the whole tile
    /// holds.
    #[test]
    fn a_small_region_is_what_advice_is_about() {
        let mut request = request(&format!("{LARGE} --no-outlining true"));
        let code = |line: &str, machine: &MachineSpec| {
            let options = self::request(line).options;
            let plans = compile::plans_for(machine);
            let program = compile::compile(&options, machine, &plans, Watch::nobody());
            let program = program.unwrap().lowered.program;
            Taken::of(
                &weigh::weigh(&program, machine).unwrap(),
                Region::Executable,
            )
            .bytes
        };
        let machine = &mut request.machine.spec;
        let outlined = code(LARGE, machine);
        machine.memory.executable = outlined;
        assert!(code(&format!("{LARGE} --no-outlining true"), machine) > outlined);
        let advice = advice(&request, &compile::plans_for(&request.machine.spec));
        let helps = advice
            .trials
            .iter()
            .find(|trial| trial.words == "--no-outlining false");
        let expected = Taken {
            region: Region::Executable,
            bytes: outlined,
            available: outlined,
        };
        assert_eq!(helps.unwrap().taken, Some(expected), "{advice:#?}");
        assert!(helps.unwrap().fits);
        let line = format!("  --no-outlining false (executable memory {outlined} of {outlined})");
        assert!(lines(&advice).contains(&line), "{advice:#?}");
    }

    #[test]
    fn the_largest_that_fits_is_found() {
        let changes: Vec<Change> = (0..9).map(|size| vec![("seed", json!(size))]).collect();
        for least in 0..=9 {
            let found = largest_that_fits(&changes, |change| {
                let size = change[0].1.as_u64().unwrap();
                Some(Trial {
                    words: size.to_string(),
                    taken: None,
                    fits: size >= least,
                })
            });
            let found = found.unwrap();
            let expected = (least.min(8).to_string(), least < 9);
            assert_eq!((found.words, found.fits), expected);
        }
        assert_eq!(largest_that_fits(&[], |_| None), None);
    }

    #[test]
    fn lines_put_first_what_helps() {
        let trial = |words: &str, taken: Option<(Region, u64)>, fits| Trial {
            words: words.into(),
            taken: taken.map(|(region, bytes)| Taken {
                region,
                bytes: Bytes(bytes),
                available: Bytes(6),
            }),
            fits,
        };
        let trials = [
            trial("--a 1", Some((Region::Tile, 7)), false),
            trial("--b 2", Some((Region::Tile, 5)), true),
            trial("--c 3", None, false),
            trial("--d 4", Some((Region::Executable, 8)), false),
        ];
        let advice = |trials: &[Trial], untried| Advice {
            trials: trials.to_vec(),
            untried,
        };
        assert_eq!(
            lines(&advice(&trials, 2)),
            [
                "tried, and fits:",
                "  --b 2 (fullest tile 5 B)",
                "tried, and doesn't fit:",
                "  --a 1 (fullest tile 7 B)",
                "  --c 3 (too large to be compiled)",
                "  --d 4 (executable memory 8 B of 6 B)",
                "not tried, because so large a model takes long to compile: 2 more settings",
            ]
        );
        let none = lines(&advice(&[], 0));
        assert_eq!(none, ["nothing that was tried makes it fit"]);
    }

    /// However large a model is, one setting is tried, and the more the smaller it is.
    #[test]
    fn large_models_are_tried_less() {
        let request = request(&format!("{LARGE} --micro-batch-size 64"));
        let plans = compile::plans_for(&request.machine.spec);
        let one = within(&request, &plans, 1);
        assert_eq!(one.trials.len(), 1, "{one:#?}");
        let words = "--micro-batch-size 1";
        assert_eq!(one.trials[0].words, words);
        let all = within(&request, &plans, OPERATIONS_MAX);
        assert!(one.untried > 0 && all.trials.len() > 1, "{all:#?}");
    }

    #[test]
    fn trials_are_dealt_out() {
        let changes = |n: u32| -> Vec<Change> {
            let change = |value| vec![("seed", json!(value))];
            (0..n).map(change).collect()
        };
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

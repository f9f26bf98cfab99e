//! Every key of a run is found again wherever a run is written, changed or compared: in the table
//! of options, among the arguments of a report and what is read back from them, in the features by
//! which a run is like those that were measured, in the validation after training and in advice.

use bench_cli::args::Arguments;
use bench_cli::args::json;
use bench_cli::config::{self, BertOptions};
use bench_core::accuracy::domain::Features;
use bench_core::advise;
use bench_core::config::RunConfig;
use bench_core::config::keys::KEYS;
use bench_core::explain::Explanation;
use serde_json::{Map, Value};

use super::*;

/// The option of a key of a run.
fn option_of(key: &str) -> &'static OptionSpec {
    let option = table::by_key(key).or_else(|| table::own_by_key(key));
    option.unwrap_or_else(|| panic!("no option has the key `{key}`"))
}

/// The base line of an option, and the same with another value of it.
fn without_and_with(option: &OptionSpec) -> [Vec<String>; 2] {
    let before = words(&base(option));
    let mut after = before.clone();
    after.push(option.name.into());
    after.extend(other_words(option));
    [before, after]
}

fn options(line: &[String]) -> BertOptions {
    let prepared = prepared(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    prepared.request.options
}

/// The options that a report's come back as.
fn read_back(arguments: &Map<String, Value>) -> bench_cli::Result<BertOptions> {
    let text = serde_json::to_string(arguments).expect("arguments are plain values");
    let (values, _) = json::parse("written.json", &text)?;
    let resolved = config::resolve(&Arguments::default(), Some(&values), "21-03-19-18-49-38")?;
    Ok(resolved.options)
}

#[test]
fn every_key_is_an_option_and_is_written() {
    for key in KEYS {
        let [_, after] = without_and_with(option_of(key));
        let config = options(&after).config;
        let written = config.to_keys();
        assert!(written.contains_key(key), "`{key}` isn't written");
        assert_eq!(RunConfig::from_keys(&written), Ok(config), "{key}");
    }
}

/// Those of options that act, whatever they act on.
#[test]
fn what_acts_is_in_the_report_and_is_read_back() {
    let ours = KEYS.iter().filter_map(|key| table::own_by_key(key));
    let acting = table::options().chain(ours).filter(|option| {
        let acts = matches!(option.support, Support::Acts | Support::ActsOnValues);
        // One names a file that is read, the other asks for what is so anyway.
        acts && !["--config", "--single-device"].contains(&option.name)
    });
    for option in acting {
        let mut lines = without_and_with(option);
        if OF_THE_DEVICE.contains(&option.name) {
            for line in &mut lines {
                line.extend(words("--device-connection-type ondemand"));
            }
        }
        let [before, after] = lines.map(|line| options(&line));
        let name = option.name;
        let is_said = before.arguments().get(option.key) != after.arguments().get(option.key);
        assert!(is_said, "{name} isn't in the report");
        for options in [before, after] {
            let found = read_back(&options.arguments());
            let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.config, options.config, "{name}");
            assert_eq!(found.device, options.device, "{name}");
            assert_eq!(found.data, options.data, "{name}");
            assert_eq!(found.run, options.run, "{name}");
            assert_eq!(found.output, options.output, "{name}");
        }
    }
}

/// Keys that change a program or its time and no feature, each with the reason.
const NO_FEATURE: [(&str, &str); 21] = [
    (
        "max_positional_length",
        "rows that no sequence reads cost only their weight update",
    ),
    (
        "dropout_prob",
        "only 0 leaves anything out, and --no-dropout is the way to ask for that",
    ),
    (
        "squad_single_output",
        "the same values in one tensor or in two",
    ),
    (
        "inference_lm_perplexity",
        "a loss as the measured trainings have it",
    ),
    (
        "sequences_per_pack",
        "counts what packs hold, and moves no time",
    ),
    ("batches_per_step", "a longer step repeats the same update"),
    (
        "weight_decay",
        "one term of an update whose share is a feature",
    ),
    (
        "momentum",
        "one term of SGD, which was never measured and is a feature",
    ),
    (
        "gradient_reduction_type",
        "one factor of an update whose share is a feature",
    ),
    (
        "release",
        "what it leaves out are norms of biases: few of the tensors of an update whose share is a \
         feature",
    ),
    (
        "buffering_depth",
        "what it hides of the host are constants of the host, which the interval counts",
    ),
    ("squad_lr_scale", RATE),
    ("learning_rate", RATE),
    ("continuous_pipeline_optimizer_scaling", RATE),
    ("learning_rate_function", RATE),
    ("lr_warmup_start", RATE),
    ("lr_warmup_steps", RATE),
    ("lr_steps_per_warmup_update", RATE),
    ("lr_steps_per_decay_update", RATE),
    ("lr_schedule_by_epoch", RATE),
    ("lr_schedule_by_step", RATE),
];

const RATE: &str =
    "a rate is a number of the program, or a few bytes of a step that the host sends";

/// A run that differs in what acts is a different run to those that were measured, or there is a
/// reason why not.
#[test]
fn what_acts_is_a_feature_or_has_a_reason() {
    let mut wrong = Vec::new();
    for key in KEYS {
        let option = option_of(key);
        if option.support != Support::Acts {
            continue;
        }
        let [before, after] = without_and_with(option).map(|line| {
            let request = prepared(&line).expect(key).request;
            let time = Explanation::default();
            Features::new(&request.options.config, &request.machine.spec, &time)
        });
        let reason = NO_FEATURE.iter().find(|(known, _)| *known == key);
        match (before != after, reason) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => wrong.push(format!("{key} has a feature and a reason for none")),
            (false, None) => wrong.push(format!("{key} has no feature and no reason for none")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A training with another value of an option, which is validated; none for what is of inference
/// only.
fn training(option: &OptionSpec) -> Vec<String> {
    let line = base(option);
    let line = match line.contains("--inference") {
        true => line.replace("--inference", "--training-steps 3"),
        false => line,
    };
    let mut line = words(&line.replace("--no-model-save", ""));
    if option.key != "inference" {
        line.push(option.name.into());
        line.extend(other_words(option));
    }
    line
}

/// The validation is the training forward only, of one micro-batch after the other. There is none
/// of packs.
#[test]
fn the_validation_keeps_every_key() {
    const PACKED: [&str; 3] = [
        "use_packed_sequence_format",
        "max_sequences_per_pack",
        "sequences_per_pack",
    ];
    for key in KEYS.into_iter().filter(|key| !PACKED.contains(key)) {
        let line = training(option_of(key));
        let prepared = prepared(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let validation = prepared.validation.expect(key).options.config;
        let mut keys = prepared.request.options.config.to_keys();
        keys.insert("inference".into(), Value::Bool(true));
        keys.insert("gradient_accumulation_factor".into(), 1.into());
        keys.remove("global_batch_size");
        assert_eq!(RunConfig::from_keys(&keys), Ok(validation), "{key}");
    }
}

/// Keys that advice changes on purpose, with those that follow from them.
const ADVISED: [&str; 14] = [
    "micro_batch_size",
    "gradient_accumulation_factor",
    "global_batch_size",
    "layers_per_ipu",
    "att_ffn_placement",
    "encoder_start_pipeline_stage",
    "optimizer_state_offchip",
    "replicated_tensor_sharding",
    "enable_half_partials",
    "no_outlining",
    "recompute_checkpoint_every_layer",
    "available_memory_proportion",
    "use_default_available_memory_proportion",
    "embedding_serialization_vocab_steps",
];

#[test]
fn advice_keeps_every_key_that_it_does_not_change() {
    let keys: Vec<&str> = KEYS
        .into_iter()
        .filter(|key| !ADVISED.contains(key))
        .collect();
    let check = |key: &&str| {
        let line = training(option_of(key));
        let request = prepared(&line).expect(key).request;
        let (config, machine) = (&request.options.config, &request.machine.spec);
        let advice = advise::advice(config, None, machine, &run::plans_for(machine), &|| {});
        assert!(!advice.trials.is_empty(), "{key}");
        let kept = |config: &RunConfig| {
            let mut keys = config.to_keys();
            keys.retain(|key, _| !ADVISED.contains(&key.as_str()));
            keys
        };
        for trial in advice.trials {
            assert_eq!(kept(&trial.config), kept(config), "{key}");
        }
    };
    let check = &check;
    std::thread::scope(|scope| {
        for part in keys.chunks(keys.len().div_ceil(2)) {
            scope.spawn(move || part.iter().for_each(check));
        }
    });
}

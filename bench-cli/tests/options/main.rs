//! Every option does what the table says of it.
//!
//! An option *acts* if the program that the machine runs, its time or memory, the lines of the
//! log or the folder of the run differ from those of the same line without it; that a note says
//! something else is not enough. One that acts *on values only* changes the text of the program
//! and nothing else of these. One
//! *without effect* changes none of them and is named in a note with the reason. Any other is
//! *refused* by name, with status 2.
//!
//! Some options that act do so beside some settings only. Beside the others, they too change
//! nothing and are named in a note with the reason.
//!
//! [`own`] has the options of our own, [`keys`] where the keys of a run must be found again.

mod keys;
mod own;

use std::collections::BTreeMap;

use bench_cli::args::spec::{Arity, Kind, OptionSpec, Support};
use bench_cli::args::{self, table, values};
use bench_cli::clock::Date;
use bench_cli::data::dataset;
use bench_cli::inspect::Inspect;
use bench_cli::log::{self, Process};
use bench_cli::request::unread::{RULES, Rule};
use bench_cli::request::{PreparedRun, prepare};
use bench_cli::run;
use bench_core::explain::mechanism::Mechanism;
use ipu_sim::units::HostSeconds;

const MODEL: &str = "--layers-per-ipu 1 --encoder-start-ipu 0 --hidden-size 64 \
    --attention-heads 1 --sequence-length 32 --vocab-length 512 --batches-per-step 4 \
    --no-model-save --generated-data";

/// Where that model has its layers.
const WHOLE_LAYERS: &str = "--layers-per-ipu 1 --encoder-start-ipu 0";

/// Options that decide which device a run gets, or wait for it: `tests/devices.rs` sees them act.
const OF_THE_DEVICE: [&str; 2] = ["--device-id", "--device-ondemand-timeout"];

/// What can be seen of a run. Host time is no part of it.
#[derive(Debug, PartialEq)]
struct Observed {
    program: String,
    metrics: String,
    log: Vec<String>,
    notes: Vec<String>,
    folder: String,
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(String::from).collect()
}

fn prepared(line: &[String]) -> bench_cli::Result<PreparedRun> {
    let date = Date {
        year: 2021,
        month: 3,
        day: 19,
        hour: 18,
        minute: 49,
        second: 38,
    };
    prepare(&args::parse(line.iter().cloned())?, date)
}

fn observe(line: &[String]) -> anyhow::Result<Observed> {
    let prepared = prepared(line)?;
    let options = &prepared.request.options;
    let process = Process {
        hostname: "host".into(),
        command: vec!["ipu-bench".into()],
    };
    let mut observed = Observed {
        program: String::new(),
        metrics: String::new(),
        log: Vec::new(),
        folder: options.output.checkpoint_dir.clone(),
        notes: prepared.notes.clone(),
    };
    let mut lines = log::program(prepared.accumulation_set, &process);
    let main = options.config.is_inference() || options.run.training;
    let main = main.then_some(&prepared.request);
    for request in main.into_iter().chain(&prepared.validation) {
        let dataset = dataset::open(&request.options)?;
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("program.txt");
        let inspect = Inspect {
            program: Some(program.clone()),
            ..Inspect::default()
        };
        let plans = run::plans_for(&request.machine.spec);
        let measured = run::run(request, run::acquire(request)?, &inspect, &plans)?;
        let metrics = measured.metrics;
        let mut ipus = metrics.time.ipus.iter();
        let explained = ipus.all(|ipu| !ipu.by_mechanism.contains_key(&Mechanism::Other));
        anyhow::ensure!(explained, "cycles without a mechanism: {line:?}");
        lines.extend(log::before_compile(request, &dataset));
        lines.extend(log::after_compile(
            &request.options,
            &dataset,
            &metrics,
            HostSeconds::default(),
        ));
        observed.program += &std::fs::read_to_string(program)?;
        observed.metrics += &serde_json::to_string(&metrics)?;
    }
    let printed = lines
        .into_iter()
        .filter(|line| line.appears(options.output.log_level));
    observed.log = printed.map(|line| line.text).collect();
    Ok(observed)
}

/// A line on which the option can act.
fn base(option: &OptionSpec) -> String {
    let line = base_of_key(option);
    match option.name {
        // The same setting under another name: the line may not have both.
        "--device-iterations" => line.replace("--batches-per-step", option.name),
        _ => line,
    }
}

fn base_of_key(option: &OptionSpec) -> String {
    let pretraining = format!(
        "{MODEL} --num-layers 2 --mask-tokens 4 --training-steps 3 \
         --gradient-accumulation-factor 12 --execution-mode PIPELINE --optimizer LAMB"
    );
    let squad = format!("{MODEL} --num-layers 1 --task SQUAD --inference");
    match option.key {
        "epochs" => pretraining.replace("--training-steps 3", "--epochs 1"),
        "pipeline" => pretraining.replace("--execution-mode PIPELINE", ""),
        "momentum" | "dampening" | "velocity_scaling" => pretraining.replace("LAMB", "SGD"),
        "lr_warmup_start"
        | "lr_warmup_steps"
        | "lr_steps_per_warmup_update"
        | "lr_steps_per_decay_update" => {
            pretraining.replace("steps 3", "steps 9")
                + " --learning-rate-function Linear --learning-rate 1 --lr-warmup-steps 4"
        }
        "merge_collectives" => format!("{pretraining} --replication-factor 2"),
        "att_ffn_placement" => pretraining.replace(WHOLE_LAYERS, ""),
        "encoder_start_pipeline_stage" => {
            pretraining.replace(WHOLE_LAYERS, "--att-ffn-placement [[0,[1,1]],[1,[1,1]]]")
        }
        "max_sequences_per_pack" => {
            format!("{pretraining} --use-packed-sequence-format --no-validation")
        }
        "sequences_per_pack" => format!(
            "{pretraining} --use-packed-sequence-format --max-sequences-per-pack 3 --no-validation"
        ),
        "use_packed_sequence_format" => format!("{pretraining} --no-validation"),
        "relu_leak" => format!("{pretraining} --activation-type LRelu"),
        "recompute_checkpoint_every_layer" => {
            format!("{pretraining} --num-layers 4 --layers-per-ipu 2")
        }
        "replicated_tensor_sharding" => {
            pretraining.replace("PIPELINE", "DEFAULT")
                + " --replication-factor 2 --optimizer-state-offchip true --num-layers 1"
        }
        "layers_per_ipu" => format!("{pretraining} --num-layers 4"),
        "available_memory_proportion" | "disable_fully_connected_pass" => {
            format!("{pretraining} --hidden-size 256 --device-tiles 64")
        }
        "use_default_available_memory_proportion" => format!(
            "{pretraining} --hidden-size 256 --device-tiles 64 \
             --available-memory-proportion 0.002"
        ),
        "no_outlining" => format!("{pretraining} --num-layers 4 --layers-per-ipu 2"),
        "low_latency_inference"
        | "minimum_latency_inference"
        | "squad_single_output"
        | "group_host_syncs"
        | "epochs_inference" => squad,
        "no_drop_remainder" | "vocab_file" | "do_lower_case" | "overwrite_cache" => {
            let squad = squad.replace("--generated-data", "");
            let (questions, vocabulary) =
                (question_file(), vocabulary_file("base.txt", "qwertyuiop"));
            format!(
                "{squad} --sequence-length 80 --input-files {questions} --vocab-file {vocabulary}"
            ) + match option.key {
                "vocab_file" => " --do-lower-case",
                _ => "",
            }
        }
        "host_embedding" => squad,
        "buffering_depth" => {
            format!("{squad} --minimum-latency-inference --release v2.5")
        }
        "inference_lm_perplexity" => squad.replace("SQUAD", "PRETRAINING") + " --mask-tokens 4",
        "squad_lr_scale" => {
            pretraining.replace("PIPELINE", "DEFAULT") + " --task SQUAD --num-layers 1"
        }
        "no_model_save" | "no_validation" | "no_training" | "validation_config" => {
            pretraining.replace("--no-model-save", "")
        }
        "squad_wrap_final_layer" => format!("{pretraining} --task SQUAD"),
        "inference" | "global_batch_size" => pretraining.replace(
            "--gradient-accumulation-factor 12 --execution-mode PIPELINE",
            "",
        ),
        "synthetic_data_initializer" => pretraining.replace("--generated-data", "--synthetic-data"),
        "generated_data" | "synthetic_data" | "duplication_factor" | "epochs_to_cache"
        | "input_files" | "shuffle" => {
            let files = format!("--input-files {}", record_file("base.bin", 10));
            let pretraining = pretraining.replace("--training-steps 3", "--epochs 1");
            pretraining.replace("--generated-data", &files)
        }
        "batch_serialize" => format!("{pretraining} --micro-batch-size 2"),
        _ => pretraining,
    }
}

/// A file of records for so many steps of a base line: 4 x 12 records of sequence length 32 and
/// 4 mask tokens, 412 bytes each.
fn record_file(name: &str, steps: u64) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let file = std::fs::File::create(&path).expect("the folder was made for this test");
    file.set_len(steps * 4 * 12 * 412)
        .expect("a file can be as long as it likes");
    path.display().to_string()
}

/// A question on a text of capital letters, which is five windows long, and more if they are cut.
fn question_file() -> String {
    let context = "QWERTYUIOP ".repeat(300);
    let text = format!(
        r#"{{"data": [{{"paragraphs": [{{"context": "{context}", "qas": [{{"id": "q", "question": "why"}}]}}]}}]}}"#
    );
    written("questions.json", &text)
}

fn vocabulary_file(name: &str, letters: &str) -> String {
    let pieces: String = letters.chars().map(|c| format!("{c}\n##{c}\n")).collect();
    written(name, &format!("[UNK]\n[CLS]\n[SEP]\n[MASK]\n{pieces}"))
}

fn written(name: &str, text: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the folder was made for this test");
    path.display().to_string()
}

/// Words that give the option another value than the base line's.
fn other_words(option: &OptionSpec) -> Vec<String> {
    let default = values::show(&option.default_value());
    let word = match (option.key, option.kind, option.arity) {
        (_, _, Arity::None) => return Vec::new(),
        ("micro_batch_size" | "replication_factor" | "encoder_start_ipu", ..) => "2",
        ("batch_serialize" | "attention_heads" | "embedding_serialization_vocab_steps", ..) => "2",
        ("layers_per_ipu" | "continue_training_from_epoch", ..) => "2",
        ("att_ffn_placement", ..) => "[[1,[1,0]],[2,[1,1]],[0,[0,1]]]",
        ("encoder_start_pipeline_stage", ..) => "0",
        ("num_layers" | "max_copy_merge_size", ..) => "3",
        ("sequence_length", ..) => "40",
        ("hidden_size", ..) => "128",
        ("vocab_length" | "max_positional_length", ..) => "1024",
        ("global_batch_size", ..) => "12",
        ("gradient_accumulation_factor", ..) => "14",
        ("device_tiles", ..) => "1000",
        ("device_version", ..) => "ipu1",
        ("available_memory_proportion", ..) => "0.002",
        ("device_connection_type", ..) => "offline",
        ("task", ..) => "SQUAD",
        ("vocab_file", ..) => return vec![vocabulary_file("other.txt", "xyz")],
        ("input_files", ..) => return vec![record_file("other.bin", 2)],
        ("execution_mode", ..) => "DEFAULT",
        ("activation_type", ..) => "Relu",
        ("lr_warmup_steps", ..) => "2",
        // Other values only move numbers; none leaves out what they are for.
        ("momentum" | "dropout_prob", ..) => "0",
        ("log_level", ..) => "ERROR",
        ("release", ..) => "v2.2",
        ("buffering_depth", ..) => "1",
        ("squad_wrap_final_layer", ..) => "false",
        (_, Kind::Int | Kind::IntOrConfigFloat, _) => "5",
        (_, Kind::Float, _) => "0.25",
        (_, Kind::Bool, _) if default == "true" => "false",
        (_, Kind::Bool, _) => "true",
        (_, Kind::Schedule, _) => "0:0.25",
        (_, Kind::Json, _) => r#"{"batches_per_step":6}"#,
        (_, Kind::Halves, _) => "[[0,[2,2]]]",
        (_, Kind::Mode | Kind::Text | Kind::Constant(_), _) => option
            .choices
            .iter()
            .find(|choice| **choice != default)
            .unwrap_or(&"other"),
    };
    vec![word.to_string()]
}

/// What base lines show, each observed once.
#[derive(Default)]
struct Bases(BTreeMap<String, Observed>);

impl Bases {
    fn get(&mut self, line: &str) -> anyhow::Result<&Observed> {
        if !self.0.contains_key(line) {
            self.0.insert(line.into(), observe(&words(line))?);
        }
        Ok(&self.0[line])
    }
}

/// What is wrong with an option, if anything.
fn judge(option: &OptionSpec, bases: &mut Bases) -> anyhow::Result<Option<String>> {
    let line = base(option);
    let mut with = words(&line);
    with.push(option.name.into());
    with.extend(other_words(option));
    let wrong = match option.support {
        Support::Acts if OF_THE_DEVICE.contains(&option.name) => None,
        Support::Acts | Support::ActsOnValues => {
            let (before, mut after) = (bases.get(&line)?, observe(&with)?);
            after.notes.clone_from(&before.notes);
            let acts = after != *before;
            after.program.clone_from(&before.program);
            let on_more = after != *before;
            match (acts, on_more, option.support == Support::ActsOnValues) {
                (false, ..) => Some("doesn't act"),
                (_, true, true) => Some("acts on more than values"),
                (_, false, false) => Some("acts on values only"),
                _ => None,
            }
        }
        Support::NoEffect(reason) => {
            let (before, mut after) = (bases.get(&line)?, observe(&with)?);
            let is_about = |note: &String| note.contains(option.name) && note.contains(reason);
            let n_notes = after.notes.len();
            after.notes.retain(|note| !is_about(note));
            match (n_notes > after.notes.len(), after == *before) {
                (false, _) => Some("has no note"),
                (_, false) => Some("acts"),
                _ => None,
            }
        }
        Support::NotYet(reason) => {
            // Several options may share a key; the first one's name is the key's.
            let name = table::by_key(option.key).expect("it has a key").name;
            let error = prepared(&with).expect_err(option.name);
            let expected = format!("argument {name}: not supported yet: {reason}");
            let refused = error.to_string().starts_with(&expected) && error.exit_code() == 2;
            (!refused).then_some("isn't refused by name")
        }
    };
    Ok(wrong.map(String::from))
}

fn judge_all(options: &[&OptionSpec]) -> Vec<String> {
    let mut bases = Bases::default();
    let judged = options.iter().filter_map(|option| {
        let wrong = judge(option, &mut bases).unwrap_or_else(|error| Some(format!("{error:#}")))?;
        Some(format!("{}: {wrong}", option.name))
    });
    judged.collect()
}

#[test]
fn every_option_does_what_the_table_says() {
    // The preset file is another way to give options, and `--single-device` asks for the default.
    let apart = |option: &&OptionSpec| ["--config", "--single-device"].contains(&option.name);
    let options: Vec<_> = table::options().filter(|option| !apart(option)).collect();
    // Threads of their own: those of rayon must stay free for the devices that they wait for.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let parts = options.chunks(options.len().div_ceil(2));
        let judges: Vec<_> = parts.map(|part| scope.spawn(|| judge_all(part))).collect();
        let judged = judges
            .into_iter()
            .map(|judge| judge.join().expect("judged"));
        judged.flatten().collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A line beside which the options of a rule are idle.
fn idle(rule: &Rule) -> String {
    let training = format!(
        "{MODEL} --num-layers 2 --mask-tokens 4 --training-steps 3 \
         --gradient-accumulation-factor 12 --execution-mode PIPELINE"
    );
    let squad = format!("{MODEL} --num-layers 1 --task SQUAD");
    match rule.reason {
        "generated data takes the place of files" | "only training reads it" => {
            format!("{squad} --inference")
        }
        "only --execution-mode PIPELINE computes layers again" => {
            training.replace("PIPELINE", "DEFAULT") + " --num-layers 4 --layers-per-ipu 2"
        }
        "there is only one replica" => format!("{training} --optimizer LAMB"),
        "SGD has no state but accumulators" => {
            training.replace("PIPELINE", "DEFAULT") + " --replication-factor 2 --num-layers 1"
        }
        reason if reason.starts_with("a velocity of SGD") => {
            training.replace("PIPELINE", "DEFAULT")
                + " --replication-factor 2 --num-layers 1 --gradient-accumulation-factor 1"
        }
        "only ADAM and LAMB read it"
        | "only --learning-rate-function Linear reads it"
        | "only --task SQUAD has that head"
        | "only --activation-type LRelu reads it"
        | "only --use-packed-sequence-format packs sequences"
        | "only --synthetic-data reads it"
        | "only --device-connection-type ondemand waits"
        | "no validation follows the training" => training,
        "only inference has that output, and no validation follows the training" => {
            training.replace("PIPELINE", "DEFAULT") + " --task SQUAD --num-layers 1"
        }
        "--inference does nothing else anyway" => {
            squad.replace("--no-model-save", "") + " --inference"
        }
        "only --execution-mode PIPELINE has stages to scale by" => {
            training.replace("PIPELINE", "DEFAULT") + " --num-layers 1"
        }
        "--lr-warmup-steps 0 leaves no warm-up" => {
            format!("{training} --learning-rate-function Linear")
        }
        "only --optimizer SGD reads it" | "only LAMB reads it" => {
            format!("{training} --optimizer ADAM")
        }
        "only --learning-rate-function Scheduled reads it" => {
            format!("{training} --learning-rate-function Linear")
        }
        "only --task PRETRAINING predicts masked tokens"
        | "only --task PRETRAINING predicts next sentences" => format!("{squad} --inference"),
        "the first IPU is the last one, too" => format!("{squad} --inference"),
        "there is no dropout on attention probabilities" => format!("{training} --no-attn-dropout"),
        "--no-dropout leaves out all dropout" => format!("{training} --no-dropout"),
        "releases before v2.5 leave it to the library" => training,
        "synthetic data needs no host" => {
            training.replace("--generated-data", "--synthetic-data") + " --release v2.5"
        }
        "--use-default-available-memory-proportion stands before it" => format!(
            "{training} --hidden-size 256 --device-tiles 64 \
             --use-default-available-memory-proportion true"
        ),
        reason => panic!("a line where that holds: {reason}"),
    }
}

/// What is wrong with what a rule says, if anything.
fn judge_rule(rule: &Rule, bases: &mut Bases) -> anyhow::Result<Vec<String>> {
    let line = idle(rule);
    let mut wrong = Vec::new();
    for key in rule.keys {
        let option = table::by_key(key).or_else(|| table::own_by_key(key));
        let option = option.expect("rules name options");
        let mut with = words(&line);
        with.push(option.name.into());
        with.extend(other_words(option));
        let mut seen = observe(&with)?;
        let note = format!("no effect: {}: {}", option.name, rule.reason);
        let n_notes = seen.notes.len();
        seen.notes.retain(|found| *found != note);
        // The original warns of it, and so does the log here.
        seen.log
            .retain(|line| !line.starts_with("Remote Optimizer State with SGD"));
        if seen.notes.len() + 1 != n_notes {
            wrong.push(format!("{}: no note `{note}`", option.name));
        } else if seen != *bases.get(&line)? {
            wrong.push(format!("{} acts: {line}", option.name));
        }
    }
    Ok(wrong)
}

#[test]
fn what_another_option_makes_idle_is_named_and_changes_nothing() {
    let mut bases = Bases::default();
    let judged = RULES.iter().flat_map(|rule| {
        let judged = judge_rule(rule, &mut bases);
        judged.unwrap_or_else(|error| vec![format!("{}: {error:#}", rule.reason)])
    });
    let wrong: Vec<String> = judged.collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

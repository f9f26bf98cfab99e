//! Everything that arguments, presets and files can get wrong.
//!
//! Where `bert.py` has a text for the mistake, ours is the same, and so is the exit status: 2 for
//! the words of the command line, 1 for the rest.

use std::path::PathBuf;

use bench_core::config::KeyError;
use bench_core::config::keys::MICRO_BATCHES_MAX;
use bench_core::release::Release;
use ipu_sim::device::DeviceError;
use popart_graph::passes::PassError;
use popart_graph::passes::pipeline_stages::{PipelineDepth, PipelineError};
use popart_graph::session::CompileError;

use crate::args::hints::{self, Hint};
use crate::args::{table, values};
use crate::python::{repr, repr_items};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Fault that a user can mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Words that are no options and belong to none.
    #[error(
        "unrecognized arguments: {}{}",
        words.join(" "),
        hints::lines(hints)
    )]
    Unrecognized {
        /// The words, in order.
        words: Vec<String>,
        /// What some of them were meant to be.
        hints: Vec<Hint>,
    },
    /// A word that is no text.
    #[error("{}not UTF-8 text: {}", match option {
        Some(option) => format!("argument {option}: "),
        None => String::new(),
    }, repr(word))]
    NotUtf8 {
        /// The option that it belongs to, if there is one.
        option: Option<String>,
        /// The word, as far as it is text.
        word: String,
    },
    /// A start of several options.
    #[error("ambiguous option: {word} could match {}", candidates.join(", "))]
    Ambiguous {
        /// The word as typed.
        word: String,
        /// The options that start so, in order of definition.
        candidates: Vec<&'static str>,
    },
    /// An option without its value.
    #[error("argument {option}: expected {} argument", if *many { "at least one" } else { "one" })]
    MissingValue {
        /// The option.
        option: String,
        /// Whether it takes a list.
        many: bool,
    },
    /// A value for an option that takes none.
    #[error("argument {option}: ignored explicit argument {}", repr(value))]
    UnexpectedValue {
        /// The option.
        option: String,
        /// What followed the equals sign.
        value: String,
    },
    /// A word that is neither true nor false.
    #[error("argument {option}: {value} is not a valid boolean value")]
    InvalidBool {
        /// The option.
        option: &'static str,
        /// The word.
        value: String,
    },
    /// A word that is no value of the option's type.
    #[error("argument {option}: invalid {kind} value: {}", repr(value))]
    InvalidValue {
        /// The option.
        option: &'static str,
        /// The type it wants.
        kind: &'static str,
        /// The word.
        value: String,
    },
    /// A word that is none of the option's choices.
    #[error(
        "argument {option}: invalid choice: {} (choose from {})",
        repr(value),
        repr_items(choices)
    )]
    InvalidChoice {
        /// The option.
        option: &'static str,
        /// The word.
        value: String,
        /// What it accepts.
        choices: &'static [&'static str],
    },
    /// A `-` for a file of results.
    #[error(
        "argument {option}: expected a {place}, got '-': stdout holds the log, name a {place} (./- if it is to be called so)"
    )]
    Stdout {
        /// The option.
        option: &'static str,
        /// What it names: a file or a folder.
        place: &'static str,
    },
    /// A file with two names of one setting and different values.
    #[error("{path}: {inner}")]
    TwoConfigValues {
        /// The file.
        path: String,
        /// Both names and their values.
        inner: Box<bench_core::config::KeyError>,
    },
    /// Two names of one setting with different values.
    #[error("{} and {} are one setting, got {} and {}", names[0], names[1], values[0], values[1])]
    TwoValues {
        /// Both names.
        names: [String; 2],
        /// Their values.
        values: [String; 2],
    },
    /// Two options that exclude each other.
    #[error("argument {option}: not allowed with argument {other}")]
    NotAllowedWith {
        /// The later one.
        option: &'static str,
        /// The earlier one.
        other: &'static str,
    },
    /// An option that the simulator doesn't act on yet, with a value that asks it to.
    #[error(
        "argument {option}: not supported yet: {reason}{}",
        how_to_unset(option)
    )]
    NotSupported {
        /// The option, with its value where only that one is refused.
        option: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A word that is no `int:float` pair.
    #[error(
        "argument {option}: Invalid Learning Rate Schedule provided. It should be a set of int:float pairs. Got {}",
        repr(word)
    )]
    InvalidSchedule {
        /// The option.
        option: &'static str,
        /// The word.
        word: String,
    },
    /// A mistake that only clap can word.
    #[error("{message}")]
    Command {
        /// Clap's first line.
        message: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {}", if path.as_os_str().is_empty() { "''".into() } else { path.to_string_lossy() })]
    File {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that should be text.
    #[error("{}:{line}: not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line that is none, from 1.
        line: usize,
    },
    /// A file that is not JSON, or not of the form expected.
    #[error("{path}:{}:{}: {}", json.line(), json.column(), without_place(json))]
    Json {
        /// The file.
        path: String,
        /// What the parser said.
        json: serde_json::Error,
    },
    /// A configuration that is not one JSON object.
    #[error("{path}: expected a JSON object, got {found}")]
    NotAnObject {
        /// The file.
        path: String,
        /// The kind of value it holds.
        found: &'static str,
    },
    /// JSON that isn't what `--metrics-json` or `suite --json` writes.
    #[error("{path}: not a report: {reason}")]
    NotAReport {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Keys that are no options.
    #[error(
        "{path}: Unknown arg(s) in config file: {{{}}}{}",
        repr_items(keys),
        hints::lines(hints)
    )]
    UnknownKeys {
        /// The file.
        path: String,
        /// The keys, in order.
        keys: Vec<String>,
        /// What some of them were meant to be.
        hints: Vec<Hint>,
    },
    /// A value that the option it is for refuses.
    #[error("{path}")]
    ConfigValue {
        /// The file.
        path: String,
        /// Why.
        #[source]
        inner: Box<Error>,
    },
    /// A file that is too long to be of its kind.
    #[error("{path}: larger than {} bytes: no {kind} is that long", kind.most())]
    TooLong {
        /// The file.
        path: String,
        /// What it should be.
        kind: crate::text::FileKind,
    },
    /// A line that is too long to be a sentence.
    #[error(
        "{}:{line}: a line of more than {} bytes: expected a sentence on each line",
        path.display(), crate::text::LINE_BYTES_MAX
    )]
    LongLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A value of the wrong type.
    #[error("{path}: key {}: expected {expected}, got {found}", repr(key))]
    ConfigType {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// What the option takes.
        expected: &'static str,
        /// The value.
        found: String,
    },
    /// A file of data that is missing, too short or wrong.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// A launch that can't be.
    #[error(transparent)]
    Launch(#[from] crate::launch::LaunchError),
    /// Two outputs in one file, of which one would be lost.
    #[error("two outputs are to go to {}: each needs a file of its own", path.display())]
    SameFile {
        /// The file.
        path: std::path::PathBuf,
    },
    /// An output that would replace what it is made of.
    #[error("{} is one of the inputs: the output needs a file of its own", path.display())]
    OwnInput {
        /// The file.
        path: PathBuf,
    },
    /// A file that would be replaced or removed with the graphs of an earlier run.
    #[error(
        "{} is named as a graph in the folder of --dump-ir, where graphs are replaced: name another file or folder",
        path.display()
    )]
    NamedAsGraph {
        /// The file.
        path: PathBuf,
    },
    /// A file that asks for evaluation within training.
    #[error(
        "{path}: key '{key}': evaluation between the steps of training isn't simulated: take the \
         key out of the file to run the training alone"
    )]
    NoEvaluation {
        /// The file.
        path: String,
        /// The key.
        key: &'static str,
    },
    /// A folder that another run fills.
    #[error("another run is filling {}: wait for its end, or name another folder", path.display())]
    FolderBusy {
        /// The folder.
        path: PathBuf,
    },
    /// A program that takes more memory than the machine has, which was simulated all the same.
    #[error(transparent)]
    DoesNotFit(Box<ipu_sim::weigh::DoesNotFit>),
    /// A model that takes more memory than an IPU has, whatever its plan.
    #[error(transparent)]
    TooLarge(#[from] bench_core::error::TooLarge),
    /// A step with more micro-batches than are counted.
    #[error(
        "--gradient-accumulation-factor {accumulation} times --batches-per-step {batches_per_step} \
         is more than {MICRO_BATCHES_MAX} micro-batches a step: lower one of them"
    )]
    TooManyMicroBatches {
        /// Micro-batches of one weight update.
        accumulation: u32,
        /// Weight updates of one step.
        batches_per_step: u32,
    },
    /// A step with too few micro-batches to fill the pipeline, in PopART's words where it has some.
    #[error("{}", pipeline_depth(*stages, *depth))]
    PipelineDepth {
        /// Stages of the pipeline.
        stages: usize,
        /// Micro-batches that are on the way together.
        depth: PipelineDepth,
    },
    /// A pipeline of one stage, in PopART's words.
    #[error("{0}\n  The model has one IPU here: --pipeline false runs")]
    OneStage(Box<bench_core::Error>),
    /// A device of a system that can't be had.
    #[error("system {system}")]
    Attach {
        /// The system.
        system: String,
        /// Why.
        source: DeviceError,
    },
    /// A device that fails.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A model that can't be compiled for a machine.
    #[error("while compiling for {machine}")]
    Compile {
        /// The machine.
        machine: String,
        /// Why.
        source: Box<Error>,
    },
    /// A run that can't be evaluated for a reason that has no option's name.
    #[error(transparent)]
    Run(Box<bench_core::Error>),
    /// Keys of a run that don't go together.
    #[error(transparent)]
    Keys(KeyError),
    /// Settings that do not go together, in the words of the original.
    #[error("{0}, aborting")]
    Incompatible(Incompatible),
    /// A folder from the root for models whose weights are files of their own. The first sentence is
    /// the original's.
    #[error(
        "Please specify relative path for `{key}` when saving initializers externally. \
         Or save nothing with --no-model-save"
    )]
    RootedModels {
        /// Name of the folder's key in the release in force.
        key: &'static str,
    },
    /// Accumulation where no gradients are, in PopART's words.
    #[error(
        "Gradient Accumulation only available when training.\n  \
         The factor is {factor}: {} makes it 1", settings(*given, *batch)
    )]
    AccumulationInInference {
        /// The factor.
        factor: u64,
        /// Sequences of all replicas in one pass.
        batch: u64,
        /// Which settings the factor comes from.
        given: AccumulationSource,
    },
    /// A global batch that its factors do not give.
    #[error(
        "User settings for global batch size and factors are inconsistent.\n\n  \
         Specified global batch size: {global}\n\n  \
         Inferred global batch size: {}\n    micro batch size: {micro}\n    \
         gradient accumulation factor: {accumulation}\n    replication factor: {replicas}",
        u128::from(*micro) * u128::from(*accumulation) * u128::from(*replicas)
    )]
    BatchInconsistent {
        /// Global batch size given.
        global: u64,
        /// Micro batch size.
        micro: u64,
        /// Gradient accumulation factor.
        accumulation: u64,
        /// Replication factor.
        replicas: u64,
    },
    /// A global batch that the micro batches of all replicas do not divide.
    #[error(
        "Unable to set gradient accumulation to match the global batch size: {global} is no multiple of {micro} x {replicas}"
    )]
    BatchIndivisible {
        /// Global batch size given.
        global: u64,
        /// Micro batch size.
        micro: u64,
        /// Replication factor.
        replicas: u64,
    },
    /// A value that no model or machine can have.
    #[error("argument {option}: expected {expected}, got {found}")]
    OutOfRange {
        /// The option.
        option: &'static str,
        /// What it takes.
        expected: String,
        /// The value.
        found: String,
    },
    /// A name that is neither a shipped system nor a file.
    #[error(
        "unknown system {}: expected a file or one of {}{}",
        repr(name),
        shipped.join(", "),
        did_you_mean(most_like(name, shipped.iter().copied()).as_slice())
    )]
    UnknownSystem {
        /// The name.
        name: String,
        /// The names that are shipped.
        shipped: Vec<&'static str>,
    },
    /// A configuration that no shipped system can hold.
    #[error(
        "no shipped {generation} system has {needed} IPUs, the largest has {largest}: name a machine with --system"
    )]
    TooManyIpus {
        /// The generation of IPUs looked at.
        generation: &'static str,
        /// IPUs that the configuration asks for.
        needed: u64,
        /// IPUs of the largest one.
        largest: u64,
    },
    /// A validation that can't be configured.
    #[error("in the validation after training (--no-validation leaves it out)")]
    Validation(#[source] Box<Error>),
    /// A system whose description can't be read.
    #[error("system {name}")]
    System {
        /// The name it was asked for by.
        name: String,
        /// What is wrong in it, and where.
        source: Box<ipu_sim::spec::error::SpecError>,
    },
    /// Locks on devices that can't be looked at.
    #[error(transparent)]
    Locks(#[from] crate::locks::LockError),
    /// A named system that is too small.
    #[error(
        "system {system} has {available} IPUs, the configuration needs {needed}{}",
        match enough {
            Some(enough) => format!(": {enough} has as many"),
            None => String::new(),
        }
    )]
    SystemTooSmall {
        /// The system.
        system: String,
        /// Its IPUs.
        available: u64,
        /// IPUs that the configuration asks for.
        needed: u64,
        /// The smallest shipped system of its kind that has them, if there is one.
        enough: Option<&'static str>,
    },
}

impl From<bench_core::Error> for Error {
    /// The error by the names of options.
    fn from(error: bench_core::Error) -> Self {
        match error {
            bench_core::Error::Keys(error) => error.into(),
            bench_core::Error::TooLarge(error) => Self::TooLarge(error),
            bench_core::Error::OneStage => Self::OneStage(bench_core::Error::OneStage.into()),
            bench_core::Error::Graph(error) => match *error {
                CompileError::Pass(PassError::Pipeline(PipelineError::Depth { stages, depth })) => {
                    Self::PipelineDepth { stages, depth }
                }
                other => Self::Run(Box::new(other.into())),
            },
            other => Self::Run(Box::new(other)),
        }
    }
}

/// An error with all its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// Settings that an accumulation factor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccumulationSource {
    /// The factor itself.
    Factor,
    /// The global batch size.
    GlobalBatch,
    /// Both.
    Both,
}

/// The words that make an accumulation factor 1.
fn settings(given: AccumulationSource, batch: u64) -> String {
    let (factor, global) = (
        "--gradient-accumulation-factor 1",
        format!("--global-batch-size {batch}"),
    );
    match given {
        AccumulationSource::Factor => factor.into(),
        AccumulationSource::GlobalBatch => global,
        AccumulationSource::Both => format!("{factor} with {global}"),
    }
}

fn pipeline_depth(stages: usize, depth: PipelineDepth) -> String {
    let (name, option) = match depth {
        PipelineDepth::Accumulation(_) => (
            "gradient accumulation factor",
            "--gradient-accumulation-factor",
        ),
        PipelineDepth::MicroBatches(_) => ("batchesPerStep", "--batches-per-step"),
        // Then micro-batches of several weight updates are on the way at the same time.
        PipelineDepth::Updates(updates) => {
            return format!(
                "a pipeline of {stages} stages without accumulation needs --batches-per-step \
                 {stages} or more, got {updates}"
            );
        }
    };
    format!(
        "For pipelining, depth ({name}) must equal at least the number of pipeline stages \
         ({stages}).\n  It is {} here: {option} {stages} or more runs",
        depth.micro_batches()
    )
}

/// What a parser of JSON says, without the place that it says it of.
fn without_place(error: &serde_json::Error) -> String {
    let kind = match error.is_data() {
        true => "not of the form expected",
        false => "not valid JSON",
    };
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(what, _)| what);
    format!("{kind}: {what}")
}

/// How the command line takes back what a preset says.
fn how_to_unset(option: &str) -> String {
    match table::by_name(option) {
        Some(known) if values::is_unset_by_nothing(known) => {
            format!("; {option} '' unsets what a preset says")
        }
        _ => String::new(),
    }
}

/// On a line of its own, so that the original's text stays whole.
fn did_you_mean(suggestions: &[&'static str]) -> String {
    match suggestions {
        [] => String::new(),
        names => format!("\n  did you mean {}?", names.join(", ")),
    }
}

/// The one of `names` that `word` looks most like, if it looks like any.
pub(crate) fn most_like(
    word: &str,
    names: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    /// Least similarity (Jaro-Winkler) of a slip: two letters swapped, one missing, a hyphen.
    const LEAST: f64 = 0.9;
    let likeness = |name: &str| strsim::jaro_winkler(word, name);
    let alike = names.filter(|name| likeness(name) >= LEAST);
    alike.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// Settings that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// An option that only SQuAD knows.
    #[error("{option} is only compatible with SQUAD and not with {task}")]
    OnlySquad {
        /// The option.
        option: &'static str,
        /// The task given.
        task: String,
    },
    /// More pieces than samples.
    #[error("--batch-serialize cannot be > --micro-batch-size")]
    BatchSerialize,
    /// Several processes that infer.
    #[error("Distributed execution is only supported for training")]
    DistributedInference,
    /// Two ways of serialising.
    #[error("--split-linear-layers is incompatible with --batch-serialize > 1")]
    SplitLinear,
    /// Two sources of data.
    #[error("choose either --synthetic-data or --generated-data, not both")]
    TwoSources,
    /// Packs of another task than pre-training. The sentence is the original's.
    #[error("Packed sequence format currently only supported for pretraining.")]
    PackedTask,
    /// Packs in inference, where the original fails over an unset variable.
    #[error(
        "--use-packed-sequence-format is for training only, there is no inference on packs: \
         leave out --inference, or validate nothing with --no-validation"
    )]
    PackedInference,
    /// Perplexity of a model without masked tokens.
    #[error("Masked LM perplexity is only supported in pretraining")]
    Perplexity,
    /// Another choice than a release, which has no option for it, always takes.
    #[error(
        "release {release} has no {option} and works as with {value}: leave the option out, or follow another --release"
    )]
    FixedByRelease {
        /// Name of the option.
        option: &'static str,
        /// What the release does.
        value: bool,
        /// The release.
        release: Release,
    },
    /// Types of moments that the optimiser doesn't have.
    #[error(
        "--use-half-optimizer-state is for moments, and SGD has none: give an --optimizer of ADAM or LAMB"
    )]
    NoMoments,
    /// No training and no validation.
    #[error(
        "--no-training leaves the validation, but --no-validation or --no-model-save turns it off: nothing is left to run"
    )]
    NothingToRun,
    /// Training without an end.
    #[error("Either epochs or training-steps is required")]
    NoEnd,
}

impl Error {
    /// Whether a model takes more memory than an IPU has, whatever its plan.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        match self {
            Error::TooLarge(_) => true,
            Error::Compile { source, .. } => source.is_too_large(),
            _ => false,
        }
    }

    /// The status that the program exits with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Validation(source) | Error::Compile { source, .. } => source.exit_code(),
            Error::ConfigValue { inner, .. } => inner.exit_code(),
            Error::Unrecognized { .. }
            | Error::NotUtf8 { .. }
            | Error::Ambiguous { .. }
            | Error::MissingValue { .. }
            | Error::UnexpectedValue { .. }
            | Error::InvalidBool { .. }
            | Error::InvalidValue { .. }
            | Error::InvalidChoice { .. }
            | Error::Stdout { .. }
            | Error::NotAllowedWith { .. }
            | Error::TwoValues { .. }
            | Error::NotSupported { .. }
            | Error::Command { .. } => 2,
            _ => 1,
        }
    }
}

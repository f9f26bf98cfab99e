//! The lines that a run prints on stdout, in the form and order of `bert.py`.
//!
//! The form is that of the release in force: up to v2.2 units and latencies changed, in v2.4 the
//! text of latencies, in v3.0 that of every step. Source: `bert.py` and `utils/` of graphcore/examples,
//! tags v2.1.0 to v3.1.0, and revision 96fef3f before them. Values are not computed, so that losses and accuracies print as `nan`. Durations
//! are simulated; only `Compiled. Duration` is the host's.
//!
//! A program logs [`compile_only`] and [`program`], then for each of its runs (training, then validation)
//! [`before_compile`] and [`after_compile`], and at last [`finished`].
//!
//! Left out: what doesn't happen here. No model is saved (`Saving model to:`), features and
//! executables are not cached, predictions are not scored. A checkpoint that a run starts from is
//! named, as there, though its values are not read.

use bench_core::config::InferenceIo;
use bench_core::learning_rate::{self, Span};
use bench_core::measure::Latency;
use bench_core::metrics::Metrics;
use bench_core::release::Release;
use bert_model::optim::OptimizerKind;
use ipu_sim::units::{HostSeconds, SimSeconds};
use popart_graph::passes::StateMemory;

use crate::clock::Date;
use crate::config::options::{BertOptions, ConnectionType, Level, SyntheticValues};
use crate::data::dataset::{Dataset, SampleOrigin};
use crate::python;
use crate::request::RunRequest;

/// Writer of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineForm {
    /// A logger, if the level is severe enough.
    Logged,
    /// The program itself, always.
    Printed,
}

/// One line, without its date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The module that logs it, unless it is the main one.
    pub logger: Option<&'static str>,
    /// Whether a logger writes it, with date and level, or the program prints its text alone.
    pub form: LineForm,
    /// How severe it is.
    pub level: Level,
    /// Text of the line.
    pub text: String,
}

impl Line {
    fn info(text: impl Into<String>) -> Self {
        Self {
            logger: None,
            form: LineForm::Logged,
            level: Level::Info,
            text: text.into(),
        }
    }

    fn warning(text: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::info(text)
        }
    }

    fn of(self, logger: &'static str) -> Self {
        Self {
            logger: Some(logger),
            ..self
        }
    }

    fn printed(text: impl Into<String>) -> Self {
        Self {
            form: LineForm::Printed,
            ..Self::info(text)
        }
    }

    /// Whether it appears where lines of `least` and above do.
    #[must_use]
    pub fn appears(&self, least: Level) -> bool {
        self.form == LineForm::Printed || self.level >= least
    }

    /// The whole line: date, module, level, text.
    #[must_use]
    pub fn render(&self, date: Date) -> String {
        if self.form == LineForm::Printed {
            return self.text.clone();
        }
        let logger = self
            .logger
            .map_or(String::new(), |logger| format!("{logger} "));
        let level = self.level.name();
        format!("{} {logger}{level} {}", date.log_stamp(), self.text)
    }
}

/// Facts about the process that the lines say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Name of the host.
    pub hostname: String,
    /// The words of the command, program name first.
    pub command: Vec<String>,
}

/// Warnings of settings that a run which is only compiled makes by itself.
pub fn compile_only(warnings: &[&str]) -> impl Iterator<Item = Line> {
    warnings.iter().map(|text| Line::warning(*text).of("utils"))
}

/// Lines before the first run.
#[must_use]
pub fn program(accumulation_set: Option<u64>, process: &Process) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(factor) = accumulation_set {
        let text = format!("Set Gradient Accumulation Factor to {factor}");
        lines.push(Line::info(text).of("utils"));
    }
    lines.extend([
        Line::info("Program Start"),
        Line::info(format!("Hostname: {}", process.hostname)),
        Line::info(format!(
            "Command Executed: [{}]",
            python::repr_items(&process.command)
        )),
    ]);
    lines
}

/// The line before the validation.
#[must_use]
pub fn validation() -> Line {
    Line::info("Doing Validation")
}

/// The line after the last run, unless the device is offline: then the program ends before.
#[must_use]
pub fn finished(options: &BertOptions) -> Option<Line> {
    let offline = options.device.connection == ConnectionType::Offline;
    (!offline).then(|| Line::info("Program Finished"))
}

/// Lines from the start of a run to the start of compilation.
#[must_use]
pub fn before_compile(request: &RunRequest, dataset: &Dataset) -> Vec<Line> {
    let options = &request.options;
    let mut lines = Vec::new();
    lines.extend(weights(options));
    lines.push(Line::info("Building Model"));
    lines.extend(device(request));
    lines.extend(data(options, dataset));
    let length = dataset.steps_per_epoch;
    lines.push(Line::info(format!("Dataset length: {length}")));
    lines.extend(session(options));
    lines.push(Line::info("Creating Session"));
    lines.push(Line::info(if options.config.is_inference() {
        "Compiling Inference Graph"
    } else {
        "Compiling Training Graph"
    }));
    lines
}

/// Where weights come from: with data that is made, from nowhere else, whatever checkpoint is named;
/// with real data, from the checkpoint. Weights that training starts with are not said.
fn weights(options: &BertOptions) -> Option<Line> {
    let source = if options.is_synthetic() {
        "synthetic_data".into()
    } else if options.run.generated_data {
        "generated_data".into()
    } else {
        let arguments = options.arguments();
        let named = |(key, kind): (&str, &str)| {
            let path = arguments[key].as_str()?;
            Some(format!("{kind} checkpoint: {path}"))
        };
        // The first counts where a file names both.
        let kinds = [("tf_checkpoint", "TF"), ("onnx_checkpoint", "ONNX")];
        kinds.into_iter().find_map(named)?
    };
    Some(Line::info(format!("Initialising from {source}")))
}

fn device(request: &RunRequest) -> [Line; 2] {
    let config = &request.options.config;
    let launch = request.options.run.launch;
    let (replicas, each) = match launch {
        None => (config.batching.replicas, ""),
        Some(launch) => (launch.local_replicas, " per instance"),
    };
    let needed = config.ipus_per_replica() * replicas;
    let requested = match launch {
        None => config.ipus_requested(),
        Some(_) => needed.next_power_of_two(),
    };
    let need = format!("Need {needed} IPUs{each}. Requesting {requested} IPUs{each}.");
    let acquired = format!(
        "Acquired device: simulated {} with {requested} IPUs",
        request.machine.name
    );
    [Line::info(need), Line::info(acquired)].map(|line| line.of("utils.device"))
}

/// What the loaders of the original say.
fn data(options: &BertOptions, dataset: &Dataset) -> Vec<Line> {
    let squad = |text: String| Line::info(text).of("bert_data.squad_dataset");
    let loader = |text: String| Line::info(text).of("bert_data.pretraining_dataset");
    let release = options.config.release;
    let loading = (!options.config.is_squad() && release >= Release::V2_1).then(|| {
        let files = dataset.files.iter().map(|path| path.display().to_string());
        let files: Vec<String> = files.collect();
        let (count, names) = (files.len(), python::repr_items(&files));
        Line::printed(format!("Loading {count} files: [{names}]"))
    });
    let rest = match &dataset.origin {
        SampleOrigin::Made if options.config.is_squad() => {
            let samples = options.config.samples_per_step();
            vec![squad(format!(
                "Generating random dataset of {samples} samples"
            ))]
        }
        SampleOrigin::Records { cached: true } | SampleOrigin::Packs { cached: true, .. } => {
            // Nothing is read into it, which takes no time.
            let filled = (release >= Release::V2_3)
                .then(|| loader("Dataset cache filled in 0.00 seconds.".into()));
            std::iter::once(loader("Filling Dataset Cache".into()))
                .chain(filled)
                .collect()
        }
        SampleOrigin::Made
        | SampleOrigin::Records { cached: false }
        | SampleOrigin::Packs { cached: false, .. } => vec![],
        SampleOrigin::Questions { not_found, padding } => {
            let missing = not_found
                .iter()
                .map(|missing| Line::warning(missing.to_string()).of("bert_data.squad_utils"));
            let padded =
                (*padding > 0).then(|| squad(format!("Dataset padded by {padding} samples")));
            std::iter::once(squad("Reading Examples".into()))
                .chain(missing)
                .chain([squad("Converting to Features".into())])
                .chain(padded)
                .collect()
        }
    };
    loading.into_iter().chain(rest).collect()
}

/// What making the session says of its settings.
fn session(options: &BertOptions) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(bytes) = options.run.max_copy_merge_size {
        lines.push(Line::warning(format!(
            "Copy merge size limit set to {bytes}"
        )));
    }
    let model = &options.config.model;
    if !options.config.model.fully_connected_pass
        && options.config.is_squad()
        && model.sequence_length == 384
    {
        lines.push(Line::warning(
            "Fully connected pass has been disabled. This may cause SQuAD 384 12-layer to go OOM.",
        ));
    }
    if options.is_synthetic() {
        let kind = match options.run.synthetic_values {
            SyntheticValues::RandomNormal => "RandomNormal",
            SyntheticValues::Zeros => "Zeros",
        };
        let text = format!("Running with Synthetic Data Type 'SyntheticDataMode.{kind}'");
        lines.push(Line::info(text));
    }
    let without_accumulation =
        !options.config.is_inference() && options.config.batching.accumulation == 1;
    if !options.config.is_squad() && without_accumulation {
        lines.push(Line::warning(
            "Running Pretraining without Gradient Accumulation will disable optimisations \
             for the Word Embedding weight. This will increase memory usage. \
             Consider enabling Gradient Accumulation.",
        ));
    }
    if options.config.optimizer.kind == OptimizerKind::Sgd
        && options.config.state.memory == StateMemory::OffChip
    {
        lines.push(Line::warning(
            "Remote Optimizer State with SGD/SGD+M is not a recommended configuration",
        ));
    }
    lines
}

/// Lines from the end of the compilation, which took the host so long, to the end of the run;
/// offline, it ends there. Lines of steps and micro-batches are made only where they appear, since
/// there may be any number of them.
pub fn after_compile<'a>(
    options: &'a BertOptions,
    dataset: &'a Dataset,
    metrics: &'a Metrics,
    compilation: HostSeconds,
) -> impl Iterator<Item = Line> + 'a {
    let compiled = Line::info(format!(
        "Compiled. Duration {} seconds",
        python::float(compilation.0)
    ));
    let inference = options.config.is_inference();
    let started = if inference {
        "Inference Started"
    } else {
        "Training Started"
    };
    let (first, steps) = if inference {
        let epochs = options.run.epochs_inference;
        (0, epochs.saturating_mul(dataset.steps_per_epoch))
    } else {
        (
            first_step(options, dataset),
            training_steps(options, dataset),
        )
    };
    let least = options.output.log_level;
    let steps_appear = match falls_back(options) {
        true => Level::Warning >= least,
        false => Level::Info >= least,
    };
    let latencies_appear = inference && Level::Debug >= least;
    let end = match steps_appear || latencies_appear {
        true => steps,
        false => first,
    };
    let logged = multiples(options.output.steps_per_log, first, end);
    let step_lines = logged.flat_map(move |step| {
        let micro_batches = latencies_appear.then(|| single_latencies(options, metrics));
        let line = match inference {
            true => inference_step(options, metrics, step),
            false => vec![training_step(options, dataset, metrics, step)],
        };
        micro_batches.into_iter().flatten().chain(line)
    });
    let mut end = Vec::new();
    if !inference {
        if options.run.training_steps == Some(steps) && first < steps {
            end.push(Line::info(format!("Ending Training at {steps} Steps")));
        }
        end.push(Line::info("Training Finished"));
    }
    let offline = options.device.connection == ConnectionType::Offline;
    let rest = [Line::info(started)]
        .into_iter()
        .chain(step_lines)
        .chain(end);
    std::iter::once(compiled).chain(rest.filter(move |_| !offline))
}

/// Warning for a training that ends before it starts.
#[must_use]
pub fn nothing_to_train(options: &BertOptions, dataset: &Dataset) -> Option<String> {
    let (first, end) = (
        first_step(options, dataset),
        training_steps(options, dataset),
    );
    (first >= end).then(|| {
        format!(
            "no step is left to train: --continue-training-from-epoch {} starts at step {first}, \
             and step {end} is the end",
            options.run.start_epoch
        )
    })
}

/// The step that training starts with.
fn first_step(options: &BertOptions, dataset: &Dataset) -> u64 {
    let epoch = options.run.start_epoch;
    epoch.saturating_mul(dataset.steps_per_epoch)
}

/// The step before which the training loop ends: to the end of the epochs or of the steps, whichever comes first.
fn training_steps(options: &BertOptions, dataset: &Dataset) -> u64 {
    let by_epochs = options
        .run
        .epochs
        .map(|epochs| epochs.saturating_mul(dataset.steps_per_epoch));
    let ends = [by_epochs, options.run.training_steps];
    let end = ends.into_iter().flatten().min();
    end.expect("a configuration without an end was refused when it was resolved")
}

/// Steps that the learning-rate schedule spans: whole epochs, but from v2.3 on the steps themselves
/// where they are given.
fn scheduled_steps(options: &BertOptions, dataset: &Dataset) -> u64 {
    let steps = training_steps(options, dataset);
    match options.run.epochs {
        Some(epochs) => epochs.saturating_mul(dataset.steps_per_epoch),
        None if options.config.release >= Release::V2_3 => steps,
        None => steps
            .checked_next_multiple_of(dataset.steps_per_epoch)
            .unwrap_or(u64::MAX),
    }
}

fn training_step(options: &BertOptions, dataset: &Dataset, metrics: &Metrics, step: u64) -> Line {
    let release = options.config.release;
    let place = match (options.run.epochs, options.run.training_steps) {
        (None, Some(steps)) => format!("Iteration: {step:5}/{steps} "),
        (Some(_), Some(steps)) if release >= Release::V2_1 => {
            format!("Iteration: {step:5}/{steps} ")
        }
        (epochs, _) => {
            let epoch = step as f64 / dataset.steps_per_epoch as f64;
            let epochs = epochs.unwrap_or_default();
            format!("Iteration: {step:6} Epoch: {epoch:6.2}/{epochs} ")
        }
    };
    let sequences = match options.config.is_packed() {
        true => {
            let thousands = sequences_until(options, dataset, step) / 1e3;
            format!("Sequences processed: {thousands:6.1}k ")
        }
        false => String::new(),
    };
    let values = match (options.config.is_squad(), release >= Release::V3_0) {
        (false, false) => format!("Loss (MLM NSP): {NAN} {NAN} Accuracy (MLM NSP): {NAN} {NAN} "),
        (true, false) => format!("Loss: {NAN} Accuracy: {NAN} "),
        (false, true) => {
            format!("mlm_loss: {NAN} nsp_loss: {NAN} mlm_acc: {NAN} % nsp_acc: {NAN} % ")
        }
        // No blank follows, in that release either.
        (true, true) => format!("loss: {NAN} accuracy: {NAN} %"),
    };
    let rate = learning_rate::rate_of_step(
        &options.config.learning_rate,
        step,
        &Span {
            first_step: first_step(options, dataset),
            steps_per_epoch: dataset.steps_per_epoch,
            total_steps: scheduled_steps(options, dataset),
        },
    );
    let speed = speed(options, metrics);
    Line::info(format!(
        "{place}{sequences}{values}Learning Rate: {rate:.5} {speed}"
    ))
}

/// Sequences of the packs of all steps up to this one, which counts.
fn sequences_until(options: &BertOptions, dataset: &Dataset, step: u64) -> f64 {
    let steps = step - first_step(options, dataset) + 1;
    let of_step = options.config.samples_per_step() as f64 * options.config.sequences_per_sample();
    of_step * steps as f64
}

/// A value that is not computed, as `%5.3f` prints it.
const NAN: &str = "  nan";

fn speed(options: &BertOptions, metrics: &Metrics) -> String {
    let duration = metrics.step_seconds.0;
    let throughput = metrics.throughput_sequences_per_second;
    let throughput = match options.config.release {
        Release::Revision96fef3f => format!("Throughput: {throughput:6.1} samples/s "),
        release if release < Release::V3_0 => format!("Throughput: {throughput:6.1} sequences/s "),
        _ => format!("throughput: {throughput:6.1} samples/sec "),
    };
    let mut speed = format!("Duration: {duration:6.4} s {throughput}");
    if options.output.report_hw_cycle_count {
        speed += &format!("Cycles: {} ", metrics.device_cycles.0);
    }
    speed
}

fn inference_step(options: &BertOptions, metrics: &Metrics, step: u64) -> Vec<Line> {
    let pretraining = !options.config.is_squad();
    let latency = metrics.latency_seconds.filter(|_| by_callback(options));
    let latency = latency.unwrap_or_else(|| constant(metrics.step_seconds));
    let release = options.config.release;
    let latency = latency_text(release, &latency);
    let values = if pretraining {
        let perplexity = match options.config.model.inference_loss {
            true => format!("LM Perplexity: {NAN} "),
            false => String::new(),
        };
        match release >= Release::V3_0 {
            false => format!("Accuracy (MLM NSP): {NAN} {NAN} {perplexity}"),
            true => format!("mlm_acc: {NAN} %nsp_acc: {NAN} %{perplexity}"),
        }
    } else {
        String::new()
    };
    let speed = speed(options, metrics);
    let mut lines = Vec::new();
    if falls_back(options) {
        lines.push(Line::warning(
            "No stepio callback times recorded. Using durations for fallback calculation.",
        ));
    }
    lines.push(Line::info(format!(
        "Iteration: {step:6} {values}{speed}{latency}"
    )));
    lines
}

/// Latencies as a release prints them: in full digits.
fn latency_text(release: Release, latency: &Latency) -> String {
    let Latency {
        mean,
        min,
        max,
        p99,
        p999,
    } = *latency;
    let scale = if release >= Release::V3_0 { 1e3 } else { 1.0 };
    let [mean, min, max, p99, p999] =
        [mean, min, max, p99, p999].map(|seconds| python::float(scale * seconds.0));
    if release < Release::V2_1 {
        format!("Per-sample Latency: {mean} {min} {max} seconds (mean min max) ")
    } else if release < Release::V2_4 {
        format!(
            "Per-sample Latency: {mean} {min} {max} {p99} {p999} seconds \
             (mean min max p99 p99.9) "
        )
    } else if release < Release::V3_0 {
        format!(
            "Per-sample: Mean Latency={mean} Min Latency={min} Max Latency={max} \
             p99 Latency={p99} p999 Latency={p999} seconds"
        )
    } else {
        format!(
            "Per-sample: latency avg: {mean} ms, latency min: {min} ms, latency max:{max} ms, \
             latency 99p: {p99} ms, latency 99p9: {p999} ms"
        )
    }
}

/// Whether latency is measured by callback, which exists for SQuAD only; elsewhere the duration of
/// a step stands in.
fn by_callback(options: &BertOptions) -> bool {
    options.config.session.inference_io != InferenceIo::Ordinary && options.config.is_squad()
}

/// Whether the latency of inference was asked for by callback where there is none.
fn falls_back(options: &BertOptions) -> bool {
    let config = &options.config;
    let ordinary = config.session.inference_io == InferenceIo::Ordinary;
    config.is_inference() && !config.is_squad() && !ordinary
}

/// The multiples of `every` from `first` up to `end`, which doesn't count.
fn multiples(every: u64, first: u64, end: u64) -> impl Iterator<Item = u64> {
    let start = first.checked_next_multiple_of(every);
    let start = start.filter(|start| *start < end);
    std::iter::successors(start, move |step| {
        step.checked_add(every).filter(|next| *next < end)
    })
}

/// A line for the latency of each micro batch.
fn single_latencies<'a>(
    options: &'a BertOptions,
    metrics: &'a Metrics,
) -> impl Iterator<Item = Line> + 'a {
    let alike = metrics.latencies.iter().filter(|_| by_callback(options));
    let single = alike.flat_map(|alike| (0..alike.count).map(|_| alike.value));
    single.enumerate().map(|(micro_batch, latency)| Line {
        level: Level::Debug,
        ..Line::info(format!(
            "LATENCY: {micro_batch} {}",
            python::float(latency.0)
        ))
    })
}

fn constant(seconds: SimSeconds) -> Latency {
    Latency {
        mean: seconds,
        min: seconds,
        max: seconds,
        p99: seconds,
        p999: seconds,
    }
}

#[cfg(test)]
mod tests;

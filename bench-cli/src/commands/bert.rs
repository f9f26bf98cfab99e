//! `ipu-bench bert`: one run, as `bert.py` would log it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bench_cli::args::Arguments;
use bench_cli::clock::Date;
use bench_cli::config::options::{BertOptions, ConnectionType};
use bench_cli::console::Console;
use bench_cli::data::dataset::{self, Dataset};
use bench_cli::data::patterns;
use bench_cli::inspect::Inspect;
use bench_cli::launch::Launch;
use bench_cli::log::{self, Process};
use bench_cli::metrics::{Report, TimedMetrics, memory_text};
use bench_cli::request::{PreparedRun, RunRequest, prepare};
use bench_cli::{Error, args, files, report, run};
use bench_core::advise;
use bench_core::metrics::RegionUse;
use ipu_sim::device::AttachedDevice;
use popart_graph::plan::PlanCache;

/// Runs the benchmark with the `words` after `bert`.
pub(crate) fn run(words: Vec<OsString>, console: &Console) -> anyhow::Result<ExitCode> {
    let words = args::texts(words)?;
    let mut given = args::parse(words.iter().cloned())?;
    if given.help {
        let help = args::command().bin_name("ipu-bench bert").render_help();
        console.print(help.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    given.launch = Launch::read(|name| std::env::var_os(name))?;
    let prepared = prepare(&given, Date::now())?;
    let own = &prepared.own;
    own.color.write_global();
    if own.quiet {
        console.silence();
    }
    if super::is_left_to_first(&given, console) {
        return Ok(ExitCode::SUCCESS);
    }
    if own.print_config {
        console.print(report::json::config_text(
            &prepared.request.options.arguments(),
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let _folder = own.inspect.check()?;
    let metrics = own.metrics_json.iter().map(Path::new);
    let inspected = own.inspect.files()?;
    let outputs = metrics.chain(inspected.iter().map(PathBuf::as_path));
    let inputs = inputs(&given, &prepared);
    let inputs = inputs.iter().map(PathBuf::as_path);
    own.inspect
        .check_apart(outputs.clone().chain(inputs.clone()))?;
    files::check_apart(outputs.clone(), inputs)?;
    files::check_all_writable(outputs)?;
    let command = ["ipu-bench".into(), "bert".into()]
        .into_iter()
        .chain(words)
        .collect();
    simulate(&given, &prepared, command, console)?;
    Ok(ExitCode::SUCCESS)
}

/// The files that a run reads, or would if they were there.
fn inputs(given: &Arguments, prepared: &PreparedRun) -> Vec<PathBuf> {
    let named = given.config.iter().chain(&prepared.own.system);
    let named = named.map(PathBuf::from);
    let data = &prepared.request.options.data;
    let files = patterns::files(&data.input_files);
    let files = files.unwrap_or_else(|_| data.input_files.clone());
    named.chain(files).chain(data.vocab_file.clone()).collect()
}

/// The runs of a program, one after the other, with their lines, and the files of the first.
fn simulate(
    given: &Arguments,
    prepared: &PreparedRun,
    command: Vec<String>,
    console: &Console,
) -> anyhow::Result<()> {
    let mut runs = runs(prepared)?;
    say(prepared, console);
    if let Some(training) = runs
        .iter()
        .find(|run| !run.request.options.config.is_inference())
        && let Some(note) = log::nothing_to_train(&training.request.options, &training.dataset)
    {
        console.note(&note);
    }
    let old_form = runs.iter().find_map(|run| run.dataset.old_form());
    if let Some(path) = old_form {
        console.note(&format!(
            "{}: packs in the form of v2.1 and v2.2, as its size says; they run as those of v2.3 do",
            path.display()
        ));
    }
    let while_running = || match &given.config {
        Some(path) => format!("while running {path}"),
        None => "while running the given options".into(),
    };
    let options = &prepared.request.options;
    // What no device can run must not leave a folder behind.
    let mut device = Some(run::acquire(&runs[0].request).with_context(while_running)?);
    let folder = prepared.request.clone().make_folder()?;
    for run in &mut runs {
        run.request.move_to(&folder);
    }
    let process = Process {
        hostname: hostname(),
        command,
    };
    let log = Log { options, console };
    log.print(log::compile_only(&prepared.warnings));
    log.print(log::program(prepared.accumulation_set, &process));
    for (number, this) in runs.iter().enumerate() {
        let first = number == 0;
        let context = || match this.validation {
            true => format!("{}, in the validation after training", while_running()),
            false => while_running(),
        };
        if this.validation {
            log.print([log::validation()]);
        }
        let device = match device.take() {
            Some(device) => device,
            None => run::acquire(&this.request).with_context(context)?,
        };
        let plans = run::plans_for(&this.request.machine.spec);
        let inspect = match first {
            true => prepared.own.inspect.clone(),
            false => Inspect::default(),
        };
        let measured = one(&log, this, device, &inspect, &plans).with_context(context)?;
        if prepared.own.explain && first {
            console.say(report::explain::text(&measured.metrics));
        }
        let (refusal, overflow) = (measured.metrics.refusal.clone(), measured.metrics.overflow);
        if let Some(path) = prepared.own.metrics_json.as_ref().filter(|_| first) {
            let text = report::json::text(&Report::new(&this.request, measured));
            files::write(Path::new(path), &text)?;
        }
        if let Some(refusal) = refusal {
            advise(&this.request, overflow, &plans, console);
            return Err(Error::DoesNotFit(Box::new(refusal))).with_context(context);
        }
        if options.device.connection == ConnectionType::Offline {
            break;
        }
    }
    log.print(log::finished(options));
    Ok(())
}

/// One of the runs of a program, and what it reads.
struct Run {
    request: RunRequest,
    dataset: Dataset,
    validation: bool,
}

/// The runs in order, at least one: inference, or training and its validation. Their data is
/// found, or found wanting, before the first of them starts.
fn runs(prepared: &PreparedRun) -> anyhow::Result<Vec<Run>> {
    let options = &prepared.request.options;
    let main = options.config.is_inference() || options.run.training;
    let main = main.then_some((&prepared.request, false));
    let validation = prepared.validation.as_ref().map(|request| (request, true));
    main.into_iter()
        .chain(validation)
        .map(|(request, validation)| {
            let dataset = dataset::open(&request.options).map_err(|error| match validation {
                true => Error::Validation(Box::new(error)),
                false => error,
            })?;
            let mut request = request.clone();
            if let Some(mean) = dataset.sequences_per_pack() {
                request.options.config.sequences_per_pack = Some(mean);
            }
            Ok(Run {
                request,
                dataset,
                validation,
            })
        })
        .collect()
}

/// Runs one of the runs and prints its lines.
fn one(
    log: &Log<'_>,
    this: &Run,
    device: AttachedDevice,
    inspect: &Inspect,
    plans: &PlanCache,
) -> anyhow::Result<TimedMetrics> {
    let request = &this.request;
    log.print(log::before_compile(request, &this.dataset));
    let measured = match run::run(request, device, inspect, plans) {
        Ok(measured) => measured,
        Err(error) => {
            if error.is_too_large() {
                advise(request, None, plans, log.console);
            }
            return Err(error.into());
        }
    };
    // What doesn't fit doesn't run: no line of a run is printed for it.
    let metrics = &measured.metrics;
    if metrics.fits {
        let compilation = measured.host_seconds.compile;
        let lines = log::after_compile(&request.options, &this.dataset, metrics, compilation);
        log.print(lines);
    }
    summarise(request, &measured, log.console);
    Ok(measured)
}

/// What the user should know before the run.
fn say(prepared: &PreparedRun, console: &Console) {
    console.note(&format!("system: {}", prepared.request.machine.name));
    for line in prepared.lines() {
        console.note(&line);
    }
}

/// What would make the run fit, of which a region overflows. Quiet or not: it is part of the error.
fn advise(request: &RunRequest, overflow: Option<RegionUse>, plans: &PlanCache, console: &Console) {
    let bar = console.spinner();
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar.set_message("trying other settings");
    let tried = || {
        bar.inc(1);
        bar.set_message(format!("trying other settings: {} tried", bar.position()));
    };
    let machine = &request.machine.spec;
    let advice = advise::advice(&request.options.config, overflow, machine, plans, &tried);
    bar.finish_and_clear();
    for line in report::advice::lines(&advice, &request.options) {
        console.warn(&line);
    }
}

/// The log on stdout.
struct Log<'a> {
    /// Of the program.
    options: &'a BertOptions,
    console: &'a Console,
}

impl Log<'_> {
    /// Prints lines that are severe enough.
    fn print(&self, lines: impl IntoIterator<Item = log::Line>) {
        let least = self.options.output.log_level;
        let lines = lines.into_iter().filter(|line| line.appears(least));
        let texts = lines.map(|line| format!("{}\n", line.render(Date::now())));
        self.console.print_all(texts);
    }
}

/// What the published lines leave out: memory, and which time is whose.
fn summarise(request: &RunRequest, measured: &TimedMetrics, console: &Console) {
    let (metrics, host) = (&measured.metrics, &measured.host_seconds);
    console.note(&format!(
        "simulated {} cycles ({:.6} s) a step on {}; host {:.2} s compiling, {:.2} s simulating",
        metrics.step_cycles.0,
        metrics.step_seconds.0,
        request.machine.name,
        host.compile.0,
        host.simulate.0,
    ));
    let options = &request.options;
    let logged = options.device.connection != ConnectionType::Offline;
    if metrics.fits && logged && !options.config.is_inference() {
        console.note("losses and accuracies are nan, for a timed run computes no values");
    }
    console.note(&metrics.accuracy.text());
    if let Some(text) = memory_text(metrics) {
        console.note(&text);
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or_else(|| "localhost".into(), |name| name.trim().to_string())
}

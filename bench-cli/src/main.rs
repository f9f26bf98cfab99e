//! The `ipu-bench` command: words, printing and the exit status.
//!
//! stdout holds what `bert.py` would print, or the table of the suite; all else goes to stderr.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bench_cli::clock::Date;
use bench_cli::log::{self, Process};
use bench_cli::metrics::{Metrics, Report};
use bench_cli::request::{Prepared, RunRequest, prepare};
use bench_cli::suite::{self, Outcome};
use bench_cli::{Error, args, explain, plan, report, run, system, validate};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use ipu_sim::numerics::DType;
use popart_graph::plan::{MatMulShape, Pass};

fn main() -> ExitCode {
    match dispatch(std::env::args_os().collect()) {
        Ok(code) => code,
        Err(error) => {
            // A reader that left early (`| head`) is no failure of ours.
            let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
                let cause = cause.downcast_ref::<io::Error>();
                cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
            };
            if error.chain().any(broken_pipe) {
                return ExitCode::SUCCESS;
            }
            let code = error.downcast_ref().map_or(1, Error::exit_code);
            let text = if code == 2 {
                format!(
                    "usage: PopART BERT [--option [value ...]] ... (ipu-bench bert --help lists all)\n\
                     PopART BERT: error: {error:#}"
                )
            } else {
                format!("ipu-bench: error: {error:#}")
            };
            // Without a stderr there is nobody to tell.
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::from(code)
        }
    }
}

fn command() -> Command {
    let path = |name: &'static str, help: &'static str| {
        let parser = value_parser!(PathBuf);
        Arg::new(name)
            .long(name)
            .value_name("PATH")
            .value_parser(parser)
            .help(help)
    };
    Command::new("ipu-bench")
        .about("Benchmark BERT on simulated Graphcore IPU-PODs")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(args::command())
        .subcommand(
            Command::new("suite")
                .about("Run the eighteen runs of the published benchmark")
                .arg(path(
                    "json",
                    "Write all reports to this file after each run",
                ))
                .arg(path(
                    "csv",
                    "Write one row a run to this file after each run",
                )),
        )
        .subcommand(plan_command())
        .subcommand(
            Command::new("validate")
                .about("Compare the simulator with measurements of real machines")
                .arg(path("json", "Write all rows to this file"))
                .arg(
                    Arg::new("strict")
                        .long("strict")
                        .action(ArgAction::SetTrue)
                        .help("Fail if a row is outside its tolerance"),
                ),
        )
        .subcommand(
            Command::new("calibrate")
                .about("Fit the fitted constants of time again, and say how well they are known"),
        )
        .subcommand(
            Command::new("systems")
                .about("List the machines, or show one with the source of every number")
                .arg(Arg::new("NAME").help("a shipped system or a description file")),
        )
}

fn plan_command() -> Command {
    let extent = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .required(true)
            .value_parser(value_parser!(u64).range(1..=plan::EXTENT_MAX))
            .help(help)
    };
    let choice = |name: &'static str, values: &[&'static str], help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_parser(values.to_vec())
            .default_value(values[0])
            .help(help)
    };
    Command::new("plan")
        .about("Plan a matrix product [M, K] x [K, N] of f16 over the tiles of an IPU")
        .arg(extent("M", "rows of the left operand"))
        .arg(extent("K", "summed dimension"))
        .arg(extent("N", "columns of the right operand"))
        .arg(
            Arg::new("groups")
                .long("groups")
                .value_parser(value_parser!(u64).range(1..=plan::EXTENT_MAX))
                .default_value("1")
                .help("independent products"),
        )
        .arg(choice(
            "partials",
            &["half", "float"],
            "type of partial sums",
        ))
        .arg(
            Arg::new("proportion")
                .long("proportion")
                .value_parser(value_parser!(f64))
                .allow_negative_numbers(true)
                .default_value("0.6")
                .help("share of a tile's memory for temporary data; 0 asks for the least memory"),
        )
        .arg(choice(
            "pass",
            &["fwd", "bwd", "wu", "inference", "none"],
            "what the product is part of",
        ))
        .arg(
            Arg::new("count")
                .long("count")
                .value_parser(value_parser!(u64).range(1..=100))
                .default_value("5")
                .help("plans to show, runners-up included"),
        )
        .arg(
            Arg::new("system")
                .long("system")
                .default_value("mk2-m2000")
                .help("a shipped system or a description file"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("print JSON instead of a table"),
        )
}

fn dispatch(words: Vec<OsString>) -> anyhow::Result<ExitCode> {
    // The benchmark's options have parsing rules of their own.
    if words.get(1).is_some_and(|word| word == "bert") {
        return bert(words);
    }
    let matches = match command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            error.print().context("cannot print")?;
            return Ok(ExitCode::from(u8::from(error.use_stderr()) * 2));
        }
    };
    match matches.subcommand() {
        Some(("suite", matches)) => {
            let path = |name: &str| matches.get_one::<PathBuf>(name).map(PathBuf::as_path);
            run_suite(path("json"), path("csv"))
        }
        Some(("plan", matches)) => run_plan(matches),
        Some(("calibrate", _)) => {
            let found = validate::calibrate::calibrate()?;
            write!(io::stdout(), "{}", found.text()).context("cannot print")?;
            Ok(ExitCode::SUCCESS)
        }
        Some(("validate", matches)) => {
            let json = matches.get_one::<PathBuf>("json").map(PathBuf::as_path);
            run_validate(json, matches.get_flag("strict"))
        }
        Some(("systems", matches)) => {
            let text = match matches.get_one::<String>("NAME") {
                None => system::list()?,
                Some(name) => system::show(name)?,
            };
            write!(io::stdout(), "{text}").context("cannot print")?;
            Ok(ExitCode::SUCCESS)
        }
        other => unreachable!("clap accepts no other command: {other:?}"),
    }
}

fn run_validate(json: Option<&Path>, strict: bool) -> anyhow::Result<ExitCode> {
    if let Some(path) = json {
        report::check_writable(path)?;
    }
    let bar = ProgressBar::new_spinner();
    let found = validate::validate(|row| {
        bar.set_message(row.name.clone());
        bar.tick();
    })?;
    bar.finish_and_clear();
    write!(io::stdout(), "{}", found.text()).context("cannot print")?;
    if let Some(path) = json {
        report::write(path, &report::json::text(&found))?;
    }
    let failed = strict && !found.rows.iter().all(validate::Row::passes);
    Ok(ExitCode::from(u8::from(failed)))
}

fn run_plan(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let number = |name: &str| {
        *matches
            .get_one::<u64>(name)
            .expect("clap has a value for it")
    };
    let word = |name: &str| {
        let word = matches.get_one::<String>(name);
        word.expect("clap has a value for it").as_str()
    };
    let request = plan::Request {
        shape: MatMulShape {
            groups: number("groups"),
            m: number("M"),
            k: number("K"),
            n: number("N"),
        },
        partials: match word("partials") {
            "half" => DType::F16,
            _ => DType::F32,
        },
        proportion: *matches
            .get_one("proportion")
            .expect("clap has a value for it"),
        pass: match word("pass") {
            "fwd" => Pass::TrainingFwd,
            "bwd" => Pass::TrainingBwd,
            "wu" => Pass::TrainingWu,
            "inference" => Pass::InferenceFwd,
            _ => Pass::None,
        },
        count: number("count") as usize,
    };
    let machine = system::choose(Some(word("system")), 1)?;
    let plans = plan::plans(&request, &machine.spec.tile)?;
    let text = match matches.get_flag("json") {
        true => report::json::text(&plans),
        false => plans.text(),
    };
    write!(io::stdout(), "{text}").context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

fn bert(words: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let words = words
        .into_iter()
        .map(|word| {
            word.into_string().map_err(|word| Error::Unrecognized {
                words: vec![word.to_string_lossy().into_owned()],
            })
        })
        .collect::<Result<Vec<String>, Error>>()?;
    let given = args::parse(words.iter().skip(2).cloned())?;
    if given.help {
        let help = args::command().bin_name("ipu-bench bert").render_help();
        write!(io::stdout(), "{help}").context("cannot print")?;
        return Ok(ExitCode::SUCCESS);
    }
    let prepared = prepare(&given, Date::now())?;
    if let Some(path) = &given.metrics_json {
        report::check_writable(Path::new(path))?;
    }
    given.inspect.check()?;
    say(&prepared)?;
    let request = &prepared.request;
    let while_running = || match &given.config {
        Some(path) => format!("while running {path}"),
        None => "while running the given options".into(),
    };
    let device = run::acquire(request).with_context(while_running)?;
    write_config(request)?;
    let process = Process {
        hostname: hostname(),
        command: std::iter::once("ipu-bench".into())
            .chain(words.into_iter().skip(1))
            .collect(),
    };
    print(
        request,
        log::before_compile(request, prepared.accumulation_set, &process),
    )?;
    let metrics = run::run(request, device, &given.inspect).with_context(while_running)?;
    // What doesn't fit doesn't run: no line of a run is printed for it.
    if metrics.fits {
        print(request, log::after_compile(&request.options, &metrics))?;
    }
    summarise(request, &metrics)?;
    if given.explain {
        write!(
            io::stderr(),
            "{}",
            explain::text(&metrics.cycles, metrics.step_cycles)
        )?;
    }
    let refusal = metrics.out_of_memory.clone();
    if let Some(path) = &given.metrics_json {
        let text = report::json::text(&Report::new(request, metrics));
        report::write(Path::new(path), &text)?;
    }
    match refusal {
        Some(message) => Err(Error::DoesNotFit { message }).with_context(while_running),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// What the user should know before the run.
fn say(prepared: &Prepared) -> anyhow::Result<()> {
    let mut stderr = io::stderr().lock();
    writeln!(
        stderr,
        "ipu-bench: system: {}",
        prepared.request.machine.name
    )?;
    for note in &prepared.notes {
        writeln!(stderr, "ipu-bench: {note}")?;
    }
    Ok(())
}

/// The resolved configuration, in the folder of this run, as the original leaves it.
fn write_config(request: &RunRequest) -> anyhow::Result<()> {
    let folder = PathBuf::from(&request.options.output.checkpoint_dir);
    std::fs::create_dir_all(&folder).map_err(|source| Error::File {
        action: "create",
        path: folder.clone(),
        source,
    })?;
    report::write(
        &folder.join("config.json"),
        &report::json::text(&request.resolved),
    )?;
    Ok(())
}

fn print(request: &RunRequest, lines: impl IntoIterator<Item = log::Line>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let least = request.options.output.log_level;
    for line in lines.into_iter().filter(|line| line.level >= least) {
        writeln!(stdout, "{}", line.render(Date::now())).context("cannot print")?;
    }
    stdout.flush().context("cannot print")
}

/// What the published lines leave out: memory, and which time is whose.
fn summarise(request: &RunRequest, metrics: &Metrics) -> anyhow::Result<()> {
    let mut stderr = io::stderr().lock();
    writeln!(
        stderr,
        "ipu-bench: simulated {} cycles ({:.6} s) a step on {}; host {:.2} s compiling, {:.2} s simulating",
        metrics.step_cycles.0,
        metrics.step_seconds.0,
        request.machine.name,
        metrics.host_seconds.compile.0,
        metrics.host_seconds.simulate.0,
    )?;
    if let Some(bytes) = metrics.fullest_tile() {
        let fits = if metrics.fits { "fits" } else { "does not fit" };
        writeln!(stderr, "ipu-bench: fullest tile {bytes}: {fits}")?;
    }
    Ok(())
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or_else(|| "localhost".into(), |name| name.trim().to_string())
}

fn run_suite(json: Option<&Path>, csv: Option<&Path>) -> anyhow::Result<ExitCode> {
    for path in [json, csv].into_iter().flatten() {
        report::check_writable(path)?;
    }
    let runs = suite::runs();
    let style = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg}")
        .context("the template of the progress bar")?;
    let bar = ProgressBar::new(runs.len() as u64).with_style(style);
    let mut entries = Vec::new();
    for run in &runs {
        bar.set_message(run.name.clone());
        entries.push(suite::run_one(run, Date::now(), run::simulate));
        bar.inc(1);
        if let Some(path) = json {
            report::write(path, &report::json::text(&entries))?;
        }
        if let Some(path) = csv {
            report::write(path, &report::csv::text(&entries))?;
        }
    }
    bar.finish_and_clear();
    writeln!(io::stdout(), "{}", report::table::text(&entries)).context("cannot print")?;
    let mut failed = false;
    for entry in &entries {
        let error = match &entry.outcome {
            Outcome::Failed { error } => Some(error),
            Outcome::Report { report } => report.metrics.out_of_memory.as_ref(),
        };
        if let Some(error) = error {
            failed = true;
            writeln!(io::stderr(), "ipu-bench: error: {}: {error}", entry.run)?;
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

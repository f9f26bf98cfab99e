//! `ipu-bench sensitivity`: what every constant of a machine does.

use std::ffi::OsString;
use std::process::ExitCode;

use bench_cli::args::own::OwnOptions;
use bench_cli::args::{self, table};
use bench_cli::clock::Date;
use bench_cli::console::Console;
use bench_cli::launch::Launch;
use bench_cli::request::prepare;
use bench_cli::{Error, report};
use bench_core::sensitivity::{self, ExtraRuns};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// The options asked for that print or write something of one run, which many runs can't.
fn outputs(own: &OwnOptions) -> impl Iterator<Item = &'static str> {
    let outputs = [
        (table::METRICS_JSON, own.metrics_json.is_some()),
        (table::EXPLAIN, own.explain),
        (table::DUMP_IR, own.inspect.ir.is_some()),
        (table::DUMP_PROGRAM, own.inspect.program.is_some()),
        (table::MEMORY_REPORT, own.inspect.memory.is_some()),
        (table::PRINT_CONFIG, own.print_config),
    ];
    let asked = outputs.into_iter().filter(|(_, is_asked)| *is_asked);
    asked.map(|(option, _)| option)
}

pub(super) fn command(command: Command) -> Command {
    command
        .about("Change every constant of a machine and see whether a run changes as it should")
        .arg(
            Arg::new("suite")
                .long("suite")
                .action(ArgAction::SetTrue)
                .help("Say whether it changes a run of the published benchmark, which takes a minute or two"),
        )
        .arg(
            Arg::new("run")
                .last(true)
                .num_args(1..)
                .conflicts_with("suite")
                .value_name("OPTION OF BERT")
                .value_parser(value_parser!(OsString))
                .help("A run of your own, as after `ipu-bench bert`: say what every constant does to that one"),
        )
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    if let Some(words) = matches.get_many::<OsString>("run") {
        return of_run(words.cloned().collect(), console);
    }
    let bar = console.spinner();
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let extra_runs = match matches.get_flag("suite") {
        true => ExtraRuns::Suite,
        false => ExtraRuns::Nothing,
    };
    let found = sensitivity::sensitivity(extra_runs)?;
    bar.finish_and_clear();
    console.print(report::sensitivity::text(&found));
    let holds = found.iter().all(sensitivity::KnobEffect::holds);
    Ok(ExitCode::from(u8::from(!holds)))
}

/// What every constant does to the run that the `words` ask for.
fn of_run(words: Vec<OsString>, console: &Console) -> anyhow::Result<ExitCode> {
    let mut given = args::parse(args::texts(words)?)?;
    if given.help {
        let help = args::command().bin_name("ipu-bench bert").render_help();
        console.print(help.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(option) = outputs(&OwnOptions::read(&given.own, None)?).next() {
        let other = "sensitivity";
        return Err(Error::NotAllowedWith { option, other }.into());
    }
    given.launch = Launch::read(|name| std::env::var_os(name))?;
    let prepared = prepare(&given, Date::now())?;
    if prepared.own.quiet {
        console.silence();
    }
    if super::is_left_to_first(&given, console) {
        return Ok(ExitCode::SUCCESS);
    }
    for option in outputs(&prepared.own) {
        console.note(&format!(
            "no effect: the preset's {option}, which is for one run"
        ));
    }
    for line in prepared.lines() {
        console.note(&line);
    }
    let request = prepared.first();
    console.note(&format!("system: {}", request.machine.name));
    let bar = console.spinner();
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let found = sensitivity::of_run(&request.options.config, &request.machine.spec);
    let (base, effects) = found.map_err(Error::from)?;
    bar.finish_and_clear();
    console.print(report::sensitivity::of_run(base, &effects));
    Ok(ExitCode::SUCCESS)
}

//! `ipu-bench compare`: two metrics files side by side.

use std::path::PathBuf;
use std::process::ExitCode;

use bench_cli::compare;
use bench_cli::console::Console;
use clap::{Arg, ArgMatches, Command, value_parser};

pub(super) fn command(command: Command) -> Command {
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    command
        .about("Show two files of metrics, or of suites, side by side with their differences")
        .arg(file(
            "A",
            "written by `bert --metrics-json` or `suite --json`",
        ))
        .arg(file("B", "the same, to compare with it"))
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let read = |name| {
        let path = matches.get_one::<PathBuf>(name).expect("clap demands it");
        compare::read(path)
    };
    console.print(compare::text(&read("A")?, &read("B")?));
    Ok(ExitCode::SUCCESS)
}

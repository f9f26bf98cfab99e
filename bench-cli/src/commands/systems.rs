//! `ipu-bench systems`: the machines, and where their numbers come from.

use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::system;
use clap::{Arg, ArgMatches, Command};

pub(super) fn command(command: Command) -> Command {
    command
        .about("List the machines, or show one with the source of every number")
        .arg(Arg::new("NAME").help("a shipped system or a description file"))
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let text = match matches.get_one::<String>("NAME") {
        None => system::list()?,
        Some(name) => system::show(name)?,
    };
    console.print(text);
    Ok(ExitCode::SUCCESS)
}

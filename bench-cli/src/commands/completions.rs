//! `ipu-bench completions`: what a shell needs to complete commands and options.

use std::process::ExitCode;

use anyhow::Context;
use bench_cli::console::Console;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

pub(super) fn command(command: Command) -> Command {
    command
        .about("Print a shell's completions of commands and options")
        .arg(
            Arg::new("SHELL")
                .required(true)
                .value_parser(value_parser!(Shell))
                .help("the shell to complete in"),
        )
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let shell = *matches
        .get_one::<Shell>("SHELL")
        .expect("clap demands a shell");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "ipu-bench", &mut script);
    console.print(String::from_utf8(script).context("the script of completions")?);
    Ok(ExitCode::SUCCESS)
}

//! `ipu-bench calibrate`: the fitted constants of time, fitted again.

use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::validate;
use clap::{ArgMatches, Command};

pub(super) fn command(command: Command) -> Command {
    command.about("Fit the fitted constants of time again, and say how well they are known")
}

pub(super) fn run(_: &ArgMatches, _: &Console) -> anyhow::Result<ExitCode> {
    super::print(&validate::calibrate::calibrate()?.text())?;
    Ok(ExitCode::SUCCESS)
}

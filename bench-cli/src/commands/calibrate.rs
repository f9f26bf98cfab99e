//! `ipu-bench calibrate`: the fitted constants, fitted again.

use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::{files, report};
use bench_core::validate::calibrate::calibrate;
use clap::{ArgMatches, Command};

pub(super) fn command(command: Command) -> Command {
    command
        .about("Fit the fitted constants again, and say how well they are known")
        .arg(super::output_option(
            "accuracy",
            "Write the errors of prediction, from which intervals are made, to this file",
        ))
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let accuracy = super::path(matches, "accuracy");
    if let Some(path) = accuracy {
        files::check_writable(path)?;
    }
    let found = calibrate()?;
    if let Some(path) = accuracy {
        files::write(path, &found.record.to_toml())?;
    }
    console.print(report::calibration::text(&found));
    Ok(ExitCode::SUCCESS)
}

//! `ipu-bench calibrate`: the fitted constants, fitted again.

use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::report;
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

pub(super) fn run(matches: &ArgMatches, _: &Console) -> anyhow::Result<ExitCode> {
    let accuracy = super::path(matches, "accuracy");
    if let Some(path) = accuracy {
        report::check_writable(path)?;
    }
    let found = calibrate()?;
    super::print(&report::calibration::text(&found))?;
    if let Some(path) = accuracy {
        report::write(path, &found.record.to_toml())?;
    }
    Ok(ExitCode::SUCCESS)
}

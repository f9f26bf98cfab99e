//! `ipu-bench validate`: the simulator against measurements.

use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::{files, report};
use bench_core::validate;
use clap::{Arg, ArgAction, ArgMatches, Command};

pub(super) fn command(command: Command) -> Command {
    command
        .about("Compare the simulator with measurements of real machines")
        .arg(super::output_option("json", "Write all rows to this file"))
        .arg(
            Arg::new("strict")
                .long("strict")
                .action(ArgAction::SetTrue)
                .help("Fail if a row is outside its tolerance for no known reason"),
        )
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let json = super::path(matches, "json");
    if let Some(path) = json {
        files::check_writable(path)?;
    }
    let bar = console.spinner();
    let found = validate::validate(|row| {
        bar.set_message(row.name.clone());
        bar.tick();
    })?;
    bar.finish_and_clear();
    if let Some(path) = json {
        files::write(path, &report::json::text(&found))?;
    }
    console.print(report::validation::text(&found));
    let failed = matches.get_flag("strict") && !found.rows.iter().all(validate::Row::is_as_known);
    Ok(ExitCode::from(u8::from(failed)))
}

//! `ipu-bench sensitivity`: what every constant of a machine does.

use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::report;
use bench_core::sensitivity::{self, ExtraRuns};
use clap::{Arg, ArgAction, ArgMatches, Command};

pub(super) fn command(command: Command) -> Command {
    command
        .about("Change every constant of a machine and see whether a run changes as it should")
        .arg(
            Arg::new("suite")
                .long("suite")
                .action(ArgAction::SetTrue)
                .help("Say whether it changes a run of the published benchmark, which takes a minute or two"),
        )
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let bar = console.spinner();
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let extra_runs = match matches.get_flag("suite") {
        true => ExtraRuns::Suite,
        false => ExtraRuns::Nothing,
    };
    let found = sensitivity::sensitivity(extra_runs)?;
    bar.finish_and_clear();
    super::print(&report::sensitivity::text(&found))?;
    let holds = found.iter().all(sensitivity::KnobEffect::holds);
    Ok(ExitCode::from(u8::from(!holds)))
}

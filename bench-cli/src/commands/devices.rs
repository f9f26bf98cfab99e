//! `ipu-bench devices`: what `gc-info` and `gc-inventory` would say.

use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::{devices, report, system};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

pub(super) fn command(command: Command) -> Command {
    command
        .about("List the devices of a machine and who is attached to them, or show one")
        .arg(
            Arg::new("ID")
                .value_parser(value_parser!(u32))
                .help("a device: its IPUs, what they are like, who is attached"),
        )
        .arg(
            Arg::new("system")
                .long("system")
                .value_name("SYSTEM")
                .default_value("mk2-m2000")
                .help("a shipped system or a description file"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("print the devices and IPUs as JSON"),
        )
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let name = matches.get_one::<String>("system");
    let machine = system::choose(name.map(String::as_str), 1)?;
    let inventory = devices::inventory(&machine)?;
    let json = matches.get_flag("json");
    let text = match matches.get_one::<u32>("ID") {
        Some(&id) if json => report::json::text(&inventory.only(id)?),
        Some(&id) => inventory.show(id)?,
        None if json => report::json::text(&inventory),
        None => inventory.list(),
    };
    console.print(text);
    Ok(ExitCode::SUCCESS)
}

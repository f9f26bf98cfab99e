//! `ipu-bench schema`: the forms of what is written and read.

use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::{report, schema};
use clap::{Arg, ArgMatches, Command};

pub(super) fn command(command: Command) -> Command {
    let names = schema::NAMES.iter().map(|(name, _)| *name);
    command
        .about("List the JSON Schemas of reports and configurations, or print one")
        .arg(
            Arg::new("NAME")
                .value_parser(names.collect::<Vec<_>>())
                .help("whose schema to print"),
        )
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let text = match matches.get_one::<String>("NAME") {
        None => {
            let rows = schema::NAMES.iter();
            rows.map(|(name, what)| format!("{name}: {what}\n"))
                .collect()
        }
        Some(name) => {
            let schema = schema::schema(name).expect("clap accepts the names of this list only");
            report::json::text(&schema)
        }
    };
    console.print(text);
    Ok(ExitCode::SUCCESS)
}

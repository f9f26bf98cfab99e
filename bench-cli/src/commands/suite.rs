//! `ipu-bench suite`: the published benchmark, run by run.

use std::process::ExitCode;

use bench_cli::clock::Date;
use bench_cli::console::{self, Console};
use bench_cli::suite::{self, Entry, Outcome};
use bench_cli::{files, interrupt, report, run};
use clap::{Arg, ArgMatches, Command};

pub(super) fn command(command: Command) -> Command {
    let path = super::output_option;
    command
        .about("Run the eighteen runs of the published benchmark")
        .arg(path(
            "json",
            "Write all reports to this file after each run",
        ))
        .arg(path(
            "csv",
            "Write one row a run to this file after each run",
        ))
        .arg(
            Arg::new("relative-to")
                .long("relative-to")
                .value_name("RUN")
                .help("Add throughput over that of this run of the suite, with the interval of the ratio"),
        )
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let (json, csv) = (super::path(matches, "json"), super::path(matches, "csv"));
    files::check_all_writable([json, csv].into_iter().flatten())?;
    let base = matches.get_one::<String>("relative-to").map(String::as_str);
    let runs = suite::runs();
    if let Some(base) = base
        && !runs.iter().any(|run| run.name == base)
    {
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        anyhow::bail!("--relative-to {base}: expected one of {}", names.join(", "));
    }
    let bar = console.bar(runs.len() as u64);
    let mut entries = Vec::new();
    for run in &runs {
        bar.set_message(run.name.clone());
        entries.push(suite::run_one(run, Date::now(), run::simulate));
        bar.inc(1);
        interrupt::say_at_the_end(table(&entries, base));
        if let Some(path) = json {
            files::write(path, &report::json::text(&entries))?;
        }
        if let Some(path) = csv {
            files::write(path, &report::csv::text(&entries))?;
        }
    }
    bar.finish_and_clear();
    // From here on it would be printed twice.
    interrupt::say_at_the_end(String::new());
    console.print(table(&entries, base));
    let mut failed = false;
    for entry in &entries {
        let error = match &entry.outcome {
            Outcome::Failed { error } => Some(error),
            Outcome::Report { report } => report.out_of_memory.as_ref(),
        };
        if let Some(error) = error {
            failed = true;
            console::error(&format!("{}: {error}", entry.run));
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn table(entries: &[Entry], relative_to: Option<&str>) -> String {
    format!("{}\n", report::table::text(entries, relative_to))
}

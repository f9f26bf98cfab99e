//! The subcommands, one file each: their words, and what they do with them.
//!
//! A new one is a file with `command` and `run`, and a row of [`ALL`].

pub(crate) mod bert;
mod calibrate;
mod compare;
mod completions;
mod data;
mod devices;
mod plan;
mod schema;
mod sensitivity;
mod suite;
mod systems;
mod validate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bench_cli::args::Arguments;
use bench_cli::console::Console;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// Identifier of the option that silences notes and progress bars.
pub(crate) const QUIET: &str = "quiet";

/// A subcommand that clap parses.
pub(crate) struct Subcommand {
    /// Its word.
    pub(crate) name: &'static str,
    /// Its description for clap, under that name.
    command: fn(Command) -> Command,
    /// What it does.
    pub(crate) run: fn(&ArgMatches, &Console) -> anyhow::Result<ExitCode>,
}

/// All of them but `bert`, in the order of the help.
pub(crate) const ALL: &[Subcommand] = &[
    Subcommand {
        name: "suite",
        command: suite::command,
        run: suite::run,
    },
    Subcommand {
        name: "data",
        command: data::command,
        run: data::run,
    },
    Subcommand {
        name: "plan",
        command: plan::command,
        run: plan::run,
    },
    Subcommand {
        name: "validate",
        command: validate::command,
        run: validate::run,
    },
    Subcommand {
        name: "calibrate",
        command: calibrate::command,
        run: calibrate::run,
    },
    Subcommand {
        name: "sensitivity",
        command: sensitivity::command,
        run: sensitivity::run,
    },
    Subcommand {
        name: "systems",
        command: systems::command,
        run: systems::run,
    },
    Subcommand {
        name: "devices",
        command: devices::command,
        run: devices::run,
    },
    Subcommand {
        name: "compare",
        command: compare::command,
        run: compare::run,
    },
    Subcommand {
        name: "schema",
        command: schema::command,
        run: schema::run,
    },
    Subcommand {
        name: "completions",
        command: completions::command,
        run: completions::run,
    },
];

/// The whole command, `bert` with its options included.
pub(crate) fn command() -> Command {
    let command = Command::new("ipu-bench")
        .about("Benchmark BERT on simulated Graphcore IPU-PODs")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(common())
        .subcommand(bench_cli::args::command());
    ALL.iter().fold(command, |command, subcommand| {
        // `bert` has these in its own table, so that they can't be common to all from above.
        let known = Command::new(subcommand.name).args(common().map(|arg| arg.global(true)));
        command.subcommand((subcommand.command)(known))
    })
}

/// Options that every command has, before or after its name.
fn common() -> [Arg; 2] {
    [
        Arg::new(QUIET)
            .short('q')
            .long(QUIET)
            .display_order(100)
            .action(ArgAction::SetTrue)
            .help("Print results and errors only"),
        Arg::new("color")
            .long("color")
            .display_order(101)
            .value_name("WHEN")
            .value_parser(["auto", "always", "never"])
            .default_value("auto")
            .help("Color what is printed for people"),
    ]
}

/// An option that takes a path.
fn path_option(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help(help)
}

/// An option that takes the path of a file to write.
fn output_option(name: &'static str, help: &'static str) -> Arg {
    let file = |path: PathBuf| match path.to_str() {
        Some("-") => Err("stdout holds what is printed for people: name a file"),
        _ => Ok(path),
    };
    path_option(name, help).value_parser(PathBufValueParser::new().try_map(file))
}

/// The path that [`path_option`] was given.
fn path<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a Path> {
    matches.get_one::<PathBuf>(name).map(PathBuf::as_path)
}

/// Whether this is a later one of several processes of one run, of which the first prints; says so.
fn is_left_to_first(given: &Arguments, console: &Console) -> bool {
    let Some(launch) = given.launch.filter(|launch| launch.rank > 0) else {
        return false;
    };
    console.note(&format!(
        "process {} of {}: the first one simulates the whole system",
        launch.rank + 1,
        launch.processes
    ));
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn clap_accepts_the_commands() {
        super::command().debug_assert();
    }

    #[test]
    fn results_for_files_do_not_go_to_stdout() {
        for line in [
            "suite --json -",
            "suite --csv=-",
            "validate --json -",
            "calibrate --accuracy -",
        ] {
            let words = ["ipu-bench"].into_iter().chain(line.split(' '));
            let error = super::command().try_get_matches_from(words).unwrap_err();
            assert!(error.to_string().contains("name a file"), "{line}: {error}");
        }
    }
}

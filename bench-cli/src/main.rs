//! The `ipu-bench` command: words, printing and the exit status.
//!
//! stdout holds what `bert.py` would print, or what a command was asked for; all else goes to
//! stderr. [`commands`] has a file for each subcommand.

mod commands;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use bench_cli::console::{self, Console};
use bench_cli::{Error, interrupt};
use mimalloc::MiMalloc;

/// Programs are built of many short lists, by several threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    console::color_from(&words).write_global();
    let console = Console::default();
    let installed = interrupt::install().context("cannot handle signals");
    let ended = installed.and_then(|()| dispatch(words, &console));
    match (ended, console.lost()) {
        (Err(error), _) => failed(&error),
        (Ok(_), Some(lost)) => failed(&lost.into()),
        (Ok(code), None) => code,
    }
}

fn dispatch(words: Vec<OsString>, console: &Console) -> anyhow::Result<ExitCode> {
    // The benchmark's options have parsing rules of their own.
    if let Some(words) = words_of_bert(&words) {
        return commands::bert::run(words, console);
    }
    let command = commands::command().color(console::clap_color(console::color_from(&words)));
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            let text = error.render();
            match error.use_stderr() {
                true => console.say(text.ansi()),
                false => console.print(text.ansi()),
            }
            return Ok(ExitCode::from(u8::from(error.use_stderr()) * 2));
        }
    };
    let (name, inner) = matches.subcommand().expect("clap demands a subcommand");
    if matches.get_flag(commands::QUIET) || inner.get_flag(commands::QUIET) {
        console.silence();
    }
    let subcommand = commands::ALL.iter().find(|known| known.name == name);
    let subcommand = subcommand.expect("clap accepts the commands of this list only");
    (subcommand.run)(inner, console)
}

/// The words after `ipu-bench bert`, if that is the command: options of all commands may stand
/// before it.
fn words_of_bert(words: &[OsString]) -> Option<Vec<OsString>> {
    let mut place = 1;
    loop {
        let word = words.get(place)?.to_str()?;
        match word {
            "bert" => break,
            "-q" | "--quiet" => place += 1,
            "--color" => place += 2,
            _ if word.starts_with("--color=") => place += 1,
            _ => return None,
        }
    }
    let (before, after) = (&words[1..place], &words[place + 1..]);
    Some([before, after].concat())
}

/// Says what went wrong; gives the status to exit with.
fn failed(error: &anyhow::Error) -> ExitCode {
    let code = error.downcast_ref().map_or(1, Error::exit_code);
    if code == 2 {
        console::usage_error(&format!("{error:#}"));
    } else {
        console::error(&format!("{error:#}"));
    }
    ExitCode::from(code)
}

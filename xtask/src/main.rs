//! Automation in Rust: what continuous integration runs, and anyone can run too.
//!
//! `cargo xtask ci` is every check but the tests; `cargo xtask tidy` is the part of it
//! that the compiler and clippy can't do; `cargo xtask fuzz` gives parsers random input,
//! `cargo xtask kills` ends commands while they write, and `cargo xtask scaling` measures how their
//! time and memory grow. The exit status is 0 if all is well, 1 if a
//! check complains and 2 if the command line isn't understood.

mod ci;
mod fuzz;
mod kills;
mod scaling;
mod tidy;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};

const USAGE: &str = "\
usage: cargo xtask <command>

commands:
  ci    formatting, tidy, clippy, doc tests, documentation, benches, fuzz
  tidy  what clippy can't check: dependencies, passes, configs, documents
  fuzz TARGET|all [SECONDS]
        random input for a parser, for so long (60 without a number)
  kills COMMAND|all [TIMES]
        ends commands that write files, so often (300 without a number), and looks at the files
  scaling THING|all
        how time and memory of whole commands grow with one thing, as a table
";

fn main() -> ExitCode {
    match dispatch(std::env::args().skip(1)) {
        Ok(code) => code,
        Err(error) => {
            // Nowhere is left to report that stderr is closed.
            let _ = writeln!(io::stderr(), "xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: impl Iterator<Item = String>) -> anyhow::Result<ExitCode> {
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["ci"] => ci::run(&root()?)?,
        ["tidy"] => tidy::run(&root()?)?,
        ["fuzz", target] => fuzz::run(&root()?, target, "60")?,
        ["fuzz", target, seconds] => fuzz::run(&root()?, target, seconds)?,
        ["kills", command] => kills::run(&root()?, command, "300")?,
        ["kills", command, times] => kills::run(&root()?, command, times)?,
        ["scaling", thing] => scaling::run(&root()?, thing)?,
        [scaling::MEASURE, folder, binary, line] => scaling::measure(folder, binary, line)?,
        ["help" | "-h" | "--help"] => write!(io::stdout(), "{USAGE}")?,
        _ => {
            write!(io::stderr(), "{USAGE}")?;
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The command as users run it, built anew if need be.
fn release_binary(root: &Path) -> anyhow::Result<PathBuf> {
    let built = Command::new("cargo")
        .args(["build", "--release", "-p", "bench-cli"])
        .current_dir(root)
        .status()?;
    ensure!(built.success(), "the command wasn't built");
    Ok(root.join("target/release/ipu-bench"))
}

/// The root of the workspace this xtask was built from.
fn root() -> anyhow::Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent()
        .map(Path::to_path_buf)
        .with_context(|| format!("{} has no parent folder", own.display()))
}

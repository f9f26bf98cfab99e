//! Runs a fuzz target on stable Rust.
//!
//! `cargo fuzz` wants a nightly toolchain for its sanitizers. Without them, what libFuzzer needs
//! of the compiler is coverage, and the flags for that are stable: those below are what cargo-fuzz
//! passes with `--sanitizer none`. Seeds are in the repository; what a run learns stays under
//! `target/fuzz/corpus`, and inputs that fail under `target/fuzz`.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// What makes rustc count which branches ran, for libFuzzer to read.
const COVERAGE: &str = "--cfg fuzzing \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 \
    -Cdebug-assertions";

/// Longest input, in bytes: a little more than the longest seed.
const MAX_LEN: u32 = 16_384;

/// Seconds that an input may take. Coverage makes a run some five times slower.
const TIMEOUT_SECONDS: u32 = 30;

/// Memory that a target may take; nothing that is refused takes a gibibyte.
const RSS_MEBIBYTES: u32 = 4096;

/// The targets and the folders that hold their seeds.
const TARGETS: [(&str, &[&str]); 10] = [
    ("options", &["fuzz/seeds/options"]),
    ("config", &["configs/mk2", "configs/mlperf"]),
    ("machine", &["configs/systems"]),
    ("records", &["fuzz/seeds/records"]),
    ("graph", &["fuzz/seeds/graph"]),
    ("questions", &["fuzz/seeds/questions"]),
    ("vocabulary", &["fuzz/seeds/vocabulary"]),
    ("command", &["fuzz/seeds/options"]),
    ("simulate", &["configs/systems"]),
    ("program", &["fuzz/seeds/program"]),
];

/// Seconds for each target in continuous integration: half a minute for all.
const SECONDS_SHORT: &str = "3";

/// Runs all targets for a moment, where there is what builds libFuzzer; says so where there isn't.
///
/// # Errors
///
/// A build that fails, an input that fails.
pub(crate) fn run_short(root: &Path) -> anyhow::Result<()> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let found = Command::new(&compiler)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        let compiler = compiler.display();
        writeln!(
            io::stderr(),
            "xtask: fuzz skipped: no `{compiler}` to build libFuzzer with"
        )?;
        return Ok(());
    }
    run(root, "all", SECONDS_SHORT)
}

/// Runs the target called `name` for so many seconds, or all targets one after the other.
///
/// # Errors
///
/// An unknown target, a build that fails, an input that fails.
pub(crate) fn run(root: &Path, name: &str, seconds: &str) -> anyhow::Result<()> {
    let seconds: u32 = seconds
        .parse()
        .with_context(|| format!("seconds {seconds:?}"))?;
    let chosen: Vec<_> = TARGETS
        .iter()
        .filter(|(target, _)| name == "all" || name == *target)
        .collect();
    if chosen.is_empty() {
        let names = TARGETS.map(|(target, _)| target).join(", ");
        bail!("unknown target {name:?}: expected all or one of {names}");
    }
    let triple = host()?;
    let built = root.join("target/fuzz");
    let mut build = Command::new("cargo");
    build
        .args(["build", "--release", "--target", &triple, "--target-dir"])
        .arg(&built)
        .env("RUSTFLAGS", COVERAGE)
        .current_dir(root.join("fuzz"));
    succeed(&mut build)?;
    for (target, seeds) in chosen {
        let corpus = built.join("corpus").join(target);
        std::fs::create_dir_all(&corpus)?;
        let mut fuzz = Command::new(built.join(&triple).join("release").join(target));
        fuzz.arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={MAX_LEN}"))
            .arg(format!("-artifact_prefix={}/{target}-", built.display()))
            .arg(format!("-timeout={TIMEOUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={RSS_MEBIBYTES}"))
            .arg("-verbosity=0")
            .arg("-print_final_stats=1")
            .arg(&corpus)
            .args(seeds.iter().map(|folder| root.join(folder)));
        succeed(&mut fuzz).with_context(|| format!("target {target}"))?;
    }
    Ok(())
}

/// The triple that rustc builds for. Naming it keeps the flags off build scripts.
fn host() -> anyhow::Result<String> {
    let said = Command::new("rustc").arg("-vV").output()?;
    let said = String::from_utf8(said.stdout)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every target is listed, has seeds, and is built by cargo-fuzz too.
    #[test]
    fn targets_are_those_of_the_folder() {
        let root = crate::root().unwrap();
        let mut files: Vec<String> = std::fs::read_dir(root.join("fuzz/fuzz_targets"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut listed = TARGETS.map(|(target, _)| format!("{target}.rs"));
        files.sort();
        listed.sort();
        assert_eq!(files, listed);
        let manifest = std::fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        for (target, seeds) in TARGETS {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")));
            for folder in seeds {
                let mut files = std::fs::read_dir(root.join(folder)).unwrap();
                assert!(files.next().is_some(), "{folder}");
            }
        }
    }
}

//! Every check of continuous integration except the tests themselves.
//!
//! Cheap checks come first, and the first that fails ends the run. All steps build with the
//! development profile, so that they share what `cargo test` has built. The tests are left
//! out because they are the first line of `.ci/run`.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::{fuzz, tidy};

/// One call of cargo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    /// Words after `cargo`.
    arguments: &'static str,
    /// Environment variable set for the call, and its value.
    environment: Option<(&'static str, &'static str)>,
    /// What to do if it fails.
    remedy: &'static str,
}

const FORMAT: Step = Step {
    arguments: "fmt --all --check",
    environment: None,
    remedy: "run `cargo fmt --all`",
};

/// The steps that build, in order.
const BUILDS: [Step; 4] = [
    Step {
        arguments: "clippy --workspace --all-targets -- -D warnings",
        environment: None,
        remedy: "mend what clippy names, or expect the lint with a reason on the smallest item",
    },
    Step {
        arguments: "test --workspace --doc",
        environment: None,
        remedy: "mend the example, or what it shows",
    },
    Step {
        arguments: "doc --workspace --no-deps",
        environment: Some(("RUSTDOCFLAGS", "-Dwarnings")),
        remedy: "mend the links and the markup that rustdoc names",
    },
    Step {
        arguments: "bench --workspace --bench * --no-run --profile dev",
        environment: None,
        remedy: "mend the bench that doesn't build",
    },
];

/// Runs all steps in the workspace at `root`.
///
/// # Errors
///
/// The first step that fails or can't be started.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut call = |step: &Step| {
        writeln!(io::stderr(), "xtask: cargo {}", step.arguments)?;
        call(root, step)
    };
    all(&[FORMAT], &mut call)?;
    tidy::run(root)?;
    all(&BUILDS, &mut call)?;
    writeln!(io::stderr(), "xtask: every fuzz target, for a moment")?;
    fuzz::run_short(root)
}

/// Runs `steps` with `call`, which says whether a step succeeded, up to the first failure.
fn all(steps: &[Step], call: &mut impl FnMut(&Step) -> anyhow::Result<bool>) -> anyhow::Result<()> {
    for step in steps {
        if !call(step)? {
            bail!("`cargo {}` failed: {}", step.arguments, step.remedy);
        }
    }
    Ok(())
}

fn call(root: &Path, step: &Step) -> anyhow::Result<bool> {
    // Cargo names itself to what it runs, so that one toolchain does all.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(step.arguments.split_whitespace())
        .envs(step.environment)
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot start `cargo {}`", step.arguments))?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_ends_the_run_and_names_the_remedy() {
        let mut called = Vec::new();
        let error = all(&BUILDS, &mut |step| {
            called.push(step.arguments);
            Ok(!step.arguments.starts_with("test"))
        })
        .unwrap_err();
        assert_eq!(called, [BUILDS[0].arguments, BUILDS[1].arguments]);
        assert_eq!(
            error.to_string(),
            "`cargo test --workspace --doc` failed: mend the example, or what it shows"
        );
    }

    #[test]
    fn a_step_that_cannot_start_is_an_error() {
        let error = call(Path::new("no such folder"), &FORMAT).unwrap_err();
        assert_eq!(error.to_string(), "cannot start `cargo fmt --all --check`");
    }
}

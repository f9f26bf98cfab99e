//! Every option of our own does what is said of it: each has a class here, and one that has none
//! fails.

use std::path::Path;
use std::process::{Command, Output};

use super::*;

/// What an option of our own does.
enum Own {
    /// It acts, as an option of the benchmark does, with these words behind it.
    Acts(&'static [&'static str]),
    /// It changes nothing with these words behind it, and a note says why.
    Idle(&'static [&'static str]),
    /// It leaves a file or a folder behind, and changes nothing else.
    Writes(&'static str),
    /// With these words behind it, the program says something else in these streams, and runs
    /// nothing else.
    Says(
        &'static [&'static str],
        fn(stdout: &str, stderr: &str) -> bool,
    ),
}

fn own(name: &str) -> Own {
    match name {
        table::SYSTEM => Own::Acts(&["bow-pod16"]),
        table::MERGE_COLLECTIVES => Own::Acts(&[]),
        table::ATT_FFN_PLACEMENT => Own::Acts(&["[[1,[1,0]],[2,[1,1]],[0,[0,1]]]"]),
        table::ENCODER_START_PIPELINE_STAGE => Own::Idle(&["0"]),
        table::GRADIENT_CLIPPING_NORM => Own::Acts(&["0.25"]),
        table::LAMB_ACCL_DTYPE => Own::Acts(&["FLOAT16"]),
        table::REDUCE_NSP_OVERHEAD => Own::Acts(&[]),
        table::SEQUENCES_PER_PACK => Own::Acts(&["1.5"]),
        table::RELEASE => Own::Acts(&["v2.2"]),
        table::METRICS_JSON => Own::Writes("metrics.json"),
        table::DUMP_IR => Own::Writes("graphs"),
        table::DUMP_PROGRAM => Own::Writes("program.txt"),
        table::MEMORY_REPORT => Own::Writes("memory.json"),
        table::EXPLAIN => Own::Says(&[], |_, stderr| stderr.contains("where the time of a step")),
        table::PRINT_CONFIG => Own::Says(&[], |stdout, _| stdout.starts_with('{')),
        table::QUIET => Own::Says(&[], |_, stderr| stderr.is_empty()),
        table::COLOR => Own::Says(&["always"], |_, stderr| stderr.contains('\x1b')),
        other => panic!("a class for {other}"),
    }
}

fn run_in(folder: &Path, line: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .arg("bert")
        .args(line.split_whitespace())
        .args(more)
        .current_dir(folder)
        .output()
        .expect("the command was built for this test")
}

/// Lines of a log that say of a step how long it took.
fn steps(output: &Output) -> Vec<String> {
    let log = String::from_utf8_lossy(&output.stdout);
    let lines = log.lines().filter(|line| line.contains("Throughput:"));
    lines
        .filter_map(|line| Some(line.split_once(" INFO ")?.1.to_owned()))
        .collect()
}

/// What is wrong with an option of our own, if anything.
fn judge_own(option: &OptionSpec) -> anyhow::Result<Option<&'static str>> {
    let line = base(option);
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    Ok(match own(option.name) {
        Own::Acts(more) => {
            let mut with = words(&line);
            with.push(option.name.into());
            with.extend(more.iter().map(|word| (*word).to_owned()));
            let (before, after) = (observe(&words(&line))?, observe(&with)?);
            let acts = (before.program, before.metrics) != (after.program, after.metrics);
            (!acts).then_some("doesn't act")
        }
        Own::Idle(more) => {
            let mut with = words(&line);
            with.push(option.name.into());
            with.extend(more.iter().map(|word| (*word).to_owned()));
            let (before, mut after) = (observe(&words(&line))?, observe(&with)?);
            let n_notes = after.notes.len();
            after.notes.retain(|note| !note.contains(option.name));
            match (n_notes > after.notes.len(), after == before) {
                (false, _) => Some("has no note"),
                (_, false) => Some("acts"),
                _ => None,
            }
        }
        Own::Writes(name) => {
            let without = run_in(folder, &line, &[]);
            anyhow::ensure!(!folder.join(name).exists(), "it is there before");
            let with = run_in(folder, &line, &[option.name, name]);
            if steps(&with) != steps(&without) || steps(&with).is_empty() {
                Some("changes the run")
            } else if !folder.join(name).exists() {
                Some("writes nothing")
            } else {
                None
            }
        }
        Own::Says(more, is_said) => {
            let says = |output: &Output| {
                let text = |stream: &[u8]| String::from_utf8_lossy(stream).into_owned();
                is_said(&text(&output.stdout), &text(&output.stderr))
            };
            let without = run_in(folder, &line, &[]);
            let with = run_in(folder, &line, &[&[option.name], more].concat());
            let runs = option.name != table::PRINT_CONFIG;
            if runs && steps(&with) != steps(&without) {
                Some("changes the run")
            } else if says(&without) || !says(&with) {
                Some("doesn't say it")
            } else {
                None
            }
        }
    })
}

#[test]
fn every_option_of_our_own_does_what_is_said_of_it() {
    let judged = table::OURS.options.iter().filter_map(|option| {
        let judged = judge_own(option);
        let wrong = judged.unwrap_or_else(|error| panic!("{}: {error:#}", option.name))?;
        Some(format!("{}: {wrong}", option.name))
    });
    let wrong: Vec<String> = judged.collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

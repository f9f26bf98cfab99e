//! Ctrl-C.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn interrupt(run: &Child) {
    let sent = Command::new("kill")
        .args(["-INT", &run.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Waits for the end of what was interrupted, and says what it printed.
fn ended(mut run: Child) -> String {
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let mut stderr = String::new();
    run.stderr.unwrap().read_to_string(&mut stderr).unwrap();
    stderr
}

/// All files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let files = paths.flat_map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    files.collect()
}

#[test]
fn ends_with_the_shells_status_and_leaves_no_half_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .args(["bert", "--config", "pretrain_large_384_POD128.json"])
        .args([
            "--epochs",
            "1",
            "--generated-data",
            "--metrics-json",
            "metrics.json",
        ])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command was built for this test");
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let compiling = lines.any(|line| line.unwrap().ends_with("Compiling Training Graph"));
    assert!(compiling);
    interrupt(&run);
    let stderr = ended(run);
    assert!(
        stderr.ends_with("ipu-bench: error: interrupted\n"),
        "{stderr}"
    );
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["checkpoints"]);
}

/// The first run ends with its report in the file; what it says stands in the table, too.
#[test]
fn a_suite_shows_what_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("suite.csv");
    let mut run = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .args(["-q", "suite", "--csv", "suite.csv"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command was built for this test");
    while !csv.exists() {
        assert!(run.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::yield_now();
    }
    interrupt(&run);
    let mut table = String::new();
    let mut stdout = run.stdout.take().unwrap();
    stdout.read_to_string(&mut table).unwrap();
    assert_eq!(ended(run), "ipu-bench: error: interrupted\n");
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].contains("sequences/s"), "{table}");
    assert!(table.contains("| 1-large-128-pod16 "), "{table}");
    assert!(
        !table.contains("10-base-3-minimum-latency-128-b64"),
        "{table}"
    );
}

/// Files of more than a gigabyte, interrupted while they are written: none is left by half, and
/// what was to be replaced is still there.
#[test]
fn files_are_whole_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder
        .path()
        .join("wikipedia/AA/sequence_128/wiki_00_tokenised");
    std::fs::create_dir_all(old.parent().unwrap()).unwrap();
    std::fs::write(&old, "old").unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .args(["data", "benchmark", "--force", "--out", "."])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command was built for this test");
    let begun = |path: &PathBuf| path.metadata().is_ok_and(|found| found.len() > 1 << 20);
    while files(folder.path())
        .iter()
        .filter(|path| begun(path))
        .count()
        < 2
    {
        assert!(run.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::yield_now();
    }
    interrupt(&run);
    assert_eq!(ended(run), "ipu-bench: error: interrupted\n");
    assert_eq!(files(folder.path()), std::slice::from_ref(&old));
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "old");
}

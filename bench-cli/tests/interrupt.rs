//! The end from outside: Ctrl-C and other signals.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn interrupt(run: &Child) {
    send("-INT", run);
}

fn send(signal: &str, run: &Child) {
    let sent = Command::new("kill")
        .args([signal, &run.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Waits for the end of what was interrupted, and says what it printed.
fn ended(run: Child) -> String {
    ended_with(130, run)
}

fn ended_with(status: i32, mut run: Child) -> String {
    assert_eq!(run.wait().unwrap().code(), Some(status));
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
    for (signal, status, said) in [
        ("-INT", 130, "interrupted"),
        ("-TERM", 143, "terminated"),
        ("-HUP", 129, "hung up"),
    ] {
        let run = half_written(folder.path());
        send(signal, &run);
        assert_eq!(
            ended_with(status, run),
            format!("ipu-bench: error: {said}\n")
        );
        assert_eq!(files(folder.path()), std::slice::from_ref(&old));
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "old");
    }
}

/// A run that writes the files of the benchmark to a folder and has begun with the second.
fn half_written(folder: &Path) -> Child {
    let mut run = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .args(["data", "benchmark", "--force", "--out", "."])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command was built for this test");
    let begun = |path: &PathBuf| path.metadata().is_ok_and(|found| found.len() > 1 << 20);
    while files(folder).iter().filter(|path| begun(path)).count() < 2 {
        assert!(run.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::yield_now();
    }
    run
}

/// A kill that no process can handle leaves half files, which the next run removes, and nothing
/// that is somebody's.
#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("wikipedia/AA/sequence_128");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("wiki_00_tokenised"), "old").unwrap();
    let mine = data.join(".ipu-bench-mine.partial");
    std::fs::write(&mine, "mine").unwrap();
    let mut run = half_written(folder.path());
    run.kill().unwrap();
    run.wait().unwrap();
    // While it is held, it is somebody's, too.
    let names_a_process = |path: &PathBuf| *path != mine && path.extension().is_some();
    let partial = files(&data).into_iter().find(names_a_process).unwrap();
    let held = std::fs::File::options().write(true).open(&partial).unwrap();
    held.lock().unwrap();
    std::fs::write(folder.path().join("text.txt"), "a b\n").unwrap();
    let line = "data vocabulary --input-file text.txt --force --output-file";
    let write = || {
        let status = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
            .args(line.split(' '))
            .arg(data.join("vocab"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    };
    write();
    assert!(partial.exists());
    drop(held);
    write();
    assert!(!partial.exists());
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine");
}

/// A reader that stops reading keeps nobody from ending the run, and a second signal ends it at
/// once.
#[test]
fn a_full_pipe_keeps_no_run_from_ending() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    // Records of zeros, as text more than any pipe holds.
    let file = std::fs::File::create(&records).unwrap();
    file.set_len(1628 * 2000).unwrap();
    for signals in [1, 2] {
        let mut run = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
            .args(["data", "inspect", "records", "-n", "2000"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command was built for this test");
        // A first byte, then nothing.
        let mut stdout = run.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        for _ in 0..signals {
            interrupt(&run);
        }
        assert_eq!(run.wait().unwrap().code(), Some(130));
    }
}

/// Whoever starts a run with `nohup` means it.
#[test]
#[cfg(target_os = "linux")]
fn an_ignored_signal_stays_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_ipu-bench");
    let line = format!("trap '' HUP; exec {binary} -q data benchmark --out .");
    let mut run = Command::new("sh")
        .args(["-c", &line])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while files(folder.path()).is_empty() {
        assert!(run.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::yield_now();
    }
    send("-HUP", &run);
    assert!(run.wait().unwrap().success());
}

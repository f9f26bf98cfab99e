//! Ctrl-C.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

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
    let sent = Command::new("kill")
        .args(["-INT", &run.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let mut stderr = String::new();
    run.stderr.unwrap().read_to_string(&mut stderr).unwrap();
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

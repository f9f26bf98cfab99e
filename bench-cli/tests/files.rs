//! Files of results are written whatever happens to the log, each of its own.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A model that runs in no time.
const SMALL: &str = "bert --task SQUAD --inference --generated-data true --num-layers 1 \
    --layers-per-ipu 1 --encoder-start-ipu 0 --hidden-size 128 --attention-heads 2 \
    --sequence-length 64 --vocab-length 512 --batches-per-step 2 --device-tiles 64";

fn bench(folder: &Path, more: &[&str], stdout: Stdio) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .args(SMALL.split_whitespace())
        .args(more)
        .current_dir(folder)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn();
    child.unwrap().wait_with_output().unwrap()
}

#[test]
fn a_reader_that_leaves_keeps_no_metrics_from_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let more = ["--metrics-json", "metrics.json"];
    let output = bench(folder.path(), &more, writer.into());
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(folder.path().join("metrics.json")).unwrap();
    assert!(text.contains("throughput_sequences_per_second"), "{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_under_the_log_is_an_error_after_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let more = ["--metrics-json", "metrics.json"];
    let output = bench(folder.path(), &more, full.into());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(folder.path().join("metrics.json").exists());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cannot print: No space left"), "{stderr}");
}

#[test]
fn two_outputs_dont_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let more = [
        "--metrics-json",
        "both.json",
        "--memory-report",
        "sub/../both.json",
    ];
    let output = bench(folder.path(), &more, Stdio::null());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let wanted = "two outputs are to go to sub/../both.json: each needs a file of its own";
    assert!(stderr.contains(wanted), "{stderr}");
    assert!(!folder.path().join("both.json").exists());
}

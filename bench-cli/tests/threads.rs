//! A system that refuses threads: there are fewer, or an error names what is missing. Never a panic.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// A user who runs nothing else: the limit is one of all processes of a user, and not for root.
const NOBODY: u32 = 65_533;

/// A run that doesn't fit, so that other settings are tried on several threads.
const LINE: &str = "-q bert --task SQUAD --inference --num-layers 2 --layers-per-ipu 2 \
    --encoder-start-ipu 0 --hidden-size 128 --attention-heads 2 --sequence-length 64 \
    --vocab-length 512 --batches-per-step 2 --micro-batch-size 64 --device-tiles 16 \
    --generated-data true";

/// The run as another user with so many threads, in `folder`, where a copy of the command stands.
fn run(folder: &Path, threads: u32) -> std::io::Result<Output> {
    Command::new("prlimit")
        .arg(format!("--nproc={threads}"))
        .arg(folder.join("ipu-bench"))
        .args(LINE.split_whitespace())
        .env("RAYON_NUM_THREADS", "8")
        .env("IPU_BENCH_LOCKS", folder.join("locks"))
        .current_dir(folder)
        .uid(NOBODY)
        .output()
}

#[test]
fn too_few_threads_are_fewer_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_ipu-bench"), folder.join("ipu-bench")).unwrap();
    let Ok(enough) = run(folder, 1000) else {
        eprintln!("skipped: this user can't be another one, or there is no prlimit");
        return;
    };
    let said = |output: &Output| String::from_utf8(output.stderr.clone()).unwrap();
    let enough = said(&enough);
    if !enough.contains("out of memory on IPU") {
        assert!(enough.starts_with("prlimit: "), "{enough}");
        eprintln!("skipped: {enough}");
        return;
    }
    for threads in 1..=6 {
        let output = run(folder, threads).unwrap();
        let stderr = said(&output);
        // A panic has 101, an abort none.
        assert_eq!(output.status.code(), Some(1), "{threads} threads: {stderr}");
        match threads {
            1 => assert!(stderr.contains("cannot handle signals"), "{stderr}"),
            2 => assert!(stderr.contains("failed to start a thread"), "{stderr}"),
            _ => assert_eq!(stderr, enough, "{threads} threads"),
        }
    }
}

//! Processes that a launcher starts: one run of the whole system, which one of them prints.
#![cfg(test)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const LINE: &str = "bert --config pretrain_large_128_POD64.json --generated-data true \
    --global-batch-size 65536 --epochs 1 --no-model-save --system mk2-pod128";

/// Runs [`LINE`] with `more` behind it, as the process that `environment` describes.
fn run(folder: &Path, more: &str, environment: &[(&str, u32)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipu-bench"));
    for (name, _) in std::env::vars() {
        if name.starts_with("POPDIST_") || name.starts_with("OMPI_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(folder)
        .args(LINE.split_whitespace().chain(more.split_whitespace()));
    let variables = environment.iter();
    command.envs(variables.map(|(name, value)| (name, value.to_string())));
    command.output().unwrap()
}

fn launched(total: u32, local: u32, offset: u32) -> Vec<(&'static str, u32)> {
    vec![
        ("POPDIST_NUM_TOTAL_REPLICAS", total),
        ("POPDIST_NUM_LOCAL_REPLICAS", local),
        ("POPDIST_REPLICA_INDEX_OFFSET", offset),
    ]
}

fn report(folder: &Path, name: &str) -> Value {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn two_processes_are_the_run_of_all_replicas() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let whole = run(folder, "--replication-factor 32 --metrics-json a.json", &[]);
    assert!(whole.status.success(), "{whole:?}");
    let mut environment = launched(32, 16, 0);
    environment.extend([("OMPI_COMM_WORLD_SIZE", 2), ("OMPI_COMM_WORLD_RANK", 0)]);
    let first = run(folder, "--metrics-json b.json", &environment);
    assert!(first.status.success(), "{first:?}");
    let (a, b) = (report(folder, "a.json"), report(folder, "b.json"));
    for key in ["throughput_sequences_per_second", "step_cycles", "ipus"] {
        assert!(!a[key].is_null(), "{key}");
        assert_eq!(a[key], b[key], "{key}");
    }
    assert_eq!(b["options"]["popdist_size"], 2);
    assert_eq!(b["options"]["replication_factor"], 32);
    let stdout = String::from_utf8(first.stdout).unwrap();
    let need = "Need 64 IPUs per instance. Requesting 64 IPUs per instance.";
    assert!(stdout.contains(need), "{stdout}");
    let acquired = "Acquired device: simulated mk2-pod128 with 64 IPUs";
    assert!(stdout.contains(acquired), "{stdout}");
    let stderr = String::from_utf8(first.stderr).unwrap();
    let note = "launched as 2 processes of 16 replicas each: the run is that of all 32 replicas";
    assert!(stderr.contains(note), "{stderr}");

    // The report of a launch reads back as the run that it was.
    let again = "--metrics-json d.json --config b.json";
    assert!(run(folder, again, &[]).status.success());
    let key = "throughput_sequences_per_second";
    assert_eq!(report(folder, "d.json")[key], a[key]);

    for more in ["--metrics-json c.json", "--print-config"] {
        let second = run(folder, more, &launched(32, 16, 16));
        assert!(second.status.success(), "{second:?}");
        assert!(second.stdout.is_empty(), "{second:?}");
        assert!(!folder.join("c.json").exists());
    }
}

#[test]
fn what_cannot_be_a_launch_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (environment, more, expected) in [
        (
            launched(32, 12, 0),
            "",
            "every process needs as many replicas",
        ),
        (
            launched(32, 16, 0)[..2].to_vec(),
            "",
            "PopDist sets both, or neither",
        ),
        (
            launched(32, 16, 0),
            "--inference --gradient-accumulation-factor 1 --global-batch-size 256",
            "Distributed execution is only supported for training",
        ),
    ] {
        let output = run(folder.path(), more, &environment);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(expected), "{stderr}");
    }
    // Other replicas of each process than the line asks for: the launcher's.
    let output = run(
        folder.path(),
        "--replication-factor 8 --print-config",
        &launched(32, 16, 0),
    );
    let stdout: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(stdout["replication_factor"], 32);
    assert_eq!(stdout["global_batch_size"], 65536);
    // Before v2.1 a global batch was that of one process.
    let output = run(
        folder.path(),
        "--release 96fef3f --global-batch-size 32768 --print-config",
        &launched(32, 16, 0),
    );
    let stdout: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(stdout["global_batch_size"], 65536);
    assert_eq!(stdout["gradient_accumulation_factor"], 256);
}

//! `--config` takes what the program itself wrote of a run, and gives the same run again: a report,
//! its `options` alone, what `--print-config` prints, and the `config.json` that a run leaves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const MODEL: &str = "--generated-data true --hidden-size 64 --attention-heads 1 \
    --sequence-length 32 --vocab-length 512 --encoder-start-ipu 0 --num-layers 2 \
    --batches-per-step 2";

const TRAINING: &str = "--epochs 1 --mask-tokens 4 --optimizer LAMB --execution-mode PIPELINE \
    --gradient-accumulation-factor 12 --layers-per-ipu 1";

/// A machine of one's own, which is faster than it ships.
const MINE: &str = "name = \"mine\"\nbase = [\"mk2-m2000\"]\n[chip]\n\
    clock = { value = \"2.65 GHz\", kind = \"assumed\", source = \"what if\" }\n";

fn bert(folder: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .arg("bert")
        .args(line.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("the command was built for this test")
}

fn good(folder: &Path, line: &str) -> String {
    let output = bert(folder, line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A report without what another run of the same has otherwise: host times, and the date in the
/// name of its folder.
fn report(path: &Path) -> Value {
    let mut report: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    report.as_object_mut().unwrap().remove("host_seconds");
    let folder = report["options"]["checkpoint_dir"].take();
    let parent = Path::new(folder.as_str().unwrap()).parent().unwrap();
    report["options"]["checkpoint_dir"] = parent.to_str().unwrap().into();
    report
}

/// What a log says of steps, dates left out: the validation after training has no report.
fn steps(log: &str) -> Vec<&str> {
    let lines = log
        .lines()
        .filter(|line| line.contains(" Throughput: ") || line.contains(" Iteration: "));
    lines
        .map(|line| line.split_once(" INFO ").unwrap().1)
        .collect()
}

/// Runs a line, and again from each of the four files. Only a report has its machine: beside the
/// others, a machine is `named` again.
#[track_caller]
fn check(line: &str, named: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("mine.toml"), MINE).unwrap();
    let line = format!("{MODEL} {line} --checkpoint-dir kept");
    let log = good(
        folder,
        &format!("{line} {named} --metrics-json report.json"),
    );
    let expected = report(&folder.join("report.json"));
    let whole = fs::read_to_string(folder.join("report.json")).unwrap();
    let whole: Value = serde_json::from_str(&whole).unwrap();
    fs::write(folder.join("options.json"), whole["options"].to_string()).unwrap();
    let printed = good(folder, &format!("{line} --print-config"));
    fs::write(folder.join("printed.json"), printed).unwrap();
    let kept = fs::read_dir(folder.join("kept")).unwrap().next().unwrap();
    fs::copy(
        kept.unwrap().path().join("config.json"),
        folder.join("config.json"),
    )
    .unwrap();
    for (file, named) in [
        ("options.json", named),
        ("printed.json", named),
        ("config.json", named),
        ("report.json", ""),
    ] {
        if named.is_empty() {
            // A report needs nothing beside it.
            let _ = fs::remove_file(folder.join("mine.toml"));
        }
        let again = format!("--config {file} {named} --metrics-json again.json");
        let log_again = good(folder, &again);
        let found = report(&folder.join("again.json"));
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&found[key], value, "`{key}` from {file} of {line}");
        }
        assert_eq!(found, expected, "{file} of {line}");
        assert_eq!(steps(&log_again), steps(&log), "{file} of {line}");
    }
}

#[test]
fn training_in_replicas() {
    let line = format!("{TRAINING} --no-model-save --replication-factor 2");
    check(&format!("{line} --replicated-tensor-sharding true"), "");
    check(&format!("{line} --merge-collectives"), "");
}

#[test]
fn a_preset_with_changes() {
    let line = "--config configs/mk2/pretrain_base_128.json --epochs 1 --no-model-save \
        --layers-per-ipu 1 --replication-factor 1 --embedding-serialization-vocab-steps 2";
    // The factor is derived from the batch, and both are in what is written.
    check(&format!("{line} --global-batch-size 768"), "");
}

#[test]
fn inference() {
    let line = "--task SQUAD --inference --layers-per-ipu 2 --no-model-save";
    check(&format!("{line} --low-latency-inference true"), "");
    check(&format!("{line} --minimum-latency-inference true"), "");
}

#[test]
fn other_machines() {
    let line = format!("{TRAINING} --no-model-save");
    check(&line, "--system mine.toml");
    check(&line, "--system bow-pod16");
    check(&format!("{line} --device-tiles 64"), "");
    check(&format!("{line} --device-version ipu1"), "");
}

/// What changes nothing is written as it was given.
#[test]
fn idle_options() {
    check(
        &format!("{TRAINING} --no-model-save --momentum 0.5 --profile-dir there --seed 7"),
        "",
    );
}

#[test]
fn schedules_and_the_validation_after_training() {
    let line = format!("{TRAINING} --validation-config {{\"batches_per_step\":6}}");
    check(&line, "");
    let line = format!("{TRAINING} --no-model-save --training-steps 3");
    let line = line.replace("--epochs 1", "");
    check(&format!("{line} --lr-schedule-by-step 0:0.5 2:0.25"), "");
    check(&format!("{line} --learning-rate-function Linear"), "");
}

/// The command line goes over what is read back.
#[test]
fn what_is_read_back_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let line = format!("{MODEL} {TRAINING} --no-model-save");
    good(folder, &format!("{line} --metrics-json first.json"));
    let more = "--gradient-accumulation-factor 24";
    good(
        folder,
        &format!("--config first.json {more} --metrics-json found.json"),
    );
    good(
        folder,
        &format!("{line} {more} --metrics-json expected.json"),
    );
    assert_eq!(
        report(&folder.join("found.json")),
        report(&folder.join("expected.json"))
    );
}

#[test]
fn what_is_no_report_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let machine = MINE.replace("clock", "clok");
    let machine = serde_json::to_string(&machine).unwrap();
    for (text, expected) in [
        (
            r#"{"schema_version": 4}"#.to_owned(),
            "a.json: not a report: it has no `options`",
        ),
        (
            r#"{"schema_version": 4, "options": {}}"#.to_owned(),
            "a.json: not a report: it has no `system` and `machine`",
        ),
        (
            r#"{"schema_version": 4, "options": {"foo": 1}, "system": "a", "machine": ""}"#
                .to_owned(),
            "a.json: Unknown arg(s) in config file: {'foo'}",
        ),
        (
            format!(
                r#"{{"schema_version": 4, "options": {{"epochs": 1}}, "system": "old", "machine": {machine}}}"#
            ),
            "system old: line 4, column 1: unknown constant `chip.clok`",
        ),
        (
            r#"{"use_popdist": true, "popdist_size": -2}"#.to_owned(),
            "a.json: key 'popdist_size': expected a whole number, 0 or more, got -2",
        ),
        (
            r#"{"merge_collectives": 1}"#.to_owned(),
            "a.json: key 'merge_collectives': expected true or false, got 1",
        ),
    ] {
        fs::write(folder.join("a.json"), &text).unwrap();
        let output = bert(folder, "--config a.json");
        assert_eq!(output.status.code(), Some(1), "{text}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(expected), "{text}: {stderr}");
    }
}

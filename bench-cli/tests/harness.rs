//! The patterns and column positions by which published scripts read a log find our numbers.
//!
//! Patterns are those of `benchmarks.yml` in graphcore/examples v2.6 (throughput, and loss and
//! accuracy of SQuAD, which haven't changed since v2.1); columns are those of the original's own
//! latency script. What is found is compared with the metrics of the same run.
//!
//! Left out: the patterns of v2.6 for latency, whose text is another than that of v2.1 to v2.3.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use regex::Regex;
use serde_json::Value;

const THROUGHPUT: &str = r"Throughput\:\s*(.*) sequences/s";
const SQUAD_LOSS: &str = r"Loss\:\s*([\d\.]+|nan) Accuracy";
const SQUAD_ACCURACY: &str = r"Accuracy\:\s*([\d\.]+|nan) Learning Rate";
const PRETRAINING_LOSS: &str = r"Loss \(MLM NSP\)\:\ ([\d\.]+)";
const PRETRAINING_ACCURACY: &str = r"Accuracy \(MLM NSP\)\:\ ([\d\.]+)";

const MODEL: &str = "--layers-per-ipu 1 --num-layers 1 --encoder-start-ipu 0 --hidden-size 64 \
    --attention-heads 1 --sequence-length 32 --vocab-length 512 --batches-per-step 4 \
    --no-model-save --generated-data";

/// stdout of a run, and its metrics.
fn run(more: &str) -> (String, Value) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .args(["-q", "bert", "--metrics-json", "metrics.json"])
        .args(MODEL.split_whitespace().chain(more.split_whitespace()))
        .current_dir(folder.path())
        .output()
        .expect("the command was built for this test");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let metrics = std::fs::read_to_string(folder.path().join("metrics.json")).unwrap();
    let metrics = serde_json::from_str(&metrics).unwrap();
    (String::from_utf8(output.stdout).unwrap(), metrics)
}

/// What a pattern finds, line by line.
fn found<'a>(pattern: &str, log: &'a str) -> Vec<&'a str> {
    let pattern = Regex::new(pattern).unwrap();
    let captured = pattern.captures_iter(log);
    captured
        .map(|found| found.get(1).unwrap().as_str())
        .collect()
}

fn number(metrics: &Value, pointer: &str) -> f64 {
    metrics.pointer(pointer).unwrap().as_f64().unwrap()
}

fn check_throughput(log: &str, metrics: &Value, lines: usize) {
    let throughput = number(metrics, "/throughput_sequences_per_second");
    assert!(throughput > 0.0);
    let printed = format!("{throughput:.1}");
    let found: Vec<&str> = found(THROUGHPUT, log)
        .iter()
        .map(|text| text.trim())
        .collect();
    assert_eq!(found, vec![printed.as_str(); lines], "{log}");
}

#[test]
fn training_of_questions() {
    let (log, metrics) = run("--task SQUAD --training-steps 3");
    check_throughput(&log, &metrics, 3);
    assert_eq!(found(SQUAD_LOSS, &log), ["nan"; 3]);
    assert_eq!(found(SQUAD_ACCURACY, &log), ["nan"; 3]);
}

/// The patterns of pre-training want digits: while values are not computed, they find nothing,
/// not something wrong.
#[test]
fn pretraining() {
    let (log, metrics) = run("--mask-tokens 4 --epochs 2");
    check_throughput(&log, &metrics, 2);
    assert_eq!(found(PRETRAINING_LOSS, &log), [""; 0]);
    assert_eq!(found(PRETRAINING_ACCURACY, &log), [""; 0]);
}

/// Field 10 is throughput, fields 14 to 16 are mean, least and most latency, counted from 1;
/// cycles shift latencies by two.
#[test]
fn inference_by_columns() {
    let latencies = ["mean", "min", "max"];
    for (more, first_latency) in [("", 14), ("--report-hw-cycle-count", 16)] {
        let (log, metrics) = run(&format!(
            "--task SQUAD --inference --low-latency-inference --epochs-inference 2 {more}"
        ));
        check_throughput(&log, &metrics, 2);
        let lines = log.lines().filter(|line| line.contains("Iteration:"));
        for line in lines {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let throughput = number(&metrics, "/throughput_sequences_per_second");
            assert_eq!(fields[10 - 1], format!("{throughput:.1}"), "{line}");
            for (place, name) in latencies.iter().enumerate() {
                let latency = number(&metrics, &format!("/latency_seconds/{name}"));
                let field: f64 = fields[first_latency - 1 + place].parse().unwrap();
                assert_eq!(field, latency, "{name}: {line}");
            }
        }
    }
}

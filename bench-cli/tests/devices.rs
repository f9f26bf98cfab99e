//! Runs that end well or not for reasons outside the command line: other processes, memory.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// One encoder layer on one IPU.
const SMALL: &str = "--task SQUAD --inference --generated-data --no-model-save \
    --num-layers 1 --layers-per-ipu 1 --encoder-start-ipu 0 --hidden-size 64 --attention-heads 1 \
    --sequence-length 32 --vocab-length 512 --dtype FLOAT16 --batches-per-step 2 \
    --use-default-available-memory-proportion true";

/// Runs the small model in `folder`, where all that it shares and leaves lies.
fn run(folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .arg("bert")
        .args(SMALL.split_whitespace())
        .args(more)
        .current_dir(folder)
        .env("IPU_BENCH_LOCKS", folder.join("ipu-bench"))
        .output()
        .expect("the command was built for this test")
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_device_asked_for_is_had_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let locks = folder.path().join("ipu-bench");
    fs::create_dir(&locks).unwrap();
    let held = File::create(locks.join("mk2-m2000.2.lock")).unwrap();
    held.lock().unwrap();

    let check = |more: &[&str], error: Option<&str>| {
        let output = run(folder.path(), more);
        let stderr = last_line(&output.stderr);
        match error {
            None => assert!(output.status.success(), "{more:?}: {stderr}"),
            Some(error) => {
                assert_eq!(output.status.code(), Some(1), "{more:?}: {stderr}");
                assert!(
                    stderr.starts_with(&format!("ipu-bench: error: {error}")),
                    "{stderr}"
                );
                assert!(output.stdout.is_empty(), "{more:?}");
            }
        }
    };
    let busy = "while running the given options: system mk2-m2000: \
        failed to acquire device 2: IPU 2 is attached already";
    // Who asks for nothing doesn't care; who asks for any finds another one.
    check(&[], None);
    check(&["--device-connection-type", "ondemand"], None);
    check(&["--device-id", "1"], None);
    check(&["--device-id", "2"], Some(busy));
    let impatient = "--device-id 2 --device-connection-type ondemand --device-ondemand-timeout 0";
    let words: Vec<&str> = impatient.split_whitespace().collect();
    check(&words, Some(busy));
    drop(held);
    check(&["--device-id", "2"], None);
}

#[test]
fn a_program_that_does_not_fit_is_measured_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let machine = "name = \"tight\"\nbase = [\"mk2-m2000\"]\n[chip]\n\
        memory = { value = \"64 KiB\", kind = \"assumed\", source = \"too little\" }\n\
        [memory]\n\
        executable = { value = \"32 KiB\", kind = \"assumed\", source = \"too little\" }\n\
        interleaved = { value = \"32 KiB\", kind = \"assumed\", source = \"too little\" }\n";
    fs::write(folder.path().join("tight.toml"), machine).unwrap();
    let more = "--system tight.toml --hidden-size 768 --attention-heads 12 --vocab-length 30528 \
        --metrics-json metrics.json";
    let words: Vec<&str> = more.split_whitespace().collect();
    let output = run(folder.path(), &words);

    let stderr = last_line(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let error = "ipu-bench: error: while running the given options: out of memory on IPU 0, tile ";
    assert!(stderr.starts_with(error), "{stderr}");
    for part in ["expected at most 65536 B", "too many", "largest: `"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.contains("Compiling") && !stdout.contains("sequences/s"),
        "{stdout}"
    );
    let text = fs::read_to_string(folder.path().join("metrics.json")).unwrap();
    let metrics: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(metrics["fits"], false);
    assert!(stderr.ends_with(metrics["out_of_memory"].as_str().unwrap()));
    assert!(metrics["step_cycles"].as_u64().unwrap() > 0);
}

//! Models in which something has the size one, where axes that nothing walks drop out of layouts.
#![cfg(test)]

use std::process::Command;

#[track_caller]
fn runs(line: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .args([
            "-q",
            "bert",
            "--generated-data",
            "--no-model-save",
            "--epochs",
            "1",
        ])
        .args([
            "--no-validation",
            "--num-layers",
            "2",
            "--layers-per-ipu",
            "1",
        ])
        .args(["--encoder-start-ipu", "0", "--batches-per-step", "2"])
        .args(line.split_whitespace())
        .output()
        .expect("the command was built for this test");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
}

#[test]
fn sequences_of_one_token() {
    let line = "--task SQUAD --sequence-length 1 --hidden-size 64 --attention-heads 2";
    runs(line);
    runs(&format!("{line} --optimizer ADAM"));
    runs(&format!(
        "{line} --execution-mode PIPELINE --gradient-accumulation-factor 8"
    ));
}

#[test]
fn models_of_one_column() {
    let line = "--hidden-size 1 --attention-heads 1 --sequence-length 8 --mask-tokens 2";
    runs(line);
    runs(&format!("{line} --optimizer LAMB --vocab-length 1"));
    runs(&format!(
        "{line} --execution-mode PIPELINE --gradient-accumulation-factor 8 --ff-size 1"
    ));
}

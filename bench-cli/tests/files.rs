//! Files of results are written whatever happens to the log, each of its own, and never over what
//! they are made of.
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

/// Everything that is said goes to a reader that left, or to a full disk.
#[test]
#[cfg(target_os = "linux")]
fn metrics_are_written_whatever_happens_to_both_streams() {
    let line = "--metrics-json metrics.json --explain";
    let more: Vec<&str> = line.split(' ').collect();
    for (place, code) in [("a reader that left", 0), ("a full disk", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let stream = || -> Stdio {
            match place {
                "a full disk" => OpenOptions::new()
                    .write(true)
                    .open("/dev/full")
                    .unwrap()
                    .into(),
                _ => std::io::pipe().unwrap().1.into(),
            }
        };
        for streams in [(true, true), (false, true)] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ipu-bench"));
            let command = command.args(SMALL.split_whitespace()).args(&more);
            let command = command.current_dir(folder.path()).stderr(stream());
            let status = match streams {
                (true, _) => command.stdout(stream()).status(),
                _ => command.stdout(Stdio::null()).status(),
            };
            assert_eq!(status.unwrap().code(), Some(code), "{place} {streams:?}");
            std::fs::remove_file(folder.path().join("metrics.json")).unwrap();
        }
    }
}

/// Tables on stdout come after the files.
#[test]
#[cfg(target_os = "linux")]
fn rows_are_written_before_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .args(["-q", "validate", "--json", "rows.json"])
        .current_dir(folder.path())
        .stdout(full)
        .stderr(Stdio::null())
        .status();
    assert_eq!(status.unwrap().code(), Some(1));
    assert!(folder.path().join("rows.json").exists());
}

/// A pipe that is to be written, whose reader left, is an output that is missing.
#[test]
fn an_output_that_nobody_reads_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let more = ["--metrics-json", "/dev/stdout"];
    let output = bench(folder.path(), &more, writer.into());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("cannot write /dev/stdout: Broken pipe"),
        "{stderr}"
    );
}

/// Whatever a run reads, it doesn't replace: settings, machines, and what graphs would sweep away.
#[test]
fn nothing_that_was_read_is_replaced() {
    let machine = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../configs/systems/mk2-m2000.toml"
    ));
    let files = [
        ("v.json", "{}".to_owned()),
        ("m.toml", machine.unwrap()),
        ("graphs/00-model.ir", "{}".to_owned()),
    ];
    for (line, named) in [
        (
            "--validation-config v.json --metrics-json ./v.json",
            "./v.json is one of the inputs",
        ),
        (
            "--system m.toml --metrics-json m.toml",
            "m.toml is one of the inputs",
        ),
        (
            "--system m.toml --dump-program m.toml",
            "m.toml is one of the inputs",
        ),
        (
            "--dump-ir graphs --validation-config graphs/00-model.ir",
            "graphs/00-model.ir is one of the inputs",
        ),
        (
            "--dump-ir graphs --metrics-json graphs/07-report.ir",
            "graphs/07-report.ir is named as a graph",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("graphs")).unwrap();
        for (name, text) in &files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let more: Vec<&str> = line.split(' ').collect();
        let output = bench(folder.path(), &more, Stdio::null());
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(named), "{line}: {stderr}");
        for (name, text) in &files {
            assert_eq!(
                &std::fs::read_to_string(folder.path().join(name)).unwrap(),
                text
            );
        }
    }
}

/// Two runs at a time can't fill one folder: the second would take the graphs of the first away.
#[test]
fn one_run_at_a_time_fills_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("graphs")).unwrap();
    let held = std::fs::File::open(folder.path().join("graphs")).unwrap();
    held.lock().unwrap();
    let output = bench(folder.path(), &["--dump-ir", "graphs"], Stdio::null());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("another run is filling graphs"), "{stderr}");
    drop(held);
    let output = bench(folder.path(), &["--dump-ir", "graphs"], Stdio::null());
    assert!(output.status.success(), "{output:?}");
}

/// Names up to the length that the system has, and longer ones before the run.
#[test]
fn long_names_work_or_are_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let long = "m".repeat(255);
    let output = bench(folder.path(), &["--metrics-json", &long], Stdio::null());
    assert!(output.status.success(), "{output:?}");
    assert!(folder.path().join(&long).exists());
    let longer = "m".repeat(256);
    let output = bench(folder.path(), &["--metrics-json", &longer], Stdio::null());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("File name too long"), "{stderr}");
    assert!(!stderr.contains("cycles"), "before the run: {stderr}");
}

#[test]
fn a_replaced_file_keeps_its_mode_and_one_that_is_read_only_stays() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.json");
    let with_mode = |mode| {
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let output = bench(
            folder.path(),
            &["--metrics-json", "metrics.json"],
            Stdio::null(),
        );
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        (
            output.status.code(),
            mode,
            std::fs::read_to_string(&path).unwrap(),
        )
    };
    let (code, mode, text) = with_mode(0o640);
    assert_eq!((code, mode), (Some(0), 0o640));
    assert_ne!(text, "old");
    assert_eq!(with_mode(0o400), (Some(1), 0o400, "old".into()));
}

/// `ipu-bench` with these words, in a folder with a text, a vocabulary, and a link to either.
fn made_of_text(line: &str) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("t.txt"), TEXT).unwrap();
    std::fs::write(path("v.txt"), VOCABULARY).unwrap();
    std::os::unix::fs::symlink("t.txt", path("link")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .args(line.split_whitespace())
        .current_dir(folder.path())
        .output()
        .unwrap();
    (folder, output)
}

const TEXT: &str = "a b a b a b\nb a b a\n\na a a b\nb b b a\n";
const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n";

#[test]
fn data_is_not_written_over_what_it_is_made_of() {
    const RECORDS: &str = "data pretraining --input-file t.txt --vocab-file v.txt \
        --sequence-length 16 --mask-tokens 3 --force --output-file";
    const WORDS: &str = "data vocabulary --input-file t.txt --force --output-file";
    for (line, named) in [
        (format!("{RECORDS} t.txt"), "t.txt"),
        (format!("{RECORDS} v.txt"), "v.txt"),
        (format!("{RECORDS} link"), "link"),
        (format!("{RECORDS} o.bin,./t.txt"), "./t.txt"),
        (format!("{WORDS} t.txt"), "t.txt"),
        (format!("{WORDS} link"), "link"),
    ] {
        let (folder, output) = made_of_text(&line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let wanted = format!("error: {named} is one of the inputs: the output needs a file");
        assert!(stderr.contains(&wanted), "{line}: {stderr}");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("t.txt"), TEXT, "{line}");
        assert_eq!(read("v.txt"), VOCABULARY, "{line}");
        assert!(!folder.path().join("o.bin").exists(), "{line}");
    }
}

#[test]
fn records_go_to_files_of_their_own() {
    for outputs in ["o.bin,o.bin", "o.bin,./o.bin"] {
        let (folder, output) = made_of_text(&format!(
            "data pretraining --input-file t.txt --vocab-file v.txt --sequence-length 16 \
             --mask-tokens 3 --output-file {outputs}"
        ));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("two outputs are to go to"), "{stderr}");
        assert!(!folder.path().join("o.bin").exists());
    }
}

#[test]
fn metrics_dont_replace_the_preset() {
    let folder = tempfile::tempdir().unwrap();
    let preset = folder.path().join("preset.json");
    std::fs::write(&preset, "{}").unwrap();
    let more = ["--config", "preset.json", "--metrics-json", "./preset.json"];
    let output = bench(folder.path(), &more, Stdio::null());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("./preset.json is one of the inputs"),
        "{stderr}"
    );
    assert_eq!(std::fs::read_to_string(&preset).unwrap(), "{}");
}

/// A link to what isn't there yet is that file.
#[test]
fn a_link_and_its_target_are_one_file() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("a.json", folder.path().join("lnk.json")).unwrap();
    let more = ["--metrics-json", "lnk.json", "--memory-report", "a.json"];
    let output = bench(folder.path(), &more, Stdio::null());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("two outputs are to go to a.json"),
        "{stderr}"
    );
}

/// Within one second, most of the time.
#[test]
fn every_run_leaves_its_own_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let runs = 5;
    for _ in 0..runs {
        let output = bench(folder.path(), &["--checkpoint-dir", ""], Stdio::null());
        assert!(output.status.success(), "{output:?}");
    }
    let mut configurations = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path().join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        configurations.insert(config["checkpoint_dir"].to_string());
    }
    assert_eq!(configurations.len(), runs, "{configurations:?}");
}

#[test]
fn a_folder_without_a_name_is_found_out_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &["--dump-ir", ""], Stdio::null());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let wanted = "ipu-bench: error: cannot create ''";
    assert!(stderr.starts_with(wanted), "{stderr}");
}

/// stderr of a run.
fn said(more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), more, Stdio::null());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn answers_that_are_not_written_are_named_where_they_would_be() {
    const NOTE: &str = "no predictions and no F1 are written";
    assert!(!said(&[]).contains(NOTE));
    let sample = |name: &str| format!("{}/sample/{name}", env!("CARGO_MANIFEST_DIR"));
    let (questions, vocabulary) = (sample("dev-v1.1.json"), sample("vocab.txt"));
    let real = [
        "--generated-data",
        "false",
        "--input-files",
        &questions,
        "--vocab-file",
        &vocabulary,
        "--do-lower-case",
        "--vocab-length",
        "30400",
        "--sequence-length",
        "128",
        "--device-tiles",
        "1472",
        "--batches-per-step",
        "1",
    ];
    let stderr = said(&real);
    assert!(stderr.contains(NOTE), "{stderr}");
}

#[test]
fn a_training_that_is_over_before_it_starts_says_so() {
    const NOTE: &str = "no step is left to train";
    let training = ["--inference", "false", "--no-model-save", "--epochs", "1"];
    let with = |epoch: &str| {
        let more = [&training[..], &["--continue-training-from-epoch", epoch]].concat();
        said(&more)
    };
    assert!(!with("0").contains(NOTE));
    let stderr = with("5");
    let wanted = "--continue-training-from-epoch 5 starts at step 5, and step 1 is the end";
    assert!(stderr.contains(NOTE) && stderr.contains(wanted), "{stderr}");
}

#[test]
fn a_value_that_is_no_text_is_named_with_its_option() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let bad = std::ffi::OsStr::from_bytes(b"o\xff.json");
    let joined = std::ffi::OsStr::from_bytes(b"--metrics-json=o\xff.json");
    for (words, option) in [
        (vec!["--checkpoint-dir".as_ref(), bad], "--checkpoint-dir"),
        (
            vec!["--input-files".as_ref(), "a.bin".as_ref(), bad],
            "--input-files",
        ),
        (vec![joined], "--metrics-json"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
            .arg("bert")
            .args(words)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let wanted = format!("error: argument {option}: not UTF-8 text: 'o\u{fffd}.json'");
        assert!(stderr.contains(&wanted), "{stderr}");
    }
}

//! The published command lines, run as they stand on a folder that `ipu-bench data` filled.
//!
//! The folder has a thirty-second of the records, and the lines a thirty-second of the global
//! batch: everything else is as written, the folder of presets included.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use bench_cli::data::Replace;
use bench_cli::data::benchmark::{self, RECORD_FILES, RecordFile};
use bench_cli::suite::{self, SuiteRun};
use indicatif::ProgressBar;

/// The share of records and of the global batch.
const SHARE: u64 = 32;

/// What the published files have too many of.
fn small_files() -> [RecordFile; 2] {
    let [short, long] = RECORD_FILES;
    // Line 5 cuts the records of 128 into records of 384, 1211 of them into 407.
    let records = (65_536 * 6 / SHARE).next_multiple_of(1211);
    [
        RecordFile { records, ..short },
        RecordFile {
            records: long.records / SHARE,
            ..long
        },
    ]
}

fn bert(run: &SuiteRun, datasets: &Path, folder: &Path, more: &[String]) -> Output {
    let datasets = datasets.display().to_string();
    let words = run.arguments.iter();
    Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .arg("bert")
        .args(words.map(|word| word.replace("$DATASETS_DIR", &datasets)))
        .args(more)
        .arg("--checkpoint-dir")
        .arg(folder.join("ckpts"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("the command was built for this test")
}

/// Options that shrink the global batch of a training line.
fn smaller(run: &SuiteRun) -> Vec<String> {
    let given = bench_cli::args::parse(run.arguments.iter().cloned()).unwrap();
    let preset = bench_cli::config::file::load(given.config.as_deref().unwrap()).unwrap();
    let resolved = bench_cli::config::resolve(&given, Some(&preset.values), "stamp").unwrap();
    let config = resolved.options.config;
    let share = |option: &str, count: u64| {
        assert_eq!(count % SHARE, 0, "{option}");
        [option.to_owned(), (count / SHARE).to_string()]
    };
    let factor = u64::from(config.batching.accumulation);
    let global = share("--global-batch-size", config.global_batch_size());
    [global, share("--gradient-accumulation-factor", factor)].concat()
}

#[test]
fn all_eighteen_runs_read_their_data() {
    let folder = tempfile::tempdir().unwrap();
    let datasets = folder.path().join("data");
    let files = small_files();
    benchmark::write(&datasets, &files, Replace::No, &ProgressBar::hidden()).unwrap();
    let runs = suite::runs();
    for run in &runs {
        let training = !run.arguments.iter().any(|word| word == "--inference");
        let more = if training { smaller(run) } else { vec![] };
        let output = bert(run, &datasets, folder.path(), &more);
        let [stdout, stderr] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{}: {stderr}", run.name);
        assert!(
            stdout.contains("INFO Dataset length: 1\n"),
            "{}: {stdout}",
            run.name
        );
        let steps = stdout.matches(" sequences/s ").count();
        let expected = match run.name.as_str() {
            "4-large-384-pod64-10-epochs" => 10,
            _ if training => 1,
            _ => 10,
        };
        assert_eq!(steps, expected, "{}: {stdout}", run.name);
        // Weights start from the data's name only if the data is made.
        assert_eq!(stdout.contains("generated_data\n"), !training, "{stdout}");
        // The lines of inference name a file and ask for made data.
        let unread = stderr.contains("no effect: --input-files");
        assert_eq!(unread, !training, "{}: {stderr}", run.name);
    }
    // A sixth of a file is one global batch and little more, so that twice the batch is too much.
    let output = bert(
        &runs[0],
        &datasets,
        folder.path(),
        &[
            "--global-batch-size".into(),
            (65_536 * 2 / SHARE).to_string(),
            "--gradient-accumulation-factor".into(),
            (2048 * 2 / SHARE).to_string(),
        ],
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("Insufficient data for training parameters."),
        "{stderr}"
    );
    assert!(output.stdout.is_empty());
}

//! The ten published lines against what the original's own parser made of them.
//!
//! The golden files are not part of the repository: `IPU_BENCH_GOLDEN` names the folder that holds
//! them (`benchmark_commands.json`). Without it every test is reported as ignored.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bench_cli::args;
use bench_cli::clock::Date;
use bench_cli::request::prepare;
use bench_cli::suite::{self, SuiteRun};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Map, Value, json};

fn main() -> ExitCode {
    let golden = std::env::var_os("IPU_BENCH_GOLDEN").map(PathBuf::from);
    let ignored = golden.is_none();
    let run = move || {
        lines_resolve_as_the_original_parser_does(&golden.expect("ignored without it"));
        Ok(())
    };
    let name = "lines_resolve_as_the_original_parser_does";
    let trials = vec![Trial::test(name, run).with_ignored_flag(ignored)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Compares all 142 keys; what is there beside them the original's revision doesn't have.
fn lines_resolve_as_the_original_parser_does(folder: &Path) {
    let text = std::fs::read_to_string(folder.join("benchmark_commands.json")).unwrap();
    let golden: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(golden.len(), 10);
    for (number, golden) in golden.iter().enumerate() {
        let line = number + 1;
        let words: Vec<&str> = golden["argv"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        let given = args::parse(words.iter().map(|word| word.to_string())).unwrap();
        let actual = prepare(&given, Date::from_unix(0)).unwrap();
        compare(
            line,
            &actual.request.options.arguments(),
            golden["config"].as_object().unwrap(),
        );
        let runs = suite::runs();
        assert!(
            runs.iter().any(|run| is_line(run, &words)),
            "line {line} is no run of the suite"
        );
    }
}

fn compare(line: usize, actual: &Map<String, Value>, expected: &Map<String, Value>) {
    let known = |key: &&String| expected.contains_key(*key);
    let actual_keys: Vec<_> = actual.keys().filter(known).collect();
    assert_eq!(
        actual_keys,
        expected.keys().collect::<Vec<_>>(),
        "line {line}"
    );
    assert_eq!(expected.len(), 142);
    for (key, expected) in expected {
        let expected = match expected.as_str() {
            Some(text) => json!(text.replace("<date>", "70-01-01-00-00-00")),
            None => expected.clone(),
        };
        assert_eq!(expected, actual[key], "line {line}: {key}");
    }
}

/// The published arguments and ours differ in the name of the data folder only.
fn is_line(run: &SuiteRun, words: &[&str]) -> bool {
    let plain = |text: &str| text.replace('$', "");
    let ours = run.arguments.iter().map(|word| plain(word));
    ours.eq(words.iter().map(|word| plain(word)))
}

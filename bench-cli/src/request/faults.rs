//! What the release in force would itself have refused, or failed at, of a run that works here.
//!
//! A reader of all releases takes more than each of them did. Who compares with a release should
//! hear where there is nothing to compare with. Source: the argument parsers of graphcore/examples,
//! tags v2.1.0 to v3.1.0, run on their own configuration files, and the loaders and the mask that
//! they have.

use bench_core::release::Release;
use bench_core::release::keys::has;
use serde_json::{Map, Value};

use crate::args::{json, table};
use crate::config::BertOptions;
use crate::python::repr_items;

/// A line for each reason why the release of a run, of which its file, if there is one, says what is
/// `written` there, would not have run it.
pub(super) fn notes(written: &Map<String, Value>, options: &BertOptions) -> Vec<String> {
    let release = options.config.release;
    let mut notes = Vec::new();
    // A file with keys of our own is of no release, and neither is a complete configuration.
    let ours = |key: &&str| table::own_by_key(key).is_some() && *key != "release";
    let is_ours = json::is_resolved(written) || written.keys().any(|key| ours(&key.as_str()));
    let inner = written.get("validation_config").and_then(Value::as_object);
    let keys = written.keys().chain(inner.into_iter().flat_map(Map::keys));
    let unknown: Vec<&str> = keys
        .map(String::as_str)
        .filter(|key| !is_ours && !has(release, key))
        .collect();
    if !unknown.is_empty() {
        notes.push(format!(
            "release {release} itself refuses this file: Unknown arg(s) in config file: {{{}}}",
            repr_items(&unknown)
        ));
    }
    if options.config.is_packed() && release <= Release::V2_2 {
        notes.push(format!(
            "release {release} itself fails on packed sequences: its mask reads a name that is \
             never set (UnboundLocalError)"
        ));
    }
    let validates = options.run.training && options.run.validation && options.run.model_save;
    let starts_anew = options.arguments()["onnx_checkpoint"].is_null();
    let trains = !options.config.is_inference();
    if release >= Release::V3_1 && options.config.is_squad() && trains && validates && starts_anew {
        notes.push(format!(
            "release {release} itself fails after the training: its validation joins \
             --checkpoint-input-dir, which isn't given, with a file name (TypeError)"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::args;
    use crate::clock::Date;
    use crate::request::prepare;

    /// Notes on the release of a file and words behind it.
    fn notes(file: &str, words: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, file).unwrap();
        let words = words.split_whitespace().map(String::from);
        let config = ["--config".to_string(), path.display().to_string()];
        let given = args::parse(config.into_iter().chain(words)).unwrap();
        let mut notes = prepare(&given, Date::from_unix(0)).unwrap().notes;
        notes.retain(|note| note.starts_with("release"));
        notes
    }

    #[test]
    fn keys_that_the_release_does_not_have() {
        let old = r#"{"execution_mode": "PIPELINE", "batches_per_step": 9, "epochs": 1}"#;
        assert!(notes(old, "--generated-data").is_empty());
        assert_eq!(
            notes(old, "--generated-data --release v2.6"),
            [
                "release v2.6 itself refuses this file: Unknown arg(s) in config file: \
                 {'execution_mode', 'batches_per_step'}"
            ]
        );
        let inside = r#"{"epochs": 1, "validation_config": {"device_iterations": 4}}"#;
        assert!(notes(inside, "--generated-data").is_empty());
        assert_eq!(
            notes(inside, "--generated-data --release v2.3"),
            [
                "release v2.3 itself refuses this file: Unknown arg(s) in config file: \
                 {'device_iterations'}"
            ]
        );
    }

    #[test]
    fn validation_of_the_last_release() {
        let file = r#"{"task": "SQUAD", "checkpoint_output_dir": "c", "epochs": 1}"#;
        let fails = "release v3.1 itself fails after the training: its validation joins \
                     --checkpoint-input-dir, which isn't given, with a file name (TypeError)";
        assert_eq!(notes(file, "--generated-data"), [fails]);
        for words in ["--no-validation", "--checkpoint-input-dir m.onnx"] {
            let notes = notes(file, &format!("--generated-data {words}"));
            assert!(notes.is_empty(), "{words}: {notes:?}");
        }
    }

    /// What ships runs as it is, and is of no release that would refuse it.
    #[test]
    fn no_shipped_preset_is_said_to_be_refused() {
        for (path, _) in bench_core::presets::PRESETS {
            let line = format!("--config {path} --generated-data");
            let given = args::parse(line.split(' ').map(String::from)).unwrap();
            let notes = prepare(&given, Date::from_unix(0)).unwrap().notes;
            let said: Vec<&String> = notes
                .iter()
                .filter(|note| note.contains("itself"))
                .collect();
            assert!(said.is_empty(), "{path}: {said:?}");
        }
    }

    /// However packs are asked for, and whatever the file says of its release.
    #[test]
    fn packs_of_the_first_releases() {
        let fails = "release v2.1 itself fails on packed sequences";
        let said = |file: &str, words: &str| {
            let usual = "--generated-data --epochs 1 --no-validation";
            let notes = notes(file, &format!("{words} {usual}"));
            notes.iter().any(|note| note.starts_with(fails))
        };
        assert!(said("{}", "--use-packed-sequence-format --release v2.1"));
        assert!(said(
            r#"{"use_packed_sequence_format": "true", "mpi_size": 1}"#,
            ""
        ));
        assert!(!said(
            r#"{"use_packed_sequence_format": false, "mpi_size": 1}"#,
            ""
        ));
        let refused = r#"{"device_iterations": 4, "release": "v2.2"}"#;
        let notes = notes(refused, "--epochs 1 --generated-data");
        assert!(
            notes[0].starts_with("release v2.2 itself refuses this file"),
            "{notes:?}"
        );
    }
}

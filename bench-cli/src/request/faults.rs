//! What the release in force would itself have refused, or failed at, of a run that works here.
//!
//! A reader of all releases takes more than each of them did. Who compares with a release should
//! hear where there is nothing to compare with. Source: the argument parsers of graphcore/examples,
//! tags v2.1.0 to v3.1.0, run on their own configuration files, and the loaders and the mask that
//! they have.

use bench_core::release::Release;
use serde_json::{Map, Value};

use crate::config::BertOptions;
use crate::python::repr_items;

/// Keys that a release added.
const ADDED: [(&str, Release); 13] = [
    ("use_packed_sequence_format", Release::V2_1),
    ("max_sequences_per_pack", Release::V2_1),
    ("squad_wrap_final_layer", Release::V2_1),
    ("disable_attention_dropout_bwd", Release::V2_1),
    ("use_half_optimizer_state", Release::V2_1),
    ("save_initializers_externally", Release::V2_1),
    ("wandb_checkpoint", Release::V2_2),
    ("wandb_save_checkpoints", Release::V2_2),
    ("compile_only", Release::V2_3),
    ("buffering_depth", Release::V2_5),
    ("device_iterations", Release::V2_6),
    ("checkpoint_output_dir", Release::V3_1),
    ("checkpoint_input_dir", Release::V3_1),
];

/// Keys with the last release that had them.
const REMOVED: [(&str, Release); 22] = [
    ("mpi_distributed", Release::V2_1),
    ("mpi_rank", Release::V2_1),
    ("mpi_size", Release::V2_1),
    ("execution_mode", Release::V2_2),
    ("virtual_graph", Release::V2_2),
    ("phased_execution", Release::V2_2),
    ("phased_execution_type", Release::V2_2),
    ("layers_per_phase", Release::V2_2),
    ("batch_serialize", Release::V2_2),
    ("num_attention_splits", Release::V2_2),
    ("num_ffwd_splits", Release::V2_2),
    ("num_io_tiles", Release::V2_2),
    ("activation_io_schedule", Release::V2_2),
    ("activations_on_chip", Release::V2_2),
    ("optimizer_io_schedule", Release::V2_2),
    ("optimizer_schedule", Release::V2_2),
    ("tensor_storage_onchip", Release::V2_2),
    ("weight_io_schedule", Release::V2_2),
    ("batches_per_step", Release::V2_5),
    ("checkpoint_dir", Release::V3_0),
    ("tf_checkpoint", Release::V3_0),
    ("onnx_checkpoint", Release::V3_0),
];

/// Whether a release reads a key of the application.
fn has(release: Release, key: &str) -> bool {
    let added = ADDED.iter().find(|(added, _)| *added == key);
    let removed = REMOVED.iter().find(|(removed, _)| *removed == key);
    added.is_none_or(|(_, first)| release >= *first)
        && removed.is_none_or(|(_, last)| release <= *last)
}

/// A line for each reason why the release of a run, of which its file says what is `written` there,
/// would not have run it.
pub(super) fn notes(written: &Map<String, Value>, options: &BertOptions) -> Vec<String> {
    let release = options.config.release;
    let mut notes = Vec::new();
    // What a report says of a run is no file of any release.
    let is_ours = written.contains_key("release") || written.contains_key("merge_collectives");
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
    let packed = written.get("use_packed_sequence_format");
    if packed.is_some_and(|packed| *packed == true) && release <= Release::V2_2 {
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
        assert_eq!(
            notes(inside, "--generated-data"),
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
}

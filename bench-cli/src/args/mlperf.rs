//! Configuration files of Graphcore's submissions to MLPerf Training, in the names used here.
//!
//! The submissions to v1.1 and v2.0 are forks of the benchmark (mlcommons/training_results_v1.1 and
//! training_results_v2.0, Graphcore, `bert` with PopART: `bert.py`, `bert_model.py`,
//! `bert_optimizer.py`). What they call otherwise is renamed, what they always do is written down,
//! and what only their scoring reads is put aside and named.
//!
//! Left out: operations that the forks have and the benchmark has not, a position mask behind the
//! embedding and a switch of dropouts; and the score itself.

use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Key that these files have in common, and that no release of the benchmark has.
const PLACEMENT: &str = "att_ffn_placement";

/// Keys of which one beside [`PLACEMENT`] tells these files from others with half layers.
const MARKS: [&str; 6] = [
    "batch_size",
    "use_prepacked_pretraining_dataset",
    "avg_seq_per_pack",
    "lr_bert_schedule",
    "loss_averaging_basis",
    "submission_division",
];

/// Keys that only the submission to v2.0 has.
const OF_V2_0: [&str; 2] = ["lamb_accl_dtype", "activation_checkpoint_dtype"];

/// Keys that change no step, with the reason.
const IDLE: [(&str, &str); 7] = [
    ("submission_division", SCORE),
    ("submission_platform", SCORE),
    ("submission_run_index", SCORE),
    ("loss_averaging_basis", VALUES),
    ("accuracy_averaging_basis", VALUES),
    ("beta1_schedule", "a step takes as long with every beta1"),
    (
        "max_training_sequences",
        "the run is as long as --epochs or --training-steps says",
    ),
];

const SCORE: &str = "only the score of a submission reads it";
const VALUES: &str = "a timed run computes no losses and accuracies";

/// Keys that ask for forward passes between the steps of training.
const EVALUATION: [&str; 2] = [
    "on_the_spot_validation_files",
    "on_the_spot_validation_triggers",
];

/// Most steps of a learning-rate schedule that is written out.
const STEPS_MAX: u64 = 100_000;

/// A file in the names used here, and notes on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// Values by key.
    pub values: Map<String, Value>,
    /// Lines that say what was made of the file.
    pub notes: Vec<String>,
}

/// The file at `path` in the names used here; none if it is no such file.
///
/// # Errors
///
/// A value that these files can't have, or one that asks for what isn't simulated.
pub fn translated(path: &str, values: &Map<String, Value>) -> Result<Option<Translated>> {
    let has = |key: &str| values.contains_key(key);
    if !has(PLACEMENT) || !MARKS.iter().any(|mark| has(mark)) {
        return Ok(None);
    }
    let version = match OF_V2_0.iter().any(|key| has(key)) {
        true => "v2.0",
        false => "v1.1",
    };
    let mut file = File {
        path,
        values: values.clone(),
    };
    let mut notes = vec![format!(
        "{path} is read as a configuration of Graphcore's submission to MLPerf Training {version}: \
         attention has biases"
    )];
    for (key, reason) in IDLE {
        if file.values.shift_remove(key).is_some() {
            notes.push(format!("no effect: {key}: {reason}"));
        }
    }
    for key in EVALUATION {
        let asked = |value: &Value| match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        };
        if file
            .values
            .shift_remove(key)
            .is_some_and(|value| asked(&value))
        {
            return Err(Error::NoEvaluation {
                path: path.into(),
                key,
            });
        }
    }
    file.rename("batch_size", "micro_batch_size")?;
    file.rename(
        "use_prepacked_pretraining_dataset",
        "use_packed_sequence_format",
    )?;
    file.rename("avg_seq_per_pack", "sequences_per_pack")?;
    file.usual("attention_bias", true);
    if version == "v2.0" {
        file.usual("merge_collectives", true);
    }
    file.schedule()?;
    file.types()?;
    file.pad_vocabulary();
    Ok(Some(Translated {
        values: file.values,
        notes,
    }))
}

/// A file on its way.
struct File<'a> {
    path: &'a str,
    values: Map<String, Value>,
}

impl File<'_> {
    fn wrong(&self, key: &str, expected: &'static str, found: &Value) -> Error {
        Error::ConfigType {
            path: self.path.to_string(),
            key: key.to_string(),
            expected,
            found: found.to_string(),
        }
    }

    /// Gives a value its name here, under which there may be none or the same one.
    fn rename(&mut self, key: &str, name: &str) -> Result<()> {
        let Some(value) = self.values.shift_remove(key) else {
            return Ok(());
        };
        match self.values.insert(name.to_string(), value.clone()) {
            Some(other) if other != value => {
                Err(self.wrong(key, "the value that its other name has", &value))
            }
            _ => Ok(()),
        }
    }

    /// What the submission does if nothing is said.
    fn usual(&mut self, key: &str, value: bool) {
        self.values
            .entry(key.to_string())
            .or_insert(Value::Bool(value));
    }

    /// A rise and a fall of the learning rate, step by step
    /// (`bert_optimizer.py`, `Schedule.from_args`).
    fn schedule(&mut self) -> Result<()> {
        /// Least rate of the schedule.
        const LEAST: f64 = 1e-7;
        let key = "lr_bert_schedule";
        let Some(found) = self
            .values
            .shift_remove(key)
            .filter(|value| !value.is_null())
        else {
            return Ok(());
        };
        let expected = "init_lr, num_training_steps and num_warmup_steps, of at most 100,000 steps";
        let wrong = || self.wrong(key, expected, &found);
        let number = |name: &str| found.get(name).ok_or_else(wrong);
        let peak = number("init_lr")?.as_f64().ok_or_else(wrong)?;
        let fall = number("num_training_steps")?.as_u64().ok_or_else(wrong)?;
        let rise = number("num_warmup_steps")?.as_u64().ok_or_else(wrong)?;
        let steps = rise.checked_add(fall).filter(|steps| *steps <= STEPS_MAX);
        let rate = |step: u64| {
            let (rise_share, fall_share) = match step < rise {
                true => (step as f64 / rise as f64, 1.0),
                false => (1.0, (fall - (step - rise)) as f64 / fall as f64),
            };
            (peak * rise_share * fall_share).max(LEAST)
        };
        let rates = (0..steps.ok_or_else(wrong)?).map(|step| (step.to_string(), json!(rate(step))));
        let by_step: Map<String, Value> = rates.collect();
        self.values
            .insert("lr_schedule_by_step".into(), Value::Object(by_step));
        Ok(())
    }

    /// Types of moments and of checkpoints.
    fn types(&mut self) -> Result<()> {
        let key = "lamb_m_dtype";
        match self.values.shift_remove(key) {
            Some(Value::String(dtype)) if dtype == "FLOAT16" => {
                self.usual("use_half_optimizer_state", true);
            }
            Some(Value::String(dtype)) if dtype == "FLOAT" => {}
            None | Some(Value::Null) => {}
            Some(found) => return Err(self.wrong(key, "FLOAT or FLOAT16", &found)),
        }
        let key = "activation_checkpoint_dtype";
        match self.values.shift_remove(key) {
            Some(Value::String(dtype)) if dtype == "FLOAT8" => Err(Error::NotSupported {
                option: "activation_checkpoint_dtype FLOAT8",
                reason: "checkpoints are kept in the type of activations (FLOAT16)",
            }),
            Some(Value::String(dtype)) if dtype == "FLOAT16" => Ok(()),
            None | Some(Value::Null) => Ok(()),
            Some(found) => Err(self.wrong(key, "FLOAT16 or FLOAT8", &found)),
        }
    }

    /// The vocabulary is padded to slices of equal size.
    fn pad_vocabulary(&mut self) {
        let number = |key: &str| self.values.get(key).and_then(Value::as_u64);
        let steps = number("embedding_serialization_vocab_steps");
        if let (Some(length), Some(steps)) = (number("vocab_length"), steps.filter(|&n| n > 0))
            && let Some(padded) = length.checked_next_multiple_of(steps)
        {
            self.values.insert("vocab_length".into(), json!(padded));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: Value) -> Result<Option<Translated>> {
        translated("a.json", values.as_object().unwrap())
    }

    /// Another name for each, the biases, and the schedule step by step.
    #[test]
    fn files_of_the_submissions_are_put_in_the_names_used_here() {
        let file = json!({
            "submission_division": "closed", "loss_averaging_basis": "pertoken",
            "att_ffn_placement": [[1, [2, 1]], [0, [0, 1]]], "batch_size": 2,
            "use_prepacked_pretraining_dataset": true, "avg_seq_per_pack": 2,
            "lr_bert_schedule":
                {"init_lr": 0.5, "num_training_steps": 2, "num_warmup_steps": 2},
            "lamb_m_dtype": "FLOAT16", "vocab_length": 30, "num_layers": 2,
            "embedding_serialization_vocab_steps": 4,
        });
        let Translated { values, notes } = read(file).unwrap().unwrap();
        let expected = json!({
            "att_ffn_placement": [[1, [2, 1]], [0, [0, 1]]], "micro_batch_size": 2,
            "use_packed_sequence_format": true, "sequences_per_pack": 2, "attention_bias": true,
            "lr_schedule_by_step": {"0": 1e-7, "1": 0.25, "2": 0.5, "3": 0.25},
            "use_half_optimizer_state": true, "vocab_length": 32, "num_layers": 2,
            "embedding_serialization_vocab_steps": 4,
        });
        assert_eq!(Value::Object(values), expected);
        let named = ["v1.1", "submission_division", "loss_averaging_basis"];
        assert_eq!(notes.len(), named.len());
        for (note, named) in notes.iter().zip(named) {
            assert!(note.contains(named), "{note}");
        }
    }

    /// The submission to v2.0 merges collectives unless told otherwise.
    #[test]
    fn collectives_of_v2_0_are_merged() {
        let merged = |more: Value| {
            let mut file = json!({"att_ffn_placement": [[0, [1, 1]]], "batch_size": 1});
            let more = more.as_object().unwrap().clone();
            file.as_object_mut().unwrap().extend(more);
            let values = read(file).unwrap().unwrap().values;
            values.get("merge_collectives").cloned()
        };
        assert_eq!(merged(json!({})), None);
        let v2_0 = json!({"lamb_accl_dtype": "FLOAT16"});
        assert_eq!(merged(v2_0), Some(json!(true)));
        let apart = json!({"activation_checkpoint_dtype": "FLOAT16", "merge_collectives": false});
        assert_eq!(merged(apart), Some(json!(false)));
    }

    #[test]
    fn other_files_are_left_alone() {
        let half_layers = json!({"att_ffn_placement": [[0, [1, 1]]]});
        assert_eq!(read(half_layers).unwrap(), None);
        assert_eq!(read(json!({"batch_size": 2})).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (key, value, expected) in [
            (
                "activation_checkpoint_dtype",
                json!("FLOAT8"),
                "argument activation_checkpoint_dtype FLOAT8: not supported yet: checkpoints are \
                 kept in the type of activations (FLOAT16)",
            ),
            (
                "lamb_m_dtype",
                json!(16),
                "a.json: key 'lamb_m_dtype': expected FLOAT or FLOAT16, got 16",
            ),
            (
                "lr_bert_schedule",
                json!({"init_lr": 1}),
                "a.json: key 'lr_bert_schedule': expected init_lr, num_training_steps and \
                 num_warmup_steps, of at most 100,000 steps, got {\"init_lr\":1}",
            ),
            (
                "micro_batch_size",
                json!(3),
                "a.json: key 'batch_size': expected the value that its other name has, got 2",
            ),
        ] {
            let mut file = json!({"att_ffn_placement": [[0, [1, 1]]], "batch_size": 2});
            file[key] = value;
            assert_eq!(read(file).unwrap_err().to_string(), expected);
        }
    }
}

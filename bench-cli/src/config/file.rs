//! Preset files: one JSON object whose keys are those of the option table.
//!
//! Stricter than the original: types and choices are checked, not only key names. The shipped
//! presets are built in, so that they work outside the repository.

use std::io::{self, Read};
use std::path::Path;

use bench_core::presets::PRESETS;
use serde_json::{Map, Value, json};

use crate::args::later::{self, Later};
use crate::args::spec::OptionSpec;
use crate::args::{table, values};
use crate::error::most_like;
use crate::{Error, Result};

/// A preset, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// Its values by key.
    pub values: Map<String, Value>,
    /// Whether the built-in text stood in for a file that is not there.
    pub built_in: bool,
    /// The machine of the run, if the file is a report.
    pub machine: Option<SavedMachine>,
}

/// The machine that a report is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedMachine {
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
}

/// Keys that only a resolved configuration has.
const DISTRIBUTED: [&str; 3] = ["use_popdist", "popdist_size", "popdist_rank"];

/// Their values of a run in one process.
fn alone(key: &str) -> Value {
    match key {
        "use_popdist" => json!(false),
        "popdist_size" => json!(1),
        _ => json!(0),
    }
}

/// Reads the preset at `path`, or the built-in one of that path or file name if there is no file.
///
/// # Errors
///
/// No such file and no such preset; text that is not a JSON object; unknown keys, wrong types.
pub fn load(path: &str) -> Result<Preset> {
    let (text, built_in) = match read_text(path) {
        Ok(text) => (text?, false),
        Err(source) => match built_in(path) {
            Some(text) if source.kind() == std::io::ErrorKind::NotFound => (text.to_string(), true),
            _ => {
                return Err(Error::File {
                    action: "read",
                    path: path.into(),
                    source,
                });
            }
        },
    };
    let (values, machine) = parse(path, &text)?;
    Ok(Preset {
        values,
        built_in,
        machine,
    })
}

fn built_in(path: &str) -> Option<&'static str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let same = |shipped: &str| {
        let shipped = Path::new(shipped);
        Path::new(path) == shipped || Some(path.as_ref()) == shipped.file_name()
    };
    let (_, text) = PRESETS.iter().find(|(shipped, _)| same(shipped))?;
    Some(text)
}

/// Reads `text`, found at `path`, as a preset.
///
/// # Errors
///
/// As [`load`], but for the file.
pub fn parse(path: &str, text: &str) -> Result<(Map<String, Value>, Option<SavedMachine>)> {
    let value: Value = serde_json::from_str(text).map_err(|json| Error::Json {
        path: path.to_string(),
        json,
    })?;
    let found = match &value {
        Value::Object(values) => return preset_or_report(path, values),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
    };
    Err(Error::NotAnObject {
        path: path.to_string(),
        found,
    })
}

/// A preset, or what the program itself wrote of a run: a report with its machine, or a resolved
/// configuration.
fn preset_or_report(
    path: &str,
    values: &Map<String, Value>,
) -> Result<(Map<String, Value>, Option<SavedMachine>)> {
    if !values.contains_key("schema_version") {
        return Ok((check(path, &unresolved(path, values)?)?, None));
    }
    let not_one = |reason: &str| Error::NotAReport {
        path: path.to_string(),
        reason: reason.into(),
    };
    let options = values.get("options").and_then(Value::as_object);
    let options = options.ok_or_else(|| not_one("it has no `options`"))?;
    let text = |key: &str| values.get(key).and_then(Value::as_str).map(String::from);
    let machine = text("system").zip(text("machine"));
    let (name, description) = machine.ok_or_else(|| not_one("it has no `system` and `machine`"))?;
    let values = check(path, &unresolved(path, options)?)?;
    Ok((values, Some(SavedMachine { name, description })))
}

/// The values of a resolved configuration as somebody would have asked for them: without those that
/// are the defaults or were derived. Others are as they are.
fn unresolved(path: &str, values: &Map<String, Value>) -> Result<Map<String, Value>> {
    if !values.contains_key(DISTRIBUTED[0]) {
        return Ok(values.clone());
    }
    for key in DISTRIBUTED {
        if let Some(found) = values.get(key).filter(|found| **found != alone(key)) {
            return Err(Error::ConfigType {
                path: path.to_string(),
                key: key.into(),
                expected: "the run of one process, for distributed runs are not supported",
                found: values::show(found),
            });
        }
    }
    let is_default = |key: &str, value: &Value| {
        let option = table::by_key(key);
        option.is_some_and(|option| option.is_default(value))
    };
    let mut asked = values.clone();
    asked.retain(|key, value| !DISTRIBUTED.contains(&key.as_str()) && !is_default(key, value));
    // The factor that it was derived from, or that was derived from it, is there.
    asked.remove("global_batch_size");
    let folder = asked.get("checkpoint_dir").and_then(Value::as_str);
    if let Some(parent) = folder.and_then(|folder| Path::new(folder).parent()) {
        let parent = parent.display().to_string();
        asked.insert("checkpoint_dir".into(), json!(parent));
    }
    Ok(asked)
}

/// Checks keys, types and choices of an object found at `path`, and gives the values their types.
///
/// # Errors
///
/// Unknown keys, all of them; else the first value that does not fit.
pub fn check(path: &str, values: &Map<String, Value>) -> Result<Map<String, Value>> {
    let keys: Vec<String> = values
        .keys()
        .filter(|key| known(key).is_none())
        .cloned()
        .collect();
    if !keys.is_empty() {
        let later: Vec<Later> = keys.iter().filter_map(|key| later::named(key)).collect();
        let slips = keys.iter().filter(|key| later::named(key).is_none());
        return Err(Error::UnknownKeys {
            path: path.to_string(),
            suggestions: slips.filter_map(|key| meant(key)).collect(),
            later,
            keys,
        });
    }
    values
        .iter()
        .map(|(key, value)| {
            let option = known(key).expect("unknown keys were refused above");
            Ok((key.clone(), values::from_json(option, value, path)?))
        })
        .collect()
}

/// The option of a key that a configuration may have.
fn known(key: &str) -> Option<&'static OptionSpec> {
    table::by_key(key).or_else(|| table::own_by_key(key))
}

/// The key that an unknown one may stand for: that of the option of its name, as `popart_dtype`
/// is for `dtype`, or one that looks like it.
fn meant(key: &str) -> Option<&'static str> {
    let key = key.trim_start_matches('-').replace('-', "_");
    let named = table::options().find(|option| option.name[2..].replace('-', "_") == key);
    let alike = || most_like(&key, table::options().map(|option| option.key));
    named.map(|option| option.key).or_else(alike)
}

/// The text of a configuration or a description, which no pipe or device makes endless.
///
/// # Errors
///
/// As [`std::fs::read_to_string`], as the system says it; [`Error::TooLong`].
pub(crate) fn read_text(path: &str) -> io::Result<Result<String>> {
    /// Those that ship have less than 64 KiB.
    const BYTES_MAX: u64 = 16 << 20;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let read = file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > BYTES_MAX {
        return Ok(Err(Error::TooLong {
            path: path.into(),
            most: BYTES_MAX,
        }));
    }
    Ok(Ok(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, expected: &str) {
        let error = parse("a.json", text).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }

    #[test]
    fn values_are_taken_or_converted() {
        for (text, key, expected) in [
            (r#"{"num_layers": "4"}"#, "num_layers", json!(4)),
            (r#"{"shuffle": "true"}"#, "shuffle", json!(true)),
            (r#"{"loss_scaling": 20}"#, "loss_scaling", json!(20)),
            (r#"{"input_files": "x"}"#, "input_files", json!(["x"])),
            (
                r#"{"lr_warmup_start": 0.002}"#,
                "lr_warmup_start",
                json!(0.002),
            ),
            (r#"{"epochs": null}"#, "epochs", json!(null)),
            (
                r#"{"lr_schedule_by_step": {"0": 1e-7}}"#,
                "lr_schedule_by_step",
                json!({"0": 1e-7}),
            ),
            (
                r#"{"optimizer_schedule": "Interleaving"}"#,
                "optimizer_schedule",
                json!("Interleaving"),
            ),
            (
                r#"{"validation_config": {"seed": "3"}}"#,
                "validation_config",
                json!({"seed": 3}),
            ),
        ] {
            assert_eq!(parse("a.json", text).unwrap().0[key], expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            (
                r#"{"foo": 1, "seed": 1, "bar": 2}"#,
                "a.json: Unknown arg(s) in config file: {'foo', 'bar'}",
            ),
            (
                r#"{"ff_size": 1, "micro-batch-size": 2}"#,
                "a.json: Unknown arg(s) in config file: {'ff_size', 'micro-batch-size'}\n  \
                 did you mean ff_size__, micro_batch_size?",
            ),
            (
                "{\n \"seed\": 1,,\n}",
                "a.json:2:12: not valid JSON: key must be a string",
            ),
            ("[1]", "a.json: expected a JSON object, got a list"),
            (
                r#"{"num_layers": 1.5}"#,
                "a.json: key 'num_layers': expected a whole number, got 1.5",
            ),
            (
                r#"{"num_layers": null}"#,
                "a.json: key 'num_layers': expected a whole number, got null",
            ),
            (
                r#"{"layers_per_ipu": 3}"#,
                "a.json: key 'layers_per_ipu': expected a list of whole numbers, got 3",
            ),
            (
                r#"{"layers_per_ipu": []}"#,
                "a.json: key 'layers_per_ipu': expected a list of whole numbers, got []",
            ),
            (
                r#"{"shuffle": 1}"#,
                "a.json: key 'shuffle': expected true or false, got 1",
            ),
            (
                r#"{"num_layers": "x"}"#,
                "a.json: argument --num-layers: invalid int value: 'x'",
            ),
            (
                r#"{"task": "FOO"}"#,
                "a.json: argument --task: invalid choice: 'FOO' (choose from 'PRETRAINING', 'SQUAD', 'MRPC')",
            ),
            (
                r#"{"validation_config": {"foo": 1}}"#,
                "a.json: key 'validation_config': Unknown arg(s) in config file: {'foo'}",
            ),
            (
                r#"{"dtype": "FLOAT16"}"#,
                "a.json: Unknown arg(s) in config file: {'dtype'}\n  did you mean popart_dtype?",
            ),
            (
                r#"{"device_iterations": 4, "seeds": 1}"#,
                "a.json: Unknown arg(s) in config file: {'device_iterations', 'seeds'}\n  \
                 did you mean seed?\n  \
                 --device-iterations is an option of later versions of the benchmark: \
                 --batches-per-step counts them here",
            ),
        ] {
            check_error(text, expected);
        }
    }

    #[test]
    fn built_in_presets_stand_in_by_path_or_name_only() {
        assert!(load("configs/mk2/pretrain_base_384.json").unwrap().built_in);
        assert!(load("pretrain_base_384.json").unwrap().built_in);
        for path in [
            "elsewhere/pretrain_base_384.json",
            "configs/mk2/nothing.json",
        ] {
            assert_eq!(
                load(path).unwrap_err().to_string(),
                format!("cannot read {path}")
            );
        }
    }

    #[test]
    fn every_shipped_preset_resolves_alone() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut found = 0;
        for folder in [root.clone(), root.join("mk2")] {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "json")
                {
                    let preset = load(path.to_str().unwrap()).unwrap();
                    let given = crate::args::Given::default();
                    let result = crate::config::resolve(&given, Some(&preset.values), "date");
                    assert!(result.is_ok(), "{}: {result:?}", path.display());
                    found += 1;
                }
            }
        }
        assert!(found >= 13, "found only {found}");
    }
}

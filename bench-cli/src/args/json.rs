//! Values of options from JSON: a preset, what the program itself wrote of a run, or an option that
//! takes an object.
//!
//! JSON is checked more strictly than the original does, which checks key names and takes any value
//! that is no text: here type and choices must fit.

use std::path::Path;

use bench_core::config::keys::is_key;
use bench_core::config::synonyms;
use serde_json::{Map, Value, json};

use super::hints::{self, Form};
use super::spec::{Arity, Kind, OptionSpec};
use super::{table, values};
use crate::python::repr;
use crate::{Error, Result, text};

/// The value that `words` give `option`.
///
/// # Errors
///
/// A word that is no value of its kind or none of its choices.
pub fn from_words(option: &OptionSpec, words: &[String]) -> Result<Value> {
    match (option.kind, words) {
        (Kind::Json, [word]) => json_word(option, word),
        _ => values::from_words(option, words),
    }
}

/// The machine that a report is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedMachine {
    /// Name of the machine.
    pub name: String,
    /// Description of the machine, as a machine file.
    pub description: String,
}

/// What a count must be.
const COUNT: &str = "a whole number, 0 or more";

/// Keys that only a resolved configuration has.
const DISTRIBUTED: [&str; 3] = ["use_popdist", "popdist_size", "popdist_rank"];

/// Reads `text`, found at `path`, as a preset.
///
/// # Errors
///
/// Text that is not a JSON object; unknown keys, all of them; else the first value that does not fit.
pub fn parse(path: &str, text: &str) -> Result<(Map<String, Value>, Option<SavedMachine>)> {
    preset_or_report(path, &object(path, text)?)
}

fn object(path: &str, text: &str) -> Result<Map<String, Value>> {
    let value: Value = serde_json::from_str(text).map_err(|json| Error::Json {
        path: path.to_string(),
        json,
    })?;
    let found = match value {
        Value::Object(values) => return Ok(values),
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

/// The keys of a preset or of the run of a report, under the names that they have in `text`; none of
/// a text that [`parse`] refuses.
#[must_use]
pub fn as_written(text: &str) -> Map<String, Value> {
    let mut values: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    match (
        values.contains_key("schema_version"),
        values.remove("options"),
    ) {
        (true, Some(Value::Object(options))) => options,
        _ => values,
    }
}

/// A preset, or what the program itself wrote of a run: a report with its machine, or a resolved
/// configuration.
fn preset_or_report(
    path: &str,
    values: &Map<String, Value>,
) -> Result<(Map<String, Value>, Option<SavedMachine>)> {
    if !values.contains_key("schema_version") {
        return Ok((
            check(path, &unresolved(path, values)?, Level::Program)?,
            None,
        ));
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
    let values = check(path, &unresolved(path, options)?, Level::Program)?;
    Ok((values, Some(SavedMachine { name, description })))
}

/// Whether these are the values of a complete configuration, as the program writes it of a run.
#[must_use]
pub fn is_resolved(values: &Map<String, Value>) -> bool {
    values.contains_key(DISTRIBUTED[0])
}

/// The values of a resolved configuration as somebody would have asked for them: without those that
/// are the defaults or were derived. Others are as they are.
fn unresolved(path: &str, values: &Map<String, Value>) -> Result<Map<String, Value>> {
    if !is_resolved(values) {
        return Ok(values.clone());
    }
    // What a launcher shared out was one run, of all replicas.
    for (key, expected) in DISTRIBUTED.into_iter().zip(["true or false", COUNT, COUNT]) {
        let fits = |found: &Value| match expected {
            COUNT => found.is_u64(),
            _ => found.is_boolean(),
        };
        if let Some(found) = values.get(key).filter(|found| !fits(found)) {
            return Err(Error::ConfigType {
                path: path.to_string(),
                key: key.into(),
                expected,
                found: found.to_string(),
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
    asked.shift_remove("global_batch_size");
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
/// Unknown keys, all of them; else the first value that does not fit; else two names of one key with
/// different values.
fn check(path: &str, values: &Map<String, Value>, level: Level) -> Result<Map<String, Value>> {
    let known = |key: &str| known(synonyms::key_of(key), level);
    let keys: Vec<String> = values
        .keys()
        .filter(|key| known(key).is_none())
        .cloned()
        .collect();
    if !keys.is_empty() {
        return Err(Error::UnknownKeys {
            path: path.to_string(),
            hints: keys
                .iter()
                .filter_map(|key| hints::of(key, Form::Key))
                .collect(),
            keys,
        });
    }
    let typed: Map<String, Value> = values
        .iter()
        .map(|(key, value)| {
            let option = known(key).expect("unknown keys were refused above");
            Ok((key.clone(), from_json(option, value, path)?))
        })
        .collect::<Result<_>>()?;
    synonyms::unified(&typed).map_err(|inner| Error::TwoConfigValues {
        path: path.into(),
        inner: Box::new(inner),
    })
}

/// Which configuration an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// That of a program: what it prints and leaves behind is said there.
    Program,
    /// That of one of its runs.
    Inner,
}

/// The option of a key that a configuration may have.
fn known(key: &str, level: Level) -> Option<&'static OptionSpec> {
    let own = || table::own_by_key(key).filter(|_| level == Level::Program || is_key(key));
    table::by_key(key).or_else(own)
}

/// A JSON object, or the path of a file with one. The original ignores anything else without a
/// word; we don't.
fn json_word(option: &OptionSpec, word: &str) -> Result<Value> {
    if word.is_empty() && values::is_unset_by_nothing(option) {
        return Ok(Value::Null);
    }
    let (path, text) = if word.trim_start().starts_with('{') {
        (option.name.to_string(), word.to_string())
    } else {
        (word.to_string(), text::read_settings(Path::new(word))?)
    };
    let values = check(&path, &object(&path, &text)?, Level::Inner)?;
    Ok(Value::Object(values))
}

/// The value that JSON gives `option` in the configuration file `path`.
///
/// Texts are read as the command line's words are, and one text will do for a list.
///
/// # Errors
///
/// A value of another type, none of the option's choices, or a text that is no value of its kind.
pub fn from_json(option: &OptionSpec, value: &Value, path: &str) -> Result<Value> {
    let wrong = || Error::ConfigType {
        path: path.to_string(),
        key: option.key.to_string(),
        expected: expected(option),
        found: value.to_string(),
    };
    match value {
        Value::Null if option.default_value().is_null() => Ok(Value::Null),
        Value::String(word) if *value != option.default_value() => {
            let read = match option.kind {
                Kind::Json => json_word(option, word),
                _ => values::from_word(option, word),
            };
            let scalar = read.map_err(|inner| Error::ConfigValue {
                path: path.to_string(),
                inner: Box::new(inner),
            })?;
            Ok(if option.is_list() {
                json!([scalar])
            } else {
                scalar
            })
        }
        Value::Array(_) if option.kind == Kind::Halves => Ok(value.clone()),
        Value::Array(items) if option.is_list() => {
            if items.is_empty() && option.arity == Arity::OneOrMore {
                return Err(wrong());
            }
            items
                .iter()
                .map(|item| scalar(option, item).ok_or_else(wrong))
                .collect()
        }
        Value::Object(pairs) if option.kind == Kind::Schedule => {
            let fits =
                |(key, rate): (&String, &Value)| key.parse::<u64>().is_ok() && rate.is_number();
            if pairs.iter().all(fits) {
                Ok(value.clone())
            } else {
                Err(wrong())
            }
        }
        Value::Object(keys) if option.kind == Kind::Json => {
            let inside = format!("{path}: key {}", repr(option.key));
            check(&inside, keys, Level::Inner).map(Value::Object)
        }
        _ if option.is_list() => Err(wrong()),
        _ => scalar(option, value).ok_or_else(wrong),
    }
}

fn scalar(option: &OptionSpec, value: &Value) -> Option<Value> {
    let fits = match option.kind {
        Kind::Int => value.is_i64(),
        Kind::IntOrConfigFloat | Kind::Float => value.is_number(),
        Kind::Bool => value.is_boolean(),
        Kind::Text | Kind::Mode | Kind::Constant(_) => value.is_string(),
        Kind::Schedule | Kind::Json | Kind::Halves => false,
    };
    fits.then(|| value.clone())
}

fn expected(option: &OptionSpec) -> &'static str {
    match (option.kind, option.is_list()) {
        (Kind::Int, true) => "a list of whole numbers",
        (Kind::Int, false) => "a whole number",
        (Kind::Float, true) => "a list of numbers",
        (Kind::IntOrConfigFloat | Kind::Float, _) => "a number",
        (Kind::Bool, _) => "true or false",
        (Kind::Schedule, _) => "an object of whole numbers and rates",
        (Kind::Json, _) => "an object",
        (Kind::Halves, _) => "a list of [IPU, [attention blocks, feed-forward blocks]]",
        (_, true) => "a list of texts",
        (_, false) => "a text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, expected: &str) {
        let error = parse("a.json", text).expect_err(text);
        assert_eq!(crate::error::chain(&error), expected, "{text}");
    }

    #[test]
    fn values_are_taken_or_converted() {
        for (text, key, expected) in [
            (r#"{"num_layers": "4"}"#, "num_layers", json!(4)),
            (r#"{"shuffle": "true"}"#, "shuffle", json!(true)),
            (r#"{"loss_scaling": 20}"#, "loss_scaling", json!(20)),
            (r#"{"input_files": "x"}"#, "input_files", json!(["x"])),
            (
                r#"{"device_iterations": "7"}"#,
                "batches_per_step",
                json!(7),
            ),
            (
                r#"{"checkpoint_output_dir": "c"}"#,
                "checkpoint_dir",
                json!("c"),
            ),
            (
                r#"{"checkpoint_input_dir": "m.onnx"}"#,
                "onnx_checkpoint",
                json!("m.onnx"),
            ),
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
                 'ff_size': did you mean ff_size__?\n  \
                 'micro-batch-size': did you mean micro_batch_size?",
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
                r#"{"validation_config": "no/such.json"}"#,
                "a.json: cannot read no/such.json: No such file or directory (os error 2)",
            ),
            (
                r#"{"validation_config": {"explain": true}}"#,
                "a.json: key 'validation_config': Unknown arg(s) in config file: {'explain'}",
            ),
            (
                r#"{"validation_config": {"foo": 1}}"#,
                "a.json: key 'validation_config': Unknown arg(s) in config file: {'foo'}",
            ),
            (
                r#"{"dtype": "FLOAT16"}"#,
                "a.json: Unknown arg(s) in config file: {'dtype'}\n  \
                 'dtype': did you mean popart_dtype?",
            ),
            (
                r#"{"device_iterations": 4, "batches_per_step": 8}"#,
                "a.json: `batches_per_step` and `device_iterations` are one setting, got 8 and 4",
            ),
            (
                r#"{"validation_config": {"device_iterations": 4, "batches_per_step": 8}}"#,
                "a.json: key 'validation_config': `batches_per_step` and `device_iterations` are \
                 one setting, got 8 and 4",
            ),
            (
                r#"{"device_iterations": 4, "seeds": 1, "explian": 1}"#,
                "a.json: Unknown arg(s) in config file: {'seeds', 'explian'}\n  \
                 'explian': did you mean explain?",
            ),
        ] {
            check_error(text, expected);
        }
    }
}

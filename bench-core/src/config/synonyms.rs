//! Keys that later releases of the application call otherwise.
//!
//! A name changes, its meaning doesn't: [`unified`] gives every key the one name that it has here,
//! that of the first release. Source: the argument parsers of graphcore/examples, tags v2.1.0 to
//! v3.1.0.

use serde_json::{Map, Value, json};

use super::keys::{KeyError, Result};

/// Later names of keys, and the keys that they are.
///
/// `checkpoint_input_dir` is no folder in spite of its name: it holds the path of a model file.
pub const SYNONYMS: [(&str, &str); 3] = [
    ("device_iterations", "batches_per_step"),
    ("checkpoint_output_dir", "checkpoint_dir"),
    ("checkpoint_input_dir", "onnx_checkpoint"),
];

/// The key that a name stands for.
#[must_use]
pub fn key_of(name: &str) -> &str {
    let found = SYNONYMS.iter().find(|(later, _)| *later == name);
    found.map_or(name, |(_, key)| key)
}

/// The keys of one source, such as a file, each under its one name.
///
/// # Errors
///
/// [`KeyError::TwoValues`] where two names of a key have different values.
pub fn unified(keys: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut out = keys.clone();
    for (later, key) in SYNONYMS {
        let Some(value) = out.shift_remove(later) else {
            continue;
        };
        match out.get(key).filter(|other| !other.is_null()) {
            Some(other) if *other != value && !value.is_null() => {
                return Err(KeyError::TwoValues {
                    names: [key, later],
                    values: Box::new([other.clone(), value]),
                });
            }
            Some(_) => {}
            None => {
                out.insert(key.into(), value);
            }
        }
    }
    check_mode(&out)?;
    Ok(out)
}

/// Puts the mode that `pipeline` means under `execution_mode`, and takes `pipeline` out: a run has
/// one of them.
pub fn set_mode(keys: &mut Map<String, Value>) {
    let mode = match keys.shift_remove("pipeline") {
        Some(Value::Bool(true)) => "PIPELINE",
        Some(Value::Bool(false)) if !keys.contains_key("execution_mode") => "DEFAULT",
        _ => return,
    };
    keys.insert("execution_mode".into(), json!(mode));
}

/// Refuses a pipeline that isn't one: `pipeline` is the switch of later releases for what
/// `execution_mode` says in earlier ones. Files of phased execution have it off, too.
fn check_mode(keys: &Map<String, Value>) -> Result<()> {
    let switch = keys.get("pipeline").filter(|value| value.is_boolean());
    let mode = keys.get("execution_mode").filter(|value| value.is_string());
    let (Some(switch), Some(mode)) = (switch, mode) else {
        return Ok(());
    };
    if (*switch == true) == (*mode == "PIPELINE") {
        return Ok(());
    }
    Err(KeyError::TwoValues {
        names: ["execution_mode", "pipeline"],
        values: Box::new([mode.clone(), switch.clone()]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: Value, expected: std::result::Result<Value, &str>) {
        let found = unified(keys.as_object().expect("an object"));
        let found = found.map(Value::Object).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(String::from), "{keys}");
    }

    #[test]
    fn later_names_are_the_first_ones() {
        check(
            json!({"device_iterations": 4, "checkpoint_output_dir": "c", "seed": 1}),
            Ok(json!({"batches_per_step": 4, "checkpoint_dir": "c", "seed": 1})),
        );
        check(
            json!({"checkpoint_input_dir": "m.onnx"}),
            Ok(json!({"onnx_checkpoint": "m.onnx"})),
        );
        // The same twice, or nothing beside something, is no contradiction.
        check(
            json!({"device_iterations": 4, "batches_per_step": 4}),
            Ok(json!({"batches_per_step": 4})),
        );
        check(
            json!({"checkpoint_input_dir": null, "onnx_checkpoint": "m.onnx"}),
            Ok(json!({"onnx_checkpoint": "m.onnx"})),
        );
        check(
            json!({"checkpoint_input_dir": "m.onnx", "onnx_checkpoint": null}),
            Ok(json!({"onnx_checkpoint": "m.onnx"})),
        );
    }

    #[test]
    fn two_values_of_one_key_are_refused() {
        check(
            json!({"device_iterations": 4, "batches_per_step": 8}),
            Err("`batches_per_step` and `device_iterations` are one setting, got 8 and 4"),
        );
        check(
            json!({"pipeline": true, "execution_mode": "DEFAULT"}),
            Err("`execution_mode` and `pipeline` are one setting, got \"DEFAULT\" and true"),
        );
        check(
            json!({"pipeline": false, "execution_mode": "PIPELINE"}),
            Err("`execution_mode` and `pipeline` are one setting, got \"PIPELINE\" and false"),
        );
        for agreed in [
            json!({"pipeline": true, "execution_mode": "PIPELINE"}),
            json!({"pipeline": false, "execution_mode": "PHASED"}),
            json!({"pipeline": null, "execution_mode": "PIPELINE"}),
        ] {
            check(agreed.clone(), Ok(agreed));
        }
    }
}

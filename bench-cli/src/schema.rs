//! The forms of what this program writes and of the configurations it reads, as JSON Schemas.
//!
//! Reports derive theirs; that of configurations is read off the option table, which also knows
//! defaults and help.

use bench_core::config::keys::{LAYER_KEYS, is_key};
use bench_core::validate::Validation;
use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

use crate::args::spec::{Kind, OptionSpec};
use crate::args::table;
use crate::devices::Inventory;
use crate::inspect::MemoryReport;
use crate::metrics::{Report, SCHEMA_VERSION};
use crate::plan::Plans;
use crate::suite::Entry;

/// Written forms that have a schema: name and meaning of each.
pub const NAMES: &[(&str, &str)] = &[
    ("metrics", "written by `bert --metrics-json`"),
    ("suite", "written by `suite --json`"),
    (
        "memory-report",
        "written by `bert --memory-report FILE.json`",
    ),
    ("validation", "written by `validate --json`"),
    ("plans", "printed by `plan --json`"),
    ("devices", "printed by `devices --json`"),
    ("config", "read by `bert --config`; every key is optional"),
    (
        "resolved-config",
        "written to `config.json`, printed by `bert --print-config`",
    ),
];

/// The schema called `name`; none if there is none of that name.
#[must_use]
pub fn schema(name: &str) -> Option<Value> {
    Some(match name {
        "metrics" => derived::<Report>(),
        "suite" => derived::<Vec<Entry>>(),
        "memory-report" => derived::<MemoryReport>(),
        "validation" => derived::<Validation>(),
        "plans" => derived::<Plans>(),
        "devices" => derived::<Inventory>(),
        "config" => config(Keys::Some),
        "resolved-config" => config(Keys::All),
        _ => return None,
    })
}

fn derived<T: JsonSchema>() -> Value {
    schema_for!(T).to_value()
}

/// Which keys of a configuration must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Any: the others have defaults.
    Some,
    /// All, those of distributed runs too.
    All,
}

fn config(keys: Keys) -> Value {
    let mut properties = Map::new();
    for option in table::options() {
        properties
            .entry(option.key)
            .or_insert_with(|| property(option, keys));
    }
    for option in table::OURS.options {
        if is_key(option.key) {
            properties.insert(option.key.into(), property(option, keys));
        }
    }
    if keys == Keys::All {
        for (key, kind) in [
            ("use_popdist", "boolean"),
            ("popdist_size", "integer"),
            ("popdist_rank", "integer"),
        ] {
            properties.insert(key.into(), json!({ "type": kind }));
        }
    }
    let required: Vec<&String> = match keys {
        Keys::Some => Vec::new(),
        // What is of our own is there only if it acts, but for the release, and one of the two
        // forms of a placement is.
        Keys::All => {
            let ours = |key: &str| table::own_by_key(key).is_some() && key != "release";
            let always = |key: &&String| !ours(key) && !LAYER_KEYS.contains(&key.as_str());
            properties.keys().filter(always).collect()
        }
    };
    let required = json!(required);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration",
        "description": "Options of `ipu-bench bert` by key.",
        "$comment": format!("schema version {SCHEMA_VERSION}"),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// A file may give a number as text, as one types it, and one file without a list.
fn property(option: &OptionSpec, keys: Keys) -> Value {
    let number = |kind: &str, pattern: &str| match keys {
        Keys::Some => json!({ "anyOf": [
            { "type": kind },
            { "type": "string", "pattern": pattern },
        ]}),
        Keys::All => json!({ "type": kind }),
    };
    let mut value = match option.kind {
        Kind::Int => number("integer", r"^\s*[-+]?[0-9]+\s*$"),
        Kind::IntOrConfigFloat | Kind::Float => number(
            "number",
            r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$",
        ),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Text | Kind::Constant(_) if option.choices.is_empty() => json!({ "type": "string" }),
        Kind::Text | Kind::Constant(_) => {
            // A default that the command line refuses is one that a file may give.
            let mut choices: Vec<Value> = option.choices.iter().map(|word| json!(word)).collect();
            let default = option.default_value();
            if !default.is_null() && !choices.contains(&default) {
                choices.push(default);
            }
            json!({ "enum": choices })
        }
        Kind::Mode => json!({ "enum": ["DEFAULT", "PIPELINE", "PHASED"] }),
        Kind::Schedule => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[0-9]+$" },
            "additionalProperties": { "type": "number" },
        }),
        Kind::Json => json!({ "type": "object" }),
        Kind::Halves => json!({
            "type": "array",
            "items": {
                "type": "array",
                "prefixItems": [
                    { "type": "integer", "minimum": 0 },
                    {
                        "type": "array",
                        "items": { "type": "integer", "minimum": 0 },
                        "minItems": 2,
                        "maxItems": 2,
                    },
                ],
                "minItems": 2,
                "maxItems": 2,
            },
        }),
    };
    if option.is_list() {
        let list = json!({ "type": "array", "items": value.clone() });
        value = match option.kind {
            Kind::Text => json!({ "anyOf": [list, value] }),
            _ => list,
        };
    }
    let default = option.default_value();
    if default.is_null() {
        value = json!({ "anyOf": [value, { "type": "null" }] });
    }
    let fields = value.as_object_mut().expect("a schema is an object");
    fields.insert("description".into(), json!(option.help));
    fields.insert("default".into(), default);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_schema() {
        for (name, _) in NAMES {
            let schema = schema(name).unwrap_or_else(|| panic!("{name}"));
            assert!(schema["$schema"].is_string(), "{name}");
        }
        assert_eq!(schema("nothing"), None);
    }

    /// A validator of the few words that these schemas use.
    fn fits(schema: &Value, root: &Value, value: &Value) -> Result<(), String> {
        if let Some(link) = schema["$ref"].as_str() {
            let target = root.pointer(link.trim_start_matches('#'));
            return fits(target.expect(link), root, value);
        }
        for any in ["anyOf", "oneOf"] {
            if let Some(list) = schema[any].as_array() {
                let fitting = list.iter().any(|one| fits(one, root, value).is_ok());
                return fitting
                    .then_some(())
                    .ok_or(format!("{value} fits none of {any}"));
            }
        }
        if let Some(choices) = schema["enum"].as_array() {
            return choices
                .contains(value)
                .then_some(())
                .ok_or(format!("{value} is none of {choices:?}"));
        }
        let is = |kind: &str| match kind {
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "null" => value.is_null(),
            other => panic!("unknown type {other}"),
        };
        let typed = match &schema["type"] {
            Value::String(kind) => is(kind),
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is),
            _ => true,
        };
        if !typed {
            return Err(format!("{value} is no {}", schema["type"]));
        }
        if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
            && !regex::Regex::new(pattern).unwrap().is_match(text)
        {
            return Err(format!("{text} isn't {pattern}"));
        }
        for key in schema["required"].as_array().into_iter().flatten() {
            let key = key.as_str().unwrap();
            value.get(key).ok_or(format!("{key} is missing"))?;
        }
        for (key, field) in value.as_object().into_iter().flatten() {
            match schema["properties"].get(key) {
                Some(property) => {
                    fits(property, root, field).map_err(|error| format!("{key}: {error}"))?;
                }
                None if schema["additionalProperties"] == false => {
                    return Err(format!("{key} is unknown"));
                }
                None => {}
            }
        }
        for item in value.as_array().into_iter().flatten() {
            if !schema["items"].is_null() {
                fits(&schema["items"], root, item)?;
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_read_and_written_fits() {
        let check = |name: &str, value: &Value| {
            let schema = schema(name).unwrap();
            assert_eq!(fits(&schema, &schema, value), Ok(()), "{name}");
        };
        for (path, _) in bench_core::presets::PRESETS {
            let preset = crate::config::file::load(path).unwrap();
            check("config", &Value::Object(preset.values));
        }
        check(
            "config",
            &json!({ "num_layers": "4", "input_files": "a.bin" }),
        );
        let machine = crate::system::choose(Some("mk2-m2000"), 1).unwrap();
        let inventory = crate::devices::inventory(&machine).unwrap();
        check("devices", &serde_json::to_value(&inventory).unwrap());
        let preset = crate::config::file::load("pretrain_large_128.json").unwrap();
        let given = crate::args::parse(["--epochs", "1"].map(String::from)).unwrap();
        let resolved = crate::config::resolve(&given, Some(&preset.values), "date").unwrap();
        check(
            "resolved-config",
            &Value::Object(resolved.options.arguments()),
        );
        let metrics = crate::metrics::fixtures::measured();
        let prepared = crate::request::prepare(&given, crate::clock::Date::now()).unwrap();
        let report = Report::new(&prepared.request, metrics);
        check("metrics", &serde_json::to_value(&report).unwrap());
        let schema = schema("config").unwrap();
        for wrong in [
            json!({"num_layers": "x"}),
            json!({"nothing": 1}),
            json!({"task": "FOO"}),
        ] {
            assert!(fits(&schema, &schema, &wrong).is_err(), "{wrong}");
        }
    }
}

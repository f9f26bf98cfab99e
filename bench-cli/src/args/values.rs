//! Values of options: from the words of a command line and from JSON.
//!
//! The words follow `argparse` with the types of `bert.py`. JSON is checked more strictly than the
//! original does, which takes any value that is no text: here type and choices must fit.
//!
//! Left out: numbers that JSON cannot hold (`inf`, `nan`), and Python's underscores in numbers.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::spec::{Arity, Kind, OptionSpec};
use crate::python::repr;
use crate::{Error, Result};

const MODES: &[&str] = &["DEFAULT", "PIPELINE", "PHASED"];

/// The value of an option that takes no word.
#[must_use]
pub fn of_flag(option: &OptionSpec) -> Value {
    match option.kind {
        Kind::Constant(text) => json!(text),
        _ => json!(true),
    }
}

/// The value that `words` give `option`.
///
/// # Errors
///
/// A word that is no value of its kind or none of its choices.
pub fn from_words(option: &OptionSpec, words: &[String]) -> Result<Value> {
    match option.kind {
        Kind::Schedule => schedule(option, words),
        _ if option.is_list() => words.iter().map(|word| from_word(option, word)).collect(),
        _ => {
            assert_eq!(words.len(), 1, "clap counts the words of {}", option.name);
            from_word(option, &words[0])
        }
    }
}

/// The value of one word.
fn from_word(option: &OptionSpec, word: &str) -> Result<Value> {
    let invalid = |kind| Error::InvalidValue {
        option: option.name,
        kind,
        value: word.to_string(),
    };
    match option.kind {
        Kind::Int | Kind::IntOrConfigFloat => {
            let number: i64 = word.trim().parse().map_err(|_| invalid("int"))?;
            Ok(json!(number))
        }
        Kind::Float => {
            let number: f64 = word.trim().parse().map_err(|_| invalid("float"))?;
            if number.is_finite() {
                Ok(json!(number))
            } else {
                Err(invalid("finite float"))
            }
        }
        Kind::Bool => bool_word(word).map(Value::Bool).ok_or(Error::InvalidBool {
            option: option.name,
            value: word.to_string(),
        }),
        Kind::Mode if MODES.contains(&word) => Ok(json!(word)),
        Kind::Mode => Err(invalid("ExecutionMode")),
        Kind::Json => json_word(option, word),
        Kind::Schedule => schedule(option, &[word.to_string()]),
        Kind::Text | Kind::Constant(_) => {
            if option.key == "engine_cache" && word.is_empty() {
                return Ok(Value::Null);
            }
            if option.choices.is_empty() || option.choices.contains(&word) {
                return Ok(json!(word));
            }
            Err(Error::InvalidChoice {
                option: option.name,
                value: word.to_string(),
                choices: option.choices,
            })
        }
    }
}

fn bool_word(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "y" => Some(true),
        "false" | "f" | "0" | "no" | "n" => Some(false),
        _ => None,
    }
}

fn schedule(option: &OptionSpec, words: &[String]) -> Result<Value> {
    if words.is_empty() {
        return Ok(Value::Null);
    }
    let mut pairs = Map::new();
    for word in words {
        let pair = word.split_once(':').and_then(|(key, value)| {
            let key: u64 = key.trim().parse().ok()?;
            let value: f64 = value.trim().parse().ok()?;
            value.is_finite().then_some((key, value))
        });
        let Some((key, value)) = pair else {
            return Err(Error::InvalidSchedule {
                option: option.name,
                word: word.clone(),
            });
        };
        pairs.insert(key.to_string(), json!(value));
    }
    Ok(Value::Object(pairs))
}

/// A JSON object, or the path of a file with one. The original ignores anything else without a
/// word; we don't.
fn json_word(option: &OptionSpec, word: &str) -> Result<Value> {
    let (path, text) = if word.trim_start().starts_with('{') {
        (option.name.to_string(), word.to_string())
    } else {
        let text = crate::config::file::read_text(word).map_err(|source| Error::File {
            action: "read",
            path: PathBuf::from(word),
            source,
        })?;
        (word.to_string(), text?)
    };
    let parsed = crate::config::file::parse(&path, &text);
    parsed.map(|(values, _)| Value::Object(values))
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
            let scalar = from_word(option, word).map_err(|inner| Error::ConfigValue {
                path: path.to_string(),
                inner: Box::new(inner),
            })?;
            Ok(if option.is_list() {
                json!([scalar])
            } else {
                scalar
            })
        }
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
            crate::config::file::check(&inside, keys).map(Value::Object)
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
        Kind::Schedule | Kind::Json => false,
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
        (_, true) => "a list of texts",
        (_, false) => "a text",
    }
}

/// A value as one would type it: lists with blanks between their items.
#[must_use]
pub fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(show).collect();
            items.join(" ")
        }
        other => other.to_string(),
    }
}

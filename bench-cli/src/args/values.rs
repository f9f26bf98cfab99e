//! Values of options: from the words of a command line, and back.
//!
//! The words follow `argparse` with the types of `bert.py`. An object is more than a word: it and
//! all that JSON gives is read by [`super::json`].
//!
//! Left out: numbers that JSON cannot hold (`inf`, `nan`), and Python's underscores in numbers.

use bench_core::config::words::truth;
use serde_json::{Map, Value, json};

use super::spec::{Arity, Kind, OptionSpec};
use super::table;
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

/// The value that `words` give `option`, which takes no object.
///
/// # Errors
///
/// A word that is no value of its kind or none of its choices.
///
/// # Panics
///
/// If the option takes an object.
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

/// The value of one word; never an object.
pub(super) fn from_word(option: &OptionSpec, word: &str) -> Result<Value> {
    if word.is_empty() && is_unset_by_nothing(option) {
        return Ok(Value::Null);
    }
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
        Kind::Bool => truth(word).map(Value::Bool).ok_or(Error::InvalidBool {
            option: option.name,
            value: word.to_string(),
        }),
        Kind::Mode if MODES.contains(&word) => Ok(json!(word)),
        Kind::Mode => Err(invalid("ExecutionMode")),
        Kind::Json => unreachable!("{} takes an object", option.name),
        Kind::Halves => {
            let list: Option<Value> = serde_json::from_str(word).ok();
            let list = list.filter(Value::is_array);
            list.ok_or_else(|| {
                invalid("JSON list of [IPU, [attention blocks, feed-forward blocks]]")
            })
        }
        Kind::Schedule => schedule(option, &[word.to_string()]),
        Kind::Text | Kind::Constant(_) => {
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

/// Whether an empty word unsets an option, whatever a preset says. It does for one that may stay
/// unset, but not for an output of our own: that would be lost.
#[must_use]
pub fn is_unset_by_nothing(option: &OptionSpec) -> bool {
    let optional = option.default_value().is_null() && option.arity == Arity::One;
    optional && table::by_key(option.key).is_some()
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

/// A value as one would type it: lists with blanks between their items, lists of lists as JSON.
#[must_use]
pub fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if !items.iter().any(Value::is_array) => {
            let items: Vec<String> = items.iter().map(show).collect();
            items.join(" ")
        }
        other => other.to_string(),
    }
}

//! The command line of `ipu-bench bert`: words in, named values out.
//!
//! clap reads the words against a [`Command`] built from the [`table`]; three rules of the
//! original's parser that clap lacks stand around it: prefixes and their ambiguity (`expand`),
//! the list of all unrecognized words, and the wording of errors.
//!
//! As in the original: `--name value` and `--name=value` are equal; a list takes all words up to
//! the next option, or the one word after `=`; negative numbers are values; the last of repeated
//! options wins, lists included; an unambiguous start of a name will do.
//!
//! Left out: negative numbers that start with their point (`-.5`).

pub mod hints;
pub mod json;
pub mod mlperf;
pub mod own;
pub mod spec;
pub mod table;
pub mod values;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use indexmap::IndexMap;
use serde_json::Value;

use crate::launch::Launch;
use crate::{Error, Result};
use hints::Form;
use spec::{Arity, Kind, OptionSpec, Support};

/// Arguments of `ipu-bench bert`, read from the command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    /// Values by key, in table order: only what was given.
    pub values: IndexMap<&'static str, Value>,
    /// The options given, in the order of the line (a repeated one at its last place).
    pub names: Vec<&'static str>,
    /// The preset file named by `--config`.
    pub config: Option<String>,
    /// Values of the options of our own by key, in table order: only what was given.
    pub own: IndexMap<&'static str, Value>,
    /// The launch that this process is part of, if a launcher started it.
    pub launch: Option<Launch>,
    /// Whether the line asks for help instead of a run.
    pub help: bool,
}

/// Words that belong to no option. There are no positional arguments; these are collected so that
/// the message can name them all.
const STRAY: &str = "stray";

/// The `bert` command with all its options, for help and parsing.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new("bert")
        .about("Benchmark BERT with the options of bert.py on a simulated machine")
        .override_usage("ipu-bench bert [OPTIONS]")
        .args_override_self(true)
        .arg(
            Arg::new(STRAY)
                .num_args(0..)
                .allow_negative_numbers(true)
                .hide(true),
        );
    for section in table::SECTIONS.iter().chain([&table::OURS]) {
        command = command
            .next_help_heading(section.title)
            .args(section.options.iter().map(arg));
    }
    command
}

fn arg(option: &OptionSpec) -> Arg {
    let arg = Arg::new(option.name)
        .long(&option.name[2..])
        .help(help(option));
    let arg = match option.name {
        table::QUIET => arg.short('q'),
        _ => arg,
    };
    if option.arity == Arity::None {
        return arg.action(ArgAction::SetTrue);
    }
    let arg = arg
        .value_name(value_name(option))
        .allow_negative_numbers(true);
    match option.arity {
        Arity::Optional { bare } => {
            arg.num_args(0..=1)
                .default_missing_value(if bare { "true" } else { "false" })
        }
        Arity::OneOrMore => arg.num_args(1..),
        Arity::Any => arg.num_args(0..),
        Arity::One | Arity::None => arg.num_args(1),
    }
}

fn value_name(option: &OptionSpec) -> &'static str {
    match option.kind {
        Kind::Int | Kind::IntOrConfigFloat => "INT",
        Kind::Float => "FLOAT",
        Kind::Bool => "BOOL",
        Kind::Text | Kind::Constant(_) => "TEXT",
        Kind::Mode => "MODE",
        Kind::Schedule => "INT:FLOAT",
        Kind::Json | Kind::Halves => "JSON",
    }
}

fn help(option: &OptionSpec) -> String {
    let mut help = String::from(option.help);
    if !option.choices.is_empty() {
        help += &format!(" ({})", option.choices.join(" | "));
    }
    let default = option.default_value();
    if !default.is_null() && option.arity != Arity::None {
        help += &format!(" [default: {}]", values::show(&default));
    }
    match option.support {
        Support::Acts | Support::ActsOnValues => help,
        Support::NoEffect(_) => help + " [no effect]",
        Support::NotYet(_) => help + " [not supported yet]",
    }
}

/// Reads the words after `ipu-bench bert`.
///
/// # Errors
///
/// What the original's parser refuses, in its words: see [`Error`].
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Arguments> {
    let words = expand_all(words)?;
    let matches = match match_words(words)? {
        Some(matches) => matches,
        None => {
            return Ok(Arguments {
                help: true,
                ..Arguments::default()
            });
        }
    };
    let mut given = Arguments {
        names: names_in_order(&matches),
        ..Arguments::default()
    };
    refuse_conflicts(&given.names)?;
    for option in table::options() {
        if let Some(value) = read(option, &matches)? {
            refuse_other_value(option, &value, &given)?;
            given.values.insert(option.key, value);
        }
    }
    for option in table::OURS.options {
        if let Some(value) = read(option, &matches)? {
            given.own.insert(option.key, value);
        }
    }
    given.config = matches.get_one::<String>("--config").cloned();
    // What is asked for on the line alone is checked with the line.
    own::check_line(&given.own)?;
    // The original takes this word out before it parses the rest: the key stays unset.
    given.values.shift_remove("config");
    Ok(given)
}

/// The words as texts.
///
/// # Errors
///
/// [`Error::NotUtf8`] with the option that the word belongs to.
pub fn texts(words: impl IntoIterator<Item = OsString>) -> Result<Vec<String>> {
    let mut texts: Vec<String> = Vec::new();
    for word in words {
        match word.into_string() {
            Ok(text) => texts.push(text),
            Err(word) => {
                let word = word.to_string_lossy();
                let (option, word) = match word.split_once('=') {
                    Some((name, value)) if name.starts_with("--") => (Some(name), value),
                    _ => {
                        let mut before = texts.iter().rev().map(String::as_str);
                        (before.find(|text| text.starts_with("--")), &*word)
                    }
                };
                return Err(Error::NotUtf8 {
                    option: option.map(String::from),
                    word: word.into(),
                });
            }
        }
    }
    Ok(texts)
}

fn expand_all(words: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
    let mut options_ended = false;
    words
        .into_iter()
        .map(|word| {
            options_ended |= word == "--";
            if options_ended {
                Ok(word)
            } else {
                expand(word)
            }
        })
        .collect()
}

/// Completes a word that starts exactly one option; other words come back as they are.
///
/// The original looks for `--config` in a pass of its own, so that any start of it, down to
/// `--c`, means it whatever else starts so. Names that only this program has come last.
fn expand(word: String) -> Result<String> {
    let (start, rest) = match word.split_once('=') {
        Some((start, value)) => (start, format!("={value}")),
        None => (word.as_str(), String::new()),
    };
    let is_option = start.starts_with("--") && start.len() > 2;
    if !is_option || table::by_name(start).is_some() || start == "--help" {
        return Ok(word);
    }
    if "--config".starts_with(start) {
        return Ok(format!("--config{rest}"));
    }
    let published = std::iter::once("--help").chain(table::options().map(|option| option.name));
    let mut candidates: Vec<_> = published.filter(|name| name.starts_with(start)).collect();
    if candidates.is_empty() {
        let ours = table::OURS.options.iter().map(|option| option.name);
        candidates.extend(ours.filter(|name| name.starts_with(start)));
    }
    match candidates.as_slice() {
        [] => Ok(word),
        [name] => Ok(format!("{name}{rest}")),
        _ => Err(Error::Ambiguous { word, candidates }),
    }
}

/// Lets clap match the words; none if they ask for help. Options that clap doesn't know are put
/// aside and the rest tried again, so that other mistakes come first and the message lists them all.
fn match_words(words: Vec<String>) -> Result<Option<ArgMatches>> {
    let mut known = words.clone();
    let mut unknown = Vec::new();
    let error = loop {
        let line = std::iter::once("bert").chain(known.iter().map(String::as_str));
        let error = match command().try_get_matches_from(line) {
            Ok(matches) => {
                unknown.extend(
                    matches
                        .get_many::<String>(STRAY)
                        .into_iter()
                        .flatten()
                        .cloned(),
                );
                if unknown.is_empty() {
                    return Ok(Some(matches));
                }
                unknown.sort_by_key(|stray| words.iter().position(|word| word == stray));
                return Err(unrecognized(unknown));
            }
            Err(error) => error,
        };
        // Only an option's own word can start like an unknown one: values don't start with dashes.
        let place = (error.kind() == ErrorKind::UnknownArgument)
            .then(|| context(&error, ContextKind::InvalidArg))
            .flatten()
            .and_then(|named| known.iter().position(|word| word.starts_with(&named)));
        match place {
            Some(place) => unknown.push(known.remove(place)),
            None => break error,
        }
    };
    if error.kind() == ErrorKind::DisplayHelp {
        return Ok(None);
    }
    Err(reword(&error))
}

/// Words that mean nothing, with the options that may have been meant.
#[must_use]
pub fn unrecognized(words: Vec<String>) -> Error {
    let typed = words.iter().filter(|word| word.starts_with("--"));
    let typed = typed.map(|word| word.split('=').next().unwrap_or_default());
    let hints = typed.filter_map(|name| hints::of(name, Form::Word));
    Error::Unrecognized {
        hints: hints.collect(),
        words,
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

/// A clap error in the original's words.
fn reword(error: &clap::Error) -> Error {
    let named = context(error, ContextKind::InvalidArg).unwrap_or_default();
    // Clap shows `--name <TEXT>`.
    let option = named
        .split([' ', '[', '='])
        .next()
        .unwrap_or_default()
        .to_string();
    let value = context(error, ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues
            if value.is_empty() =>
        {
            let many = table::by_name(&option).is_some_and(OptionSpec::is_list);
            Error::MissingValue { option, many }
        }
        ErrorKind::TooManyValues => Error::UnexpectedValue { option, value },
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let message = line.trim_start_matches("error: ").to_string();
            Error::Command { message }
        }
    }
}

fn names_in_order(matches: &ArgMatches) -> Vec<&'static str> {
    let mut names: Vec<(usize, &'static str)> = table::options()
        .chain(table::OURS.options)
        .filter(|option| given_on_line(option, matches))
        .filter_map(|option| Some((matches.index_of(option.name)?, option.name)))
        .collect();
    names.sort_unstable();
    names.into_iter().map(|(_, name)| name).collect()
}

fn given_on_line(option: &OptionSpec, matches: &ArgMatches) -> bool {
    matches.value_source(option.name) == Some(clap::parser::ValueSource::CommandLine)
}

fn refuse_conflicts(names: &[&'static str]) -> Result<()> {
    for group in table::EXCLUSIVE {
        let key = |name: &str| table::by_name(name).map(|option| option.key);
        let is_flag =
            |name: &str| table::by_name(name).is_some_and(|option| option.arity == Arity::None);
        let mut present = names.iter().filter(|name| group.contains(name));
        let Some(other) = present.next() else {
            continue;
        };
        // Two names of one option are compared by their values.
        if let Some(option) = present.find(|option| key(option) != key(other) || is_flag(option)) {
            return Err(Error::NotAllowedWith { option, other });
        }
    }
    Ok(())
}

/// Refuses a value of an option that another name of it has on the line with another value.
fn refuse_other_value(option: &OptionSpec, value: &Value, given: &Arguments) -> Result<()> {
    let Some(other) = given.values.get(option.key).filter(|other| *other != value) else {
        return Ok(());
    };
    let first = table::by_key(option.key).expect("it is the option's key");
    Err(Error::TwoValues {
        names: [first.name.into(), option.name.into()],
        values: [values::show(other), values::show(value)],
    })
}

fn read(option: &OptionSpec, matches: &ArgMatches) -> Result<Option<Value>> {
    if !given_on_line(option, matches) {
        return Ok(None);
    }
    if option.arity == Arity::None {
        return Ok(Some(values::of_flag(option)));
    }
    let words: Vec<String> = matches
        .get_many::<String>(option.name)
        .map(|words| words.cloned().collect())
        .unwrap_or_default();
    json::from_words(option, &words).map(Some)
}

#[cfg(test)]
mod tests;

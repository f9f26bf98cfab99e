//! What the options of our own ask for: the machine, and what a run prints and leaves behind.
//!
//! Like all others they are keys of a configuration, too, over which the command line goes. None of
//! them shapes the program, but for those that a [`RunConfig`](bench_core::config::RunConfig) has.

use std::path::PathBuf;

use anstream::ColorChoice;
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::table;
use crate::inspect::Inspect;
use crate::{Error, Result};

/// Options of our own, resolved: the machine, and what a run prints and leaves behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnOptions {
    /// The machine named by `--system`.
    pub system: Option<String>,
    /// The file named by `--metrics-json`.
    pub metrics_json: Option<String>,
    /// Whether `--explain` was given.
    pub explain: bool,
    /// Choices of `--dump-ir`, `--dump-program` and `--memory-report`.
    pub inspect: Inspect,
    /// Whether `--quiet` was given.
    pub quiet: bool,
    /// Choice of `--color`.
    pub color: ColorChoice,
    /// Whether `--print-config` was given.
    pub print_config: bool,
}

impl OwnOptions {
    /// Options of the line, and where it says nothing, of the `preset`.
    ///
    /// # Errors
    ///
    /// An output that would go to stdout, which holds the log.
    pub fn read(
        line: &IndexMap<&'static str, Value>,
        preset: Option<&Map<String, Value>>,
    ) -> Result<Self> {
        let value = |name: &str| {
            let key = key(name);
            let preset = || preset.and_then(|preset| preset.get(key));
            line.get(key).or_else(preset)
        };
        let text = |name: &str| value(name).and_then(Value::as_str).map(String::from);
        let path = |name: &str| text(name).map(PathBuf::from);
        let on = |name: &str| value(name).is_some_and(|value| *value == true);
        refuse_stdout(|name| value(name).and_then(Value::as_str))?;
        Ok(Self {
            system: text(table::SYSTEM),
            metrics_json: text(table::METRICS_JSON),
            explain: on(table::EXPLAIN),
            inspect: Inspect {
                ir: path(table::DUMP_IR),
                program: path(table::DUMP_PROGRAM),
                memory: path(table::MEMORY_REPORT),
            },
            quiet: on(table::QUIET),
            color: match text(table::COLOR).as_deref() {
                Some("always") => ColorChoice::Always,
                Some("never") => ColorChoice::Never,
                _ => ColorChoice::Auto,
            },
            print_config: on(table::PRINT_CONFIG),
        })
    }
}

/// Refuses an output on the line that would go to stdout.
///
/// # Errors
///
/// [`Error::Stdout`] with the option.
pub(super) fn check_line(line: &IndexMap<&'static str, Value>) -> Result<()> {
    refuse_stdout(|name| line.get(key(name)).and_then(Value::as_str))
}

/// Refuses an output that would go to stdout, which holds the log.
fn refuse_stdout<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Result<()> {
    for (option, place) in [
        (table::METRICS_JSON, "file"),
        (table::DUMP_PROGRAM, "file"),
        (table::MEMORY_REPORT, "file"),
        (table::DUMP_IR, "folder"),
    ] {
        if text(option) == Some("-") {
            return Err(Error::Stdout { option, place });
        }
    }
    Ok(())
}

fn key(name: &str) -> &'static str {
    table::by_name(name).expect("an option of our own").key
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::args;

    #[test]
    fn the_line_goes_over_the_preset() {
        let line = "--system mk2-pod64 --color never --explain";
        let given = args::parse(line.split(' ').map(String::from)).unwrap();
        let preset = json!({
            "system": "bow-pod16", "metrics_json": "m.json", "color": "always",
            "explain": false, "dump_ir": "graphs", "quiet": true,
        });
        let found = OwnOptions::read(&given.own, preset.as_object()).unwrap();
        let expected = OwnOptions {
            system: Some("mk2-pod64".into()),
            metrics_json: Some("m.json".into()),
            explain: true,
            inspect: Inspect {
                ir: Some("graphs".into()),
                ..Inspect::default()
            },
            quiet: true,
            color: ColorChoice::Never,
            print_config: false,
        };
        assert_eq!(found, expected);
    }
}

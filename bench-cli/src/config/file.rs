//! Preset files: one JSON object whose keys are those of the option table.
//!
//! The shipped presets are built in, so that they work outside the repository. What an object may
//! hold is [`crate::args::json`]'s to say.

use std::io::ErrorKind;
use std::path::Path;

use bench_core::presets::PRESETS;
use bench_core::release::signs::{Shown, shown};
use serde_json::{Map, Value};

use crate::args::json::{self, SavedMachine};
use crate::args::mlperf::{self, Translated};
use crate::{Error, Result, text};

/// A preset, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// Values of the preset's options, by key.
    pub values: Map<String, Value>,
    /// Whether the built-in text stood in for a file that is not there.
    pub built_in: bool,
    /// The machine of the run, if the file is a report.
    pub machine: Option<SavedMachine>,
    /// Values as the file has them, under its own names.
    pub written: Map<String, Value>,
    /// Releases that the file may have been written for, as its values show.
    pub shown: Shown,
    /// Lines that say what was made of a file in other names.
    pub notes: Vec<String>,
}

/// Reads the preset at `path`, or the built-in one of that path or file name if there is no file.
///
/// # Errors
///
/// No such file and no such preset; text that is not a JSON object; unknown keys, wrong types.
pub fn load(path: &str) -> Result<Preset> {
    let (text, built_in) = match (text::read_settings(Path::new(path)), built_in(path)) {
        (Err(Error::File { source, .. }), Some(text)) if source.kind() == ErrorKind::NotFound => {
            (text.to_string(), true)
        }
        (text, _) => (text?, false),
    };
    // Text that is no JSON object is for the parser to refuse.
    let object: Option<Map<String, Value>> = serde_json::from_str(&text).ok();
    let translated = object.map(|values| mlperf::translated(path, &values));
    let (text, notes) = match translated.transpose()?.flatten() {
        Some(Translated { values, notes }) => (Value::Object(values).to_string(), notes),
        None => (text, Vec::new()),
    };
    let (mut values, machine) = json::parse(path, &text)?;
    let written = json::as_written(&text);
    let shown = shown(&written);
    if let Shown::Releases { last, .. } = shown {
        values
            .entry("release")
            .or_insert_with(|| last.name().into());
    }
    Ok(Preset {
        values,
        built_in,
        machine,
        written,
        shown,
        notes,
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

#[cfg(test)]
mod tests {
    use super::*;

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
        for folder in ["", "mk2", "mk2/packed", "mlperf"].map(|folder| root.join(folder)) {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "json")
                {
                    let preset = load(path.to_str().unwrap()).unwrap();
                    let given = crate::args::Arguments::default();
                    let result = crate::config::resolve(&given, Some(&preset.values), "date");
                    assert!(result.is_ok(), "{}: {result:?}", path.display());
                    found += 1;
                }
            }
        }
        assert!(found >= 14, "found only {found}");
    }
}

//! The configuration files that ship, as text, and the runs that they are.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::keys::is_key;
use crate::config::synonyms::{set_mode, unified};
use crate::config::{KeyError, RunConfig};
use crate::release::signs::shown;

/// Paths in the repository and texts of the configurations that ship.
pub const PRESETS: [(&str, &str); 13] = [
    ("configs/demo.json", include_str!("../../configs/demo.json")),
    (
        "configs/mk2/pretrain_base_128.json",
        include_str!("../../configs/mk2/pretrain_base_128.json"),
    ),
    (
        "configs/mk2/pretrain_base_384.json",
        include_str!("../../configs/mk2/pretrain_base_384.json"),
    ),
    (
        "configs/mk2/pretrain_large_128.json",
        include_str!("../../configs/mk2/pretrain_large_128.json"),
    ),
    (
        "configs/mk2/pretrain_large_128_POD128.json",
        include_str!("../../configs/mk2/pretrain_large_128_POD128.json"),
    ),
    (
        "configs/mk2/pretrain_large_128_POD64.json",
        include_str!("../../configs/mk2/pretrain_large_128_POD64.json"),
    ),
    (
        "configs/mk2/pretrain_large_384.json",
        include_str!("../../configs/mk2/pretrain_large_384.json"),
    ),
    (
        "configs/mk2/pretrain_large_384_POD128.json",
        include_str!("../../configs/mk2/pretrain_large_384_POD128.json"),
    ),
    (
        "configs/mk2/pretrain_large_384_POD64.json",
        include_str!("../../configs/mk2/pretrain_large_384_POD64.json"),
    ),
    (
        "configs/mk2/squad_base_128_inf.json",
        include_str!("../../configs/mk2/squad_base_128_inf.json"),
    ),
    (
        "configs/mk2/squad_base_384.json",
        include_str!("../../configs/mk2/squad_base_384.json"),
    ),
    (
        "configs/mk2/squad_large_128_inf.json",
        include_str!("../../configs/mk2/squad_large_128_inf.json"),
    ),
    (
        "configs/mk2/squad_large_384.json",
        include_str!("../../configs/mk2/squad_large_384.json"),
    ),
];

/// The keys of a preset, such as `pretrain_large_128`, that shape its run, with the release that
/// it shows; none of a name that doesn't ship.
///
/// # Panics
///
/// Never: a test reads what ships.
#[must_use]
pub fn keys(name: &str) -> Option<Map<String, Value>> {
    let is_named = |path: &str| Path::new(path).file_stem() == Some(OsStr::new(name));
    let (_, text) = PRESETS.iter().find(|(path, _)| is_named(path))?;
    let file: Map<String, Value> =
        serde_json::from_str(text).expect("presets are objects, as a test shows");
    let mut keys = unified(&file).expect("what ships doesn't contradict itself, as a test shows");
    set_mode(&mut keys);
    keys.retain(|key, _| is_key(key));
    let release = shown(&file).release();
    keys.entry("release")
        .or_insert_with(|| release.name().into());
    Some(keys)
}

/// The run of a preset with other values for some of its keys; none of a name that doesn't ship.
///
/// # Errors
///
/// As [`RunConfig::from_keys`].
pub fn run(name: &str, other: &Map<String, Value>) -> Option<Result<RunConfig, KeyError>> {
    let mut keys = keys(name)?;
    keys.extend(other.clone());
    Some(RunConfig::from_keys(&keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Release;

    #[test]
    fn every_preset_is_a_run() {
        for (path, _) in PRESETS {
            let name = Path::new(path).file_stem().unwrap().to_str().unwrap();
            let run = run(name, &Map::new()).unwrap();
            assert!(run.is_ok(), "{name}: {run:?}");
        }
        assert_eq!(run("pretrain", &Map::new()), None);
    }

    #[test]
    fn a_preset_is_of_the_release_that_it_shows() {
        for (name, expected) in [
            ("demo", Release::V2_3),
            ("pretrain_large_128", Release::V2_2),
            ("pretrain_large_128_POD64", Release::V2_5),
            ("squad_base_128_inf", Release::V2_5),
        ] {
            let run = run(name, &Map::new()).unwrap().unwrap();
            assert_eq!(run.release, expected, "{name}");
        }
        // Its mode is what the switch of its release says.
        let pod64 = run("pretrain_large_128_POD64", &Map::new());
        assert!(pod64.unwrap().unwrap().is_pipelined());
    }

    #[test]
    fn other_values_go_over_those_of_the_file() {
        let other = [("micro_batch_size".into(), 4.into())]
            .into_iter()
            .collect();
        let run = run("squad_large_128_inf", &other).unwrap().unwrap();
        assert_eq!((run.model.micro_batch, run.model.num_layers), (4, 24));
        assert!(run.is_inference() && run.is_squad());
    }
}

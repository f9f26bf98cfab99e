//! Runs for tests, written as on a command line.
//!
//! What only the command knows (data, lengths of runs) is passed over, so that lines can be tried
//! there as they stand.

use std::path::Path;

use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::shipped::machines;
use serde_json::{Map, Value};

use crate::config::RunConfig;
use crate::presets;

/// Words such as `--config demo.json --hidden-size 64 --layers-per-ipu 1 1 --inference --system mk2-pod16`
/// as a run and its machine: the smallest Mk2 one with enough IPUs unless one is named.
///
/// # Panics
///
/// If they are no run.
pub(crate) fn run(words: &str) -> (RunConfig, MachineSpec) {
    try_run(words).expect(words)
}

/// As [`run`], of words that may be refused.
pub(crate) fn try_run(words: &str) -> crate::Result<(RunConfig, MachineSpec)> {
    let mut keys = Map::new();
    let (mut system, mut tiles) = (None, None);
    for option in words
        .split("--")
        .map(str::trim)
        .filter(|option| !option.is_empty())
    {
        let mut parts = option.split_whitespace();
        let name = parts
            .next()
            .expect("empty options were left out")
            .replace('-', "_");
        let values: Vec<Value> = parts.map(value).collect();
        let name = match name.as_str() {
            "dtype" => "popart_dtype".into(),
            "ff_size" => "ff_size__".into(),
            _ => name,
        };
        let value = match (name.as_str(), values.as_slice()) {
            ("layers_per_ipu" | "available_memory_proportion", list) => list.into(),
            (_, []) => true.into(),
            (_, [one]) => one.clone(),
            _ => panic!("--{name} takes one value"),
        };
        match name.as_str() {
            "config" => {
                let name = value.as_str().and_then(|path| Path::new(path).file_stem());
                let preset = name.and_then(|name| presets::keys(name.to_str()?));
                keys.extend(preset.expect("a preset that ships"));
            }
            "device_tiles" => tiles = value.as_u64(),
            "generated_data"
            | "epochs"
            | "epochs_inference"
            | "no_model_save"
            | "device_connection_type" => {}
            "system" => system = value.as_str().map(String::from),
            // A global batch of its own takes the place of the preset's factor.
            "global_batch_size" => {
                keys.remove("gradient_accumulation_factor");
                keys.insert(name, value);
            }
            _ => {
                keys.insert(name, value);
            }
        }
    }
    let config = RunConfig::from_keys(&keys)?;
    let mut machine = match system {
        Some(name) => MachineSpec::shipped(&name)?,
        None => smallest(config.ipus_requested()),
    };
    if let Some(tiles) = tiles {
        machine = machine.scaled_down(machine.n_ipus, tiles as u32)?;
    }
    Ok((config, machine))
}

fn value(word: &str) -> Value {
    serde_json::from_str(word).unwrap_or_else(|_| word.into())
}

fn smallest(ipus: u32) -> MachineSpec {
    let names = machines()
        .into_iter()
        .filter(|name| name.starts_with("mk2-"));
    let machines = names.map(|name| MachineSpec::shipped(name).expect("what ships is sound"));
    let enough = machines.filter(|machine| machine.n_ipus >= ipus);
    enough
        .min_by_key(|machine| machine.n_ipus)
        .expect("a machine with as many IPUs")
}

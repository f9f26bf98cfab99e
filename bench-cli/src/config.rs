//! From options given to a configuration resolved: every key with its value, checked.
//!
//! The rules are those of `bert.py` (graphcore/examples, `applications/popart/bert`): the command
//! line goes over the preset and the preset over the defaults; then come the execution mode, the
//! batch rule and the checks, with the original's texts.
//!
//! One rule is kinder: an option given in any form (`--epochs=1`, a prefix) drops the others of its
//! exclusive group from the preset; the original sees whole words only. Others are stricter:
//! [`mod@file`] checks types, [`options`] checks ranges, and options that would ask for more than
//! the simulator does are refused by name.

pub mod file;
pub mod options;

use std::path::Path;

use bench_core::config::keys::{self, Batch, KeyError, is_key};
use bench_core::config::synonyms;
use bench_core::release::Release;
use serde_json::{Map, Value, json};

use crate::args::spec::{OptionSpec, Support};
use crate::args::{Arguments, table};
use crate::error::{AccumulationSource, Incompatible};
use crate::launch::Launch;
use crate::{Error, Result};
pub use options::BertOptions;
use options::{ConnectionType, InitialModel};

/// A configuration with nothing left to decide.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedConfig {
    /// Options that the simulator and the log read.
    pub options: BertOptions,
    /// The accumulation factor, where the global batch size decided or confirmed it.
    pub accumulation_set: Option<u64>,
    /// Warnings of the log on what `--compile-only` settles by itself.
    pub warnings: Vec<&'static str>,
    /// Notes for the user on options that were given and change nothing.
    pub notes: Vec<String>,
}

/// Resolves the options `given` over `preset`. `stamp` (`YY-MM-DD-HH-MM-SS`) names the folder of
/// this run under the checkpoint folder.
///
/// # Errors
///
/// Settings that do not go together, out-of-range values, and options that are not supported yet.
pub fn resolve(
    given: &Arguments,
    preset: Option<&Map<String, Value>>,
    stamp: &str,
) -> Result<ResolvedConfig> {
    refuse_two_values(given)?;
    let mut values = overlay(given, preset);
    let warnings = compile_only(&mut values);
    set_execution_mode(&mut values);
    let asked = Asked::of(&values);
    let launched = given.launch.map(|launch| set_launch(&mut values, launch));
    let launched = launched.transpose()?;
    let accumulation_set = set_batch(&mut values)?;
    check_together(&values)?;
    check_runs(&values)?;
    check_saving(&values)?;
    asked.check(&values)?;
    refuse_unsupported(&values)?;
    if values["minimum_latency_inference"] == true {
        values["low_latency_inference"] = json!(true);
    }
    let mut folder = crate::args::values::show(&values["checkpoint_dir"]);
    if let Some(launch) = given.launch {
        folder += &format!("_rank_{}", launch.rank);
    }
    values["checkpoint_dir"] = json!(Path::new(&folder).join(stamp).to_string_lossy());
    let (processes, rank) = given
        .launch
        .map_or((1, 0), |launch| (launch.processes, launch.rank));
    values.insert("use_popdist".into(), json!(given.launch.is_some()));
    values.insert("popdist_size".into(), json!(processes));
    values.insert("popdist_rank".into(), json!(rank));
    let options = BertOptions::from_values(&values)?;
    let mut notes = notes(given, &values, &options);
    notes.splice(0..0, launched.into_iter().flatten());
    Ok(ResolvedConfig {
        options,
        accumulation_set,
        warnings,
        notes,
    })
}

/// The configuration of the validation after training, from the resolved one of the training:
/// inference without accumulation, on what `validation_config` says over it. None if there is no
/// validation.
///
/// # Errors
///
/// As [`resolve`], as the source of [`Error::Validation`].
pub fn validation(training: &ResolvedConfig) -> Result<Option<BertOptions>> {
    let options = &training.options;
    let run = &options.run;
    if options.config.is_inference() || !run.validation || !run.model_save {
        return Ok(None);
    }
    let mut values = options.arguments();
    values["inference"] = json!(true);
    values["gradient_accumulation_factor"] = json!(1);
    values["tf_checkpoint"] = Value::Null;
    // One process of a launch validates.
    if let Some(launch) = run.launch {
        values["replication_factor"] = json!(launch.local_replicas);
    }
    values["use_popdist"] = json!(false);
    values["popdist_size"] = json!(1);
    if options.config.release == Release::Revision96fef3f {
        // Its inference has the head elsewhere than its training.
        values["squad_wrap_final_layer"] = Value::Null;
    }
    if let Some(own) = values["validation_config"].as_object() {
        let own = own.clone();
        if let Some(pipeline) = own.get("pipeline").and_then(Value::as_bool) {
            let mode = if pipeline { "PIPELINE" } else { "DEFAULT" };
            values["execution_mode"] = json!(mode);
        }
        place_anew(&mut values, &own);
        values.extend(own);
    }
    let mut validates = || -> Result<BertOptions> {
        check_together(&values)?;
        check_runs(&values)?;
        refuse_unsupported(&values)?;
        // That of the training counts its accumulation.
        values["global_batch_size"] = Value::Null;
        let asked = Asked::of(&values);
        set_batch(&mut values)?;
        asked.check(&values)?;
        let mut validation = BertOptions::from_values(&values)?;
        if run.training {
            validation.output.initial = InitialModel::Trained;
        }
        Ok(validation)
    };
    let validation = validates().map_err(|error| Error::Validation(Box::new(error)))?;
    Ok(Some(validation))
}

/// Forgets where the encoder layers are if what comes over it places them in the other form.
fn place_anew(values: &mut Map<String, Value>, over: &Map<String, Value>) {
    let (whole, half) = (keys::LAYER_KEYS, keys::HALF_LAYER_KEYS);
    for (form, other) in [(whole, half), (half, whole)] {
        if form.iter().any(|key| over.contains_key(*key)) {
            other.iter().for_each(|key| drop(values.shift_remove(*key)));
        }
    }
}

fn overlay(given: &Arguments, preset: Option<&Map<String, Value>>) -> Map<String, Value> {
    let mut values = Map::new();
    for option in table::options() {
        values
            .entry(option.key)
            .or_insert_with(|| option.default_value());
    }
    let displaced = displaced(&given.names);
    let of_a_run = |key: &str| table::by_key(key).is_some() || is_key(key);
    for (key, value) in preset.into_iter().flatten() {
        if of_a_run(key) && !displaced.contains(&key.as_str()) {
            values.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in &given.values {
        values.insert((*key).to_string(), value.clone());
    }
    for (key, value) in given.own.iter().filter(|(key, _)| is_key(key)) {
        values.insert((*key).to_string(), value.clone());
    }
    // What the application takes if nothing is said is nothing that somebody said.
    let in_preset = |key: &str| {
        let preset = preset.is_some_and(|preset| preset.get(key).is_some_and(|v| !v.is_null()));
        preset && !displaced.contains(&key)
    };
    let is_set = |key: &str, values: &Map<String, Value>| {
        values.get(key).is_some_and(|value| !value.is_null())
    };
    if keys::HALF_LAYER_KEYS.iter().any(|key| is_set(key, &values)) {
        for key in keys::LAYER_KEYS {
            if !in_preset(key) && !given.values.contains_key(key) {
                values.shift_remove(key);
            }
        }
    }
    // The machine that the line names is of the generation that it is.
    if given.own.contains_key("system") && !given.values.contains_key("device_version") {
        values["device_version"] = Value::Null;
    }
    values
}

/// Refuses two names of one setting with different values on the line.
fn refuse_two_values(given: &Arguments) -> Result<()> {
    let line = given.values.iter();
    let line = line.map(|(key, value)| ((*key).to_string(), value.clone()));
    match synonyms::unified(&line.collect()) {
        Err(KeyError::TwoValues { names, values }) => Err(Error::TwoValues {
            names: names.map(|key| table::by_key(key).map_or(key, |option| option.name).into()),
            values: values.map(|value| crate::args::values::show(&value)),
        }),
        _ => Ok(()),
    }
}

/// Where a run is only compiled, makes its device absent and its data generated, as the application
/// does from v2.3 on; gives its warnings of what nobody asked for.
fn compile_only(values: &mut Map<String, Value>) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if values["compile_only"] != true {
        return warnings;
    }
    values["device_connection_type"] = json!("offline");
    if values["engine_cache"].is_null() {
        values["engine_cache"] = json!("./session_cache/executable.popart");
        warnings.push(
            "Warning: --engine-cache path must be set for compile only mode. \
             Defaulting to './session_cache/executable.popart'.",
        );
    }
    if values["generated_data"] != true && values["synthetic_data"] != true {
        values["generated_data"] = json!(true);
        values["input_files"] = Value::Null;
        warnings.push(
            "Warning: --generated-data must be set for compile only mode. \
             Defaulting to using generated data. \
             --input-files will be ignored for compile only model.",
        );
    }
    warnings
}

/// Counts of a batch as somebody asked for them.
struct Asked {
    factor: bool,
    global: bool,
}

impl Asked {
    fn of(values: &Map<String, Value>) -> Self {
        Self {
            factor: !values["gradient_accumulation_factor"].is_null(),
            global: !values["global_batch_size"].is_null(),
        }
    }

    /// Refuses accumulation in inference, which changes none of the counts of a file.
    fn check(&self, values: &Map<String, Value>) -> Result<()> {
        let Batch {
            accumulation,
            global,
        } = keys::batch(values)?;
        if values["inference"] != true || accumulation == 1 {
            return Ok(());
        }
        Err(Error::AccumulationInInference {
            factor: accumulation,
            batch: global / accumulation,
            given: match (self.factor, self.global) {
                (true, true) => AccumulationSource::Both,
                (false, true) => AccumulationSource::GlobalBatch,
                _ => AccumulationSource::Factor,
            },
        })
    }
}

/// Keys that the preset loses because the command line chose another of their group, or another name
/// of the execution mode.
fn displaced(names: &[&str]) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if names.contains(&"--execution-mode") {
        keys.extend(["pipeline", "virtual_graph", "phased_execution"]);
    }
    for group in table::EXCLUSIVE {
        for name in names.iter().filter(|name| group.contains(name)) {
            let key = |name: &str| table::by_name(name).map(|option| option.key);
            let others = group.iter().filter_map(|other| key(other));
            keys.extend(others.filter(|other| Some(*other) != key(name)));
        }
    }
    keys
}

fn set_execution_mode(values: &mut Map<String, Value>) {
    let is = |key: &str, wanted: bool| values[key] == wanted;
    let mode = if is("pipeline", true) {
        "PIPELINE"
    } else if is("phased_execution", true) {
        "PHASED"
    } else if is("virtual_graph", true)
        || (values["execution_mode"] == "PIPELINE" && is("pipeline", false))
        || (values["execution_mode"] == "PHASED" && is("phased_execution", false))
    {
        "DEFAULT"
    } else {
        return;
    };
    values["execution_mode"] = json!(mode);
}

/// Gives the run the replicas of all processes of a launch. Returns what the user should hear.
fn set_launch(values: &mut Map<String, Value>, launch: Launch) -> Result<Vec<String>> {
    let Launch {
        processes,
        local_replicas,
        ..
    } = launch;
    if values["inference"] == true {
        return Err(Error::Incompatible(Incompatible::DistributedInference));
    }
    let total = launch.total_replicas();
    let mut notes = vec![format!(
        "launched as {processes} processes of {local_replicas} replicas each: the run is that of \
         all {total} replicas"
    )];
    let asked = values["replication_factor"].as_i64().unwrap_or(1);
    if asked > 1 && asked != i64::from(local_replicas) {
        // The first words are the original's.
        notes.push(format!(
            "Overwriting the local replication factor {asked} to {local_replicas}, which the \
             launcher asks for"
        ));
    }
    values["replication_factor"] = json!(total);
    // Before v2.1 a global batch was that of one process.
    let release = values.get("release").and_then(Value::as_str);
    if release == Some(Release::Revision96fef3f.name())
        && let Some(global) = values["global_batch_size"].as_u64()
    {
        values["global_batch_size"] = json!(global.saturating_mul(u64::from(processes)));
    }
    Ok(notes)
}

/// Derives accumulation factor and global batch size from one another. Returns the factor where a
/// global batch size was given.
fn set_batch(values: &mut Map<String, Value>) -> Result<Option<u64>> {
    let Batch {
        accumulation,
        global,
    } = keys::batch(values)?;
    let was_given = !values["global_batch_size"].is_null();
    values["gradient_accumulation_factor"] = json!(accumulation);
    values["global_batch_size"] = json!(global);
    Ok(was_given.then_some(accumulation))
}

fn check_together(values: &Map<String, Value>) -> Result<()> {
    let on = |key: &str| values[key] == true;
    let number = |key: &str| values[key].as_i64().unwrap_or_default();
    let only_squad = |option| {
        let task = crate::args::values::show(&values["task"]);
        Err(Error::Incompatible(Incompatible::OnlySquad {
            option,
            task,
        }))
    };
    let squad = values["task"] == "SQUAD";
    if on("no_drop_remainder") && !squad {
        return only_squad("--no-drop-remainder");
    }
    if values["host_embedding"] != "NONE" && !squad {
        return only_squad("--host-embedding");
    }
    let wrong = if number("batch_serialize") > number("micro_batch_size") {
        Incompatible::BatchSerialize
    } else if on("split_linear_layers") && number("batch_serialize") > 1 {
        Incompatible::SplitLinear
    } else if on("synthetic_data") && on("generated_data") {
        Incompatible::TwoSources
    } else if !on("inference")
        && !on("no_training")
        && values["epochs"].is_null()
        && values["training_steps"].is_null()
    {
        Incompatible::NoEnd
    } else {
        return Ok(());
    };
    Err(Error::Incompatible(wrong))
}

/// What the original finds out when it runs.
fn check_runs(values: &Map<String, Value>) -> Result<()> {
    let on = |key: &str| values[key] == true;
    match !on("inference") && on("no_training") && (on("no_validation") || on("no_model_save")) {
        true => Err(Error::Incompatible(Incompatible::NothingToRun)),
        false => Ok(()),
    }
}

/// Refuses weights in files of their own under an absolute folder, where a training would save them:
/// they are named in the model by their place beside it.
fn check_saving(values: &Map<String, Value>) -> Result<()> {
    let on = |key: &str| values[key] == true;
    let saves = on("save_initializers_externally")
        && !(on("inference") || on("no_training") || on("no_model_save"));
    let folder = crate::args::values::show(&values["checkpoint_dir"]);
    if !saves || !Path::new(&folder).is_absolute() {
        return Ok(());
    }
    let release = values.get("release").and_then(Value::as_str);
    Err(Error::RootedModels {
        key: match release == Some(Release::V3_1.name()) {
            true => "checkpoint_output_dir",
            false => "checkpoint_dir",
        },
    })
}

fn refuse_unsupported(values: &Map<String, Value>) -> Result<()> {
    for option in table::options() {
        if let Support::NotYet(reason) = option.support
            && !option.is_default(&values[option.key])
        {
            return Err(Error::NotSupported {
                option: option.name,
                reason,
            });
        }
    }
    Ok(())
}

/// Whether it is this one of the options of its key that was asked for: the one that the line names,
/// else the first.
fn is_meant(given: &Arguments, option: &OptionSpec) -> bool {
    let all = table::options().chain(table::OURS.options);
    let same: Vec<&OptionSpec> = all.filter(|other| other.key == option.key).collect();
    let is_named = |option: &OptionSpec| given.names.contains(&option.name);
    match same.iter().any(|other| is_named(other)) {
        true => is_named(option),
        false => same.first() == Some(&option),
    }
}

/// One line for each reason why something asked for changes nothing.
fn notes(given: &Arguments, values: &Map<String, Value>, options: &BertOptions) -> Vec<String> {
    let mut by_reason: indexmap::IndexMap<&str, Vec<&str>> = indexmap::IndexMap::new();
    for option in table::options().chain(table::OURS.options) {
        if let Support::NoEffect(reason) = option.support
            && values
                .get(option.key)
                .is_some_and(|value| !option.is_default(value))
            && is_meant(given, option)
        {
            by_reason.entry(reason).or_default().push(option.name);
        }
    }
    let mut notes: Vec<String> = by_reason
        .into_iter()
        .map(|(reason, names)| format!("no effect: {}: {reason}", names.join(", ")))
        .collect();
    if options.device.connection == ConnectionType::Offline {
        notes.push("offline: the program is compiled and timed, but its run is not logged".into());
    }
    let training = !options.config.is_inference();
    let infers = !training || (options.run.validation && options.run.model_save);
    let real = !(options.run.generated_data || options.is_synthetic());
    if infers && real && options.config.is_squad() {
        notes.push("no predictions and no F1 are written: a timed run computes no answers".into());
    }
    if training && options.run.model_save {
        let mut note = String::from("no model files are written: --no-model-save silences this");
        // The original validates only what it saved.
        if options.run.validation {
            note += ", and leaves out the validation";
        }
        notes.push(note);
    }
    notes
}

#[cfg(test)]
mod tests;

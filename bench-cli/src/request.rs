//! From the words of a command line to a run that can be simulated.

mod faults;
pub mod unread;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use bench_core::release::Release;
use bench_core::release::signs::Shown;
use bert_model::placement::EncoderPlacement;
use popart_graph::passes::CollectiveMerging;

use crate::args::own::OwnOptions;
use crate::args::{Arguments, table};
use crate::config::{self, BertOptions, ResolvedConfig};
use crate::files::PartialFolder;
use crate::system::{self, Machine, MachineRequest};
use crate::{Error, Result, clock, report};

/// A run to simulate.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRequest {
    /// Options that act on the run or on its output.
    pub options: BertOptions,
    /// The machine, large enough if it ships.
    pub machine: Machine,
}

impl RunRequest {
    /// Makes the folder of this run, under the name that its configuration gives it, or if another
    /// run has that one, with the first free number behind it. The configuration follows, and stands
    /// in it as `config.json`, as the original leaves it: the folder is there with the file, or not
    /// at all.
    ///
    /// # Errors
    ///
    /// A folder that can't be created.
    pub fn make_folder(&mut self) -> Result<PathBuf> {
        let wanted = PathBuf::from(&self.options.output.checkpoint_dir);
        let cannot = |source| Error::File {
            action: "create",
            path: wanted.clone(),
            source,
        };
        let above = wanted.parent().unwrap_or(Path::new(""));
        if !above.as_os_str().is_empty() {
            fs::create_dir_all(above).map_err(cannot)?;
        }
        let partial = PartialFolder::create(above).map_err(cannot)?;
        let config = partial.path().join("config.json");
        for number in 1..u32::MAX {
            let folder = match number {
                1 => wanted.clone(),
                _ => PathBuf::from(format!("{}-{number}", wanted.display())),
            };
            if fs::symlink_metadata(&folder).is_ok() {
                continue;
            }
            self.move_to(&folder);
            let text = report::json::config_text(&self.options.arguments());
            let written = File::create(&config).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_data()
            });
            written.map_err(cannot)?;
            if partial.rename(&folder).map_err(cannot)? {
                return Ok(folder);
            }
        }
        Err(cannot(ErrorKind::AlreadyExists.into()))
    }

    /// Names another folder for this run.
    pub fn move_to(&mut self, folder: &Path) {
        self.options.output.checkpoint_dir = folder.display().to_string();
    }
}

/// A request and what the user should hear about it.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedRun {
    /// The run: inference or training, but for `--no-training`.
    pub request: RunRequest,
    /// The validation after training, if there is one.
    pub validation: Option<RunRequest>,
    /// The accumulation factor, where the global batch size decided or confirmed it.
    pub accumulation_set: Option<u64>,
    /// Warnings of the log on what `--compile-only` settles by itself.
    pub warnings: Vec<&'static str>,
    /// Why the run follows its release.
    pub release_reason: String,
    /// Notes for the user on options that were given and change nothing.
    pub notes: Vec<String>,
    /// Options of our own: what the run prints and leaves behind.
    pub own: OwnOptions,
}

impl PreparedRun {
    /// The run that comes first: the validation where nothing is trained.
    ///
    /// # Panics
    ///
    /// If nothing is left to run, which [`config::resolve`] refuses.
    #[must_use]
    pub fn first(&self) -> &RunRequest {
        let options = &self.request.options;
        match options.config.is_inference() || options.run.training {
            true => &self.request,
            false => self.validation.as_ref().expect("one of them runs"),
        }
    }
}

impl PreparedRun {
    /// Lines that the user should hear about the run: the release first.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let release = self.first().options.config.release;
        let release = format!("release: {release}: {}", self.release_reason);
        std::iter::once(release).chain(self.notes.iter().cloned())
    }
}

/// Resolves what was `given`: reads the preset, applies the rules, chooses the machine.
///
/// # Errors
///
/// As [`config::file::load`], [`config::resolve`], [`config::validation`] and
/// [`system::choose_for`].
pub fn prepare(given: &Arguments, date: clock::Date) -> Result<PreparedRun> {
    let preset = given
        .config
        .as_deref()
        .map(config::file::load)
        .transpose()?;
    let values_of_preset = preset.as_ref().map(|preset| &preset.values);
    let own = OwnOptions::read(&given.own, values_of_preset)?;
    let resolved = config::resolve(given, values_of_preset, &date.folder_stamp())?;
    let validation = config::validation(&resolved)?;
    let ResolvedConfig {
        mut options,
        accumulation_set,
        warnings,
        mut notes,
    } = resolved;
    let release_reason = match (given.own.get("release"), &preset) {
        (Some(_), _) => format!("{} says so", table::RELEASE),
        (None, Some(preset)) if preset.written.contains_key("release") => {
            format!("{} says so", given.config.as_deref().unwrap_or_default())
        }
        (None, Some(preset)) => preset.shown.to_string(),
        (None, None) => Shown::Nothing.to_string(),
    };
    let written = preset.as_ref().map(|preset| preset.written.clone());
    notes.extend(faults::notes(&written.unwrap_or_default(), &options));
    if options.config.session.collective_merging == CollectiveMerging::On
        && let Some(reason) = unmergeable(&options)
    {
        notes.push(format!(
            "{} has no effect: {reason}",
            table::MERGE_COLLECTIVES
        ));
        options.config.session.collective_merging = CollectiveMerging::Off;
    }
    if let (Some(path), Some(preset)) = (&given.config, &preset)
        && preset.built_in
    {
        notes.insert(0, format!("no file {path}: the built-in preset stands in"));
    }
    notes.splice(0..0, preset.iter().flat_map(|preset| preset.notes.clone()));
    let in_preset = |key: &str| values_of_preset.is_some_and(|preset| preset.contains_key(key));
    let on_line = |key: &str| given.values.contains_key(key) || given.own.contains_key(key);
    let asked = |key: &str| on_line(key) || in_preset(key);
    notes.extend(unread::notes(asked, &options));
    if asked("sequences_per_pack")
        && let Some(reason) = uncounted(&options)
    {
        let option = table::SEQUENCES_PER_PACK;
        notes.push(format!("no effect: {option}: {reason}"));
        options.config.sequences_per_pack = None;
    }
    notes.extend(counted(&options));
    notes.extend(later_graph(&options));
    notes.extend(unfilled(&options));
    // One machine for both.
    let both = [Some(&options), validation.as_ref()];
    let ipus = both
        .iter()
        .flatten()
        .map(|options| options.config.ipus_requested());
    let ipus = ipus.max().expect("the first is there");
    let saved = preset.as_ref().and_then(|preset| preset.machine.as_ref());
    let asked = match (own.system.as_deref(), saved) {
        (Some(name), _) => MachineRequest::Named(name),
        (None, Some(saved)) => MachineRequest::Saved(saved),
        (None, None) => MachineRequest::Nothing,
    };
    let machine = system::choose_for(asked, &options.device, ipus)?;
    Ok(PreparedRun {
        validation: validation.map(|options| RunRequest {
            options,
            machine: machine.clone(),
        }),
        request: RunRequest { options, machine },
        accumulation_set,
        warnings,
        release_reason,
        notes,
        own,
    })
}

/// Why a program has no collectives.
fn unmergeable(options: &BertOptions) -> Option<&'static str> {
    if options.config.is_inference() {
        Some("inference sums nothing over replicas")
    } else if options.config.batching.replicas < 2 {
        Some("one replica has nobody to sum with")
    } else {
        None
    }
}

/// Why a mean number of sequences says nothing.
fn uncounted(options: &BertOptions) -> Option<&'static str> {
    if !options.config.is_packed() {
        Some("only --use-packed-sequence-format packs sequences")
    } else if !options.makes_data() {
        Some("the input files say how many a pack holds")
    } else {
        None
    }
}

/// What packs that are made count as.
fn counted(options: &BertOptions) -> Option<String> {
    let config = &options.config;
    let unsaid = config.is_packed() && options.makes_data() && config.sequences_per_pack.is_none();
    let count = config.sequences_per_sample();
    unsaid.then(|| {
        format!(
            "a pack that no file holds counts as {}: {} says how many yours hold",
            match count == 1.0 {
                true => "one sequence".into(),
                false => format!("{count} sequences, as the original counts it"),
            },
            table::SEQUENCES_PER_PACK
        )
    })
}

/// Where a release has another graph of packs than the one that runs.
fn later_graph(options: &BertOptions) -> Option<String> {
    let release = options.config.release;
    (options.config.is_packed() && release <= Release::V2_2).then(|| {
        format!(
            "packs run with the graph of v2.3 and later, not with that of {release}: the same work, \
             but for heads that read fixed slices instead of one-hot products"
        )
    })
}

/// Where the model doesn't fill the counts of layers.
fn unfilled(options: &BertOptions) -> Option<String> {
    let EncoderPlacement::Layers(layers) = &options.config.placement.encoder else {
        return None;
    };
    let counts = &layers.layers_per_ipu;
    let room: u64 = counts.iter().copied().map(u64::from).sum();
    let layers = options.config.model.num_layers;
    (counts.len() > 1 && room > u64::from(layers)).then(|| {
        format!(
            "--layers-per-ipu has room for {room} layers, of which the model fills the first \
             {layers}"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::args;

    /// A training and its validation, whose files go to `folder`.
    fn prepared(folder: &str) -> PreparedRun {
        let line = "--epochs 1 --generated-data --checkpoint-dir";
        let words = line.split(' ').chain([folder]).map(String::from);
        prepare(&args::parse(words).unwrap(), clock::Date::from_unix(0)).unwrap()
    }

    #[test]
    fn runs_of_one_second_have_folders_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new/ckpts").display().to_string();
        for expected in [
            "70-01-01-00-00-00",
            "70-01-01-00-00-00-2",
            "70-01-01-00-00-00-3",
        ] {
            let expected = format!("{root}/{expected}");
            let mut prepared = prepared(&root);
            let made = prepared.request.make_folder().unwrap();
            assert_eq!(made, Path::new(&expected));
            let config = fs::read_to_string(made.join("config.json")).unwrap();
            let config: Value = serde_json::from_str(&config).unwrap();
            assert_eq!(config["checkpoint_dir"], expected);
            let mut validation = prepared.validation.unwrap();
            validation.move_to(&made);
            for request in [&prepared.request, &validation] {
                assert_eq!(request.options.output.checkpoint_dir, expected);
                assert_eq!(request.options.arguments()["checkpoint_dir"], expected);
            }
            let model = format!("{expected}/model.onnx");
            let arguments = [&validation, &prepared.request].map(|run| run.options.arguments());
            assert_eq!(arguments[0]["onnx_checkpoint"], model);
            assert_eq!(arguments[1]["onnx_checkpoint"], Value::Null);
        }
    }

    /// No folder without its configuration is left: neither one whose name is taken, nor one of a
    /// process that was killed.
    #[test]
    fn a_folder_comes_with_its_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("70-01-01-00-00-00");
        fs::create_dir(&taken).unwrap();
        let left = folder.path().join(".ipu-bench-1-0.partial");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("config.json"), "{").unwrap();
        let root = folder.path().display().to_string();
        let made = prepared(&root).request.make_folder().unwrap();
        assert_eq!(made, folder.path().join("70-01-01-00-00-00-2"));
        assert!(made.join("config.json").is_file());
        assert_eq!(fs::read_dir(&taken).unwrap().count(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn folders_are_joined_as_paths() {
        for (folder, expected) in [
            ("", "70-01-01-00-00-00"),
            ("a/", "a/70-01-01-00-00-00"),
            ("/", "/70-01-01-00-00-00"),
            ("a", "a/70-01-01-00-00-00"),
        ] {
            let found = prepared(folder).request.options.output.checkpoint_dir;
            assert_eq!(found, expected, "{folder}");
        }
    }
}

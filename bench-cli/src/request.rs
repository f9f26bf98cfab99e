//! From the words of a command line to a run that can be simulated.

pub mod unread;

use serde_json::{Map, Value};

use crate::args::{Given, table};
use crate::config::{self, BertOptions, Resolved};
use crate::system::{self, Machine};
use crate::{Result, clock};

/// A run to simulate.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRequest {
    /// What acts.
    pub options: BertOptions,
    /// The whole resolved configuration, for the report.
    pub resolved: Map<String, Value>,
    /// The machine, large enough if it ships.
    pub machine: Machine,
}

/// A request and what the user should hear about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The run: inference or training, but for `--no-training`.
    pub request: RunRequest,
    /// The validation after training, if there is one.
    pub validation: Option<RunRequest>,
    /// The accumulation factor, where the global batch size decided or confirmed it.
    pub accumulation_set: Option<u64>,
    /// What was asked for and changes nothing.
    pub notes: Vec<String>,
}

/// Resolves what was `given`: reads the preset, applies the rules, chooses the machine.
///
/// # Errors
///
/// As [`config::file::load`], [`config::resolve`], [`config::validation`] and
/// [`system::choose_for`].
pub fn prepare(given: &Given, date: clock::Date) -> Result<Prepared> {
    let preset = given
        .config
        .as_deref()
        .map(config::file::load)
        .transpose()?;
    let values_of_preset = preset.as_ref().map(|preset| &preset.values);
    let resolved = config::resolve(given, values_of_preset, &date.folder_stamp())?;
    let validation = config::validation(&resolved)?;
    let Resolved {
        values,
        mut options,
        accumulation_set,
        mut notes,
    } = resolved;
    if given.merge_collectives {
        match unmergeable(&options) {
            Some(reason) => notes.push(format!(
                "{} has no effect: {reason}",
                table::MERGE_COLLECTIVES
            )),
            None => options.session.merge_collectives = true,
        }
    }
    if let (Some(path), Some(preset)) = (&given.config, &preset)
        && preset.built_in
    {
        notes.insert(0, format!("no file {path}: the built-in preset stands in"));
    }
    let in_preset = |key: &str| values_of_preset.is_some_and(|preset| preset.contains_key(key));
    let asked = |key: &str| given.values.contains_key(key) || in_preset(key);
    notes.extend(unread::notes(asked, &values, &options));
    notes.extend(unfilled(&options));
    // One machine for both.
    let both = [
        Some(&options),
        validation.as_ref().map(|(_, options)| options),
    ];
    let ipus = both
        .iter()
        .flatten()
        .map(|options| options.placement.ipus_requested);
    let ipus = ipus.max().expect("the first is there");
    let machine = system::choose_for(given.system.as_deref(), &options.device, ipus)?;
    Ok(Prepared {
        validation: validation.map(|(resolved, options)| RunRequest {
            options,
            resolved,
            machine: machine.clone(),
        }),
        request: RunRequest {
            options,
            resolved: values,
            machine,
        },
        accumulation_set,
        notes,
    })
}

/// Why a program has no collectives.
fn unmergeable(options: &BertOptions) -> Option<&'static str> {
    if options.session.inference {
        Some("inference sums nothing over replicas")
    } else if options.batching.replication_factor < 2 {
        Some("one replica has nobody to sum with")
    } else {
        None
    }
}

/// Where the model doesn't fill the counts of layers.
fn unfilled(options: &BertOptions) -> Option<String> {
    let counts = &options.placement.layers_per_ipu;
    let room: u64 = counts.iter().copied().map(u64::from).sum();
    let layers = options.model.num_layers;
    (counts.len() > 1 && room > u64::from(layers)).then(|| {
        format!(
            "--layers-per-ipu has room for {room} layers, of which the model fills the first \
             {layers}"
        )
    })
}

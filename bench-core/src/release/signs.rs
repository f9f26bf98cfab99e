//! Which release was a configuration written for?
//!
//! Every release reads its own configurations only: its names and its values give it away. [`SIGNS`]
//! is the one table of them, for published files and for those that ship here alike. Source: the
//! argument parsers and the configuration files of the tags v2.1.0 to v3.1.0.
//!
//! Left out: what several releases spell alike and mean differently, which no file can show.

use std::fmt;

use serde_json::{Map, Value};

use super::Release;
use super::keys::RANGES;
use crate::config::words;

/// Name or value of a configuration that only some releases have.
#[derive(Clone, Copy, Debug)]
pub struct Sign {
    /// Name or value that is seen, in words.
    pub seen: &'static str,
    /// Oldest release that has it.
    pub first: Release,
    /// Newest release that has it.
    pub last: Release,
    is_in: fn(&Map<String, Value>) -> bool,
}

/// How much a [`Sign`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// It shows a release.
    Shows,
    /// Nearly all files have it: it shows nothing, but excludes later releases beside what does.
    Limits,
    /// Files of releases that don't have it have it, too: it shows nothing by itself.
    Silent,
}

/// Every sign but that a key is there at all ([`RANGES`]), those of late releases first.
pub const SIGNS: &[Sign] = &[
    sign(
        "`gradient_reduction_type` RunningMean",
        Release::V2_3,
        Release::V3_1,
        |keys| {
            keys.get("gradient_reduction_type")
                .is_some_and(|value| value == "RunningMean")
        },
    ),
    sign(
        "`pipeline` beside `batches_per_step`",
        Release::V2_3,
        Release::V2_5,
        |keys| keys.get("pipeline").is_some_and(is_true) && keys.contains_key("batches_per_step"),
    ),
    sign(
        "`input_files` as a text",
        Release::V2_3,
        Release::V2_5,
        |keys| {
            keys.get("input_files").is_some_and(Value::is_string)
                && keys.contains_key("batches_per_step")
        },
    ),
    // The parser of that release refuses its own files: it knows no modes any more.
    sign(
        "`execution_mode` beside keys of packed sequences",
        Release::V2_3,
        Release::V2_3,
        |keys| keys.contains_key("execution_mode") && is_packed(keys),
    ),
    sign(
        "`execution_mode`",
        Release::Revision96fef3f,
        Release::V2_2,
        |keys| keys.contains_key("execution_mode") && !is_packed(keys),
    ),
    sign(
        "packed sequences in the folder of the first format",
        Release::V2_1,
        Release::V2_2,
        |keys| is_packed(keys) && reads_from(keys, "data/packed_pretraining_data/"),
    ),
    sign(
        "packed sequences without a mode beside `batches_per_step`",
        Release::V2_1,
        Release::V2_3,
        |keys| {
            let has = |key: &str| keys.contains_key(key);
            is_packed(keys) && has("batches_per_step") && !has("pipeline") && !has("execution_mode")
        },
    ),
];

const fn sign(
    seen: &'static str,
    first: Release,
    last: Release,
    is_in: fn(&Map<String, Value>) -> bool,
) -> Sign {
    Sign {
        seen,
        first,
        last,
        is_in,
    }
}

/// A switch as a file may give it: as such, or as text.
fn is_true(value: &Value) -> bool {
    *value == true || value.as_str().and_then(words::truth) == Some(true)
}

/// Whether a file asks for packs: a complete configuration has their keys without asking.
fn is_packed(keys: &Map<String, Value>) -> bool {
    keys.get("use_packed_sequence_format").is_some_and(is_true)
}

/// Whether input files are named in a folder.
fn reads_from(keys: &Map<String, Value>, folder: &str) -> bool {
    let files = keys.get("input_files").and_then(Value::as_array);
    let mut names = files.into_iter().flatten().filter_map(Value::as_str);
    names.any(|name| name.starts_with(folder))
}

/// Releases that a configuration may have been written for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing that tells releases apart.
    Nothing,
    /// Some releases, of which the newest is followed.
    Releases {
        /// Oldest of them.
        first: Release,
        /// Newest of them.
        last: Release,
        /// What limits them, in words.
        by: Vec<&'static str>,
    },
    /// Two things that no release has together.
    None {
        /// What an older one has, in words.
        older: &'static str,
        /// What a newer one has, in words.
        newer: &'static str,
    },
}

impl Shown {
    /// The release to follow.
    #[must_use]
    pub fn release(&self) -> Release {
        match self {
            Self::Nothing | Self::None { .. } => Release::default(),
            Self::Releases { last, .. } => *last,
        }
    }
}

impl fmt::Display for Shown {
    /// What is seen and what that means, as a reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing shows another"),
            Self::Releases { first, last, by } => {
                match first == last {
                    true => write!(f, "shown by ")?,
                    false => write!(f, "the newest of {first} to {last}, shown by ")?,
                }
                f.write_str(&by.join(" and "))
            }
            Self::None { older, newer } => {
                write!(f, "no release has {older} and {newer} together")
            }
        }
    }
}

/// A sign that was seen.
struct Seen {
    seen: &'static str,
    first: Release,
    last: Release,
    strength: Strength,
}

/// Releases that the `keys` of a configuration show, as they are in its file. The keys of its
/// validation are keys of the same release.
#[must_use]
pub fn shown(keys: &Map<String, Value>) -> Shown {
    let inner = keys.get("validation_config").and_then(Value::as_object);
    let has =
        |key: &str| keys.contains_key(key) || inner.is_some_and(|inner| inner.contains_key(key));
    let signs = SIGNS.iter().filter(|sign| (sign.is_in)(keys));
    let signs = signs.map(|sign| Seen {
        seen: sign.seen,
        first: sign.first,
        last: sign.last,
        strength: Strength::Shows,
    });
    let ranges = RANGES.iter().filter(|range| has(range.key));
    let ranges = ranges.map(|range| Seen {
        seen: range.seen,
        first: range.first,
        last: range.last,
        strength: range.strength,
    });
    let seen: Vec<Seen> = signs
        .chain(ranges)
        .filter(|seen| seen.strength != Strength::Silent)
        .collect();
    if seen.iter().all(|sign| sign.strength == Strength::Limits) {
        return Shown::Nothing;
    }
    let oldest = seen.iter().max_by_key(|sign| sign.first);
    let newest = seen.iter().min_by_key(|sign| sign.last);
    let (oldest, newest) = oldest.zip(newest).expect("a sign was seen");
    if oldest.first > newest.last {
        return Shown::None {
            older: newest.seen,
            newer: oldest.seen,
        };
    }
    let (first, last) = (oldest.first, newest.last);
    let shows = |sign: &&Seen| sign.strength == Strength::Shows;
    let is_limited = !seen.iter().filter(shows).any(|sign| sign.last == last);
    let decides = |sign: &&Seen| match sign.strength {
        Strength::Shows => {
            (sign.first == first && first != Release::Revision96fef3f)
                || (sign.last == last && last != Release::V3_1)
        }
        Strength::Limits => is_limited && sign.last == last,
        Strength::Silent => false,
    };
    let mut by: Vec<&str> = seen.iter().filter(decides).map(|sign| sign.seen).collect();
    // Several keys may be parts of one thing.
    by.dedup();
    Shown::Releases { first, last, by }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_range_means_its_newest_release() {
        for (keys, release, reason) in [
            (
                json!({"num_layers": 2, "batches_per_step": 1, "epochs": 150}),
                "v2.3",
                "nothing shows another",
            ),
            (
                json!({"execution_mode": "PIPELINE", "batches_per_step": 1, "checkpoint_dir": "c"}),
                "v2.2",
                "the newest of 96fef3f to v2.2, shown by `execution_mode`",
            ),
            (
                json!({"pipeline": true, "batches_per_step": 1, "squad_wrap_final_layer": false}),
                "v2.5",
                "the newest of v2.3 to v2.5, shown by `pipeline` beside `batches_per_step`",
            ),
            (
                json!({"use_packed_sequence_format": true, "batches_per_step": 1}),
                "v2.3",
                "the newest of v2.1 to v2.3, shown by packed sequences without a mode beside \
                 `batches_per_step` and a key of packed sequences",
            ),
            (
                json!({"use_packed_sequence_format": true, "batches_per_step": 1,
                       "input_files": ["data/packed_pretraining_data/*"]}),
                "v2.2",
                "the newest of v2.1 to v2.2, shown by packed sequences in the folder of the first \
                 format and packed sequences without a mode beside `batches_per_step` and a key of \
                 packed sequences",
            ),
            (
                json!({"use_packed_sequence_format": true, "execution_mode": "PIPELINE"}),
                "v2.3",
                "shown by `execution_mode` beside keys of packed sequences",
            ),
            (
                json!({"device_iterations": 1, "checkpoint_dir": "c", "pipeline": true}),
                "v3.0",
                "the newest of v2.6 to v3.0, shown by `device_iterations` and `checkpoint_dir`",
            ),
            (
                json!({"device_iterations": 16, "inference": true}),
                "v3.1",
                "the newest of v2.6 to v3.1, shown by `device_iterations`",
            ),
            (
                json!({"device_iterations": 1, "checkpoint_output_dir": "c"}),
                "v3.1",
                "shown by `checkpoint_output_dir`",
            ),
            (
                json!({"input_files": "dev.json", "batches_per_step": 16}),
                "v2.5",
                "the newest of v2.3 to v2.5, shown by `input_files` as a text",
            ),
            // A complete configuration of v2.1, as it leaves one behind.
            (
                json!({"use_packed_sequence_format": false, "max_sequences_per_pack": 1,
                       "execution_mode": "PIPELINE", "mpi_size": 1, "mpi_rank": 0}),
                "v2.1",
                "shown by a key of packed sequences and a key of MPI",
            ),
            (
                json!({"batches_per_step": 1, "validation_config": {"buffering_depth": 2}}),
                "v2.5",
                "shown by `buffering_depth` and `batches_per_step`",
            ),
            (
                json!({"mpi_size": 1}),
                "v2.1",
                "the newest of 96fef3f to v2.1, shown by a key of MPI",
            ),
            (
                json!({"device_iterations": 1, "execution_mode": "PIPELINE"}),
                "v2.3",
                "no release has `execution_mode` and `device_iterations` together",
            ),
        ] {
            let shown = shown(keys.as_object().expect("an object"));
            let found = (shown.release().name(), shown.to_string());
            assert_eq!(found, (release, reason.to_owned()), "{keys}");
        }
    }
}

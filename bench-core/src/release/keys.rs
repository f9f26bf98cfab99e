//! Which releases know a key?
//!
//! [`RANGES`] has every key that not all releases have. Source: the argument parsers of
//! graphcore/examples at the revision 96fef3f and at the tags v2.1.0 to v3.1.0.

use super::Release;
use super::signs::Strength;

/// A key that not all releases have.
#[derive(Clone, Copy, Debug)]
pub struct KeyRange {
    /// The key.
    pub key: &'static str,
    /// The key, or what it is a part of, in words.
    pub seen: &'static str,
    /// Oldest release that has it.
    pub first: Release,
    /// Newest release that has it.
    pub last: Release,
    /// Whether the key tells which release a file is of.
    pub strength: Strength,
}

/// A key that only releases from `first` on have.
macro_rules! added {
    ($key:literal, $first:ident) => {
        added!($key, $first, concat!("`", $key, "`"))
    };
    ($key:literal, $first:ident, $seen:expr) => {
        KeyRange {
            key: $key,
            seen: $seen,
            first: Release::$first,
            last: Release::V3_1,
            strength: Strength::Shows,
        }
    };
}

/// A key that only releases up to `last` have.
macro_rules! removed {
    ($key:literal, $last:ident) => {
        removed!($key, $last, concat!("`", $key, "`"))
    };
    ($key:literal, $last:ident, $seen:expr) => {
        KeyRange {
            key: $key,
            seen: $seen,
            first: Release::Revision96fef3f,
            last: Release::$last,
            strength: Strength::Shows,
        }
    };
}

/// A key that nearly all files of the releases up to `last` have.
macro_rules! usual {
    ($key:literal, $last:ident) => {
        KeyRange {
            strength: Strength::Limits,
            ..removed!($key, $last)
        }
    };
}

const MPI: &str = "a key of MPI";
const PACKS: &str = "a key of packed sequences";
const PHASED: &str = "a key of phased execution";

/// Every key that not all releases have, those of late releases first.
pub const RANGES: [KeyRange; 35] = [
    added!("checkpoint_output_dir", V3_1),
    added!("checkpoint_input_dir", V3_1),
    added!("device_iterations", V2_6),
    added!("buffering_depth", V2_5),
    added!("compile_only", V2_3),
    added!("wandb_checkpoint", V2_2),
    added!("wandb_save_checkpoints", V2_2),
    added!("use_packed_sequence_format", V2_1, PACKS),
    added!("max_sequences_per_pack", V2_1, PACKS),
    added!("squad_wrap_final_layer", V2_1),
    added!("use_half_optimizer_state", V2_1),
    added!("disable_attention_dropout_bwd", V2_1),
    added!("save_initializers_externally", V2_1),
    // Files of v2.3 have it, too, against their own parser: beside packs it shows nothing.
    KeyRange {
        strength: Strength::Silent,
        ..removed!("execution_mode", V2_2)
    },
    removed!("virtual_graph", V2_2),
    removed!("phased_execution", V2_2, PHASED),
    removed!("phased_execution_type", V2_2, PHASED),
    removed!("layers_per_phase", V2_2, PHASED),
    removed!("batch_serialize", V2_2, PHASED),
    removed!("num_attention_splits", V2_2, PHASED),
    removed!("num_ffwd_splits", V2_2, PHASED),
    removed!("num_io_tiles", V2_2, PHASED),
    removed!("activation_io_schedule", V2_2, PHASED),
    removed!("activations_on_chip", V2_2, PHASED),
    removed!("optimizer_io_schedule", V2_2, PHASED),
    removed!("optimizer_schedule", V2_2, PHASED),
    removed!("tensor_storage_onchip", V2_2, PHASED),
    removed!("weight_io_schedule", V2_2, PHASED),
    removed!("mpi_distributed", V2_1, MPI),
    removed!("mpi_rank", V2_1, MPI),
    removed!("mpi_size", V2_1, MPI),
    usual!("batches_per_step", V2_5),
    usual!("checkpoint_dir", V3_0),
    usual!("tf_checkpoint", V3_0),
    usual!("onnx_checkpoint", V3_0),
];

/// Whether a release reads a key of the application.
#[must_use]
pub fn has(release: Release, key: &str) -> bool {
    let range = RANGES.iter().find(|range| range.key == key);
    range.is_none_or(|range| (range.first..=range.last).contains(&release))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/releases.md");

    /// The page for people has the rows of the table.
    #[test]
    fn the_page_says_the_same_of_every_key() {
        for range in RANGES {
            let KeyRange { first, last, .. } = range;
            let releases = match first == last {
                true => first.to_string(),
                false => format!("{first} to {last}"),
            };
            let name = match range.seen {
                MPI | PHASED => range.seen.to_owned(),
                _ => format!("`{}`", range.key),
            };
            let says = match range.strength {
                Strength::Limits => PAGE
                    .lines()
                    .any(|line| line.starts_with("Beside one of these") && line.contains(&name)),
                Strength::Shows | Strength::Silent => PAGE.lines().any(|line| {
                    line.contains(&name) && line.ends_with(&format!(" | {releases} |"))
                }),
            };
            assert!(says, "{name}: {releases}");
        }
    }

    #[test]
    fn a_key_has_one_row() {
        let mut keys: Vec<&str> = RANGES.iter().map(|range| range.key).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    }
}

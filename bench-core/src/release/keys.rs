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

/// A key that only some releases have, which is seen as itself unless said.
macro_rules! key {
    ($key:literal, $first:ident..=$last:ident) => {
        key!($key, $first..=$last, concat!("`", $key, "`"))
    };
    ($key:literal, $first:ident..=$last:ident, $seen:expr) => {
        KeyRange {
            key: $key,
            seen: $seen,
            first: Release::$first,
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
            ..key!($key, Revision96fef3f..=$last)
        }
    };
}

const MPI: &str = "a key of MPI";
const PACKS: &str = "a key of packed sequences";
const PHASED: &str = "a key of phased execution";

/// Every key that not all releases have, those of late releases first.
pub const RANGES: [KeyRange; 35] = [
    key!("checkpoint_output_dir", V3_1..=V3_1),
    key!("checkpoint_input_dir", V3_1..=V3_1),
    key!("device_iterations", V2_6..=V3_1),
    key!("buffering_depth", V2_5..=V3_1),
    key!("compile_only", V2_3..=V3_1),
    key!("wandb_checkpoint", V2_2..=V3_1),
    key!("wandb_save_checkpoints", V2_2..=V3_1),
    key!("use_packed_sequence_format", V2_1..=V3_1, PACKS),
    key!("max_sequences_per_pack", V2_1..=V3_1, PACKS),
    key!("squad_wrap_final_layer", V2_1..=V3_1),
    key!("use_half_optimizer_state", V2_1..=V3_1),
    key!("disable_attention_dropout_bwd", V2_1..=V3_1),
    key!("save_initializers_externally", V2_1..=V3_1),
    // Files of v2.3 have it, too, against their own parser: beside packs it shows nothing.
    KeyRange {
        strength: Strength::Silent,
        ..key!("execution_mode", Revision96fef3f..=V2_2)
    },
    key!("virtual_graph", Revision96fef3f..=V2_2),
    key!("phased_execution", Revision96fef3f..=V2_2, PHASED),
    key!("phased_execution_type", Revision96fef3f..=V2_2, PHASED),
    key!("layers_per_phase", Revision96fef3f..=V2_2, PHASED),
    key!("batch_serialize", Revision96fef3f..=V2_2, PHASED),
    key!("num_attention_splits", Revision96fef3f..=V2_2, PHASED),
    key!("num_ffwd_splits", Revision96fef3f..=V2_2, PHASED),
    key!("num_io_tiles", Revision96fef3f..=V2_2, PHASED),
    key!("activation_io_schedule", Revision96fef3f..=V2_2, PHASED),
    key!("activations_on_chip", Revision96fef3f..=V2_2, PHASED),
    key!("optimizer_io_schedule", Revision96fef3f..=V2_2, PHASED),
    key!("optimizer_schedule", Revision96fef3f..=V2_2, PHASED),
    key!("tensor_storage_onchip", Revision96fef3f..=V2_2, PHASED),
    key!("weight_io_schedule", Revision96fef3f..=V2_2, PHASED),
    key!("mpi_distributed", Revision96fef3f..=V2_1, MPI),
    key!("mpi_rank", Revision96fef3f..=V2_1, MPI),
    key!("mpi_size", Revision96fef3f..=V2_1, MPI),
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

//! The configuration files that ship, as text, and the runs that they are.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::keys::is_key;
use crate::config::synonyms::{set_mode, unified};
use crate::config::{KeyError, RunConfig};
use crate::release::signs::shown;

/// Paths in the repository and texts of the configurations that ship.
pub const PRESETS: [(&str, &str); 17] = [
    ("configs/demo.json", include_str!("../../configs/demo.json")),
    (
        "configs/mk2/packed/packed_pretrain_large_512.json",
        include_str!("../../configs/mk2/packed/packed_pretrain_large_512.json"),
    ),
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
        "configs/mk2/squad_base_384_96fef3f.json",
        include_str!("../../configs/mk2/squad_base_384_96fef3f.json"),
    ),
    (
        "configs/mk2/squad_large_128_inf.json",
        include_str!("../../configs/mk2/squad_large_128_inf.json"),
    ),
    (
        "configs/mk2/squad_large_384.json",
        include_str!("../../configs/mk2/squad_large_384.json"),
    ),
    (
        "configs/mk2/squad_large_384_96fef3f.json",
        include_str!("../../configs/mk2/squad_large_384_96fef3f.json"),
    ),
    (
        "configs/mlperf/bert_large_512_pod64_v1.1.json",
        include_str!("../../configs/mlperf/bert_large_512_pod64_v1.1.json"),
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
    use std::collections::BTreeMap;

    use bert_model::placement::{Block, Placement};
    use popart_graph::ir::StageId;
    use popart_graph::passes::optimizer::rules::MomentTypes;

    use super::*;
    use crate::release::Release;

    const PAGE: &str = include_str!("../../docs/releases.md");

    /// The page for people says which release each preset follows, and nothing of others.
    #[test]
    fn the_page_has_the_release_of_every_preset() {
        let rows = PAGE.lines().filter_map(|line| {
            let (names, release) = line
                .strip_prefix("| `")?
                .strip_suffix(" |")?
                .split_once(" | ")?;
            let names = names.strip_suffix('`')?.split("`, `");
            let ships = names.clone().all(|name| keys(name).is_some());
            ships.then(|| names.map(move |name| (name, release)))
        });
        let said: BTreeMap<&str, &str> = rows.flatten().collect();
        let expected = PRESETS.map(|(path, _)| {
            let name = Path::new(path).file_stem().unwrap().to_str().unwrap();
            (name, keys(name).unwrap()["release"].clone())
        });
        for (name, release) in &expected {
            assert_eq!(said.get(name).copied(), release.as_str(), "{name}");
        }
        assert_eq!(said.len(), expected.len());
    }

    #[test]
    fn every_preset_is_a_run() {
        for (path, _) in PRESETS {
            let name = Path::new(path).file_stem().unwrap().to_str().unwrap();
            let run = run(name, &Map::new()).unwrap();
            assert!(run.is_ok(), "{name}: {run:?}");
        }
        assert_eq!(run("pretrain", &Map::new()), None);
    }

    /// Stages, stage of the loss and stages with the backward ones, IPUs and sequences of the
    /// submission to MLPerf Training v1.1 for a POD64.
    #[test]
    fn the_mlperf_preset_is_placed_as_submitted() {
        let run = run("bert_large_512_pod64_v1.1", &Map::new())
            .unwrap()
            .unwrap();
        let (layers, task) = (run.model.num_layers, run.task);
        let placement = Placement::from_options(&run.placement, layers, task).unwrap();
        placement.validate(layers, task).unwrap();
        assert_eq!(placement.stages.len(), 9);
        assert_eq!(placement.stage(Block::Loss), StageId(8));
        let ipus: Vec<u32> = placement.stage_ipus(task).iter().map(|ipu| ipu.0).collect();
        let up_and_down = [0, 1, 2, 3, 4, 5, 6, 7, 0, 7, 6, 5, 4, 3, 2, 1, 0];
        assert_eq!(ipus, up_and_down);
        let shares = placement
            .stages
            .values()
            .map(|stage| stage.memory_proportion.value());
        let expected = [0.2, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.2];
        assert_eq!(shares.collect::<Vec<_>>(), expected);
        assert_eq!((run.ipus_per_replica(), run.ipus_requested()), (8, 64));
        assert_eq!(run.global_batch_size(), 2 * 96 * 8);
        assert!(!run.model.next_sentence && run.model.attention_bias);
        assert_eq!(run.optimizer.clip_norm, Some(1.0));
        assert_eq!(
            (run.model.label_slots(), run.model.sequences_per_row()),
            (78, 3)
        );
    }

    /// IPUs of a replica, micro-batch, replicas, accumulation factor, batches a step and stages of
    /// the pipeline, as the files of each release resolve them.
    #[test]
    fn squad_presets_are_those_of_their_releases() {
        for (name, expected) in [
            ("squad_base_384", [2, 2, 4, 16, 4, 3]),
            ("squad_large_384", [8, 4, 2, 32, 4, 15]),
            ("squad_base_384_96fef3f", [4, 2, 1, 16, 4, 9]),
            ("squad_large_384_96fef3f", [4, 2, 4, 32, 4, 9]),
            ("squad_base_128_inf", [1, 1, 1, 1, 16, 1]),
            ("squad_large_128_inf", [1, 1, 1, 1, 16, 1]),
        ] {
            let run = run(name, &Map::new()).unwrap().unwrap();
            let (layers, task) = (run.model.num_layers, run.task);
            let placement = Placement::from_options(&run.placement, layers, task).unwrap();
            let found = [
                run.ipus_per_replica(),
                run.model.micro_batch,
                run.batching.replicas,
                run.batching.accumulation,
                run.batching.batches_per_step,
                placement.stage_ipus(task).len() as u32,
            ];
            assert_eq!(found, expected, "{name}");
            let half = run.optimizer.moments == MomentTypes::HALF_FIRST;
            let is_of_v2_3 = name.ends_with("384");
            assert_eq!(half, is_of_v2_3, "{name}");
            assert_eq!(run.is_pipelined(), name.contains("384"), "{name}");
        }
    }

    /// Values of v3.1 (`configs/packed` of graphcore/examples): 9600 packs of up to three sequences
    /// behind a weight update, on 16 IPUs.
    #[test]
    fn packs_are_found_by_name() {
        let run = run("packed_pretrain_large_512", &Map::new());
        let run = run.unwrap().unwrap();
        assert_eq!(run.batching.accumulation, 1200);
        assert_eq!((run.global_batch_size(), run.ipus_requested()), (9600, 16));
        let (slots, sequences) = (run.model.label_slots(), run.model.sequences_per_row());
        assert_eq!((slots, sequences, run.sequences_per_sample()), (78, 3, 2.0));
    }

    #[test]
    fn a_preset_is_of_the_release_that_it_shows() {
        for (name, expected) in [
            ("demo", Release::V2_3),
            ("pretrain_large_128", Release::V2_2),
            ("pretrain_large_128_POD64", Release::V2_5),
            ("squad_base_128_inf", Release::V2_5),
            ("squad_base_384", Release::V2_5),
            ("squad_base_384_96fef3f", Release::Revision96fef3f),
            ("packed_pretrain_large_512", Release::V3_1),
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

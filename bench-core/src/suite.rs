//! The published benchmark as data: ten command lines, eighteen runs.
//!
//! The lines are those that Graphcore published for BERT in PopART; here are the keys that they set,
//! and `bench-cli` has their words. Line 7, headed BERT-Base, runs the Large configuration.

use ipu_sim::spec::MachineSpec;
use serde_json::{Map, Value, json};

use crate::config::RunConfig;
use crate::presets;

/// One run of the benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct SuiteRun {
    /// Number of its line, what it is, and the micro-batch size where the line has several.
    pub name: String,
    /// The run.
    pub config: RunConfig,
    /// The machine that it was published for.
    pub machine: MachineSpec,
}

/// The eighteen runs, in the order of the document.
///
/// # Panics
///
/// Never: a test goes through all of them.
#[must_use]
pub fn runs() -> Vec<SuiteRun> {
    let pod64 = json!({ "gradient_accumulation_factor": 512, "replication_factor": 16 });
    let more_replicas = json!({ "replication_factor": 16 });
    let scaled = json!({
        "replication_factor": 16, "loss_scaling": 128,
        "available_memory_proportion": [0.15, 0.2, 0.2, 0.2],
    });
    let as_is = json!({});
    let trained = [
        (
            "1-large-128-pod16",
            "mk2-pod16",
            "pretrain_large_128",
            &as_is,
        ),
        (
            "2-large-128-pod64",
            "mk2-pod64",
            "pretrain_large_128",
            &pod64,
        ),
        (
            "3-large-384-pod16",
            "mk2-pod16",
            "pretrain_large_384",
            &as_is,
        ),
        (
            "4-large-384-pod64-10-epochs",
            "mk2-pod64",
            "pretrain_large_384",
            &pod64,
        ),
        (
            "5-large-384-pod64",
            "mk2-pod64",
            "pretrain_large_384",
            &more_replicas,
        ),
        ("6-base-128-pod16", "mk2-pod16", "pretrain_base_128", &as_is),
        (
            "7-headed-base-128-pod64",
            "mk2-pod64",
            "pretrain_large_128",
            &scaled,
        ),
        ("8-base-384-pod16", "mk2-pod16", "pretrain_base_384", &as_is),
    ];
    let trained = trained.into_iter().map(|(name, system, preset, keys)| {
        let config = presets::run(preset, object(keys)).expect("lines name presets that ship");
        run(name.into(), system, config)
    });
    let low = [1, 2, 3].map(|micro| ("9-squad-low-latency-128", "low_latency_inference", micro));
    let minimum = [1, 2, 4, 8, 16, 32, 64];
    let minimum = minimum.map(|micro| {
        let line = "10-base-3-minimum-latency-128";
        (line, "minimum_latency_inference", micro)
    });
    let inferred = low
        .into_iter()
        .chain(minimum)
        .map(|(line, latency, micro)| {
            let keys = json!({
                "task": "SQUAD", "inference": true, "num_layers": 3, "layers_per_ipu": [3],
                "encoder_start_ipu": 0, "batches_per_step": 2048, "micro_batch_size": micro,
                "use_default_available_memory_proportion": true, "enable_half_partials": true,
                "group_host_syncs": true, latency: true,
            });
            let name = format!("{line}-b{micro}");
            run(name, "mk2-m2000", RunConfig::from_keys(object(&keys)))
        });
    trained.chain(inferred).collect()
}

fn object(keys: &Value) -> &Map<String, Value> {
    keys.as_object().expect("keys are an object")
}

fn run(name: String, system: &str, config: Result<RunConfig, crate::config::KeyError>) -> SuiteRun {
    SuiteRun {
        name,
        config: config.expect("the keys make a run"),
        machine: MachineSpec::shipped(system).expect("the machine ships"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighteen_runs_on_machines_with_enough_ipus() {
        let runs = runs();
        let names: std::collections::BTreeSet<&str> =
            runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!((runs.len(), names.len()), (18, 18));
        for run in &runs {
            assert!(
                run.config.ipus_requested() <= run.machine.n_ipus,
                "{}",
                run.name
            );
        }
    }
}

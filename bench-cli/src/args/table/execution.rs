//! Options of the execution mode, the session, logging and devices.

use super::Section;
use super::model::PHASED;
use crate::args::spec::*;

const PROFILE: &str =
    "no profile is written: --explain, --memory-report and --dump-program show what it would";
const UNUSED: &str = "the original parses it, too, and doesn't use it";
const ONE_EXCHANGE: &str =
    "exchanges are planned in one way here, and other targets would change time and memory";
const NO_SAVING: &str = "no model files are written";
const NO_WANDB: &str = "nothing is sent to Weights and Biases";

pub(super) const MODE: Section = Section {
    title: "Execution Mode",
    options: &[
        maybe_switch("--virtual-graph", "virtual_graph").help("force execution mode DEFAULT"),
        maybe_switch("--pipeline", "pipeline").help("force execution mode PIPELINE"),
        maybe_switch("--phased-execution", "phased_execution")
            .not_yet("phased execution is not supported")
            .help("force execution mode PHASED"),
        constant(
            "--single-device",
            "phased_execution_type",
            "SINGLE",
            "SINGLE",
        )
        .no_effect(PHASED)
        .help("one device a replica in phased execution"),
        constant("--dual-device", "phased_execution_type", "DUAL", "SINGLE")
            .no_effect(PHASED)
            .help("two devices a replica in phased execution"),
    ],
};

pub(super) const EXECUTION: Section = Section {
    title: "Execution Config",
    options: &[
        int("--batches-per-step", "batches_per_step", 250)
            .help("weight updates (in inference, micro batches) in one step of the host; without accumulation they fill a pipeline"),
        int("--device-iterations", "batches_per_step", 250)
            .help("the same, as releases from v2.6 on call it"),
        switch(
            "--floating-point-exceptions",
            "floating_point_exceptions",
            false,
        )
        .no_effect("timed runs compute no values that could overflow")
        .help("stop on floating-point errors"),
        int("--seed", "seed", 1984)
            .no_effect("simulated time does not depend on it")
            .help("seed of host and device"),
        switch("--profile", "profile", false)
            .not_yet(PROFILE)
            .help("write a profile and stop"),
        maybe_text("--profile-dir", "profile_dir")
            .no_effect(PROFILE)
            .help("folder of the profile"),
        switch("--profile-instrument", "profile_instrument", true)
            .bare(true)
            .no_effect(PROFILE)
            .help("count cycles in the profile"),
        switch("--no-outlining", "no_outlining", false)
            .help("do not share the code of repeated sub-graphs"),
        maybe_text("--engine-cache", "engine_cache")
            .no_effect("executables are not cached, which costs host time only")
            .help("cache of compiled executables"),
        switch(
            "--variable-weights-inference",
            "variable_weights_inference",
            false,
        )
        .no_effect("weights lie on the tiles alike, constant or variable")
        .help("keep weights variable in inference"),
        int(
            "--continue-training-from-epoch",
            "continue_training_from_epoch",
            0,
        )
        .help("epoch to start from"),
        switch("--no-training", "no_training", false).help("skip training"),
        switch("--no-validation", "no_validation", false).help("skip validation after training"),
        maybe_json("--validation-config", "validation_config")
            .help("settings of the validation run: JSON or a file"),
        switch("--low-latency-inference", "low_latency_inference", false)
            .help("exchange each micro batch with the host by callback"),
        switch(
            "--minimum-latency-inference",
            "minimum_latency_inference",
            false,
        )
        .help("low latency, and no prefetch of inputs"),
        switch(
            "--inference-lm-perplexity",
            "inference_lm_perplexity",
            false,
        )
        .help("print the perplexity of masked-token inference"),
        int("--buffering-depth", "buffering_depth", 3)
            .help("batches that the host has ready ahead of the device, from release v2.5 on; 1 with minimum latency reads nothing ahead"),
        flag("--compile-only", "compile_only")
            .help("compile for a device that isn't there, and stop"),
        flag("--realtime-scheduler", "realtime_scheduler")
            .no_effect("the host's scheduler does not change simulated time")
            .help("run the host process at real-time priority"),
        int("--max-copy-merge-size", "max_copy_merge_size", -1)
            .help("largest merged copy with the host in bytes; -1 for the library's choice: the log says so, and no time changes, for streams are merged by where they are read"),
        switch(
            "--disable-fully-connected-pass",
            "disable_fully_connected_pass",
            false,
        )
        .help("plan the passes of a linear layer on their own"),
        switch("--group-host-syncs", "group_host_syncs", false).help("group syncs with the host"),
        switch(
            "--optimizer-state-offchip",
            "optimizer_state_offchip",
            false,
        )
        .help("keep optimizer state in streaming memory"),
        switch(
            "--replicated-tensor-sharding",
            "replicated_tensor_sharding",
            false,
        )
        .bare(false)
        .help("shard optimizer state over the replicas"),
        switch("--enable-half-partials", "enable_half_partials", false)
            .help("f16 partial sums in matmuls"),
        maybe_text(
            "--internal-exchange-optimisation-target",
            "internal_exchange_optimisation_target",
        )
        .choices(&["balanced", "cycles", "memory"])
        .not_yet(ONE_EXCHANGE)
        .help("what to plan exchanges for"),
        switch("--activations-on-chip", "activations_on_chip", false)
            .no_effect(PHASED)
            .help("keep activations on chip in phased execution"),
        switch("--tensor-storage-onchip", "tensor_storage_onchip", false)
            .needs_word()
            .no_effect(PHASED)
            .help("keep weights and state on chip in phased execution"),
        text(
            "--activation-io-schedule",
            "activation_io_schedule",
            "Preload",
        )
        .choices(&["Preload", "OnDemand"])
        .no_effect(PHASED)
        .help("when phased execution loads activations"),
        text(
            "--optimizer-io-schedule",
            "optimizer_io_schedule",
            "Preload",
        )
        .choices(&["Preload", "OnDemand"])
        .no_effect(PHASED)
        .help("when phased execution loads optimizer state"),
        text("--weight-io-schedule", "weight_io_schedule", "Preload")
            .choices(&["Preload", "OnDemand"])
            .no_effect(PHASED)
            .help("when phased execution loads weights"),
        // The original's command line refuses its own default here; so do we.
        text("--optimizer-schedule", "optimizer_schedule", "Interleaving")
            .choices(&["Batch", "Interleaving, BatchClusteredIO"])
            .no_effect(PHASED)
            .help("order of optimizer steps in phased execution"),
    ],
};

pub(super) const LOGGING: Section = Section {
    title: "Logging Config",
    options: &[
        flag("--report-hw-cycle-count", "report_hw_cycle_count")
            .help("print the cycles of a step, the start by the host left out"),
        text("--log-dir", "log_dir", "logs")
            .no_effect("no TensorBoard logs are written")
            .help("folder of TensorBoard logs"),
        int("--steps-per-log", "steps_per_log", 1).help("steps between lines of the log"),
        maybe_int(
            "--aggregate-metrics-over-steps",
            "aggregate_metrics_over_steps",
        )
        .no_effect("every simulated step takes the same time")
        .help("steps behind a printed mean"),
        int("--epochs-per-save", "epochs_per_save", -1)
            .no_effect(NO_SAVING)
            .help("epochs between saved models"),
        int("--steps-per-save", "steps_per_save", -1)
            .no_effect(NO_SAVING)
            .help("steps between saved models"),
        switch("--no-model-save", "no_model_save", false).help("save no model"),
        text("--checkpoint-dir", "checkpoint_dir", "ckpts")
            .help("folder under which the run leaves its configuration"),
        text("--checkpoint-output-dir", "checkpoint_dir", "ckpts")
            .help("the same, as release v3.1 calls it"),
        switch(
            "--save-initializers-externally",
            "save_initializers_externally",
            false,
        )
        .no_effect(NO_SAVING)
        .help("save weights in a file of their own beside the model"),
        switch("--wandb", "wandb", false)
            .no_effect(NO_WANDB)
            .help("log to Weights and Biases"),
        maybe_text("--wandb-checkpoint", "wandb_checkpoint")
            .no_effect(NO_WANDB)
            .help("checkpoint stored at Weights and Biases to start from"),
        maybe_text("--wandb-save-checkpoints", "wandb_save_checkpoints")
            .no_effect(NO_WANDB)
            .help("name under which to store checkpoints at Weights and Biases"),
        text("--log-level", "log_level", "INFO")
            .choices(&["NOTSET", "INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL"])
            .help("least severe lines of the log to print"),
    ],
};

pub(super) const DEVICE: Section = Section {
    title: "Device Config",
    options: &[
        maybe_int("--device-id", "device_id").help("device to attach to, shared with other runs"),
        text(
            "--device-connection-type",
            "device_connection_type",
            "always",
        )
        .choices(&["always", "ondemand", "offline"])
        .help("attach at once, wait for a device shared with other runs, or only compile"),
        maybe_text("--device-version", "device_version").help(
            "generation to simulate: ipu1 (Mk1) or ipu2 (Mk2); for a Bow, name it with --system",
        ),
        maybe_int("--device-tiles", "device_tiles").help("tiles of one IPU, to simulate fewer"),
        int(
            "--device-ondemand-timeout",
            "device_ondemand_timeout",
            10000,
        )
        .help("seconds to wait for a device"),
        switch("--use-ipu-model", "use_ipu_model", false)
            .no_effect("every machine is a model here")
            .help("run on the software model of the IPU"),
    ],
};

pub(super) const DISTRIBUTION: Section = Section {
    title: "Distribution Config",
    options: &[
        switch("--mpi-distributed", "mpi_distributed", false)
            .no_effect(UNUSED)
            .help("run in several processes"),
        int("--mpi-rank", "mpi_rank", 0)
            .no_effect(UNUSED)
            .help("number of this process"),
        int("--mpi-size", "mpi_size", 1)
            .no_effect(UNUSED)
            .help("number of processes"),
        maybe_text("--config", "config").help("preset file, or what this program wrote of a run: a report, its options, a resolved configuration; the command line overrides it"),
    ],
};

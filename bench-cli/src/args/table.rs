//! The one table of options: every name, key, default, choice, help line and support status.
//!
//! Names, keys, types, defaults and choices are those of `bert.py` in graphcore/examples
//! (`applications/popart/bert`), so that its command lines and presets work here: those of revision
//! 96fef3f, and between them those that its releases up to v3.1.0 added. A later name of an option
//! stores its value under the first one's key. The order is the original's: ambiguity messages and the resolved configuration follow it.
//! The options of our own stand apart, in [`OURS`].

mod execution;
mod model;
mod training;

use super::spec::{OptionSpec, flag, int, maybe_float, maybe_halves, maybe_text, switch, text};

/// The options under one heading of the help.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// Options of the section, in order of definition.
    pub options: &'static [OptionSpec],
}

/// All options of the benchmark, in order of definition.
pub const SECTIONS: &[Section] = &[
    model::MODEL,
    model::SQUAD,
    model::BATCH,
    training::OPTIMIZER,
    training::CONTINUOUS_PIPELINING,
    training::LINEAR,
    training::SCHEDULED,
    training::INITIALISATION,
    training::DATA,
    execution::MODE,
    execution::EXECUTION,
    execution::LOGGING,
    execution::DEVICE,
    execution::DISTRIBUTION,
];

/// The machine to simulate: a shipped name or a description file.
pub const SYSTEM: &str = "--system";
/// Where to write the metrics.
pub const METRICS_JSON: &str = "--metrics-json";
/// Whether the weight update's collectives are merged.
pub const MERGE_COLLECTIVES: &str = "--merge-collectives";
/// Half layers by pipeline stage.
pub const ATT_FFN_PLACEMENT: &str = "--att-ffn-placement";
/// Stage of the first half layer.
pub const ENCODER_START_PIPELINE_STAGE: &str = "--encoder-start-pipeline-stage";
/// Largest norm of all gradients.
pub const GRADIENT_CLIPPING_NORM: &str = "--gradient-clipping-norm";
/// Type of the moments.
pub const LAMB_ACCL_DTYPE: &str = "--lamb-accl-dtype";
/// Whether the model has no next-sentence head.
pub const REDUCE_NSP_OVERHEAD: &str = "--reduce-nsp-overhead";
/// Mean of the sequences of a pack.
pub const SEQUENCES_PER_PACK: &str = "--sequences-per-pack";
/// Which release of the application to follow.
pub const RELEASE: &str = "--release";
/// Whether to say where the time went.
pub const EXPLAIN: &str = "--explain";
/// Where to leave the graph after each pass.
pub const DUMP_IR: &str = "--dump-ir";
/// Where to leave the program.
pub const DUMP_PROGRAM: &str = "--dump-program";
/// Where to leave memory by tile and step.
pub const MEMORY_REPORT: &str = "--memory-report";

/// Whether to print the resolved configuration instead of running.
pub const PRINT_CONFIG: &str = "--print-config";
/// Whether to print results and errors only.
pub const QUIET: &str = "--quiet";
/// Whether to color what is printed for people.
pub const COLOR: &str = "--color";

/// Options that only this program has. They are no part of the resolved configuration, and a start
/// of a name means one of them only if it means none of [`SECTIONS`].
pub const OURS: Section = Section {
    title: "Simulation",
    options: &[
        maybe_text(SYSTEM, "system")
            .help("machine to simulate: a shipped system or a description file [default: the smallest Mk2 system with enough IPUs]"),
        flag(MERGE_COLLECTIVES, "merge_collectives").help("merge the sums and gathers over replicas that are alike, as PopART can and BERT doesn't: fewer syncs for more memory"),
        maybe_halves(ATT_FFN_PLACEMENT, "att_ffn_placement").help("half layers by pipeline stage, in place of --encoder-start-ipu and --layers-per-ipu, as Graphcore's MLPerf submissions place them: a JSON list of [IPU, [attention blocks, feed-forward blocks]]"),
        int(ENCODER_START_PIPELINE_STAGE, "encoder_start_pipeline_stage", 1)
            .no_effect("stages on one IPU that follow each other are one, and none may be left out")
            .help("pipeline stage of the first group of --att-ffn-placement: 1, or 0 for a first group on IPU 0"),
        maybe_float(GRADIENT_CLIPPING_NORM, "gradient_clipping_norm").help("largest norm of the gradients of all weights together; ADAM and LAMB make those of a larger one smaller alike"),
        text(LAMB_ACCL_DTYPE, "lamb_accl_dtype", "FLOAT")
            .choices(&["FLOAT", "FLOAT16"])
            .help("type of both moments of ADAM and LAMB; in FLOAT16 they keep the loss scale"),
        switch(REDUCE_NSP_OVERHEAD, "reduce_nsp_overhead", false).help("leave the next-sentence head out of pre-training"),
        maybe_float(SEQUENCES_PER_PACK, "sequences_per_pack").help("sequences that a pack of generated data counts as, as many as a pack of yours holds on average; unset, one less than --max-sequences-per-pack, as the original counts them"),
        maybe_text(RELEASE, "release").help("release of the benchmark to follow where its releases differ: 96fef3f, v2.1 to v2.6, v3.0 or v3.1 [default: v2.3]"),
        maybe_text(METRICS_JSON, "metrics_json").help("write the metrics of the run to this file"),
        flag(EXPLAIN, "explain").help("print where the time of a step went, IPU by IPU, to stderr"),
        maybe_text(DUMP_IR, "dump_ir").help("write the graph after each pass to files in this folder"),
        maybe_text(DUMP_PROGRAM, "dump_program").help("write the program that the machine runs to this file"),
        maybe_text(MEMORY_REPORT, "memory_report").help("write memory by tile, category and step to this .json file, or .csv file and two beside it"),
        flag(PRINT_CONFIG, "print_config").help("print the resolved configuration as JSON, and stop"),
        flag(QUIET, "quiet").help("print the lines of the log and errors only"),
        text(COLOR, "color", "auto")
            .choices(&["auto", "always", "never"])
            .help("color what is printed for people"),
    ],
};

/// Options of which at most one may be given. In a preset, the command line's choice drops the
/// others of its group.
pub const EXCLUSIVE: &[&[&str]] = &[
    &["--epochs", "--training-steps"],
    &["--lr-schedule-by-epoch", "--lr-schedule-by-step"],
    &["--ls-schedule-by-epoch", "--ls-schedule-by-step"],
    &[
        "--tf-checkpoint",
        "--onnx-checkpoint",
        "--checkpoint-input-dir",
        "--wandb-checkpoint",
    ],
    &["--virtual-graph", "--pipeline", "--phased-execution"],
    &["--single-device", "--dual-device"],
    &["--layers-per-ipu", ATT_FFN_PLACEMENT],
    &["--layers-per-ipu", ENCODER_START_PIPELINE_STAGE],
    &["--encoder-start-ipu", ATT_FFN_PLACEMENT],
    &["--encoder-start-ipu", ENCODER_START_PIPELINE_STAGE],
];

/// The options of [`SECTIONS`] in order.
pub fn options() -> impl Iterator<Item = &'static OptionSpec> {
    SECTIONS.iter().flat_map(|section| section.options)
}

/// The first option that stores its value under `key`.
#[must_use]
pub fn by_key(key: &str) -> Option<&'static OptionSpec> {
    options().find(|option| option.key == key)
}

/// The option of our own that stores its value under `key`.
#[must_use]
pub fn own_by_key(key: &str) -> Option<&'static OptionSpec> {
    OURS.options.iter().find(|option| option.key == key)
}

/// The option called `name`, dashes included; ours too.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static OptionSpec> {
    options()
        .chain(OURS.options)
        .find(|option| option.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::args::spec::{Arity, Kind, Support};

    #[test]
    fn names_are_unique_and_every_key_is_counted() {
        let names: BTreeSet<_> = options().map(|option| option.name).collect();
        let keys: BTreeSet<_> = options().map(|option| option.key).collect();
        assert_eq!(
            (options().count(), names.len(), keys.len()),
            (154, 154, 149)
        );
    }

    #[test]
    fn every_row_is_complete() {
        for option in options().chain(OURS.options) {
            assert!(option.name.starts_with("--"), "{}", option.name);
            assert!(!option.help.is_empty(), "{} has no help", option.name);
            assert!(!option.help.ends_with('.'), "{}", option.name);
            match option.support {
                Support::Acts | Support::ActsOnValues => {}
                Support::NoEffect(reason) | Support::NotYet(reason) => assert!(!reason.is_empty()),
            }
            assert!(
                option.is_default(&option.default_value()),
                "{}",
                option.name
            );
        }
    }

    #[test]
    fn shape_of_the_table_is_the_published_one() {
        let count = |kind: Kind, arity: fn(Arity) -> bool| {
            options()
                .filter(|option| option.kind == kind && arity(option.arity))
                .count()
        };
        let one = |arity| arity == Arity::One;
        let bare_on = |arity| arity == Arity::Optional { bare: true };
        let bare_off = |arity| arity == Arity::Optional { bare: false };
        assert_eq!(
            count(Kind::Int, one) + count(Kind::IntOrConfigFloat, one),
            44
        );
        assert_eq!(count(Kind::Float, one), 14);
        assert_eq!(count(Kind::Text, one), 31);
        assert_eq!(count(Kind::Bool, bare_on), 45);
        assert_eq!(count(Kind::Bool, bare_off), 5);
        assert_eq!(count(Kind::Bool, |arity| arity == Arity::None), 3);
        assert_eq!(count(Kind::Schedule, |arity| arity == Arity::Any), 4);
    }

    #[test]
    fn exclusive_groups_name_options() {
        for name in EXCLUSIVE.iter().copied().flatten() {
            assert!(by_name(name).is_some(), "{name}");
        }
    }
}

//! What was asked for and changes nothing, because of another option.
//!
//! Options that never act say so in the [`table`](mod@crate::args::table). Those here act beside some
//! settings and not beside others: a [`Rule`] says which, and why. `tests/options/main.rs` runs every
//! key of every rule with and without it, so that none of them says too much.
//!
//! Left out: what is idle only at certain sizes, as a count of tiles that the model doesn't fill.

use bench_core::config::RateFunction;
use bench_core::release::Release;
use bert_model::config::{Activation, Dropout};
use bert_model::optim::OptimizerKind;
use bert_model::placement::EncoderMemory;
use indexmap::IndexMap;
use serde_json::json;

use crate::args::table;
use crate::config::BertOptions;
use crate::config::options::ConnectionType;

/// Options that nothing reads beside certain settings.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Keys of the options.
    pub keys: &'static [&'static str],
    /// Whether nothing reads them.
    idle: fn(&BertOptions) -> bool,
    /// Why.
    pub reason: &'static str,
}

/// Whether SGD has state that PopART would shard and move: a velocity to which nothing is
/// accumulated.
fn keeps_a_velocity(options: &BertOptions) -> bool {
    options.config.optimizer.kind == OptimizerKind::Sgd
        && options.config.optimizer.momentum != 0.0
        && options.config.batching.accumulation == 1
}

/// Every rule. An option is named by the first one that holds.
pub const RULES: &[Rule] = &[
    Rule {
        keys: &[
            "input_files",
            "duplication_factor",
            "epochs_to_cache",
            "vocab_file",
            "do_lower_case",
            "no_drop_remainder",
        ],
        idle: |options| options.run.generated_data || options.is_synthetic(),
        reason: "generated data takes the place of files",
    },
    Rule {
        keys: &[
            "optimizer",
            "learning_rate",
            "loss_scaling",
            "weight_decay",
            "momentum",
            "dampening",
            "velocity_scaling",
            "beta1",
            "beta2",
            "max_weight_norm",
            "use_half_optimizer_state",
            "lamb_accl_dtype",
            "learning_rate_function",
            "lr_warmup_start",
            "lr_warmup_steps",
            "lr_steps_per_warmup_update",
            "lr_steps_per_decay_update",
            "lr_schedule_by_epoch",
            "lr_schedule_by_step",
            "gradient_clipping_norm",
            "squad_lr_scale",
            "continuous_pipeline_optimizer_scaling",
            "optimizer_state_offchip",
            "replicated_tensor_sharding",
            "recompute_checkpoint_every_layer",
            "no_dropout",
            "no_attn_dropout",
            "disable_attention_dropout_bwd",
            "dropout_prob",
            "update_embedding_dict",
            "epochs",
            "training_steps",
            "continue_training_from_epoch",
            "validation_config",
        ],
        idle: |options| options.config.is_inference(),
        reason: "only training reads it",
    },
    Rule {
        keys: &["gradient_reduction_type"],
        // The loss that perplexity is printed of is reduced, too.
        idle: |options| options.config.is_inference() && !options.config.model.inference_loss,
        reason: "only training reads it",
    },
    Rule {
        keys: &["no_training", "no_validation", "no_model_save"],
        idle: |options| options.config.is_inference(),
        reason: "--inference does nothing else anyway",
    },
    Rule {
        keys: &["continuous_pipeline_optimizer_scaling"],
        idle: |options| !options.config.is_pipelined(),
        reason: "only --execution-mode PIPELINE has stages to scale by",
    },
    Rule {
        keys: &["recompute_checkpoint_every_layer"],
        idle: |options| !options.config.is_pipelined(),
        reason: "only --execution-mode PIPELINE computes layers again",
    },
    Rule {
        keys: &["replicated_tensor_sharding"],
        idle: |options| options.config.batching.replicas == 1,
        reason: "there is only one replica",
    },
    Rule {
        keys: &["replicated_tensor_sharding"],
        idle: keeps_a_velocity,
        reason: "a velocity of SGD that isn't an accumulator stays whole here, not as in PopART",
    },
    Rule {
        keys: &["replicated_tensor_sharding"],
        idle: |options| options.config.optimizer.kind == OptimizerKind::Sgd,
        reason: "SGD has no state but accumulators",
    },
    Rule {
        keys: &["optimizer_state_offchip"],
        idle: keeps_a_velocity,
        reason: "a velocity of SGD that isn't an accumulator stays on the chip here, not as in \
                 PopART",
    },
    Rule {
        keys: &["optimizer_state_offchip"],
        // It also puts weight updates of pipelines side by side, where replicas accumulate.
        idle: |options| {
            options.config.optimizer.kind == OptimizerKind::Sgd
                && (!options.config.is_pipelined()
                    || options.config.batching.replicas == 1
                    || options.config.batching.accumulation == 1)
        },
        reason: "SGD has no state but accumulators",
    },
    Rule {
        keys: &["momentum", "dampening", "velocity_scaling"],
        idle: |options| options.config.optimizer.kind != OptimizerKind::Sgd,
        reason: "only --optimizer SGD reads it",
    },
    Rule {
        keys: &["beta1", "beta2"],
        idle: |options| options.config.optimizer.kind == OptimizerKind::Sgd,
        reason: "only ADAM and LAMB read it",
    },
    Rule {
        keys: &["max_weight_norm"],
        idle: |options| !matches!(options.config.optimizer.kind, OptimizerKind::Lamb(_)),
        reason: "only LAMB reads it",
    },
    Rule {
        keys: &[
            "lr_warmup_start",
            "lr_warmup_steps",
            "lr_steps_per_warmup_update",
            "lr_steps_per_decay_update",
        ],
        idle: |options| options.config.learning_rate.function == RateFunction::Scheduled,
        reason: "only --learning-rate-function Linear reads it",
    },
    Rule {
        keys: &["lr_warmup_start", "lr_steps_per_warmup_update"],
        idle: |options| options.config.learning_rate.warmup_steps == 0,
        reason: "--lr-warmup-steps 0 leaves no warm-up",
    },
    Rule {
        keys: &["lr_schedule_by_epoch", "lr_schedule_by_step"],
        idle: |options| options.config.learning_rate.function == RateFunction::Linear,
        reason: "only --learning-rate-function Scheduled reads it",
    },
    Rule {
        keys: &[
            "squad_lr_scale",
            "squad_single_output",
            "squad_wrap_final_layer",
        ],
        idle: |options| !options.config.is_squad(),
        reason: "only --task SQUAD has that head",
    },
    Rule {
        keys: &["squad_wrap_final_layer"],
        idle: |options| {
            let config = &options.config;
            let encoder = &config.placement.encoder;
            encoder.ends_on_first_ipu(config.model.num_layers)
        },
        reason: "the first IPU is the last one, too",
    },
    Rule {
        keys: &["mask_tokens", "no_cls_layer", "projection_bias"],
        idle: |options| options.config.is_squad(),
        reason: "only --task PRETRAINING predicts masked tokens",
    },
    Rule {
        keys: &["reduce_nsp_overhead"],
        idle: |options| options.config.is_squad(),
        reason: "only --task PRETRAINING predicts next sentences",
    },
    Rule {
        keys: &["max_sequences_per_pack"],
        idle: |options| !options.config.is_packed(),
        reason: "only --use-packed-sequence-format packs sequences",
    },
    Rule {
        keys: &["relu_leak"],
        idle: |options| {
            !matches!(
                options.config.model.activation,
                Activation::LeakyRelu { .. }
            )
        },
        reason: "only --activation-type LRelu reads it",
    },
    Rule {
        keys: &["no_attn_dropout", "dropout_prob"],
        idle: |options| !options.config.has_dropout(),
        reason: "--no-dropout leaves out all dropout",
    },
    Rule {
        keys: &["disable_attention_dropout_bwd"],
        idle: |options| options.config.model.dropout != Dropout::HiddenAndAttention,
        reason: "there is no dropout on attention probabilities",
    },
    Rule {
        keys: &["synthetic_data_initializer"],
        idle: |options| !options.is_synthetic(),
        reason: "only --synthetic-data reads it",
    },
    Rule {
        keys: &["buffering_depth"],
        idle: |options| options.config.release < Release::V2_5,
        reason: "releases before v2.5 leave it to the library",
    },
    Rule {
        keys: &["group_host_syncs", "buffering_depth"],
        idle: |options| options.is_synthetic(),
        reason: "synthetic data needs no host",
    },
    Rule {
        keys: &["available_memory_proportion"],
        idle: |options| options.config.placement.memory == EncoderMemory::PoplibsDefault,
        reason: "--use-default-available-memory-proportion stands before it",
    },
    Rule {
        keys: &["device_ondemand_timeout"],
        idle: |options| options.device.connection != ConnectionType::OnDemand,
        reason: "only --device-connection-type ondemand waits",
    },
    Rule {
        keys: &[
            "validation_config",
            "epochs_inference",
            "low_latency_inference",
            "inference_lm_perplexity",
        ],
        idle: only_trains,
        reason: "no validation follows the training",
    },
    Rule {
        keys: &["squad_single_output"],
        idle: only_trains,
        reason: "only inference has that output, and no validation follows the training",
    },
];

/// Whether nothing of the run is inference.
fn only_trains(options: &BertOptions) -> bool {
    let validates = options.run.validation && options.run.model_save;
    !(options.config.is_inference() || validates)
}

/// A line for each reason why something in `given` changes nothing.
pub(super) fn notes(given: impl Fn(&str) -> bool, options: &BertOptions) -> Vec<String> {
    let resolved = options.arguments();
    let mut by_reason: IndexMap<&str, Vec<&str>> = IndexMap::new();
    let mut named: Vec<&str> = Vec::new();
    for rule in RULES.iter().filter(|rule| (rule.idle)(options)) {
        for &key in rule.keys {
            let option = table::by_key(key).expect("rules name options");
            let value = &resolved[key];
            // A switch that is left off asks for nothing.
            let off = *value == json!(false) && option.is_default(value);
            if given(key) && !value.is_null() && !off && !named.contains(&key) {
                named.push(key);
                by_reason.entry(rule.reason).or_default().push(option.name);
            }
        }
    }
    by_reason
        .into_iter()
        .map(|(reason, names)| format!("no effect: {}: {reason}", names.join(", ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::args;
    use crate::clock::Date;
    use crate::request::prepare;

    fn notes(line: &str) -> Vec<String> {
        let line = format!("--epochs 1 --generated-data --no-model-save {line}");
        let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
        prepare(&given, Date::now()).unwrap().notes
    }

    #[test]
    fn what_asks_for_nothing_is_not_named() {
        // Defaults, and switches that are left off.
        assert!(notes("").is_empty());
        assert!(notes("--replicated-tensor-sharding false").is_empty());
        // On by default, it asks for something either way.
        for word in ["true", "false", ""] {
            assert_eq!(
                notes(&format!("--recompute-checkpoint-every-layer {word}")),
                [
                    "no effect: --recompute-checkpoint-every-layer: only --execution-mode \
                     PIPELINE computes layers again"
                ]
            );
        }
    }

    #[test]
    fn a_reason_has_one_line_and_an_option_one_reason() {
        assert_eq!(
            notes("--replicated-tensor-sharding true --beta1 0.5 --beta2 0.5 --max-weight-norm 1"),
            [
                "no effect: --replicated-tensor-sharding: there is only one replica",
                "no effect: --beta1, --beta2: only ADAM and LAMB read it",
                "no effect: --max-weight-norm: only LAMB reads it",
            ]
        );
    }

    /// Lines on which options of inference, of validation and of a warm-up have nothing to do.
    #[test]
    fn what_nothing_follows_is_named() {
        const TRAINED: &str = "no validation follows the training";
        for (line, named, reason) in [
            (
                "--low-latency-inference --inference-lm-perplexity",
                "--low-latency-inference, --inference-lm-perplexity",
                TRAINED,
            ),
            (
                "--task SQUAD --squad-single-output",
                "--squad-single-output",
                "only inference has that output, and no validation follows the training",
            ),
            (
                "--continuous-pipeline-optimizer-scaling true",
                "--continuous-pipeline-optimizer-scaling",
                "only --execution-mode PIPELINE has stages to scale by",
            ),
            (
                "--learning-rate-function Linear --lr-warmup-start 1 \
                 --lr-steps-per-warmup-update 2",
                "--lr-warmup-start, --lr-steps-per-warmup-update",
                "--lr-warmup-steps 0 leaves no warm-up",
            ),
        ] {
            assert_eq!(notes(line), [format!("no effect: {named}: {reason}")]);
        }
        let notes = notes("--inference --gradient-reduction-type Mean --no-training");
        let expected = [
            "no effect: --epochs, --gradient-reduction-type: only training reads it",
            "no effect: --no-training, --no-model-save: --inference does nothing else anyway",
        ];
        assert_eq!(notes, expected);
    }

    /// A velocity is an accumulator with accumulation, and state without.
    #[test]
    fn what_becomes_of_a_velocity_is_said() {
        let line = "--optimizer SGD --replication-factor 2 --replicated-tensor-sharding true \
                    --optimizer-state-offchip true";
        for more in [
            "--momentum 0",
            "--momentum 0.9 --gradient-accumulation-factor 4",
        ] {
            let mut notes = notes(&format!("{line} {more}"));
            notes.retain(|note| note.contains("sharding"));
            let expected = "no effect: --replicated-tensor-sharding, --optimizer-state-offchip: \
                            SGD has no state but accumulators";
            assert_eq!(notes, [expected]);
        }
        let mut notes = notes(&format!("{line} --momentum 0.9"));
        notes.retain(|note| note.contains("velocity"));
        let velocity = "a velocity of SGD that isn't an accumulator stays";
        assert_eq!(
            notes,
            [
                format!(
                    "no effect: --replicated-tensor-sharding: {velocity} whole here, not as in PopART"
                ),
                format!(
                    "no effect: --optimizer-state-offchip: {velocity} on the chip here, not as in PopART"
                ),
            ]
        );
    }

    #[test]
    fn presets_ask_too() {
        let notes = notes("--config squad_base_384_96fef3f.json");
        let expected = "no effect: --replicated-tensor-sharding: there is only one replica";
        assert!(notes.iter().any(|note| note == expected), "{notes:#?}");
        // The line goes over the preset.
        let notes = self::notes(
            "--config squad_base_384_96fef3f.json --replication-factor 2 --global-batch-size 64",
        );
        assert!(
            !notes.iter().any(|note| note.contains("sharding")),
            "{notes:#?}"
        );
    }
}

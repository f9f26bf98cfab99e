//! How configurations resolve, what is refused, and which options act.

use serde_json::json;

use super::*;
use crate::args::parse;

fn resolve_line(line: &str, preset: Value) -> Result<ResolvedConfig> {
    let given = parse(line.split_whitespace().map(String::from))?;
    let (preset, _) = crate::args::json::parse("a.json", &preset.to_string())?;
    resolve(&given, Some(&preset), "date")
}

fn check(line: &str, preset: Value, expected: &[(&str, Value)]) {
    let resolved = resolve_line(line, preset).unwrap_or_else(|error| panic!("{line}: {error}"));
    for (key, expected) in expected {
        assert_eq!(
            resolved.options.arguments()[*key],
            *expected,
            "{line}: {key}"
        );
    }
}

fn check_error(line: &str, preset: Value, expected: &str, status: u8) {
    let error = resolve_line(line, preset).expect_err(line);
    assert_eq!(
        (crate::error::chain(&error).as_str(), error.exit_code()),
        (expected, status),
        "{line}"
    );
}

/// What other people's files set is taken back, or says how.
#[test]
fn the_line_goes_over_the_preset() {
    let ends = json!({"epochs": 1, "device_version": "ipu1", "tf_checkpoint": "x/model.ckpt"});
    check(
        "--system mk2-pod16",
        ends.clone(),
        &[
            ("device_version", Value::Null),
            ("tf_checkpoint", json!("x/model.ckpt")),
        ],
    );
    check(
        "--tf-checkpoint= --device-version=",
        ends,
        &[
            ("device_version", Value::Null),
            ("tf_checkpoint", Value::Null),
        ],
    );
    let target = json!({"epochs": 1, "internal_exchange_optimisation_target": "cycles"});
    check(
        "--internal-exchange-optimisation-target=",
        target.clone(),
        &[],
    );
    let error = resolve_line("", target).unwrap_err().to_string();
    let how = "; --internal-exchange-optimisation-target '' unsets what a preset says";
    assert!(error.ends_with(how), "{error}");
}

#[test]
fn the_line_goes_over_the_preset_over_the_defaults() {
    let preset = json!({"num_layers": 4, "hidden_size": 96, "shuffle": true, "epochs": 3});
    check(
        "--num-layers 6 --shuffle false",
        preset,
        &[
            ("num_layers", json!(6)),
            ("hidden_size", json!(96)),
            ("shuffle", json!(false)),
            ("sequence_length", json!(128)),
            ("checkpoint_dir", json!("ckpts/date")),
            ("popdist_size", json!(1)),
        ],
    );
}

#[test]
fn exclusive_options_drop_each_other_from_the_preset() {
    let preset = json!({"training_steps": 7, "pipeline": true});
    for line in ["--epochs 1 --virtual-graph", "--epochs=1 --virtual-gr=true"] {
        check(
            line,
            preset.clone(),
            &[
                ("epochs", json!(1)),
                ("training_steps", json!(null)),
                ("pipeline", json!(null)),
                ("execution_mode", json!("DEFAULT")),
            ],
        );
    }
}

#[test]
fn execution_modes() {
    for (line, preset, mode) in [
        ("", json!({}), "DEFAULT"),
        ("--execution-mode PIPELINE", json!({}), "PIPELINE"),
        ("", json!({"execution_mode": "PIPELINE"}), "PIPELINE"),
        ("--pipeline", json!({}), "PIPELINE"),
        (
            "--pipeline",
            json!({"execution_mode": "DEFAULT"}),
            "PIPELINE",
        ),
        (
            "--pipeline false",
            json!({"execution_mode": "PIPELINE"}),
            "DEFAULT",
        ),
        (
            "--virtual-graph",
            json!({"execution_mode": "PIPELINE"}),
            "DEFAULT",
        ),
        (
            "--phased-execution false",
            json!({"execution_mode": "PHASED"}),
            "DEFAULT",
        ),
    ] {
        check(
            &format!("--epochs 1 {line}"),
            preset,
            &[("execution_mode", json!(mode))],
        );
    }
}

/// In one source they contradict each other; the line goes over the preset.
#[test]
fn two_names_of_one_setting() {
    for (line, first, second) in [
        (
            "--device-iterations 4 --batches-per-step 8",
            "--batches-per-step and --device-iterations",
            "8 and 4",
        ),
        (
            "--pipeline false --execution-mode PIPELINE",
            "--execution-mode and --pipeline",
            "PIPELINE and false",
        ),
        (
            "--checkpoint-dir a --checkpoint-output-dir b",
            "--checkpoint-dir and --checkpoint-output-dir",
            "a and b",
        ),
    ] {
        let expected = format!("{first} are one setting, got {second}");
        check_error(&format!("--epochs 1 {line}"), json!({}), &expected, 2);
    }
    check(
        "--epochs 1 --device-iterations 4 --batches-per-step 4",
        json!({}),
        &[("batches_per_step", json!(4))],
    );
    check(
        "--epochs 1 --device-iterations 4 --execution-mode DEFAULT",
        json!({"batches_per_step": 8, "pipeline": true}),
        &[
            ("batches_per_step", json!(4)),
            ("execution_mode", json!("DEFAULT")),
        ],
    );
}

#[test]
fn what_is_only_compiled_needs_no_device_and_no_data() {
    let resolved = resolve_line("--epochs 1 --compile-only", json!({})).unwrap();
    let options = &resolved.options;
    assert_eq!(options.device.connection, ConnectionType::Offline);
    assert!(options.run.generated_data);
    assert_eq!(resolved.warnings.len(), 2);
    let line = "--epochs 1 --compile-only --synthetic-data --engine-cache a";
    let resolved = resolve_line(line, json!({"input_files": ["a"]})).unwrap();
    assert!(!resolved.options.run.generated_data);
    assert!(resolved.warnings.is_empty());
}

/// Its placement is its own, as in the presets of Mk1.
#[test]
fn the_validation_may_lie_elsewhere() {
    let preset = json!({
        "task": "SQUAD", "num_layers": 12, "layers_per_ipu": [1], "encoder_start_ipu": 2,
        "pipeline": true, "device_iterations": 64, "gradient_accumulation_factor": 1,
        "validation_config": {
            "layers_per_ipu": [6], "encoder_start_ipu": 1, "device_iterations": 16,
            "sequence_length": 256, "max_copy_merge_size": 32000, "pipeline": true,
        },
    });
    let resolved = resolve_line("--epochs 1 --generated-data", preset).unwrap();
    let validation = validation(&resolved).unwrap().unwrap();
    let of = |options: &BertOptions| {
        let config = &options.config;
        (
            config.ipus_per_replica(),
            config.batching.batches_per_step,
            config.model.sequence_length,
            options.run.max_copy_merge_size,
            config.is_pipelined(),
        )
    };
    assert_eq!(of(&resolved.options), (14, 64, 128, None, true));
    assert_eq!(of(&validation), (3, 16, 256, Some(32_000), true));
}

#[test]
fn batch_rule() {
    for (line, accumulation, global, set) in [
        ("", 1, 8, None),
        ("--gradient-accumulation-factor 3", 3, 24, None),
        ("--global-batch-size 32", 4, 32, Some(4)),
        (
            "--global-batch-size 32 --gradient-accumulation-factor 4",
            4,
            32,
            Some(4),
        ),
    ] {
        let line = format!("--epochs 1 --micro-batch-size 2 --replication-factor 4 {line}");
        let resolved = resolve_line(&line, json!({})).unwrap();
        assert_eq!(
            resolved.options.arguments()["gradient_accumulation_factor"],
            accumulation,
            "{line}"
        );
        assert_eq!(
            resolved.options.arguments()["global_batch_size"],
            global,
            "{line}"
        );
        assert_eq!(resolved.accumulation_set, set, "{line}");
    }
    check_error(
        "--epochs 1 --micro-batch-size 3 --global-batch-size 32",
        json!({}),
        "Unable to set gradient accumulation to match the global batch size: 32 is no multiple of 3 x 1",
        1,
    );
    check_error(
        "--epochs 1 --gradient-accumulation-factor 16",
        json!({"global_batch_size": 65536}),
        "User settings for global batch size and factors are inconsistent.\n\n  \
         Specified global batch size: 65536\n\n  Inferred global batch size: 16\n    \
         micro batch size: 1\n    gradient accumulation factor: 16\n    replication factor: 1",
        1,
    );
}

#[test]
fn settings_that_do_not_go_together() {
    for (line, expected) in [
        ("", "Either epochs or training-steps is required, aborting"),
        (
            "--epochs 1 --no-drop-remainder",
            "--no-drop-remainder is only compatible with SQUAD and not with PRETRAINING, aborting",
        ),
        (
            "--epochs 1 --host-embedding ALL",
            "--host-embedding is only compatible with SQUAD and not with PRETRAINING, aborting",
        ),
        (
            "--epochs 1 --batch-serialize 2",
            "--batch-serialize cannot be > --micro-batch-size, aborting",
        ),
        (
            "--epochs 1 --micro-batch-size 2 --batch-serialize 2 --split-linear-layers",
            "--split-linear-layers is incompatible with --batch-serialize > 1, aborting",
        ),
        (
            "--inference --synthetic-data --generated-data",
            "choose either --synthetic-data or --generated-data, not both, aborting",
        ),
    ] {
        check_error(line, json!({}), expected, 1);
    }
}

#[test]
fn values_that_no_model_has() {
    for (line, expected) in [
        (
            "--num-layers 0",
            "argument --num-layers: expected at least 1 and less than 2^32, got 0",
        ),
        (
            "--micro-batch-size -1",
            "argument --micro-batch-size: expected at least 1 and less than 2^32, got -1",
        ),
        (
            "--hidden-size 100",
            "argument --hidden-size: expected a multiple of 12 heads, got 100",
        ),
        (
            "--sequence-length 513",
            "argument --sequence-length: expected at most the 512 rows of the position embedding, got 513",
        ),
        (
            "--mask-tokens 128",
            "argument --mask-tokens: expected below the sequence length of 128, got 128",
        ),
        (
            "--dropout-prob 1",
            "argument --dropout-prob: expected a number from 0 to below 1, got 1.0",
        ),
        (
            "--num-layers 9 --layers-per-ipu 4 4",
            "argument --layers-per-ipu: expected counts that cover all 9 layers, got 4 4",
        ),
        (
            "--num-layers 6 --available-memory-proportion 0.1 0.2",
            "argument --available-memory-proportion: expected one number, or one for each of 3 encoder IPUs, got 0.1 0.2",
        ),
        (
            "--replication-factor 4294967295 --encoder-start-ipu 4000000000",
            "argument --replication-factor: expected less than 2^32 IPUs in all, got 4294967295",
        ),
        (
            "--embedding-serialization-vocab-steps 7",
            "argument --embedding-serialization-vocab-steps: expected a divisor of the vocabulary length of 30400, got 7",
        ),
    ] {
        check_error(&format!("--epochs 1 {line}"), json!({}), expected, 1);
    }
}

#[test]
fn ipus_are_counted_as_the_original_does() {
    for (line, per_replica, requested) in [
        ("", 3, 4),
        (
            "--encoder-start-ipu 0 --num-layers 3 --layers-per-ipu 3",
            1,
            1,
        ),
        (
            "--encoder-start-ipu 0 --num-layers 24 --layers-per-ipu 3 7 7 7 --replication-factor 4",
            4,
            16,
        ),
        (
            "--encoder-start-ipu 1 --num-layers 12 --layers-per-ipu 4 4 4 --replication-factor 16",
            4,
            64,
        ),
        (
            "--encoder-start-ipu 0 --num-layers 5 --layers-per-ipu 2 --replication-factor 3",
            3,
            16,
        ),
    ] {
        let resolved = resolve_line(&format!("--epochs 1 {line}"), json!({})).unwrap();
        let config = &resolved.options.config;
        assert_eq!(
            (config.ipus_per_replica(), config.ipus_requested()),
            (per_replica, requested)
        );
    }
}

#[test]
fn choices_that_are_refused_by_value() {
    check_error(
        "--epochs 1 --execution-mode PHASED",
        json!({}),
        "argument --execution-mode PHASED: not supported yet: phased execution is not supported",
        2,
    );
    check_error(
        "--epochs 1 --task MRPC",
        json!({}),
        "argument --task MRPC: not supported yet: the task has no model, here or in the original",
        2,
    );
}

#[test]
fn what_is_not_simulated_is_said_once() {
    let notes = |line: &str| resolve_line(line, json!({})).unwrap().notes;
    assert!(notes("--epochs 1 --no-model-save --generated-data").is_empty());
    assert_eq!(
        notes("--epochs 1"),
        [
            "no model files are written: --no-model-save silences this, and leaves out the validation"
        ]
    );
    assert_eq!(
        notes("--inference --generated-data --shuffle --duplication-factor 6 --seed 3"),
        [
            "no effect: --shuffle: the order of samples does not change simulated time",
            "no effect: --seed: simulated time does not depend on it",
        ]
    );
}

/// What the validation after that training sets, if there is one.
fn validated(line: &str, preset: Value, keys: &[&str]) -> Option<Vec<Value>> {
    let resolved = resolve_line(line, preset).unwrap();
    let options = validation(&resolved).unwrap()?;
    assert!(options.config.is_inference());
    let values = options.arguments();
    Some(keys.iter().map(|key| values[*key].clone()).collect())
}

#[test]
fn validation_goes_over_the_training() {
    let preset = json!({
        "task": "SQUAD",
        "micro_batch_size": 2,
        "global_batch_size": 256,
        "replication_factor": 4,
        "batches_per_step": 4,
        "validation_config": {"batches_per_step": 10, "no_drop_remainder": true},
    });
    let keys = [
        "gradient_accumulation_factor",
        "batches_per_step",
        "no_drop_remainder",
        "onnx_checkpoint",
        "replication_factor",
    ];
    let set =
        |checkpoint: Value| Some(vec![json!(1), json!(10), json!(true), checkpoint, json!(4)]);
    assert_eq!(
        validated("--epochs 1", preset.clone(), &keys),
        set(json!("ckpts/date/model.onnx"))
    );
    assert_eq!(
        validated("--no-training", preset.clone(), &keys),
        set(json!(null))
    );
    let line = r#"--epochs 1 --validation-config {"batches_per_step":7}"#;
    assert_eq!(
        validated(line, preset.clone(), &["batches_per_step"]),
        Some(vec![json!(7)])
    );
    for line in [
        "--epochs 1 --no-validation",
        "--epochs 1 --no-model-save",
        "--inference --gradient-accumulation-factor 1 --global-batch-size 8",
    ] {
        assert_eq!(validated(line, preset.clone(), &keys), None, "{line}");
    }
}

/// From v2.1 on it has the head where the training has it, unless its own settings say otherwise; at
/// 96fef3f inference has it on the last IPU.
#[test]
fn validation_has_the_answer_head_where_the_release_has_it() {
    let key = "squad_wrap_final_layer";
    for (preset, trained, validated_with) in [
        (json!({"release": "96fef3f"}), true, false),
        (json!({"release": "v2.1"}), true, true),
        (json!({}), true, true),
        (json!({key: false}), false, false),
        (
            json!({key: false, "validation_config": {key: true}}),
            false,
            true,
        ),
        (json!({"validation_config": {key: false}}), true, false),
    ] {
        let mut preset = preset;
        preset["task"] = json!("SQUAD");
        let resolved = resolve_line("--epochs 1", preset.clone()).unwrap();
        let validation = validation(&resolved).unwrap().unwrap();
        let wraps = |options: &BertOptions| options.config.to_keys()[key].clone();
        let found = [wraps(&resolved.options), wraps(&validation)];
        assert_eq!(
            found,
            [trained, validated_with].map(Value::from),
            "{preset}"
        );
    }
    let own = json!({"task": "SQUAD", "release": "96fef3f", "validation_config": {key: true}});
    let resolved = resolve_line("--epochs 1", own).unwrap();
    let text = crate::error::chain(&validation(&resolved).unwrap_err());
    assert_eq!(
        text,
        "in the validation after training (--no-validation leaves it out): release 96fef3f has no \
         --squad-wrap-final-layer and works as with false: leave the option out, or follow another \
         --release, aborting"
    );
}

/// Half of the state in `f16` is for optimisers that have moments, in the runs that use them.
#[test]
fn state_in_f16_needs_moments() {
    let half = json!({"use_half_optimizer_state": true});
    check_error(
        "--epochs 1",
        half.clone(),
        "--use-half-optimizer-state is for moments, and SGD has none: give an --optimizer of ADAM or LAMB, aborting",
        1,
    );
    for line in ["--epochs 1 --optimizer ADAM", "--inference"] {
        assert!(resolve_line(line, half.clone()).is_ok(), "{line}");
    }
}

#[test]
fn validation_is_checked_like_a_run() {
    for (own, expected) in [
        (
            json!({"batches_per_step": 0}),
            "argument --batches-per-step: expected at least 1 and less than 2^32, got 0",
        ),
        (
            json!({"host_embedding": "ALL"}),
            "--host-embedding is only compatible with SQUAD and not with PRETRAINING, aborting",
        ),
        (
            json!({"gradient_accumulation_factor": 2}),
            "Gradient Accumulation only available when training.\n  \
             The factor is 2: --gradient-accumulation-factor 1 makes it 1",
        ),
    ] {
        let resolved = resolve_line("--epochs 1", json!({"validation_config": own})).unwrap();
        let text = crate::error::chain(&validation(&resolved).unwrap_err());
        let context = "in the validation after training (--no-validation leaves it out): ";
        assert_eq!(text, format!("{context}{expected}"));
    }
}

#[test]
fn runs_that_compute_nothing() {
    check_error(
        "--no-training --no-validation",
        json!({}),
        "--no-training leaves the validation, but --no-validation or --no-model-save turns it off: nothing is left to run, aborting",
        1,
    );
    check_error(
        "--inference --global-batch-size 32 --micro-batch-size 2",
        json!({}),
        "Gradient Accumulation only available when training.\n  \
         The factor is 16: --global-batch-size 2 makes it 1",
        1,
    );
    check_error(
        "--inference --task SQUAD --inference-lm-perplexity",
        json!({}),
        "Masked LM perplexity is only supported in pretraining, aborting",
        1,
    );
}

/// Whole layers and half layers are two forms of one thing: the line's goes over the preset's, and
/// the defaults of the other form are nobody's.
#[test]
fn half_layers_take_the_place_of_whole_ones() {
    let groups = json!([[1, [2, 1]], [0, [0, 1]]]);
    let absent = ["layers_per_ipu", "encoder_start_ipu"].map(|key| (key, Value::Null));
    let halves = |line: &str, preset: Value| {
        let resolved = resolve_line(line, preset).unwrap();
        let arguments = resolved.options.arguments();
        assert_eq!(arguments["att_ffn_placement"], groups, "{line}");
        for (key, _) in &absent {
            assert!(!arguments.contains_key(*key), "{line}: {key}");
        }
        // As `--print-config` writes it and `--config` reads it.
        let text = serde_json::to_string(&arguments).unwrap();
        let (read, _) = crate::args::json::parse("a.json", &text).unwrap();
        let again = resolve(&crate::args::Arguments::default(), Some(&read), "date").unwrap();
        assert_eq!(again.options.config, resolved.options.config, "{line}");
        resolved
    };
    let line = "--epochs 1 --att-ffn-placement [[1,[2,1]],[0,[0,1]]]";
    halves(line, json!({}));
    halves(line, json!({"layers_per_ipu": [1], "encoder_start_ipu": 1}));
    halves("--epochs 1", json!({"att_ffn_placement": groups}));
    check(
        "--epochs 1 --layers-per-ipu 1",
        json!({"att_ffn_placement": groups, "encoder_start_pipeline_stage": 1}),
        &[
            ("layers_per_ipu", json!([1])),
            ("encoder_start_ipu", json!(2)),
        ],
    );
    // The validation may have its layers elsewhere.
    let trained = halves(
        &format!("{line} --validation-config {{\"layers_per_ipu\":[1]}}"),
        json!({}),
    );
    let validated = validation(&trained).unwrap().unwrap().arguments();
    assert_eq!(validated["layers_per_ipu"], json!([1]));
    assert!(!validated.contains_key("att_ffn_placement"));
}

#[test]
fn whole_and_half_layers_at_once_are_refused() {
    check_error(
        "--epochs 1 --layers-per-ipu 1 --att-ffn-placement [[0,[2,2]]]",
        json!({}),
        "argument --att-ffn-placement: not allowed with argument --layers-per-ipu",
        2,
    );
    check_error(
        "--epochs 1",
        json!({"att_ffn_placement": [[0, [2, 2]]], "encoder_start_ipu": 0}),
        "`encoder_start_ipu` places whole layers and `att_ffn_placement` half layers: give one of \
         them, and leave the other out",
        1,
    );
    check_error(
        "--epochs 1 --att-ffn-placement 3",
        json!({}),
        "argument --att-ffn-placement: invalid JSON list of [IPU, [attention blocks, feed-forward \
         blocks]] value: '3'",
        2,
    );
    check_error(
        "--epochs 1 --att-ffn-placement [[1,[2,3]],[0,[0,-1]]]",
        json!({}),
        "argument --att-ffn-placement: expected a list of [IPU, [attention blocks, feed-forward \
         blocks]], got [[1,[2,3]],[0,[0,-1]]]",
        1,
    );
    check_error(
        "--epochs 1 --att-ffn-placement [[1,[2,2]]] --encoder-start-pipeline-stage 2",
        json!({}),
        "`encoder_start_pipeline_stage` must be 1, or 0 for a first group on IPU 0, got 2: nothing \
         would run in the stages before",
        1,
    );
}

/// A model names the file of its weights by its place beside it.
#[test]
fn weights_of_their_own_want_a_relative_folder() {
    let check = |line: &str, expected: Option<&str>| {
        let line = format!("--epochs 1 --generated-data --save-initializers-externally {line}");
        let given = parse(line.split_whitespace().map(String::from)).unwrap();
        let found = resolve(&given, None, "date").map_err(|error| error.to_string());
        let text = |key: &str| {
            format!(
                "Please specify relative path for `{key}` when saving initializers externally. Or \
                 save nothing with --no-model-save"
            )
        };
        assert_eq!(found.err(), expected.map(text), "{line}");
    };
    check("", None);
    check("--checkpoint-dir out", None);
    check("--checkpoint-dir /out", Some("checkpoint_dir"));
    let later = "--checkpoint-output-dir /out --release v3.1";
    check(later, Some("checkpoint_output_dir"));
    check(&format!("{later} --no-model-save"), None);
    check("--checkpoint-dir /out --inference", None);
}

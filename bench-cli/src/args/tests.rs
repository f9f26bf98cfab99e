//! The parsing rules, one case a line.

use serde_json::json;

use super::*;

fn parse_line(line: &str) -> Result<Arguments> {
    parse(
        line.split_whitespace()
            .map(|word| if word == "''" { "" } else { word }.to_string()),
    )
}

fn check(line: &str, key: &str, expected: Value) {
    match parse_line(line) {
        Ok(given) => assert_eq!(given.values.get(key), Some(&expected), "{line}"),
        Err(error) => panic!("{line}: {error}"),
    }
}

fn check_error(line: &str, expected: &str, status: u8) {
    let error = parse_line(line).expect_err(line);
    assert_eq!(
        (error.to_string().as_str(), error.exit_code()),
        (expected, status),
        "{line}"
    );
}

#[test]
fn values_in_all_their_forms() {
    for (line, key, expected) in [
        ("--num-layers 3", "num_layers", json!(3)),
        ("--num-layers=3", "num_layers", json!(3)),
        ("--num-layers 3 --num-layers 5", "num_layers", json!(5)),
        ("--epochs 1 --epochs 10", "epochs", json!(10)),
        ("--layers-per-ipu=3", "layers_per_ipu", json!([3])),
        (
            "--layers-per-ipu 3 7 7 7",
            "layers_per_ipu",
            json!([3, 7, 7, 7]),
        ),
        (
            "--layers-per-ipu 3 7 --layers-per-ipu 4",
            "layers_per_ipu",
            json!([4]),
        ),
        (
            "--layers-per-ipu 1 -2 --inference",
            "layers_per_ipu",
            json!([1, -2]),
        ),
        ("--max-copy-merge-size -1", "max_copy_merge_size", json!(-1)),
        ("--max-copy-merge-size=-1", "max_copy_merge_size", json!(-1)),
        ("--learning-rate 1e-7", "learning_rate", json!(1e-7)),
        ("--learning-rate -0.5", "learning_rate", json!(-0.5)),
        ("--loss-scaling 128", "loss_scaling", json!(128.0)),
        ("--input-files a b", "input_files", json!(["a", "b"])),
        ("--input-files", "input_files", json!([])),
        ("--dtype FLOAT", "popart_dtype", json!("FLOAT")),
        ("--ff-size 64", "ff_size__", json!(64)),
        ("--engine-cache ''", "engine_cache", json!(null)),
        ("--engine-cache x", "engine_cache", json!("x")),
        (
            "--lr-schedule-by-step 0:0.1 5:1e-3",
            "lr_schedule_by_step",
            json!({"0": 0.1, "5": 1e-3}),
        ),
        ("--lr-schedule-by-step", "lr_schedule_by_step", json!(null)),
        (
            "--execution-mode PIPELINE",
            "execution_mode",
            json!("PIPELINE"),
        ),
        ("--dual-device", "phased_execution_type", json!("DUAL")),
        (
            "--validation-config {\"seed\":3}",
            "validation_config",
            json!({"seed": 3}),
        ),
    ] {
        check(line, key, expected);
    }
}

#[test]
fn switches_and_their_bare_values() {
    for (line, key, expected) in [
        ("--inference", "inference", true),
        ("--inference --epochs 1", "inference", true),
        ("--inference=FALSE", "inference", false),
        ("--inference Y", "inference", true),
        ("--shuffle 0", "shuffle", false),
        ("--shuffle t --shuffle no", "shuffle", false),
        ("--update-embedding-dict", "update_embedding_dict", false),
        (
            "--recompute-checkpoint-every-layer",
            "recompute_checkpoint_every_layer",
            false,
        ),
        ("--squad-single-output", "squad_single_output", false),
        ("--squad-wrap-final-layer", "squad_wrap_final_layer", false),
        (
            "--squad-wrap-final-layer true",
            "squad_wrap_final_layer",
            true,
        ),
        (
            "--disable-attention-dropout-bwd",
            "disable_attention_dropout_bwd",
            true,
        ),
        (
            "--use-half-optimizer-state",
            "use_half_optimizer_state",
            true,
        ),
        (
            "--replicated-tensor-sharding",
            "replicated_tensor_sharding",
            false,
        ),
        (
            "--replicated-tensor-sharding true",
            "replicated_tensor_sharding",
            true,
        ),
        ("--profile-instrument", "profile_instrument", true),
        (
            "--tensor-storage-onchip true",
            "tensor_storage_onchip",
            true,
        ),
        ("--realtime-scheduler", "realtime_scheduler", true),
        (
            "--report-hw-cycle-count --report-hw-cycle-count",
            "report_hw_cycle_count",
            true,
        ),
        ("--pipeline false", "pipeline", false),
    ] {
        check(line, key, json!(expected));
    }
}

#[test]
fn prefixes() {
    for (line, key, expected) in [
        ("--group-host-sync", "group_host_syncs", json!(true)),
        ("--group-host-sync=false", "group_host_syncs", json!(false)),
        (
            "--embedding-serial 4",
            "embedding_serialization_vocab_steps",
            json!(4),
        ),
        ("--epochs 2", "epochs", json!(2)),
        ("--epochs-i 2", "epochs_inference", json!(2)),
    ] {
        check(line, key, expected);
    }
    for start in ["--c", "--co", "--con", "--conf", "--config"] {
        let given = parse_line(&format!("{start} a.json")).unwrap();
        assert_eq!(given.config.as_deref(), Some("a.json"));
        assert!(given.values.is_empty() && !given.help);
    }
}

#[test]
fn options_of_ours_change_no_published_start() {
    for option in table::options() {
        for end in 3..option.name.len() {
            let start = &option.name[..end];
            let is_name = table::by_name(start).is_some();
            let same = table::options().filter(|other| other.name.starts_with(start));
            // `--config` claims its starts before any other.
            if same.count() == 1 && !is_name && !"--config".starts_with(start) && start != "--h" {
                assert_eq!(expand(start.to_string()).unwrap(), option.name, "{start}");
            }
        }
    }
    assert_eq!(expand("--expl".into()).unwrap(), "--explain");
}

#[test]
fn only_what_was_given_is_there() {
    let given = parse_line("--system mk2-pod16 --epochs 1 --metrics-json m.json").unwrap();
    assert_eq!(given.values.len(), 1);
    assert_eq!(given.names, ["--epochs"]);
    assert_eq!(given.own["system"], "mk2-pod16");
    assert_eq!(given.own["metrics_json"], "m.json");
    assert_eq!(given.own.len(), 2);
    assert!(parse_line("--epochs 1 --help").unwrap().help);
}

#[test]
fn mistakes_in_the_words_of_the_original() {
    for (line, expected) in [
        (
            "--epo 1",
            "ambiguous option: --epo could match --epochs-inference, --epochs, --epochs-to-cache, --epochs-per-save",
        ),
        (
            "--shuffle maybe",
            "argument --shuffle: maybe is not a valid boolean value",
        ),
        (
            "--inference foo",
            "argument --inference: foo is not a valid boolean value",
        ),
        (
            "--num-layers 1e3",
            "argument --num-layers: invalid int value: '1e3'",
        ),
        (
            "--num-layers 1.0",
            "argument --num-layers: invalid int value: '1.0'",
        ),
        (
            "--lr-warmup-start 1e-7",
            "argument --lr-warmup-start: invalid int value: '1e-7'",
        ),
        ("--beta1 x", "argument --beta1: invalid float value: 'x'"),
        (
            "--beta1 inf",
            "argument --beta1: invalid finite float value: 'inf'",
        ),
        ("--bogus", "unrecognized arguments: --bogus"),
        ("--bogus 5", "unrecognized arguments: --bogus 5"),
        (
            "--num-layers 2 7 --bogus=1",
            "unrecognized arguments: 7 --bogus=1",
        ),
        ("--layers-per-ipu=3 7", "unrecognized arguments: 7"),
        (
            "--layers-per-ipu 7 --num-layers 2 7",
            "unrecognized arguments: 7",
        ),
        (
            "--micro_batch_size 5 --sequence-lenght=3",
            "unrecognized arguments: --micro_batch_size 5 --sequence-lenght=3\n  \
             '--micro_batch_size': did you mean --micro-batch-size?\n  \
             '--sequence-lenght': did you mean --sequence-length?",
        ),
        ("--=x", "unrecognized arguments: --=x"),
        ("a -- --inference", "unrecognized arguments: a --inference"),
        ("-x", "unrecognized arguments: -x"),
        (
            "--task FOO",
            "argument --task: invalid choice: 'FOO' (choose from 'PRETRAINING', 'SQUAD', 'MRPC')",
        ),
        (
            "--execution-mode pipe",
            "argument --execution-mode: invalid ExecutionMode value: 'pipe'",
        ),
        (
            "--optimizer-schedule Interleaving",
            "argument --optimizer-schedule: invalid choice: 'Interleaving' (choose from 'Batch', 'Interleaving, BatchClusteredIO')",
        ),
        (
            "--num-layers",
            "argument --num-layers: expected one argument",
        ),
        (
            "--num-layers --inference",
            "argument --num-layers: expected one argument",
        ),
        (
            "--layers-per-ipu",
            "argument --layers-per-ipu: expected at least one argument",
        ),
        (
            "--tensor-storage-onchip",
            "argument --tensor-storage-onchip: expected one argument",
        ),
        ("--config", "argument --config: expected one argument"),
        (
            "--realtime-scheduler=true",
            "argument --realtime-scheduler: ignored explicit argument 'true'",
        ),
        (
            "--epochs 1 --training-steps 5",
            "argument --training-steps: not allowed with argument --epochs",
        ),
        (
            "--training-steps=5 --epochs=1",
            "argument --epochs: not allowed with argument --training-steps",
        ),
        (
            "--pipeline --virtual-graph",
            "argument --virtual-graph: not allowed with argument --pipeline",
        ),
        (
            "--metrics-json -",
            "argument --metrics-json: expected a file, got '-': stdout holds the log, name a file (./- if it is to be called so)",
        ),
        (
            "--dump-program=-",
            "argument --dump-program: expected a file, got '-': stdout holds the log, name a file (./- if it is to be called so)",
        ),
        (
            "--memory-report -",
            "argument --memory-report: expected a file, got '-': stdout holds the log, name a file (./- if it is to be called so)",
        ),
        (
            "--dump-ir -",
            "argument --dump-ir: expected a folder, got '-': stdout holds the log, name a folder (./- if it is to be called so)",
        ),
        (
            "--dual-device --single-device",
            "argument --single-device: not allowed with argument --dual-device",
        ),
    ] {
        check_error(line, expected, 2);
    }
}

#[test]
fn bad_schedules_are_run_errors() {
    for word in ["a:0.1", "0.1", "1:"] {
        let expected = format!(
            "argument --lr-schedule-by-step: Invalid Learning Rate Schedule provided. It should be a set of int:float pairs. Got '{word}'"
        );
        check_error(&format!("--lr-schedule-by-step {word}"), &expected, 1);
    }
}

#[test]
fn clap_accepts_the_table() {
    command().debug_assert();
}

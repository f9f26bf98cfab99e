//! Whole logs, as text.

use bench_core::measure::{Samples, latency};
use expect_test::{Expect, expect};
use ipu_sim::units::{Cycles, HostSeconds, SimSeconds};

use super::*;
use crate::args;
use crate::metrics::fixtures::metrics;
use crate::request::prepare;

fn check(line: &str, measured: Metrics, expect: Expect) {
    check_with(line, &Dataset::made(), measured, expect);
}

fn check_with(line: &str, dataset: &Dataset, measured: Metrics, expect: Expect) {
    let date = Date::from_unix(1_616_179_778);
    let words: Vec<String> = line.split_whitespace().map(String::from).collect();
    let given = args::parse(words.clone()).unwrap();
    let prepared = prepare(&given, date).unwrap();
    let process = Process {
        hostname: "host".into(),
        command: ["ipu-bench".into(), "bert".into()]
            .into_iter()
            .chain(words)
            .collect(),
    };
    let request = &prepared.request;
    let mut text = String::new();
    let lines = program(prepared.accumulation_set, &process).into_iter();
    let lines = lines
        .chain(before_compile(request, dataset))
        .chain(after_compile(
            &request.options,
            dataset,
            &measured,
            HostSeconds(1.5),
        ))
        .chain(finished(&request.options));
    for line in lines {
        text += &line.render(date);
        text += "|\n";
    }
    expect.assert_eq(&text);
}

#[test]
fn pretraining_by_epochs() {
    check(
        "--config pretrain_large_128.json --epochs 2 --generated-data",
        metrics(),
        expect![[r#"
            2021-03-19 18:49:38 utils INFO Set Gradient Accumulation Factor to 2048|
            2021-03-19 18:49:38 INFO Program Start|
            2021-03-19 18:49:38 INFO Hostname: host|
            2021-03-19 18:49:38 INFO Command Executed: ['ipu-bench', 'bert', '--config', 'pretrain_large_128.json', '--epochs', '2', '--generated-data']|
            2021-03-19 18:49:38 INFO Initialising from generated_data|
            2021-03-19 18:49:38 INFO Building Model|
            2021-03-19 18:49:38 utils.device INFO Need 16 IPUs. Requesting 16 IPUs.|
            2021-03-19 18:49:38 utils.device INFO Acquired device: simulated mk2-pod16 with 16 IPUs|
            Loading 0 files: []|
            2021-03-19 18:49:38 INFO Dataset length: 1|
            2021-03-19 18:49:38 INFO Creating Session|
            2021-03-19 18:49:38 INFO Compiling Training Graph|
            2021-03-19 18:49:38 INFO Compiled. Duration 1.5 seconds|
            2021-03-19 18:49:38 INFO Training Started|
            2021-03-19 18:49:38 INFO Iteration:      0 Epoch:   0.00/2 Loss (MLM NSP):   nan   nan Accuracy (MLM NSP):   nan   nan Learning Rate: 0.00000 Duration: 16.0000 s Throughput: 4096.0 sequences/s |
            2021-03-19 18:49:38 INFO Training Finished|
            2021-03-19 18:49:38 INFO Program Finished|
        "#]],
    );
}

/// Packs say how many sequences were in them, in thousands, the step included.
#[test]
fn sequences_of_packs_are_said() {
    let line = "--config packed_pretrain_large_512.json --training-steps 2 --steps-per-log 1 \
                --generated-data --no-model-save --sequences-per-pack 1.75";
    check(
        line,
        metrics(),
        expect![[r#"
            2021-03-19 18:49:38 utils INFO Set Gradient Accumulation Factor to 1200|
            2021-03-19 18:49:38 INFO Program Start|
            2021-03-19 18:49:38 INFO Hostname: host|
            2021-03-19 18:49:38 INFO Command Executed: ['ipu-bench', 'bert', '--config', 'packed_pretrain_large_512.json', '--training-steps', '2', '--steps-per-log', '1', '--generated-data', '--no-model-save', '--sequences-per-pack', '1.75']|
            2021-03-19 18:49:38 INFO Initialising from generated_data|
            2021-03-19 18:49:38 INFO Building Model|
            2021-03-19 18:49:38 utils.device INFO Need 16 IPUs. Requesting 16 IPUs.|
            2021-03-19 18:49:38 utils.device INFO Acquired device: simulated mk2-pod16 with 16 IPUs|
            Loading 0 files: []|
            2021-03-19 18:49:38 INFO Dataset length: 1|
            2021-03-19 18:49:38 INFO Creating Session|
            2021-03-19 18:49:38 INFO Compiling Training Graph|
            2021-03-19 18:49:38 INFO Compiled. Duration 1.5 seconds|
            2021-03-19 18:49:38 INFO Training Started|
            2021-03-19 18:49:38 INFO Iteration:     0/2 Sequences processed:   16.8k mlm_loss:   nan nsp_loss:   nan mlm_acc:   nan % nsp_acc:   nan % Learning Rate: 0.00000 Duration: 16.0000 s throughput: 4096.0 samples/sec |
            2021-03-19 18:49:38 INFO Iteration:     1/2 Sequences processed:   33.6k mlm_loss:   nan nsp_loss:   nan mlm_acc:   nan % nsp_acc:   nan % Learning Rate: 0.00000 Duration: 16.0000 s throughput: 4096.0 samples/sec |
            2021-03-19 18:49:38 INFO Ending Training at 2 Steps|
            2021-03-19 18:49:38 INFO Training Finished|
            2021-03-19 18:49:38 INFO Program Finished|
        "#]],
    );
}

#[test]
fn squad_training_by_steps() {
    check(
        "--task SQUAD --training-steps 3 --steps-per-log 2 --report-hw-cycle-count --optimizer-state-offchip",
        metrics(),
        expect![[r#"
            2021-03-19 18:49:38 INFO Program Start|
            2021-03-19 18:49:38 INFO Hostname: host|
            2021-03-19 18:49:38 INFO Command Executed: ['ipu-bench', 'bert', '--task', 'SQUAD', '--training-steps', '3', '--steps-per-log', '2', '--report-hw-cycle-count', '--optimizer-state-offchip']|
            2021-03-19 18:49:38 INFO Building Model|
            2021-03-19 18:49:38 utils.device INFO Need 3 IPUs. Requesting 4 IPUs.|
            2021-03-19 18:49:38 utils.device INFO Acquired device: simulated mk2-m2000 with 4 IPUs|
            2021-03-19 18:49:38 bert_data.squad_dataset INFO Generating random dataset of 250 samples|
            2021-03-19 18:49:38 INFO Dataset length: 1|
            2021-03-19 18:49:38 WARNING Remote Optimizer State with SGD/SGD+M is not a recommended configuration|
            2021-03-19 18:49:38 INFO Creating Session|
            2021-03-19 18:49:38 INFO Compiling Training Graph|
            2021-03-19 18:49:38 INFO Compiled. Duration 1.5 seconds|
            2021-03-19 18:49:38 INFO Training Started|
            2021-03-19 18:49:38 INFO Iteration:     0/3 Loss:   nan Accuracy:   nan Learning Rate: 0.00080 Duration: 16.0000 s Throughput: 4096.0 sequences/s Cycles: 21193375000 |
            2021-03-19 18:49:38 INFO Iteration:     2/3 Loss:   nan Accuracy:   nan Learning Rate: 0.00080 Duration: 16.0000 s Throughput: 4096.0 sequences/s Cycles: 21193375000 |
            2021-03-19 18:49:38 INFO Ending Training at 3 Steps|
            2021-03-19 18:49:38 INFO Training Finished|
            2021-03-19 18:49:38 INFO Program Finished|
        "#]],
    );
}

#[test]
fn pretraining_without_accumulation_warns() {
    check(
        "--epochs 1",
        metrics(),
        expect![[r#"
            2021-03-19 18:49:38 INFO Program Start|
            2021-03-19 18:49:38 INFO Hostname: host|
            2021-03-19 18:49:38 INFO Command Executed: ['ipu-bench', 'bert', '--epochs', '1']|
            2021-03-19 18:49:38 INFO Building Model|
            2021-03-19 18:49:38 utils.device INFO Need 3 IPUs. Requesting 4 IPUs.|
            2021-03-19 18:49:38 utils.device INFO Acquired device: simulated mk2-m2000 with 4 IPUs|
            Loading 0 files: []|
            2021-03-19 18:49:38 INFO Dataset length: 1|
            2021-03-19 18:49:38 WARNING Running Pretraining without Gradient Accumulation will disable optimisations for the Word Embedding weight. This will increase memory usage. Consider enabling Gradient Accumulation.|
            2021-03-19 18:49:38 INFO Creating Session|
            2021-03-19 18:49:38 INFO Compiling Training Graph|
            2021-03-19 18:49:38 INFO Compiled. Duration 1.5 seconds|
            2021-03-19 18:49:38 INFO Training Started|
            2021-03-19 18:49:38 INFO Iteration:      0 Epoch:   0.00/1 Loss (MLM NSP):   nan   nan Accuracy (MLM NSP):   nan   nan Learning Rate: 0.00080 Duration: 16.0000 s Throughput: 4096.0 sequences/s |
            2021-03-19 18:49:38 INFO Training Finished|
            2021-03-19 18:49:38 INFO Program Finished|
        "#]],
    );
}

#[test]
fn squad_inference_with_latency() {
    let measured = Metrics {
        step_seconds: SimSeconds(0.8123),
        device_cycles: Cycles(1_076_297_500),
        throughput_sequences_per_second: 2521.2,
        latency_seconds: latency(&[0.00038, 0.0004].map(|seconds| Samples {
            value: SimSeconds(seconds),
            count: 1,
        })),
        ..metrics()
    };
    check(
        "--task SQUAD --inference --encoder-start-ipu 0 --low-latency-inference --epochs-inference 2 --generated-data",
        measured,
        expect![[r#"
            2021-03-19 18:49:38 INFO Program Start|
            2021-03-19 18:49:38 INFO Hostname: host|
            2021-03-19 18:49:38 INFO Command Executed: ['ipu-bench', 'bert', '--task', 'SQUAD', '--inference', '--encoder-start-ipu', '0', '--low-latency-inference', '--epochs-inference', '2', '--generated-data']|
            2021-03-19 18:49:38 INFO Initialising from generated_data|
            2021-03-19 18:49:38 INFO Building Model|
            2021-03-19 18:49:38 utils.device INFO Need 1 IPUs. Requesting 1 IPUs.|
            2021-03-19 18:49:38 utils.device INFO Acquired device: simulated mk2-m2000 with 1 IPUs|
            2021-03-19 18:49:38 bert_data.squad_dataset INFO Generating random dataset of 250 samples|
            2021-03-19 18:49:38 INFO Dataset length: 1|
            2021-03-19 18:49:38 INFO Creating Session|
            2021-03-19 18:49:38 INFO Compiling Inference Graph|
            2021-03-19 18:49:38 INFO Compiled. Duration 1.5 seconds|
            2021-03-19 18:49:38 INFO Inference Started|
            2021-03-19 18:49:38 INFO Iteration:      0 Duration: 0.8123 s Throughput: 2521.2 sequences/s Per-sample Latency: 0.00039000000000000005 0.00038 0.0004 0.0003998 0.00039998000000000003 seconds (mean min max p99 p99.9) |
            2021-03-19 18:49:38 INFO Iteration:      1 Duration: 0.8123 s Throughput: 2521.2 sequences/s Per-sample Latency: 0.00039000000000000005 0.00038 0.0004 0.0003998 0.00039998000000000003 seconds (mean min max p99 p99.9) |
            2021-03-19 18:49:38 INFO Program Finished|
        "#]],
    );
}

#[test]
fn pretraining_inference_falls_back_on_durations() {
    check(
        "--inference --encoder-start-ipu 0 --low-latency-inference",
        metrics(),
        expect![[r#"
            2021-03-19 18:49:38 INFO Program Start|
            2021-03-19 18:49:38 INFO Hostname: host|
            2021-03-19 18:49:38 INFO Command Executed: ['ipu-bench', 'bert', '--inference', '--encoder-start-ipu', '0', '--low-latency-inference']|
            2021-03-19 18:49:38 INFO Building Model|
            2021-03-19 18:49:38 utils.device INFO Need 1 IPUs. Requesting 1 IPUs.|
            2021-03-19 18:49:38 utils.device INFO Acquired device: simulated mk2-m2000 with 1 IPUs|
            Loading 0 files: []|
            2021-03-19 18:49:38 INFO Dataset length: 1|
            2021-03-19 18:49:38 INFO Creating Session|
            2021-03-19 18:49:38 INFO Compiling Inference Graph|
            2021-03-19 18:49:38 INFO Compiled. Duration 1.5 seconds|
            2021-03-19 18:49:38 INFO Inference Started|
            2021-03-19 18:49:38 WARNING No stepio callback times recorded. Using durations for fallback calculation.|
            2021-03-19 18:49:38 INFO Iteration:      0 Accuracy (MLM NSP):   nan   nan Duration: 16.0000 s Throughput: 4096.0 sequences/s Per-sample Latency: 16.0 16.0 16.0 16.0 16.0 seconds (mean min max p99 p99.9) |
            2021-03-19 18:49:38 INFO Program Finished|
        "#]],
    );
}

#[test]
fn real_data_counts_its_steps() {
    let dataset = Dataset {
        steps_per_epoch: 3,
        origin: SampleOrigin::Records { cached: true },
        files: vec!["a".into(), "b".into()],
    };
    check_with(
        "--epochs 2 --steps-per-log 2 --gradient-accumulation-factor 16 --input-files a b --epochs-to-cache 1",
        &dataset,
        metrics(),
        expect![[r#"
            2021-03-19 18:49:38 INFO Program Start|
            2021-03-19 18:49:38 INFO Hostname: host|
            2021-03-19 18:49:38 INFO Command Executed: ['ipu-bench', 'bert', '--epochs', '2', '--steps-per-log', '2', '--gradient-accumulation-factor', '16', '--input-files', 'a', 'b', '--epochs-to-cache', '1']|
            2021-03-19 18:49:38 INFO Building Model|
            2021-03-19 18:49:38 utils.device INFO Need 3 IPUs. Requesting 4 IPUs.|
            2021-03-19 18:49:38 utils.device INFO Acquired device: simulated mk2-m2000 with 4 IPUs|
            Loading 2 files: ['a', 'b']|
            2021-03-19 18:49:38 bert_data.pretraining_dataset INFO Filling Dataset Cache|
            2021-03-19 18:49:38 bert_data.pretraining_dataset INFO Dataset cache filled in 0.00 seconds.|
            2021-03-19 18:49:38 INFO Dataset length: 3|
            2021-03-19 18:49:38 INFO Creating Session|
            2021-03-19 18:49:38 INFO Compiling Training Graph|
            2021-03-19 18:49:38 INFO Compiled. Duration 1.5 seconds|
            2021-03-19 18:49:38 INFO Training Started|
            2021-03-19 18:49:38 INFO Iteration:      0 Epoch:   0.00/2 Loss (MLM NSP):   nan   nan Accuracy (MLM NSP):   nan   nan Learning Rate: 0.00080 Duration: 16.0000 s Throughput: 4096.0 sequences/s |
            2021-03-19 18:49:38 INFO Iteration:      2 Epoch:   0.67/2 Loss (MLM NSP):   nan   nan Accuracy (MLM NSP):   nan   nan Learning Rate: 0.00080 Duration: 16.0000 s Throughput: 4096.0 sequences/s |
            2021-03-19 18:49:38 INFO Iteration:      4 Epoch:   1.33/2 Loss (MLM NSP):   nan   nan Accuracy (MLM NSP):   nan   nan Learning Rate: 0.00080 Duration: 16.0000 s Throughput: 4096.0 sequences/s |
            2021-03-19 18:49:38 INFO Training Finished|
            2021-03-19 18:49:38 INFO Program Finished|
        "#]],
    );
}

#[test]
fn sessions_warn_in_the_published_order() {
    let warned = |line: &str| {
        let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
        let request = prepare(&given, Date::from_unix(0)).unwrap().request;
        let lines = before_compile(&request, &Dataset::made());
        let place = |text: &str| lines.iter().position(|line| line.text.starts_with(text));
        let (from, to) = (place("Dataset length").unwrap(), place("Creating").unwrap());
        let between = lines[from + 1..to].iter();
        between
            .map(|line| (line.level, line.text.clone()))
            .collect::<Vec<_>>()
    };
    let fully_connected = (
        Level::Warning,
        "Fully connected pass has been disabled. This may cause SQuAD 384 12-layer to go OOM."
            .to_string(),
    );
    let remote = (
        Level::Warning,
        "Remote Optimizer State with SGD/SGD+M is not a recommended configuration".to_string(),
    );
    let synthetic = |kind: &str| {
        let text = format!("Running with Synthetic Data Type 'SyntheticDataMode.{kind}'");
        (Level::Info, text)
    };
    let squad = "--task SQUAD --sequence-length 384 --inference --disable-fully-connected-pass";
    assert_eq!(
        warned(&format!(
            "{squad} --synthetic-data --optimizer-state-offchip"
        )),
        [
            fully_connected.clone(),
            synthetic("RandomNormal"),
            remote.clone()
        ]
    );
    assert_eq!(
        warned(&format!("{squad} --generated-data")),
        [fully_connected]
    );
    assert_eq!(
        warned("--task SQUAD --inference --disable-fully-connected-pass --generated-data"),
        []
    );
    assert_eq!(
        warned("--synthetic-data --synthetic-data-initializer zeros --inference"),
        [synthetic("Zeros")]
    );
}

/// What the lines of steps say, behind the date.
fn steps(line: &str) -> Vec<String> {
    let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
    let request = prepare(&given, Date::from_unix(0)).unwrap().request;
    let (dataset, metrics) = (Dataset::made(), metrics());
    let lines = after_compile(&request.options, &dataset, &metrics, HostSeconds(1.5));
    let texts = lines.map(|line| line.text);
    texts
        .filter(|text| text.starts_with("Iteration:"))
        .collect()
}

#[test]
fn every_release_has_its_form_of_training() {
    for (release, pretraining, squad) in [
        (
            "96fef3f",
            "Iteration:      0 Epoch:   0.00/1 Loss (MLM NSP):   nan   nan Accuracy (MLM NSP):   \
             nan   nan Learning Rate: 0.00080 Duration: 16.0000 s Throughput: 4096.0 samples/s ",
            "Iteration:      0 Epoch:   0.00/1 Loss:   nan Accuracy:   nan Learning Rate: 0.00080 \
             Duration: 16.0000 s Throughput: 4096.0 samples/s ",
        ),
        (
            "v2.6",
            "Iteration:      0 Epoch:   0.00/1 Loss (MLM NSP):   nan   nan Accuracy (MLM NSP):   \
             nan   nan Learning Rate: 0.00080 Duration: 16.0000 s Throughput: 4096.0 sequences/s ",
            "Iteration:      0 Epoch:   0.00/1 Loss:   nan Accuracy:   nan Learning Rate: 0.00080 \
             Duration: 16.0000 s Throughput: 4096.0 sequences/s ",
        ),
        (
            "v3.0",
            "Iteration:      0 Epoch:   0.00/1 mlm_loss:   nan nsp_loss:   nan mlm_acc:   nan % \
             nsp_acc:   nan % Learning Rate: 0.00080 Duration: 16.0000 s \
             throughput: 4096.0 samples/sec ",
            "Iteration:      0 Epoch:   0.00/1 loss:   nan accuracy:   nan %Learning Rate: \
             0.00080 Duration: 16.0000 s throughput: 4096.0 samples/sec ",
        ),
    ] {
        let line = format!("--epochs 1 --generated-data --release {release}");
        assert_eq!(steps(&line), [pretraining], "{release}");
        assert_eq!(steps(&format!("{line} --task SQUAD")), [squad], "{release}");
    }
}

#[test]
fn every_release_has_its_form_of_inference() {
    let numbers = "Duration: 16.0000 s Throughput: 4096.0 sequences/s";
    for (release, expected) in [
        (
            "96fef3f",
            "Duration: 16.0000 s Throughput: 4096.0 samples/s \
             Per-sample Latency: 16.0 16.0 16.0 seconds (mean min max) "
                .to_owned(),
        ),
        (
            "v2.3",
            format!(
                "{numbers} Per-sample Latency: 16.0 16.0 16.0 16.0 16.0 seconds \
                 (mean min max p99 p99.9) "
            ),
        ),
        (
            "v2.4",
            format!(
                "{numbers} Per-sample: Mean Latency=16.0 Min Latency=16.0 Max Latency=16.0 \
                 p99 Latency=16.0 p999 Latency=16.0 seconds"
            ),
        ),
        (
            "v3.1",
            "Duration: 16.0000 s throughput: 4096.0 samples/sec \
             Per-sample: latency avg: 16000.0 ms, latency min: 16000.0 ms, \
             latency max:16000.0 ms, latency 99p: 16000.0 ms, latency 99p9: 16000.0 ms"
                .to_owned(),
        ),
    ] {
        let line = format!("--inference --task SQUAD --generated-data --release {release}");
        assert_eq!(steps(&line), [format!("Iteration:      0 {expected}")]);
    }
    let found = steps("--inference --generated-data --release v3.0");
    assert!(
        found[0].starts_with("Iteration:      0 mlm_acc:   nan %nsp_acc:   nan %Duration:"),
        "{found:?}"
    );
}

/// With both ends given, steps count from v2.1 on; which one ends the run stays the same.
#[test]
fn steps_stand_before_epochs() {
    let preset = r#"{"epochs": 2, "training_steps": 1}"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    std::fs::write(&path, preset).unwrap();
    for (release, expected) in [
        ("96fef3f", "Iteration:      0 Epoch:   0.00/2 "),
        ("v2.1", "Iteration:     0/1 "),
    ] {
        let line = format!(
            "--config {} --generated-data --release {release}",
            path.display()
        );
        let found = steps(&line);
        assert!(found[0].starts_with(expected), "{found:?}");
        assert_eq!(found.len(), 1);
    }
}

/// A linear schedule ends with the steps from v2.3 on, and with the epoch before.
#[test]
fn a_linear_schedule_ends_with_the_steps() {
    let dataset = Dataset {
        steps_per_epoch: 8,
        ..Dataset::made()
    };
    for (release, expected) in [("v2.2", 8), ("v2.3", 5)] {
        let line = format!("--training-steps 5 --generated-data --release {release}");
        let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
        let request = prepare(&given, Date::from_unix(0)).unwrap().request;
        assert_eq!(scheduled_steps(&request.options, &dataset), expected);
    }
}

#[test]
fn loaders_say_what_they_load() {
    let printed = |line: &str, dataset: &Dataset| {
        let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
        let request = prepare(&given, Date::from_unix(0)).unwrap().request;
        let lines = before_compile(&request, dataset);
        let lines = lines.iter().filter(|line| line.appears(Level::Critical));
        lines
            .map(|line| line.render(Date::from_unix(0)))
            .collect::<Vec<_>>()
    };
    let files = Dataset {
        steps_per_epoch: 1,
        origin: SampleOrigin::Records { cached: false },
        files: vec!["a".into(), "b".into()],
    };
    let line = "--epochs 1 --input-files a b";
    assert_eq!(printed(line, &files), ["Loading 2 files: ['a', 'b']"]);
    let made = Dataset::made();
    let generated = "--epochs 1 --generated-data";
    assert_eq!(printed(generated, &made), ["Loading 0 files: []"]);
    for none in ["--release 96fef3f", "--task SQUAD"] {
        assert!(printed(&format!("{generated} {none}"), &made).is_empty());
    }
}

#[test]
fn a_limit_of_merged_copies_is_said() {
    for (bytes, expected) in [("-1", false), ("32000", true)] {
        let line = format!("--epochs 1 --generated-data --max-copy-merge-size {bytes}");
        let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
        let request = prepare(&given, Date::from_unix(0)).unwrap().request;
        let lines = before_compile(&request, &Dataset::made());
        let found = lines
            .iter()
            .any(|line| line.text == "Copy merge size limit set to 32000");
        assert_eq!(found, expected, "{bytes}");
    }
}

/// Nobody walks through what isn't printed: a run of more steps and micro-batches than anybody could
/// wait for has its lines at once.
#[test]
fn lines_that_do_not_appear_are_not_made() {
    let mut measured = metrics();
    let alike = Samples {
        value: ipu_sim::units::SimSeconds(1e-3),
        count: u64::MAX / 2,
    };
    measured.latencies = vec![alike];
    measured.latency_seconds = latency(&measured.latencies);
    let training = "--config pretrain_large_128.json --generated-data --steps-per-log 1";
    let inference = "--config squad_large_128_inf.json --generated-data --low-latency-inference \
                     --steps-per-log 1";
    for (line, expected) in [
        (
            format!("{training} --epochs 1000000000 --log-level ERROR"),
            Some(3),
        ),
        (
            format!("{inference} --epochs-inference 1000000000 --log-level ERROR"),
            Some(2),
        ),
        // One step whose micro-batches would be lines of a lower level.
        (
            format!("{inference} --epochs-inference 1 --log-level INFO"),
            None,
        ),
    ] {
        let given = args::parse(line.split_whitespace().map(String::from)).unwrap();
        let prepared = prepare(&given, Date::from_unix(0)).unwrap();
        let dataset = Dataset {
            steps_per_epoch: match expected {
                Some(_) => 1 << 40,
                None => 1,
            },
            ..Dataset::made()
        };
        let options = &prepared.request.options;
        let lines = after_compile(options, &dataset, &measured, HostSeconds(1.5));
        assert_eq!(lines.count(), expected.unwrap_or(3), "{line}");
    }
}

#[test]
fn steps_are_logged_at_multiples() {
    let all = |every, first, end| multiples(every, first, end).collect::<Vec<u64>>();
    assert_eq!(all(3, 0, 10), [0, 3, 6, 9]);
    assert_eq!(all(3, 4, 9), [6]);
    assert_eq!(all(3, 7, 9), [0_u64; 0]);
    assert_eq!(all(1 << 63, 1, u64::MAX), [1 << 63]);
    assert_eq!(all(1 << 63, (1 << 63) + 1, u64::MAX), [0_u64; 0]);
}

/// With data that is made, weights are, too; else a checkpoint is named, by any of its names.
#[test]
fn weights_come_from_somewhere() {
    let check = |line: &str, expected: [&[&str]; 2]| {
        let words = format!("--task SQUAD --epochs 1 --checkpoint-dir out {line}");
        let given = args::parse(words.split_whitespace().map(String::from)).unwrap();
        let prepared = prepare(&given, Date::from_unix(0)).unwrap();
        let runs = [Some(&prepared.request), prepared.validation.as_ref()];
        let lines = runs.map(|request| {
            let lines = request.map_or(vec![], |request| before_compile(request, &Dataset::made()));
            let texts = lines.into_iter().map(|line| line.text);
            let of_weights = texts.filter(|text| text.starts_with("Initialising"));
            of_weights.collect::<Vec<_>>()
        });
        assert_eq!(lines, expected.map(<[_]>::to_vec), "{line}");
    };
    const TRAINED: &str = "Initialising from ONNX checkpoint: out/70-01-01-00-00-00/model.onnx";
    check("--input-files q.json", [&[], &[TRAINED]]);
    let given = "Initialising from ONNX checkpoint: a/m.onnx";
    for name in ["--onnx-checkpoint", "--checkpoint-input-dir"] {
        let line = format!("{name} a/m.onnx --input-files q.json");
        check(&line, [&[given], &[TRAINED]]);
        check(&format!("{line} --no-validation"), [&[given], &[]]);
        check(&format!("{line} --inference"), [&[given], &[]]);
        let made = "Initialising from generated_data";
        let line = format!("{name} a/m.onnx --generated-data");
        check(&line, [&[made], &[made]]);
    }
    let of_tensorflow = "Initialising from TF checkpoint: b/model.ckpt";
    check(
        "--tf-checkpoint b/model.ckpt --input-files q.json",
        [&[of_tensorflow], &[TRAINED]],
    );
}

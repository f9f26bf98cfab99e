//! Every machine that ships, and some that don't, through the whole program.
#![cfg(test)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ipu_sim::spec::shipped;
use serde_json::Value;

/// One encoder layer on one IPU.
const SMALL: &str = "--task SQUAD --inference --generated-data --no-model-save \
    --num-layers 1 --layers-per-ipu 1 --encoder-start-ipu 0 --hidden-size 256 --attention-heads 4 \
    --sequence-length 128 --vocab-length 2048 --dtype FLOAT16 --batches-per-step 4 \
    --use-default-available-memory-proportion true";

/// The first line of the benchmark, with data of its own.
const LINE_1: &str = "--config configs/mk2/pretrain_large_128.json --generated-data true \
    --epochs 1 --no-model-save --no-validation --steps-per-log 1";

fn bert(folder: &Path, options: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .arg("bert")
        .args(options.split_whitespace())
        .args(more)
        .current_dir(folder)
        .output()
        .expect("the command was built for this test")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// (system, whether line 1 fits there, or what keeps it from running)
#[test]
fn line_1_on_every_machine_that_ships() {
    let expected = [
        ("mk1-server16", Err("out of memory on IPU ")),
        ("mk2-m2000", Err("has 4 IPUs, the configuration needs 16")),
        ("mk2-pod16", Ok(())),
        ("mk2-pod64", Ok(())),
        ("mk2-pod128", Ok(())),
        ("mk2-pod256", Ok(())),
        ("bow-pod16", Ok(())),
        ("bow-pod64", Ok(())),
        ("bow-pod128", Ok(())),
        ("bow-pod256", Ok(())),
    ];
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, shipped::machines());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (system, outcome) in expected {
        let output = bert(&root, LINE_1, &["--system", system]);
        match outcome {
            Ok(()) => {
                assert!(output.status.success(), "{system}: {}", stderr(&output));
                let stdout = String::from_utf8_lossy(&output.stdout);
                assert!(stdout.contains("sequences/s"), "{system}: {stdout}");
            }
            Err(reason) => {
                assert_eq!(output.status.code(), Some(1), "{system}");
                assert!(stderr(&output).contains(reason), "{}", stderr(&output));
            }
        }
    }
}

#[test]
fn mk1_runs_what_fits_its_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let output = bert(folder.path(), SMALL, &["--system", "mk1-server16"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Pre-training in a pipeline of two IPUs, in two replicas that share their optimiser's state.
const PIPELINE: &str = "--generated-data true --no-model-save --epochs 1 --mask-tokens 4 \
    --optimizer LAMB --hidden-size 64 --attention-heads 1 --sequence-length 32 \
    --vocab-length 512 --encoder-start-ipu 0 --num-layers 2 --layers-per-ipu 1 1 \
    --execution-mode PIPELINE --batches-per-step 1 --gradient-accumulation-factor 8 \
    --replication-factor 2 --replicated-tensor-sharding true --optimizer-state-offchip true";

/// Metrics of the small model on a machine that differs from `mk2-m2000` as `changes` say.
fn on_own(changes: &str) -> Value {
    metrics(SMALL, changes).unwrap_or_else(|error| panic!("{changes}: {error}"))
}

/// Metrics of a run on such a machine, or what the command says instead.
fn metrics(options: &str, changes: &str) -> Result<Value, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "name = \"mine\"\nbase = [\"mk2-m2000\"]\n".to_owned();
    for line in changes.lines().map(str::trim) {
        text += &match line.split_once(" = ") {
            Some((key, value)) => {
                format!("{key} = {{ value = {value}, kind = \"assumed\", source = \"what if\" }}\n")
            }
            None => format!("{line}\n"),
        };
    }
    fs::write(folder.path().join("mine.toml"), text).unwrap();
    let more = ["--system", "mine.toml", "--metrics-json", "metrics.json"];
    let output = bert(folder.path(), options, &more);
    if !output.status.success() {
        return Err(stderr(&output));
    }
    let text = fs::read_to_string(folder.path().join("metrics.json")).unwrap();
    Ok(serde_json::from_str(&text).unwrap())
}

fn cycles(metrics: &Value) -> u64 {
    metrics["step_cycles"].as_u64().unwrap()
}

fn fullest_tile(metrics: &Value) -> u64 {
    metrics["ipus"][0]["max_tile_bytes"].as_u64().unwrap()
}

#[test]
fn a_chip_of_ones_own_is_used_as_it_is_described() {
    let usual = on_own("");
    let same = on_own("[chip]\ntiles = 1472");
    assert_eq!(cycles(&same), cycles(&usual));
    assert_eq!(fullest_tile(&same), fullest_tile(&usual));

    // Fewer tiles have more to do, and more to hold.
    let fewer = on_own("[chip]\ntiles = 368");
    assert!(cycles(&fewer) > cycles(&usual));
    assert!(fullest_tile(&fewer) > fullest_tile(&usual));

    // The number of a Mk1 chip, an even one that is no multiple of a block, and an odd one, which
    // leaves a tile without a partner on its exchange bus.
    for changes in [
        "[chip]\ntiles = 1216",
        "[chip]\ntiles = 1002",
        "[chip]\ntiles = 1471\ntiles_per_exchange_bus = 1",
        "[chip]\ntiles = 101\ntiles_per_exchange_bus = 1",
    ] {
        let metrics = on_own(changes);
        assert_eq!(metrics["fits"], true, "{changes}");
        assert!(cycles(&metrics) > 0, "{changes}");
    }

    // Work takes the same cycles at any clock, the host's time takes more of them.
    let faster = on_own("[chip]\nclock = \"2.65 GHz\"");
    let seconds = |metrics: &Value| metrics["step_seconds"].as_f64().unwrap();
    assert!(seconds(&faster) < seconds(&usual));
    assert!(cycles(&faster) > cycles(&usual));

    // A host at a tenth of the rate.
    let starved = on_own("[host]\nmachine_bandwidth = \"1.25 GB/s\"");
    assert!(cycles(&starved) > cycles(&usual));

    // More memory changes plans at most, never what is available.
    let roomy = on_own("[chip]\nmemory = \"1248 KiB\"\n[memory]\ninterleaved = \"1040 KiB\"");
    assert_eq!(roomy["fits"], true);
}

/// A pipeline with replicas on other links, streaming memory, clocks and tiles: the step takes
/// less time where something is faster, and more where it is slower.
#[test]
fn a_pod_of_ones_own_is_as_fast_as_it_is_described() {
    let seconds = |changes: &str| {
        let metrics = metrics(PIPELINE, changes);
        let metrics = metrics.unwrap_or_else(|error| panic!("{changes}: {error}"));
        metrics["step_seconds"].as_f64().unwrap()
    };
    let usual = seconds("");
    for changes in [
        "[links]\nraw = \"32 GB/s\"\nusable = \"26.5 GB/s\"",
        "[links]\nlatency = \"100 ns\"",
        "[streaming_memory]\nbandwidth = \"40 GB/s\"",
        "[chip]\nclock = \"2.65 GHz\"",
        "[compute]\ntrust_ratio = \"100000 cycles\"",
    ] {
        assert!(seconds(changes) < usual, "{changes}");
    }
    for changes in [
        "[links]\nusable = \"1 GB/s\"",
        "[links]\nlinks_per_flow = 1",
        "[streaming_memory]\nbandwidth = \"2 GB/s\"",
        "[chip]\nclock = \"0.5 GHz\"",
        "[chip]\ntiles = 64",
    ] {
        assert!(seconds(changes) > usual, "{changes}");
    }
}

/// What is too small is refused with region, IPU, tile and bytes.
#[test]
fn memory_of_ones_own_is_all_there_is() {
    let outcome = |memory: &str, executable: &str, interleaved: &str| {
        let changes = format!(
            "[chip]\nmemory = \"{memory}\"\nmemory_element = \"8 KiB\"\n\
             [memory]\nexecutable = \"{executable}\"\ninterleaved = \"{interleaved}\""
        );
        metrics(SMALL, &changes).map(|metrics| cycles(&metrics))
    };
    let small = outcome("24 KiB", "16 KiB", "8 KiB").unwrap_err();
    assert!(small.contains("out of memory on IPU 0, tile "), "{small}");
    assert!(small.contains("expected at most 24576 B, got "), "{small}");
    let code = outcome("624 KiB", "8 KiB", "616 KiB").unwrap_err();
    let region = "out of executable memory on IPU 0, tile ";
    assert!(code.contains(region), "{code}");
    assert!(code.contains("expected at most 8192 B, got "), "{code}");
    assert!(code.contains("largest: vertex_code "), "{code}");
    // Its code fits twice of that.
    outcome("624 KiB", "16 KiB", "608 KiB").unwrap();
}

#[test]
fn a_mistake_in_a_description_is_shown_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name = \"mine\"\nbase = [\"mk2-m2000\"]\n[chip]\n  clok = \
        { value = \"2 GHz\", kind = \"assumed\", source = \"what if\" }\n";
    fs::write(folder.path().join("mine.toml"), text).unwrap();
    for words in [
        &format!("bert {SMALL} --system mine.toml"),
        "systems mine.toml",
        "devices --system mine.toml",
        "plan 8 8 8 --system mine.toml",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
            .args(words.split_whitespace())
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let place = "system mine.toml: line 4, column 3: unknown constant `chip.clok` \
            (did you mean `chip.clock`?)";
        assert!(stderr(&output).contains(place), "{}", stderr(&output));
    }
}

//! What the ten lines resolve to, and what becomes of their results.

use serde_json::{Value, json};

use super::*;
use crate::metrics::fixtures::measured;
use crate::{Error, report};

fn date() -> Date {
    Date::from_unix(0)
}

fn request(run: &SuiteRun) -> RunRequest {
    let mut given = args::parse(run.arguments.iter().cloned()).unwrap();
    given.own.insert("system", run.system.into());
    prepare(&given, date()).unwrap().request
}

#[test]
fn eighteen_runs_with_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = runs().into_iter().map(|run| run.name).collect();
    assert_eq!((runs().len(), names.len()), (18, 18));
}

/// Micro batch, replicas, accumulation, global batch, IPUs, loss scaling, epochs of each line (of
/// the first run, where it has several), as the published harness resolves them.
#[test]
fn lines_resolve_to_the_published_batches() {
    let all = runs();
    let expected = [
        (0, (8, 4, 2048, 65536, 16), json!(64.0), json!(1)),
        (1, (8, 16, 512, 65536, 64), json!(64.0), json!(1)),
        (2, (2, 4, 2048, 16384, 16), json!(64.0), json!(1)),
        (3, (2, 16, 512, 16384, 64), json!(64.0), json!(10)),
        (4, (2, 16, 512, 16384, 64), json!(64.0), json!(1)),
        (5, (32, 4, 512, 65536, 16), json!(512.0), json!(1)),
        (6, (8, 16, 512, 65536, 64), json!(128.0), json!(1)),
        (7, (8, 4, 512, 16384, 16), json!(128.0), json!(1)),
        (8, (1, 1, 1, 1, 1), json!(4.0), json!(null)),
        (10, (3, 1, 1, 3, 1), json!(4.0), json!(null)),
        (11, (1, 1, 1, 1, 1), json!(4.0), json!(null)),
        (17, (64, 1, 1, 64, 1), json!(4.0), json!(null)),
    ];
    for (place, numbers, loss_scaling, epochs) in expected {
        let request = request(&all[place]);
        let config = &request.options.config;
        let actual = (
            config.model.micro_batch,
            config.batching.replicas,
            config.batching.accumulation,
            config.global_batch_size(),
            config.ipus_requested(),
        );
        assert_eq!(actual, numbers, "{}", all[place].name);
        let resolved = request.options.arguments();
        assert_eq!(resolved["loss_scaling"], loss_scaling);
        assert_eq!(resolved["epochs"], epochs);
        assert_eq!(resolved["training_steps"], json!(null));
        let inference = place >= 8;
        let mode = if inference { "DEFAULT" } else { "PIPELINE" };
        assert_eq!(resolved["execution_mode"], mode);
        assert_eq!(resolved["low_latency_inference"], inference);
    }
}

/// The words of the lines against the keys that the library has of them.
#[test]
fn words_and_keys_are_the_same_runs() {
    let of_keys = bench_core::suite::runs();
    let of_words = runs();
    assert_eq!(of_keys.len(), of_words.len());
    for (keys, words) in of_keys.iter().zip(&of_words) {
        let request = request(words);
        assert_eq!(
            (&keys.name, &keys.machine),
            (&words.name, &request.machine.spec)
        );
        assert_eq!(keys.config, request.options.config, "{}", keys.name);
    }
}

#[test]
fn results_of_good_and_failed_runs() {
    let all = runs();
    let good = run_one(&all[0], date(), |_| Ok(measured()));
    let packed = run_one(&all[1], date(), |_| {
        let mut measured = measured();
        measured.metrics.throughput_packs_per_second = Some(2048.5);
        Ok(measured)
    });
    let bad = run_one(&all[8], date(), |_| {
        Err(Error::File {
            action: "read",
            path: "outer".into(),
            source: std::io::Error::other("inner"),
        })
    });
    let entries = [good, packed, bad];
    assert_eq!(
        report::csv::text(&entries)
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "1-large-128-pod16,mk2-pod16,4096,,4000,4194.304,true,,,16,21200000000,600000,true,1.5,0.25,",
            "2-large-128-pod64,mk2-pod64,4096,2048.5,4000,4194.304,true,,,16,21200000000,600000,true,1.5,0.25,",
            "9-squad-low-latency-128-b1,mk2-m2000,,,,,,,,,,,,,,cannot read outer: inner",
        ]
    );
    expect_test::expect![[r#"
        | run                        | system    | sequences/s | packs/s | 90 % interval | domain | latency ms | step s | fullest tile B | fits |
        |----------------------------|-----------|-------------|---------|---------------|--------|------------|--------|----------------|------|
        | 1-large-128-pod16          | mk2-pod16 |        4096 |       - |   4000 - 4194 |     in |          - |  16.00 |         600000 |  yes |
        | 2-large-128-pod64          | mk2-pod64 |        4096 |    2048 |   4000 - 4194 |     in |          - |  16.00 |         600000 |  yes |
        | 9-squad-low-latency-128-b1 | mk2-m2000 |      failed |       - |             - |      - |          - |      - |              - |    - |"#]].assert_eq(&report::table::text(&entries, None));
    // Without packs, there is no column of them.
    let without = report::table::text(&entries[..1], None);
    assert!(!without.contains("packs/s"), "{without}");
    // As fast with four times the IPUs is a quarter for each.
    let relative = report::table::text(&entries, Some(&all[0].name));
    let cells: Vec<&str> = relative
        .lines()
        .map(|line| line.split('|').nth(6).unwrap().trim())
        .collect();
    assert_eq!(cells[0], format!("over {}", all[0].name));
    assert!(cells[3].starts_with("1.00 (") && cells[3].ends_with("), 25 % an IPU"));
    assert_eq!(cells[4], "-", "a run that failed has no ratio");
    let json: Value = serde_json::from_str(&report::json::text(&entries)).unwrap();
    assert_eq!(json[0]["report"]["throughput_sequences_per_second"], 4096.0);
    assert_eq!(json[0]["report"]["options"]["micro_batch_size"], 8);
    assert_eq!(json[2]["error"], "cannot read outer: inner");
}

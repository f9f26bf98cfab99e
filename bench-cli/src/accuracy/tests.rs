use super::*;
use crate::clock::Date;
use crate::request::prepare;
use crate::{args, suite};

fn features(words: &str) -> Features {
    let given = args::parse(words.split_whitespace().map(String::from)).unwrap();
    let request = prepare(&given, Date::now()).unwrap().request;
    Features::new(&request.options, &request.machine.spec)
}

fn record(log_errors: &[f64], words: &str) -> Record {
    let runs = log_errors.iter().map(|&log_error| MeasuredRun {
        name: "run".into(),
        log_error,
        features: features(words),
    });
    Record {
        runs: runs.collect(),
    }
}

const LARGE: &str = "--config configs/mk2/pretrain_large_128.json --generated-data true --epochs 1";

#[test]
fn an_interval_is_the_spread_of_the_errors() {
    let record = record(&[0.03, -0.04], LARGE);
    let found = record.accuracy(1000.0, &features(LARGE));
    assert!(found.in_domain && found.reasons.is_empty());
    // Root mean square of 0.03 and 0.04; two degrees of freedom.
    let half = 2.920 * (0.00125_f64).sqrt();
    assert!((found.interval.high / 1000.0 - half.exp()).abs() < 1e-9);
    assert!((found.interval.low * found.interval.high - 1e6).abs() < 1e-3);
}

#[test]
fn what_was_not_measured_is_named_and_widens_the_interval() {
    let record = record(&[0.05], LARGE);
    let check = |words: &str, distance: f64, reasons: &[&str]| {
        let features = features(words);
        let domain = Domain::of(record.runs.iter().map(|run| &run.features));
        let (found, named) = domain.distance(&features);
        assert!(
            (found - distance).abs() < 1e-9,
            "{words}: {found} {named:?}"
        );
        assert_eq!(named, reasons, "{words}");
        let accuracy = record.accuracy(100.0, &features);
        assert_eq!(accuracy.in_domain, reasons.is_empty());
        let wide = (6.314 * 0.05 * (1.0 + distance).sqrt()).exp();
        assert!((accuracy.interval.high / 100.0 - wide).abs() < 1e-9);
    };
    check(LARGE, 0.0, &[]);
    check(
        &format!("{LARGE} --sequence-length 32 --mask-tokens 10"),
        2.0,
        &["sequence length: 32, measured 128"],
    );
    check(
        &format!("{LARGE} --optimizer ADAM"),
        1.0,
        &["optimiser: Adam was never measured"],
    );
    let inference = "--config configs/mk2/squad_base_128_inf.json --generated-data true";
    let named = record.accuracy(1.0, &features(inference)).reasons;
    assert!(
        named.contains(&"mode: inference was never measured".into()),
        "{named:?}"
    );
}

#[test]
fn the_shipped_record_covers_training_and_no_inference() {
    let record = Record::shipped();
    assert_eq!(toml::from_str::<Record>(&record.to_toml()).unwrap(), record);
    for run in suite::runs() {
        let words = run.arguments.join(" ");
        let found = record.accuracy(1.0, &features(&words));
        let inference = words.contains("--inference");
        let unmeasured = found
            .reasons
            .iter()
            .any(|reason| reason.starts_with("mode:"));
        assert_eq!(inference, unmeasured, "{}: {:?}", run.name, found.reasons);
        assert_eq!(found.in_domain, found.reasons.is_empty());
        assert!(found.interval.low < 1.0 && found.interval.high > 1.0);
    }
    let large = record.accuracy(1.0, &features(LARGE));
    assert!(large.in_domain, "{:?}", large.reasons);
}

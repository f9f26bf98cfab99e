use ipu_sim::engine;
use ipu_sim::spec::constant::{ConstantId, Expense};
use ipu_sim::spec::quantity::Value;
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;

use super::*;
use crate::compile::compile;
use crate::config::RunConfig;
use crate::evaluate::TIMING;
use crate::explain::Explanation;
use crate::sensitivity::changed;
use crate::sensitivity::constants::Change;
use crate::suite;
use crate::testing::run;

/// A run that no time was taken of.
fn untimed(words: &str) -> Subject {
    let (config, machine) = run(words);
    untimed_run(&config, &machine)
}

fn untimed_run(config: &RunConfig, machine: &MachineSpec) -> Subject {
    let time = Explanation::default();
    Subject {
        features: Features::new(config, machine, &time),
        effects: Effects::default(),
        constants: Constants::of(machine),
        fits: true,
    }
}

fn measured(log_error: f64, features: Features) -> MeasuredRun {
    MeasuredRun {
        name: "run".into(),
        system: "mk2-pod16".into(),
        log_error,
        residual: None,
        left_open: [0.0; 2],
        features,
        effects: BTreeMap::new(),
    }
}

fn record(log_errors: &[f64], words: &str) -> Record {
    let features = untimed(words).features;
    let runs = log_errors.iter();
    Record {
        constants: BTreeMap::new(),
        runs: runs
            .map(|&error| measured(error, features.clone()))
            .collect(),
    }
}

const LARGE: &str = "--config configs/mk2/pretrain_large_128.json --generated-data true --epochs 1";

#[test]
fn an_interval_is_the_spread_of_the_errors() {
    let record = record(&[0.03, -0.04], LARGE);
    let found = record.accuracy(1000.0, &untimed(LARGE));
    assert!(found.in_domain && found.reasons.is_empty());
    // Root mean square of 0.03 and 0.04; two degrees of freedom.
    let half = 2.920 * (0.00125_f64).sqrt();
    assert!((found.interval.high / 1000.0 - half.exp()).abs() < 1e-9);
    assert!((found.interval.low * found.interval.high - 1e6).abs() < 1e-3);
    assert!((found.uncertainty.from_errors - 1.0).abs() < 1e-12);
}

#[test]
fn what_was_not_measured_is_named_and_widens_the_interval() {
    let record = record(&[0.05], LARGE);
    let check = |words: &str, distance: f64, reasons: &[&str]| {
        let subject = untimed(words);
        let domain = Domain::of(record.runs.iter().map(|run| &run.features));
        let (found, named) = domain.distance(&subject.features);
        assert!(
            (found - distance).abs() < 1e-9,
            "{words}: {found} {named:?}"
        );
        assert_eq!(named, reasons, "{words}");
        let accuracy = record.accuracy(100.0, &subject);
        assert_eq!(accuracy.in_domain, reasons.is_empty());
        let wide = (6.314 * 0.05 * (1.0 + distance).sqrt()).exp();
        assert!((accuracy.interval.high / 100.0 - wide).abs() < 1e-9);
    };
    check(LARGE, 0.0, &[]);
    // Tokens of a micro-batch are as far away as the length that makes them so, and count once.
    check(
        &format!("{LARGE} --sequence-length 32 --mask-tokens 10"),
        2.0,
        &[
            "masked tokens: 10, measured 20",
            "sequence length: 32, measured 128",
            "tokens of a micro-batch: 256, measured 1024",
        ],
    );
    check(
        &format!("{LARGE} --optimizer ADAM"),
        1.0,
        &["optimiser: Adam was never measured"],
    );
    check(
        &format!("{LARGE} --activation-type RELU --split-qkv false"),
        2.0,
        &[
            "activation: ReLU was never measured",
            "split QKV: off was never measured",
        ],
    );
    // Heads of half the size, twice as many.
    check(
        &format!("{LARGE} --attention-heads 32"),
        1.0,
        &["size of a head: 32, measured 64"],
    );
    // The larger one says it for both, where the smaller one is no farther away.
    check(
        &format!("{LARGE} --available-memory-proportion 0.5"),
        libm::log2(0.5 / 0.15),
        &[
            "largest memory proportion: 0.5, measured 0.25",
            "least memory proportion: 0.5, measured 0.15",
        ],
    );
    // What lies on either side isn't covered by the other.
    check(
        &format!("{LARGE} --available-memory-proportion 0.05 0.25 0.25 0.5"),
        libm::log2(0.15 / 0.05) + 1.0,
        &[
            "largest memory proportion: 0.5, measured 0.25",
            "least memory proportion: 0.05, measured 0.15",
        ],
    );
    let inference = "--config configs/mk2/squad_base_128_inf.json --generated-data true";
    let named = record.accuracy(1.0, &untimed(inference)).reasons;
    assert!(
        named.contains(&"mode: inference was never measured".into()),
        "{named:?}"
    );
}

#[test]
fn a_size_that_only_others_together_make_is_outside_by_itself() {
    let run = |more: &str| untimed(&format!("{LARGE} {more}")).features;
    let runs = [
        run("--micro-batch-size 8"),
        run("--micro-batch-size 2 --sequence-length 512 --mask-tokens 20"),
    ];
    let domain = Domain::of(runs.iter());
    let (distance, named) = domain.distance(&run("--micro-batch-size 2"));
    assert_eq!(named, ["tokens of a micro-batch: 256, measured 1024"]);
    assert!((distance - 2.0).abs() < 1e-9);
}

#[test]
fn what_another_front_end_measured_is_not_inside() {
    let own = untimed(LARGE).features;
    let mut other = untimed(&format!("{LARGE} --micro-batch-size 16")).features;
    let wanted = other.clone();
    let inside = Domain::of([&own, &other].into_iter());
    assert_eq!(inside.distance(&wanted).0, 0.0);
    other.set_front_end("PaddlePaddle");
    let outside = Domain::of([&own, &other].into_iter());
    assert!(outside.distance(&wanted).0 > 0.0);
}

#[test]
fn releases_that_were_never_measured_are_outside() {
    let reasons = |release: &str| {
        let subject = untimed(&format!("{LARGE} --release {release}"));
        Record::shipped().accuracy(1.0, &subject).reasons
    };
    assert!(reasons("v2.1").is_empty());
    let named = reasons("96fef3f");
    assert!(
        named.contains(&"release: 96fef3f was never measured".into()),
        "{named:?}"
    );
}

#[test]
fn a_run_that_does_not_fit_is_outside() {
    let record = record(&[0.05], LARGE);
    let subject = Subject {
        fits: false,
        ..untimed(LARGE)
    };
    let found = record.accuracy(100.0, &subject);
    assert!(!found.in_domain);
    assert_eq!(found.reasons, ["it does not fit in memory"]);
    assert!(found.text().ends_with(": it does not fit in memory"));
    assert!((found.uncertainty.from_distance - 0.5).abs() < 1e-12);
}

fn uncertain(fitted: bool) -> UncertainConstant {
    UncertainConstant {
        value: "1 us".into(),
        range: ["0.5 us".into(), "2 us".into()],
        fitted,
    }
}

const FITTED: ConstantId = ConstantId::ComputeTrustRatio;
const ASSUMED: ConstantId = ConstantId::LinksLatency;

/// Three rows that a constant was fitted to, and a constant that wasn't, with what a run depends on
/// both.
fn with_constants(fitted: Effect, assumed: Effect) -> (Record, Subject) {
    let subject = untimed(LARGE);
    let row = |slope: f64, end: f64, residual: f64| MeasuredRun {
        residual: Some(residual),
        effects: BTreeMap::from([
            (
                FITTED,
                Effect {
                    slope,
                    ends: [0.0; 2],
                },
            ),
            (
                ASSUMED,
                Effect {
                    slope: 0.0,
                    ends: [end, -end],
                },
            ),
        ]),
        ..measured(0.05, subject.features.clone())
    };
    let constants = [(FITTED, true), (ASSUMED, false)];
    let constants = constants.map(|(id, fitted)| (id, uncertain(fitted)));
    let record = Record {
        constants: constants.clone().into(),
        runs: vec![
            row(0.1, 0.02, 0.03),
            row(0.1, 0.02, -0.03),
            row(0.2, 0.04, 0.0),
        ],
    };
    let effects = constants.into_iter().zip([fitted, assumed]);
    let effects = effects.map(|((id, constant), effect)| (id, (constant, effect)));
    let effects = Effects(effects.collect());
    (record, Subject { effects, ..subject })
}

#[test]
fn a_run_that_depends_on_constants_as_measured_runs_do_is_as_certain() {
    let effect = |slope, end: f64| Effect {
        slope,
        ends: [end, -end],
    };
    // Fitted anew, the one makes up for the other in all rows, and here.
    let (record, subject) = with_constants(effect(0.1, 0.0), effect(0.0, 0.02));
    let found = record.accuracy(1.0, &subject).uncertainty;
    assert!(found.from_constants < 1e-12, "{found:?}");
    // A hundred times less of both leaves the error of the measured runs.
    let (record, subject) = with_constants(effect(0.001, 0.0), effect(0.0, 0.0002));
    assert!(record.accuracy(1.0, &subject).uncertainty.from_constants < 1e-12);
}

#[test]
fn what_a_run_depends_on_more_widens_its_interval() {
    let none = Effect::default();
    let all = Effect {
        slope: 0.0,
        ends: [0.3, -0.3],
    };
    let (record, subject) = with_constants(none, all);
    let found = record.accuracy(1.0, &subject);
    // A triangle from -0.3 to 0.3, all of it left because the run has nothing of the fitted one.
    // Three errors less one fitted constant.
    let (constants, errors) = (0.3_f64.powi(2) / 6.0, 1.5 * 0.05_f64.powi(2));
    let half = 2.920 * (constants + errors).sqrt();
    assert!((found.interval.high - half.exp()).abs() < 1e-9, "{found:?}");
    assert_eq!(found.uncertainty.constants[0].constant, ASSUMED.key());
    assert!(
        found.text().contains("% from links.latency)"),
        "{}",
        found.text()
    );
    // The fitted one: variance of the rows' residuals, two degrees of freedom, over the squares
    // of their slopes; less what the rows have.
    let fitted = Effect {
        slope: 1.0,
        ends: [0.0; 2],
    };
    let (record, subject) = with_constants(fitted, none);
    let found = record.accuracy(1.0, &subject).uncertainty;
    let of_constant = 0.0018 / 2.0 / 0.06;
    // Were the other one at an end of its range, it would be off by a fifth to make up for that.
    let of_fit = 0.2_f64.powi(2) / 6.0;
    let constants = of_constant * (1.0 - 0.06 / 3.0) + of_fit;
    assert!((found.from_constants - constants / (constants + errors)).abs() < 1e-9);
}

#[test]
fn a_constant_of_another_value_counts_in_full() {
    let all = Effect {
        slope: 0.0,
        ends: [0.02, -0.02],
    };
    let (record, mut subject) = with_constants(Effect::default(), all);
    let (constant, _) = subject.effects.0.get_mut(&ASSUMED).unwrap();
    constant.value = "1.5 us".into();
    let found = record.accuracy(1.0, &subject).uncertainty;
    let (constants, errors) = (0.02_f64.powi(2) / 6.0, 1.5 * 0.05_f64.powi(2));
    assert!((found.from_constants - constants / (constants + errors)).abs() < 1e-9);
}

/// What a constant does to a run, by its prices and by timing the run on the changed machine.
#[test]
fn effects_are_those_of_timing_again() {
    let runs = [
        "--config configs/mk2/squad_large_384_96fef3f.json --generated-data true",
        "--config configs/mk2/squad_base_128_inf.json --generated-data true \
         --minimum-latency-inference true",
        LARGE,
        // Over four racks.
        "--config configs/mk2/pretrain_large_128.json --generated-data true --epochs 1 \
         --replication-factor 64 --global-batch-size 65536 --system mk2-pod256",
    ];
    for words in runs {
        let (config, machine) = run(words);
        let machine = &machine;
        let plans = PlanCache::new(machine.tile.clone());
        let compiled = compile(&config, machine, &plans, Watch::nobody()).unwrap();
        let program = compiled.program;
        let timeline = engine::time(&program, machine, TIMING).unwrap();
        let effects = Effects::of(&timeline, machine);
        assert!(effects.0.len() > 4, "{effects:?}");
        for constant in machine.constants() {
            let Some(range) = constant.range else {
                continue;
            };
            // One sweep is enough for what costs no time.
            if constant.id.expense() == Expense::Memory {
                continue;
            }
            let found = effects.0.get(&constant.id);
            let found = found.map_or([0.0; 2], |(_, effect)| effect.ends);
            for (end, found) in range.into_iter().zip(found) {
                if Value::Quantity(end) == constant.value {
                    continue;
                }
                let value = Change::To(end.to_string().leak());
                let Ok(changed) = changed(machine, &[(constant.id, value)]) else {
                    continue;
                };
                let again = engine::time(&program, &changed, TIMING).unwrap();
                let expected = -libm::log(again.total.0 as f64 / timeline.total.0 as f64);
                let off = (found - expected).abs();
                assert!(
                    off < 0.01 + 0.05 * expected.abs(),
                    "{words}: {} at {end}: {found:.4}, timed again {expected:.4}",
                    constant.id
                );
            }
        }
    }
}

#[test]
fn the_shipped_record_covers_training_and_no_inference() {
    let record = Record::shipped();
    assert_eq!(
        toml::from_str::<Record>(&record.to_toml()).unwrap(),
        *record
    );
    for run in suite::runs() {
        let found = record.accuracy(1.0, &untimed_run(&run.config, &run.machine));
        let inference = run.config.is_inference();
        let unmeasured = found
            .reasons
            .iter()
            .any(|reason| reason.starts_with("mode:"));
        assert_eq!(inference, unmeasured, "{}: {:?}", run.name, found.reasons);
        assert_eq!(found.in_domain, found.reasons.is_empty());
        assert!(found.interval.low < 1.0 && found.interval.high > 1.0);
    }
    let large = record.accuracy(1.0, &untimed(LARGE));
    assert!(large.in_domain, "{:?}", large.reasons);
}

/// Each measured run left out: the interval that the others give holds what was measured as often
/// as it says, within what eight runs can show.
#[test]
fn intervals_hold_what_was_left_out_of_them() {
    let record = Record::shipped();
    let inside = record.runs.iter().enumerate().filter(|(out, run)| {
        let others = record.runs.iter().enumerate();
        let others = others.filter(|(at, _)| at != out);
        let others = Record {
            constants: record.constants.clone(),
            runs: others.map(|(_, run)| run.clone()).collect(),
        };
        let subject = Subject {
            features: run.features.clone(),
            fits: true,
            ..Subject::default()
        };
        let Interval { low, high } = others.accuracy(1.0, &subject).interval;
        let measured = (-run.log_error).exp();
        low <= measured && measured <= high
    });
    let (inside, all) = (inside.count(), record.runs.len());
    assert!(inside + 1 >= all, "{inside} of {all}");
}

/// A run of the record as if it had just been simulated.
fn simulated(record: &Record, run: &MeasuredRun) -> Accuracy {
    let effects = run.effects.iter().filter_map(|(id, effect)| {
        let constant = record.constants.get(id)?.clone();
        Some((*id, (constant, *effect)))
    });
    let subject = Subject {
        features: run.features.clone(),
        effects: Effects(effects.collect()),
        fits: true,
        ..Subject::default()
    };
    record.accuracy(1.0, &subject)
}

/// Of all pairs of measured runs, the interval of the ratio holds the measured one as often as it
/// says, and is no wider than the two intervals by themselves.
#[test]
fn intervals_of_ratios_hold_measured_pairs() {
    let record = Record::shipped();
    let mut inside = 0;
    let mut pairs = 0;
    for (at, first) in record.runs.iter().enumerate() {
        for second in &record.runs[..at] {
            let [a, b] = [first, second].map(|run| simulated(record, run));
            let [known_a, known_b] = [&a, &b].map(|accuracy| ratio::Known {
                throughput: 1.0,
                accuracy,
            });
            let found = record.ratio(known_a, known_b);
            let measured = (second.log_error - first.log_error).exp();
            let Interval { low, high } = found.interval;
            inside += usize::from(low <= measured && measured <= high);
            pairs += 1;
            let alone = a.interval.high * b.interval.high;
            assert!(
                high <= alone * 1.05,
                "{} {}: {high}",
                first.name,
                second.name
            );
        }
    }
    assert!(10 * inside >= 9 * pairs, "{inside} of {pairs}");
}

#[test]
fn a_ratio_is_surer_than_what_it_is_made_of() {
    let record = Record::shipped();
    let known = |accuracy, throughput| ratio::Known {
        throughput,
        accuracy,
    };
    let one = simulated(record, &record.runs[0]);
    let same = record.ratio(known(&one, 5.0), known(&one, 5.0));
    assert_eq!((same.value, same.is_faster), (1.0, 0.5));
    assert_eq!(
        same.interval,
        Interval {
            low: 1.0,
            high: 1.0
        }
    );
    // Alike in all that is looked at: a third of the difference may be wrong.
    let better = record.ratio(known(&one, 5.25), known(&one, 5.0));
    let factor = (one.uncertainty.quantile * 1.05_f64.ln() / 3.0).exp();
    assert!(
        (better.interval.high / (1.05 * factor) - 1.0).abs() < 1e-9,
        "{better:?}"
    );
    assert!(better.interval.low > 1.0, "{better:?}");
    assert!(better.is_faster > 0.95, "{better:?}");
    let worse = record.ratio(known(&one, 5.0), known(&one, 5.25));
    assert!((worse.is_faster + better.is_faster - 1.0).abs() < 1e-9);
    // Others have more between them, at most what both are off by themselves.
    let other = simulated(record, &record.runs[5]);
    let apart = record.ratio(known(&one, 5.25), known(&other, 5.0));
    assert!(apart.interval.high > better.interval.high);
    assert!(
        better.text("A", "B").starts_with("A over B: 1.05"),
        "{}",
        better.text("A", "B")
    );
}

#[test]
fn numbers_have_the_digits_that_are_known() {
    let interval = |low, high| Interval { low, high };
    for (value, of, expected) in [
        (5058.93, interval(4860.0, 5260.0), "5060"),
        (1234.5, interval(700.0, 2800.0), "1200"),
        (93.271, interval(90.0, 97.0), "93.3"),
        (0.1234, interval(0.12, 0.13), "0.1234"),
        (7.25, interval(7.25, 7.25), "7.2"),
    ] {
        assert_eq!(significant(value, of), expected, "{value} {of:?}");
    }
}

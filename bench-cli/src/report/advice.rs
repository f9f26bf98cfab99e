//! Settings that were tried, as lines to read.

use bench_core::advise::{Advice, Trial};
use bench_core::config::RunConfig;
use bench_core::config::keys::is_key;

use crate::args::{table, values};
use crate::config::BertOptions;
use crate::metrics::RegionUseText;

/// Trials as lines for people: what helps first.
#[must_use]
pub fn lines(advice: &Advice, options: &BertOptions) -> Vec<String> {
    let line = |trial: &Trial| {
        let used = trial.used.map_or_else(
            || "too large to be compiled".into(),
            |used| RegionUseText(used).to_string(),
        );
        format!("  {} ({used})", words(&trial.config, options))
    };
    let trials = advice.trials.iter();
    let (help, fail): (Vec<&Trial>, Vec<&Trial>) = trials.partition(|trial| trial.fits);
    let mut lines = Vec::new();
    let none_tried = advice.trials.is_empty() && advice.untried > 0;
    if help.is_empty() && !none_tried {
        lines.push("nothing that was tried makes it fit".into());
    } else if !help.is_empty() {
        lines.push("tried, and fits:".into());
        lines.extend(help.into_iter().map(line));
    }
    if !fail.is_empty() {
        lines.push("tried, and doesn't fit:".into());
        lines.extend(fail.into_iter().map(line));
    }
    if advice.untried > 0 {
        let untried = advice.untried;
        let more = if none_tried { "" } else { "more " };
        lines.push(format!(
            "not tried, because so large a model takes long to compile: {untried} {more}settings"
        ));
    }
    lines
}

/// The words that make a run of `options` the changed one.
#[must_use]
pub fn words(changed: &RunConfig, options: &BertOptions) -> String {
    let before = options.config.to_keys();
    let after = changed.to_keys();
    // Nothing is summed over a global batch in inference.
    let is_new = |key: &str| {
        let derived = key == "global_batch_size" && changed.is_inference();
        !derived && after.get(key) != before.get(key)
    };
    let ours = table::OURS.options;
    let ours = ours.iter().filter(|option| is_key(option.key));
    let names = table::options()
        .chain(ours)
        .map(|option| (option.name, option.key));
    let mut words: Vec<String> = Vec::new();
    for (name, key) in names {
        if let Some(value) = after.get(key).filter(|_| is_new(key)) {
            words.push(format!("{name} {}", values::show(value)));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use bench_core::metrics::RegionUse;
    use ipu_sim::units::Bytes;
    use ipu_sim::weigh::Region;

    use super::*;
    use crate::clock::Date;
    use crate::request::prepare;

    fn options(line: &str) -> BertOptions {
        let given = crate::args::parse(line.split_whitespace().map(String::from)).unwrap();
        prepare(&given, Date::now()).unwrap().request.options
    }

    #[test]
    fn words_say_what_is_changed() {
        const LINE: &str = "--epochs 1 --generated-data --micro-batch-size 8 \
            --gradient-accumulation-factor 2 --use-default-available-memory-proportion true";
        let options = options(LINE);
        for words in [
            "",
            "--micro-batch-size 4 --gradient-accumulation-factor 4",
            "--available-memory-proportion 0.15 --use-default-available-memory-proportion false",
            "--optimizer-state-offchip true",
            "--enable-half-partials true",
        ] {
            let changed = self::options(&format!("{LINE} {words}")).config;
            assert_eq!(super::words(&changed, &options), words);
        }
    }

    #[test]
    fn lines_put_first_what_helps() {
        let options = options("--epochs 1 --generated-data --micro-batch-size 8");
        let trial = |micro_batch: u32, used: Option<(Region, u64)>, fits| {
            let mut config = options.config.clone();
            config.model.micro_batch = micro_batch;
            config.batching.accumulation = 8 / micro_batch;
            Trial {
                config,
                used: used.map(|(region, bytes)| RegionUse {
                    region,
                    bytes: Bytes(bytes),
                    available: Bytes(6),
                }),
                fits,
            }
        };
        let trials = [
            trial(4, Some((Region::Tile, 7)), false),
            trial(2, Some((Region::Tile, 5)), true),
            trial(1, None, false),
        ];
        let advice = |trials: &[Trial], untried| Advice {
            trials: trials.to_vec(),
            untried,
        };
        assert_eq!(
            lines(&advice(&trials, 2), &options),
            [
                "tried, and fits:",
                "  --micro-batch-size 2 --gradient-accumulation-factor 4 (fullest tile 5 B)",
                "tried, and doesn't fit:",
                "  --micro-batch-size 4 --gradient-accumulation-factor 2 (fullest tile 7 B)",
                "  --micro-batch-size 1 --gradient-accumulation-factor 8 (too large to be compiled)",
                "not tried, because so large a model takes long to compile: 2 more settings",
            ]
        );
        let none = lines(&advice(&[], 0), &options);
        assert_eq!(none, ["nothing that was tried makes it fit"]);
        let untried = lines(&advice(&[], 7), &options);
        let wanted = "not tried, because so large a model takes long to compile: 7 settings";
        assert_eq!(untried, [wanted]);
    }
}

//! Effects of constants as a table to read.

use std::cmp::Ordering;

use bench_core::sensitivity::{KnobEffect, Outcome, RunEffect};
use comfy_table::{Table, presets};

/// `+1.234 %`, or as many digits as it takes to show that it isn't nothing.
fn change(before: f64, after: f64) -> String {
    let percent = 100.0 * (after / before - 1.0);
    match percent.abs() {
        0.0 => "0 %".into(),
        small if small < 0.01 => format!("{percent:+.1e} %"),
        _ => format!("{percent:+.3} %"),
    }
}

/// The findings as a table.
#[must_use]
pub fn text(found: &[KnobEffect]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "constant",
        "change",
        "expected",
        "run",
        "time",
        "fullest tile",
        "holds",
        "in the suite",
    ]);
    for row in found {
        let ratio = |of: fn(Outcome) -> f64| match row.outcome {
            None => "refused".into(),
            Some((_, after)) if !after.fits => "does not fit".into(),
            Some((before, after)) => change(of(before), of(after)),
        };
        let (_, change) = &row.knob.changes[0];
        table.add_row([
            row.knob.changes[0].0.to_string(),
            change.to_string(),
            row.knob.effect.word().into(),
            row.knob.run.name().into(),
            ratio(|outcome| outcome.step.0),
            ratio(|outcome| outcome.fullest.0 as f64),
            if row.holds() { "yes" } else { "NO" }.into(),
            match row.in_suite {
                None => "",
                Some(true) => "yes",
                Some(false) => "no",
            }
            .into(),
        ]);
    }
    format!("{table}\n")
}

/// Effects on one run as a table, the largest first: those that keep it from running, then by
/// time, then by memory.
#[must_use]
pub fn of_run(base: Outcome, effects: &[RunEffect]) -> String {
    let mut table = Table::new();
    let header = ["constant", "change", "step time", "fullest tile"];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    let mut effects: Vec<&RunEffect> = effects.iter().collect();
    effects.sort_by(|a, b| by_size(base, a.after, b.after));
    for effect in effects {
        let (id, change_of) = &effect.knob.changes[0];
        let [step, fullest] = match effect.after {
            None => ["refused".into(), "refused".into()],
            Some(after) => {
                let too_full = if base.fits && !after.fits {
                    ", does not fit"
                } else {
                    ""
                };
                let memory = [base, after].map(|outcome| outcome.fullest.0 as f64);
                [
                    change(base.step.0, after.step.0),
                    change(memory[0], memory[1]) + too_full,
                ]
            }
        };
        table.add_row([id.to_string(), change_of.to_string(), step, fullest]);
    }
    let fits = if base.fits { "" } else { ", does not fit" };
    format!(
        "as it is: {:.6} s a step, fullest tile {}{fits}\n{table}\n",
        base.step.0, base.fullest
    )
}

/// The larger effect first; equal ones stay in order.
fn by_size(base: Outcome, a: Option<Outcome>, b: Option<Outcome>) -> Ordering {
    let size = |after: Option<Outcome>| {
        let Some(after) = after else {
            return [f64::INFINITY; 3];
        };
        let of = |now: f64, then: f64| (then / now - 1.0).abs();
        [
            f64::from(u8::from(after.fits != base.fits)),
            of(base.step.0, after.step.0),
            of(base.fullest.0 as f64, after.fullest.0 as f64),
        ]
    };
    let both = size(a).into_iter().zip(size(b));
    let orders = both.map(|(a, b)| b.total_cmp(&a));
    orders.fold(Ordering::Equal, Ordering::then)
}

#[cfg(test)]
mod tests {
    use bench_core::sensitivity::constants::KNOBS;
    use ipu_sim::units::{Bytes, SimSeconds};

    use super::*;

    #[test]
    fn effects_on_a_run_are_sorted_by_size() {
        let outcome = |step, fullest, fits| Outcome {
            step: SimSeconds(step),
            fullest: Bytes(fullest),
            fits,
        };
        let base = outcome(1.0, 1000, true);
        let after = [
            Some(base),
            Some(outcome(1.25, 1000, true)),
            Some(outcome(1.0, 900, true)),
            None,
            Some(outcome(0.5, 1000, true)),
            Some(outcome(1.0, 1100, false)),
        ];
        let effects = KNOBS.iter().zip(after);
        let effects: Vec<RunEffect> = effects
            .map(|(knob, after)| RunEffect { knob, after })
            .collect();
        let text = of_run(base, &effects);
        let cells = |row: &str| -> Vec<String> {
            let cells = row.rsplit('|').skip(1).take(2);
            cells.map(|cell| cell.trim().into()).collect()
        };
        let found: Vec<Vec<String>> = text.lines().skip(3).map(cells).collect();
        assert_eq!(
            found,
            [
                ["refused", "refused"],
                ["+10.000 %, does not fit", "0 %"],
                ["0 %", "-50.000 %"],
                ["0 %", "+25.000 %"],
                ["-10.000 %", "0 %"],
                ["0 %", "0 %"],
            ]
        );
    }

    #[test]
    fn small_changes_are_no_zeros() {
        assert_eq!(change(1e9, 1e9), "0 %");
        assert_eq!(change(1e9, 1e9 + 1.0), "+1.0e-7 %");
        assert_eq!(change(1000.0, 999.0), "-0.100 %");
    }
}

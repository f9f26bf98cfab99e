//! Effects of constants as a table to read.

use bench_core::sensitivity::{KnobEffect, Outcome};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_are_no_zeros() {
        assert_eq!(change(1e9, 1e9), "0 %");
        assert_eq!(change(1e9, 1e9 + 1.0), "+1.0e-7 %");
        assert_eq!(change(1000.0, 999.0), "-0.100 %");
    }
}

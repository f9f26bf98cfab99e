//! Fits of constants as tables to read.

use bench_core::validate::calibrate::{
    Calibration, Constant, Fit, Identifiability, KNOWN_BELOW, determined_by,
};
use comfy_table::{CellAlignment, Table, presets};

/// Tables of both fits, and how far off each run is if it is left out of the fit.
#[must_use]
pub fn text(calibration: &Calibration) -> String {
    let mut out = format!(
        "{}\n{}\n",
        fit_text(&calibration.time),
        fit_text(&calibration.memory)
    );
    for run in &calibration.record.runs {
        let percent = 100.0 * (run.log_error.exp() - 1.0);
        let bounds = calibration
            .at_bounds
            .get(&run.name)
            .map(|found| found.join(", "));
        let stopped = match bounds.filter(|found| !found.is_empty()) {
            Some(found) => format!(", which a bound stops ({found})"),
            None => String::new(),
        };
        out += &format!(
            "{}: {percent:+.1} % if it is left out of the fit{stopped}{}\n",
            run.name,
            left_open(run.left_open)
        );
    }
    out += &candidates_text(calibration);
    out
}

/// What else was tried, beside what was taken: errors by row, and those of rows left out.
fn candidates_text(calibration: &Calibration) -> String {
    let runs = &calibration.record.runs;
    let mut head = vec!["paid for".to_string(), "price".to_string()];
    head.extend((1..=runs.len()).map(|number| number.to_string()));
    head.extend(["left out: mean".to_string(), "worst".to_string()]);
    let last = head.len();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = table(&head, 1..last);
    let percent = |error: f64| format!("{:+.1}", 100.0 * error);
    let mut add = |name: &str, price: String, errors: Vec<f64>, left_out: Vec<f64>| {
        let mut row = vec![name.to_string(), price];
        row.extend(errors.into_iter().map(percent));
        let sizes = left_out.iter().map(|error| error.abs());
        let mean = sizes.clone().sum::<f64>() / left_out.len() as f64;
        let worst = sizes.fold(0.0, f64::max);
        row.extend([mean, worst].map(|error| format!("{:.1}", 100.0 * error)));
        table.add_row(row);
    };
    for candidate in &calibration.candidates {
        let (errors, left_out) = (candidate.errors.clone(), candidate.left_out.clone());
        let price = format!("{:.0} us", 1e6 * candidate.price);
        add(candidate.name, price, errors, left_out);
    }
    let share = |logarithm: f64| logarithm.exp() - 1.0;
    let fitted = calibration.time.rows.iter();
    let fitted = fitted.map(|row| share(row.residual)).collect();
    let left_out = runs.iter().map(|run| share(run.log_error)).collect();
    let taken = "every trust ratio of LAMB (taken)";
    add(taken, "as fitted".into(), fitted, left_out);
    format!("\nerrors in % if a weight update is priced otherwise, rows as above\n\n{table}\n")
}

/// What the clock of a measurement leaves open, if that is anything.
fn left_open(of: [f64; 2]) -> String {
    if of == [0.0; 2] {
        return String::new();
    }
    let [most, least] = of.map(|end| 100.0 * (end.exp() - 1.0));
    format!("; the host's time in its clock leaves {least:+.1} to {most:+.1} % open")
}

/// The fit as three tables and two lines.
fn fit_text(fit: &Fit) -> String {
    let title = format!("constant of {}", fit.title);
    let mut constants = table([&title, "unit", "shipped", "best", "bounds"], 2..4);
    for constant in &fit.constants {
        constants.add_row([
            constant.id.to_string(),
            constant.unit.to_owned(),
            format!("{}", constant.shipped),
            format!("{:.1}", constant.best),
            format!("{} to {}", constant.low, constant.high),
        ]);
    }
    let keys = fit.constants.iter();
    let sensitivity = keys.map(|constant| format!("per % of {}", constant.id));
    let header = ["row".to_owned(), "error at best".into()];
    let header: Vec<String> = header.into_iter().chain(sensitivity).collect();
    let mut rows = table(&header, 1..header.len());
    for row in &fit.rows {
        let error = format!("{:+.1} %", 100.0 * (row.residual.exp() - 1.0));
        let slopes = row.slopes.iter().map(|slope| format!("{slope:+.3} %"));
        rows.add_row([row.name.clone(), error].into_iter().chain(slopes));
    }
    let [shipped, best] = fit.objective;
    let known = known_text(&Identifiability::of(&fit.rows), &fit.constants);
    let keys = fit.constants.iter().map(|constant| constant.id.key());
    let mut determined = table(
        ["determined by, %"].into_iter().chain(keys),
        1..header.len() - 1,
    );
    if let Some(shares) = determined_by(&fit.rows) {
        for (at, row) in fit.rows.iter().enumerate() {
            let shares = shares.iter().map(|of| format!("{:.1}", 100.0 * of[at]));
            determined.add_row(std::iter::once(row.name.clone()).chain(shares));
        }
    }
    format!(
        "{constants}\n\n{rows}\n\n{determined}\n\nobjective (sum of squared logarithms): {shipped:.6} as \
         shipped, {best:.6} at best; condition number {:.1}\n{known}\n",
        fit.condition
    )
}

/// Which constants the rows identify, as a line.
fn known_text(known: &Identifiability, constants: &[Constant]) -> String {
    match known {
        Identifiability::Errors(errors) => {
            let each = constants.iter().zip(errors).map(|(constant, error)| {
                let verdict = match error {
                    Some(error) => {
                        let known = if *error < KNOWN_BELOW { "yes" } else { "no" };
                        format!("{known} ({:.0} %)", 100.0 * error)
                    }
                    None => "no (no row has a slope)".into(),
                };
                format!("{} {verdict}", constant.id)
            });
            format!(
                "identifiable (standard error below {:.0} %): {}",
                100.0 * KNOWN_BELOW,
                each.collect::<Vec<_>>().join(", ")
            )
        }
        Identifiability::Exactly => {
            "no more rows than constants: the rows determine them exactly, but for bounds and \
             rounding to what is shipped, and can't tell how well"
                .into()
        }
        Identifiability::Together => {
            "identifiable: none, since the rows can't tell the constants apart".into()
        }
    }
}

/// An empty table whose columns `numbers` are set to the right.
fn table<T: AsRef<str>>(
    header: impl IntoIterator<Item = T>,
    numbers: std::ops::Range<usize>,
) -> Table {
    let mut table = Table::new();
    let header = header.into_iter().map(|cell| cell.as_ref().to_owned());
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in numbers {
        let column = table.column_mut(column).expect("the header has the column");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use bench_core::validate::calibrate::FittedRow;
    use ipu_sim::spec::constant::ConstantId;

    use super::*;

    /// What is said of up to two constants of rows with these residuals and slopes.
    fn verdict<const N: usize>(rows: &[(f64, [f64; N])]) -> String {
        let rows: Vec<FittedRow> = rows
            .iter()
            .map(|(residual, slopes)| FittedRow {
                name: String::new(),
                residual: *residual,
                slopes: slopes.to_vec(),
            })
            .collect();
        let ids = [ConstantId::SyncHop, ConstantId::HostRun];
        let constants = ids.iter().take(N).map(|id| Constant {
            id: *id,
            unit: "us",
            shipped: 1.0,
            best: 1.0,
            low: 0.0,
            high: 2.0,
        });
        known_text(&Identifiability::of(&rows), &constants.collect::<Vec<_>>())
    }

    #[test]
    fn constants_are_identifiable_by_their_standard_errors() {
        // Each constant has rows of its own. A mean of two with residuals of 0.1 to either side:
        // the variance is 0.04 over 4 - 2 rows, the error sqrt(0.02 / 2) = 0.1 for a slope of one,
        // and ten times that for a tenth.
        let rows = [
            (0.1, [1.0, 0.0]),
            (-0.1, [1.0, 0.0]),
            (0.1, [0.0, 0.1]),
            (-0.1, [0.0, 0.1]),
        ];
        assert_eq!(
            verdict(&rows),
            "identifiable (standard error below 50 %): sync.hop yes (10 %), host.run no (100 %)"
        );
    }

    #[test]
    fn constants_without_a_slope_are_not_identifiable() {
        let rows = [(0.1, [1.0, 0.0]), (-0.1, [1.0, 0.0])];
        assert_eq!(
            verdict(&rows),
            "identifiable (standard error below 50 %): sync.hop yes (10 %), host.run no (no row \
             has a slope)"
        );
    }

    #[test]
    fn constants_that_go_together_are_not_identifiable() {
        let rows = [(0.1, [1.0, 2.0]), (-0.1, [1.0, 2.0]), (0.0, [2.0, 4.0])];
        let said = verdict(&rows);
        assert!(said.starts_with("identifiable: none"), "{said}");
        let said = verdict(&rows[..2]);
        assert!(said.starts_with("identifiable: none"), "{said}");
        let said = verdict(&[(0.1, [1.0, 2.0]), (-0.1, [2.0, 1.0])]);
        assert!(said.starts_with("no more rows than constants"), "{said}");
    }
}

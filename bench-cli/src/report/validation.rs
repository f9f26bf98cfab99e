//! Rows of the validation as a table to read.

use bench_core::accuracy::Record;
use bench_core::validate::{Role, Row, Validation};
use comfy_table::{CellAlignment, Table, presets};
use indexmap::IndexMap;

/// The rows as a table, with a summary.
#[must_use]
pub fn text(validation: &Validation) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "row",
        "unit",
        "expected",
        "simulated",
        "error",
        "passes",
        "role",
    ]);
    for column in 2..5 {
        let column = table
            .column_mut(column)
            .expect("the header has seven columns");
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in &validation.rows {
        table.add_row(cells(row));
    }
    let (passed, outside): (Vec<&Row>, Vec<&Row>) =
        validation.rows.iter().partition(|row| row.passes());
    let mut text = format!(
        "{table}\n{} of {} rows within their tolerance ({}); largest error of a throughput \
         {:.1} %, or {:.1} % where its row is left out of the fit\n",
        passed.len(),
        validation.rows.len(),
        by_role(validation),
        100.0 * validation.largest_throughput_error(),
        100.0 * Record::shipped().largest_error()
    );
    for (reason, names) in by_reason(&outside) {
        text += &format!("outside, {reason}: {}\n", names.join("; "));
    }
    text
}

/// A row as a line of the table.
fn cells(row: &Row) -> [String; 7] {
    let decimals = match row.expected {
        x if x < 10.0 => 3,
        x if x < 100_000.0 => 1,
        _ => 0,
    };
    let (expected, error) = if row.is_range {
        let [low, high] = [-1.0, 1.0].map(|side| row.expected * (1.0 + side * row.tolerance));
        (format!("{low:.decimals$} to {high:.decimals$}"), "-".into())
    } else {
        let error = format!("{:+.1} %", 100.0 * row.error());
        (format!("{:.decimals$}", row.expected), error)
    };
    [
        row.name.clone(),
        row.unit.clone(),
        expected,
        format!("{:.decimals$}", row.found),
        error,
        if row.passes() { "yes" } else { "NO" }.into(),
        row.role.name().into(),
    ]
}

/// How many rows of each role are within their tolerance.
fn by_role(validation: &Validation) -> String {
    let counts = Role::ALL.map(|role| {
        let rows = validation.rows.iter().filter(|row| row.role == role);
        let (count, passed) = rows.fold((0, 0), |(count, passed), row| {
            (count + 1, passed + usize::from(row.passes()))
        });
        format!("{} {passed} of {count}", role.name())
    });
    counts.join(", ")
}

/// Names of rows by what is known of them, in the order of the first of each.
fn by_reason<'a>(outside: &[&'a Row]) -> IndexMap<&'a str, Vec<&'a str>> {
    let mut reasons: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for row in outside {
        let known = row.known.as_ref();
        let reason = known.map_or("for an unknown reason", |known| &known.reason);
        reasons.entry(reason).or_default().push(&row.name);
    }
    reasons
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use bench_core::validate::validate;

    use super::*;

    #[test]
    fn every_row_is_within_its_tolerance_or_known_not_to_be() {
        let mut heard = 0;
        let found = validate(|_| heard += 1).unwrap();
        assert_eq!(heard, found.rows.len());
        assert!(found.rows.iter().all(Row::is_as_known), "{}", text(&found));
        assert!(found.largest_throughput_error() < 0.03);
        expect_file!["../../../docs/validation-rows.md"].assert_eq(&page(&found));
    }

    /// `docs/validation-rows.md`.
    fn page(found: &Validation) -> String {
        let (plans, rows): (Vec<&Row>, Vec<&Row>) = found
            .rows
            .iter()
            .partition(|row| row.name.starts_with("plan "));
        let passed = found.rows.iter().filter(|row| row.passes()).count();
        let mut page = format!(
            "{INTRODUCTION}\n{} rows, {passed} of them within their tolerance; the {} of plans are \
             in [plan tables](plan-tables.md).\n\n\
             | row | unit | expected | simulated | error | tolerance | passes |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
            found.rows.len(),
            plans.len(),
        );
        for row in rows {
            let [name, unit, expected, found, error, passes, _] = cells(row);
            let tolerance = match row.is_range {
                true => "-".into(),
                false => format!("{:.1} %", 100.0 * row.tolerance),
            };
            page += &format!(
                "| {name} | {unit} | {expected} | {found} | {error} | {tolerance} | {passes} |\n"
            );
        }
        page
    }

    const INTRODUCTION: &str = "\
# Rows of the validation

What `ipu-bench validate` compares, and how far off it is; [validation](validation.md) says what the rows are.
The test `report::validation` of `bench-cli` writes this page and fails when it is out of date:

```sh
UPDATE_EXPECT=1 cargo test -p bench-cli --lib report::validation
```
";
}

//! Least squares of relative errors, and how well they determine the constants.

use comfy_table::{CellAlignment, Table, presets};
use nalgebra::{DMatrix, DVector};

use super::constant::Constant;

/// Singular values below this part of the largest count as none.
const SINGULAR: f64 = 1e-9;

/// A calibration row at the best fit.
#[derive(Clone, Debug)]
pub struct FittedRow {
    /// What was measured.
    pub name: String,
    /// Logarithm of simulated over measured.
    pub residual: f64,
    /// Change of that with the logarithm of each constant.
    pub slopes: Vec<f64>,
}

/// What a fit found.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Of what: `time` or `memory`.
    pub title: &'static str,
    /// The constants.
    pub constants: Vec<Constant>,
    /// The rows they were fitted to.
    pub rows: Vec<FittedRow>,
    /// Sum of squared residuals with the shipped constants and with the best.
    pub objective: [f64; 2],
    /// Condition number of the slopes, each constant's scaled to length one: 1 if the rows tell
    /// the constants apart as well as can be, without bound if they can't at all.
    pub condition: f64,
}

/// The `x` that makes `residuals + slopes x` least in the sum of squares.
pub(super) fn step(slopes: &[Vec<f64>], residuals: &[f64]) -> Vec<f64> {
    let solved = matrix(slopes)
        .svd(true, true)
        .solve(&-DVector::from_column_slice(residuals), SINGULAR);
    let solved = solved.expect("both sides of the decomposition were asked for");
    solved.iter().copied().collect()
}

/// See [`Fit::condition`].
pub(super) fn condition(slopes: &[Vec<f64>]) -> f64 {
    let mut scaled = matrix(slopes);
    for mut column in scaled.column_iter_mut() {
        let length = column.norm();
        if length > 0.0 {
            column /= length;
        }
    }
    let values = scaled.singular_values();
    values.max() / values.min()
}

fn matrix(rows: &[Vec<f64>]) -> DMatrix<f64> {
    let columns = rows.first().map_or(0, Vec::len);
    DMatrix::from_fn(rows.len(), columns, |row, column| rows[row][column])
}

/// Sum of squares.
pub(super) fn objective(residuals: &[f64]) -> f64 {
    residuals.iter().map(|residual| residual * residual).sum()
}

impl Fit {
    /// The fit as two tables and a line.
    #[must_use]
    pub fn text(&self) -> String {
        let title = format!("constant of {}", self.title);
        let mut constants = table([&title, "unit", "shipped", "best", "bounds"], 2..4);
        for constant in &self.constants {
            constants.add_row([
                constant.key.clone(),
                constant.unit.clone(),
                format!("{}", constant.shipped),
                format!("{:.1}", constant.best),
                format!("{} to {}", constant.low, constant.high),
            ]);
        }
        let keys = self.constants.iter();
        let sensitivity = keys.map(|constant| format!("per % of {}", constant.key));
        let header = ["row".to_owned(), "error at best".into()];
        let header: Vec<String> = header.into_iter().chain(sensitivity).collect();
        let mut rows = table(&header, 1..header.len());
        for row in &self.rows {
            let error = format!("{:+.1} %", 100.0 * (row.residual.exp() - 1.0));
            let slopes = row.slopes.iter().map(|slope| format!("{slope:+.3} %"));
            rows.add_row([row.name.clone(), error].into_iter().chain(slopes));
        }
        let [shipped, best] = self.objective;
        format!(
            "{constants}\n\n{rows}\n\nobjective (sum of squared logarithms): {shipped:.6} as \
             shipped, {best:.6} at best; condition number {:.1}\n",
            self.condition
        )
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
    use super::*;

    #[test]
    fn linear_residuals_are_fitted_in_one_step() {
        let slopes = [vec![1.0, 0.0], vec![0.5, 1.0], vec![0.0, 2.0]];
        let residuals = slopes.each_ref().map(|row| -(0.3 * row[0] - 0.1 * row[1]));
        let found = step(&slopes, &residuals);
        assert!((found[0] - 0.3).abs() < 1e-12 && (found[1] + 0.1).abs() < 1e-12);
    }

    #[test]
    fn rows_that_tell_nothing_apart_have_no_bound() {
        assert!((condition(&[vec![1.0, 0.0], vec![0.0, 5.0]]) - 1.0).abs() < 1e-12);
        assert!(condition(&[vec![1.0, 2.0], vec![2.0, 4.0]]) > 1e9);
    }
}

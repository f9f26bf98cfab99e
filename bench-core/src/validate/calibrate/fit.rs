//! Least squares of relative errors, and how well they determine the constants.

use nalgebra::{DMatrix, DVector};

use super::constant::Constant;

/// Singular values below this part of the largest count as none.
const SINGULAR: f64 = 1e-9;

/// A constant is known, to the rows it was fitted to, if the standard error of its logarithm is
/// below this. A factor of two to either side (`ln 2 = 0.69`) is then about 1.4 standard errors away,
/// or more; with a larger error the rows would hardly mind half the constant, or twice.
pub const KNOWN_BELOW: f64 = 0.5;

/// A calibration row at the best fit.
#[derive(Clone, Debug)]
pub struct FittedRow {
    /// Name of the measured value.
    pub name: String,
    /// Logarithm of simulated over measured.
    pub residual: f64,
    /// Change of that with the logarithm of each constant.
    pub slopes: Vec<f64>,
}

/// Result of a fit of constants to rows.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Subject of the fit: `time` or `memory`.
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

/// As [`step()`], with every element of `x` within its bounds.
///
/// Some elements are at a bound and the others are free, so the least of all such choices is the
/// answer; of a few constants there are few. A bound may be infinite: no choice is at one that some
/// row has a slope towards, since its sum of squares would be infinite, too. An element that no row
/// has a slope of stays 0.
pub(super) fn step_within(slopes: &[Vec<f64>], residuals: &[f64], bounds: &[[f64; 2]]) -> Vec<f64> {
    let has_slope: Vec<bool> = (0..bounds.len())
        .map(|at| slopes.iter().any(|row| row[at] != 0.0))
        .collect();
    let mut best: Option<(f64, Vec<f64>)> = None;
    for choice in 0..3_usize.pow(bounds.len() as u32) {
        let pinned: Vec<Option<f64>> = bounds
            .iter()
            .enumerate()
            .map(|(at, ends)| match has_slope[at] {
                true => ends.get(choice / 3_usize.pow(at as u32) % 3).copied(),
                false => Some(0.0),
            })
            .collect();
        let at_bounds: Vec<f64> = pinned.iter().map(|at| at.unwrap_or(0.0)).collect();
        let rest = moved(slopes, residuals, &at_bounds);
        if !objective(&rest).is_finite() {
            continue;
        }
        let free = |row: &Vec<f64>| -> Vec<f64> {
            let free = row.iter().zip(&pinned).filter(|(_, at)| at.is_none());
            free.map(|(slope, _)| *slope).collect()
        };
        let free: Vec<Vec<f64>> = slopes.iter().map(free).collect();
        let mut solved = match pinned.contains(&None) {
            true => step(&free, &rest),
            false => Vec::new(),
        }
        .into_iter();
        let x: Vec<f64> = pinned
            .iter()
            .map(|at| at.unwrap_or_else(|| solved.next().expect("one for each free element")))
            .collect();
        let inside = |(x, [low, high]): (&f64, &[f64; 2])| low <= x && x <= high;
        if !x.iter().zip(bounds).all(inside) {
            continue;
        }
        let left = objective(&moved(slopes, residuals, &x));
        if left.is_finite() && best.as_ref().is_none_or(|(least, _)| left < *least) {
            best = Some((left, x));
        }
    }
    best.map_or_else(|| vec![0.0; bounds.len()], |(_, x)| x)
}

/// `residuals + slopes x`, where a slope of 0 adds nothing, however far `x` goes.
fn moved(slopes: &[Vec<f64>], residuals: &[f64], x: &[f64]) -> Vec<f64> {
    let rows = slopes.iter().zip(residuals);
    rows.map(|(row, residual)| {
        let moves = row.iter().zip(x).filter(|(slope, _)| **slope != 0.0);
        residual + moves.map(|(slope, x)| slope * x).sum::<f64>()
    })
    .collect()
}

/// How well the rows determine a constant, or the constants together.
#[derive(Clone, Debug, PartialEq)]
pub enum Identifiability {
    /// Standard errors of the logarithms that `step` finds, from what the rows leave over; none
    /// for constants that no row has a slope of.
    Errors(Vec<Option<f64>>),
    /// No more rows than constants: nothing is left over.
    Exactly,
    /// Some constants have the same slopes, or sums of them.
    Together,
}

impl Identifiability {
    /// Identifiability of the constants that `rows` were fitted with.
    #[must_use]
    pub fn of(rows: &[FittedRow]) -> Self {
        let columns = rows.first().map_or(0, |row| row.slopes.len());
        let has_slope = |column: &usize| rows.iter().any(|row| row.slopes[*column] != 0.0);
        let moving: Vec<usize> = (0..columns).filter(has_slope).collect();
        let slopes: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| moving.iter().map(|&column| row.slopes[column]).collect())
            .collect();
        let slopes_squared = matrix(&slopes).transpose() * matrix(&slopes);
        let Some(inverse) = slopes_squared.try_inverse() else {
            return Self::Together;
        };
        let freedom = match rows.len().checked_sub(moving.len()) {
            None | Some(0) => return Self::Exactly,
            Some(freedom) => freedom,
        };
        let residuals: Vec<f64> = rows.iter().map(|row| row.residual).collect();
        let variance = objective(&residuals) / freedom as f64;
        let mut errors = vec![None; columns];
        for (column, of) in moving.into_iter().zip(inverse.diagonal().iter()) {
            errors[column] = Some((variance * of).sqrt());
        }
        Self::Errors(errors)
    }
}

/// How much of what determines a constant each row gives: shares of the square of what its slopes
/// have that no sum of those of the other constants has. None where rows can't tell them apart.
#[must_use]
pub fn determined_by(rows: &[FittedRow]) -> Option<Vec<Vec<f64>>> {
    let slopes: Vec<Vec<f64>> = rows.iter().map(|row| row.slopes.clone()).collect();
    let slopes = matrix(&slopes);
    let inverse = (slopes.transpose() * &slopes).try_inverse()? * slopes.transpose();
    let shares = inverse.row_iter().map(|row| {
        let all = row.norm_squared();
        row.iter().map(|part| part * part / all).collect()
    });
    Some(shares.collect())
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
    fn within_bounds_the_other_constant_makes_up_for_it() {
        // Alone, both rows would be met at (4, -2).
        let slopes = [vec![1.0, 1.0], vec![1.0, 1.5]];
        let residuals = [-2.0, -1.0];
        let free = step(&slopes, &residuals);
        assert!((free[0] - 4.0).abs() < 1e-9 && (free[1] + 2.0).abs() < 1e-9);
        let found = step_within(&slopes, &residuals, &[[-1.0, 1.0], [-9.0, 9.0]]);
        // With the first at 1, the second is the mean of 1 and 0 weighted by squares of slopes.
        assert!((found[0] - 1.0).abs() < 1e-12, "{found:?}");
        assert!((found[1] - 1.0 / 3.25).abs() < 1e-9, "{found:?}");
        let inside = step_within(&slopes, &residuals, &[[-9.0, 9.0], [-9.0, 9.0]]);
        assert!((inside[0] - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_row_without_a_slope_is_beside_a_bound_without_end() {
        // The second row doesn't know the second constant, whose logarithm has no lower bound.
        let slopes = [vec![1.0, 1.0], vec![1.0, 0.0]];
        let residuals = [-2.0, -1.0];
        let bounds = [[-0.5, 3.0], [f64::NEG_INFINITY, 3.0]];
        let found = step_within(&slopes, &residuals, &bounds);
        assert!((found[0] - 1.0).abs() < 1e-9, "{found:?}");
        assert!((found[1] - 1.0).abs() < 1e-9, "{found:?}");
        // With the first at a bound, the second makes up for it in the row that knows it.
        let found = step_within(&slopes, &residuals, &[[-0.5, 0.5], bounds[1]]);
        assert!((found[0] - 0.5).abs() < 1e-12, "{found:?}");
        assert!((found[1] - 1.5).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn what_no_row_has_a_slope_of_stays() {
        let slopes = [vec![1.0, 0.0], vec![2.0, 0.0]];
        let found = step_within(&slopes, &[-1.0, -2.0], &[[-3.0, 3.0], [-1.0, 1.0]]);
        assert!((found[0] - 1.0).abs() < 1e-9, "{found:?}");
        assert_eq!(found[1], 0.0);
    }

    fn known<const N: usize>(rows: &[(f64, [f64; N])]) -> Identifiability {
        let rows = rows.iter().map(|(residual, slopes)| FittedRow {
            name: String::new(),
            residual: *residual,
            slopes: slopes.to_vec(),
        });
        Identifiability::of(&rows.collect::<Vec<_>>())
    }

    #[test]
    fn standard_errors_are_those_of_least_squares() {
        // Each constant has rows of its own. A mean of two with residuals of 0.1 to either side:
        // the variance is 0.04 over 4 - 2 rows, the error sqrt(0.02 / 2) = 0.1 for a slope of one,
        // and ten times that for a tenth.
        let rows = [
            (0.1, [1.0, 0.0]),
            (-0.1, [1.0, 0.0]),
            (0.1, [0.0, 0.1]),
            (-0.1, [0.0, 0.1]),
        ];
        let Identifiability::Errors(errors) = known(&rows) else {
            panic!("the rows tell the constants apart");
        };
        assert!((errors[0].unwrap() - 0.1).abs() < 1e-12, "{errors:?}");
        assert!((errors[1].unwrap() - 1.0).abs() < 1e-12, "{errors:?}");
    }

    #[test]
    fn constants_that_go_together_have_no_errors() {
        let rows = [(0.1, [1.0, 2.0]), (-0.1, [1.0, 2.0]), (0.0, [2.0, 4.0])];
        assert_eq!(known(&rows), Identifiability::Together);
        assert_eq!(known(&rows[..2]), Identifiability::Together);
        let two = [(0.1, [1.0, 2.0]), (-0.1, [2.0, 1.0])];
        assert_eq!(known(&two), Identifiability::Exactly);
    }

    #[test]
    fn rows_that_tell_nothing_apart_have_no_bound() {
        assert!((condition(&[vec![1.0, 0.0], vec![0.0, 5.0]]) - 1.0).abs() < 1e-12);
        assert!(condition(&[vec![1.0, 2.0], vec![2.0, 4.0]]) > 1e9);
    }
}

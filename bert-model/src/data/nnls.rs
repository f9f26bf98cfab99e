//! Least squares without negative numbers: the `x >= 0` for which `|A x - b|` is least.
//!
//! The method of Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23: columns
//! enter a set one by one, the steepest first, and leave it where their number would become
//! negative; between, the least squares of the set are solved by an orthogonal factorisation that
//! each change updates. Columns of `A` are sparse. A library of its own would hold them dense, which
//! the lengths of packs (512 rows, 22,102 columns of at most three numbers) don't need.

/// A column of `A`: rows, each once, with what stands there.
pub(super) type Column = Vec<(usize, f64)>;

/// Share of the steepest slope at the start below which a slope counts as none, which is far
/// above rounding and far below what moves a rounded count.
const SLOPE_MIN: f64 = 1e-11;

/// Share of a column below which what is left of it, beside the columns of the set, counts as
/// rounding.
const INDEPENDENT_MIN: f64 = 1e-9;

/// Steps for each row: many times what is needed, for rounding may bring a column in again.
const STEPS_PER_ROW: usize = 30;

/// The numbers of all columns.
pub(super) fn nnls(columns: &[Column], b: &[f64]) -> Vec<f64> {
    let mut x = vec![0.0; columns.len()];
    let mut set = Set::new(b);
    let mut residual = b.to_vec();
    let mut least = None;
    for _ in 0..STEPS_PER_ROW * b.len() {
        let slope = |column: &Column| -> f64 {
            let products = column.iter().map(|&(row, value)| value * residual[row]);
            products.sum()
        };
        let mut slopes: Vec<f64> = columns.iter().map(slope).collect();
        for &column in &set.columns {
            slopes[column] = 0.0;
        }
        let steepest = slopes.iter().copied().fold(0.0, f64::max);
        let least = *least.get_or_insert(SLOPE_MIN * steepest);
        if !enter(&mut set, columns, &mut slopes, least) {
            break;
        }
        step(&mut set, &mut x);
        residual.copy_from_slice(b);
        for &column in &set.columns {
            for &(row, value) in &columns[column] {
                residual[row] -= value * x[column];
            }
        }
    }
    x
}

/// Takes the steepest column in that is independent of the set and that the set would give a number
/// above 0; whether there is one.
fn enter(set: &mut Set, columns: &[Column], slopes: &mut [f64], least: f64) -> bool {
    loop {
        let all = slopes.iter().copied().enumerate();
        let steepest = all.fold((0, 0.0), |best, each| match each.1 > best.1 {
            true => each,
            false => best,
        });
        let (column, slope) = steepest;
        if slope <= least {
            return false;
        }
        if set.add(column, &columns[column]) {
            let solved = set.solve();
            if solved.last().is_some_and(|&number| number > 0.0) {
                return true;
            }
            set.remove(set.columns.len() - 1);
        }
        slopes[column] = 0.0;
    }
}

/// Goes from `x` towards the least squares of the set as far as nothing becomes negative, and lets
/// columns leave that are at 0, until all of the way is free.
fn step(set: &mut Set, x: &mut [f64]) {
    loop {
        let solved = set.solve();
        let free = |&(&column, &to): &(&usize, &f64)| match to > 0.0 {
            true => 1.0,
            false => x[column] / (x[column] - to),
        };
        let ways = set.columns.iter().zip(&solved);
        let way = ways.clone().map(|pair| free(&pair)).fold(1.0, f64::min);
        for (&column, &to) in set.columns.iter().zip(&solved) {
            x[column] += way * (to - x[column]);
        }
        let blocked: Vec<usize> = (0..set.columns.len())
            .filter(|&place| solved[place] <= 0.0 && x[set.columns[place]] <= 1e-300)
            .collect();
        if way >= 1.0 && solved.iter().all(|&to| to > 0.0) {
            return;
        }
        // The one that set the way is at 0 but for rounding.
        let blocked = match blocked.is_empty() {
            true => {
                let of = |place: &usize| x[set.columns[*place]];
                let mut falling: Vec<usize> = (0..solved.len())
                    .filter(|&place| solved[place] <= 0.0)
                    .collect();
                falling.sort_by(|a, b| of(a).total_cmp(&of(b)));
                falling[..1].to_vec()
            }
            false => blocked,
        };
        for place in blocked.into_iter().rev() {
            x[set.columns[place]] = 0.0;
            set.remove(place);
        }
    }
}

/// Columns with their factorisation `Q^T A = R`.
struct Set {
    /// Their numbers, in the order of `R`.
    columns: Vec<usize>,
    /// `Q^T`, by rows.
    q: Vec<Vec<f64>>,
    /// Columns of `R`, each down to its diagonal.
    r: Vec<Vec<f64>>,
    /// `Q^T b`.
    b: Vec<f64>,
}

impl Set {
    fn new(b: &[f64]) -> Self {
        let unit = |row: usize| {
            let mut unit = vec![0.0; b.len()];
            unit[row] = 1.0;
            unit
        };
        Self {
            columns: Vec::new(),
            q: (0..b.len()).map(unit).collect(),
            r: Vec::new(),
            b: b.to_vec(),
        }
    }

    /// Adds a column by a reflection; not one that the others make up.
    fn add(&mut self, number: usize, column: &Column) -> bool {
        let place = self.columns.len();
        let rows = self.q.iter();
        let mut turned: Vec<f64> = rows
            .map(|row| column.iter().map(|&(at, value)| row[at] * value).sum())
            .collect();
        let norm = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let left = norm(&turned[place..]);
        if left <= INDEPENDENT_MIN * norm(&turned) {
            return false;
        }
        let diagonal = if turned[place] > 0.0 { -left } else { left };
        // I - 2 v v^T / v^T v takes the rest of the column to its diagonal.
        let mut v = turned.split_off(place);
        v[0] -= diagonal;
        let scale = 2.0 / v.iter().map(|x| x * x).sum::<f64>();
        let mut sums = vec![0.0; self.b.len()];
        let mut sum_b = 0.0;
        for (row, &of_v) in v.iter().enumerate() {
            sum_b += of_v * self.b[place + row];
            for (sum, q) in sums.iter_mut().zip(&self.q[place + row]) {
                *sum += of_v * q;
            }
        }
        for (row, &of_v) in v.iter().enumerate() {
            self.b[place + row] -= scale * of_v * sum_b;
            for (q, sum) in self.q[place + row].iter_mut().zip(&sums) {
                *q -= scale * of_v * sum;
            }
        }
        turned.push(diagonal);
        self.r.push(turned);
        self.columns.push(number);
        true
    }

    /// Removes a column, and turns what then stands below the diagonal into it.
    fn remove(&mut self, place: usize) {
        self.columns.remove(place);
        self.r.remove(place);
        for row in place..self.columns.len() {
            let (top, below) = (self.r[row][row], self.r[row][row + 1]);
            let length = top.hypot(below);
            let (cos, sin) = (top / length, below / length);
            let turn = |top: f64, below: f64| (cos * top + sin * below, cos * below - sin * top);
            for column in &mut self.r[row..] {
                (column[row], column[row + 1]) = turn(column[row], column[row + 1]);
            }
            self.r[row].truncate(row + 1);
            (self.b[row], self.b[row + 1]) = turn(self.b[row], self.b[row + 1]);
            let (above, rest) = self.q.split_at_mut(row + 1);
            for (top, below) in above[row].iter_mut().zip(&mut rest[0]) {
                (*top, *below) = turn(*top, *below);
            }
        }
    }

    /// The numbers of the columns with the least squares.
    fn solve(&self) -> Vec<f64> {
        let mut solved = self.b[..self.columns.len()].to_vec();
        for place in (0..solved.len()).rev() {
            solved[place] /= self.r[place][place];
            for row in 0..place {
                solved[row] -= self.r[place][row] * solved[place];
            }
        }
        solved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What makes a convex problem's answer (Karush, Kuhn, Tucker): no number is negative, no
    /// column slopes up, and those with a number are level.
    #[track_caller]
    fn check(columns: &[Column], b: &[f64]) -> Vec<f64> {
        let x = nnls(columns, b);
        let mut residual = b.to_vec();
        for (column, number) in columns.iter().zip(&x) {
            assert!(*number >= 0.0, "{x:?}");
            for &(row, value) in column {
                residual[row] -= value * number;
            }
        }
        let size: f64 = b.iter().map(|b| b.abs()).sum::<f64>().max(1.0);
        for (column, number) in columns.iter().zip(&x) {
            let products = column.iter().map(|&(row, value)| value * residual[row]);
            let slope: f64 = products.sum();
            assert!(slope <= 1e-8 * size, "{slope} of {column:?}: {x:?}");
            if *number > 0.0 {
                assert!(slope.abs() <= 1e-8 * size, "{slope} of {column:?}: {x:?}");
            }
        }
        x
    }

    #[test]
    fn small_problems_by_hand() {
        // Two columns that span the plane; then b lies where one of them would be negative.
        let columns = vec![vec![(0, 1.0)], vec![(0, 1.0), (1, 1.0)]];
        let near = |x: Vec<f64>, expected: [f64; 2]| {
            let off = x.iter().zip(expected).map(|(x, want)| (x - want).abs());
            assert!(off.fold(0.0, f64::max) < 1e-12, "{x:?}");
        };
        near(check(&columns, &[3.0, 1.0]), [2.0, 1.0]);
        near(check(&columns, &[1.0, 3.0]), [0.0, 2.0]);
        near(check(&columns, &[-1.0, -3.0]), [0.0, 0.0]);
        near(check(&columns, &[3.0, -1.0]), [3.0, 0.0]);
    }

    #[test]
    fn columns_that_are_alike_are_as_good_as_one() {
        let column = vec![(0, 2.0), (2, 1.0)];
        let columns = vec![column.clone(), column.clone(), column];
        let x = check(&columns, &[4.0, 1.0, 2.0]);
        assert!((x.iter().sum::<f64>() - 2.0).abs() < 1e-12, "{x:?}");
    }

    proptest! {
        #[test]
        fn answers_are_optimal(
            rows in 1_usize..12,
            columns in prop::collection::vec(
                prop::collection::btree_map(0_usize..12, -4_i32..5, 0..5), 1..30),
            b in prop::collection::vec(-20_i32..40, 12),
        ) {
            let columns: Vec<Column> = columns
                .into_iter()
                .map(|column| {
                    let within = column.into_iter().filter(|(row, _)| *row < rows);
                    within.map(|(row, value)| (row, f64::from(value))).collect()
                })
                .collect();
            let b: Vec<f64> = b[..rows].iter().map(|&b| f64::from(b)).collect();
            check(&columns, &b);
        }
    }
}

//! How far two tensors are apart.

/// The distance of a tensor from what it should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// `|got - want| / |want|` in the Euclidean norm; 0 if both are zero.
    pub norm: f64,
    /// The largest difference of two elements over the largest element wanted.
    pub max: f64,
}

impl Distance {
    /// Compares the elements of a tensor with those wanted; infinite if one isn't a number.
    ///
    /// # Panics
    /// If there are more of one than of the other.
    #[must_use]
    pub fn between(got: &[f64], want: &[f64]) -> Self {
        assert_eq!(got.len(), want.len(), "tensors have one shape");
        let differences: Vec<f64> = got.iter().zip(want).map(|(got, want)| got - want).collect();
        Self {
            norm: ratio(norm(&differences), norm(want)),
            max: ratio(largest(&differences), largest(want)),
        }
    }
}

/// The Euclidean norm.
#[must_use]
pub fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn largest(values: &[f64]) -> f64 {
    // `f64::max` forgets what is no number.
    let larger = |max: f64, x: &f64| match max.is_nan() || x.is_nan() {
        true => f64::NAN,
        false => max.max(x.abs()),
    };
    values.iter().fold(0.0, larger)
}

fn ratio(difference: f64, size: f64) -> f64 {
    match difference == 0.0 {
        true => 0.0,
        false if difference.is_finite() && size.is_finite() => difference / size,
        false => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_relative_and_find_what_is_no_number() {
        let check = |got: &[f64], want: &[f64], norm: f64, max: f64| {
            assert_eq!(Distance::between(got, want), Distance { norm, max });
        };
        check(&[3.0, 4.0], &[3.0, 4.0], 0.0, 0.0);
        check(&[3.0, 5.0], &[3.0, 4.0], 0.2, 0.25);
        check(&[0.0], &[0.0], 0.0, 0.0);
        check(&[1.0], &[0.0], f64::INFINITY, f64::INFINITY);
        let nothing = Distance::between(&[f64::NAN, 1.0], &[1.0, 1.0]);
        assert_eq!((nothing.norm, nothing.max), (f64::INFINITY, f64::INFINITY));
    }
}

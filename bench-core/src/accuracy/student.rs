//! Student's t distribution, for whole degrees of freedom.

/// 95 % quantiles for 1, 2, ... degrees of freedom; more than these are taken as the last, which
/// makes an interval a little wide.
const T_95: [f64; 12] = [
    6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782,
];

/// The value that a variable stays below with a probability of 95 %.
#[must_use]
pub(super) fn quantile_95(freedom: usize) -> f64 {
    T_95[freedom.clamp(1, T_95.len()) - 1]
}

/// The probability that a variable stays below `t`.
///
/// The finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4.
#[must_use]
pub(super) fn below(t: f64, freedom: usize) -> f64 {
    let freedom = freedom.max(1);
    let angle = libm::atan(t.abs() / libm::sqrt(freedom as f64));
    let (sine, cosine) = (libm::sin(angle), libm::cos(angle));
    let odd = freedom % 2 == 1;
    let terms = (freedom - usize::from(odd)) / 2;
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = 0.0;
    for number in 1..=terms {
        sum += term;
        let step = 2 * number + usize::from(odd);
        term *= cosine * cosine * (step - 1) as f64 / step as f64;
    }
    let within = match odd {
        true => (angle + sine * sum) * std::f64::consts::FRAC_2_PI,
        false => sine * sum,
    };
    0.5 + 0.5 * within.copysign(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_their_probability() {
        for freedom in 1..=T_95.len() {
            let found = below(quantile_95(freedom), freedom);
            assert!((found - 0.95).abs() < 5e-5, "{freedom}: {found}");
        }
    }

    #[test]
    fn the_distribution_is_even_and_ends_at_one() {
        for freedom in [1, 2, 5, 6, 40] {
            assert_eq!(below(0.0, freedom), 0.5);
            let sum = below(-1.3, freedom) + below(1.3, freedom);
            assert!((sum - 1.0).abs() < 1e-12, "{freedom}");
            assert!(below(1e9, freedom) > 1.0 - 1e-8, "{freedom}");
        }
        // Of many degrees of freedom, nearly the normal distribution.
        assert!((below(1.0, 1000) - 0.8413).abs() < 5e-4);
    }
}

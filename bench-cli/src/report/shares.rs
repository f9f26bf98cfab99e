//! Percentages that add up.

/// `parts` of `total` in hundredths of a per cent, rounded so that parts that are all of `total`
/// give 10,000: those that lose most by rounding down are rounded up.
pub(super) fn hundredths(parts: &[u64], total: u64) -> Vec<u64> {
    const WHOLE: u128 = 10_000;
    if total == 0 {
        return vec![0; parts.len()];
    }
    let exact = |part: u64| u128::from(part) * WHOLE;
    let total = u128::from(total);
    let mut out: Vec<u128> = parts.iter().map(|&part| exact(part) / total).collect();
    let sum: u128 = parts.iter().map(|&part| exact(part)).sum();
    let missing = (sum + total / 2) / total - out.iter().sum::<u128>();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(exact(parts[at]) % total));
    for &at in order.iter().take(missing as usize) {
        out[at] += 1;
    }
    out.into_iter().map(|share| share as u64).collect()
}

/// Hundredths of a per cent as people read them: `12.34`.
pub(super) fn percent(hundredths: u64) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_everything_are_everything() {
        assert_eq!(hundredths(&[1, 1, 1], 3), [3334, 3333, 3333]);
        assert_eq!(hundredths(&[1, 2], 6), [1667, 3333]);
        assert_eq!(hundredths(&[0, 5], 0), [0, 0]);
        assert_eq!(percent(3334), "33.34");
        let parts = [7, 11, 13, 999_999_999, 1];
        let total = parts.iter().sum();
        assert_eq!(hundredths(&parts, total).iter().sum::<u64>(), 10_000);
    }
}

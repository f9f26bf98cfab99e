//! Draws that data are made with: whole numbers, chances, orders.
//!
//! The published application draws from Python's and numpy's generators; ours have the same
//! distributions and streams of their own.

use std::ops::RangeInclusive;

use rand_xoshiro::rand_core::Rng;

use crate::init::uniform;

/// A number of a range, all as likely to within 2^-32.
pub(super) fn draw(generator: &mut impl Rng, range: RangeInclusive<u32>) -> u32 {
    let (first, last) = (*range.start(), *range.end());
    let count = u128::from(last - first) + 1;
    let scaled = (u128::from(generator.next_u64()) * count) >> 64;
    first + u32::try_from(scaled).expect("it is below the count")
}

/// A place of a list of `count` items.
pub(super) fn place(generator: &mut impl Rng, count: usize) -> usize {
    let last = count.checked_sub(1).expect("there is something to choose");
    let last = u32::try_from(last).expect("lists of data are shorter than 2^32");
    draw(generator, 0..=last) as usize
}

/// True with that probability.
pub(super) fn chance(generator: &mut impl Rng, probability: f64) -> bool {
    uniform(generator) < probability
}

/// Puts items in a random order, all as likely (Fisher and Yates).
pub(super) fn shuffle<T>(generator: &mut impl Rng, items: &mut [T]) {
    for left in (2..=items.len()).rev() {
        items.swap(left - 1, place(generator, left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::generator;

    #[test]
    fn every_order_comes_up_alike() {
        let mut generator = generator(3, "test");
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut generator, &mut items);
            *seen.entry(items).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        // Five standard deviations of a binomial count.
        assert!(
            seen.values().all(|&count: &i32| (count - 1000).abs() < 145),
            "{seen:?}"
        );
    }
}

//! What occurs more than once in a sequence of numbers.
//!
//! A suffix array by doubling (Manber and Myers, 1990) with the lengths of common prefixes
//! (Kasai et al., 2001): every repeated piece that can't be made longer without losing an
//! occurrence is a stretch of neighbours in it. A piece that overlaps itself is cut to what
//! doesn't. Pieces with so many occurrences that they overlap more than twofold repeat a shorter
//! one, and are left out, which keeps the work at `n log n` for `n` numbers that come in
//! periods: each doubling counts and doesn't compare.

/// A piece that occurs more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    /// How many numbers it has.
    pub(super) len: usize,
    /// Where it begins, increasing; at least `len` apart.
    pub(super) starts: Vec<usize>,
}

impl Repeat {
    /// A piece of `len` numbers, or as many as don't overlap, wherever it begins.
    fn of(len: usize, suffixes: &[usize]) -> Self {
        let mut starts = suffixes.to_vec();
        starts.sort_unstable();
        let gaps = starts.windows(2).map(|pair| pair[1] - pair[0]);
        let len = gaps.min().map_or(len, |gap| gap.min(len));
        Self { len, starts }
    }
}

/// How often the occurrences of a piece may cover the sequence.
const OVERLAP_MAX: usize = 2;

/// All repeats of a sequence, the longest first.
pub(super) fn repeats(sequence: &[u32]) -> Vec<Repeat> {
    let order = suffixes(sequence);
    let common = common_prefixes(sequence, &order);
    let mut found = Vec::new();
    // Stretches of the suffix array that are open, as (length, first suffix), growing.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for end in 1..=order.len() {
        let shared = common.get(end).copied().unwrap_or(0);
        let mut first = end - 1;
        while let Some(&(len, from)) = open.last()
            && len > shared
        {
            open.pop();
            first = from;
            if (end - from - 1) * len <= OVERLAP_MAX * sequence.len() {
                found.push(Repeat::of(len, &order[from..end]));
            }
        }
        if shared > open.last().map_or(0, |&(len, _)| len) {
            open.push((shared, first));
        }
    }
    found.sort_by(|a, b| (b.len, &a.starts).cmp(&(a.len, &b.starts)));
    found.dedup();
    found
}

/// The beginnings of all suffixes, in the order of the suffixes.
fn suffixes(sequence: &[u32]) -> Vec<usize> {
    let n = sequence.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&at| sequence[at]);
    let mut rank = ranks(&order, |at| sequence[at]);
    let mut width = 1;
    while order.last().is_some_and(|&last| rank[last] + 1 < n) {
        // By what follows the first `width` numbers: nothing, then suffixes in their order so far.
        let ends = n.saturating_sub(width)..n;
        let longer = order.iter().filter_map(|at| at.checked_sub(width));
        let by_rest: Vec<usize> = ends.chain(longer).collect();
        order = sorted_by_rank(&by_rest, &rank);
        let rest = |at: usize| rank.get(at + width).map_or(0, |rank| rank + 1);
        rank = ranks(&order, |at| (rank[at], rest(at)));
        width *= 2;
    }
    order
}

/// By beginning, how many different keys are before a suffix's in `order`.
fn ranks<K: PartialEq>(order: &[usize], key: impl Fn(usize) -> K) -> Vec<usize> {
    let mut ranks = vec![0; order.len()];
    for pair in order.windows(2) {
        ranks[pair[1]] = ranks[pair[0]] + usize::from(key(pair[0]) != key(pair[1]));
    }
    ranks
}

/// The same suffixes by their rank, and those of one rank in the order in which they come.
fn sorted_by_rank(suffixes: &[usize], rank: &[usize]) -> Vec<usize> {
    let mut place = vec![0; rank.len() + 1];
    for &rank in rank {
        place[rank + 1] += 1;
    }
    for rank in 1..place.len() {
        place[rank] += place[rank - 1];
    }
    let mut sorted = vec![0; suffixes.len()];
    for &at in suffixes {
        sorted[place[rank[at]]] = at;
        place[rank[at]] += 1;
    }
    sorted
}

/// How many numbers each suffix has in common with the one before it in `order`.
fn common_prefixes(sequence: &[u32], order: &[usize]) -> Vec<usize> {
    let mut place = vec![0; order.len()];
    for (index, &at) in order.iter().enumerate() {
        place[at] = index;
    }
    let mut common = vec![0; order.len()];
    let mut len: usize = 0;
    for at in 0..order.len() {
        let Some(before) = place[at].checked_sub(1).map(|index| order[index]) else {
            len = 0;
            continue;
        };
        let pairs = sequence[at + len..].iter().zip(&sequence[before + len..]);
        len += pairs.take_while(|(a, b)| a == b).count();
        common[place[at]] = len;
        len = len.saturating_sub(1);
    }
    common
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(sequence: &[u32]) -> Vec<(usize, Vec<usize>)> {
        let repeats = repeats(sequence).into_iter();
        repeats.map(|repeat| (repeat.len, repeat.starts)).collect()
    }

    #[test]
    fn repeats_of_short_sequences() {
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[1, 2, 3]), []);
        assert_eq!(found(&[7, 7]), [(1, vec![0, 1])]);
        // b a n a n a: `ana` overlaps itself.
        let banana = [(2, vec![1, 3]), (2, vec![2, 4]), (1, vec![1, 3, 5])];
        assert_eq!(found(&[1, 0, 2, 0, 2, 0]), banana);
    }

    /// Periods are found with all their occurrences, and the work doesn't grow with their square.
    #[test]
    fn periods_are_found_whole() {
        for periods in [3, 10, 1000] {
            let sequence: Vec<u32> = (0..periods).flat_map(|_| [4, 5, 6, 7]).collect();
            let repeats = repeats(&sequence);
            let starts = |first: usize| (0..periods).map(move |period| 4 * period + first);
            let whole = Repeat {
                len: 4,
                starts: starts(0).collect(),
            };
            assert!(repeats.contains(&whole), "{periods} periods");
            let listed: usize = repeats.iter().map(|repeat| repeat.starts.len()).sum();
            assert!(
                listed < 5 * sequence.len(),
                "{listed} starts of {periods} periods"
            );
        }
    }

    proptest! {
        #[test]
        fn suffixes_are_in_order(sequence in prop::collection::vec(0_u32..3, 0..64)) {
            let mut sorted: Vec<usize> = (0..sequence.len()).collect();
            sorted.sort_by_key(|&at| &sequence[at..]);
            prop_assert_eq!(suffixes(&sequence), sorted);
        }

        #[test]
        fn nothing_that_repeats_is_missed(sequence in prop::collection::vec(0_u32..3, 0..24)) {
            let repeats = repeats(&sequence);
            for repeat in &repeats {
                let piece = |start: usize| &sequence[start..start + repeat.len];
                prop_assert!(repeat.starts.len() > 1 && repeat.len > 0);
                for pair in repeat.starts.windows(2) {
                    prop_assert!(pair[0] + repeat.len <= pair[1], "they overlap");
                    prop_assert_eq!(piece(pair[0]), piece(pair[1]));
                }
            }
            for len in 1..=sequence.len() / 2 {
                for (start, piece) in sequence.windows(len).enumerate() {
                    let later = start + len..(sequence.len() + 1).saturating_sub(len);
                    for again in later.filter(|&at| sequence[at..].starts_with(piece)) {
                        // A piece that is as long has both occurrences, or repeats in between.
                        let has = |repeat: &Repeat| {
                            let covers = |at: usize| {
                                let inside = |from: &usize| (*from..from + repeat.len).contains(&at);
                                repeat.starts.iter().any(inside)
                            };
                            covers(start) && covers(again)
                        };
                        prop_assert!(repeats.iter().any(has), "{piece:?} at {start} and {again}");
                    }
                }
            }
        }
    }
}

//! What occurs more than once in a sequence of numbers.
//!
//! A suffix array by doubling (Manber and Myers, 1990) with the lengths of common prefixes
//! (Kasai et al., 2001): every repeated piece that can't be made longer without losing an
//! occurrence is a stretch of neighbours in it. A sequence of `n` numbers that repeats itself
//! `k` times takes `n log^2 n + n k`.

/// A piece that occurs more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    /// How many numbers it has.
    pub(super) len: usize,
    /// Where it begins, increasing; occurrences may overlap.
    pub(super) starts: Vec<usize>,
}

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
            let mut starts = order[from..end].to_vec();
            starts.sort_unstable();
            found.push(Repeat { len, starts });
        }
        if shared > open.last().map_or(0, |&(len, _)| len) {
            open.push((shared, first));
        }
    }
    found.sort_by(|a, b| (b.len, &a.starts).cmp(&(a.len, &b.starts)));
    found
}

/// The beginnings of all suffixes, in the order of the suffixes.
fn suffixes(sequence: &[u32]) -> Vec<usize> {
    let n = sequence.len();
    let mut rank: Vec<usize> = sequence.iter().map(|&number| number as usize).collect();
    let mut order: Vec<usize> = (0..n).collect();
    let mut width = 1;
    loop {
        let key = |at: usize| (rank[at], rank.get(at + width).map_or(0, |rank| rank + 1));
        order.sort_unstable_by_key(|&at| key(at));
        let mut next = vec![0; n];
        for pair in order.windows(2) {
            next[pair[1]] = next[pair[0]] + usize::from(key(pair[0]) != key(pair[1]));
        }
        let distinct = order.last().map_or(0, |&last| next[last] + 1);
        rank = next;
        width *= 2;
        if distinct == n {
            return order;
        }
    }
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
        // b a n a n a
        let banana = [(3, vec![1, 3]), (2, vec![2, 4]), (1, vec![1, 3, 5])];
        assert_eq!(found(&[1, 0, 2, 0, 2, 0]), banana);
    }

    proptest! {
        #[test]
        fn nothing_that_repeats_is_missed(sequence in prop::collection::vec(0_u32..3, 0..24)) {
            let mut expected = Vec::new();
            for len in (1..sequence.len()).rev() {
                let mut pieces: Vec<&[u32]> = sequence.windows(len).collect();
                pieces.sort_unstable();
                pieces.dedup();
                for piece in pieces {
                    let at = |starts: &[usize], piece: &[u32]| -> Vec<usize> {
                        let all = starts.iter().copied();
                        all.filter(|&at| sequence[at..].starts_with(piece)).collect()
                    };
                    let all: Vec<usize> = (0..sequence.len()).collect();
                    let starts = at(&all, piece);
                    // Longer without losing an occurrence.
                    let grows = (0..3).any(|next| {
                        let longer: Vec<u32> = piece.iter().copied().chain([next]).collect();
                        at(&starts, &longer) == starts
                    });
                    if starts.len() > 1 && !grows {
                        expected.push((len, starts));
                    }
                }
            }
            expected.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
            prop_assert_eq!(found(&sequence), expected);
        }
    }
}

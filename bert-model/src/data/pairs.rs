//! Which sentences stand together in a record?
//!
//! The rules are those of the published record maker (`create_pretraining_data.py`, after
//! Google's): sentences of a document are collected until a target length is reached; some of
//! them make the first part, and the second part is the rest of them, or, half the time, text
//! from elsewhere. What is too long then loses tokens at either end of the longer part.

use rand_xoshiro::rand_core::Rng;

use super::random::{chance, draw, place};

/// Tokens of a sentence.
pub(super) type Sentence = Vec<u32>;
/// Sentences of a document, none of them empty, at least one.
pub(super) type Document = Vec<Sentence>;

/// How often the second part is text from elsewhere, where there is a choice.
const RANDOM_NEXT: f64 = 0.5;
/// Draws of another document; a document that stands alone is another one to itself.
const OTHER_DOCUMENT_TRIES: usize = 10;

/// Two parts of a sequence, neither empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// The first part.
    pub(super) first: Vec<u32>,
    /// The second part.
    pub(super) second: Vec<u32>,
    /// Whether the second part was drawn from elsewhere.
    pub(super) random_next: bool,
}

/// The pairs of one pass over document `index`, of at most `room` tokens each (two at the
/// least). With probability `short` they are shorter throughout.
pub(super) fn pairs(
    documents: &[Document],
    index: usize,
    room: u32,
    short: f64,
    generator: &mut impl Rng,
) -> Vec<Pair> {
    let target = match chance(generator, short) {
        true => draw(generator, 2..=room),
        false => room,
    } as usize;
    let document = &documents[index];
    let mut out = Vec::new();
    let mut start = 0;
    while start < document.len() {
        let end = start + chunk(&document[start..], target);
        let sentences = end - start;
        let first_count = match sentences {
            1 => 1,
            // One to all but one.
            _ => 1 + place(generator, sentences - 1),
        };
        let middle = start + first_count;
        let mut first = document[start..middle].concat();
        let random_next = sentences == 1 || chance(generator, RANDOM_NEXT);
        let mut second = if random_next {
            // The sentences that this leaves over begin the next pair.
            start = middle;
            let other = &documents[other_document(documents.len(), index, generator)];
            let from = &other[place(generator, other.len())..];
            from[..chunk(from, target.saturating_sub(first.len()))].concat()
        } else {
            start = end;
            document[middle..end].concat()
        };
        truncate(&mut first, &mut second, room as usize, generator);
        out.push(Pair {
            first,
            second,
            random_next,
        });
    }
    out
}

/// How many sentences reach the target length, or all there are.
fn chunk(sentences: &[Sentence], target: usize) -> usize {
    let mut length = 0;
    let reached = sentences.iter().position(|sentence| {
        length += sentence.len();
        length >= target
    });
    reached.map_or(sentences.len(), |last| last + 1)
}

fn other_document(count: usize, index: usize, generator: &mut impl Rng) -> usize {
    let mut drawn = index;
    for _ in 0..OTHER_DOCUMENT_TRIES {
        drawn = place(generator, count);
        if drawn != index {
            break;
        }
    }
    drawn
}

/// Takes tokens from the longer part, the second if they are equal, at either end.
fn truncate(first: &mut Vec<u32>, second: &mut Vec<u32>, room: usize, generator: &mut impl Rng) {
    let (mut a, mut b) = (0..first.len(), 0..second.len());
    while a.len() + b.len() > room {
        let longer = if a.len() > b.len() { &mut a } else { &mut b };
        if chance(generator, 0.5) {
            longer.start += 1;
        } else {
            longer.end -= 1;
        }
    }
    *first = first[a].to_vec();
    *second = second[b].to_vec();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::init::generator;

    /// Documents whose tokens all differ: document, sentence and place can be read from one.
    fn documents(lengths: &[Vec<usize>]) -> Vec<Document> {
        let mut next = 0;
        let mut sentence = |&length: &usize| {
            next += length as u32;
            (next - length as u32..next).collect::<Sentence>()
        };
        let document = |lengths: &Vec<usize>| lengths.iter().map(&mut sentence).collect();
        lengths.iter().map(document).collect()
    }

    fn is_run(tokens: &[u32]) -> bool {
        tokens.windows(2).all(|pair| pair[0] + 1 == pair[1])
    }

    proptest! {
        #[test]
        fn pairs_keep_their_rules(
            lengths in prop::collection::vec(prop::collection::vec(1_usize..30, 1..12), 1..5),
            room in 2_u32..60,
            short in 0.0..1.0,
            seed: u64,
        ) {
            let documents = documents(&lengths);
            let mut generator = generator(seed, "test");
            for (index, document) in documents.iter().enumerate() {
                let own = document[0][0]..=*document.last().unwrap().last().unwrap();
                let found = pairs(&documents, index, room, short, &mut generator);
                prop_assert!(!found.is_empty() && found.len() <= document.len());
                for pair in &found {
                    let length = pair.first.len() + pair.second.len();
                    prop_assert!(length <= room as usize);
                    prop_assert!(!pair.first.is_empty() && !pair.second.is_empty());
                    prop_assert!(is_run(&pair.first) && is_run(&pair.second));
                    prop_assert!(own.contains(&pair.first[0]));
                    if !pair.random_next {
                        prop_assert!(pair.first.last() < pair.second.first());
                        prop_assert!(own.contains(&pair.second[0]));
                    }
                }
            }
        }
    }

    #[test]
    fn half_of_the_pairs_follow_each_other() {
        let documents = documents(&[vec![10; 400], vec![10; 400]]);
        let mut generator = generator(11, "test");
        let found: Vec<Pair> = (0..50)
            .flat_map(|_| pairs(&documents, 0, 40, 0.0, &mut generator))
            .collect();
        let random = found.iter().filter(|pair| pair.random_next).count();
        let share = random as f64 / found.len() as f64;
        assert!((share - 0.5).abs() < 0.03, "{share}");
        // With another document to choose from, ten draws find it nearly always.
        let own = |pair: &&Pair| pair.random_next && pair.second[0] < 4000;
        assert!(found.iter().filter(own).count() * 100 < random);
        // Nothing is short unless asked for, but for the ends of documents.
        let full = found
            .iter()
            .filter(|pair| pair.first.len() + pair.second.len() == 40);
        assert!(full.count() * 10 > 9 * found.len());
    }
}

//! Which sequences share a pack?
//!
//! As the published packer decides it (`packed_bert_data` of v2.3 to v3.1; Krell et al., "Efficient
//! Sequence Packing without Cross-contamination", 2021): a *strategy* is a list of lengths that
//! fill a row exactly. How often each strategy is used is the mixture whose lengths are nearest to
//! those of the sequences, by non-negative least squares, rounded. Where a strategy wants more
//! sequences of a length than there are, padding stands in; what no strategy wants is left over.
//!
//! Left out: reading in parts. All records are in memory, so the order in which sequences of a
//! length are used is one shuffle.

use std::collections::BTreeMap;

use super::error::{DataError, Limit, RecipeField};
use super::layout::{Field, Record, SEQUENCE_LENGTH_MAX};
use super::nnls::{Column, nnls};
use super::pack::{Pack, PackLayout, Sequence};
use super::random::shuffle;
use crate::init::generator;

/// Lengths up to this one count less in the mixture, for sequences so short hardly occur.
const SHORT_MAX: u32 = 8;

/// Strategies at the most: rows of 512 positions are filled with up to three sequences in 22,102
/// ways, and the mixture of them takes time with each.
const STRATEGIES_MAX: u64 = 1 << 16;

/// Treatment of sequences that no strategy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// They are dropped.
    Drop,
    /// Each gets a row with padding.
    Pad,
}

/// How packs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackingRecipe {
    /// Size and form of the packs.
    pub layout: PackLayout,
    /// Treatment of sequences that no strategy wants.
    pub leftovers: Leftovers,
    /// Where the order of sequences comes from.
    pub seed: u64,
}

/// A pack and the strategy that it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPack {
    /// The pack.
    pub pack: Pack,
    /// Lengths that fill its row, padding included, in ascending order.
    pub strategy: Vec<u32>,
    /// The records in it, by their places, as its sequences are numbered.
    pub records: Vec<usize>,
}

/// Packs, and what became of the sequences that they were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// The packs.
    pub packs: Vec<NamedPack>,
    /// Sequences that no strategy wanted.
    pub dropped: u64,
    /// Sequences of packs that were left out because they have too many masked words.
    pub crowded: u64,
    /// Padding sequences that stand in packs.
    pub padding: u64,
}

/// Packs records, whose sequences have as many positions as a pack at the most.
///
/// # Errors
///
/// No record; a record that breaks its form, is longer than a pack, or has its first word masked;
/// a layout without a sequence or a position.
pub fn pack_records(records: &[Record], recipe: &PackingRecipe) -> Result<Packing, DataError> {
    recipe.check()?;
    let length = recipe.layout.sequence_length;
    let mut lengths = Vec::with_capacity(records.len());
    for (place, record) in records.iter().enumerate() {
        lengths.push(sequence_length(record, place, length)?);
    }
    let mut histogram = vec![0_u64; length as usize];
    for &each in &lengths {
        histogram[each as usize - 1] += 1;
    }
    if lengths.is_empty() {
        return Err(DataError::NoRecords);
    }
    let strategies = strategies(length, recipe.layout.sequences);
    let mixture = mixture(&histogram, &strategies);
    let (bins, rows, dropped) = bins(&lengths, histogram, &strategies, &mixture, recipe);
    Ok(fill(records, bins, rows, dropped, recipe.layout))
}

impl PackingRecipe {
    /// Whether packs can be made so, whatever the records.
    ///
    /// # Errors
    ///
    /// A layout without a sequence or a position, or with more strategies than are counted.
    pub fn check(&self) -> Result<(), DataError> {
        let length = self.layout.sequence_length;
        at_least_one(RecipeField::SequenceLength, length)?;
        let most = SEQUENCE_LENGTH_MAX;
        if length > most {
            return Err(DataError::OutOfRange {
                field: RecipeField::SequenceLength,
                limit: Limit::AtMost { most },
                value: f64::from(length),
            });
        }
        at_least_one(RecipeField::SequencesPerPack, self.layout.sequences)?;
        if strategy_count(length, self.layout.sequences) > STRATEGIES_MAX {
            let most = STRATEGIES_MAX;
            return Err(DataError::Strategies { most });
        }
        Ok(())
    }
}

fn at_least_one(field: RecipeField, value: u32) -> Result<(), DataError> {
    match value {
        0 => Err(DataError::OutOfRange {
            field,
            limit: Limit::One,
            value: 0.0,
        }),
        _ => Ok(()),
    }
}

/// Words of a sound record.
fn sequence_length(record: &Record, place: usize, most: u32) -> Result<u32, DataError> {
    if let Some(fault) = record.fault() {
        return Err(DataError::Record { place, fault });
    }
    let words = record.slots_in_use().count() as u32;
    if words > most {
        return Err(DataError::LongRecord { place, words, most });
    }
    let masked = record.get(Field::Masked)[0] as usize;
    if words == 0 || record.get(Field::Positions)[..masked].contains(&0) {
        return Err(DataError::RecordStart { place });
    }
    Ok(words)
}

/// How many [`strategies`] there are, or any number above the most that are allowed.
fn strategy_count(length: u32, most: u32) -> u64 {
    // Lists of up to so many lengths that fill a row of each length from 0 on.
    let mut counts = vec![0_u64; length as usize + 1];
    counts[0] = 1;
    // As many lists have up to `n` lengths as have lengths up to `n`.
    for part in 1..=most.min(length) as usize {
        for row in part..counts.len() {
            counts[row] = counts[row].saturating_add(counts[row - part]);
        }
        if counts[length as usize] > STRATEGIES_MAX {
            break;
        }
    }
    counts[length as usize]
}

/// Every list of up to `most` lengths in ascending order that fill a row of `length`.
fn strategies(length: u32, most: u32) -> Vec<Vec<u32>> {
    fn extend(start: &mut Vec<u32>, left: u32, most: u32, all: &mut Vec<Vec<u32>>) {
        let least = start.last().copied().unwrap_or(1);
        if left >= least {
            start.push(left);
            all.push(start.clone());
            start.pop();
        }
        if most > 1 {
            for next in least..=left / 2 {
                start.push(next);
                extend(start, left - next, most - 1, all);
                start.pop();
            }
        }
    }
    let mut all = Vec::new();
    extend(&mut Vec::new(), length, most, &mut all);
    all
}

/// How often each strategy is used, for sequences of which `histogram[n - 1]` have `n` words.
fn mixture(histogram: &[u64], strategies: &[Vec<u32>]) -> Vec<u64> {
    let short = (f64::from(SHORT_MAX) / (2.0 * histogram.len() as f64)).sqrt();
    let weight = |length: u32| if length <= SHORT_MAX { short } else { 1.0 };
    let column = |strategy: &Vec<u32>| -> Column {
        let mut column = BTreeMap::new();
        for &length in strategy {
            *column.entry(length as usize - 1).or_default() += weight(length);
        }
        column.into_iter().collect()
    };
    let columns: Vec<Column> = strategies.iter().map(column).collect();
    let wanted: Vec<f64> = (1..)
        .zip(histogram)
        .map(|(length, &count)| weight(length) * count as f64)
        .collect();
    let exact = nnls(&columns, &wanted);
    exact
        .into_iter()
        .map(|count| count.round() as u64)
        .collect()
}

/// Records of one length by their places, padding as none.
type Bin = Vec<Option<usize>>;

/// Strategies with how many rows follow each.
type Rows<'a> = Vec<(&'a [u32], u64)>;

/// The sequences of each length that strategies want, shuffled, with padding where they want more;
/// how many rows follow each strategy; and how many sequences are dropped.
fn bins<'a>(
    lengths: &[u32],
    histogram: Vec<u64>,
    strategies: &'a [Vec<u32>],
    mixture: &[u64],
    recipe: &PackingRecipe,
) -> (Vec<Bin>, Rows<'a>, u64) {
    let row = recipe.layout.sequence_length;
    let mut draws = generator(recipe.seed, "packing");
    let mut bins: Vec<Bin> = vec![Vec::new(); row as usize];
    for (place, &length) in lengths.iter().enumerate() {
        bins[length as usize - 1].push(Some(place));
    }
    let mut wanted = vec![0_u64; row as usize];
    let mut rows: Rows<'_> = Vec::new();
    for (strategy, &count) in strategies.iter().zip(mixture) {
        for &length in strategy {
            wanted[length as usize - 1] += count;
        }
        rows.push((strategy, count));
    }
    let mut dropped = 0;
    for (length, (wanted, there)) in (1..=row).zip(wanted.into_iter().zip(histogram)) {
        let bin = &mut bins[length as usize - 1];
        shuffle(&mut draws, bin);
        if wanted >= there {
            bin.extend((there..wanted).map(|_| None));
            shuffle(&mut draws, bin);
            continue;
        }
        let over = there - wanted;
        match recipe.leftovers {
            Leftovers::Drop => {
                bin.truncate(wanted as usize);
                dropped += over;
            }
            Leftovers::Pad => {
                let mut alone = [length, row - length];
                alone.sort_unstable();
                let alone = strategies.iter().find(|strategy| match length == row {
                    true => **strategy == [row],
                    false => **strategy == alone,
                });
                match alone {
                    Some(strategy) => rows.push((strategy, over)),
                    // Packs of one sequence have no room for another, padding or not.
                    None => {
                        bin.truncate(wanted as usize);
                        dropped += over;
                    }
                }
            }
        }
    }
    (bins, rows, dropped)
}

/// Takes from the ends of the bins what each row wants.
fn fill(
    records: &[Record],
    mut bins: Vec<Bin>,
    rows: Rows<'_>,
    dropped: u64,
    layout: PackLayout,
) -> Packing {
    let mut packing = Packing {
        dropped,
        ..Packing::default()
    };
    for (strategy, count) in rows {
        for _ in 0..count {
            let taken = strategy.iter().map(|&length| {
                // An empty bin is that of the partner of a sequence that was left over.
                bins[length as usize - 1].pop().flatten()
            });
            let taken: Vec<Option<usize>> = taken.collect();
            let places: Vec<usize> = taken.iter().copied().flatten().collect();
            if places.is_empty() {
                continue;
            }
            let sequences: Vec<Sequence> =
                places.iter().map(|&at| sequence(&records[at])).collect();
            match Pack::of(layout, &sequences) {
                Some(pack) => {
                    packing.padding += (taken.len() - places.len()) as u64;
                    packing.packs.push(NamedPack {
                        pack,
                        strategy: strategy.to_vec(),
                        records: places,
                    });
                }
                // Lengths fill the row, so what has no room are masked words.
                None => packing.crowded += places.len() as u64,
            }
        }
    }
    packing
}

/// The sequence of a record.
fn sequence(record: &Record) -> Sequence {
    Sequence {
        tokens: record.in_text_order(),
        random_next: record.get(Field::RandomNext)[0],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::layout::RecordLayout;
    use crate::data::pack::{PackField, PackForm};

    fn layout(sequence_length: u32, sequences: u32) -> PackLayout {
        PackLayout {
            sequence_length,
            mask_tokens: 3,
            sequences,
            form: PackForm::Slices,
        }
    }

    fn recipe(sequence_length: u32, sequences: u32, leftovers: Leftovers) -> PackingRecipe {
        PackingRecipe {
            layout: layout(sequence_length, sequences),
            leftovers,
            seed: 7,
        }
    }

    /// A record of `words` words that are its own, of which the last `masked` are masked.
    fn record(number: u32, words: u32, masked: u32) -> Record {
        // Room for 24 words of which none is masked.
        let layout = RecordLayout {
            sequence_length: 27,
            mask_tokens: 3,
        };
        let mut record = Record::empty(layout);
        record.get_mut(Field::Masked)[0] = masked;
        record.get_mut(Field::End)[0] = layout.mask_tokens + words - masked;
        let slots: Vec<usize> = record.slots_in_use().collect();
        let places = (words - masked..words).chain(0..words - masked);
        for (slot, place) in slots.into_iter().zip(places) {
            record.get_mut(Field::Words)[slot] = 100 * (number + 1) + place;
            record.get_mut(Field::Positions)[slot] = place;
        }
        for slot in 0..masked as usize {
            record.get_mut(Field::Labels)[slot] = 1 + number;
        }
        record.get_mut(Field::RandomNext)[0] = number % 2;
        assert_eq!(record.fault(), None);
        record
    }

    #[test]
    fn all_ways_to_fill_a_row() {
        assert_eq!(
            strategies(6, 3),
            [
                vec![6],
                vec![1, 5],
                vec![1, 1, 4],
                vec![1, 2, 3],
                vec![2, 4],
                vec![2, 2, 2],
                vec![3, 3],
            ]
        );
        for (length, most, count) in [
            (128, 3, 1_430),
            (384, 3, 12_481),
            (512, 3, 22_102),
            (512, 2, 257),
            (512, 1, 1),
        ] {
            let all = strategies(length, most);
            assert_eq!(all.len(), count, "{length} {most}");
            let fills = |strategy: &Vec<u32>| strategy.iter().sum::<u32>() == length;
            assert!(all.iter().all(fills));
        }
    }

    /// Lengths that fill rows in pairs are paired without padding.
    #[test]
    fn sequences_that_go_together_share_packs() {
        let records: Vec<Record> = (0..40)
            .map(|number| record(number, if number < 20 { 9 } else { 15 }, 1))
            .collect();
        let packing = pack_records(&records, &recipe(24, 2, Leftovers::Drop)).unwrap();
        assert_eq!(
            (packing.packs.len(), packing.padding, packing.dropped),
            (20, 0, 0)
        );
        assert!(packing.packs.iter().all(|pack| pack.strategy == [9, 15]));
    }

    /// The mixture of a real distribution of lengths: half of the records are full.
    #[test]
    fn few_rows_are_wasted() {
        let length = |number: u32| {
            if number.is_multiple_of(2) {
                128
            } else {
                5 + number * 37 % 120
            }
        };
        let lengths: Vec<u32> = (0..6000).map(length).collect();
        let mut histogram = vec![0_u64; 128];
        for length in &lengths {
            histogram[*length as usize - 1] += 1;
        }
        let strategies = strategies(128, 3);
        let mixture = mixture(&histogram, &strategies);
        let rows: u64 = mixture.iter().sum();
        let words: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        let full = words as f64 / 128.0;
        assert!(
            (rows as f64 - full).abs() < 0.02 * full,
            "{rows} rows for {full}"
        );
    }

    #[test]
    fn strategies_are_counted_before_they_are_made() {
        for (length, most) in [
            (1, 1),
            (7, 1),
            (24, 2),
            (24, 3),
            (24, 24),
            (24, 99),
            (128, 3),
        ] {
            let made = strategies(length, most).len() as u64;
            assert_eq!(strategy_count(length, most), made, "{length} {most}");
        }
        assert_eq!(strategy_count(512, 3), 22_102);
        assert!(strategy_count(512, u32::MAX) > STRATEGIES_MAX);
        assert!(strategy_count(SEQUENCE_LENGTH_MAX, 3) > STRATEGIES_MAX);
        let error = pack_records(&[], &recipe(512, 20, Leftovers::Drop)).unwrap_err();
        let expected = "sequences fill rows in more than 65536 ways: expected shorter rows or \
                        fewer sequences of a pack";
        assert_eq!(error.to_string(), expected);
        let error = pack_records(&[], &recipe(65_537, 1, Leftovers::Drop)).unwrap_err();
        let expected = "`sequence_length` must be at most 65536, got 65537";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn what_cant_be_packed_is_named() {
        let all = [record(0, 5, 1), record(1, 9, 0)];
        let check = |records: &[Record], recipe: PackingRecipe, expected: &str| {
            let error = pack_records(records, &recipe).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        let drop = Leftovers::Drop;
        check(&[], recipe(24, 3, drop), "there is no record to pack");
        check(
            &all,
            recipe(8, 3, drop),
            "record 1 has 9 words, a pack has room for 8",
        );
        check(
            &all,
            recipe(24, 0, drop),
            "`sequences_per_pack` must be at least 1, got 0",
        );
        let mut broken = all.clone();
        broken[1].get_mut(Field::Positions)[3] = 7;
        check(
            &broken,
            recipe(24, 3, drop),
            "record 1 is none of this form: no word at position 0",
        );
        let whole = [record(0, 1, 1)];
        check(
            &whole,
            recipe(24, 3, drop),
            "record 0 doesn't start with a word that isn't masked",
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Every sequence is in one pack or counted as left out, rows are full, and no pack has
        /// more than its form holds.
        #[test]
        fn packs_hold_every_sequence_once(
            sizes in prop::collection::vec((1_u32..25, 0_u32..4), 1..120),
            most in 1_u32..4,
            pad in any::<bool>(),
        ) {
            let records: Vec<Record> = (0..)
                .zip(&sizes)
                .map(|(number, &(words, masked))| record(number, words, masked.min(words - 1)))
                .collect();
            let leftovers = if pad { Leftovers::Pad } else { Leftovers::Drop };
            let recipe = recipe(24, most, leftovers);
            let packing = pack_records(&records, &recipe).unwrap();
            let mut seen = vec![false; records.len()];
            let mut padded = 0;
            for NamedPack { pack, strategy, records: places } in &packing.packs {
                prop_assert_eq!(strategy.iter().sum::<u32>(), 24);
                prop_assert!(strategy.is_sorted());
                prop_assert_eq!(pack.fault(), None);
                prop_assert!(pack.count() <= most && pack.count() as usize == places.len());
                prop_assert!(!places.is_empty());
                padded += (strategy.len() - places.len()) as u64;
                let labels = pack.get(PackField::LabelNumbers);
                prop_assert!(labels.len() as u32 == recipe.layout.label_slots());
                for (place, sequence) in places.iter().zip(pack.sequences()) {
                    prop_assert!(!std::mem::replace(&mut seen[*place], true));
                    prop_assert_eq!(sequence, self::sequence(&records[*place]));
                }
            }
            prop_assert_eq!(padded, packing.padding);
            let left_out = seen.iter().filter(|seen| !**seen).count() as u64;
            prop_assert_eq!(left_out, packing.dropped + packing.crowded);
            if pad && most > 1 {
                prop_assert_eq!(packing.dropped, 0);
            }
            prop_assert_eq!(pack_records(&records, &recipe).unwrap(), packing);
        }
    }
}

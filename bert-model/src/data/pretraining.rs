//! From text to records: documents, sentence pairs, masked words.
//!
//! The rules are those of the published record maker
//! (`applications/popart/bert/bert_data/create_pretraining_data.py`). Random numbers come from
//! generators of our own, one for every copy of the text, so that records agree with the
//! original's in everything but the draws: other words are masked, other sentences meet.

use rand_xoshiro::rand_core::Rng;

use super::blanks;
use super::error::{DataError, Limit, RecipeField};
use super::layout::{Field, Record, RecordLayout, SEQUENCE_LENGTH_MAX};
use super::pairs::{Document, Pair, pairs};
use super::random::{chance, draw, shuffle};
use super::{Tokeniser, Vocabulary};
use crate::init::generator;

/// `[CLS]` and two `[SEP]`.
const SPECIAL_TOKENS: u32 = 3;
/// How often a word to be guessed is hidden.
const HIDDEN: f64 = 0.8;
/// How often one that isn't hidden stays as it is; the others become any word.
const KEPT: f64 = 0.5;

/// The sentences of a text as tokens, document by document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corpus {
    documents: Vec<Document>,
    /// Whether the next sentence belongs to the last document.
    open: bool,
    /// Memory of the documents.
    bytes: u64,
}

impl Corpus {
    /// Takes the next line of a text: a sentence, or, if it is blank, the end of a document.
    /// Sentences without tokens are left out.
    pub fn push_line(&mut self, line: &str, tokeniser: &Tokeniser) {
        let line = blanks::strip(line);
        if line.is_empty() {
            self.open = false;
            return;
        }
        let tokens = tokeniser.encode(line);
        if tokens.is_empty() {
            return;
        }
        self.bytes += (size_of_val(tokens.as_slice()) + size_of::<Document>()) as u64;
        match self.documents.last_mut().filter(|_| self.open) {
            Some(document) => document.push(tokens),
            None => {
                self.bytes += size_of::<Document>() as u64;
                self.documents.push(vec![tokens]);
            }
        }
        self.open = true;
    }

    /// The corpus of a whole text.
    #[must_use]
    pub fn of_text(text: &str, tokeniser: &Tokeniser) -> Self {
        let mut corpus = Self::default();
        blanks::lines(text).for_each(|line| corpus.push_line(line, tokeniser));
        corpus
    }

    /// Documents with at least one sentence.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Memory that the documents take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tokens of all documents.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.documents.iter().flatten().map(Vec::len).sum()
    }
}

/// How records are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Sequence lengths and counts that give a record its size.
    pub layout: RecordLayout,
    /// Share of the words of a sequence that are masked.
    pub mask_probability: f64,
    /// How often the pairs of a document are short.
    pub short_sequence_probability: f64,
    /// Position of unused slots.
    pub pad_position: u32,
    /// Where all draws come from.
    pub seed: u64,
}

impl Recipe {
    fn check(&self) -> Result<(), DataError> {
        let RecordLayout {
            sequence_length,
            mask_tokens,
        } = self.layout;
        let check = |field, limit, value, holds| match holds {
            true => Ok(()),
            false => Err(DataError::OutOfRange {
                field,
                limit,
                value,
            }),
        };
        // A short sequence has two tokens at the least, and every masked slot a word.
        let special = SPECIAL_TOKENS;
        let least = special + 2;
        check(
            RecipeField::SequenceLength,
            Limit::Pair { least },
            f64::from(sequence_length),
            sequence_length >= least,
        )?;
        let most = SEQUENCE_LENGTH_MAX;
        check(
            RecipeField::SequenceLength,
            Limit::AtMost { most },
            f64::from(sequence_length),
            sequence_length <= most,
        )?;
        let masked = f64::from(mask_tokens);
        check(RecipeField::MaskTokens, Limit::One, masked, mask_tokens > 0)?;
        check(
            RecipeField::MaskTokens,
            Limit::Slots { special },
            masked,
            mask_tokens <= sequence_length - special,
        )?;
        for (field, share) in [
            (RecipeField::MaskProbability, self.mask_probability),
            (
                RecipeField::ShortSequenceProbability,
                self.short_sequence_probability,
            ),
        ] {
            check(field, Limit::Share, share, (0.0..=1.0).contains(&share))?;
        }
        Ok(())
    }
}

/// Makes records of a corpus, copy by copy.
#[derive(Clone, Debug)]
pub struct RecordMaker<'a> {
    documents: Vec<Document>,
    vocabulary: &'a Vocabulary,
    recipe: Recipe,
}

impl<'a> RecordMaker<'a> {
    /// A maker of records of that text. Documents are shuffled once.
    ///
    /// # Errors
    ///
    /// A recipe that no record fits; [`DataError::NoText`] without a single token.
    pub fn new(
        corpus: Corpus,
        vocabulary: &'a Vocabulary,
        recipe: Recipe,
    ) -> Result<Self, DataError> {
        recipe.check()?;
        let mut documents = corpus.documents;
        if documents.is_empty() {
            return Err(DataError::NoText);
        }
        shuffle(&mut generator(recipe.seed, "documents"), &mut documents);
        Ok(Self {
            documents,
            vocabulary,
            recipe,
        })
    }

    /// The records of copy `copy` of the text, in the order of the documents. Every copy has its
    /// own pairs and masks.
    #[must_use]
    pub fn copy(&self, copy: u64) -> Vec<Record> {
        self.copy_up_to(copy, usize::MAX)
            .expect("no vector holds more")
    }

    /// The records of one copy of the text, unless there are more than `most`.
    #[must_use]
    pub fn copy_up_to(&self, copy: u64, most: usize) -> Option<Vec<Record>> {
        let mut generator = generator(self.recipe.seed, &format!("copy {copy}"));
        let room = self.recipe.layout.sequence_length - SPECIAL_TOKENS;
        let short = self.recipe.short_sequence_probability;
        let mut records = Vec::new();
        for index in 0..self.documents.len() {
            let found = pairs(&self.documents, index, room, short, &mut generator);
            if found.len() > most - records.len() {
                return None;
            }
            records.extend(found.iter().map(|pair| self.record(pair, &mut generator)));
        }
        Some(records)
    }

    /// Puts records in a random order, one for every number of an `order`.
    pub fn shuffle(&self, records: &mut [Record], order: u64) {
        let mut generator = generator(self.recipe.seed, &format!("order {order}"));
        shuffle(&mut generator, records);
    }

    fn record(&self, pair: &Pair, generator: &mut impl Rng) -> Record {
        let Vocabulary {
            classifier,
            separator,
            ..
        } = *self.vocabulary;
        let parts: [&[u32]; 5] = [
            &[classifier],
            &pair.first,
            &[separator],
            &pair.second,
            &[separator],
        ];
        let mut words = parts.concat();
        let second_from = pair.first.len() + 2;
        let masked = self.mask(&mut words, second_from, generator);
        arrange(
            &Sequence {
                words: &words,
                second_from,
                masked: &masked,
                random_next: pair.random_next,
            },
            &self.recipe,
        )
    }

    /// Masks words of a sequence. Returns their places, ascending, with what they were.
    fn mask(
        &self,
        words: &mut [u32],
        second_from: usize,
        generator: &mut impl Rng,
    ) -> Vec<(usize, u32)> {
        let specials = [0, second_from - 1, words.len() - 1];
        let mut places: Vec<usize> = (0..words.len())
            .filter(|place| !specials.contains(place))
            .collect();
        shuffle(generator, &mut places);
        places.truncate(self.masked_count(words.len()));
        places.sort_unstable();
        let last = self.vocabulary.size() - 1;
        let mask = |place: usize| {
            let was = words[place];
            words[place] = if chance(generator, HIDDEN) {
                self.vocabulary.mask
            } else if chance(generator, KEPT) {
                was
            } else {
                draw(generator, 0..=last)
            };
            (place, was)
        };
        places.into_iter().map(mask).collect()
    }

    /// How many words of a sequence of that length are masked: the share asked for, as far as
    /// there are slots, and enough that the others fit behind those slots.
    fn masked_count(&self, length: usize) -> usize {
        let RecordLayout {
            sequence_length,
            mask_tokens,
        } = self.recipe.layout;
        let share = (self.recipe.mask_probability * length as f64).round_ties_even() as usize;
        let most = (mask_tokens as usize).min(length - SPECIAL_TOKENS as usize);
        let least = (length + mask_tokens as usize).saturating_sub(sequence_length as usize);
        share.max(1).min(most).max(least)
    }
}

/// A sequence of words with what there is to learn from it.
struct Sequence<'a> {
    /// Words in the order of the text, special ones and masks included.
    words: &'a [u32],
    /// Where the second part begins.
    second_from: usize,
    /// Places of masked words, ascending, with what they were.
    masked: &'a [(usize, u32)],
    random_next: bool,
}

/// Lays a sequence out as a record.
fn arrange(sequence: &Sequence, recipe: &Recipe) -> Record {
    let mut record = Record::empty(recipe.layout);
    record.get_mut(Field::Positions).fill(recipe.pad_position);
    let mask_tokens = recipe.layout.mask_tokens as usize;
    let masked = sequence.masked.iter().map(|&(place, _)| place);
    let is_masked = |place: &usize| {
        let found = sequence.masked.binary_search_by_key(place, |&(at, _)| at);
        found.is_ok()
    };
    let others = (0..sequence.words.len()).filter(|place| !is_masked(place));
    let slots = (0..).zip(masked).chain((mask_tokens..).zip(others));
    let mut end = mask_tokens;
    for (slot, place) in slots {
        record.get_mut(Field::Words)[slot] = sequence.words[place];
        record.get_mut(Field::Positions)[slot] = small(place);
        let segment = u32::from(place >= sequence.second_from);
        record.get_mut(Field::Segments)[slot] = segment;
        end = slot + 1;
    }
    for (slot, &(_, was)) in sequence.masked.iter().enumerate() {
        record.get_mut(Field::Labels)[slot] = was;
    }
    record.get_mut(Field::Masked)[0] = small(sequence.masked.len());
    record.get_mut(Field::End)[0] = small(end);
    record.get_mut(Field::RandomNext)[0] = u32::from(sequence.random_next);
    record
}

fn small(place: usize) -> u32 {
    u32::try_from(place).expect("places are below the sequence length, a u32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Case;

    const LAYOUT: RecordLayout = RecordLayout {
        sequence_length: 32,
        mask_tokens: 6,
    };
    const RECIPE: Recipe = Recipe {
        layout: LAYOUT,
        mask_probability: 0.15,
        short_sequence_probability: 0.1,
        pad_position: 384,
        seed: 1984,
    };

    /// Two hundred words of which every sentence holds a few.
    fn text() -> String {
        let sentence = |number: usize| {
            let words: Vec<String> = (0..7 + number % 9)
                .map(|word| format!("w{}", (number * 13 + word * word * 7) % 200))
                .collect();
            words.join(" ") + if number % 20 == 19 { "\n\n" } else { "\n" }
        };
        (0..300).map(sentence).collect()
    }

    fn vocabulary() -> Vocabulary {
        Vocabulary::of_words(&text(), Case::Keep, 2000).unwrap()
    }

    fn maker(vocabulary: &Vocabulary, recipe: Recipe) -> Result<RecordMaker<'_>, DataError> {
        let tokeniser = Tokeniser::new(vocabulary, Case::Keep);
        RecordMaker::new(Corpus::of_text(&text(), &tokeniser), vocabulary, recipe)
    }

    #[test]
    fn blank_lines_end_documents() {
        let vocabulary = vocabulary();
        let tokeniser = Tokeniser::new(&vocabulary, Case::Keep);
        let count = |text| Corpus::of_text(text, &tokeniser).documents();
        assert_eq!(count(""), 0);
        assert_eq!(count("\n\n \n"), 0);
        assert_eq!(count("w1 w2\nw3\n\n\nw4\n"), 2);
        // A line of nothing but control characters is no sentence, but no blank line either.
        assert_eq!(count("w1\n\u{1}\nw2"), 1);
        let corpus = Corpus::of_text("w1 w2\nw3\n\nw4", &tokeniser);
        assert_eq!(corpus.tokens(), 4);
    }

    #[test]
    fn a_record_holds_its_sequence() {
        let words: Vec<u32> = (10..30).collect();
        let record = arrange(
            &Sequence {
                words: &words,
                second_from: 12,
                masked: &[(3, 77), (15, 88)],
                random_next: true,
            },
            &RECIPE,
        );
        let get = |field| record.get(field);
        assert_eq!(get(Field::Words)[..8], [13, 25, 0, 0, 0, 0, 10, 11]);
        assert_eq!(
            get(Field::Positions)[..8],
            [3, 15, 384, 384, 384, 384, 0, 1]
        );
        assert_eq!(get(Field::Segments)[..2], [0, 1]);
        assert_eq!((get(Field::Masked), get(Field::End)), (&[2][..], &[24][..]));
        assert_eq!(get(Field::Labels), [77, 88, 0, 0, 0, 0]);
        assert_eq!(get(Field::RandomNext), [1]);
        assert!(get(Field::Words)[24..].iter().all(|&word| word == 0));
        let tokens = record.in_text_order();
        let read: Vec<u32> = tokens.iter().map(|token| token.word).collect();
        assert_eq!(read, words);
        assert_eq!((tokens[3].label, tokens[4].label), (Some(77), None));
    }

    #[test]
    fn counts_of_masked_words() {
        let vocabulary = vocabulary();
        let check = |sequence_length, mask_tokens, length, expected| {
            let layout = RecordLayout {
                sequence_length,
                mask_tokens,
            };
            let recipe = Recipe { layout, ..RECIPE };
            let maker = maker(&vocabulary, recipe).unwrap();
            assert_eq!(maker.masked_count(length), expected, "{length}");
        };
        // 19.2; 1.5 and 4.5 to even; one at the least; as many as slots; so that the rest fits.
        check(128, 20, 128, 20);
        check(384, 56, 384, 56);
        check(128, 20, 100, 15);
        check(128, 20, 10, 2);
        check(128, 20, 30, 4);
        check(128, 20, 5, 1);
        check(128, 2, 100, 2);
        check(128, 40, 128, 40);
        check(128, 40, 110, 22);
    }

    #[test]
    fn shares_are_those_asked_for() {
        let vocabulary = vocabulary();
        // As many slots as the share of the longest sequence, so that none decides.
        let layout = RecordLayout {
            mask_tokens: 5,
            ..LAYOUT
        };
        let maker = maker(&vocabulary, Recipe { layout, ..RECIPE }).unwrap();
        let records: Vec<Record> = (0..60).flat_map(|copy| maker.copy(copy)).collect();
        let (mut masked, mut hidden, mut kept, mut words) = (0, 0, 0, 0);
        for token in records.iter().flat_map(Record::in_text_order) {
            words += 1;
            let Some(label) = token.label else { continue };
            masked += 1;
            hidden += usize::from(token.word == vocabulary.mask);
            kept += usize::from(token.word == label);
        }
        let near = |count: usize, of: usize, share: f64| {
            let found = count as f64 / of as f64;
            assert!((found - share).abs() < 0.01, "{found} rather than {share}");
        };
        assert!(masked > 10_000);
        near(hidden, masked, 0.8);
        near(kept, masked, 0.1);
        near(masked, words, 0.15);
    }

    #[test]
    fn copies_differ_and_come_back() {
        let vocabulary = vocabulary();
        let maker = maker(&vocabulary, RECIPE).unwrap();
        assert_eq!(maker.copy(3), maker.copy(3));
        assert_ne!(maker.copy(3), maker.copy(4));
        let mut records = maker.copy(0);
        maker.shuffle(&mut records, 0);
        assert_ne!(records, maker.copy(0));
        let sorted = |mut records: Vec<Record>| {
            records.sort_by_key(|record| record.get(Field::Words).to_vec());
            records
        };
        assert_eq!(sorted(records), sorted(maker.copy(0)));
    }

    #[test]
    fn recipes_that_no_record_fits_are_refused() {
        let vocabulary = vocabulary();
        let check = |change: fn(&mut Recipe), expected: &str| {
            let mut recipe = RECIPE;
            change(&mut recipe);
            let error = maker(&vocabulary, recipe).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(
            |recipe| recipe.layout.sequence_length = 4,
            "`sequence_length` must be 5 or more, got 4",
        );
        check(
            |recipe| recipe.layout.mask_tokens = 30,
            "`mask_tokens` must be at most the sequence length less 3, got 30",
        );
        check(
            |recipe| recipe.layout.mask_tokens = 0,
            "`mask_tokens` must be at least 1, got 0",
        );
        check(
            |recipe| recipe.mask_probability = f64::NAN,
            "`mask_probability` must be in 0 to 1, got NaN",
        );
        let corpus = Corpus::default();
        assert_eq!(
            RecordMaker::new(corpus, &vocabulary, RECIPE).unwrap_err(),
            DataError::NoText
        );
    }

    proptest::proptest! {
        /// Any text in, records that keep the rules of their form out.
        #[test]
        fn any_text_makes_sound_records(
            text in "(\\PC{0,60}\n){0,12}|[a-f .\n]{0,400}",
            sequence_length in 5_u32..64,
            seed: u64,
        ) {
            let vocabulary = Vocabulary::of_words("abc def", Case::Lower, 1200).unwrap();
            let tokeniser = Tokeniser::new(&vocabulary, Case::Lower);
            let layout = RecordLayout { sequence_length, mask_tokens: 1 + (seed % 20).min(u64::from(sequence_length) - 4) as u32 };
            let recipe = Recipe { layout, seed, ..RECIPE };
            let corpus = Corpus::of_text(&text, &tokeniser);
            let empty = corpus.documents() == 0;
            let maker = match RecordMaker::new(corpus, &vocabulary, recipe) {
                Ok(maker) => maker,
                Err(error) => {
                    proptest::prop_assert!(empty && error == DataError::NoText, "{}", error);
                    return Ok(());
                }
            };
            for record in maker.copy(0) {
                let tokens = record.in_text_order();
                // Positions without a gap: every word has a slot, and one only.
                proptest::prop_assert!((0..).zip(&tokens).all(|(place, token)| token.position == place));
                proptest::prop_assert_eq!(record.get(Field::Words)[layout.mask_tokens as usize], vocabulary.classifier);
                proptest::prop_assert_eq!(tokens.last().map(|token| token.word), Some(vocabulary.separator));
                let masked = record.get(Field::Masked)[0];
                proptest::prop_assert!(masked >= 1 && masked <= layout.mask_tokens);
                proptest::prop_assert_eq!(tokens.iter().filter(|token| token.label.is_some()).count(), masked as usize);
            }
        }
    }
}

//! How does a pack of several sequences lie in a file?
//!
//! Packs follow each other as records do, as rows of 32-bit little-endian integers. Every position
//! has the number of its sequence, from 1 on; 0 is padding. The published application has two
//! forms ([`PackForm`]; `packed_bert_data` in its v2.1 to v3.1). With rows of `S` positions, `M`
//! masked words of a sequence and `K` sequences of a pack at the most, and `L` slots for labels:
//!
//! ```text
//!                   from v2.3 on                   v2.1 and v2.2
//! word ids [S]      masked words of all, the       sequence after sequence, each in the order
//!                   others of each, 0, and at      of its text
//!                   S - k the [CLS] of k
//! numbers [S]       of the sequence
//! segments [S]      as in a record
//! positions [S]     within the sequence
//! slots [L]         -                              where a masked word stands
//! labels [L]        what a masked word was; left over: 0
//! weights [L]       the number of its sequence; left over: 0
//! slots [K]         -                              where a [CLS] stands
//! next [K]          at K - k: 1 if the second      at k - 1: the same
//!                   part of k doesn't follow
//! weights [K]       1 where there is a sequence
//! L                 M + K - 1                      M + K
//! ```

use std::ops::Range;

use super::error::DataError;
use super::layout::Token;
use super::rows;

/// Which of the two forms packs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackForm {
    /// Heads read fixed slices: masked words come first, all `[CLS]` last (from v2.3 on).
    Slices,
    /// Heads are told where to read (v2.1 and v2.2).
    Slots,
}

/// The size and form of packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackLayout {
    /// `S`, positions of a row.
    pub sequence_length: u32,
    /// `M`, masked words of a sequence at the most.
    pub mask_tokens: u32,
    /// `K`, sequences of a pack at the most.
    pub sequences: u32,
    /// Which fields there are, and where words stand.
    pub form: PackForm,
}

/// One part of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackField {
    /// Word ids, `[S]`.
    Words,
    /// Numbers of the sequences that positions belong to, `[S]`.
    Numbers,
    /// Segment ids, `[S]`.
    Segments,
    /// Position ids, `[S]`.
    Positions,
    /// Where masked words stand, `[L]`; in [`PackForm::Slots`] only.
    LabelSlots,
    /// Masked words as they were, `[L]`.
    Labels,
    /// Numbers of the sequences that masked words belong to, `[L]`.
    LabelNumbers,
    /// Where `[CLS]` stand, `[K]`; in [`PackForm::Slots`] only.
    NextSlots,
    /// Whether the second part of a sequence is a random one, `[K]`.
    RandomNext,
    /// Whether there is such a sequence, `[K]`.
    NextWeights,
}

impl PackForm {
    /// The fields of a pack, in order.
    #[must_use]
    pub fn fields(self) -> &'static [PackField] {
        use PackField::*;
        match self {
            PackForm::Slices => &[
                Words,
                Numbers,
                Segments,
                Positions,
                Labels,
                LabelNumbers,
                RandomNext,
                NextWeights,
            ],
            PackForm::Slots => &[
                Words,
                Numbers,
                Segments,
                Positions,
                LabelSlots,
                Labels,
                LabelNumbers,
                NextSlots,
                RandomNext,
                NextWeights,
            ],
        }
    }
}

impl PackLayout {
    /// `L`, slots for labels: `M + K - 1`, in [`PackForm::Slots`] one more.
    #[must_use]
    pub fn label_slots(self) -> u32 {
        let both = self.mask_tokens.saturating_add(self.sequences);
        match self.form {
            PackForm::Slices => both.saturating_sub(1),
            PackForm::Slots => both,
        }
    }

    /// Integers of a pack: `4 S + 2 L + 2 K`, in [`PackForm::Slots`] `4 S + 3 L + 3 K`.
    #[must_use]
    pub fn values(self) -> usize {
        let fields = self.form.fields().iter();
        fields.map(|&field| self.length(field)).sum()
    }

    /// Bytes of a pack.
    #[must_use]
    pub fn bytes(self) -> usize {
        rows::bytes_of(self.values())
    }

    fn length(self, field: PackField) -> usize {
        let length = match field {
            PackField::Words | PackField::Numbers | PackField::Segments | PackField::Positions => {
                self.sequence_length
            }
            PackField::LabelSlots | PackField::Labels | PackField::LabelNumbers => {
                self.label_slots()
            }
            PackField::NextSlots | PackField::RandomNext | PackField::NextWeights => self.sequences,
        };
        length as usize
    }

    /// Where a pack holds a field, in integers; none if its form hasn't that field.
    #[must_use]
    pub fn field(self, field: PackField) -> Option<Range<usize>> {
        let fields = self.form.fields();
        let place = fields.iter().position(|&each| each == field)?;
        let before = fields[..place].iter().map(|&each| self.length(each));
        let start = before.sum();
        Some(start..start + self.length(field))
    }

    /// How many packs `bytes` bytes of a file are.
    ///
    /// # Errors
    ///
    /// [`DataError::RecordLength`] if they end within a pack.
    pub fn packs_in(self, bytes: u64) -> Result<u64, DataError> {
        rows::rows_in(self.values(), bytes)
    }
}

/// A sequence that is, or is to be, part of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Words in the order of the text, at positions from 0 on; the first is never masked.
    pub tokens: Vec<Token>,
    /// 1 if the second part is a random one, else 0.
    pub random_next: u32,
}

impl Sequence {
    /// Masked words.
    #[must_use]
    pub fn masked(&self) -> usize {
        let masked = |token: &&Token| token.label.is_some();
        self.tokens.iter().filter(masked).count()
    }

    /// Whether it starts with a word that isn't masked, and has one at every position.
    fn is_whole(&self) -> bool {
        let starts = self
            .tokens
            .first()
            .is_some_and(|first| first.label.is_none());
        let mut places = (0..).zip(&self.tokens);
        starts && places.all(|(place, token)| token.position == place)
    }
}

/// One pack, read or to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    layout: PackLayout,
    values: Vec<u32>,
}

impl Pack {
    /// A pack of those sequences, numbered in order; none if they are too many or have too many
    /// words or masked words for the layout, or if one of them isn't what a sequence must be.
    #[must_use]
    pub fn of(layout: PackLayout, sequences: &[Sequence]) -> Option<Self> {
        let words: usize = sequences.iter().map(|each| each.tokens.len()).sum();
        let masked: usize = sequences.iter().map(Sequence::masked).sum();
        let fits = sequences.len() <= layout.sequences as usize
            && words <= layout.sequence_length as usize
            && masked <= layout.label_slots() as usize
            && sequences.iter().all(Sequence::is_whole);
        if !fits {
            return None;
        }
        let mut pack = Self {
            layout,
            values: vec![0; layout.values()],
        };
        match layout.form {
            PackForm::Slices => pack.fill_slices(sequences),
            PackForm::Slots => pack.fill_slots(sequences),
        }
        Some(pack)
    }

    fn fill_slices(&mut self, sequences: &[Sequence]) {
        let mut slot = 0;
        for (number, sequence) in (1..).zip(sequences) {
            for (token, label) in masked(sequence) {
                self.put(slot, number, token);
                self.set(PackField::Labels, slot, label);
                self.set(PackField::LabelNumbers, slot, number);
                slot += 1;
            }
        }
        let (length, most) = (self.layout.sequence_length, self.layout.sequences);
        for (number, sequence) in (1..).zip(sequences) {
            for token in sequence.tokens[1..]
                .iter()
                .filter(|token| token.label.is_none())
            {
                self.put(slot, number, token);
                slot += 1;
            }
            self.put((length - number) as usize, number, &sequence.tokens[0]);
            let place = (most - number) as usize;
            self.set(PackField::RandomNext, place, sequence.random_next);
            self.set(PackField::NextWeights, place, 1);
        }
    }

    fn fill_slots(&mut self, sequences: &[Sequence]) {
        let (mut start, mut label_place) = (0, 0);
        for (number, sequence) in (1..).zip(sequences) {
            for (slot, token) in (start..).zip(&sequence.tokens) {
                self.put(slot as usize, number, token);
            }
            for (token, label) in masked(sequence) {
                self.set(PackField::LabelSlots, label_place, start + token.position);
                self.set(PackField::Labels, label_place, label);
                self.set(PackField::LabelNumbers, label_place, number);
                label_place += 1;
            }
            let place = (number - 1) as usize;
            self.set(PackField::NextSlots, place, start);
            self.set(PackField::RandomNext, place, sequence.random_next);
            self.set(PackField::NextWeights, place, 1);
            start += sequence.tokens.len() as u32;
        }
    }

    fn put(&mut self, slot: usize, number: u32, token: &Token) {
        self.set(PackField::Words, slot, token.word);
        self.set(PackField::Numbers, slot, number);
        self.set(PackField::Segments, slot, token.segment);
        self.set(PackField::Positions, slot, token.position);
    }

    fn set(&mut self, field: PackField, place: usize, value: u32) {
        let range = self.layout.field(field);
        let range = range.expect("only fields of the form are set");
        self.values[range][place] = value;
    }

    /// The pack in these bytes; any values are taken.
    ///
    /// # Errors
    ///
    /// [`DataError::RecordLength`] unless there are as many bytes as a pack has.
    pub fn from_bytes(layout: PackLayout, bytes: &[u8]) -> Result<Self, DataError> {
        let values = rows::read_row(layout.values(), bytes)?;
        Ok(Self { layout, values })
    }

    /// Appends the bytes of the pack.
    pub fn write(&self, out: &mut Vec<u8>) {
        rows::write(&self.values, out);
    }

    /// The size and form of the pack.
    #[must_use]
    pub fn layout(&self) -> PackLayout {
        self.layout
    }

    /// The values of a field; none if the form hasn't that field.
    #[must_use]
    pub fn get(&self, field: PackField) -> &[u32] {
        let range = self.layout.field(field);
        range.map_or(&[], |range| &self.values[range])
    }

    /// Sequences of the pack as the published application counts them: the largest of their numbers.
    #[must_use]
    pub fn count(&self) -> u32 {
        let numbers = self.get(PackField::Numbers).iter();
        numbers.copied().max().unwrap_or(0)
    }

    /// The sequences of the pack, each in the order of its text. What has no number of a sequence
    /// is left out.
    #[must_use]
    pub fn sequences(&self) -> Vec<Sequence> {
        let labels = self.labels();
        let most = self.layout.sequences;
        let of = |number: u32| {
            let numbers = self.get(PackField::Numbers).iter().enumerate();
            let slots = numbers.filter(|&(_, &each)| each == number);
            let mut tokens: Vec<Token> = slots
                .map(|(slot, _)| Token {
                    position: self.get(PackField::Positions)[slot],
                    word: self.get(PackField::Words)[slot],
                    segment: self.get(PackField::Segments)[slot],
                    label: labels[slot],
                })
                .collect();
            tokens.sort_by_key(|token| token.position);
            let place = self.next_place(number);
            let random_next = self.get(PackField::RandomNext)[place];
            Sequence {
                tokens,
                random_next,
            }
        };
        (1..=self.count().min(most)).map(of).collect()
    }

    /// What the words of all positions were, if they are masked.
    fn labels(&self) -> Vec<Option<u32>> {
        let mut labels = vec![None; self.layout.sequence_length as usize];
        let each = self.get(PackField::LabelNumbers).iter().enumerate();
        for (place, _) in each.filter(|(_, number)| **number != 0) {
            if let Some(label) = labels.get_mut(self.label_slot(place)) {
                *label = Some(self.get(PackField::Labels)[place]);
            }
        }
        labels
    }

    /// The position that label `place` is of.
    fn label_slot(&self, place: usize) -> usize {
        match self.layout.form {
            PackForm::Slices => place,
            PackForm::Slots => self.get(PackField::LabelSlots)[place] as usize,
        }
    }

    /// Where the next-sentence label of a sequence stands.
    fn next_place(&self, number: u32) -> usize {
        (match self.layout.form {
            PackForm::Slices => self.layout.sequences - number,
            PackForm::Slots => number - 1,
        }) as usize
    }

    /// The position at which the head of next sentences reads a sequence's `[CLS]`.
    fn next_slot(&self, number: u32) -> usize {
        match self.layout.form {
            PackForm::Slices => self.layout.sequence_length.saturating_sub(number) as usize,
            PackForm::Slots => {
                let place = self.next_place(number);
                self.get(PackField::NextSlots)[place] as usize
            }
        }
    }

    /// A pack of its sequences in another form; none if that has no room for all masked words.
    #[must_use]
    pub fn in_form(&self, form: PackForm) -> Option<Self> {
        let layout = PackLayout {
            form,
            ..self.layout
        };
        Self::of(layout, &self.sequences())
    }

    /// A number of a sequence beyond those of the layout, if a position has one.
    #[must_use]
    pub fn number_fault(&self) -> Option<PackFault> {
        let most = self.layout.sequences;
        let mut numbers = self.get(PackField::Numbers).iter();
        let beyond = numbers.find(|&&number| number > most);
        beyond.map(|&number| PackFault::Number { number, most })
    }

    /// The first rule of its form that the pack breaks.
    #[must_use]
    pub fn fault(&self) -> Option<PackFault> {
        let numbers = self.get(PackField::Numbers);
        if let Some(fault) = self.number_fault() {
            return Some(fault);
        }
        for (number, sequence) in (1..).zip(self.sequences()) {
            let gap = (0..)
                .zip(&sequence.tokens)
                .find(|(place, token)| token.position != *place);
            if let Some((position, _)) = gap {
                return Some(PackFault::Position { number, position });
            }
            let wrong = sequence.tokens.iter().find(|token| token.segment > 1);
            if let Some(token) = wrong {
                let segment = token.segment;
                return Some(PackFault::Segment { number, segment });
            }
            let slot = self.next_slot(number);
            let is_first = numbers.get(slot) == Some(&number)
                && self.get(PackField::Positions).get(slot) == Some(&0);
            let weight = self.get(PackField::NextWeights)[self.next_place(number)];
            if !is_first || weight != 1 || sequence.random_next > 1 {
                return Some(PackFault::Next { number });
            }
        }
        let of_labels = self.get(PackField::LabelNumbers).iter().enumerate();
        let mut used = of_labels.filter(|(_, number)| **number != 0);
        let stray =
            used.find(|&(place, number)| numbers.get(self.label_slot(place)) != Some(number));
        stray.map(|(place, &number)| PackFault::Label { place, number })
    }
}

/// Masked words with what they were, in the order of the text.
fn masked(sequence: &Sequence) -> impl Iterator<Item = (&Token, u32)> {
    let tokens = sequence.tokens.iter();
    tokens.filter_map(|token| Some((token, token.label?)))
}

/// How a pack breaks the rules of its form, which the wrong sizes or the other form often show by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackFault {
    /// A sequence beyond the last one.
    #[error("sequence {number}, expected at most {most}")]
    Number {
        /// Its number.
        number: u32,
        /// Sequences of a pack at the most.
        most: u32,
    },
    /// Words that do not stand one behind the other.
    #[error("sequence {number} has no word at position {position}")]
    Position {
        /// Number of the sequence.
        number: u32,
        /// The first position without a word, or with several.
        position: u32,
    },
    /// A part that is neither the first nor the second.
    #[error("sequence {number} has segment {segment}, expected 0 or 1")]
    Segment {
        /// Number of the sequence.
        number: u32,
        /// Its segment.
        segment: u32,
    },
    /// A sequence whose first word or label isn't where the head of next sentences reads it.
    #[error(
        "sequence {number} has no first word with a next-sentence label of 0 or 1 where it should"
    )]
    Next {
        /// Number of the sequence.
        number: u32,
    },
    /// A label of a position that belongs to another sequence.
    #[error("label {place} is of sequence {number}, its position isn't")]
    Label {
        /// Place of the label, from 0.
        place: usize,
        /// Number of the sequence.
        number: u32,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(sequence_length: u32, mask_tokens: u32, form: PackForm) -> PackLayout {
        PackLayout {
            sequence_length,
            mask_tokens,
            sequences: 3,
            form,
        }
    }

    #[test]
    fn sizes_of_the_published_packs() {
        for (length, masked, form, values) in [
            (128, 20, PackForm::Slices, 562),
            (384, 56, PackForm::Slices, 1658),
            (512, 76, PackForm::Slices, 2210),
            (512, 76, PackForm::Slots, 2294),
        ] {
            let layout = layout(length, masked, form);
            assert_eq!((layout.values(), layout.bytes()), (values, 4 * values));
            assert_eq!(layout.packs_in(8 * values as u64), Ok(2));
            assert!(layout.packs_in(4 * values as u64 + 4).is_err());
        }
    }

    /// Sequences of so many words, of which the last ones are masked.
    fn sequences(lengths: &[(u32, u32)]) -> Vec<Sequence> {
        let of = |(number, &(length, masked)): (u32, &(u32, u32))| Sequence {
            tokens: (0..length)
                .map(|position| Token {
                    position,
                    word: 100 * number + position,
                    segment: u32::from(2 * position >= length),
                    label: (position + masked >= length).then_some(1000 * number + position),
                })
                .collect(),
            random_next: number % 2,
        };
        (1..).zip(lengths).map(of).collect()
    }

    #[test]
    fn words_stand_where_heads_read_them() {
        let sequences = sequences(&[(3, 1), (4, 2)]);
        let pack = Pack::of(layout(10, 2, PackForm::Slices), &sequences).unwrap();
        let get = |field| pack.get(field).to_vec();
        assert_eq!(
            get(PackField::Words),
            [102, 202, 203, 101, 201, 0, 0, 0, 200, 100]
        );
        assert_eq!(get(PackField::Numbers), [1, 2, 2, 1, 2, 0, 0, 0, 2, 1]);
        assert_eq!(get(PackField::Labels), [1002, 2002, 2003, 0]);
        assert_eq!(get(PackField::LabelNumbers), [1, 2, 2, 0]);
        assert_eq!(get(PackField::RandomNext), [0, 0, 1]);
        assert_eq!(get(PackField::NextWeights), [0, 1, 1]);
        assert!(get(PackField::LabelSlots).is_empty());

        let pack = Pack::of(layout(10, 2, PackForm::Slots), &sequences).unwrap();
        let get = |field| pack.get(field).to_vec();
        assert_eq!(
            get(PackField::Words),
            [100, 101, 102, 200, 201, 202, 203, 0, 0, 0]
        );
        assert_eq!(get(PackField::LabelSlots), [2, 5, 6, 0, 0]);
        assert_eq!(get(PackField::Labels), [1002, 2002, 2003, 0, 0]);
        assert_eq!(get(PackField::NextSlots), [0, 3, 0]);
        assert_eq!(get(PackField::RandomNext), [1, 0, 0]);
    }

    #[test]
    fn what_has_no_room_is_no_pack() {
        let layout = layout(10, 2, PackForm::Slices);
        for lengths in [
            &[(5, 0), (6, 0)][..],
            &[(5, 3), (5, 2)],
            &[(1, 0); 4],
            &[(0, 0)],
        ] {
            assert_eq!(Pack::of(layout, &sequences(lengths)), None, "{lengths:?}");
        }
    }

    #[test]
    fn faults_are_named() {
        let layout = layout(10, 2, PackForm::Slices);
        let sound = Pack::of(layout, &sequences(&[(3, 1), (4, 2)])).unwrap();
        assert_eq!(sound.fault(), None);
        for (field, place, value, expected) in [
            (PackField::Numbers, 5, 4, "sequence 4, expected at most 3"),
            (
                PackField::Positions,
                3,
                2,
                "sequence 1 has no word at position 1",
            ),
            (
                PackField::Segments,
                3,
                9,
                "sequence 1 has segment 9, expected 0 or 1",
            ),
            (
                PackField::NextWeights,
                2,
                0,
                "sequence 1 has no first word with a next-sentence label of 0 or 1 where it should",
            ),
            (
                PackField::LabelNumbers,
                0,
                2,
                "label 0 is of sequence 2, its position isn't",
            ),
        ] {
            let mut pack = sound.clone();
            pack.set(field, place, value);
            assert_eq!(pack.fault().unwrap().to_string(), expected);
        }
    }

    proptest! {
        /// Both forms hold the same sequences, and one becomes the other.
        #[test]
        fn forms_hold_the_same(
            lengths in prop::collection::vec((1_u32..12, 0_u32..4), 1..4),
        ) {
            let lengths: Vec<(u32, u32)> = lengths
                .into_iter()
                .map(|(length, masked)| (length, masked.min(length - 1)))
                .collect();
            let sequences = sequences(&lengths);
            for (form, other) in [
                (PackForm::Slices, PackForm::Slots),
                (PackForm::Slots, PackForm::Slices),
            ] {
                let pack = Pack::of(layout(36, 8, form), &sequences).unwrap();
                prop_assert_eq!(pack.fault(), None);
                prop_assert_eq!(pack.count(), sequences.len() as u32);
                prop_assert_eq!(&pack.sequences(), &sequences);
                let turned = pack.in_form(other).unwrap();
                prop_assert_eq!(&turned.sequences(), &sequences);
                prop_assert_eq!(turned.in_form(form).unwrap(), pack);
            }
        }

        /// Whatever a file holds, it is read, shown and written back as it was.
        #[test]
        fn any_bytes_are_a_pack(
            sequence_length in 0_u32..40,
            mask_tokens in 0_u32..60,
            sequences in 0_u32..5,
            slices in any::<bool>(),
            seed in prop::collection::vec(prop_oneof![0_u32..64, any::<u32>()], 1..64),
        ) {
            let form = if slices { PackForm::Slices } else { PackForm::Slots };
            let layout = PackLayout { sequence_length, mask_tokens, sequences, form };
            let values = seed.iter().cycle().take(layout.values());
            let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
            let pack = Pack::from_bytes(layout, &bytes).unwrap();
            let _ = (pack.fault(), pack.in_form(PackForm::Slots));
            let mut back = Vec::new();
            pack.write(&mut back);
            prop_assert_eq!(&back, &bytes);
            let longer = [bytes, vec![0]].concat();
            prop_assert!(Pack::from_bytes(layout, &longer).is_err());
        }
    }
}

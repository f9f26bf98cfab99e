//! How does a record of pre-training data lie in a file?
//!
//! Records follow each other without a header, and a record is a row of 32-bit little-endian
//! integers, as the published application has it (`create_pretraining_data.py` and
//! `pretraining_dataset.py` in `applications/popart/bert/bert_data`). With sequences of `S`
//! positions and `M` masked words at the most:
//!
//! ```text
//! word ids [S]   slots 0..M: masked words in the order of the text; from M on: [CLS] and the
//!                other words in the order of the text; slots left over: 0
//! positions [S]  where in the text the word of each slot stands; left over: the padding position
//! segments [S]   0 up to the first [SEP], then 1; left over: 0
//! masked [1]     slots of masked words in use
//! end [1]        first slot that is left over at the end
//! labels [M]     what the masked words were; left over: 0
//! next [1]       1 if the second part doesn't follow the first in any text, else 0
//! ```

use std::ops::Range;

use super::error::DataError;
use super::rows;

/// Positions of a sequence of data at the most: 128 times those of the longest published one.
pub const SEQUENCE_LENGTH_MAX: u32 = 1 << 16;

/// The size of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLayout {
    /// `S`, positions of a sequence.
    pub sequence_length: u32,
    /// `M`, masked words at the most.
    pub mask_tokens: u32,
}

/// One part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Word ids, `[S]`.
    Words,
    /// Position ids, `[S]`.
    Positions,
    /// Segment ids, `[S]`.
    Segments,
    /// How many words are masked.
    Masked,
    /// First slot behind the sequence.
    End,
    /// Masked words as they were, `[M]`.
    Labels,
    /// Whether the second part is a random one.
    RandomNext,
}

impl Field {
    /// All fields in the order of a record.
    pub const ALL: [Self; 7] = [
        Self::Words,
        Self::Positions,
        Self::Segments,
        Self::Masked,
        Self::End,
        Self::Labels,
        Self::RandomNext,
    ];
}

impl RecordLayout {
    /// Integers of a record, `3 S + M + 3`.
    #[must_use]
    pub fn values(self) -> usize {
        self.field(Field::RandomNext).end
    }

    /// Bytes of a record.
    #[must_use]
    pub fn bytes(self) -> usize {
        rows::bytes_of(self.values())
    }

    /// Where a record holds a field, in integers.
    #[must_use]
    pub fn field(self, field: Field) -> Range<usize> {
        let (s, m) = (self.sequence_length as usize, self.mask_tokens as usize);
        let (start, length) = match field {
            Field::Words => (0, s),
            Field::Positions => (s, s),
            Field::Segments => (2 * s, s),
            Field::Masked => (3 * s, 1),
            Field::End => (3 * s + 1, 1),
            Field::Labels => (3 * s + 2, m),
            Field::RandomNext => (3 * s + 2 + m, 1),
        };
        start..start + length
    }

    /// How many records `bytes` bytes of a file are.
    ///
    /// # Errors
    ///
    /// [`DataError::RecordLength`] if they end within a record.
    pub fn records_in(self, bytes: u64) -> Result<u64, DataError> {
        rows::rows_in(self.values(), bytes)
    }
}

/// One record, read or to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    layout: RecordLayout,
    /// `[3 S + M + 3]`.
    values: Vec<u32>,
}

impl Record {
    /// A record of zeros.
    #[must_use]
    pub fn empty(layout: RecordLayout) -> Self {
        Self {
            layout,
            values: vec![0; layout.values()],
        }
    }

    /// The record in these bytes; any values are taken.
    ///
    /// # Errors
    ///
    /// [`DataError::RecordLength`] unless there are as many bytes as a record has.
    pub fn from_bytes(layout: RecordLayout, bytes: &[u8]) -> Result<Self, DataError> {
        let values = rows::read_row(layout.values(), bytes)?;
        Ok(Self { layout, values })
    }

    /// Appends the bytes of the record.
    pub fn write(&self, out: &mut Vec<u8>) {
        rows::write(&self.values, out);
    }

    /// Sequence lengths and counts that give the record its size.
    #[must_use]
    pub fn layout(&self) -> RecordLayout {
        self.layout
    }

    /// The values of a field.
    #[must_use]
    pub fn get(&self, field: Field) -> &[u32] {
        &self.values[self.layout.field(field)]
    }

    /// The values of a field, to be changed.
    pub fn get_mut(&mut self, field: Field) -> &mut [u32] {
        &mut self.values[self.layout.field(field)]
    }

    /// Slots that hold a word of the sequence, in order: those of masked words, then the others.
    /// Slots that the record names but doesn't have are left out.
    pub fn slots_in_use(&self) -> impl Iterator<Item = usize> {
        let (s, m) = (self.layout.sequence_length, self.layout.mask_tokens);
        let masked = self.get(Field::Masked)[0].min(m).min(s);
        let end = self.get(Field::End)[0].min(s);
        (0..masked).chain(m..end).map(|slot| slot as usize)
    }

    /// The first rule of its form that the record breaks.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let layout = self.layout;
        let [masked, end, label] =
            [Field::Masked, Field::End, Field::RandomNext].map(|field| self.get(field)[0]);
        let mask_tokens = layout.mask_tokens;
        if masked > mask_tokens {
            return Some(Fault::Masked {
                masked,
                mask_tokens,
            });
        }
        if !(mask_tokens..=layout.sequence_length).contains(&end) {
            return Some(Fault::End { end, layout });
        }
        let tokens = self.in_text_order();
        let gap = (0..)
            .zip(&tokens)
            .find(|(place, token)| token.position != *place);
        if let Some((position, _)) = gap {
            return Some(Fault::Position { position });
        }
        if let Some(token) = tokens.iter().find(|token| token.segment > 1) {
            let segment = token.segment;
            return Some(Fault::Segment { segment });
        }
        (label > 1).then_some(Fault::RandomNext { label })
    }

    /// The sequence in the order of the text: position, word id, and of a masked word what it
    /// was. Slots of equal position stay in their order.
    #[must_use]
    pub fn in_text_order(&self) -> Vec<Token> {
        let labels = self.get(Field::Labels);
        let masked = self.get(Field::Masked)[0] as usize;
        let mut tokens: Vec<Token> = self
            .slots_in_use()
            .map(|slot| Token {
                position: self.get(Field::Positions)[slot],
                word: self.get(Field::Words)[slot],
                segment: self.get(Field::Segments)[slot],
                label: labels.get(slot).copied().filter(|_| slot < masked),
            })
            .collect();
        tokens.sort_by_key(|token| token.position);
        tokens
    }
}

/// How a record breaks the rules of its form, which the wrong sequence length or number of mask
/// tokens often shows by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More masked words than there are slots for them.
    #[error("{masked} masked words, expected at most {mask_tokens}")]
    Masked {
        /// Masked words.
        masked: u32,
        /// Slots.
        mask_tokens: u32,
    },
    /// A sequence that ends before it begins, or beyond the last slot.
    #[error("the sequence ends at slot {end}, expected {} to {}", layout.mask_tokens, layout.sequence_length)]
    End {
        /// First slot behind it.
        end: u32,
        /// The form.
        layout: RecordLayout,
    },
    /// Words that do not stand one behind the other.
    #[error("no word at position {position}")]
    Position {
        /// The first position without a word, or with several.
        position: u32,
    },
    /// A part that is neither the first nor the second.
    #[error("segment {segment}, expected 0 or 1")]
    Segment {
        /// Its number.
        segment: u32,
    },
    /// A next-sentence label of no class.
    #[error("next-sentence label {label}, expected 0 or 1")]
    RandomNext {
        /// The label.
        label: u32,
    },
}

/// A word of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Position of the word in its text.
    pub position: u32,
    /// Number of the word in the vocabulary.
    pub word: u32,
    /// Which part it belongs to.
    pub segment: u32,
    /// Number of the word before it was masked, if it was.
    pub label: Option<u32>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_of_the_published_records() {
        for (sequence_length, mask_tokens, values, bytes) in [
            (128, 20, 407, 1628),
            (384, 56, 1211, 4844),
            (512, 76, 1615, 6460),
        ] {
            let layout = RecordLayout {
                sequence_length,
                mask_tokens,
            };
            assert_eq!((layout.values(), layout.bytes()), (values, bytes));
            assert_eq!(layout.records_in(3 * bytes as u64), Ok(3));
            let error = layout.records_in(3 * bytes as u64 + 2).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("2 bytes are left over"), "{text}");
        }
    }

    #[test]
    fn fields_fill_a_record_in_order() {
        let layout = RecordLayout {
            sequence_length: 7,
            mask_tokens: 2,
        };
        let fields = Field::ALL.map(|field| layout.field(field));
        assert_eq!(fields[0].start, 0);
        for pair in fields.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
        }
        assert_eq!(fields[6].end, layout.values());
    }

    proptest! {
        /// Whatever a file holds, it is read, shown and written back as it was.
        #[test]
        fn any_bytes_are_a_record(
            sequence_length in 0_u32..40,
            mask_tokens in 0_u32..60,
            seed in prop::collection::vec(prop_oneof![0_u32..64, any::<u32>()], 1..64),
            cut in 1_usize..4,
        ) {
            let layout = RecordLayout { sequence_length, mask_tokens };
            let values = seed.iter().cycle().take(layout.values());
            let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
            let record = Record::from_bytes(layout, &bytes).unwrap();
            prop_assert!(record.slots_in_use().all(|slot| slot < sequence_length as usize));
            let tokens = record.in_text_order();
            prop_assert!(tokens.is_sorted_by_key(|token| token.position));
            if record.fault().is_none() {
                prop_assert_eq!(tokens.len() as u32, record.get(Field::Masked)[0] + record.get(Field::End)[0] - mask_tokens);
            }
            let mut back = Vec::new();
            record.write(&mut back);
            prop_assert_eq!(&back, &bytes);
            prop_assert!(Record::from_bytes(layout, &bytes[cut..]).is_err());
        }
    }
}

//! Records as text, for people.

use std::fmt::Write;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bert_model::data::{
    Field, Pack, PackForm, PackLayout, Record, RecordLayout, Sequence, Token, Vocabulary,
};

use super::{DataError, cannot_read, read_vocabulary};
use crate::{Result, files};

/// Bytes of the records that are shown at once, whose text takes several times as many.
const SHOWN_BYTES_MAX: u64 = 64 << 20;

/// Request to show records of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The file.
    pub file: PathBuf,
    /// Form of its records.
    pub layout: RowLayout,
    /// Names of the tokens; without, their numbers are shown.
    pub vocabulary: Option<PathBuf>,
    /// First record shown, from 0.
    pub first: u64,
    /// Records shown at the most.
    pub count: u64,
}

/// Form of the rows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLayout {
    /// Records of one sequence.
    Record(RecordLayout),
    /// Packs of several.
    Pack(PackLayout),
}

impl RowLayout {
    /// Bytes of a row.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Record(layout) => layout.bytes(),
            Self::Pack(layout) => layout.bytes(),
        }
    }

    /// How many rows a file holds.
    ///
    /// # Errors
    ///
    /// A file that can't be read, or that ends within a row.
    pub fn count(self, path: &Path) -> Result<u64> {
        match self {
            Self::Record(layout) => count(path, layout),
            Self::Pack(layout) => {
                let bytes = size(path)?;
                layout.packs_in(bytes).map_err(|_| {
                    let path = path.into();
                    DataError::PackLength {
                        path,
                        layout,
                        bytes,
                    }
                    .into()
                })
            }
        }
    }

    fn headline(self, total: u64) -> String {
        match self {
            Self::Record(layout) => format!(
                "{total} records of {} bytes: sequence length {}, mask tokens {}\n",
                layout.bytes(),
                layout.sequence_length,
                layout.mask_tokens
            ),
            Self::Pack(layout) => format!(
                "{total} packs of {} bytes, form {}: sequence length {}, mask tokens {}, up to {} \
                 sequences\n",
                layout.bytes(),
                form_name(layout.form),
                layout.sequence_length,
                layout.mask_tokens,
                layout.sequences
            ),
        }
    }
}

/// The word for a form of packs: the first release that has it.
#[must_use]
pub fn form_name(form: PackForm) -> &'static str {
    match form {
        PackForm::Slices => "v2.3",
        PackForm::Slots => "v2.1",
    }
}

/// How many words are masked at the most in sequences of that length, where that is known.
///
/// # Errors
///
/// [`DataError::MaskTokens`] if it isn't.
pub fn usual_mask_tokens(sequence_length: u32) -> Result<u32> {
    match sequence_length {
        128 => Ok(20),
        384 => Ok(56),
        512 => Ok(76),
        _ => Err(DataError::MaskTokens.into()),
    }
}

/// How many records a file holds.
///
/// # Errors
///
/// A file that can't be read; [`DataError::Misaligned`] if it ends within a record.
pub fn count(path: &Path, layout: RecordLayout) -> Result<u64> {
    let bytes = size(path)?;
    layout.records_in(bytes).map_err(|_| {
        let path = path.into();
        DataError::Misaligned {
            path,
            layout,
            bytes,
        }
        .into()
    })
}

/// Bytes of a file.
///
/// # Errors
///
/// What is no file, or can't be read.
pub(super) fn size(path: &Path) -> Result<u64> {
    let found = std::fs::metadata(path).map_err(|source| cannot_read(path, source))?;
    if !found.is_file() {
        return Err(DataError::NotAFile { path: path.into() }.into());
    }
    // The size may be had even of a file that can't be read.
    files::open(path).map_err(|source| cannot_read(path, source))?;
    Ok(found.len())
}

/// The records asked for, in lines.
///
/// # Errors
///
/// As [`RowLayout::count`]; a vocabulary that can't be read; [`DataError::ManyShown`].
pub fn show(request: &Request) -> Result<String> {
    let Request { file, layout, .. } = request;
    let vocabulary = request.vocabulary.as_deref();
    let vocabulary = vocabulary.map(read_vocabulary).transpose()?;
    let total = layout.count(file)?;
    let mut out = layout.headline(total);
    let end = request.first.saturating_add(request.count).min(total);
    let most = SHOWN_BYTES_MAX / layout.bytes().max(1) as u64;
    let count = end.saturating_sub(request.first);
    if count > most.max(1) {
        return Err(DataError::ManyShown { count, most }.into());
    }
    let mut opened = files::open(file).map_err(|source| cannot_read(file, source))?;
    let place = request.first.min(total) * layout.bytes() as u64;
    let sought = opened.seek(SeekFrom::Start(place));
    sought.map_err(|source| cannot_read(file, source))?;
    // No larger than the file: whole records of it are shown.
    let mut bytes = if request.first < end {
        vec![0; layout.bytes()]
    } else {
        Vec::new()
    };
    for number in request.first..end {
        let read = opened.read_exact(&mut bytes);
        read.map_err(|source| cannot_read(file, source))?;
        out += "\n";
        const WHOLE: &str = "so many bytes were read";
        out += &match *layout {
            RowLayout::Record(layout) => {
                let record = Record::from_bytes(layout, &bytes).expect(WHOLE);
                text(number, &record, vocabulary.as_ref())
            }
            RowLayout::Pack(layout) => {
                let pack = Pack::from_bytes(layout, &bytes).expect(WHOLE);
                pack_text(number, &pack, vocabulary.as_ref())
            }
        };
    }
    Ok(out)
}

/// One record: a line of facts, then its two parts.
fn text(number: u64, record: &Record, vocabulary: Option<&Vocabulary>) -> String {
    let sequence = Sequence {
        tokens: record.in_text_order(),
        random_next: record.get(Field::RandomNext)[0],
    };
    let mut out = facts(&format!("record {number}"), &sequence);
    if let Some(fault) = record.fault() {
        let _ = writeln!(out, "  not a record of this form: {fault}");
    }
    out + &parts(&sequence, "  ", vocabulary)
}

/// One pack: its sequences, each as a record is shown.
fn pack_text(number: u64, pack: &Pack, vocabulary: Option<&Vocabulary>) -> String {
    let sequences = pack.sequences();
    let words: usize = sequences.iter().map(|each| each.tokens.len()).sum();
    let mut out = format!(
        "pack {number}: {} sequences, {words} of {} positions in use\n",
        sequences.len(),
        pack.layout().sequence_length
    );
    if let Some(fault) = pack.fault() {
        let _ = writeln!(out, "  not a pack of this form: {fault}");
    }
    for (place, sequence) in (1..).zip(&sequences) {
        out += &facts(&format!("  sequence {place}"), sequence);
        out += &parts(sequence, "    ", vocabulary);
    }
    out
}

/// What a sequence is.
fn facts(name: &str, sequence: &Sequence) -> String {
    let next = match sequence.random_next {
        0 => "follows the first",
        _ => "is a random one",
    };
    format!(
        "{name}: {} words, {} of them masked; the second part {next}\n",
        sequence.tokens.len(),
        sequence.masked()
    )
}

/// The two parts of a sequence, a line each.
fn parts(sequence: &Sequence, indent: &str, vocabulary: Option<&Vocabulary>) -> String {
    let mut out = String::new();
    let parts = sequence
        .tokens
        .chunk_by(|token, next| token.segment == next.segment);
    for part in parts {
        let words: Vec<String> = part.iter().map(|token| word(token, vocabulary)).collect();
        let _ = writeln!(out, "{indent}{}", words.join(" "));
    }
    out
}

/// A token; one that was masked with what it was in front of what stands there.
fn word(token: &Token, vocabulary: Option<&Vocabulary>) -> String {
    let name = |id: u32| {
        let known = vocabulary.and_then(|vocabulary| vocabulary.token(id));
        known.map_or_else(|| id.to_string(), str::to_owned)
    };
    match token.label {
        None => name(token.word),
        Some(label) => format!("{{{} -> {}}}", name(label), name(token.word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_not_shown_if_it_is_huge() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge");
        let layout = RecordLayout {
            sequence_length: 128,
            mask_tokens: 20,
        };
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(1_000_000_000 * layout.bytes() as u64).unwrap();
        let shown = |first, count| {
            show(&Request {
                file: path.clone(),
                layout: RowLayout::Record(layout),
                vocabulary: None,
                first,
                count,
            })
        };
        let expected = "--count: expected at most 41221 records of this size, got 1000000000";
        assert_eq!(shown(0, u64::MAX).unwrap_err().to_string(), expected);
        assert!(shown(999_999_999, u64::MAX).is_ok());
    }
}

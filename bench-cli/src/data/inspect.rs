//! Records as text, for people.

use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bert_model::data::{Field, Record, RecordLayout, Token, Vocabulary};

use super::{DataError, cannot_read, read_vocabulary};
use crate::Result;

/// Request to show records of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The file.
    pub file: PathBuf,
    /// Form of its records.
    pub layout: RecordLayout,
    /// Names of the tokens; without, their numbers are shown.
    pub vocabulary: Option<PathBuf>,
    /// First record shown, from 0.
    pub first: u64,
    /// Records shown at the most.
    pub count: u64,
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
    let found = std::fs::metadata(path).map_err(|source| cannot_read(path, source))?;
    if !found.is_file() {
        return Err(DataError::NotAFile { path: path.into() }.into());
    }
    // The size may be had even of a file that can't be read.
    File::open(path).map_err(|source| cannot_read(path, source))?;
    let bytes = found.len();
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

/// The records asked for, in lines.
///
/// # Errors
///
/// As [`count`]; a vocabulary that can't be read.
pub fn show(request: &Request) -> Result<String> {
    let Request { file, layout, .. } = request;
    let vocabulary = request.vocabulary.as_deref();
    let vocabulary = vocabulary.map(read_vocabulary).transpose()?;
    let total = count(file, *layout)?;
    let mut out = format!(
        "{total} records of {} bytes: sequence length {}, mask tokens {}\n",
        layout.bytes(),
        layout.sequence_length,
        layout.mask_tokens
    );
    let end = request.first.saturating_add(request.count).min(total);
    let mut opened = File::open(file).map_err(|source| cannot_read(file, source))?;
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
        let record = Record::from_bytes(*layout, &bytes).expect("so many bytes were read");
        out += "\n";
        out += &text(number, &record, vocabulary.as_ref());
    }
    Ok(out)
}

/// One record: a line of facts, then its two parts.
fn text(number: u64, record: &Record, vocabulary: Option<&Vocabulary>) -> String {
    let tokens = record.in_text_order();
    let masked = tokens.iter().filter(|token| token.label.is_some()).count();
    let next = match record.get(Field::RandomNext) {
        [0] => "follows the first",
        _ => "is a random one",
    };
    let mut out = format!(
        "record {number}: {} words, {masked} of them masked; the second part {next}\n",
        tokens.len()
    );
    if let Some(fault) = record.fault() {
        let _ = writeln!(out, "  not a record of this form: {fault}");
    }
    for part in tokens.chunk_by(|token, next| token.segment == next.segment) {
        let words: Vec<String> = part.iter().map(|token| word(token, vocabulary)).collect();
        let _ = writeln!(out, "  {}", words.join(" "));
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

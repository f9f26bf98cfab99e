//! Text of the files that a user names: UTF-8, with or without a byte-order mark.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bert_model::data::blanks;

use crate::{Error, Result, files};

/// Kind of a file that is read as a whole, which says how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A configuration of a run, or the description of a machine.
    Settings,
    /// A vocabulary.
    Vocabulary,
    /// Questions on texts.
    Questions,
    /// A report of a run or of a suite.
    Report,
    /// A text to make records or a vocabulary of, which is read line by line.
    Corpus,
}

/// Those that ship have less than 64 KiB.
const SETTINGS_BYTES_MAX: u64 = 16 << 20;
/// Google's multilingual vocabulary of 119,547 tokens has 1 MB.
const VOCABULARY_BYTES_MAX: u64 = 8 << 20;
/// The questions to train on of SQuAD 2.0, the larger one, are 42 MB.
const QUESTIONS_BYTES_MAX: u64 = 64 << 20;
/// A report of a run has less than 64 KiB, and a suite as many of them as it has runs.
const REPORT_BYTES_MAX: u64 = 64 << 20;
/// The English Wikipedia has about 14 GB of text.
const CORPUS_BYTES_MAX: u64 = 64 << 30;

/// Bytes of a line of a corpus, which is a sentence. Words are cut out of a line as a whole, which
/// takes a hundred times its size.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

impl FileKind {
    /// Bytes that are read of such a file at the most.
    #[must_use]
    pub fn most(self) -> u64 {
        match self {
            Self::Settings => SETTINGS_BYTES_MAX,
            Self::Vocabulary => VOCABULARY_BYTES_MAX,
            Self::Questions => QUESTIONS_BYTES_MAX,
            Self::Report => REPORT_BYTES_MAX,
            Self::Corpus => CORPUS_BYTES_MAX,
        }
    }
}

/// `vocabulary`, as it follows "no".
impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settings => "configuration or description",
            Self::Vocabulary => "vocabulary",
            Self::Questions => "file of questions",
            Self::Report => "report",
            Self::Corpus => "text",
        })
    }
}

/// Text of a file of that kind, which no pipe or device makes endless.
///
/// # Errors
///
/// A file that can't be read; [`Error::TooLong`]; [`Error::NotText`] with the line that is no UTF-8.
pub fn read(path: &Path, kind: FileKind) -> Result<String> {
    let mut file = files::open(path).map_err(|source| cannot_read(path, source))?;
    decode(path, read_bytes(path, &mut file, kind, kind.most())?)
}

/// Text of a configuration or a description.
///
/// # Errors
///
/// As [`read`].
pub fn read_settings(path: &Path) -> Result<String> {
    read(path, FileKind::Settings)
}

/// Hands on the lines of a corpus without their ends, one at a time.
///
/// # Errors
///
/// As [`read`]; [`Error::LongLine`]; the first error of `take`.
pub fn read_lines(path: &Path, take: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let file = files::open(path).map_err(|source| cannot_read(path, source))?;
    lines_of(path, file, take)
}

fn read_bytes(path: &Path, file: &mut impl Read, kind: FileKind, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|source| cannot_read(path, source))?;
    match bytes.len() as u64 > most {
        true => Err(too_long(path, kind)),
        false => Ok(bytes),
    }
}

fn too_long(path: &Path, kind: FileKind) -> Error {
    Error::TooLong {
        path: path.display().to_string(),
        kind,
    }
}

fn lines_of(path: &Path, file: impl Read, mut take: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut file = BufReader::new(file.take(CORPUS_BYTES_MAX + 1));
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let mut one = (&mut file).take(LINE_BYTES_MAX + 1);
        let read = one.read_until(b'\n', &mut bytes);
        if read.map_err(|source| cannot_read(path, source))? == 0 {
            break;
        }
        if bytes.len() as u64 > LINE_BYTES_MAX {
            return Err(Error::LongLine {
                path: path.into(),
                line: number,
            });
        }
        let line = std::str::from_utf8(&bytes).map_err(|_| Error::NotText {
            path: path.into(),
            line: number,
        })?;
        let line = match number {
            1 => line.strip_prefix('\u{FEFF}').unwrap_or(line),
            _ => line,
        };
        // A carriage return ends a line, too.
        blanks::lines(line).try_for_each(&mut take)?;
    }
    match file.get_ref().limit() {
        0 => Err(too_long(path, FileKind::Corpus)),
        _ => Ok(()),
    }
}

/// The error of a file that can't be read.
#[must_use]
pub fn cannot_read(path: &Path, source: std::io::Error) -> Error {
    Error::File {
        action: "read",
        path: path.into(),
        source,
    }
}

fn decode(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Error::NotText {
            path: path.into(),
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
        }
    })?;
    if text.starts_with('\u{FEFF}') {
        text.remove(0);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams without an end are refused by the kind of file that they stand for.
    #[test]
    fn endless_files_are_refused() {
        let path = Path::new("endless");
        for kind in [
            FileKind::Settings,
            FileKind::Vocabulary,
            FileKind::Questions,
            FileKind::Report,
        ] {
            let mut endless = std::io::repeat(b' ');
            let error = read_bytes(path, &mut endless, kind, 1000).unwrap_err();
            let most = kind.most();
            let expected = format!("endless: larger than {most} bytes: no {kind} is that long");
            assert_eq!(error.to_string(), expected);
            let read = read_bytes(path, &mut std::io::repeat(b' ').take(1000), kind, 1000);
            assert_eq!(read.unwrap().len(), 1000);
        }
        let error = lines_of(path, std::io::repeat(0), |_| Ok(())).unwrap_err();
        let expected =
            "endless:1: a line of more than 1048576 bytes: expected a sentence on each line";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_corpus_comes_line_by_line() {
        let check = |bytes: &[u8], expected: std::result::Result<&[&str], &str>| {
            let mut lines = Vec::new();
            let done = lines_of(Path::new("a.txt"), bytes, |line| {
                lines.push(line.to_owned());
                Ok(())
            });
            match expected {
                Ok(expected) => {
                    done.unwrap();
                    assert_eq!(lines, expected);
                }
                Err(expected) => assert_eq!(done.unwrap_err().to_string(), expected),
            }
        };
        check(b"", Ok(&[]));
        check(b"\xEF\xBB\xBFa\r\nb\rc\n\nd", Ok(&["a", "b", "c", "", "d"]));
        check("a\n\u{FEFF}b\n".as_bytes(), Ok(&["a", "\u{FEFF}b"]));
        check(b"a\nb\xE9\n", Err("a.txt:2: not UTF-8 text"));
        let longest = [vec![b'a'; LINE_BYTES_MAX as usize - 1], vec![b'\n']].concat();
        check(
            &longest,
            Ok(&["a".repeat(LINE_BYTES_MAX as usize - 1).as_str()]),
        );
    }

    #[test]
    fn a_mark_is_no_text_and_other_encodings_are_named() {
        let check = |bytes: &[u8], expected: std::result::Result<&str, &str>| {
            let found = decode(Path::new("a.json"), bytes.to_vec());
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check(b"\xEF\xBB\xBF{}", Ok("{}"));
        check("a\u{FEFF}".as_bytes(), Ok("a\u{FEFF}"));
        check(b"", Ok(""));
        check(b"a\nb\xE9", Err("a.json:2: not UTF-8 text"));
        check(b"\xFF\xFE{\0", Err("a.json:1: not UTF-8 text"));
    }
}

//! Text of the files that a user names: UTF-8, with or without a byte-order mark.

use std::io::Read;
use std::path::Path;

use crate::{Error, Result, files};

/// Bytes of a configuration or a description at the most: those that ship have less than 64 KiB.
const SETTINGS_BYTES_MAX: u64 = 16 << 20;

/// Text of a file, of whatever size.
///
/// # Errors
///
/// A file that can't be read; [`Error::NotText`] with the line that is no UTF-8.
pub fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let read = files::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|source| cannot_read(path, source))?;
    decode(path, bytes)
}

/// Text of a configuration or a description, which no pipe or device makes endless.
///
/// # Errors
///
/// As [`read`]; [`Error::TooLong`].
pub fn read_settings(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    files::open(path)
        .and_then(|file| file.take(SETTINGS_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| cannot_read(path, source))?;
    if bytes.len() as u64 > SETTINGS_BYTES_MAX {
        return Err(Error::TooLong {
            path: path.display().to_string(),
            most: SETTINGS_BYTES_MAX,
        });
    }
    decode(path, bytes)
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

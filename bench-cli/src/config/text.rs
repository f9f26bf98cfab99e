//! The text of a small file that a user wrote: a configuration or the description of a machine.

use std::io::{self, Read};

use crate::{Error, Result};

/// The text of a configuration or a description, which no pipe or device makes endless.
///
/// # Errors
///
/// As [`std::fs::read_to_string`], as the system says it; [`Error::TooLong`].
pub fn read(path: &str) -> io::Result<Result<String>> {
    /// Those that ship have less than 64 KiB.
    const BYTES_MAX: u64 = 16 << 20;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let read = file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > BYTES_MAX {
        return Ok(Err(Error::TooLong {
            path: path.into(),
            most: BYTES_MAX,
        }));
    }
    Ok(Ok(text))
}

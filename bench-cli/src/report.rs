//! Results as files and tables.

pub mod csv;
pub mod json;
pub mod table;

use std::path::Path;

use crate::{Error, Result};

/// Writes `text` to `path`, whole or not at all: to a file beside it first, which then takes its
/// name.
///
/// # Errors
///
/// If the folder can't be written to.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|source| Error::File {
            action: "write",
            path: path.into(),
            source,
        })
}

//! Ctrl-C: no half-written file stays behind, results so far are printed, and the exit status is
//! the shell's 130.
//!
//! Files are written beside the place where they belong ([`crate::report::PartialFile`]) and noted
//! here while they are; the handler removes them. Locks on devices end with the process.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// The status of a process that Ctrl-C ended: 128 and the number of the signal.
const STATUS: i32 = 130;

static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

static FINISHED: Mutex<String> = Mutex::new(String::new());

/// Sets the text that is printed to stdout if Ctrl-C comes from now on: results so far, which would
/// be lost.
pub fn say_at_the_end(text: String) {
    *FINISHED.lock() = text;
}

/// Handles Ctrl-C from now on.
///
/// # Errors
///
/// If the system refuses, or if it was called before.
pub fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        // Held to the end, so that nobody starts another file.
        let unfinished = UNFINISHED.lock();
        for path in unfinished.iter() {
            // Best effort: it may have been finished just now.
            let _ = std::fs::remove_file(path);
        }
        // Nobody may be left to read it.
        let _ = write_finished();
        crate::console::error("interrupted");
        std::process::exit(STATUS);
    })
}

fn write_finished() -> io::Result<()> {
    let text = FINISHED.lock();
    // Whoever has nothing to say may be writing to a stdout that nobody reads.
    if text.is_empty() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// A file that the handler removes until this is dropped.
#[derive(Debug)]
pub struct UnfinishedFile(PathBuf);

impl UnfinishedFile {
    /// Notes `path`, before it is created.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        UNFINISHED.lock().push(path.to_path_buf());
        Self(path.to_path_buf())
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        let mut unfinished = UNFINISHED.lock();
        if let Some(place) = unfinished.iter().position(|path| *path == self.0) {
            unfinished.swap_remove(place);
        }
    }
}

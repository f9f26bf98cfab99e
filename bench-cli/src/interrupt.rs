//! The end from outside: Ctrl-C, SIGTERM of a batch system, SIGHUP of a closed terminal.
//!
//! No half-written file stays behind, results so far are printed, and the exit status is the
//! shell's: 128 and the number of the signal. Files are written beside the place where they belong
//! ([`crate::files::PartialFile`]) and noted here while they are; the handler removes them. Locks
//! end with the process. A second signal ends it at once. A signal that was ignored when the process
//! started, as `nohup` has it, stays so.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;

/// How long the last words may take: nobody may be reading them.
const LAST_WORDS: Duration = Duration::from_millis(500);

static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

static FINISHED: Mutex<String> = Mutex::new(String::new());

/// Sets the text that is printed to stdout if the end comes from outside from now on: results so
/// far, which would be lost.
pub fn say_at_the_end(text: String) {
    *FINISHED.lock() = text;
}

/// Handles signals that end a process from now on.
///
/// # Errors
///
/// If the system refuses: a handler, or the thread that does its work.
#[cfg(unix)]
pub fn install() -> io::Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::flag;
    use signal_hook::iterator::Signals;

    let heard = Arc::new(AtomicBool::new(false));
    let ignored = ignored();
    let signals = [SIGINT, SIGTERM, SIGHUP];
    let signals = signals.map(|signal| (ignored >> (signal - 1) & 1 == 0).then_some(signal));
    let signals: Vec<i32> = signals.into_iter().flatten().collect();
    let mut first = Signals::new(&signals)?;
    for signal in signals {
        // In this order: the first one finds that none was heard, and says that it was.
        flag::register_conditional_shutdown(signal, status(signal), Arc::clone(&heard))?;
        flag::register(signal, Arc::clone(&heard))?;
    }
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(move || {
        if let Some(signal) = first.forever().next() {
            end(
                status(signal),
                match signal {
                    SIGTERM => "terminated",
                    SIGHUP => "hung up",
                    _ => "interrupted",
                },
            );
        }
    })?;
    Ok(())
}

/// Handles Ctrl-C from now on.
///
/// # Errors
///
/// If the system refuses.
#[cfg(not(unix))]
pub fn install() -> io::Result<()> {
    /// That of SIGINT elsewhere.
    const STATUS: i32 = 130;
    ctrlc::set_handler(|| end(STATUS, "interrupted")).map_err(io::Error::other)
}

/// The status of a process that a signal ended, as a shell has it.
#[cfg(unix)]
fn status(signal: i32) -> i32 {
    128 + signal
}

/// Signals that this process was started to ignore: a bit each, that of signal 1 the lowest. What
/// can't be found out counts as none, but for SIGHUP, whose default ends the process, too.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").ok();
    let mask = status.as_ref().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    mask.unwrap_or(1 << (signal_hook::consts::SIGHUP - 1))
}

/// Leaves nothing by half, says what there is to say, and ends the process.
fn end(status: i32, why: &'static str) -> ! {
    // Held to the end, so that nobody starts another file.
    let unfinished = UNFINISHED.lock();
    for path in unfinished.iter() {
        // Best effort: it may have been finished just now.
        if std::fs::remove_file(path).is_err() {
            let _ = std::fs::remove_dir_all(path);
        }
    }
    // Whoever writes to a full pipe holds stdout until it is read.
    let (said, heard) = mpsc::channel();
    let speaker = std::thread::Builder::new().spawn(move || {
        // Nobody may be left to read it.
        let _ = write_finished();
        crate::console::error(why);
        let _ = said.send(());
    });
    if speaker.is_ok() {
        let _ = heard.recv_timeout(LAST_WORDS);
    }
    std::process::exit(status)
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

/// A file or a folder that the handler removes until this is dropped.
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

//! Ends every command that writes files at random moments, and looks at what is left.
//!
//! Each command runs in a folder that holds what an earlier run has left. It is killed (SIGKILL) or
//! told to end (SIGTERM) in turn, at moments drawn evenly from the time that a whole run takes.
//! After each, every file under its final name is that of the earlier run or that of a whole one;
//! no folder of a run is without its configuration; after SIGTERM no unfinished file is left; and
//! after one more run to the end none of all that were killed is left either.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::release_binary;

/// Words of the commands, and files that they read.
const COMMANDS: [(&str, &str); 8] = [
    (
        "bert",
        "bert --task SQUAD --inference --generated-data true --num-layers 2 --layers-per-ipu 2 \
         --encoder-start-ipu 0 --hidden-size 128 --attention-heads 2 --sequence-length 64 \
         --vocab-length 512 --batches-per-step 2 --device-tiles 64 --metrics-json metrics.json \
         --dump-ir graphs --dump-program program.txt --memory-report memory.csv \
         --checkpoint-dir checkpoints/run",
    ),
    ("suite", "suite --json suite.json --csv suite.csv"),
    ("validate", "validate --json rows.json"),
    ("calibrate", "calibrate --accuracy accuracy.toml"),
    ("benchmark", "data benchmark --force --out data"),
    (
        "pretraining",
        "data pretraining --force --input-file text --vocab-file vocab --do-lower-case \
         --duplication-factor 400 --output-file a.bin,b.bin",
    ),
    (
        "pack",
        "data pack --force --input-glob records --max-sequence-length 128 --mlm-tokens 20 \
         --output-dir packs",
    ),
    (
        "vocabulary",
        "data vocabulary --force --input-file text --output-file new-vocab",
    ),
];

/// The command that writes its files anew after each run, with one more in them.
const GROWS: &str = "suite";

/// What stands in the place of a file before the first run.
const OLD: &str = "of an earlier run\n";

/// Runs all commands, or the one called `name`, ended so many times each.
///
/// # Errors
///
/// A build that fails, a command that fails by itself, a file that is lost, torn or left over.
pub(crate) fn run(root: &Path, name: &str, times: &str) -> anyhow::Result<()> {
    let times: u32 = times.parse().with_context(|| format!("times {times:?}"))?;
    let chosen = COMMANDS
        .iter()
        .filter(|(known, _)| name == "all" || name == *known);
    let chosen: Vec<_> = chosen.collect();
    if chosen.is_empty() {
        let names = COMMANDS.map(|(name, _)| name).join(", ");
        bail!("unknown command {name:?}: expected all or one of {names}");
    }
    let binary = release_binary(root)?;
    for (name, line) in chosen {
        let folder = root.join("target/kills").join(name);
        let ended = end_often(&binary, &folder, line, *name == GROWS, times);
        let ended = ended.with_context(|| format!("{name}, in {}", folder.display()))?;
        writeln!(
            io::stdout(),
            "{name}: {times} ends, {ended} of them before the command's own"
        )?;
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// How long a whole run takes.
#[expect(
    clippy::disallowed_methods,
    reason = "moments are drawn from the time of a run on this host"
)]
fn time(binary: &Path, folder: &Path, line: &str) -> anyhow::Result<Duration> {
    let started = Instant::now();
    finish(start(binary, folder, line)?)?;
    Ok(started.elapsed())
}

/// Ends one command so many times; gives how often it was still running. The files of one that
/// `grows` are whole after each of its runs.
fn end_often(
    binary: &Path,
    folder: &Path,
    line: &str,
    grows: bool,
    times: u32,
) -> anyhow::Result<u32> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-cli/sample");
    fs::copy(sample.join("text.txt"), folder.join("text"))?;
    fs::copy(sample.join("vocab.txt"), folder.join("vocab"))?;
    let records = "data pretraining --input-file text --vocab-file vocab --do-lower-case \
                   --duplication-factor 200 --output-file records";
    finish(start(binary, folder, records)?)?;
    // A whole run shows what is written, and how long it takes.
    let before = files(folder)?;
    let duration = time(binary, folder, line)?;
    let mut whole = files(folder)?;
    whole.retain(|path, _| !before.contains_key(path) && !is_of_one_run(path));
    ensure!(!whole.is_empty(), "it writes nothing");
    for path in whole.keys() {
        fs::write(folder.join(path), OLD)?;
    }
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut still_running = 0;
    for number in 0..times {
        let mut child = start(binary, folder, line)?;
        std::thread::sleep(duration.mul_f64(1.05 * draw(&mut random)));
        let kill = number % 2 == 0;
        match kill {
            true => child.kill()?,
            false => terminate(&child)?,
        }
        still_running += u32::from(!child.wait()?.success());
        let found = files(folder)?;
        for (path, wanted) in &whole {
            let content = found.get(path);
            let content = content.with_context(|| format!("{} is lost", path.display()))?;
            let is_whole = content == OLD.as_bytes()
                || is_alike(content, wanted)
                || (grows && is_of_some_runs(content, wanted));
            ensure!(is_whole, "{} is torn, at end {number}", path.display());
        }
        let of_process = format!(".ipu-bench-{}-", child.id());
        let is_left = |path: &PathBuf| path.iter().any(|name| is_partial(name, &of_process));
        ensure!(
            kill || !found.keys().any(is_left),
            "half a file is left after SIGTERM, at end {number}"
        );
    }
    finish(start(binary, folder, line)?)?;
    let found = files(folder)?;
    for (path, wanted) in &whole {
        let is_whole = found.get(path).is_some_and(|content| {
            is_alike(content, wanted) || (grows && is_of_all(content, wanted))
        });
        ensure!(is_whole, "{} isn't what a whole run writes", path.display());
    }
    let left = found.keys().find(|path| is_unfinished(path));
    if let Some(path) = left {
        bail!("{} is left over", path.display());
    }
    Ok(still_running)
}

/// Evenly from 0 to 1: xorshift64*.
fn draw(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
}

fn start(binary: &Path, folder: &Path, line: &str) -> anyhow::Result<Child> {
    let child = Command::new(binary)
        .arg("-q")
        .args(line.split_whitespace())
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.with_context(|| format!("cannot start {}", binary.display()))
}

fn finish(mut child: Child) -> anyhow::Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "it failed by itself: {status}");
    Ok(())
}

fn terminate(child: &Child) -> anyhow::Result<()> {
    // One that has ended already is no failure.
    Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .stderr(Stdio::null())
        .status()?;
    Ok(())
}

/// All files below a folder with their contents, by their paths there.
fn files(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            match path.is_dir() {
                true => {
                    let is_empty = fs::read_dir(&path)?.next().is_none();
                    let of_run = is_of_one_run(path.strip_prefix(folder)?);
                    let may_be = !of_run || is_unfinished(&path) || path.ends_with("checkpoints");
                    ensure!(may_be || !is_empty, "{} is empty", path.display());
                    folders.push(path);
                }
                false => {
                    let name = path.strip_prefix(folder)?.to_path_buf();
                    found.insert(name, fs::read(&path)?);
                }
            }
        }
    }
    Ok(found)
}

/// Whether that is a file, or one in a folder, until it has its name.
fn is_unfinished(path: &Path) -> bool {
    path.iter().any(|name| is_partial(name, ".ipu-bench-"))
}

/// Whether a name is one of those that begin so, and of something that isn't whole.
fn is_partial(name: &OsStr, prefix: &str) -> bool {
    let name = name.to_str().unwrap_or_default();
    name.starts_with(prefix) && name.ends_with(".partial")
}

/// Whether every run has one of its own: its configuration, in a new folder.
fn is_of_one_run(path: &Path) -> bool {
    path.starts_with("checkpoints")
}

/// Whether two files are the same, but for times of the host: as many lines, and the same last one.
fn is_alike(content: &[u8], wanted: &[u8]) -> bool {
    if content == wanted {
        return true;
    }
    let lines = |text: &str| (text.lines().count(), text.lines().last().map(String::from));
    match (std::str::from_utf8(content), std::str::from_utf8(wanted)) {
        (Ok(content), Ok(wanted)) => lines(content) == lines(wanted),
        _ => false,
    }
}

/// Whether a file is whole with all runs of those in another.
fn is_of_all(content: &[u8], wanted: &[u8]) -> bool {
    let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').count();
    is_of_some_runs(content, wanted) && lines(content) == lines(wanted)
}

/// Whether a file is whole with the first runs of those in another: JSON, or a table of which every
/// row begins with the same name.
fn is_of_some_runs(content: &[u8], wanted: &[u8]) -> bool {
    if serde_json::from_slice::<serde_json::Value>(wanted).is_ok() {
        return serde_json::from_slice::<serde_json::Value>(content).is_ok();
    }
    let rows = |table: &[u8]| -> Vec<Vec<u8>> {
        let rows = table.split_inclusive(|byte| *byte == b'\n');
        let name = |row: &[u8]| row.split(|byte| *byte == b',').next().map(<[u8]>::to_vec);
        rows.filter_map(name).collect()
    };
    content.ends_with(b"\n") && rows(wanted).starts_with(&rows(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_file_is_not_alike() {
        let whole = b"{\n\"host\": 1\n}\n";
        assert!(is_alike(b"{\n\"host\": 2\n}\n", whole));
        for torn in [&b"{\n\"host\": 2\n"[..], b"", b"{\n}\n"] {
            assert!(!is_alike(torn, whole), "{torn:?}");
        }
        assert!(is_alike(&[0, 255], &[0, 255]) && !is_alike(&[0], &[0, 255]));
    }

    #[test]
    fn files_that_grow_are_whole_or_torn() {
        let table = b"run,seconds\na,1\nb,2\n";
        for whole in [&b"run,seconds\na,3\n"[..], b"run,seconds\na,1\nb,3\n"] {
            assert!(is_of_some_runs(whole, table), "{whole:?}");
        }
        assert!(is_of_all(b"run,seconds\na,3\nb,3\n", table));
        assert!(!is_of_all(b"run,seconds\na,3\n", table));
        for torn in [&b"run,seconds\na,"[..], b"", b"run,seconds\nb,1\n"] {
            assert!(!is_of_some_runs(torn, table), "{torn:?}");
        }
        assert!(is_of_some_runs(b"[1]\n", b"[1, 2]\n"));
        assert!(!is_of_some_runs(b"[1", b"[1, 2]\n"));
    }

    #[test]
    fn draws_are_even() {
        let mut random = 1;
        let draws: Vec<f64> = (0..1000).map(|_| draw(&mut random)).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}

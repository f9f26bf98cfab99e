//! How time and memory of whole commands grow with one thing at a time.
//!
//! Each row is a process of the release build from its start to its end. A process of our own starts
//! it and waits for it, so that what the system says of all its children is of that one: time of all
//! its threads, and the most memory that was resident. Wall time is that of this host, with whatever
//! else runs on it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::release_binary;

/// The word by which a process of our own is asked for one row.
pub(crate) const MEASURE: &str = "measure-one";

/// Something to grow: its name, the command with `@` for how much of it, and how much.
struct Thing {
    name: &'static str,
    line: &'static str,
    amounts: &'static [u64],
    /// What is made in the folder before the command runs.
    input: Input,
}

/// What a command reads.
#[derive(Clone, Copy)]
enum Input {
    Nothing,
    /// `machine.toml`: a machine with so many IPUs.
    Ipus,
    /// `machine.toml`: a machine with so many tiles on an IPU, in rows of 64.
    Tiles,
    /// `text`: so many MiB of text.
    Text,
}

const THINGS: [Thing; 8] = [
    Thing {
        name: "layers, three to an IPU",
        line: "bert --config pretrain_large_128.json --epochs 1 --generated-data true \
               --no-model-save --micro-batch-size 1 --available-memory-proportion 0.2 \
               --replication-factor 1 --layers-per-ipu 3 --system mk2-pod64 --num-layers @",
        amounts: &[24, 48, 96, 180],
        input: Input::Nothing,
    },
    Thing {
        name: "replicas of four IPUs",
        line: "bert --config pretrain_large_128.json --epochs 1 --generated-data true \
               --no-model-save --system mk2-pod256 --replication-factor @",
        amounts: &[1, 4, 16, 64],
        input: Input::Nothing,
    },
    Thing {
        name: "tiles of an IPU",
        line: "bert --task SQUAD --inference --generated-data true --num-layers 3 \
               --layers-per-ipu 1 --hidden-size 256 --attention-heads 4 --sequence-length 64 \
               --vocab-length 2048 --batches-per-step 16 --system machine.toml",
        amounts: &[184, 736, 1472, 2944, 8192],
        input: Input::Tiles,
    },
    Thing {
        name: "micro-batches of a step, low latency",
        line: "bert --task SQUAD --inference --low-latency-inference --generated-data true \
               --num-layers 3 --layers-per-ipu 3 --encoder-start-ipu 0 --hidden-size 256 \
               --attention-heads 4 --sequence-length 64 --vocab-length 2048 --batches-per-step @",
        amounts: &[1_000, 1_000_000, 1_000_000_000],
        input: Input::Nothing,
    },
    Thing {
        name: "micro-batches of a step, pipeline",
        line: "bert --task SQUAD --inference --generated-data true --num-layers 4 \
               --layers-per-ipu 1 --execution-mode PIPELINE --hidden-size 256 \
               --attention-heads 4 --sequence-length 64 --vocab-length 2048 --batches-per-step @",
        amounts: &[1_000, 1_000_000, 1_000_000_000],
        input: Input::Nothing,
    },
    Thing {
        name: "IPUs of a machine, listed",
        line: "devices --system machine.toml",
        amounts: &[64, 1_024, 16_384, 65_536],
        input: Input::Ipus,
    },
    Thing {
        name: "MiB of text, to a vocabulary",
        line: "data vocabulary --force --input-file text --output-file vocab",
        amounts: &[1, 8, 64],
        input: Input::Text,
    },
    Thing {
        name: "MiB of text, to records",
        line: "data pretraining --force --input-file text --vocab-file sample-vocab \
               --do-lower-case --output-file records",
        amounts: &[1, 8, 64],
        input: Input::Text,
    },
];

/// What a process took.
struct Taken {
    wall_seconds: f64,
    processor_seconds: f64,
    resident_mebibytes: f64,
}

/// Measures all things, or those whose name begins with `name`, and prints a table.
///
/// # Errors
///
/// A build that fails, a command that fails, a system that doesn't say what it took.
pub(crate) fn run(root: &Path, name: &str) -> anyhow::Result<()> {
    let chosen = THINGS
        .iter()
        .filter(|thing| name == "all" || thing.name.starts_with(name));
    let chosen: Vec<&Thing> = chosen.collect();
    if chosen.is_empty() {
        let names = THINGS.map(|thing| thing.name).join("; ");
        bail!("unknown thing {name:?}: expected all or the beginning of one of {names}");
    }
    let binary = release_binary(root)?;
    let folder = root.join("target/scaling");
    fs::create_dir_all(&folder)?;
    let mut out = io::stdout();
    writeln!(out, "| thing | amount | wall | CPU | memory |")?;
    writeln!(out, "|---|---:|---:|---:|---:|")?;
    for thing in chosen {
        for &amount in thing.amounts {
            let taken = measured(root, &folder, &binary, thing, amount);
            let taken = taken.with_context(|| format!("{} {amount}", thing.name))?;
            writeln!(out, "{}", row(thing.name, amount, &taken))?;
        }
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn row(name: &str, amount: u64, taken: &Taken) -> String {
    let Taken {
        wall_seconds,
        processor_seconds,
        resident_mebibytes,
    } = taken;
    format!(
        "| {name} | {amount} | {wall_seconds:.2} s | {processor_seconds:.2} s | \
         {resident_mebibytes:.0} MiB |"
    )
}

/// What one command takes, measured by a process of our own.
fn measured(
    root: &Path,
    folder: &Path,
    binary: &Path,
    thing: &Thing,
    amount: u64,
) -> anyhow::Result<Taken> {
    prepare(root, folder, thing.input, amount)?;
    let line = thing.line.replace('@', &amount.to_string());
    let said = Command::new(std::env::current_exe()?)
        .arg(MEASURE)
        .args([folder, binary])
        .arg(line)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(said.status.success(), "it failed: {}", said.status);
    read(&String::from_utf8(said.stdout)?)
}

fn read(said: &str) -> anyhow::Result<Taken> {
    let numbers: Result<Vec<f64>, _> = said.split_whitespace().map(str::parse).collect();
    let &[wall_seconds, processor_seconds, resident_mebibytes] = numbers?.as_slice() else {
        bail!("expected three numbers, got {said:?}");
    };
    Ok(Taken {
        wall_seconds,
        processor_seconds,
        resident_mebibytes,
    })
}

fn prepare(root: &Path, folder: &Path, input: Input, amount: u64) -> anyhow::Result<()> {
    match input {
        Input::Nothing => {}
        Input::Ipus => fs::write(
            folder.join("machine.toml"),
            machine(&[("system", "ipus", amount)]),
        )?,
        Input::Tiles => fs::write(
            folder.join("machine.toml"),
            machine(&[
                ("chip", "tiles", amount),
                ("exchange", "rows", amount.div_ceil(64)),
            ]),
        )?,
        Input::Text => {
            let sample = root.join("bench-cli/sample");
            fs::copy(sample.join("vocab.txt"), folder.join("sample-vocab"))?;
            let text = fs::read(sample.join("text.txt"))?;
            let mut file = io::BufWriter::new(fs::File::create(folder.join("text"))?);
            for _ in 0..(amount << 20).div_ceil(text.len() as u64) {
                file.write_all(&text)?;
            }
            file.flush()?;
        }
    }
    Ok(())
}

/// The description of a machine with some constants, by section and key, of other sizes.
fn machine(constants: &[(&str, &str, u64)]) -> String {
    let constants = constants.iter().map(|(section, key, value)| {
        format!(
            "[{section}]\n{key} = {{ value = {value}, kind = \"assumed\", source = \"measuring\" }}\n"
        )
    });
    let head = "name = \"scaled\"\nsummary = \"other sizes\"\nbase = [\"mk2-pod16\"]\n";
    std::iter::once(head.into()).chain(constants).collect()
}

/// Runs one command in a folder and prints its seconds of wall time, its seconds on processors, and
/// the most MiB that were resident.
///
/// # Errors
///
/// A command that fails, a system that doesn't say what it took.
#[cfg(unix)]
#[expect(
    clippy::disallowed_methods,
    reason = "the time of a whole command on this host is what is asked for"
)]
pub(crate) fn measure(folder: &str, binary: &str, line: &str) -> anyhow::Result<()> {
    use std::time::Instant;

    use nix::sys::resource::{UsageWho, getrusage};

    let started = Instant::now();
    let status = Command::new(binary)
        .arg("-q")
        .args(line.split_whitespace())
        .current_dir(folder)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {binary}"))?;
    let wall = started.elapsed().as_secs_f64();
    ensure!(status.success(), "{line}: {status}");
    let taken = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let processor = seconds(taken.user_time()) + seconds(taken.system_time());
    // Darwin counts bytes, all others KiB.
    let unit = if cfg!(target_vendor = "apple") {
        1 << 20
    } else {
        1 << 10
    };
    let resident = taken.max_rss() as f64 / f64::from(unit);
    writeln!(io::stdout(), "{wall} {processor} {resident}")?;
    Ok(())
}

/// Refuses: only Unix says what a child took.
///
/// # Errors
///
/// Always.
#[cfg(not(unix))]
pub(crate) fn measure(_: &str, _: &str, _: &str) -> anyhow::Result<()> {
    bail!("this system doesn't say what a process has taken");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_was_taken() {
        let taken = read("1.254 0.5 100.4\n").unwrap();
        let wanted = "| layers | 24 | 1.25 s | 0.50 s | 100 MiB |";
        assert_eq!(row("layers", 24, &taken), wanted);
        assert!(read("1 2").is_err() && read("1 2 x").is_err());
    }

    #[test]
    fn amounts_grow_and_act() {
        for thing in THINGS {
            assert!(thing.amounts.is_sorted(), "{}", thing.name);
            let in_line = thing.line.contains('@');
            let in_input = !matches!(thing.input, Input::Nothing);
            assert!(in_line != in_input, "{}", thing.name);
        }
    }

    /// A process that fails, or that can't be started, is no row.
    #[test]
    #[cfg(unix)]
    fn failures_are_no_rows() {
        let folder = std::env::temp_dir();
        let folder = folder.to_str().unwrap();
        let error = measure(folder, "false", "a b").unwrap_err().to_string();
        assert!(error.starts_with("a b: "), "{error}");
        assert!(measure(folder, "no such command", "").is_err());
    }
}

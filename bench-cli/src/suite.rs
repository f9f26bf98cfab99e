//! The benchmark document: ten command lines, eighteen runs.
//!
//! The lines are those that Graphcore published for BERT in PopART, as written after
//! `python bert.py`. Lines 5 and 7 keep their oddities: 5 names a file of sequence length 128 with
//! the configuration for 384, and 7, headed BERT-Base, runs the Large configuration.

use schemars::JsonSchema;
use serde::Serialize;

use crate::clock::Date;
use crate::error::chain;
use crate::metrics::{Report, TimedMetrics};
use crate::request::{RunRequest, prepare};
use crate::{Result, args};

/// One published line, with the micro batch sizes it stands for.
struct Line {
    name: &'static str,
    system: &'static str,
    micro_batches: &'static [u32],
    /// `{micro}` stands for the micro batch size.
    arguments: &'static str,
}

const LINES: [Line; 10] = [
    Line {
        name: "1-large-128-pod16",
        system: "mk2-pod16",
        micro_batches: &[],
        arguments: "--config configs/mk2/pretrain_large_128.json \
            --input-files=$DATASETS_DIR/wikipedia/AA/sequence_128/wiki_00_tokenised \
            --epochs 1 --no-model-save --no-validation --steps-per-log 1",
    },
    Line {
        name: "2-large-128-pod64",
        system: "mk2-pod64",
        micro_batches: &[],
        arguments: "--config configs/mk2/pretrain_large_128.json \
            --input-files=$DATASETS_DIR/wikipedia/AA/sequence_128/wiki_00_tokenised \
            --epochs 1 --no-model-save --no-validation --steps-per-log 1 \
            --gradient-accumulation-factor 512 --replication-factor 16",
    },
    Line {
        name: "3-large-384-pod16",
        system: "mk2-pod16",
        micro_batches: &[],
        arguments: "--config configs/mk2/pretrain_large_384.json \
            --input-files=$DATASETS_DIR/wikipedia/AA/sequence_384/wiki_00_tokenised \
            --epochs 1 --no-model-save --no-validation --steps-per-log 1",
    },
    Line {
        name: "4-large-384-pod64-10-epochs",
        system: "mk2-pod64",
        micro_batches: &[],
        arguments: "--config configs/mk2/pretrain_large_384.json \
            --input-files=$DATASETS_DIR/wikipedia/AA/sequence_384/wiki_00_tokenised \
            --epochs 1 --epochs 10 --no-model-save --no-validation --steps-per-log 1 \
            --gradient-accumulation-factor 512 --replication-factor 16",
    },
    Line {
        name: "5-large-384-pod64",
        system: "mk2-pod64",
        micro_batches: &[],
        arguments: "--config configs/mk2/pretrain_large_384.json --replication-factor 16 \
            --input-files=$DATASETS_DIR/wikipedia/AA/sequence_128/wiki_00_tokenised \
            --epochs 1 --no-model-save --no-validation --steps-per-log 1",
    },
    Line {
        name: "6-base-128-pod16",
        system: "mk2-pod16",
        micro_batches: &[],
        arguments: "--config configs/mk2/pretrain_base_128.json \
            --input-files=$DATASETS_DIR/wikipedia/AA/sequence_128/wiki_00_tokenised \
            --epochs 1 --no-model-save --no-validation --steps-per-log 1",
    },
    Line {
        name: "7-headed-base-128-pod64",
        system: "mk2-pod64",
        micro_batches: &[],
        arguments: "--config configs/mk2/pretrain_large_128.json --replication-factor 16 \
            --loss-scaling 128 --available-memory-proportion 0.15 0.2 0.2 0.2 \
            --input-files=$DATASETS_DIR/wikipedia/AA/sequence_128/wiki_00_tokenised \
            --epochs 1 --no-model-save --no-validation --steps-per-log 1",
    },
    Line {
        name: "8-base-384-pod16",
        system: "mk2-pod16",
        micro_batches: &[],
        arguments: "--config configs/mk2/pretrain_base_384.json \
            --input-files=$DATASETS_DIR/wikipedia/AA/sequence_384/wiki_00_tokenised \
            --epochs 1 --no-model-save --no-validation --steps-per-log 1",
    },
    Line {
        name: "9-squad-low-latency-128",
        system: "mk2-m2000",
        micro_batches: &[1, 2, 3],
        arguments: "--task SQUAD --layers-per-ipu=3 --num-layers=3 --hidden-size=768 \
            --attention-heads=12 --sequence-length=128 --dtype=FLOAT16 --batches-per-step=2048 \
            --generated-data=true --no-model-save --host-embedding=NONE \
            --low-latency-inference=true --minimum-latency-inference=false \
            --input-files=$DATASETS_DIR/squad/dev-v1.1.json --inference --encoder-start-ipu=0 \
            --use-default-available-memory-proportion=true --max-copy-merge-size=-1 \
            --shuffle=false --micro-batch-size {micro} --enable-half-partials \
            --epochs-inference 10 --group-host-sync --no-outlining=false --steps-per-log=1",
    },
    Line {
        name: "10-base-3-minimum-latency-128",
        system: "mk2-m2000",
        micro_batches: &[1, 2, 4, 8, 16, 32, 64],
        arguments: "--task SQUAD --layers-per-ipu=3 --num-layers=3 --hidden-size=768 \
            --attention-heads=12 --sequence-length=128 --dtype=FLOAT16 --batches-per-step=2048 \
            --generated-data=true --no-model-save --host-embedding=NONE \
            --low-latency-inference=false --minimum-latency-inference=true \
            --input-files=$DATASETS_DIR/squad/dev-v1.1.json --inference --encoder-start-ipu=0 \
            --use-default-available-memory-proportion=true --max-copy-merge-size=-1 \
            --shuffle=false --micro-batch-size {micro} --enable-half-partials \
            --epochs-inference 10 --group-host-sync --no-outlining=false --steps-per-log=1",
    },
];

/// One run of the suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteRun {
    /// Number of its line, what it is, and the micro batch size where the line has several.
    pub name: String,
    /// The shipped system it runs on.
    pub system: &'static str,
    /// The words after `ipu-bench bert`, without the system.
    pub arguments: Vec<String>,
}

/// The eighteen runs, in the order of the document.
#[must_use]
pub fn runs() -> Vec<SuiteRun> {
    LINES.iter().flat_map(expand).collect()
}

fn expand(line: &Line) -> Vec<SuiteRun> {
    let run = |name: String, text: &str| SuiteRun {
        name,
        system: line.system,
        arguments: text.split_whitespace().map(String::from).collect(),
    };
    if line.micro_batches.is_empty() {
        return vec![run(line.name.into(), line.arguments)];
    }
    let sizes = line.micro_batches.iter();
    sizes
        .map(|micro| {
            let text = line.arguments.replace("{micro}", &micro.to_string());
            run(format!("{}-b{micro}", line.name), &text)
        })
        .collect()
}

/// How one run ended.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Entry {
    /// [`SuiteRun::name`].
    pub run: String,
    /// [`SuiteRun::system`].
    pub system: String,
    /// [`SuiteRun::arguments`].
    pub arguments: Vec<String>,
    /// A report, or what went wrong.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A report, or what went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Outcome {
    /// The run ended well.
    Report {
        /// What it measured.
        report: Box<Report>,
    },
    /// The run failed.
    Failed {
        /// The chain of errors on one line.
        error: String,
    },
}

/// Runs one with `simulate`. A failure is an outcome: the other runs go on.
pub fn run_one(
    run: &SuiteRun,
    date: Date,
    simulate: impl Fn(&RunRequest) -> Result<TimedMetrics>,
) -> Entry {
    let report = || -> Result<Report> {
        let mut given = args::parse(run.arguments.iter().cloned())?;
        given.own.insert("system", run.system.into());
        let request = prepare(&given, date)?.request;
        let measured = simulate(&request)?;
        Ok(Report::new(&request, measured))
    };
    Entry {
        run: run.name.clone(),
        system: run.system.into(),
        arguments: run.arguments.clone(),
        outcome: match report() {
            Ok(report) => Outcome::Report {
                report: Box::new(report),
            },
            Err(error) => Outcome::Failed {
                error: chain(&error),
            },
        },
    }
}

#[cfg(test)]
mod tests;

//! Every configuration file that the application published runs here, and means what it meant.
//!
//! The 109 files are not part of the repository: `IPU_BENCH_CONFIGS` names the folder that holds
//! them, one folder a release (`v2.3.0/mk2/pretrain_large_128.json`). Without it every test is
//! reported as ignored.
//!
//! [`FILES`] has what each means, as the parser of its own release resolves it: micro-batch,
//! replicas, accumulation factor, batches in a step; the IPUs that it asks for; and the stages of
//! its pipeline, of training forward and backward. [`VALIDATIONS`] has the same of the validation
//! after a training, [`RELEASES`] and [`FAULTS`] what is said of a file. Source: those parsers, run on
//! all files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use bench_cli::args;
use bench_cli::clock::Date;
use bench_cli::request::{PreparedRun, RunRequest, prepare};
use bench_core::compile::compile;
use bench_core::evaluate::TIMING;
use bench_core::release::Release;
use bench_core::release::signs::{Shown, shown};
use ipu_sim::{engine, weigh};
use libtest_mimic::{Arguments, Trial};
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;

/// Files that are alike in what they ask for.
struct Row {
    /// Folders of the releases that have them.
    tags: &'static [&'static str],
    /// Their names there.
    names: &'static [&'static str],
    /// Micro-batch, replicas, accumulation factor, batches in a step.
    counts: [u32; 4],
    /// IPUs asked for.
    ipus: u32,
    /// Stages of the pipeline; 0 for files that have none.
    stages: usize,
}

const fn row(
    tags: &'static [&'static str],
    names: &'static [&'static str],
    counts: [u32; 4],
    ipus: u32,
    stages: usize,
) -> Row {
    Row {
        tags,
        names,
        counts,
        ipus,
        stages,
    }
}

const FIRST: &[&str] = &["v2.1.0", "v2.3.0"];
const LAST: &[&str] = &["v2.6.0", "v3.1.0"];

const FILES: &[Row] = &[
    row(FIRST, &["demo"], [1, 1, 64, 1], 4, 0),
    row(
        FIRST,
        &[
            "mk1/mlm_nsp_base_128_inference",
            "mk1/mlm_nsp_base_384_inference",
        ],
        [1, 1, 1, 16],
        2,
        3,
    ),
    row(
        FIRST,
        &[
            "mk1/mlm_nsp_large_128_inference",
            "mk1/mlm_nsp_large_384_inference",
        ],
        [1, 1, 1, 16],
        8,
        8,
    ),
    row(
        FIRST,
        &["mk1/pretrain_base_128", "mk1/pretrain_base_384"],
        [1, 1, 128, 64],
        16,
        31,
    ),
    row(FIRST, &["mk1/pretrain_large_128"], [1, 1, 64, 128], 16, 31),
    row(
        &["v2.1.0"],
        &["mk1/pretrain_large_384"],
        [1, 1, 64, 128],
        16,
        31,
    ),
    row(FIRST, &["mk1/squad_base_128"], [1, 1, 1, 1897], 16, 29),
    row(
        FIRST,
        &["mk1/squad_base_128_inference"],
        [1, 1, 1, 16],
        2,
        2,
    ),
    row(
        FIRST,
        &[
            "mk1/squad_base_384",
            "mk1/squad_large_128",
            "mk1/squad_large_384",
        ],
        [1, 1, 1, 2048],
        16,
        29,
    ),
    row(
        FIRST,
        &["mk1/squad_large_128_inference"],
        [1, 1, 1, 128],
        4,
        4,
    ),
    row(
        FIRST,
        &["mk1/squad_large_384_inference"],
        [1, 1, 1, 16],
        8,
        7,
    ),
    row(
        &["v2.1.0"],
        &["mk2/packed_pretrain_tiny_512"],
        [4, 1, 512, 1],
        2,
        0,
    ),
    row(
        &["v2.1.0"],
        &["mk2/phased/pretrain_large_128"],
        [16, 16, 1, 1],
        16,
        0,
    ),
    row(FIRST, &["mk2/pretrain_base_128"], [32, 4, 512, 1], 16, 9),
    row(FIRST, &["mk2/pretrain_base_384"], [8, 4, 512, 1], 16, 9),
    row(FIRST, &["mk2/pretrain_large_128"], [8, 4, 2048, 1], 16, 9),
    row(FIRST, &["mk2/pretrain_large_384"], [2, 4, 2048, 1], 16, 9),
    row(FIRST, &["mk2/squad_base_384"], [2, 4, 16, 4], 8, 3),
    row(
        &["v2.1.0", "v2.3.0", "v2.5.0"],
        &["mk2/squad_large_384"],
        [4, 2, 32, 4],
        16,
        15,
    ),
    row(&["v2.1.0"], &["phased/demo"], [1, 1, 1, 20], 1, 0),
    row(
        &["v2.2.0", "v2.3.0"],
        &["mk2/pretrain_large_128_POD64"],
        [8, 16, 512, 1],
        64,
        9,
    ),
    row(
        &["v2.3.0"],
        &["mk2/packed_pretrain_base_128"],
        [32, 4, 512, 1],
        16,
        9,
    ),
    row(
        &["v2.3.0"],
        &[
            "mk2/packed_pretrain_base_384",
            "mk2/packed_pretrain_base_384_phase_1",
        ],
        [8, 4, 512, 1],
        16,
        9,
    ),
    row(
        &["v2.3.0"],
        &["mk2/packed_pretrain_large_128"],
        [8, 4, 2048, 1],
        16,
        9,
    ),
    row(
        &["v2.3.0"],
        &[
            "mk2/packed_pretrain_tiny_128",
            "mk2/packed_pretrain_tiny_384",
        ],
        [3, 2, 200, 1],
        4,
        0,
    ),
    row(
        &["v2.3.0"],
        &["mk2/packed_pretrain_tiny_512"],
        [4, 2, 512, 1],
        4,
        0,
    ),
    row(
        &["v2.3.0"],
        &["mk2/pretrain_large_384_POD64"],
        [2, 16, 512, 1],
        64,
        9,
    ),
    row(
        &["v2.3.0", "v2.5.0"],
        &["mk2/squad_base_128_inf", "mk2/squad_large_128_inf"],
        [1, 1, 1, 16],
        1,
        0,
    ),
    row(
        &["v2.4.0"],
        &["mk2/packed/packed_pretrain_base_128"],
        [32, 4, 428, 1],
        16,
        9,
    ),
    row(
        &["v2.4.0"],
        &["mk2/packed/packed_pretrain_base_384"],
        [8, 4, 300, 1],
        16,
        9,
    ),
    row(
        &["v2.4.0", "v2.5.0"],
        &["mk2/packed/packed_pretrain_large_128"],
        [8, 4, 1712, 1],
        16,
        9,
    ),
    row(
        &["v2.4.0"],
        &["mk2/packed/packed_pretrain_large_384"],
        [2, 4, 1200, 1],
        16,
        9,
    ),
    row(
        &["v2.4.0"],
        &[
            "mk2/packed/packed_pretrain_tiny_128",
            "mk2/packed/packed_pretrain_tiny_384",
        ],
        [3, 2, 200, 1],
        4,
        5,
    ),
    row(
        &["v2.4.0"],
        &["mk2/packed/packed_pretrain_tiny_512"],
        [4, 2, 512, 1],
        4,
        5,
    ),
    row(
        &["v2.4.0"],
        &["mk2/pretrain_large_128_POD128"],
        [8, 32, 256, 1],
        128,
        9,
    ),
    row(
        &["v2.4.0"],
        &["mk2/pretrain_large_384_POD128"],
        [2, 32, 256, 1],
        128,
        9,
    ),
    row(&["v2.5.0"], &["mk2/squad_base_384"], [2, 4, 16, 3], 8, 3),
    row(&["v2.6.0"], &["demo"], [1, 1, 64, 1], 4, 0),
    row(
        LAST,
        &["packed/packed_pretrain_base_128"],
        [32, 4, 428, 1],
        16,
        9,
    ),
    row(
        LAST,
        &[
            "packed/packed_pretrain_base_384",
            "packed/packed_pretrain_base_512",
        ],
        [8, 4, 300, 1],
        16,
        9,
    ),
    row(
        LAST,
        &["packed/packed_pretrain_large_128"],
        [8, 4, 1712, 1],
        16,
        9,
    ),
    row(
        LAST,
        &[
            "packed/packed_pretrain_large_384",
            "packed/packed_pretrain_large_512",
        ],
        [2, 4, 1200, 1],
        16,
        9,
    ),
    row(
        LAST,
        &[
            "packed/packed_pretrain_tiny_128",
            "packed/packed_pretrain_tiny_384",
        ],
        [3, 2, 200, 1],
        4,
        5,
    ),
    row(
        LAST,
        &["packed/packed_pretrain_tiny_512"],
        [4, 2, 512, 1],
        4,
        5,
    ),
    row(LAST, &["pretrain_base_128"], [32, 4, 512, 1], 16, 9),
    row(
        LAST,
        &["pretrain_base_384", "pretrain_base_512"],
        [8, 4, 512, 1],
        16,
        9,
    ),
    row(LAST, &["pretrain_large_128"], [8, 4, 2048, 1], 16, 9),
    row(
        LAST,
        &["pretrain_large_384", "pretrain_large_512"],
        [2, 4, 2048, 1],
        16,
        9,
    ),
    row(
        &["v2.6.0"],
        &["squad_base_128_inf", "squad_large_128_inf"],
        [1, 1, 1, 16],
        1,
        0,
    ),
    row(LAST, &["squad_base_384"], [2, 4, 16, 3], 8, 3),
    row(LAST, &["squad_large_384"], [4, 2, 32, 4], 16, 15),
];

/// Parts of names of files that are refused by name, with a part of the reason. Nothing else is
/// refused, and all of these are.
const REFUSED: [(&str, &str); 1] = [("phased/", "phased execution is not supported")];

/// The validation after a training.
struct Validation {
    /// End of the paths of the files.
    files: &'static str,
    /// As [`Row::counts`]: nothing is accumulated.
    counts: [u32; 4],
    /// As [`Row::ipus`].
    ipus: u32,
    /// Stages of its pipeline, which has no backward half.
    stages: usize,
}

const fn validation(files: &'static str, counts: [u32; 4], ipus: u32, stages: usize) -> Validation {
    Validation {
        files,
        counts,
        ipus,
        stages,
    }
}

/// What trainings of SQuAD validate with, the first that is meant; no other file validates. Those
/// of Mk1 have a placement of their own.
const VALIDATIONS: [Validation; 6] = [
    validation("/mk1/squad_base_128.json", [1, 1, 1, 16], 4, 3),
    validation("/mk1/squad_base_384.json", [1, 1, 1, 23], 4, 4),
    validation("/mk1/squad_large_128.json", [1, 1, 1, 23], 16, 13),
    validation("/mk1/squad_large_384.json", [1, 1, 1, 23], 8, 7),
    validation("/squad_base_384.json", [2, 4, 1, 10], 8, 2),
    validation("/squad_large_384.json", [4, 2, 1, 10], 16, 8),
];

/// How a file validates, if it does.
fn validates(path: &str) -> Option<&'static Validation> {
    let mut all = VALIDATIONS.iter();
    all.find(|validation| path.ends_with(validation.files))
}

/// Starts of paths with the release that the files show: the newest that reads all of their keys.
/// The first that is meant counts.
const RELEASES: [(&str, Release); 14] = [
    // Keys that every release has.
    ("v2.1.0/demo", Release::V2_3),
    // Already without a mode.
    ("v2.1.0/mk1/pretrain_large_384", Release::V2_5),
    ("v2.1.0/", Release::V2_2),
    ("v2.2.0/", Release::V2_2),
    ("v2.3.0/demo", Release::V2_3),
    // With a mode still, or with none.
    ("v2.3.0/mk2/packed_", Release::V2_3),
    ("v2.3.0/", Release::V2_5),
    ("v2.4.0/", Release::V2_5),
    ("v2.5.0/", Release::V2_5),
    // They name no folder for checkpoints.
    ("v2.6.0/demo", Release::V3_1),
    ("v2.6.0/squad_base_128_inf", Release::V3_1),
    ("v2.6.0/squad_large_128_inf", Release::V3_1),
    ("v2.6.0/", Release::V3_0),
    ("v3.1.0/", Release::V3_1),
];

const HAS_A_MODE: &str =
    "itself refuses this file: Unknown arg(s) in config file: {'execution_mode'}";

/// Starts of paths of the files that their release does not run, with a part of the line that says
/// so. No other file has such a line.
const FAULTS: [(&str, &str); 4] = [
    ("v2.1.0/mk2/packed_", "itself fails on packed sequences"),
    ("v2.3.0/mk2/packed_pretrain_base_", HAS_A_MODE),
    ("v2.3.0/mk2/packed_pretrain_large_", HAS_A_MODE),
    ("v3.1.0/squad_", "itself fails after the training"),
];

/// What a refused file is refused for.
fn refused(name: &str) -> Option<&'static str> {
    let is_meant = |names: &str| names.split(' ').any(|part| name.contains(part));
    let found = REFUSED.iter().find(|(names, _)| is_meant(names));
    found.map(|(_, reason)| *reason)
}

fn main() -> ExitCode {
    let folder = std::env::var_os("IPU_BENCH_CONFIGS").map(PathBuf::from);
    let ignored = folder.is_none();
    let trial = |name: &str, test: fn(&Path)| {
        let folder = folder.clone();
        let run = move || {
            test(&folder.expect("ignored without it"));
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    let trials = vec![
        trial("the_table_names_every_file", names_every_file),
        trial("every_file_shows_its_release", shows_its_release),
        trial("every_file_means_what_it_meant", means_what_it_meant),
        trial("every_validation_means_what_it_meant", validations_mean),
        trial(
            "every_file_says_its_release_and_its_fault",
            says_release_and_fault,
        ),
        trial("every_file_runs_and_fits", runs_and_fits),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The path of every file under the folder, with its row.
fn files() -> Vec<(String, &'static Row)> {
    let of_row = |row: &'static Row| {
        row.tags.iter().flat_map(move |tag| {
            let path = move |name: &&str| (format!("{tag}/{name}.json"), row);
            row.names.iter().map(path)
        })
    };
    FILES.iter().flat_map(of_row).collect()
}

fn names_every_file(folder: &Path) {
    fn under(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => under(&path, found),
                false => drop(found.insert(path)),
            }
        }
    }
    let mut found = BTreeSet::new();
    under(folder, &mut found);
    let named: BTreeSet<PathBuf> = files().iter().map(|(path, _)| folder.join(path)).collect();
    assert_eq!(found, named);
    assert_eq!(named.len(), 109);
}

/// This file has a switch of later releases in every one of them.
const SHOWS_ANOTHER: &str = "v2.1.0/mk1/pretrain_large_384.json";

fn shows_its_release(folder: &Path) {
    let mut wrong = Vec::new();
    for (path, _) in files() {
        let text = std::fs::read_to_string(folder.join(&path)).unwrap();
        let shown = shown(serde_json::from_str(&text).as_ref().unwrap());
        let tag = path.split('/').next().unwrap().parse::<Release>().unwrap();
        let has = match &shown {
            Shown::Nothing => true,
            Shown::Releases { first, last, .. } => (*first..=*last).contains(&tag),
            Shown::None { .. } => false,
        };
        if has != (path != SHOWS_ANOTHER) {
            wrong.push(format!("{path}: {shown}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The run of a file as it is, with generated data, on the system that it was written for.
fn prepared(folder: &Path, path: &str) -> bench_cli::Result<PreparedRun> {
    let file = folder.join(path).display().to_string();
    let mut words = vec!["--config".to_owned(), file, "--generated-data".to_owned()];
    if path.contains("/mk1/") {
        words.extend(["--system", "mk1-server16"].map(String::from));
    }
    prepare(&args::parse(words)?, Date::from_unix(0))
}

fn means_what_it_meant(folder: &Path) {
    let mut wrong = Vec::new();
    for (path, row) in files() {
        match (prepared(folder, &path), refused(&path)) {
            (Ok(_), Some(reason)) => wrong.push(format!("{path} isn't refused: {reason}")),
            (Ok(prepared), None) => {
                let found = counts(&prepared.request);
                if found != (row.counts, row.ipus) {
                    wrong.push(format!("{path}: {found:?}"));
                }
            }
            (Err(error), reason) => {
                let error = bench_cli::error::chain(&error);
                if !reason.is_some_and(|reason| error.contains(reason)) {
                    wrong.push(format!("{path}: {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Counts and IPUs of a run, as a [`Row`] has them.
fn counts(request: &RunRequest) -> ([u32; 4], u32) {
    let config = &request.options.config;
    let counts = [
        config.model.micro_batch,
        config.batching.replicas,
        config.batching.accumulation,
        config.batching.batches_per_step,
    ];
    (counts, config.ipus_requested())
}

fn validations_mean(folder: &Path) {
    let mut wrong = Vec::new();
    for (path, _) in files() {
        let Ok(prepared) = prepared(folder, &path) else {
            continue;
        };
        let found = prepared.validation.as_ref().map(counts);
        let expected = validates(&path).map(|expected| (expected.counts, expected.ipus));
        if found != expected {
            wrong.push(format!("{path}: {found:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn says_release_and_fault(folder: &Path) {
    let mut wrong = Vec::new();
    for (path, _) in files() {
        let Ok(prepared) = prepared(folder, &path) else {
            continue;
        };
        let is_meant = |start: &str| path.starts_with(start);
        let (_, release) = RELEASES.iter().find(|(start, _)| is_meant(start)).unwrap();
        let fault = FAULTS.iter().find(|(start, _)| is_meant(start));
        let mut lines = prepared.lines();
        let first = lines.next().unwrap();
        if !first.starts_with(&format!("release: {release}: ")) {
            wrong.push(format!("{path}: {first}, expected {release}"));
        }
        let faults: Vec<String> = lines.filter(|line| line.contains(" itself ")).collect();
        let is_said = match (fault, faults.as_slice()) {
            (None, []) => true,
            (Some((_, part)), [line]) => line.contains(&format!("release {release} {part}")),
            _ => false,
        };
        if !is_said {
            wrong.push(format!("{path}: {faults:?}, expected {fault:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A run with what tells it from others, and the stages that its pipeline should have, if that is
/// said.
struct Job {
    request: RunRequest,
    stages: Option<usize>,
}

/// Every run of every file, those that are alike once, and the validation after a training with it.
fn jobs(folder: &Path) -> BTreeMap<String, Job> {
    let mut jobs = BTreeMap::new();
    for (path, row) in files() {
        let Ok(prepared) = prepared(folder, &path) else {
            continue;
        };
        let runs = [
            (Some(prepared.request), Some(row.stages)),
            (
                prepared.validation,
                validates(&path).map(|validation| validation.stages),
            ),
        ];
        for (request, stages) in runs {
            let Some(request) = request else { continue };
            let keys = serde_json::Value::Object(request.options.config.to_keys());
            let key = format!("{} {keys} {stages:?}", request.machine.name);
            jobs.entry(key).or_insert(Job { request, stages });
        }
    }
    jobs
}

/// What is wrong with a run, if anything.
fn judge(job: &Job, plans: &PlanCache) -> Option<String> {
    let config = &job.request.options.config;
    let machine = &job.request.machine.spec;
    let compiled = match compile(config, machine, plans, Watch::nobody()) {
        Ok(compiled) => compiled,
        Err(error) => return Some(bench_cli::error::chain(&error)),
    };
    let found = compiled.placed.stage_ipus.len();
    if let Some(stages) = job.stages.filter(|stages| *stages != found) {
        return Some(format!("expected {stages} stages, got {found}"));
    }
    let weight = weigh::weigh(&compiled.program, machine).unwrap();
    if let Err(too_large) = weigh::fits(&compiled.program, machine, &weight) {
        return Some(too_large.to_string());
    }
    let timeline = engine::time(&compiled.program, machine, TIMING).unwrap();
    (timeline.total.0 == 0).then(|| "takes no time".into())
}

fn runs_and_fits(folder: &Path) {
    let jobs = jobs(folder);
    let caches: BTreeMap<String, PlanCache> = jobs
        .values()
        .map(|job| &job.request.machine)
        .map(|machine| {
            let generation = machine.name.split('-').next().unwrap_or_default();
            (
                generation.to_owned(),
                PlanCache::new(machine.spec.tile.clone()),
            )
        })
        .collect();
    let left: Mutex<Vec<&Job>> = Mutex::new(jobs.values().collect());
    let wrong = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = left.lock().unwrap().pop();
            let Some(job) = next else { break };
            let machine = &job.request.machine.name;
            let generation = machine.split('-').next().unwrap_or_default();
            if let Some(fault) = judge(job, &caches[generation]) {
                let mut keys = job.request.options.config.to_keys();
                keys.retain(|key, _| {
                    [
                        "task",
                        "inference",
                        "num_layers",
                        "sequence_length",
                        "layers_per_ipu",
                    ]
                    .contains(&key.as_str())
                });
                let keys = serde_json::Value::Object(keys);
                wrong
                    .lock()
                    .unwrap()
                    .push(format!("{machine} {keys}: {fault}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

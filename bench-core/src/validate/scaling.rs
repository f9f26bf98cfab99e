//! What must hold between runs of the simulator, whatever its constants are.

use ipu_sim::engine::{self, Timeline};
use ipu_sim::program::VarKind;
use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::ConstantId;
use ipu_sim::weigh::{self, Category};
use popart_graph::profile::LineKind;
use serde_json::Map;

use super::measurements::Role;
use super::{Row, compiled, machine, throughput};
use crate::config::RunConfig;
use crate::error::Result;
use crate::evaluate::TIMING;
use crate::presets;

/// BERT-Large at sequence length 128: micro-batches of 8 on 4 replicas of 4 IPUs.
fn large(change: impl FnOnce(&mut RunConfig)) -> RunConfig {
    let run = presets::run("pretrain_large_128", &Map::new());
    let mut config = run.expect("it ships").expect("what ships is sound");
    change(&mut config);
    config
}

/// All rows.
///
/// # Errors
///
/// Runs that are malformed, which would be a mistake of this program.
pub(super) fn rows() -> Result<Vec<Row>> {
    let mut rows = pipeline()?;
    rows.push(clock()?);
    rows.extend(pods()?);
    rows.push(stashes()?);
    Ok(rows)
}

fn row(name: &str, expected: f64, found: f64, tolerance: f64, source: &str) -> Row {
    Row {
        name: name.into(),
        unit: "ratio".into(),
        expected,
        found,
        tolerance,
        is_range: false,
        role: Role::Scaling,
        source: source.into(),
        known: None,
    }
}

/// A row that must lie between two values.
fn between(bounds: [f64; 2], name: &str, found: f64, source: &str) -> Row {
    Row {
        source: source.into(),
        ..Row::between(bounds, name, found)
    }
}

fn timeline(config: &RunConfig, machine: &MachineSpec) -> Result<(Timeline, u64)> {
    let compiled = compiled(config, machine)?;
    let timeline = engine::time(&compiled.program, machine, TIMING)?;
    let mut lines = compiled.profile.lines.iter();
    let copies = lines.find(|(_, line)| line.kind == LineKind::PipelineCopies);
    let (copies, _) = copies.expect("a pipeline copies between IPUs");
    let cycles = timeline.sources[copies]
        .values()
        .map(|ipu| ipu.steps)
        .max()
        .unwrap_or(0);
    Ok((timeline, cycles))
}

/// Cycles of a pipeline against `accumulation + stages - 1`, and time against the cycles.
fn pipeline() -> Result<Vec<Row>> {
    let run = |accumulation: u32| {
        let config = large(|config| config.batching.accumulation = accumulation);
        timeline(&config, &machine("mk2-pod16"))
    };
    let runs = [run(64)?, run(128)?, run(192)?];
    let seconds = runs.each_ref().map(|(timeline, _)| timeline.total.0 as f64);
    // Four IPUs forward, the heads on the first again, and back: 2 x 5 - 1 stages.
    let expected = f64::from(64 + 9 - 1);
    Ok(vec![
        row(
            "pipeline cycles of 64 micro-batches",
            expected,
            runs[0].1 as f64,
            0.0,
            "closed form: accumulation factor + stages - 1",
        ),
        row(
            "64 more micro-batches, twice",
            1.0,
            (seconds[2] - seconds[1]) / (seconds[1] - seconds[0]),
            1e-9,
            "closed form: beyond fill and drain every micro-batch costs the same",
        ),
    ])
}

/// The same work on tiles that are twice as fast, with links as they are.
fn clock() -> Result<Row> {
    let (config, machine) = (large(|_| {}), machine("mk2-pod16"));
    let clock = format!("{} Hz", 2.0 * machine.tile.clock.0);
    let fast = machine.with(ConstantId::ChipClock, &clock)?;
    let speed_up = throughput(&config, &fast)? / throughput(&config, &machine)?;
    let source = "link, host and memory times don't shrink with the tiles' cycles";
    Ok(between(
        [1.8, 2.0],
        "twice the clock, links unchanged",
        speed_up,
        source,
    ))
}

/// Efficiency of the same global batch on more racks.
fn pods() -> Result<Vec<Row>> {
    let run = |system: &str, accumulation: u32, replicas: u32| {
        let config = large(|config| {
            config.batching.accumulation = accumulation;
            config.batching.replicas = replicas;
        });
        throughput(&config, &machine(system))
    };
    let pod16 = run("mk2-pod16", 2048, 4)?;
    let source = "closed form: no more than filling and draining the pipeline leave; the weight \
                  update doesn't shrink with more replicas";
    // Of its cycles, the pipeline works in `accumulation` and fills and drains in 8.
    let busy = |accumulation: f64| accumulation / (accumulation + 8.0);
    let row = |name, accumulation, found| {
        let most = busy(accumulation) / busy(2048.0);
        between([0.7, most], name, found, source)
    };
    Ok(vec![
        row(
            "efficiency, POD16 to POD64",
            512.0,
            run("mk2-pod64", 512, 16)? / (4.0 * pod16),
        ),
        row(
            "efficiency, POD16 to POD128",
            256.0,
            run("mk2-pod128", 256, 32)? / (8.0 * pod16),
        ),
    ])
}

/// Bytes of stashes against the micro-batch.
fn stashes() -> Result<Row> {
    let bytes = |micro: u32| -> Result<f64> {
        let config = large(|config| {
            config.batching.accumulation *= config.model.micro_batch / micro;
            config.model.micro_batch = micro;
        });
        let machine = machine("mk2-pod16");
        let program = compiled(&config, &machine)?.program;
        let weight = weigh::weigh(&program, &machine)?;
        let stash = Category::AlwaysLive(VarKind::Stash);
        Ok(weight
            .ipus
            .values()
            .map(|ipu| ipu.sum(stash).0 as f64)
            .sum())
    };
    let ratio = bytes(8)? / bytes(4)?;
    let source = "closed form: a slot of a stash holds one micro-batch";
    // Seeds and counters don't grow, and tiles pad what they hold.
    Ok(row(
        "bytes of stashes, micro-batch 8 over 4",
        2.0,
        ratio,
        0.01,
        source,
    ))
}

//! One run: from a request to its metrics.
//!
//! The model becomes a graph, the graph a program; the program is weighed and timed. All
//! numbers of a report come from that one program.

use anyhow::Context;
use ipu_sim::engine::{self, Mode, Timeline};
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::{Cycles, SimSeconds};
use ipu_sim::weigh::{self, Weight};

use crate::clock::Stopwatch;
use crate::compile::{self, Compiled};
use crate::measure::{self, latency};
use crate::metrics::{HostTimes, IpuMemory, Metrics};
use crate::request::RunRequest;
use crate::system::Description;

/// Builds the model, compiles it for the machine and simulates one step.
///
/// # Errors
///
/// A machine description that can't be read or has too few IPUs, a model that can't be
/// built or placed. Too little memory is no error: the metrics say so.
pub fn simulate(request: &RunRequest) -> anyhow::Result<Metrics> {
    let machine = machine(request)?;
    let watch = Stopwatch::start();
    let compiled = compile::compile(&request.options, &machine)
        .with_context(|| format!("while compiling for {}", request.machine.name))?;
    let weight = weigh::weigh(&compiled.lowered.program, &machine)?;
    let compile_time = watch.seconds();
    let watch = Stopwatch::start();
    let options = engine::Options {
        mode: Mode::Folded,
        trace_depth: 0,
    };
    let timeline = engine::time(&compiled.lowered.program, &machine, options)?;
    let host_seconds = HostTimes {
        compile: compile_time,
        simulate: watch.seconds(),
    };
    let seconds = |cycles: Cycles| machine.tile.clock.seconds(cycles);
    let step_seconds = seconds(timeline.total);
    Ok(Metrics {
        throughput_sequences_per_second: measure::sequences_per_second(
            &request.options.batching,
            step_seconds,
        ),
        step_seconds,
        step_cycles: timeline.total,
        latency_seconds: latency(&latencies(&compiled, &timeline, seconds)),
        host_seconds,
        fits: weight.verdict().is_ok(),
        out_of_memory: weight.verdict().err().map(|error| error.to_string()),
        ipus: memory(&weight),
    })
}

fn machine(request: &RunRequest) -> anyhow::Result<MachineSpec> {
    let name = &request.machine.name;
    let machine = match &request.machine.description {
        Description::Shipped => MachineSpec::shipped(name),
        Description::Text(text) => MachineSpec::from_toml(text),
    };
    let machine = machine.with_context(|| format!("machine description {name}"))?;
    let needed = request.options.placement.ipus_requested;
    anyhow::ensure!(
        machine.n_ipus >= needed,
        "{name} has {} IPUs, the run needs {needed}: choose a larger one with --system",
        machine.n_ipus
    );
    Ok(machine)
}

/// Latencies of the first and the last micro-batch of a step; those between are like the last.
fn latencies(
    compiled: &Compiled,
    timeline: &Timeline,
    seconds: impl Fn(Cycles) -> SimSeconds,
) -> Vec<SimSeconds> {
    if !compiled.inference {
        return Vec::new();
    }
    let read = compiled.lowered.inputs.first().map(|&(_, stream)| stream);
    let write = compiled.lowered.outputs.last().map(|&(_, stream)| stream);
    let (Some(read), Some(write)) = (read, write) else {
        return Vec::new();
    };
    let first = timeline.latency_first(read, write);
    let last = timeline.latency_last(read, write);
    let count = timeline.streams[write].map_or(0, |stream| stream.transfers);
    let mut out: Vec<SimSeconds> = first.into_iter().map(&seconds).collect();
    if let Some(last) = last {
        let later = usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX);
        out.extend(std::iter::repeat_n(seconds(last), later));
    }
    out
}

fn memory(weight: &Weight) -> Vec<IpuMemory> {
    weight
        .ipus
        .values()
        .map(|ipu| IpuMemory {
            max_tile_bytes: ipu.max(),
            total_bytes: ipu.total,
            bytes_by_category: weigh::Category::all()
                .map(|category| (category.name(), ipu.sum(category)))
                .collect(),
        })
        .collect()
}

/// The lines that a program's steps come from, with their share of the time: for tests and reports.
#[must_use]
pub fn slowest(program: &Program, timeline: &Timeline, count: usize) -> Vec<(String, Cycles)> {
    let mut lines: Vec<(String, Cycles)> = timeline
        .sources
        .iter()
        .map(|(id, ipus)| {
            let spent = ipus.values().map(|time| time.spent.total()).max();
            let source = program.source(id);
            (
                format!("{} {}", source.kind, source.name),
                spent.unwrap_or_default(),
            )
        })
        .collect();
    lines.sort_by_key(|(_, cycles)| std::cmp::Reverse(*cycles));
    lines.truncate(count);
    lines
}
